//! How factors of bfloat16 are rounded and laid out.

use pulp::{Simd, WithSimd};

use super::super::product::Rows;
use super::{PANEL_COLUMNS, Pair, TILE, TILE_PAIRS, padded, pairs};

/// Steps of the depth in a line of a tile.
const LINE: usize = 2 * TILE;

/// Rounds rows to the left factor. What fills up a depth is zero; rows that fill up the last block
/// keep what they held.
///
/// Cost: one pass over what is read and what is written.
pub(in super::super) struct PackLeft<'a> {
    pub(in super::super) rows: Rows<'a>,
    pub(in super::super) depth: usize,
    pub(in super::super) left: &'a mut [Pair],
}

impl WithSimd for PackLeft<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let row_pairs = pairs(self.depth);
        for row in 0..self.rows.count {
            let values = self.rows.row(row, self.depth);
            let tiles = &mut self.left[row / TILE * TILE * row_pairs..][..TILE * row_pairs];
            let tiles = tiles.chunks_exact_mut(TILE_PAIRS);
            for (tile, values) in tiles.zip(values.chunks(LINE)) {
                round_line(simd, values, 1.0, &mut tile[row % TILE * TILE..][..TILE]);
            }
        }
    }
}

/// Rounds a right factor that is given by columns, each multiplied by `scale`: row *j* of `columns`
/// is its column *j*.
///
/// Cost: one pass over what is read and what is written.
pub(in super::super) struct PackColumns<'a> {
    pub(in super::super) columns: Rows<'a>,
    pub(in super::super) depth: usize,
    pub(in super::super) scale: f32,
    pub(in super::super) right: &'a mut [Pair],
}

impl WithSimd for PackColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.right.fill(0);
        let row_pairs = pairs(self.depth);
        let columns = padded(self.columns.count);
        for column in 0..self.columns.count {
            let first = column / PANEL_COLUMNS * PANEL_COLUMNS;
            let width = PANEL_COLUMNS.min(columns - first);
            let panel = &mut self.right[first * row_pairs..][..width * row_pairs];
            let values = self.columns.row(column, self.depth).chunks(LINE);
            for (values, steps) in values.zip(panel.chunks_exact_mut(TILE * width)) {
                let mut line = [0; TILE];
                round_line(simd, values, self.scale, &mut line);
                for (step, pair) in steps.chunks_exact_mut(width).zip(line) {
                    step[column - first] = pair;
                }
            }
        }
    }
}

/// Rounds a right factor that is given by rows: row *k* of `rows` is step *k* of its depth.
///
/// Cost: one pass over what is read and what is written.
pub(in super::super) struct PackRows<'a> {
    pub(in super::super) rows: Rows<'a>,
    pub(in super::super) columns: usize,
    pub(in super::super) right: &'a mut [Pair],
}

impl WithSimd for PackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let depth = self.rows.count;
        let row_pairs = pairs(depth);
        let columns = padded(self.columns);
        let panels = self.right.chunks_mut(PANEL_COLUMNS * row_pairs);
        for (index, panel) in panels.enumerate() {
            let first = index * PANEL_COLUMNS;
            let width = PANEL_COLUMNS.min(columns - first);
            for (pair, step) in panel.chunks_exact_mut(width).enumerate() {
                let k = pair / TILE * LINE + pair % TILE;
                for (line, slots) in step.chunks_exact_mut(TILE).enumerate() {
                    let column = first + line * TILE;
                    let upper = sixteen(self.rows, k, column, self.columns);
                    let lower = sixteen(self.rows, k + TILE, column, self.columns);
                    round(simd, &upper, &lower, 1.0, slots);
                }
            }
        }
    }
}

/// 16 numbers of a row from `column` on, or zeros where there are none.
#[inline(always)]
fn sixteen(rows: Rows<'_>, row: usize, column: usize, columns: usize) -> [f32; TILE] {
    let mut sixteen = [0.0; TILE];
    if row < rows.count && column < columns {
        let values = &rows.row(row, columns)[column..];
        match values.first_chunk() {
            Some(values) => sixteen = *values,
            None => sixteen[..values.len()].copy_from_slice(values),
        }
    }
    sixteen
}

/// Rounds up to 32 steps of a depth, and zeros for those that are missing.
#[inline(always)]
fn round_line<S: Simd>(simd: S, values: &[f32], scale: f32, line: &mut [Pair]) {
    match values.as_array::<LINE>() {
        Some(values) => round(simd, &values[..TILE], &values[TILE..], scale, line),
        None => {
            let mut filled = [0.0; LINE];
            filled[..values.len()].copy_from_slice(values);
            round(simd, &filled[..TILE], &filled[TILE..], scale, line);
        }
    }
}

/// Rounds to the nearest bfloat16, ties to even: 16 pairs out of 16 numbers and 16 more. So numbers
/// that make a pair are 16 apart: two vectors become one without a shuffle, and the sum does not mind.
#[inline(always)]
fn round<S: Simd>(simd: S, first: &[f32], second: &[f32], scale: f32, line: &mut [Pair]) {
    let (first, second) = (S::as_simd_f32s(first).0, S::as_simd_f32s(second).0);
    let line = S::as_mut_simd_u32s(line).0;
    let (scale, sixteen) = (simd.splat_f32s(scale), simd.splat_u32s(16));
    for ((first, second), pair) in first.iter().zip(second).zip(line) {
        let low = simd.wrapping_dyn_shr_u32s(round_up(simd, simd.mul_f32s(*first, scale)), sixteen);
        let high = simd.and_u32s(
            round_up(simd, simd.mul_f32s(*second, scale)),
            simd.splat_u32s(0xffff_0000),
        );
        *pair = simd.or_u32s(low, high);
    }
}

/// The bits of numbers whose upper 16 bits are what they are rounded to.
#[inline(always)]
fn round_up<S: Simd>(simd: S, x: S::f32s) -> S::u32s {
    let bits = simd.transmute_u32s_f32s(x);
    let is_odd = simd.and_u32s(
        simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(16)),
        simd.splat_u32s(1),
    );
    let rounded = simd.add_u32s(simd.add_u32s(bits, simd.splat_u32s(0x7fff)), is_odd);
    // Not a number stays one: it is made quiet, not counted up.
    let quiet = simd.or_u32s(bits, simd.splat_u32s(1 << 22));
    simd.select_u32s(simd.equal_f32s(x, x), rounded, quiet)
}
