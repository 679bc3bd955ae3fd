//! Where values of a datatype go while they are read: from JSON straight into a tensor's bytes.

use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use paceline_protocol::{AlignedBuffer, Dtype, ErrorCode, Failure, TensorSpec};

use super::super::super::json::{JsonError, NO_NUMBER, Number, Reader, behind_space, scan};
use super::super::excerpt;

/// Why values are refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It is not JSON.
    Json(JsonError),
    /// The value at this byte does not fit the datatype.
    Value(usize),
    /// What stands in the object at this byte is no base64.
    Base64(usize),
    /// There are too many or too few values in all.
    Count,
    /// The array that starts at `at` has `items` where the shape has `wanted`.
    Items { at: usize, items: u64, wanted: u64 },
    /// Values lie this deep.
    Depth(usize),
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// How many values a run had before it ended or failed.
pub(super) type Run = (u64, Result<(), Fault>);

/// Values of one datatype, as the tensor has them.
pub(super) struct Sink {
    dtype: Dtype,
    values: Values,
}

#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each input, on the stack of who reads it"
)]
enum Values {
    One(Column<1>),
    Two(Column<2>),
    Four(Column<4>),
    Eight(Column<8>),
    Strings(Strings),
}

/// Elements of any length.
struct Strings {
    buffer: AlignedBuffer,
    unescaped: String,
    /// Whether `{"b64":"…"}` stands for an element.
    in_base64: bool,
}

impl Sink {
    /// An empty one with room for so many values, or of strings for what so many bytes of JSON hold.
    ///
    /// # Errors
    /// `INPUT_DTYPE`: the datatype has no form in JSON.
    pub(super) fn new(spec: &TensorSpec, room: usize, bytes_left: usize) -> Result<Self, Failure> {
        let values = match spec.dtype {
            Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => Values::One(Column::with_room(room)),
            Dtype::Uint16 | Dtype::Int16 => Values::Two(Column::with_room(room)),
            Dtype::Uint32 | Dtype::Int32 | Dtype::Fp32 => Values::Four(Column::with_room(room)),
            Dtype::Uint64 | Dtype::Int64 | Dtype::Fp64 => Values::Eight(Column::with_room(room)),
            Dtype::Bytes => Values::Strings(Strings::with_room(bytes_left)),
            Dtype::Fp16 | Dtype::Bf16 => {
                let message = format!(
                    "input {}: {} has no form in JSON, send it as binary data (binary_data_size)",
                    excerpt(&spec.name),
                    spec.dtype
                );
                return Err(Failure::new(ErrorCode::InputDtype, message));
            }
        };
        let dtype = spec.dtype;
        Ok(Self { dtype, values })
    }

    /// From now on `{"b64":"…"}` stands for the bytes of an element, too.
    pub(super) fn with_base64(mut self) -> Self {
        if let Values::Strings(strings) = &mut self.values {
            strings.in_base64 = true;
        }
        self
    }

    /// Reads values up to the end of their array, at most `most`, which is not 0.
    #[inline]
    pub(super) fn run(&mut self, reader: &mut Reader<'_>, most: u64) -> Run {
        use Dtype as D;
        use Values as V;
        match (self.dtype, &mut self.values) {
            (D::Bool, V::One(column)) => mixed_run(reader, most, |reader| {
                column.push([boolean(reader)?]);
                Ok(())
            }),
            (D::Uint8, V::One(to)) => number_run(reader, most, &whole(u8::to_le_bytes), to),
            (D::Int8, V::One(to)) => number_run(reader, most, &whole(i8::to_le_bytes), to),
            (D::Uint16, V::Two(to)) => number_run(reader, most, &whole(u16::to_le_bytes), to),
            (D::Int16, V::Two(to)) => number_run(reader, most, &whole(i16::to_le_bytes), to),
            (D::Uint32, V::Four(to)) => number_run(reader, most, &whole(u32::to_le_bytes), to),
            (D::Int32, V::Four(to)) => number_run(reader, most, &whole(i32::to_le_bytes), to),
            (D::Fp32, V::Four(to)) => {
                number_run(reader, most, &|n| n.to_f32().map(f32::to_le_bytes), to)
            }
            (D::Uint64, V::Eight(to)) => number_run(reader, most, &whole(u64::to_le_bytes), to),
            (D::Int64, V::Eight(to)) => number_run(reader, most, &whole(i64::to_le_bytes), to),
            (D::Fp64, V::Eight(to)) => {
                number_run(reader, most, &|n| n.to_f64().map(f64::to_le_bytes), to)
            }
            (_, V::Strings(to)) => mixed_run(reader, most, |reader| to.take(reader)),
            _ => unreachable!("values are as wide as their datatype"),
        }
    }

