//! Protocol buffers as they stand on the wire: fields are read where they lie, and written.
//!
//! Source: "Encoding", protobuf.dev/programming-guides/encoding. A reader owns nothing and allocates
//! nothing; lengths are compared with what is there before anything is sliced. Groups, which
//! version 3 of the language does not have, are refused.

use paceline_protocol::{ErrorCode, Failure};

/// A stretch of a message: a message inside it, a text, or packed values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    bytes: &'a [u8],
    /// Where it begins in the whole message, for sentences.
    at: usize,
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Its number in the description of its message.
    pub(super) number: u32,
    value: Value<'a>,
    at: usize,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Span(Span<'a>),
}

impl<'a> Span<'a> {
    /// A whole message.
    pub(super) fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// What is left of it.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Takes the next field from it; `None` at its end.
    ///
    /// # Errors
    /// It is cut off, or no field.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, Failure> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(u32::MAX);
        if number == 0 || number > NUMBER_MAX {
            return Err(malformed(at, "has a field without a number"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => Value::Span(self.span()?),
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(malformed(at, "has a field of no known wire type")),
        };
        Ok(Some(Field { number, value, at }))
    }

    /// Takes the next number of variable length.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Failure> {
        let mut value = 0;
        for (place, byte) in self.bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
            // The tenth byte has room for one bit.
            if place == VARINT_BYTES_MAX - 1 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.skip(place + 1);
                return Ok(value);
            }
        }
        let what = match self.bytes.len() < VARINT_BYTES_MAX {
            true => CUT_OFF,
            false => "has a number of more than 64 bits",
        };
        Err(malformed(self.at, what))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let Some((fixed, _)) = self.bytes.split_first_chunk::<N>() else {
            return Err(malformed(self.at, CUT_OFF));
        };
        self.skip(N);
        Ok(*fixed)
    }

    fn span(&mut self) -> Result<Self, Failure> {
        let at = self.at;
        let length = self.varint()?;
        match usize::try_from(length)
            .ok()
            .and_then(|length| self.bytes.get(..length))
        {
            Some(bytes) => {
                let span = Self { bytes, at: self.at };
                self.skip(bytes.len());
                Ok(span)
            }
            None => Err(malformed(
                at,
                "is cut off inside a field that says it is longer",
            )),
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.bytes = &self.bytes[bytes..];
        self.at += bytes;
    }
}

impl<'a> Field<'a> {
    /// Its text.
    ///
    /// # Errors
    /// It is none, or not UTF-8.
    pub(super) fn text(self, name: &str) -> Result<&'a str, Failure> {
        let bytes = self.span(name)?.bytes;
        std::str::from_utf8(bytes).map_err(|_| self.invalid(name, "is not text in UTF-8"))
    }

    /// Its message, bytes or packed values.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn span(self, name: &str) -> Result<Span<'a>, Failure> {
        match self.value {
            Value::Span(span) => Ok(span),
            _ => Err(self.invalid(name, WRONG_TYPE)),
        }
    }

    /// Its number of variable length.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn varint(self, name: &str) -> Result<u64, Failure> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.invalid(name, WRONG_TYPE)),
        }
    }

    /// Its float.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn double(self, name: &str) -> Result<f64, Failure> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(self.invalid(name, WRONG_TYPE)),
        }
    }

    /// Hands over its numbers of variable length: a single one, or packed ones.
    ///
    /// # Errors
    /// It has none, or one is refused.
    #[inline]
    pub(super) fn varints(
        self,
        name: &str,
        mut take: impl FnMut(u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.value {
            Value::Varint(value) => take(value),
            Value::Span(mut span) => {
                while !span.bytes.is_empty() {
                    take(span.varint()?)?;
                }
                Ok(())
            }
            _ => Err(self.invalid(name, WRONG_TYPE)),
        }
    }

    /// Its values of `N` bytes as they lie there: packed ones, or `None` for a single one, which is
    /// handed over.
    ///
    /// # Errors
    /// It has none, or a part of one.
    pub(super) fn fixed<const N: usize>(
        self,
        name: &str,
        single: impl FnOnce(&[u8]),
    ) -> Result<Option<&'a [u8]>, Failure> {
        match self.value {
            Value::Span(span) if span.bytes.len().is_multiple_of(N) => Ok(Some(span.bytes)),
            Value::Fixed32(bits) if N == 4 => {
                single(&bits.to_le_bytes());
                Ok(None)
            }
            Value::Fixed64(bits) if N == 8 => {
                single(&bits.to_le_bytes());
                Ok(None)
            }
            Value::Span(_) => Err(self.invalid(name, "ends inside a value")),
            _ => Err(self.invalid(name, WRONG_TYPE)),
        }
    }

    #[cold]
    fn invalid(self, name: &str, what: &str) -> Failure {
        let message = format!("{name}, at byte {} of the message, {what}", self.at);
        Failure::new(ErrorCode::MessageInvalid, message)
    }
}

