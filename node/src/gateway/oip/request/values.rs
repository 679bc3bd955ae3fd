//! Values in JSON, flat or nested, written straight into a tensor's bytes.

use std::fmt;

use bytes::Bytes;
use paceline_protocol::{AlignedBuffer, Dtype, ErrorCode, Failure, Shape, Tensor, TensorSpec};

use super::super::json::{JsonError, NO_NUMBER, Number, Reader, behind_space, scan};
use super::excerpt;

/// Reads the `data` of an input. Cost: one pass, one allocation, none for each value.
pub(super) fn read(
    reader: &mut Reader<'_>,
    spec: &TensorSpec,
    shape: Shape,
) -> Result<Tensor, Failure> {
    let mut walk = Walk { shape, count: 0 };
    let data = match spec.dtype {
        Dtype::Bool => walk.booleans(reader),
        Dtype::Uint8 => walk.numbers(reader, |number| integer(number, u8::to_le_bytes)),
        Dtype::Uint16 => walk.numbers(reader, |number| integer(number, u16::to_le_bytes)),
        Dtype::Uint32 => walk.numbers(reader, |number| integer(number, u32::to_le_bytes)),
        Dtype::Uint64 => walk.numbers(reader, |number| integer(number, u64::to_le_bytes)),
        Dtype::Int8 => walk.numbers(reader, |number| integer(number, i8::to_le_bytes)),
        Dtype::Int16 => walk.numbers(reader, |number| integer(number, i16::to_le_bytes)),
        Dtype::Int32 => walk.numbers(reader, |number| integer(number, i32::to_le_bytes)),
        Dtype::Int64 => walk.numbers(reader, |number| integer(number, i64::to_le_bytes)),
        Dtype::Fp32 => walk.numbers(reader, |number| number.to_f32().map(f32::to_le_bytes)),
        Dtype::Fp64 => walk.numbers(reader, |number| number.to_f64().map(f64::to_le_bytes)),
        Dtype::Bytes => walk.strings(reader),
        Dtype::Fp16 | Dtype::Bf16 => {
            let message = format!(
                "input {}: {} has no form in JSON, send it as binary data (binary_data_size)",
                excerpt(&spec.name),
                spec.dtype
            );
            return Err(Failure::new(ErrorCode::InputDtype, message));
        }
    };
    let data = data.map_err(|fault| walk.failure(reader, spec, fault))?;
    Tensor::new(spec.dtype, shape, data).map_err(|error| {
        let message = format!("input {}: {error}", excerpt(&spec.name));
        Failure::new(ErrorCode::InputValues, message)
    })
}

/// Why `data` is refused.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is not JSON.
    Json(JsonError),
    /// The value at this byte does not fit the datatype.
    Value(usize),
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

/// A walk through the brackets of `data`.
struct Walk {
    shape: Shape,
    /// Values met so far.
    count: u64,
}

/// How many values a run had before it ended or failed.
type Run = (u64, Result<(), Fault>);

