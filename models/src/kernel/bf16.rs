//! Products of factors that were rounded to bfloat16, with sums in `f32`.
//!
//! ```text
//!   left   [rows, depth]      tiles of 16 rows and 16 pairs of the depth:  tile [16][16][2]
//!   right  [depth, columns]   panels of 64 columns, the last may have 32:  panel [pairs][columns][2]
//! ```
//!
//! Both are filled up with zeros: rows to 32, the depth to 32, columns to 32. A row of a tile and a
//! vector of a panel are 64 bytes: what AMX calls a row of a tile, and AVX-512 a vector of pairs.
//!
//! A block of up to 32 rows and one panel is summed over the whole depth by whichever [`Unit`] the
//! machine has. Each number is the sum of the same products in the same order, whatever the rows
//! beside it; between units, the order differs.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod dot;
mod pack;

pub(super) use pack::{PackColumns, PackLeft, PackRows};

use pulp::{Simd, WithSimd};

use super::level::Kernels;
#[cfg(target_arch = "x86_64")]
use super::level::{Level, Precision};
use super::norm::add;
use super::product::Target;
use super::then::Then;

/// Rows, and pairs, of a tile.
pub(super) const TILE: usize = 16;
/// Pairs in a tile: a cache line for each of its rows.
pub(super) const TILE_PAIRS: usize = TILE * TILE;
/// Rows of a block: two tiles, one above the other.
pub(super) const BLOCK_ROWS: usize = 2 * TILE;
/// Columns of a panel.
pub(super) const PANEL_COLUMNS: usize = 64;
/// What columns are filled up to.
const COLUMNS_STEP: usize = 32;
/// Bytes of rows that pass over a panel before the next one does, as for products of floats.
const ROWS_BYTES: usize = 512 << 10;

/// Two numbers of the depth in bfloat16, the first in the lower half.
pub(super) type Pair = u32;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// AMX.
    #[cfg(target_arch = "x86_64")]
    Tiles(amx::Amx),
    /// `vdpbf16ps`.
    #[cfg(target_arch = "x86_64")]
    Dot(dot::Dot),
    /// Rust that does what the others do, for their tests.
    #[cfg(test)]
    Emulated,
}

impl Unit {
    /// What these kernels multiply bfloat16 with, if they do.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of(kernels: Kernels) -> Option<Self> {
        match (kernels.precision(), kernels.level()) {
            (Precision::Bf16, Level::Amx) => amx::Amx::detect().map(Self::Tiles),
            (Precision::Bf16, Level::Avx512) => dot::Dot::when_faster().map(Self::Dot),
            _ => None,
        }
    }

    /// What these kernels multiply bfloat16 with, if they do.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn of(_: Kernels) -> Option<Self> {
        None
    }
}

/// A block of a product: the operands of one call of a unit, and where its sums go.
pub(super) struct Block<'a> {
    /// Two tiles of rows, each of them all tiles of the depth.
    pub(super) left: &'a [Pair],
    /// Rows that are wanted: 1 to 32. Sums of others may hold anything.
    pub(super) rows: usize,
    /// A panel.
    pub(super) right: &'a [Pair],
    /// Columns of the panel: 32 or 64.
    pub(super) columns: usize,
    /// `[32, columns]`
    pub(super) sums: &'a mut [f32],
}

/// Pairs that the depth is filled up to.
pub(super) fn pairs(depth: usize) -> usize {
    depth.next_multiple_of(2 * TILE) / 2
}

/// Columns, filled up.
pub(super) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(COLUMNS_STEP)
}

/// Pairs that rows take as the left factor.
pub(super) fn left_pairs(rows: usize, depth: usize) -> usize {
    rows.next_multiple_of(BLOCK_ROWS) * pairs(depth)
}

/// Pairs that a right factor takes.
pub(super) fn right_pairs(depth: usize, columns: usize) -> usize {
    padded(columns) * pairs(depth)
}

