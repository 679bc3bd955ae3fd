//! Tenants: who sends requests, what they may take, and the keys that they show.
//!
//! A key reads `pk_<id>_<secret and check>`. The registry keeps the id and the SHA-256 of the
//! secret, so that nobody who reads it can show the key. The check tells a mistyped key from one
//! that is not accepted, without asking anybody. A tenant may have two keys at a time, so that one
//! can take the other's place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::limits::{TENANT_LIMIT_MAX, TENANT_WEIGHT_MAX};
use crate::spelling::{Misspelt, read, spell};
use crate::token::Secret;

/// What a tenant may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLimits {
    /// Its share of a device that others wait for, too: of two tenants that weigh 1 and 3 the
    /// second gets three times as much. 1 to 100.
    pub weight: u32,
    /// Requests a second, over all nodes; `None` is as many as there is room for.
    pub requests_per_s: Option<u32>,
    /// Requests at a time, over all nodes; `None` is as many as there is room for.
    pub concurrency: Option<u32>,
}

/// What a tenant asked of a node within a second, whether it was let in or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Requests that came.
    pub arrivals: u32,
    /// The most that it wanted to have at a time.
    pub peak: u32,
}

/// Names an API key, not its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// What the registry knows of a key: enough to recognise its secret, not to show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Which one.
    pub id: KeyId,
    /// SHA-256 of the secret.
    pub secret_sha256: Digest,
}

/// What a tenant shows to be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiKey {
    /// Which key of the registry it is.
    pub id: KeyId,
    /// What only its holder knows.
    pub secret: Secret,
}

/// Why a text is not an API key. Never holds any of the text but single characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// It begins with something else, or has too few or too many parts.
    #[error("an API key reads pk_<id>_<secret>; `paceline tenant key add NAME` prints one")]
    Form,
    /// A part of it spells nothing.
    #[error("this is no API key: {0}")]
    Misspelt(#[from] Misspelt),
    /// Every part is well-formed, and they do not belong together.
    #[error("the API key is mistyped: its check does not fit the rest")]
    Check,
}

impl TenantLimits {
    /// Whether all values are within what is allowed.
    pub fn are_allowed(&self) -> bool {
        let rates = [self.requests_per_s, self.concurrency];
        let allowed = |rate: &u32| (1..=TENANT_LIMIT_MAX).contains(rate);
        (1..=TENANT_WEIGHT_MAX).contains(&self.weight) && rates.iter().flatten().all(allowed)
    }
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            weight: 1,
            requests_per_s: None,
            concurrency: None,
        }
    }
}

impl ApiKey {
    /// What texts begin with that shall be API keys.
    pub const PREFIX: &'static str = "pk_";

    /// The whole key as text. Whoever sees it is its tenant: show it once, and to its owner.
    pub fn reveal(&self) -> String {
        let mut last = self.secret.reveal().to_vec();
        last.extend(check(self));
        format!("{}{}_{}", Self::PREFIX, self.id, spell(&last))
    }

    /// What the registry may know of it.
    pub fn record(&self) -> KeyRecord {
        KeyRecord {
            id: self.id,
            secret_sha256: self.secret.digest(),
        }
    }
}

impl KeyRecord {
    /// Whether it is this key, in a time that does not depend on how much of it is right.
    pub fn fits(&self, key: &ApiKey) -> bool {
        let shown = key.secret.digest();
        let pairs = self.secret_sha256.0.iter().zip(&shown.0);
        self.id == key.id && pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let parts = text.strip_prefix(Self::PREFIX).ok_or(ApiKeyError::Form)?;
        let (id, last) = parts.split_once('_').ok_or(ApiKeyError::Form)?;
        let id = KeyId(read("id", id)?);
        let last: [u8; 32 + CHECK_BYTES] = read("secret", last)?;
        let mut secret = [0; 32];
        secret.copy_from_slice(&last[..32]);
        let key = Self {
            id,
            secret: Secret::new(secret),
        };
        if check(&key) != last[32..] {
            return Err(ApiKeyError::Check);
        }
        Ok(key)
    }
}

impl TryFrom<String> for ApiKey {
    type Error = ApiKeyError;

    fn try_from(text: String) -> Result<Self, ApiKeyError> {
        text.parse()
    }
}

impl From<ApiKey> for String {
    fn from(key: ApiKey) -> Self {
        key.reveal()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spell(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        Ok(Self(read("id", text)?))
    }
}

/// Text in human-readable formats, 8 raw bytes on the wire and in the log.
impl Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 8]>::deserialize(deserializer).map(Self)
        }
    }
}

/// The first bytes of a SHA-256 over all that the key says.
fn check(key: &ApiKey) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new()
        .chain_update(ApiKey::PREFIX)
        .chain_update(key.id.0)
        .chain_update(key.secret.reveal())
        .finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

/// One typo in 16 million goes unseen; with the secret they fill 56 characters exactly.
const CHECK_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_round_trips_and_has_one_spelling(
            id in any::<[u8; 8]>(),
            secret in any::<[u8; 32]>(),
            at in any::<prop::sample::Index>(),
            to in 0..128u8,
        ) {
            let key = ApiKey { id: KeyId(id), secret: Secret::new(secret) };
            let text = key.reveal();
            prop_assert_eq!(text.len(), 3 + 13 + 1 + 56);
            prop_assert!(key.record().fits(&key));
            prop_assert_eq!(text.parse::<ApiKey>(), Ok(key));
            let mut other = text.clone().into_bytes();
            let at = at.index(other.len());
            other[at] = to;
            let other = String::from_utf8(other).unwrap();
            prop_assert!(other == text || other.parse::<ApiKey>().is_err(), "{}", other);
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in ".{0,120}") {
            let _ = text.parse::<ApiKey>();
            let _ = format!("pk_{text}").parse::<ApiKey>();
        }
    }

    fn key() -> ApiKey {
        ApiKey {
            id: KeyId([0xff; 8]),
            secret: Secret::new([0xa5; 32]),
        }
    }

    #[test]
    fn another_secret_does_not_fit() {
        for byte in [0, 31] {
            let mut secret = [0xa5; 32];
            secret[byte] ^= 1;
            let other = ApiKey {
                secret: Secret::new(secret),
                ..key()
            };
            assert!(!key().record().fits(&other));
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is() {
        let text = key().reveal();
        let told = |text: &str| text.parse::<ApiKey>().unwrap_err().to_string();
        assert_eq!("sk-1".parse::<ApiKey>(), Err(ApiKeyError::Form));
        assert_eq!("pk_abc".parse::<ApiKey>(), Err(ApiKeyError::Form));
        let cut = told(&text[..text.len() - 1]);
        assert!(
            cut.contains("secret has 55 characters instead of 56"),
            "{cut}"
        );
        let typo = text.replacen("uws", "usw", 1);
        assert_eq!(typo.parse::<ApiKey>(), Err(ApiKeyError::Check));
        let shown = format!("{:?} {:?} {} {cut}", key(), key().record(), told(&typo));
        assert!(!shown.contains("uws2"), "{shown}");
    }

    #[test]
    fn limits_are_within_bounds() {
        let limits = TenantLimits::default();
        assert!(limits.are_allowed());
        for weight in [0, 101] {
            assert!(!TenantLimits { weight, ..limits }.are_allowed());
        }
        for rate in [0, TENANT_LIMIT_MAX + 1] {
            let (requests_per_s, concurrency) = (Some(rate), None);
            let limits = TenantLimits {
                requests_per_s,
                concurrency,
                ..limits
            };
            assert!(!limits.are_allowed());
        }
    }
}
