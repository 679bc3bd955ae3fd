//! The highest values of each row with their indices (Triton's `classification` extension).

use std::cmp::Ordering;

use paceline_protocol::{AlignedBuffer, Dtype, ErrorCode, Failure, Shape, Tensor};

/// A `[rows, classes]` BYTES tensor of `"<value>:<index>"`, highest first, equal values in the
/// order of their indices, NaN last; the index counts the row's elements, row-major. No more
/// classes than a row has elements.
///
/// Cost: one pass over the tensor to select, and a sort of `classes` values a row.
pub(super) fn classify(name: &str, tensor: &Tensor, classes: usize) -> Result<Tensor, Failure> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::Uint8 => Ok(whole(tensor, classes, decode(data, u8::from_le_bytes))),
        Dtype::Uint16 => Ok(whole(tensor, classes, decode(data, u16::from_le_bytes))),
        Dtype::Uint32 => Ok(whole(tensor, classes, decode(data, u32::from_le_bytes))),
        Dtype::Uint64 => Ok(whole(tensor, classes, decode(data, u64::from_le_bytes))),
        Dtype::Int8 => Ok(whole(tensor, classes, decode(data, i8::from_le_bytes))),
        Dtype::Int16 => Ok(whole(tensor, classes, decode(data, i16::from_le_bytes))),
        Dtype::Int32 => Ok(whole(tensor, classes, decode(data, i32::from_le_bytes))),
        Dtype::Int64 => Ok(whole(tensor, classes, decode(data, i64::from_le_bytes))),
        Dtype::Fp32 => Ok(float(tensor, classes, decode(data, f32::from_le_bytes))),
        Dtype::Fp64 => Ok(float(tensor, classes, decode(data, f64::from_le_bytes))),
        dtype @ (Dtype::Bool | Dtype::Fp16 | Dtype::Bf16 | Dtype::Bytes) => {
            let message =
                format!("output '{name}' is {dtype}; classification takes integers, FP32 and FP64");
            Err(Failure::new(ErrorCode::Unsupported, message))
        }
    }
}

fn decode<T, const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>()
        .0
        .iter()
        .map(|bytes| value(*bytes))
        .collect()
}

fn whole<T: Ord + Copy + ToString>(tensor: &Tensor, classes: usize, values: Vec<T>) -> Tensor {
    let selection = Selection::new(tensor, classes);
    selection.highest(&values, |a, b| b.cmp(a), T::to_string)
}

/// Six decimals, as Triton writes them.
fn float<T: Into<f64> + Copy>(tensor: &Tensor, classes: usize, values: Vec<T>) -> Tensor {
    let order = |a: &T, b: &T| {
        let (a, b): (f64, f64) = ((*a).into(), (*b).into());
        a.is_nan()
            .cmp(&b.is_nan())
            .then(b.partial_cmp(&a).unwrap_or(Ordering::Equal))
    };
    let selection = Selection::new(tensor, classes);
    selection.highest(&values, order, |value| format!("{:.6}", (*value).into()))
}

/// How many of how many.
struct Selection {
    rows: u64,
    row_elements: usize,
    classes: usize,
}

impl Selection {
    fn new(tensor: &Tensor, classes: usize) -> Self {
        let row_elements = tensor.shape().row_elements() as usize;
        Self {
            rows: tensor.rows(),
            row_elements,
            classes: classes.min(row_elements),
        }
    }

    fn highest<T>(
        &self,
        values: &[T],
        order: impl Fn(&T, &T) -> Ordering,
        text: impl Fn(&T) -> String,
    ) -> Tensor {
        let mut buffer = AlignedBuffer::with_capacity(self.rows as usize * self.classes * 16);
        let mut indices: Vec<usize> = Vec::with_capacity(self.row_elements);
        for row in values.chunks_exact(self.row_elements.max(1)) {
            let before = |a: &usize, b: &usize| order(&row[*a], &row[*b]).then(a.cmp(b));
            indices.clear();
            indices.extend(0..row.len());
            if self.classes < row.len() {
                indices.select_nth_unstable_by(self.classes, before);
                indices.truncate(self.classes);
            }
            indices.sort_unstable_by(before);
            for index in &indices {
                let element = format!("{}:{index}", text(&row[*index]));
                buffer.extend(&(element.len() as u32).to_le_bytes());
                buffer.extend(element.as_bytes());
            }
        }
        let dims = [self.rows, self.classes as u64];
        let shape = Shape::new(&dims).expect("no more elements than the tensor has");
        Tensor::new(Dtype::Bytes, shape, buffer.freeze()).expect("rows × classes were written")
    }
}
