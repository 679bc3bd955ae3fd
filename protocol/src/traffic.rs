//! Policy of traffic: which version of a model a request gets while a canary is tried, and which
//! replica a request of a sequence prefers.
//!
//! A request belongs to a *unit*: a user, a session, or itself alone. The unit and the canary's
//! salt give a *bucket*, 0 to 9,999, and a canary of weight w gets the buckets below w. So a unit
//! keeps its version as long as weights do not change, on every node and after every restart;
//! rising weights keep those who are in; and another canary has another salt, so it is not always
//! the same users who try what is new. The vectors in `protocol/testdata/buckets.json` hold the
//! function for other languages.
//!
//! Requests of a *sequence* go to one replica: each has a [`preference`] of the sequence, the same at
//! every node and after every restart, and the one with the highest is taken (rendezvous hashing:
//! Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998). So when a
//! replica goes, only its own sequences move. The vectors are in
//! `protocol/testdata/preferences.json`.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::id::{Epoch, ModelName, ReplicaId};
use crate::limits::UNIT_BYTES_MAX;

/// All requests, in units of a weight: 1/10,000.
pub const WEIGHT_ALL: u16 = 10_000;

/// What a request belongs to that shall always get the same version: a user, a session, an order.
///
/// 1 to [`UNIT_BYTES_MAX`] bytes of text without control characters. It is hashed and kept
/// nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Unit(Box<str>);

/// A sequence, as routers know it: the high 64 bits of XXH3-128 (seed 0) of its name, which is a text
/// like a [`Unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

/// Why a text is no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It is empty or too long.
    #[error("a unit has 1 to {UNIT_BYTES_MAX} bytes, not {bytes}")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// It is not one line of text.
    #[error("a unit has no control characters; there is one at byte {at}")]
    Control {
        /// Where.
        at: usize,
    },
}

/// The salt of a model's canary: `NAME@EPOCH`, of the entry that began it.
pub fn salt(model: &ModelName, since: Epoch) -> String {
    format!("{model}@{since}")
}

/// The bucket of a unit, 0 to 9,999: the high 64 bits of XXH3-128 (seed 0) of salt, a zero byte and
/// unit, times 10,000, shifted right by 64 bits.
///
/// Every bucket has the same share of all units but for 10,000 in 2^64. Costs some 30 ns and
/// allocates nothing for salts and units within their limits. The algorithm is that of
/// <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.
pub fn bucket(salt: &str, unit: &[u8]) -> u16 {
    let mut buffer = [0; BUFFER_BYTES];
    let (salt, bytes) = (salt.as_bytes(), salt.len() + 1 + unit.len());
    let hash = match buffer.get_mut(..bytes) {
        Some(joined) => {
            joined[..salt.len()].copy_from_slice(salt);
            joined[salt.len() + 1..].copy_from_slice(unit);
            XxHash3_128::oneshot(joined)
        }
        None => XxHash3_128::oneshot(&[salt, &[0], unit].concat()),
    };
    let share = (hash >> 64) * u128::from(WEIGHT_ALL);
    (share >> 64) as u16
}

/// How much a sequence prefers a replica: the high 64 bits of XXH3-128 (seed 0) of the sequence and
/// the replica's id, each as eight bytes, the lowest first. Costs some 5 ns.
pub fn preference(sequence: Sequence, replica: ReplicaId) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sequence.0.to_le_bytes());
    bytes[8..].copy_from_slice(&replica.0.to_le_bytes());
    (XxHash3_128::oneshot(&bytes) >> 64) as u64
}

/// Whether a bucket belongs to a version of this weight.
pub fn is_in(bucket: u16, weight: u16) -> bool {
    bucket < weight
}