/// `left · right`, and what follows it, as [`super::product::Product`] does for floats.
pub(super) struct Product<'a> {
    pub(super) unit: Unit,
    /// Rows that are wanted; `left` has them filled up.
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) left: &'a [Pair],
    pub(super) right: &'a [Pair],
    /// As long as the columns, filled up.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) target: Target<'a>,
    pub(super) then: Then,
}

impl Product<'_> {
    /// Multiplies, on the level of `kernels` for what follows.
    pub(super) fn run(mut self, kernels: Kernels) {
        let row_pairs = pairs(self.depth);
        assert_eq!(self.left.len(), left_pairs(self.rows, self.depth));
        let columns = padded(self.target.columns);
        assert_eq!(self.right.len(), columns * row_pairs);
        let mut sums = Sums([0.0; BLOCK_ROWS * PANEL_COLUMNS]);
        let rows_max = ROWS_BYTES / size_of::<Pair>() / row_pairs.max(1);
        let rows_max = rows_max.max(1).next_multiple_of(BLOCK_ROWS);
        let session = self.unit.begin();
        for start in (0..self.rows).step_by(rows_max) {
            let end = self.rows.min(start + rows_max);
            for first in (0..columns).step_by(PANEL_COLUMNS) {
                let width = PANEL_COLUMNS.min(columns - first);
                let right = &self.right[first * row_pairs..][..width * row_pairs];
                for row in (start..end).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(end - row);
                    session.multiply(Block {
                        left: &self.left[row * row_pairs..][..BLOCK_ROWS * row_pairs],
                        rows,
                        right,
                        columns: width,
                        sums: &mut sums.0[..BLOCK_ROWS * width],
                    });
                    kernels.dispatch(Settle {
                        sums: &sums.0[..rows * width],
                        width,
                        bias: self.bias.map(|bias| &bias[first..][..width]),
                        target: &mut self.target,
                        at: (row, first),
                        then: self.then,
                    });
                }
            }
        }
    }
}

/// Sums of a block, from a cache line on.
#[repr(align(64))]
struct Sums([f32; BLOCK_ROWS * PANEL_COLUMNS]);

/// Adds the bias to a block of sums and puts it where it goes.
struct Settle<'a, 'b> {
    /// `[rows, width]`
    sums: &'a [f32],
    width: usize,
    bias: Option<&'a [f32]>,
    target: &'a mut Target<'b>,
    /// The first row and column.
    at: (usize, usize),
    then: Then,
}

impl WithSimd for Settle<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (row, first) = self.at;
        let columns = self.width.min(self.target.columns - first);
        for (r, sums) in self.sums.chunks_exact(self.width).enumerate() {
            let start = (row + r) * self.target.stride + first;
            let part = &mut self.target.values[start..][..columns];
            if self.then == Then::Add {
                add(simd, part, &sums[..columns]);
            } else {
                part.copy_from_slice(&sums[..columns]);
            }
            if let Some(bias) = self.bias {
                add(simd, part, &bias[..columns]);
            }
            self.then.finish(simd, part);
        }
    }
}

/// What multiplies, made ready on this thread.
enum Session {
    #[cfg(target_arch = "x86_64")]
    Tiles(amx::Tiles),
    #[cfg(target_arch = "x86_64")]
    Dot(dot::Dot),
    #[cfg(test)]
    Emulated,
}

impl Unit {
    fn begin(self) -> Session {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(amx) => Session::Tiles(amx.configure()),
            #[cfg(target_arch = "x86_64")]
            Self::Dot(dot) => Session::Dot(dot),
            #[cfg(test)]
            Self::Emulated => Session::Emulated,
        }
    }
}

impl Session {
    fn multiply(&self, block: Block<'_>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(tiles) => tiles.multiply(block),
            #[cfg(target_arch = "x86_64")]
            Self::Dot(dot) => dot.multiply(block),
            #[cfg(test)]
            Self::Emulated => tests::multiply(block),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
