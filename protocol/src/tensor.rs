//! A tensor: element type, shape, and bytes that are shared rather than copied.

use std::ops::Range;

use bytes::Bytes;

use crate::dtype::Dtype;
use crate::shape::Shape;

/// Row-major, little-endian values of one type. Cloning and slicing by rows copy nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Shape,
    data: Bytes,
}

/// Why bytes are not a tensor of the stated type and shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The bytes do not add up to the shape.
    #[error("shape {shape} of {dtype} needs {wanted} bytes, got {got}")]
    Length {
        /// Element type.
        dtype: Dtype,
        /// Stated shape.
        shape: Shape,
        /// Bytes that the shape needs.
        wanted: u64,
        /// Bytes given.
        got: usize,
    },
    /// The shape needs more bytes than can be counted.
    #[error("shape {shape} of {dtype} needs more bytes than can be counted")]
    Overflow {
        /// Element type.
        dtype: Dtype,
        /// Stated shape.
        shape: Shape,
    },
    /// An element of a BYTES tensor runs past the end, or there are too few or too many.
    #[error("BYTES of shape {shape}: {complete} complete elements of {wanted}, then {left} bytes")]
    Elements {
        /// Stated shape.
        shape: Shape,
        /// Elements that could be read.
        complete: u64,
        /// Elements that the shape needs.
        wanted: u64,
        /// Bytes behind the last complete element.
        left: usize,
    },
    /// A BOOL value is neither 0 nor 1.
    #[error("BOOL values are 0 or 1, element {position} is {value}")]
    Bool {
        /// Which element.
        position: usize,
        /// Its byte.
        value: u8,
    },
}

impl Tensor {
    /// Checks that `data` holds exactly the elements of `shape`.
    ///
    /// Cost: constant for fixed-size types except BOOL; one pass over the bytes for BOOL and
    /// BYTES. Nothing is copied.
    ///
    /// # Errors
    /// [`TensorError`] says how much was wanted and how much was there.
    pub fn new(dtype: Dtype, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        match dtype.element_bytes() {
            Some(size) => {
                let wanted = shape
                    .elements()
                    .checked_mul(size as u64)
                    .ok_or(TensorError::Overflow { dtype, shape })?;
                if wanted != data.len() as u64 {
                    return Err(TensorError::Length {
                        dtype,
                        shape,
                        wanted,
                        got: data.len(),
                    });
                }
                if dtype == Dtype::Bool
                    && let Some(position) = data.iter().position(|value| *value > 1)
                {
                    return Err(TensorError::Bool {
                        position,
                        value: data[position],
                    });
                }
            }
            None => check_elements(shape, &data)?,
        }
        Ok(Self { dtype, shape, data })
    }

    /// A `[values.len() / columns, columns]` FP32 tensor.
    ///
    /// # Panics
    /// If `columns` does not divide the number of values.
    pub fn from_f32(columns: usize, values: &[f32]) -> Self {
        assert!(
            columns > 0 && values.len().is_multiple_of(columns),
            "whole rows only"
        );
        let mut buffer = crate::AlignedBuffer::with_capacity(values.len() * 4);
        for value in values {
            buffer.extend(&value.to_le_bytes());
        }
        let dims = [(values.len() / columns) as u64, columns as u64];
        let shape = Shape::new(&dims).expect("two dimensions of an existing slice");
        Self {
            dtype: Dtype::Fp32,
            shape,
            data: buffer.freeze(),
        }
    }

    /// A `[elements.len(), 1]` BYTES tensor.
    ///
    /// # Panics
    /// If an element is longer than `u32::MAX` bytes.
    pub fn from_byte_strings<T: AsRef<[u8]>>(elements: &[T]) -> Self {
        let total: usize = elements
            .iter()
            .map(|element| element.as_ref().len() + 4)
            .sum();
        let mut buffer = crate::AlignedBuffer::with_capacity(total);
        for element in elements {
            let element = element.as_ref();
            let length = u32::try_from(element.len()).expect("elements are shorter than 4 GiB");
            buffer.extend(&length.to_le_bytes());
            buffer.extend(element);
        }
        let shape = Shape::new(&[elements.len() as u64, 1]).expect("two dimensions");
        Self {
            dtype: Dtype::Bytes,
            shape,
            data: buffer.freeze(),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The first dimension.
    pub fn rows(&self) -> u64 {
        self.shape.rows()
    }

    /// The raw bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Appends the values of an FP32 tensor to `out`; `false` if it holds another type.
    pub fn extend_f32(&self, out: &mut Vec<f32>) -> bool {
        if self.dtype != Dtype::Fp32 {
            return false;
        }
        out.extend(
            self.data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|chunk| f32::from_le_bytes(*chunk)),
        );
        true
    }

    /// The elements of a BYTES tensor, in order; empty for other types.
    pub fn byte_strings(&self) -> ByteStrings<'_> {
        let rest = if self.dtype == Dtype::Bytes {
            &self.data[..]
        } else {
            &[]
        };
        ByteStrings { rest }
    }

