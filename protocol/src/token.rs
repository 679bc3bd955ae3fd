//! Join tokens: `pcl1.<id>.<secret>.<pin and check>`, what an operator carries to a new machine.
//!
//! The pin is the SHA-256 of the public key of the cluster's authority: it tells the new node
//! whom it may believe before it has a certificate of its own. The secret tells the cluster
//! whom it may admit; the registry keeps only its SHA-256. The check tells a mistyped token
//! from one that is not accepted, without asking anybody.
//!
//! Each part is base32 (RFC 4648) in lower case without padding, and each token has exactly
//! one spelling. Secrets are in no `Debug` and no `Display`: only [`JoinToken::reveal`] has
//! the text, for the one answer that shows it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{Digest, TokenId};
use crate::spelling::{Misspelt, read, spell};

/// 32 random bytes that must not be seen. Compared in constant time, printed as `***`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret([u8; 32]);

/// What admits nodes to one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Which token of the registry it is.
    pub id: TokenId,
    /// What only its holder knows.
    pub secret: Secret,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER) of the cluster's authority.
    pub pin: Digest,
}

/// Why a text is not a join token. Never holds any of the text but single characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It begins with something else.
    #[error("a join token begins with '{PREFIX}.'; `paceline token create` prints one")]
    Prefix,
    /// It has too few or too many parts.
    #[error("a join token has 4 parts between dots, this one has {parts}: it was cut or joined")]
    Parts {
        /// How many it has.
        parts: usize,
    },
    /// A part is too short or too long.
    #[error("the {part} of the token has {chars} characters instead of {expected}")]
    Length {
        /// Which part.
        part: &'static str,
        /// How long it is.
        chars: usize,
        /// How long it has to be.
        expected: usize,
    },
    /// A character that no token has.
    #[error(
        "the {part} of the token holds '{character}' at position {position}; allowed: a-z, 2-7"
    )]
    Character {
        /// Which part.
        part: &'static str,
        /// The offending character, printable or escaped.
        character: String,
        /// Where it stands in the part, counted in characters from 0.
        position: usize,
    },
    /// Every part is well-formed, and they do not belong together.
    #[error("the token is mistyped: its check does not fit the rest")]
    Check,
}

impl From<Misspelt> for TokenError {
    fn from(misspelt: Misspelt) -> Self {
        match misspelt {
            Misspelt::Length {
                part,
                chars,
                expected,
            } => Self::Length {
                part,
                chars,
                expected,
            },
            Misspelt::Character {
                part,
                character,
                position,
            } => Self::Character {
                part,
                character,
                position,
            },
        }
    }
}

impl Secret {
    /// Takes bytes that were drawn at random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever must send or store them.
    pub const fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256: what may be kept by those who only have to recognise the secret. It needs no
    /// slow hash, since 256 random bits cannot be guessed.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.0).into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JoinToken {
    /// The whole token as text. Whoever sees it can join: show it once, and to its owner.
    pub fn reveal(&self) -> String {
        let mut text = format!("{PREFIX}.{}.{}.", self.id, spell(self.secret.reveal()));
        let mut last = self.pin.0.to_vec();
        last.extend(check(self));
        text.push_str(&spell(&last));
        text
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.split('.').collect();
        if parts[0] != PREFIX {
            return Err(TokenError::Prefix);
        }
        let [_, id, secret, last] = parts[..] else {
            let parts = parts.len();
            return Err(TokenError::Parts { parts });
        };
        let last: [u8; 32 + CHECK_BYTES] = read("last part", last)?;
        let mut pin = [0; 32];
        pin.copy_from_slice(&last[..32]);
        let token = Self {
            id: id.parse()?,
            secret: Secret(read("secret", secret)?),
            pin: Digest(pin),
        };
        if check(&token) != last[32..] {
            return Err(TokenError::Check);
        }
        Ok(token)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spell(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Ok(Self(read("id", text)?))
    }
}

/// Text in human-readable formats, 8 raw bytes on the wire and in the log.
impl Serialize for TokenId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            <[u8; 8]>::deserialize(deserializer).map(Self)
        }
    }
}

