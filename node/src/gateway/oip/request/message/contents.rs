//! Values of an input that stand in typed fields, decoded into a tensor's bytes.

use bytes::Bytes;
use paceline_protocol::{AlignedBuffer, Dtype, ErrorCode, Failure, Tensor};

use super::super::super::wire::{Field, Span};
use super::super::excerpt;
use super::Input;
use crate::gateway::bodies::{Bodies, Place};

/// Reads the contents of an input. Cost: one pass and one allocation; floats that stand in one
/// packed field, as every encoder writes them, are shared. What is decoded has a place among `bodies`
/// for as long as its tensor lives, if there are some to count it with.
pub(super) fn read(
    input: &Input<'_>,
    (body, bodies): (&Bytes, Option<&Bodies>),
) -> Result<Tensor, Failure> {
    let contents = input.contents.unwrap_or(Span::whole(&[]));
    let reading = Reading {
        input,
        contents,
        bodies,
    };
    let data = match input.dtype {
        Dtype::Bool => reading.varints(BOOL, |value| Some([u8::from(value != 0)])),
        Dtype::Int8 => reading.varints(INT, |value| within(value as i32, i8::to_le_bytes)),
        Dtype::Int16 => reading.varints(INT, |value| within(value as i32, i16::to_le_bytes)),
        // Narrowed as the language has it: a negative number stands there with 64 bits.
        Dtype::Int32 => reading.varints(INT, |value| Some((value as i32).to_le_bytes())),
        Dtype::Int64 => reading.varints(INT64, |value| Some(value.to_le_bytes())),
        Dtype::Uint8 => reading.varints(UINT, |value| within(value as u32, u8::to_le_bytes)),
        Dtype::Uint16 => reading.varints(UINT, |value| within(value as u32, u16::to_le_bytes)),
        Dtype::Uint32 => reading.varints(UINT, |value| Some((value as u32).to_le_bytes())),
        Dtype::Uint64 => reading.varints(UINT64, |value| Some(value.to_le_bytes())),
        Dtype::Fp32 => reading.floats::<4>(FP32, body),
        Dtype::Fp64 => reading.floats::<8>(FP64, body),
        Dtype::Bytes => reading.strings(),
        Dtype::Fp16 | Dtype::Bf16 => {
            let message = format!(
                "input {}: {} has no typed contents, send it in raw_input_contents",
                excerpt(input.name),
                input.dtype
            );
            return Err(Failure::new(ErrorCode::InputDtype, message));
        }
    };
    input.tensor(data?)
}