impl Unit {
    /// A unit of this text.
    ///
    /// # Errors
    /// [`UnitError`]
    pub fn new(text: impl Into<String>) -> Result<Self, UnitError> {
        let text = text.into();
        let bytes = text.len();
        if bytes == 0 || bytes > UNIT_BYTES_MAX {
            return Err(UnitError::Length { bytes });
        }
        match text.find(char::is_control) {
            Some(at) => Err(UnitError::Control { at }),
            None => Ok(Self(text.into_boxed_str())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is hashed.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Sequence {
    /// The sequence of this name.
    pub fn named(name: &Unit) -> Self {
        Self((XxHash3_128::oneshot(name.as_bytes()) >> 64) as u64)
    }
}

impl std::str::FromStr for Unit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Unit {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        Self::new(text)
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.0.into_string()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model's name, an epoch in decimal digits, a unit, and what separates them.
const BUFFER_BYTES: usize = 128 + 1 + 20 + 1 + UNIT_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Vector {
        salt: String,
        unit: String,
        bucket: u16,
    }

    #[test]
    fn buckets_are_those_of_the_vectors() {
        let text = include_str!("../testdata/buckets.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 64, "{}", vectors.len());
        let longest = vectors.iter().map(|v| v.salt.len() + v.unit.len()).max();
        assert!(longest > Some(BUFFER_BYTES), "both ways are taken");
        for Vector { salt, unit, bucket } in vectors {
            assert_eq!(
                super::bucket(&salt, unit.as_bytes()),
                bucket,
                "{salt} {unit}"
            );
        }
    }

    #[derive(Deserialize)]
    struct Preferred {
        sequence: String,
        replica: u64,
        preference: u64,
    }

    #[test]
    fn preferences_are_those_of_the_vectors() {
        let text = include_str!("../testdata/preferences.json");
        let vectors: Vec<Preferred> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 32, "{}", vectors.len());
        for Preferred {
            sequence,
            replica,
            preference,
        } in vectors
        {
            let name = Unit::new(sequence.as_str()).unwrap();
            let found = super::preference(Sequence::named(&name), ReplicaId(replica));
            assert_eq!(found, preference, "{sequence} {replica}");
        }
    }

    #[test]
    fn shares_follow_weights_and_growing_ones_keep_who_is_in() {
        let salt = salt(&ModelName::new("digits").unwrap(), Epoch(812));
        assert_eq!(salt, "digits@812");
        let buckets = (0..100_000_u32).map(|user| bucket(&salt, &user.to_le_bytes()));
        let buckets: Vec<u16> = buckets.collect();
        let mut before = vec![false; buckets.len()];
        for weight in [0, 100, 1_000, 5_000, WEIGHT_ALL] {
            let now: Vec<bool> = buckets.iter().map(|at| is_in(*at, weight)).collect();
            assert!(before.iter().zip(&now).all(|(before, now)| before <= now));
            let share = now.iter().filter(|is_in| **is_in).count() as f64 / 1e5;
            let wanted = f64::from(weight) / 1e4;
            // Five standard deviations.
            let bound = 5.0 * (wanted * (1.0 - wanted) / 1e5).sqrt();
            assert!((share - wanted).abs() <= bound, "{share} of {wanted}");
            before = now;
        }
    }

    #[test]
    fn two_canaries_choose_independently() {
        let name = ModelName::new("digits").unwrap();
        let (one, other) = (salt(&name, Epoch(1)), salt(&name, Epoch(2)));
        let is_tried = |salt: &str, user: u32| is_in(bucket(salt, &user.to_le_bytes()), 1_000);
        let tried = (0..100_000).filter(|user| is_tried(&one, *user));
        let (mut once, mut twice) = (0, 0);
        for user in tried {
            once += 1;
            twice += u32::from(is_tried(&other, user));
        }
        let share = f64::from(twice) / f64::from(once);
        assert!(
            (0.085..0.115).contains(&share),
            "a tenth of a tenth: {share}"
        );
    }

    #[test]
    fn what_is_no_unit_is_refused_by_what_is_allowed() {
        assert_eq!(
            Unit::new("").unwrap_err().to_string(),
            "a unit has 1 to 128 bytes, not 0"
        );
        assert_eq!(
            Unit::new("x".repeat(129)),
            Err(UnitError::Length { bytes: 129 })
        );
        assert_eq!(Unit::new("user\n7"), Err(UnitError::Control { at: 4 }));
        let unit = Unit::new("kunde-ä-7").unwrap();
        assert_eq!(serde_json::to_string(&unit).unwrap(), "\"kunde-ä-7\"");
        assert!(serde_json::from_str::<Unit>("\"\"").is_err());
    }
}