/// The first bytes of a SHA-256 over all that the token says.
fn check(token: &JoinToken) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new()
        .chain_update(PREFIX)
        .chain_update(token.id.0)
        .chain_update(token.secret.reveal())
        .chain_update(token.pin.0)
        .finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

const PREFIX: &str = "pcl1";
/// One typo in 16 million goes unseen; with the pin they fill 56 characters exactly.
const CHECK_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> impl Strategy<Value = JoinToken> {
        let parts = (any::<[u8; 8]>(), any::<[u8; 32]>(), any::<[u8; 32]>());
        parts.prop_map(|(id, secret, pin)| JoinToken {
            id: TokenId(id),
            secret: Secret(secret),
            pin: Digest(pin),
        })
    }

    proptest! {
        #[test]
        fn a_token_round_trips_and_has_one_spelling(token in tokens(), at in any::<prop::sample::Index>(), to in 0..128u8) {
            let text = token.reveal();
            prop_assert_eq!(text.len(), 4 + 1 + 13 + 1 + 52 + 1 + 56);
            prop_assert_eq!(text.parse::<JoinToken>(), Ok(token));
            let mut other = text.clone().into_bytes();
            let at = at.index(other.len());
            other[at] = to;
            let other = String::from_utf8(other).unwrap();
            prop_assert!(other == text || other.parse::<JoinToken>().is_err(), "{}", other);
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in ".{0,200}") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("pcl1.{text}").parse::<JoinToken>();
        }
    }

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId([0xff; 8]),
            secret: Secret([0xa5; 32]),
            pin: Digest([7; 32]),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = token().reveal();
        let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse(""), TokenError::Prefix);
        assert_eq!(parse("pk_secret"), TokenError::Prefix);
        assert_eq!(parse(&text.replacen("pcl1", "pcl2", 1)), TokenError::Prefix);
        assert_eq!(parse("pcl1.a.b"), TokenError::Parts { parts: 3 });
        let cut = parse(&text[..text.len() - 3]).to_string();
        assert!(cut.contains("53 characters instead of 56"), "{cut}");
        let upper = parse(&text.to_ascii_uppercase().replacen("PCL1", "pcl1", 1));
        assert!(
            matches!(upper, TokenError::Character { position: 0, .. }),
            "{upper}"
        );
        let space = parse(&format!("{text} "));
        assert!(
            matches!(space, TokenError::Character { position: 56, .. }),
            "{space}"
        );
        // The two characters stand in the secret, which is otherwise `uws2…`.
        let typo = text.replacen("uws", "usw", 1);
        assert_ne!(typo, text);
        assert_eq!(parse(&typo), TokenError::Check);
    }

    #[test]
    fn a_secret_is_in_no_output_but_the_one_that_reveals_it() {
        let token = token();
        let secret = spell(token.secret.reveal());
        assert!(token.reveal().contains(&secret));
        let shown = format!("{token:?} {:?} {:#?}", token.secret, token);
        assert!(shown.contains("***"), "{shown}");
        for spelling in [secret.as_str(), "a5a5", "165, 165"] {
            assert!(!shown.contains(spelling), "{shown}");
        }
        let mistyped = format!("{}x", token.reveal()).parse::<JoinToken>();
        let mistyped = mistyped.unwrap_err();
        let shown = format!("{mistyped:?} {mistyped}");
        assert!(!shown.contains(&secret[..8]), "{shown}");
    }

    #[test]
    fn an_id_is_text_for_people_and_bytes_for_nodes() {
        let id = token().id;
        assert_eq!(id.to_string(), "7777777777776");
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"7777777777776\"");
        assert_eq!(
            serde_json::from_str::<TokenId>("\"7777777777776\"").unwrap(),
            id
        );
        assert_eq!(crate::wire::encode(&id).unwrap(), [0xff; 8]);
        assert!("7777777777777".parse::<TokenId>().is_err(), "a spare bit");
    }
}
