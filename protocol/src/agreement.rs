//! Policy of agreement: in how many rows two versions have given the same answer.
//!
//! Floats are the same within a thousandth of the larger one or within 1e-5: kernels add in another
//! order, and weights are rounded to fewer bits. NaN is the same as NaN. Everything else is the same
//! if its bytes are.

use crate::{Dtype, Tensor};

/// Rows of answers that were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Rows that are the same in every output.
    pub equal: u64,
    /// The others.
    pub different: u64,
}

/// Compares the outputs of two versions, each of which has so many rows: pairs of the same name,
/// and none for an output that the other version lacks. An output of another type or shape differs
/// in every row. Costs one pass over both.
pub fn compare<'a>(
    rows: u64,
    outputs: impl IntoIterator<Item = (&'a Tensor, Option<&'a Tensor>)>,
) -> Agreement {
    let mut differs = vec![false; usize::try_from(rows).unwrap_or(0)];
    for (one, other) in outputs {
        let other = other.filter(|other| {
            one.dtype() == other.dtype() && one.shape() == other.shape() && one.rows() == rows
        });
        let Some(other) = other else {
            let different = rows;
            return Agreement {
                equal: 0,
                different,
            };
        };
        mark(one, other, &mut differs);
    }
    let different = differs.iter().filter(|differs| **differs).count() as u64;
    Agreement {
        equal: rows - different,
        different,
    }
}

/// Marks the rows in which two tensors of one type and shape differ.
fn mark(one: &Tensor, other: &Tensor, differs: &mut [bool]) {
    let Some(element_bytes) = one.dtype().element_bytes() else {
        let elements = elements_of_row(one);
        let (mut one, mut other) = (one.byte_strings(), other.byte_strings());
        for differs in differs {
            for _ in 0..elements {
                *differs |= one.next() != other.next();
            }
        }
        return;
    };
    let row_bytes = elements_of_row(one) * element_bytes;
    if row_bytes == 0 {
        return;
    }
    let rows = one.data().chunks_exact(row_bytes);
    let rows = rows.zip(other.data().chunks_exact(row_bytes));
    for ((one_row, other_row), differs) in rows.zip(differs) {
        *differs |= one_row != other_row && {
            let values = one_row.chunks_exact(element_bytes);
            let mut values = values.zip(other_row.chunks_exact(element_bytes));
            values.any(|(a, b)| !is_same(one.dtype(), a, b))
        };
    }
}

fn elements_of_row(tensor: &Tensor) -> usize {
    let dims = tensor.shape().dims().iter().skip(1);
    dims.map(|dim| *dim as usize).product()
}

fn is_same(dtype: Dtype, a: &[u8], b: &[u8]) -> bool {
    match (dtype.float(a), dtype.float(b)) {
        (Some(a), Some(b)) => {
            let apart = (a - b).abs();
            let scale = a.abs().max(b.abs());
            let is_near = apart <= ABSOLUTE || apart <= RELATIVE * scale;
            // Infinity is as far from all numbers as from none.
            a == b || (a.is_nan() && b.is_nan()) || (is_near && scale.is_finite())
        }
        (None, _) | (_, None) => a == b,
    }
}

/// Below it two floats are the same, whatever they are.
const ABSOLUTE: f64 = 1e-5;
/// Below it, as a share of the larger one.
const RELATIVE: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use crate::Shape;

    use super::*;

    fn floats(values: &[f32]) -> Tensor {
        Tensor::from_f32(2, values)
    }

    fn integers(values: &[i32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = Shape::new(&[values.len() as u64]).unwrap();
        Tensor::new(Dtype::Int32, shape, data.into()).unwrap()
    }

    fn equal_of(one: &Tensor, other: &Tensor) -> (u64, u64) {
        let Agreement { equal, different } = compare(one.rows(), [(one, Some(other))]);
        (equal, different)
    }

    #[test]
    fn floats_are_the_same_within_a_thousandth_or_a_hundred_thousandth() {
        let one = floats(&[1.0, 0.0, 1_000.0, -2.0, f32::NAN, 3.0]);
        assert_eq!(equal_of(&one, &one), (3, 0));
        let near = floats(&[1.0009, 0.000_009, 1_000.9, -2.001, f32::NAN, 3.0]);
        assert_eq!(equal_of(&one, &near), (3, 0));
        let far = floats(&[1.002, 0.0, 1_000.0, -2.0, 0.0, 3.0]);
        assert_eq!(equal_of(&one, &far), (1, 2));
        let sign = floats(&[1.0, 0.0, 1_000.0, 2.0, f32::NAN, 3.0]);
        assert_eq!(equal_of(&one, &sign), (2, 1));
        let infinite = floats(&[f32::INFINITY, 1.0]);
        assert_eq!(equal_of(&infinite, &infinite), (1, 0));
        let finite = floats(&[1e30, 1.0]);
        assert_eq!(equal_of(&infinite, &finite), (0, 1));
    }

    #[test]
    fn whole_numbers_and_texts_are_the_same_or_not() {
        let (one, other) = (integers(&[1, 2, 3]), integers(&[1, 3, 3]));
        assert_eq!(equal_of(&one, &other), (2, 1));
        let one = Tensor::from_byte_strings(&["a", "bc"]);
        let other = Tensor::from_byte_strings(&["ab", "c"]);
        assert_eq!(equal_of(&one, &one), (2, 0));
        assert_eq!(equal_of(&one, &other), (0, 2));
    }

    #[test]
    fn a_row_is_the_same_if_every_output_is() {
        let (one, other) = (integers(&[1, 2]), integers(&[1, 9]));
        let (label, same) = (floats(&[1.0, 2.0, 3.0, 4.0]), integers(&[7, 7]));
        let pairs = [(&label, Some(&label)), (&one, Some(&other))];
        let half = Agreement {
            equal: 1,
            different: 1,
        };
        assert_eq!(compare(2, pairs), half);
        let none = Agreement {
            equal: 0,
            different: 2,
        };
        assert_eq!(compare(2, [(&label, Some(&label)), (&one, None)]), none);
        assert_eq!(compare(2, [(&label, Some(&same))]), none);
        assert_eq!(compare(2, []).equal, 2);
    }
}