    /// The tensor's bytes.
    pub(super) fn finish(self) -> Bytes {
        match self.values {
            Values::One(column) => column.finish(),
            Values::Two(column) => column.finish(),
            Values::Four(column) => column.finish(),
            Values::Eight(column) => column.finish(),
            Values::Strings(strings) => strings.buffer.freeze(),
        }
    }
}

impl Strings {
    fn with_room(bytes_left: usize) -> Self {
        let possible = bytes_left * 4 / 3;
        Self {
            buffer: AlignedBuffer::with_capacity(possible.min(STRINGS_START_BYTES)),
            unescaped: String::new(),
            in_base64: false,
        }
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let next = reader.peek();
        let at = reader.at();
        match next {
            Some(b'"') => {}
            Some(b'{') if self.in_base64 => return self.take_base64(reader, at),
            Some(byte) if starts_value(byte) => return Err(Fault::Value(at)),
            _ => {}
        }
        let text = reader.string_into(&mut self.unescaped)?;
        let text = text.unwrap_or(&self.unescaped).as_bytes();
        element(&mut self.buffer, text, at)
    }

    /// The reader stands before `{"b64":"…"}`.
    fn take_base64(&mut self, reader: &mut Reader<'_>, at: usize) -> Result<(), Fault> {
        let mut members = reader.object("{\"b64\":\"…\"}")?;
        let Some("b64") = members.next(reader)?.as_deref() else {
            return Err(Fault::Value(at));
        };
        let text = reader.string_into(&mut self.unescaped)?;
        let bytes = BASE64.decode(text.unwrap_or(&self.unescaped).as_bytes());
        element(&mut self.buffer, &bytes.map_err(|_| Fault::Base64(at))?, at)?;
        match members.next(reader)? {
            None => Ok(()),
            Some(_) => Err(Fault::Value(at)),
        }
    }
}

/// Appends an element as a tensor has it.
fn element(buffer: &mut AlignedBuffer, bytes: &[u8], at: usize) -> Result<(), Fault> {
    let length = u32::try_from(bytes.len()).map_err(|_| Fault::Value(at))?;
    buffer.extend(&length.to_le_bytes());
    buffer.extend(bytes);
    Ok(())
}

/// Values of one size on their way into a buffer, handed over many at a time.
struct Column<const N: usize> {
    buffer: AlignedBuffer,
    run: [[u8; N]; RUN],
    filled: usize,
}

/// Values that are collected before the buffer is asked whether it has room.
const RUN: usize = 64;
/// Room for strings at the start, in bytes; beyond it the buffer grows with what is there.
const STRINGS_START_BYTES: usize = 64 << 10;

impl<const N: usize> Column<N> {
    fn with_room(values: usize) -> Self {
        let buffer = AlignedBuffer::with_capacity(values * N);
        Self {
            buffer,
            run: [[0; N]; RUN],
            filled: 0,
        }
    }

    #[inline]
    fn push(&mut self, value: [u8; N]) {
        if self.filled == RUN {
            self.buffer.extend(self.run.as_flattened());
            self.filled = 0;
        }
        self.run[self.filled] = value;
        self.filled += 1;
    }

    fn finish(mut self) -> Bytes {
        self.buffer.extend(self.run[..self.filled].as_flattened());
        self.buffer.freeze()
    }
}