    /// The rows `range`, sharing this tensor's bytes.
    ///
    /// Cost: constant for fixed-size types; one pass over the skipped and taken elements for
    /// BYTES.
    ///
    /// # Panics
    /// If the range lies outside the rows.
    pub fn slice_rows(&self, range: Range<u64>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.rows(),
            "rows outside the tensor"
        );
        let rows = range.end - range.start;
        let shape = self
            .shape
            .with_rows(rows)
            .expect("fewer rows than a shape that fits");
        let per_row = self.shape.row_elements();
        let bytes = match self.dtype.element_bytes() {
            Some(size) => {
                let row_bytes = per_row as usize * size;
                range.start as usize * row_bytes..range.end as usize * row_bytes
            }
            None => {
                let start = skip_elements(&self.data, 0, range.start * per_row);
                start..skip_elements(&self.data, start, rows * per_row)
            }
        };
        Self {
            dtype: self.dtype,
            shape,
            data: self.data.slice(bytes),
        }
    }

    /// The rows of `parts`, one after another, in one tensor; `None` if there are none, or if
    /// they differ in anything but rows. Cost: one copy of all bytes.
    pub fn concat_rows(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        let alike = |part: &&Self| {
            part.dtype == first.dtype && part.shape.dims().get(1..) == first.shape.dims().get(1..)
        };
        if !parts.iter().all(alike) {
            return None;
        }
        let rows = parts.iter().map(|part| part.rows()).sum();
        let shape = first.shape.with_rows(rows).ok()?;
        let mut buffer =
            crate::AlignedBuffer::with_capacity(parts.iter().map(|part| part.data.len()).sum());
        parts.iter().for_each(|part| buffer.extend(&part.data));
        Some(Self {
            dtype: first.dtype,
            shape,
            data: buffer.freeze(),
        })
    }

    /// Whether every float is finite; `true` for other types. Cost: one pass.
    pub fn is_finite(&self) -> bool {
        match self.dtype {
            Dtype::Fp32 => {
                let (chunks, _) = self.data.as_chunks::<4>();
                chunks
                    .iter()
                    .all(|chunk| f32::from_le_bytes(*chunk).is_finite())
            }
            Dtype::Fp64 => {
                let (chunks, _) = self.data.as_chunks::<8>();
                chunks
                    .iter()
                    .all(|chunk| f64::from_le_bytes(*chunk).is_finite())
            }
            Dtype::Fp16 => {
                let (chunks, _) = self.data.as_chunks::<2>();
                chunks
                    .iter()
                    .all(|chunk| half::f16::from_le_bytes(*chunk).is_finite())
            }
            Dtype::Bf16 => {
                let (chunks, _) = self.data.as_chunks::<2>();
                chunks
                    .iter()
                    .all(|chunk| half::bf16::from_le_bytes(*chunk).is_finite())
            }
            Dtype::Bool
            | Dtype::Uint8
            | Dtype::Uint16
            | Dtype::Uint32
            | Dtype::Uint64
            | Dtype::Int8
            | Dtype::Int16
            | Dtype::Int32
            | Dtype::Int64
            | Dtype::Bytes => true,
        }
    }
}

/// Iterator over the elements of a BYTES tensor.
#[derive(Clone, Debug)]
pub struct ByteStrings<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ByteStrings<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let (element, rest) = split_element(self.rest)?;
        self.rest = rest;
        Some(element)
    }
}

fn split_element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*prefix) as usize)
}

fn check_elements(shape: Shape, data: &[u8]) -> Result<(), TensorError> {
    let wanted = shape.elements();
    let mut rest = data;
    let mut complete = 0;
    while complete < wanted
        && let Some((_, behind)) = split_element(rest)
    {
        rest = behind;
        complete += 1;
    }
    if complete == wanted && rest.is_empty() {
        return Ok(());
    }
    Err(TensorError::Elements {
        shape,
        complete,
        wanted,
        left: rest.len(),
    })
}

