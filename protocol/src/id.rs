//! Identities: newtypes, so that a node cannot be passed where a replica is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// A member of the cluster. It is the index of the log entry that admitted the node, is never
/// reused, and is 1 for the node that founded the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

/// One loaded copy of a version on one device. It is the index of the log entry that assigned
/// it and is never reused, so a request addressed to it can never reach a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u64);

/// The registry's log index that a decision was taken at. Epochs only rise.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The number of a version within its model: given by the registry, from 1 upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(pub u32);

/// A device of a node: a pool of CPU threads or one GPU, counted from 0 on each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u16);

/// Names a join token: the half of it that is no secret. Its text form stands in `token.rs`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

/// Index of the registry entry that made a tenant: short where its name would travel with each
/// request. Never used twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TenantId(pub u64);

impl TenantId {
    /// Whose copies for shadows are: no tenant's, so that none is charged for them.
    pub const SHADOWS: Self = Self(u64::MAX);
}

/// Names one intended write, chosen by its author. A repeat with the same id is answered with
/// the first answer and changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u128);

/// SHA-256 of an artifact's manifest, or of one file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The name that clients address a model by: `[a-z0-9][a-z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Box<str>);

/// Who owns models and pays for requests. Same alphabet as [`ModelName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

impl NodeId {
    /// The node that founded the cluster.
    pub const FOUNDER: Self = Self(1);
}

impl TenantId {
    /// The tenant of requests without a key, and of a cluster that has declared none.
    pub const DEFAULT: Self = Self(0);
}

impl ModelName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] names the first offence and what is allowed.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        checked_name(name.into()).map(|name| Self(name.into_boxed_str()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TenantName {
    /// The tenant of a cluster that has declared none.
    pub const DEFAULT: &'static str = "default";

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] names the first offence and what is allowed.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        checked_name(name.into()).map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a name must not be empty; allowed: [a-z0-9][a-z0-9._-]{{0,127}}")]
    Empty,
    /// The name is too long.
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The name holds a character outside its alphabet.
    #[error(
        "'{character}' at position {position} is not allowed in a name; \
         allowed: [a-z0-9][a-z0-9._-]{{0,127}}"
    )]
    Character {
        /// The offending character, printable or escaped.
        character: String,
        /// Where it stands, counted in characters from 0.
        position: usize,
    },
}

impl TryFrom<String> for ModelName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0.into_string()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TenantName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpId({self})")
    }
}

impl FromStr for OpId {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError {
            text_bytes: text.len(),
            digits: 32,
        };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| wrong())
    }
}

/// Why a text is not a digest or an op-id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected {digits} lower-case hexadecimal digits, got {text_bytes} bytes of something else"
)]
pub struct DigestError {
    /// Length of what was given.
    pub text_bytes: usize,
    /// How many digits were wanted.
    pub digits: usize,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Takes exactly 64 lower-case hexadecimal digits: one spelling, so that a digest can be
    /// a file name without ever being a path.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError {
            text_bytes: text.len(),
            digits: 64,
        };
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(wrong());
        }
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or_else(wrong)?;
            let low = hex_digit(pair[1]).ok_or_else(wrong)?;
            *byte = high << 4 | low;
        }
        Ok(Self(out))
    }
}

/// 32 hexadecimal digits in human-readable formats, whose numbers are too short for it; a
/// number on the wire and in the log.
impl Serialize for OpId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for OpId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            u128::deserialize(deserializer).map(Self)
        }
    }
}

/// Text in human-readable formats (JSON, TOML), 32 raw bytes on the wire and in the log.
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn checked_name(name: String) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    for (position, character) in name.chars().enumerate() {
        let alphanumeric = character.is_ascii_lowercase() || character.is_ascii_digit();
        let inner = position > 0 && matches!(character, '.' | '_' | '-');
        if !alphanumeric && !inner {
            let character = character.escape_default().to_string();
            return Err(NameError::Character {
                character,
                position,
            });
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outside_its_alphabet_is_refused_with_the_offence() {
        for good in ["a", "0", "digits", "a.b_c-d", "7b", &"x".repeat(128)] {
            assert_eq!(ModelName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ModelName::new(""), Err(NameError::Empty));
        assert_eq!(
            ModelName::new("x".repeat(129)),
            Err(NameError::TooLong { bytes: 129 })
        );
        for (bad, position) in [
            ("../x", 0),
            ("a/b", 1),
            ("A", 0),
            (".a", 0),
            ("a\0b", 1),
            ("ä", 0),
            ("a b", 1),
        ] {
            match ModelName::new(bad) {
                Err(NameError::Character { position: at, .. }) => assert_eq!(at, position, "{bad}"),
                other => panic!("{bad} gave {other:?}"),
            }
        }
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = Digest([0xab; 32]);
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        for bad in [
            "",
            "ab",
            &"AB".repeat(32),
            &"../".repeat(21),
            &"g".repeat(64),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_op_id_round_trips_as_text() {
        let id = OpId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string().parse::<OpId>(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<OpId>(&json).unwrap(), id);
        assert!("+123456789abcdef0011223344556677".parse::<OpId>().is_err());
    }
}