/// A field of the contents, with the number that it has there.
type Kind = (u32, &'static str);

struct Reading<'i, 'a> {
    input: &'i Input<'a>,
    contents: Span<'a>,
    bodies: Option<&'i Bodies>,
}

impl<'a> Reading<'_, 'a> {
    fn varints<const N: usize>(
        &self,
        kind: Kind,
        convert: impl Fn(u64) -> Option<[u8; N]>,
    ) -> Result<Bytes, Failure> {
        // A value takes a byte at least: what a shape claims beyond that is not there.
        let room = self.contents.bytes().len() as u64;
        let room = room.min(self.input.shape.elements()) as usize;
        let place = self.place(room * N)?;
        let mut buffer = AlignedBuffer::with_capacity(room * N);
        let mut count = 0;
        self.each(kind, |field| {
            field.varints(kind.1, |value| {
                let Some(bytes) = convert(value) else {
                    return Err(self.misfit(count, value));
                };
                count += 1;
                if count > self.input.shape.elements() {
                    return Err(self.too_many());
                }
                buffer.extend(&bytes);
                Ok(())
            })
        })?;
        Ok(held(place, buffer))
    }

    fn floats<const N: usize>(&self, kind: Kind, body: &Bytes) -> Result<Bytes, Failure> {
        let mut shared: Option<&'a [u8]> = None;
        let mut buffer = AlignedBuffer::with_capacity(0);
        self.each(kind, |field| {
            let packed = field.fixed::<N>(kind.1, |single| buffer.extend(single))?;
            match packed {
                Some(packed) if shared.is_none() && buffer.is_empty() => shared = Some(packed),
                Some(packed) => buffer.extend(packed),
                None => {}
            }
            Ok(())
        })?;
        match shared {
            Some(shared) if buffer.is_empty() => Ok(body.slice_ref(shared)),
            None => Ok(held(self.place(buffer.filled().len())?, buffer)),
            Some(first) => {
                let rest = buffer.filled();
                let place = self.place(first.len() + rest.len())?;
                let mut whole = AlignedBuffer::with_capacity(first.len() + rest.len());
                whole.extend(first);
                whole.extend(rest);
                Ok(held(place, whole))
            }
        }
    }

    fn strings(&self) -> Result<Bytes, Failure> {
        // An element has two bytes in front of it at least, and four in the tensor.
        let room = self.contents.bytes().len();
        let elements = self.input.shape.elements().min(room as u64 / 2) as usize;
        let place = self.place(room + 2 * elements)?;
        let mut buffer = AlignedBuffer::with_capacity(room + room.min(STRINGS_MORE_BYTES));
        let mut count = 0;
        self.each(BYTES, |field| {
            let element = field.span(BYTES.1)?.bytes();
            count += 1;
            if count > self.input.shape.elements() {
                return Err(self.too_many());
            }
            // A message is smaller than 4 GiB.
            buffer.extend(&(element.len() as u32).to_le_bytes());
            buffer.extend(element);
            Ok(())
        })?;
        Ok(held(place, buffer))
    }

    /// Room for so many bytes that are decoded.
    fn place(&self, bytes: usize) -> Result<Option<Place>, Failure> {
        let Some(bodies) = self.bodies else {
            return Ok(None);
        };
        let mut place = bodies.place();
        place.grow(bytes)?;
        Ok(Some(place))
    }

    /// Hands over the fields of one kind; those of another have no place beside them.
    fn each(
        &self,
        kind: Kind,
        mut take: impl FnMut(Field<'a>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut fields = self.contents;
        while let Some(field) = fields.next()? {
            if field.number == kind.0 {
                take(field)?;
            } else if let Some((_, other)) = KINDS.iter().find(|(other, _)| *other == field.number)
            {
                let message = format!(
                    "input {} has {other}; {} takes {}",
                    excerpt(self.input.name),
                    self.input.dtype,
                    kind.1
                );
                return Err(Failure::new(ErrorCode::InputValues, message));
            }
        }
        Ok(())
    }

    #[cold]
    fn misfit(&self, element: u64, value: u64) -> Failure {
        let (name, dtype) = (excerpt(self.input.name), self.input.dtype);
        let value = value as i32;
        let message = format!("element {element} of input {name} is {value}, no {dtype}");
        Failure::new(ErrorCode::InputValues, message)
    }

    #[cold]
    fn too_many(&self) -> Failure {
        let (name, shape) = (excerpt(self.input.name), self.input.shape);
        let wanted = shape.elements();
        let message = format!("input {name}: shape {shape} needs {wanted} values, there are more");
        Failure::new(ErrorCode::InputValues, message)
    }
}

/// What was decoded, with its room.
fn held(place: Option<Place>, decoded: AlignedBuffer) -> Bytes {
    let decoded = decoded.freeze();
    match place.filter(|place| !place.is_empty()) {
        Some(place) => place.hold(decoded),
        None => decoded,
    }
}

fn within<W, T: TryFrom<W>, const N: usize>(
    value: W,
    bytes: impl Fn(T) -> [u8; N],
) -> Option<[u8; N]> {
    T::try_from(value).ok().map(bytes)
}

const BOOL: Kind = (1, "bool_contents");
const INT: Kind = (2, "int_contents");
const INT64: Kind = (3, "int64_contents");
const UINT: Kind = (4, "uint_contents");
const UINT64: Kind = (5, "uint64_contents");
const FP32: Kind = (6, "fp32_contents");
const FP64: Kind = (7, "fp64_contents");
const BYTES: Kind = (8, "bytes_contents");
const KINDS: [Kind; 8] = [BOOL, INT, INT64, UINT, UINT64, FP32, FP64, BYTES];
/// Room for the lengths of strings at the start; beyond it the buffer grows with what is there.
const STRINGS_MORE_BYTES: usize = 64 << 10;