impl Walk {
    fn numbers<const N: usize>(
        &mut self,
        reader: &mut Reader<'_>,
        convert: impl Fn(Number<'_>) -> Option<[u8; N]>,
    ) -> Result<Bytes, Fault> {
        let mut column = Column::with_room(room(self.shape.elements(), reader.rest().len()));
        self.array(reader, 1, &mut |reader, most| {
            number_run(reader, most, &convert, &mut column)
        })?;
        Ok(column.finish())
    }

    fn booleans(&mut self, reader: &mut Reader<'_>) -> Result<Bytes, Fault> {
        let mut column = Column::with_room(room(self.shape.elements(), reader.rest().len()));
        self.array(reader, 1, &mut |reader, most| {
            mixed_run(reader, most, |reader| {
                column.push([boolean(reader)?]);
                Ok(())
            })
        })?;
        Ok(column.finish())
    }

    fn strings(&mut self, reader: &mut Reader<'_>) -> Result<Bytes, Fault> {
        let possible = reader.rest().len() * 4 / 3;
        let mut buffer = AlignedBuffer::with_capacity(possible.min(STRINGS_START_BYTES));
        let mut unescaped = String::new();
        self.array(reader, 1, &mut |reader, most| {
            mixed_run(reader, most, |reader| {
                if reader
                    .peek()
                    .is_some_and(|byte| byte != b'"' && starts_value(byte))
                {
                    return Err(Fault::Value(reader.at()));
                }
                let at = reader.at();
                let text = reader.string_into(&mut unescaped)?;
                let text = text.unwrap_or(&unescaped).as_bytes();
                let length = u32::try_from(text.len()).map_err(|_| Fault::Value(at))?;
                buffer.extend(&length.to_le_bytes());
                buffer.extend(text);
                Ok(())
            })
        })?;
        Ok(buffer.freeze())
    }

    /// Reads the array at `level`, counted from 1. It calls itself once a dimension at most.
    fn array(
        &mut self,
        reader: &mut Reader<'_>,
        level: usize,
        run: &mut impl FnMut(&mut Reader<'_>, u64) -> Run,
    ) -> Result<(), Fault> {
        let rank = self.shape.dims().len();
        reader.peek();
        let at = reader.at();
        let mut items = reader.array("an array of values")?;
        let mut here = 0;
        let nested = reader.peek() == Some(b'[');
        if nested && level >= rank {
            return Err(Fault::Depth(level + 1));
        }
        while items.next(reader)? {
            let room = self.shape.elements() - self.count.min(self.shape.elements());
            if nested {
                self.array(reader, level + 1, run)?;
                here += 1;
            } else if room > 0 {
                let (values, end) = run(reader, room);
                self.count += values;
                here += values;
                end?;
            } else {
                // One value too many; the rest is counted for the sake of the sentence.
                reader.skip()?;
                self.count += 1;
                here += 1;
            }
        }
        if level == 1 && !nested {
            return if here == self.shape.elements() {
                Ok(())
            } else {
                Err(Fault::Count)
            };
        }
        if !nested && here > 0 && level != rank {
            return Err(Fault::Depth(level));
        }
        let wanted = self.shape.dims()[level - 1];
        if here == wanted {
            Ok(())
        } else {
            Err(Fault::Items {
                at,
                items: here,
                wanted,
            })
        }
    }

    #[cold]
    fn failure(&self, reader: &Reader<'_>, spec: &TensorSpec, fault: Fault) -> Failure {
        let (name, dtype, shape) = (excerpt(&spec.name), spec.dtype, self.shape);
        let message = match fault {
            Fault::Json(error) => return error.into(),
            Fault::Value(at) => format!(
                "element {} of input {name} is {}; {dtype} takes {}",
                self.count,
                shown(reader.document(), at),
                Allowed(dtype)
            ),
            Fault::Count => format!(
                "input {name}: shape {shape} needs {} values, its data has {}",
                shape.elements(),
                self.count
            ),
            Fault::Items { at, items, wanted } => format!(
                "input {name}: shape {shape} wants {wanted} items in the array at byte {at}, \
                 which has {items}"
            ),
            Fault::Depth(depth) => format!(
                "input {name}: its data is nested {depth} deep; shape {shape} takes flat data \
                 or data nested {} deep",
                shape.dims().len()
            ),
        };
        Failure::new(ErrorCode::InputValues, message)
    }
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

/// How many values to set memory aside for. A value takes two bytes of JSON at least, itself
/// and a comma: what a shape claims beyond that cannot arrive.
fn room(elements: u64, bytes_left: usize) -> usize {
    let possible = bytes_left / 2 + 1;
    usize::try_from(elements).unwrap_or(possible).min(possible)
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

#[inline]
fn integer<T: TryFrom<i128>, const N: usize>(
    number: Number<'_>,
    bytes: impl Fn(T) -> [u8; N],
) -> Option<[u8; N]> {
    let (negative, magnitude) = number.to_integer()?;
    let magnitude = i128::from(magnitude);
    T::try_from(if negative { -magnitude } else { magnitude })
        .ok()
        .map(bytes)
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
