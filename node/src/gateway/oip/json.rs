//! A JSON reader that makes one pass over the bytes and builds no tree.
//!
//! It accepts exactly what RFC 8259 calls JSON, in UTF-8, nested at most [`JSON_DEPTH_MAX`]
//! deep: no NaN, no comments, no trailing commas, no lone surrogates, nothing behind the
//! document. What is skipped is checked as strictly as what is read. Recursion is nowhere, so
//! a hostile document costs time in proportion to its length and no stack.

mod number;
mod skip;
mod string;
pub(crate) mod write;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use paceline_protocol::limits::JSON_DEPTH_MAX;
use paceline_protocol::{ErrorCode, Failure};

pub(crate) use number::{NO_NUMBER, Number, scan};

/// Why bytes are not the JSON that was wanted, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct JsonError {
    /// Offset from the start of the document, in bytes.
    pub(crate) at: usize,
    /// The byte found there; `None` at the end.
    pub(crate) found: Option<u8>,
    /// What is wrong with it.
    pub(crate) problem: Problem,
}

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Something else was wanted here.
    Expected(&'static str),
    /// Nested too deep.
    Depth,
    /// The token NaN, Infinity or -Infinity.
    NotFinite,
    /// A number outside JSON's grammar.
    Number,
    /// A backslash followed by something that is no escape.
    Escape,
    /// Half of a surrogate pair.
    Surrogate,
    /// A bare control character in a string.
    Control,
    /// A string that is not UTF-8.
    Utf8,
    /// Something behind the end of the document.
    Trailing,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.problem {
            Problem::Expected(what) => write!(f, "expected {what} at byte {at}, found ")?,
            Problem::Depth => {
                return write!(
                    f,
                    "the JSON is nested deeper than {JSON_DEPTH_MAX} at byte {at}"
                );
            }
            Problem::NotFinite => {
                let sentence = "JSON has no NaN or Infinity, send such values as binary data";
                return write!(f, "{sentence}: byte {at}");
            }
            Problem::Number => {
                write!(f, "malformed number: expected a digit at byte {at}, found ")?
            }
            Problem::Escape => return write!(f, "unknown escape in a string at byte {at}"),
            Problem::Surrogate => {
                return write!(f, "half of a surrogate pair in a string at byte {at}");
            }
            Problem::Control => {
                return write!(f, "unescaped control character in a string at byte {at}");
            }
            Problem::Utf8 => return write!(f, "a string is not UTF-8 at byte {at}"),
            Problem::Trailing => {
                write!(f, "expected the end of the JSON at byte {at}, found ")?;
            }
        }
        match self.found {
            None => f.write_str("the end"),
            Some(byte @ 0x21..0x7f) => write!(f, "'{}'", char::from(byte)),
            Some(byte) => write!(f, "byte 0x{byte:02x}"),
        }
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self::new(ErrorCode::JsonInvalid, error.to_string())
    }
}