#[cold]
fn malformed(at: usize, what: &str) -> Failure {
    let message = format!("the message {what}, at byte {at}");
    Failure::new(ErrorCode::MessageInvalid, message)
}

/// Writes a number of variable length.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a field that has a number.
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

/// Writes a field that has a float.
pub(super) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes what stands before the bytes of a field.
pub(super) fn length(out: &mut Vec<u8>, field: u32, bytes: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, bytes as u64);
}

/// Writes a field of bytes: text, a message, or packed values.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    length(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

const NUMBER_MAX: u32 = (1 << 29) - 1;
const VARINT_BYTES_MAX: usize = 10;
const CUT_OFF: &str = "is cut off";
const WRONG_TYPE: &str = "is not of the type that its field has";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(bytes: &[u8]) -> String {
        let mut span = Span::whole(bytes);
        loop {
            match span.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{bytes:?} was read"),
                Err(failure) => {
                    assert_eq!(failure.code, ErrorCode::MessageInvalid);
                    return failure.message.into_owned();
                }
            }
        }
    }

    #[test]
    fn what_is_malformed_is_named_with_its_place() {
        let long = [0x80; 11];
        let cases: [(&[u8], &str); 9] = [
            (&[0x08], "is cut off, at byte 1"),
            (&[0x08, 0x80], "is cut off, at byte 1"),
            (&[0x09, 1, 2, 3], "is cut off, at byte 1"),
            (&[0x0d, 1, 2], "is cut off, at byte 1"),
            (&[0x08, 1, 0x0a, 5, 1], "longer, at byte 3"),
            (&[0x02, 0], "without a number, at byte 0"),
            (&[0x0b], "no known wire type, at byte 0"),
            (&long, "more than 64 bits, at byte 0"),
            // A length of 2^62.
            (
                &[
                    0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 1,
                ],
                "longer, at byte 1",
            ),
        ];
        for (bytes, words) in cases {
            let said = refused(bytes);
            assert!(said.contains(words), "{bytes:?}: {said}");
        }
    }

    #[test]
    fn a_field_of_another_type_is_refused_by_name() {
        let mut span = Span::whole(&[0x08, 1]);
        let field = span.next().unwrap().unwrap();
        let failure = field.text("model_name").unwrap_err();
        assert!(
            failure.message.starts_with("model_name, at byte 0"),
            "{failure}"
        );
        assert!(field.double("x").is_err());
        assert!(field.fixed::<4>("x", |_| {}).is_err());
        let mut span = Span::whole(&[0x0a, 3, 1, 2, 3]);
        let field = span.next().unwrap().unwrap();
        assert!(field.varint("x").is_err());
        assert!(field.fixed::<4>("x", |_| {}).is_err(), "a part of a value");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64, float: f64, text in ".{0,40}", field in 1u32..2000) {
            let mut out = Vec::new();
            number(&mut out, field, value);
            double(&mut out, field + 1, float);
            bytes(&mut out, field + 2, text.as_bytes());
            let mut span = Span::whole(&out);
            let read = span.next()?.unwrap();
            prop_assert_eq!((read.number, read.varint("x")?), (field, value));
            let read = span.next()?.unwrap();
            prop_assert_eq!(read.double("x")?.to_bits(), float.to_bits());
            let read = span.next()?.unwrap();
            prop_assert_eq!((read.number, read.text("x")?), (field + 2, text.as_str()));
            prop_assert!(span.next()?.is_none());
        }

        #[test]
        fn whatever_comes_is_read_or_refused(noise: Vec<u8>) {
            let mut span = Span::whole(&noise);
            while let Ok(Some(field)) = span.next() {
                let _ = field.varints("x", |_| Ok(()));
            }
        }
    }
}
