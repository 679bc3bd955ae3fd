//! Bytes as text that people copy: base32 (RFC 4648) in lower case without padding. Each value has
//! exactly one spelling.

use data_encoding::BASE32_NOPAD;

/// Why a part of a text spells no value. Never holds any of the text but a single character.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misspelt {
    /// It is too short or too long.
    #[error("its {part} has {chars} characters instead of {expected}")]
    Length {
        /// Which part.
        part: &'static str,
        /// How long it is.
        chars: usize,
        /// How long it has to be.
        expected: usize,
    },
    /// A character that is in no spelling.
    #[error("its {part} holds '{character}' at position {position}; allowed: a-z, 2-7")]
    Character {
        /// Which part.
        part: &'static str,
        /// The offending character, printable or escaped.
        character: String,
        /// Where it stands in the part, counted in characters from 0.
        position: usize,
    },
}

/// Bytes as text.
pub(crate) fn spell(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// The bytes that a part of a text spells.
pub(crate) fn read<const BYTES: usize>(
    part: &'static str,
    text: &str,
) -> Result<[u8; BYTES], Misspelt> {
    let wrong = |position: usize, character: char| Misspelt::Character {
        part,
        character: character.escape_default().to_string(),
        position,
    };
    let is_ours = |character: &char| matches!(character, 'a'..='z' | '2'..='7');
    if let Some((position, character)) = text.chars().enumerate().find(|(_, c)| !is_ours(c)) {
        return Err(wrong(position, character));
    }
    let length = Misspelt::Length {
        part,
        chars: text.len(),
        expected: BASE32_NOPAD.encode_len(BYTES),
    };
    if text.len() != BASE32_NOPAD.encode_len(BYTES) {
        return Err(length);
    }
    let upper = text.to_ascii_uppercase();
    // Bits behind the last byte must be zero: a second spelling is refused here.
    let bytes = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|error| {
        let position = error.position;
        wrong(position, char::from(text.as_bytes()[position]))
    })?;
    bytes.try_into().map_err(|_| length)
}