/// Offset behind `count` elements from `offset` on; the caller knows that they are there.
fn skip_elements(data: &[u8], offset: usize, count: u64) -> usize {
    let mut rest = &data[offset..];
    for _ in 0..count {
        rest = split_element(rest)
            .expect("checked when the tensor was built")
            .1;
    }
    data.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[u64]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn bytes_must_add_up_to_the_shape() {
        let short = Tensor::new(Dtype::Fp32, shape(&[2, 2]), Bytes::from_static(&[0; 15]));
        assert_eq!(
            short.unwrap_err().to_string(),
            "shape [2,2] of FP32 needs 16 bytes, got 15",
        );
        let huge = Tensor::new(Dtype::Fp64, shape(&[1 << 62]), Bytes::new());
        assert!(matches!(huge, Err(TensorError::Overflow { .. })));
        let boolean = Tensor::new(Dtype::Bool, shape(&[3]), Bytes::from_static(&[0, 1, 2]));
        assert_eq!(
            boolean,
            Err(TensorError::Bool {
                position: 2,
                value: 2
            })
        );
    }

    #[test]
    fn byte_strings_are_checked_to_the_last_byte() {
        let good = Tensor::from_byte_strings(&["a", "", "xyz"]);
        let elements: Vec<_> = good.byte_strings().collect();
        assert_eq!(elements, [&b"a"[..], b"", b"xyz"]);
        for cut in 0..good.data().len() {
            let cut = Tensor::new(Dtype::Bytes, shape(&[3, 1]), good.data().slice(..cut));
            assert!(matches!(cut, Err(TensorError::Elements { .. })));
        }
        let lying = Bytes::from_static(&[255, 255, 255, 255, 0]);
        assert!(Tensor::new(Dtype::Bytes, shape(&[1]), lying).is_err());
        assert!(Tensor::new(Dtype::Bytes, shape(&[u64::MAX]), Bytes::new()).is_err());
    }

    #[test]
    fn rows_are_sliced_without_copying() {
        let tensor = Tensor::from_f32(2, &[0., 1., 2., 3., 4., 5.]);
        let rows = tensor.slice_rows(1..3);
        let mut values = Vec::new();
        assert!(rows.extend_f32(&mut values));
        assert_eq!(values, [2., 3., 4., 5.]);
        assert_eq!(rows.data().as_ptr(), tensor.data()[8..].as_ptr());
        let text = Tensor::from_byte_strings(&["a", "bc", ""]).slice_rows(1..3);
        assert_eq!(text.byte_strings().collect::<Vec<_>>(), [&b"bc"[..], b""]);
    }

    #[test]
    fn shards_are_put_together_in_order() {
        for whole in [
            Tensor::from_f32(2, &[0., 1., 2., 3., 4., 5.]),
            Tensor::from_byte_strings(&["a", "bc", ""]),
        ] {
            let shards = [whole.slice_rows(0..1), whole.slice_rows(1..3)];
            assert_eq!(Tensor::concat_rows(&[&shards[0], &shards[1]]), Some(whole));
        }
        let (narrow, wide) = (Tensor::from_f32(1, &[0.]), Tensor::from_f32(2, &[0., 1.]));
        assert_eq!(Tensor::concat_rows(&[&narrow, &wide]), None);
        assert_eq!(Tensor::concat_rows(&[]), None);
    }

    #[test]
    fn finiteness_is_seen_in_every_float_type() {
        let cases = [
            (Dtype::Fp16, half::f16::INFINITY.to_le_bytes().to_vec()),
            (Dtype::Bf16, half::bf16::NAN.to_le_bytes().to_vec()),
            (Dtype::Fp32, f32::NAN.to_le_bytes().to_vec()),
            (Dtype::Fp64, f64::NEG_INFINITY.to_le_bytes().to_vec()),
        ];
        for (dtype, bytes) in cases {
            let zero = vec![0; bytes.len()];
            assert!(
                !Tensor::new(dtype, shape(&[1]), bytes.into())
                    .unwrap()
                    .is_finite()
            );
            assert!(
                Tensor::new(dtype, shape(&[1]), zero.into())
                    .unwrap()
                    .is_finite()
            );
        }
    }
}