/// A position in a document, and how deep it lies.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// At the first byte of a document.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
        }
    }

    /// The whole document.
    pub(crate) fn document(&self) -> &'a [u8] {
        self.bytes
    }

    /// Offset of the next byte to be read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What is left of the document.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Goes on where `rest` begins, which is the end of the document.
    pub(crate) fn resume(&mut self, rest: &'a [u8]) {
        self.at = self.bytes.len() - rest.len();
    }

    /// Skips white space and shows the next byte.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let rest = behind_space(&self.bytes[self.at..]);
        self.at = self.bytes.len() - rest.len();
        rest.first().copied()
    }

    /// Steps over the byte that was just peeked.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.at += 1;
    }

    /// An error at the next byte.
    #[cold]
    pub(crate) fn expected(&self, what: &'static str) -> JsonError {
        self.error(Problem::Expected(what))
    }

    /// Refuses everything but white space up to the end.
    pub(crate) fn end(mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error(Problem::Trailing)),
        }
    }

    /// Steps into `{`; `what` says what was wanted, for the error.
    pub(crate) fn object(&mut self, what: &'static str) -> Result<Members, JsonError> {
        self.open(b'{', what)?;
        Ok(Members { first: true })
    }

    /// Steps into `[`.
    pub(crate) fn array(&mut self, what: &'static str) -> Result<Items, JsonError> {
        self.open(b'[', what)?;
        Ok(Items { first: true })
    }

    /// Steps over `null`, if that is what comes next.
    pub(crate) fn null(&mut self) -> Result<bool, JsonError> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.literal(b"null").map(|()| true)
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b't') => self.literal(b"true").map(|()| true),
            Some(b'f') => self.literal(b"false").map(|()| false),
            _ => Err(self.expected("true or false")),
        }
    }

    fn open(&mut self, bracket: u8, what: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(bracket) {
            return Err(self.expected(what));
        }
        if self.depth == JSON_DEPTH_MAX {
            return Err(self.error(Problem::Depth));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.expected("a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    #[cold]
    pub(crate) fn error(&self, problem: Problem) -> JsonError {
        JsonError {
            at: self.at,
            found: self.bytes.get(self.at).copied(),
            problem,
        }
    }
}

/// Text without the white space that it begins with.
#[inline]
pub(crate) fn behind_space(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let [b' ' | b'\n' | b'\r' | b'\t', behind @ ..] = rest {
        rest = behind;
    }
    rest
}

/// Where the reader stands inside an object.
#[derive(Debug)]
pub(crate) struct Members {
    first: bool,
}

impl Members {
    /// The next key, with the reader before its value; `None` once the object is closed.
    pub(crate) fn next<'a>(
        &mut self,
        reader: &mut Reader<'a>,
    ) -> Result<Option<Cow<'a, str>>, JsonError> {
        match (reader.peek(), self.first) {
            (Some(b'}'), _) => {
                reader.close();
                return Ok(None);
            }
            (Some(b','), false) => reader.advance(),
            (_, false) => return Err(reader.expected("',' or '}'")),
            (_, true) => {}
        }
        self.first = false;
        if reader.peek() != Some(b'"') {
            return Err(reader.expected("a key in quotes"));
        }
        let key = reader.string()?;
        if reader.peek() != Some(b':') {
            return Err(reader.expected("':'"));
        }
        reader.advance();
        Ok(Some(key))
    }
}

/// Where the reader stands inside an array.
#[derive(Debug)]
pub(crate) struct Items {
    first: bool,
}

impl Items {
    /// Whether the reader stands before another item; `false` once the array is closed.
    pub(crate) fn next(&mut self, reader: &mut Reader<'_>) -> Result<bool, JsonError> {
        match (reader.peek(), self.first) {
            (Some(b']'), true) => {
                reader.close();
                Ok(false)
            }
            (_, true) => {
                self.first = false;
                Ok(true)
            }
            (Some(b']'), false) => {
                reader.close();
                Ok(false)
            }
            (Some(b','), false) => {
                reader.advance();
                Ok(true)
            }
            (_, false) => Err(reader.expected("',' or ']'")),
        }
    }
}

/// The keys of one object that were met so far: each may stand there once.
///
/// A key that stands twice is where two readers of one document come to disagree.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    known: &'static [&'static str],
    met: u32,
    others: BTreeSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// None met yet; `known` are those with a meaning, at most 32.
    pub(crate) fn new(known: &'static [&'static str]) -> Self {
        Self {
            known,
            met: 0,
            others: BTreeSet::new(),
        }
    }

    /// Notes a key. `Ok` holds the known key that it is, or `None` for one without meaning;
    /// `Err` returns a key that was met before.
    pub(crate) fn note(&mut self, key: Cow<'a, str>) -> Result<Option<&'static str>, Cow<'a, str>> {
        match self.known.iter().position(|known| *known == key) {
            Some(position) if self.met & 1 << position != 0 => Err(key),
            Some(position) => {
                self.met |= 1 << position;
                Ok(Some(self.known[position]))
            }
            None if self.others.contains(&key) => Err(key),
            None => {
                // They mean nothing: no more of them are remembered than a request could need.
                if self.others.len() < OTHERS_MAX {
                    self.others.insert(key);
                }
                Ok(None)
            }
        }
    }
}

/// Keys without meaning that are remembered, to find one that stands twice.
const OTHERS_MAX: usize = 64;

#[cfg(test)]
mod tests;
