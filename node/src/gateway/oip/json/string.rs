//! Strings: checked UTF-8, borrowed from the document unless they hold escapes.

use std::borrow::Cow;

use super::{JsonError, Problem, Reader};

impl<'a> Reader<'a> {
    /// Reads a string. Cost: one pass; allocates only if it holds an escape.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let mut unescaped = String::new();
        match self.string_into(&mut unescaped)? {
            Some(plain) => Ok(Cow::Borrowed(plain)),
            None => Ok(Cow::Owned(unescaped)),
        }
    }

    /// Reads a string: one without escapes is returned as it stands in the document; of one
    /// with escapes the text replaces the content of `unescaped`, and `None` is returned.
    pub(crate) fn string_into(
        &mut self,
        unescaped: &mut String,
    ) -> Result<Option<&'a str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a string"));
        }
        self.advance();
        let plain = self.plain_run()?;
        if self.bytes[self.at] == b'"' {
            self.advance();
            return Ok(Some(plain));
        }
        unescaped.clear();
        unescaped.push_str(plain);
        loop {
            if self.bytes[self.at] == b'"' {
                self.advance();
                return Ok(None);
            }
            self.advance();
            unescaped.push(self.escape()?);
            unescaped.push_str(self.plain_run()?);
        }
    }

    /// Text up to the next quote or backslash, at which the reader then stands.
    fn plain_run(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let rest = &self.bytes[start..];
        self.at += first_special(rest);
        match self.bytes.get(self.at) {
            Some(b'"' | b'\\') => {}
            Some(_) => return Err(self.error(Problem::Control)),
            None => return Err(self.expected("the end of a string")),
        }
        std::str::from_utf8(&self.bytes[start..self.at]).map_err(|error| {
            self.at = start + error.valid_up_to();
            self.error(Problem::Utf8)
        })
    }

    /// The character that an escape stands for; the reader stands behind its backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        let character = match self.bytes.get(self.at) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.advance();
                return self.unicode_escape();
            }
            _ => return Err(self.error(Problem::Escape)),
        };
        self.advance();
        Ok(character)
    }

    /// The reader stands behind `\u`.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let first = self.hexadecimal()?;
        let code = match first {
            0xd800..0xdc00 if self.bytes[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.hexadecimal()?;
                let low = second.wrapping_sub(0xdc00);
                if low < 0x400 {
                    0x10000 + ((first - 0xd800) << 10 | low)
                } else {
                    first
                }
            }
            _ => first,
        };
        char::from_u32(code).ok_or_else(|| {
            self.at = start;
            self.error(Problem::Surrogate)
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self
                .bytes
                .get(self.at)
                .and_then(|byte| char::from(*byte).to_digit(16));
            code = code << 4 | digit.ok_or_else(|| self.error(Problem::Escape))?;
            self.advance();
        }
        Ok(code)
    }
}

/// Offset of the first quote, backslash or control character; the length if there is none.
///
/// Eight bytes are looked at together: subtracting a pattern from each byte of a word borrows
/// into the byte's top bit exactly where the byte is smaller, and a false alarm can only stand
/// behind a true one ("Bit Twiddling Hacks", Sean Eron Anderson, `hasless` and `haszero`).
pub(super) fn first_special(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let (words, tail) = bytes.as_chunks::<8>();
    for (position, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let special = below(word, 0x20)
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1);
        if special != 0 {
            return position * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + tail.iter().position(is_special).unwrap_or(tail.len())
}
