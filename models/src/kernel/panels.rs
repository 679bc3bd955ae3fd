//! Panels: how the second factor of a product lies in memory.
//!
//! ```text
//!   [depth, columns]        panel 0: columns 0..48         panel 1: columns 48..80, filled up with 0
//!                      ┌─ depth 0 ─┬─ depth 1 ─┬ … ┐┌─ depth 0 ─┬─ depth 1 ─┬ … ┐
//! ```
//!
//! A panel is one to three vectors wide, and holds them for one step of the depth after the other, in
//! the order in which a product reads them.

use pulp::Simd;

use super::product::Rows;

/// One panel: which vectors of columns it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panel {
    /// The first vector.
    pub(super) first: usize,
    /// How many: 1 to 3.
    pub(super) count: usize,
}

/// Vectors that a panel has at the most: with more of them, fewer rows' sums fit into the registers.
#[inline(always)]
pub(super) fn widest<S: Simd>() -> usize {
    if S::REGISTER_COUNT < 32 { 2 } else { 3 }
}

/// So many vectors in as few panels as they fit in, of nearly one width: none is much slower.
#[inline(always)]
pub(super) fn split(vectors: usize, widest: usize) -> impl Iterator<Item = Panel> {
    let panels = vectors.div_ceil(widest);
    let (each, more) = (vectors / panels.max(1), vectors % panels.max(1));
    (0..panels).map(move |panel| Panel {
        first: panel * each + panel.min(more),
        count: each + usize::from(panel < more),
    })
}

/// Floats that a factor `[depth, columns]` takes in panels.
#[inline(always)]
pub(super) fn floats<S: Simd>(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(S::F32_LANES) * depth
}

/// Lays out a factor that is given by columns: row *j* of `columns` is its column *j*, of length
/// `depth`, and each number is multiplied by `scale`.
///
/// Cost: one pass over what is read and what is written.
#[inline(always)]
pub(super) fn pack_columns<S: Simd>(
    columns: Rows<'_>,
    depth: usize,
    scale: f32,
    panels: &mut [f32],
) {
    let lanes = S::F32_LANES;
    for panel in split(columns.count.div_ceil(lanes), widest::<S>()) {
        let width = panel.count * lanes;
        let first = panel.first * lanes;
        let filled = width.min(columns.count - first);
        let panel = &mut panels[first * depth..][..width * depth];
        for column in 0..filled {
            let values = columns.row(first + column, depth);
            for (step, value) in panel.chunks_exact_mut(width).zip(values) {
                step[column] = value * scale;
            }
        }
        for step in panel.chunks_exact_mut(width) {
            step[filled..].fill(0.0);
        }
    }
}

/// Lays out a factor that is given by rows: row *k* of `rows` is step *k* of the depth.
///
/// Cost: one pass over what is read and what is written.
#[inline(always)]
pub(super) fn pack_rows<S: Simd>(rows: Rows<'_>, columns: usize, panels: &mut [f32]) {
    let lanes = S::F32_LANES;
    for panel in split(columns.div_ceil(lanes), widest::<S>()) {
        let width = panel.count * lanes;
        let first = panel.first * lanes;
        let filled = width.min(columns - first);
        let panel = &mut panels[first * rows.count..][..width * rows.count];
        for (row, step) in panel.chunks_exact_mut(width).enumerate() {
            step[..filled].copy_from_slice(&rows.row(row, columns)[first..][..filled]);
            step[filled..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulp::WithSimd;

    use super::super::level::{Kernels, Level, Precision};
    use super::super::noise::noise;
    use super::*;

    /// Packs `[depth, columns]` both ways and reads it back.
    struct RoundTrip<'a> {
        depth: usize,
        columns: usize,
        factor: &'a [f32],
    }

    impl WithSimd for RoundTrip<'_> {
        type Output = [Vec<f32>; 2];

        fn with_simd<S: Simd>(self, _: S) -> [Vec<f32>; 2] {
            let (depth, columns) = (self.depth, self.columns);
            let turned: Vec<f32> = (0..columns * depth)
                .map(|i| self.factor[i % depth * columns + i / depth])
                .collect();
            let mut packed = [(); 2].map(|()| vec![f32::NAN; floats::<S>(depth, columns)]);
            pack_rows::<S>(Rows::new(self.factor, columns), columns, &mut packed[0]);
            pack_columns::<S>(Rows::new(&turned, depth), depth, 1.0, &mut packed[1]);
            packed.map(|packed| {
                let mut factor = vec![f32::NAN; depth * columns];
                let mut rest = &packed[..];
                for panel in split(columns.div_ceil(S::F32_LANES), widest::<S>()) {
                    assert!((1..=3).contains(&panel.count));
                    let width = panel.count * S::F32_LANES;
                    for step in 0..depth {
                        let values;
                        (values, rest) = rest.split_at(width);
                        for (lane, value) in values.iter().enumerate() {
                            match panel.first * S::F32_LANES + lane {
                                column if column < columns => {
                                    factor[step * columns + column] = *value;
                                }
                                _ => assert_eq!(*value, 0.0, "what is filled up is zero"),
                            }
                        }
                    }
                }
                assert!(rest.is_empty());
                factor
            })
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_can_be_read_back(
            depth in 1usize..40, columns in 1usize..200, seed: u64,
        ) {
            let factor = noise(depth * columns, seed);
            for level in Level::available() {
                let kernels = Kernels::on(level, Precision::F32);
                let trip = RoundTrip { depth, columns, factor: &factor };
                for read in kernels.dispatch(trip) {
                    prop_assert_eq!(&read, &factor);
                }
            }
        }
    }
}