/// Reads numbers up to the end of their array, at most `most`, which is not 0. The reader then
/// stands behind the last one, or at the fault.
///
/// The text is a local value here, so that it stays in registers: through the reader, each
/// step would wait for the store of the one before.
fn number_run<const N: usize>(
    reader: &mut Reader<'_>,
    most: u64,
    convert: &impl Fn(Number<'_>) -> Option<[u8; N]>,
    column: &mut Column<N>,
) -> Run {
    let mut count = 0;
    let mut rest = reader.rest();
    loop {
        rest = behind_space(rest);
        let (number, behind) = match scan(rest) {
            Ok(scanned) => scanned,
            Err((broken, problem)) => {
                reader.resume(broken);
                return (count, Err(not_a_number(reader.error(problem))));
            }
        };
        let Some(value) = convert(number) else {
            reader.resume(rest);
            return (count, Err(Fault::Value(reader.at())));
        };
        column.push(value);
        count += 1;
        rest = behind_space(behind);
        match rest {
            [b',', behind @ ..] if count < most => rest = behind,
            _ => break,
        }
    }
    reader.resume(rest);
    (count, Ok(()))
}

/// The same for values that `take` reads one by one.
fn mixed_run(
    reader: &mut Reader<'_>,
    most: u64,
    mut take: impl FnMut(&mut Reader<'_>) -> Result<(), Fault>,
) -> Run {
    let mut count = 0;
    loop {
        if let Err(fault) = take(reader) {
            return (count, Err(fault));
        }
        count += 1;
        if count == most || reader.peek() != Some(b',') {
            return (count, Ok(()));
        }
        reader.advance();
    }
}

fn boolean(reader: &mut Reader<'_>) -> Result<u8, Fault> {
    if let Some(b't' | b'f') = reader.peek() {
        return Ok(u8::from(reader.boolean()?));
    }
    let at = reader.at();
    match reader.number().map_err(not_a_number)?.to_u64() {
        Some(value @ 0..=1) => Ok(value as u8),
        _ => Err(Fault::Value(at)),
    }
}

/// Whole numbers within a type's range, as its bytes.
fn whole<T: TryFrom<i128>, const N: usize>(
    bytes: impl Fn(T) -> [u8; N],
) -> impl Fn(Number<'_>) -> Option<[u8; N]> {
    move |number| {
        let (negative, magnitude) = number.to_integer()?;
        let magnitude = i128::from(magnitude);
        T::try_from(if negative { -magnitude } else { magnitude })
            .ok()
            .map(&bytes)
    }
}

/// A value of another kind is a misfit; anything else is not JSON.
#[cold]
fn not_a_number(error: JsonError) -> Fault {
    match error.found {
        Some(byte) if error.problem == NO_NUMBER && starts_value(byte) => Fault::Value(error.at),
        _ => Fault::Json(error),
    }
}

fn starts_value(byte: u8) -> bool {
    matches!(
        byte,
        b'"' | b't' | b'f' | b'n' | b'[' | b'{' | b'-' | b'0'..=b'9'
    )
}

/// How many values to set memory aside for. A value takes two bytes of JSON at least, itself
/// and a comma: what a shape claims beyond that cannot arrive.
pub(super) fn room(elements: u64, bytes_left: usize) -> usize {
    let possible = bytes_left / 2 + 1;
    usize::try_from(elements).unwrap_or(possible).min(possible)
}

/// A value that does not fit its datatype, in a sentence; `count` stand before it.
#[cold]
pub(super) fn misfit(reader: &Reader<'_>, spec: &TensorSpec, (count, at): (u64, usize)) -> String {
    format!(
        "element {count} of input {} is {}; {} takes {}",
        excerpt(&spec.name),
        shown(reader.document(), at),
        spec.dtype,
        Allowed(spec.dtype)
    )
}

/// What values a datatype takes, for a sentence.
struct Allowed(Dtype);

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most): (i64, u64) = match self.0 {
            Dtype::Bool => return f.write_str("true, false, 0 or 1"),
            Dtype::Bytes => return f.write_str("strings"),
            Dtype::Fp32 => return write!(f, "numbers from {:e} to {:e}", f32::MIN, f32::MAX),
            Dtype::Fp64 | Dtype::Fp16 | Dtype::Bf16 => {
                return write!(f, "numbers from {:e} to {:e}", f64::MIN, f64::MAX);
            }
            Dtype::Uint8 => (0, u8::MAX.into()),
            Dtype::Uint16 => (0, u16::MAX.into()),
            Dtype::Uint32 => (0, u32::MAX.into()),
            Dtype::Uint64 => (0, u64::MAX),
            Dtype::Int8 => (i8::MIN.into(), i8::MAX as u64),
            Dtype::Int16 => (i16::MIN.into(), i16::MAX as u64),
            Dtype::Int32 => (i32::MIN.into(), i32::MAX as u64),
            Dtype::Int64 => (i64::MIN, i64::MAX as u64),
        };
        write!(f, "whole numbers from {least} to {most}")
    }
}

/// A value of the document as a sentence can show it.
fn shown(document: &[u8], at: usize) -> String {
    const SHOWN_BYTES_MAX: usize = 32;
    let rest = document.get(at..).unwrap_or_default();
    match rest.first() {
        Some(b'[') => return "an array".to_owned(),
        Some(b'{') => return "an object".to_owned(),
        Some(b'"') => return "a string".to_owned(),
        _ => {}
    }
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
    let length = rest.iter().position(ends).unwrap_or(rest.len());
    let cut = &rest[..length.min(SHOWN_BYTES_MAX)];
    let mut text = cut.escape_ascii().to_string();
    if length > SHOWN_BYTES_MAX {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_set_aside_for_what_can_arrive() {
        assert_eq!(room(16, 1000), 16);
        assert_eq!(room(1_000_000_000, 100), 51);
        assert_eq!(room(u64::MAX, 0), 1);
    }
}
