//! Shapes of tensors, and the patterns that signatures match them against.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::DIMS_MAX;

/// Dimensions of a tensor, outermost first, kept inline: a request allocates nothing for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Shape {
    rank: u8,
    dims: [u64; DIMS_MAX],
}

/// Why dimensions were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Too many dimensions.
    #[error("a tensor has at most {DIMS_MAX} dimensions, this one has {rank}")]
    Rank {
        /// How many it has.
        rank: usize,
    },
    /// The product of the dimensions does not fit.
    #[error("the shape {dims:?} has more elements than can be counted")]
    Overflow {
        /// The dimensions.
        dims: Vec<u64>,
    },
    /// A negative dimension in a request.
    #[error("dimension {position} is {value}; the dimensions of a request are 0 or more")]
    Negative {
        /// Which dimension, from 0.
        position: usize,
        /// Its value.
        value: i64,
    },
}

impl Shape {
    /// Checks and takes dimensions, outermost first.
    ///
    /// # Errors
    /// More than [`DIMS_MAX`] dimensions, or a product that overflows `u64`.
    pub fn new(dims: &[u64]) -> Result<Self, ShapeError> {
        if dims.len() > DIMS_MAX {
            return Err(ShapeError::Rank { rank: dims.len() });
        }
        // The product of the non-zero dimensions must fit: a zero must not hide an overflow
        // that would come back when a dimension is replaced.
        dims.iter()
            .filter(|dim| **dim != 0)
            .try_fold(1u64, |product, dim| product.checked_mul(*dim))
            .ok_or_else(|| ShapeError::Overflow {
                dims: dims.to_vec(),
            })?;
        let mut inline = [0; DIMS_MAX];
        inline[..dims.len()].copy_from_slice(dims);
        Ok(Self {
            rank: dims.len() as u8,
            dims: inline,
        })
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> u64 {
        self.dims().iter().product()
    }

    /// The first dimension, which counts rows; 1 for a scalar.
    pub fn rows(&self) -> u64 {
        self.dims().first().copied().unwrap_or(1)
    }

    /// Elements of one row: the product of all dimensions but the first.
    pub fn row_elements(&self) -> u64 {
        self.dims()
            .get(1..)
            .map_or(1, |inner| inner.iter().product())
    }

    /// The same shape with another number of rows.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] if the new product does not fit.
    pub fn with_rows(&self, rows: u64) -> Result<Self, ShapeError> {
        let mut dims = self.dims;
        if self.rank > 0 {
            dims[0] = rows;
        }
        Self::new(&dims[..usize::from(self.rank)])
    }
}

impl TryFrom<Vec<u64>> for Shape {
    type Error = ShapeError;
    fn try_from(dims: Vec<u64>) -> Result<Self, ShapeError> {
        Self::new(&dims)
    }
}

impl From<Shape> for Vec<u64> {
    fn from(shape: Shape) -> Self {
        shape.dims().to_vec()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

/// Written as in the protocol's JSON: `[1,64]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.dims())
    }
}

/// One dimension of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Dim {
    /// Any size; written `-1`.
    Any,
    /// Exactly this size.
    Exactly(u64),
}

impl TryFrom<i64> for Dim {
    type Error = ShapeError;
    fn try_from(value: i64) -> Result<Self, ShapeError> {
        match value {
            -1 => Ok(Self::Any),
            _ => u64::try_from(value)
                .map(Self::Exactly)
                .map_err(|_| ShapeError::Negative { position: 0, value }),
        }
    }
}

impl From<Dim> for i64 {
    fn from(dim: Dim) -> Self {
        match dim {
            Dim::Any => -1,
            Dim::Exactly(size) => i64::try_from(size).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        i64::from(*self).fmt(f)
    }
}

/// What shapes a signature accepts: `[-1,64]` is any number of rows of 64.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShapePattern(pub Vec<Dim>);

impl ShapePattern {
    /// Whether `shape` fits: same number of dimensions, equal where fixed.
    pub fn matches(&self, shape: &Shape) -> bool {
        self.0.len() == shape.dims().len()
            && self
                .0
                .iter()
                .zip(shape.dims())
                .all(|(dim, size)| match dim {
                    Dim::Any => true,
                    Dim::Exactly(wanted) => wanted == size,
                })
    }
}

impl fmt::Display for ShapePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.0)
    }
}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    f.write_str("[")?;
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            f.write_str(",")?;
        }
        item.fmt(f)?;
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_elements_rows_and_row_elements() {
        let shape = Shape::new(&[3, 4, 5]).unwrap();
        assert_eq!(
            (shape.elements(), shape.rows(), shape.row_elements()),
            (60, 3, 20)
        );
        let scalar = Shape::new(&[]).unwrap();
        assert_eq!(
            (scalar.elements(), scalar.rows(), scalar.row_elements()),
            (1, 1, 1)
        );
        assert_eq!(shape.with_rows(7).unwrap().dims(), [7, 4, 5]);
    }

    #[test]
    fn hostile_dimensions_are_refused() {
        assert_eq!(Shape::new(&[1; 9]), Err(ShapeError::Rank { rank: 9 }));
        let overflow = [u64::MAX, 2];
        assert_eq!(
            Shape::new(&overflow),
            Err(ShapeError::Overflow {
                dims: overflow.to_vec()
            })
        );
        assert!(
            Shape::new(&[0, u64::MAX, 2]).is_err(),
            "a zero must not hide an overflow"
        );
    }

    #[test]
    fn a_pattern_matches_rank_and_fixed_sizes() {
        let pattern = ShapePattern(vec![Dim::Any, Dim::Exactly(64)]);
        assert!(pattern.matches(&Shape::new(&[9, 64]).unwrap()));
        assert!(!pattern.matches(&Shape::new(&[9, 63]).unwrap()));
        assert!(!pattern.matches(&Shape::new(&[9]).unwrap()));
        assert_eq!(pattern.to_string(), "[-1,64]");
    }
}
