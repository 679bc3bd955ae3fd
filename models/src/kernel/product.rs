//! The product of rows with panels, on vectors of floats.
//!
//! A tile of up to 8 rows and 3 vectors of columns is summed in registers over the whole depth, one
//! step after the other, each step a broadcast for every row and a load for every vector. So each
//! number is the sum of its products in the order of the depth, whatever stands beside it.
//!
//! Measured on a Zen 4 core whose peak of `f32` multiply-adds is 118 GFLOP/s: 111 to 114 with 8 × 3
//! tiles of AVX-512, 102 to 109 with 6 × 2 of AVX2, where 4 × 3 would fit by the count of registers
//! and spills.

use std::hint::black_box;

use pulp::{Simd, WithSimd, bytemuck};

use super::panels::{self, Panel};
use super::then::Then;

/// Rows that lie in a slice, each so many floats after the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    /// All rows of a matrix.
    pub(super) fn new(values: &'a [f32], width: usize) -> Self {
        Self {
            values,
            stride: width,
            count: values.len() / width,
        }
    }

    /// The first `count` rows, which may be parts of wider ones.
    #[inline(always)]
    pub(super) fn strided(values: &'a [f32], stride: usize, count: usize) -> Self {
        Self {
            values,
            stride,
            count,
        }
    }

    /// `count` rows from `first` on.
    #[inline(always)]
    pub(super) fn from(self, first: usize, count: usize) -> Self {
        let values = &self.values[first * self.stride..];
        Self::strided(values, self.stride, count)
    }

    #[inline(always)]
    pub(super) fn row(self, row: usize, width: usize) -> &'a [f32] {
        &self.values[row * self.stride..][..width]
    }
}

/// Where the product goes: row *r* begins at `r * stride`.
pub(super) struct Target<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) columns: usize,
}

/// `[rows, depth] · [depth, columns]`, and the bias, if any, to each row.
pub(super) struct Product<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) depth: usize,
    /// The second factor as [`panels`] lays it out.
    pub(super) panels: &'a [f32],
    /// As long as the columns, filled up to whole vectors.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) target: Target<'a>,
    pub(super) then: Then,
}

/// Rows of a tile, at the most: with 3 panels they are 24 sums, which leaves 8 of 32 registers to the
/// factors; 12 of 16 with 6 rows and 2 panels.
#[inline(always)]
const fn tallest<S: Simd>() -> usize {
    if S::REGISTER_COUNT < 32 { 6 } else { 8 }
}

/// Sums of a tile, at the most.
const SUMS: usize = 24;

/// Bytes of rows that pass over a panel before the next one does: half of what a core's own second
/// cache has on processors of the last years, which the panel and the result share.
pub(super) const ROWS_BYTES: usize = 512 << 10;

impl WithSimd for Product<'_> {
    type Output = ();

    /// Multiplies. What follows happens to a part of a row as soon as it is written.
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let vectors = self.target.columns.div_ceil(S::F32_LANES);
        let rows_max = ROWS_BYTES / size_of::<f32>() / self.depth.max(1);
        let rows_max = rows_max.max(1).next_multiple_of(tallest::<S>());
        // Where a tile leaves its sums. The compiler must not know that: when it did, it kept sums in
        // memory during the loop, at half the speed.
        let mut written = [simd.splat_f32s(0.0); SUMS];
        let written = black_box(&mut written);
        let mut row = 0;
        while row < self.rows.count {
            let count = rows_max.min(self.rows.count - row);
            for panel in panels::split(vectors, panels::widest::<S>()) {
                match panel.count {
                    1 => self.pass::<S, 1>(simd, (row, count), panel, written),
                    2 => self.pass::<S, 2>(simd, (row, count), panel, written),
                    3 if panels::widest::<S>() >= 3 => {
                        self.pass::<S, 3>(simd, (row, count), panel, written)
                    }
                    _ => unreachable!("no panel is wider"),
                }
            }
            row += count;
        }
    }
}

impl Product<'_> {
    /// Some rows over one panel, in blocks of nearly one size: none of the counts has a costly rest.
    #[inline(always)]
    fn pass<S: Simd, const C: usize>(
        &mut self,
        simd: S,
        (mut row, count): (usize, usize),
        panel: Panel,
        written: &mut [S::f32s; SUMS],
    ) {
        let blocks = count.div_ceil(tallest::<S>());
        for block in 0..blocks {
            let size = count / blocks + usize::from(block < count % blocks);
            match size {
                1 => self.tile::<S, 1, C>(simd, row, panel, written),
                2 => self.tile::<S, 2, C>(simd, row, panel, written),
                3 => self.tile::<S, 3, C>(simd, row, panel, written),
                4 => self.tile::<S, 4, C>(simd, row, panel, written),
                5 => self.tile::<S, 5, C>(simd, row, panel, written),
                6 => self.tile::<S, 6, C>(simd, row, panel, written),
                7 if tallest::<S>() >= 7 => self.tile::<S, 7, C>(simd, row, panel, written),
                8 if tallest::<S>() >= 8 => self.tile::<S, 8, C>(simd, row, panel, written),
                _ => unreachable!("no block is taller"),
            }
            row += size;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(
        &mut self,
        simd: S,
        row: usize,
        panel: Panel,
        written: &mut [S::f32s; SUMS],
    ) {
        let steps = &S::as_simd_f32s(self.panels).0[panel.first * self.depth..][..C * self.depth];
        let zero = simd.splat_f32s(0.0);
        let bias: [S::f32s; C] = match self.bias {
            Some(bias) => std::array::from_fn(|c| S::as_simd_f32s(bias).0[panel.first + c]),
            None => [zero; C],
        };
        let rows: [&[f32]; R] = std::array::from_fn(|r| self.rows.row(row + r, self.depth));
        let steps = &steps.as_chunks::<C>().0[..self.depth];
        let mut sums = [bias; R];
        // All slices are seen to be as long as the depth: a check that may fail would keep sums in
        // memory.
        for k in 0..self.depth {
            let step = steps[k];
            for r in 0..R {
                let x = simd.splat_f32s(rows[r][k]);
                for c in 0..C {
                    sums[r][c] = simd.mul_add_e_f32s(x, step[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                written[r * C + c] = sums[r][c];
            }
        }
        for (r, sums) in written[..R * C].chunks_exact(C).enumerate() {
            self.put(simd, (row + r, panel), sums);
        }
    }

    /// Writes the sums of one row.
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, (row, panel): (usize, Panel), sums: &[S::f32s]) {
        let adds = self.then == Then::Add;
        let part = self.target.part::<S>(row, panel);
        let (whole, rest) = S::as_mut_simd_f32s(part);
        for (y, sum) in whole.iter_mut().zip(sums) {
            *y = if adds { simd.add_f32s(*y, *sum) } else { *sum };
        }
        // The last panel may have a part of its last vector alone.
        let last = bytemuck::cast_slice::<S::f32s, f32>(&sums[sums.len() - 1..]);
        for (y, sum) in rest.iter_mut().zip(last) {
            *y = if adds { *y + sum } else { *sum };
        }
        self.then.finish(simd, part);
    }
}

impl Target<'_> {
    /// What a panel has of a row.
    #[inline(always)]
    fn part<S: Simd>(&mut self, row: usize, panel: Panel) -> &mut [f32] {
        let first = panel.first * S::F32_LANES;
        let count = (panel.count * S::F32_LANES).min(self.columns - first);
        &mut self.values[row * self.stride + first..][..count]
    }
}
