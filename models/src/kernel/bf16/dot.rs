//! AVX-512's dot products of bfloat16: `vdpbf16ps` multiplies 32 pairs of numbers and sums them by two.
//!
//! Whether that is faster than multiply-adds of floats depends on the processor: on Zen 4 it does
//! twice as much in the same time, on Sapphire Rapids less. So the first model that asks for
//! bfloat16 measures it.
#![expect(unsafe_code, reason = "pulp does not know this instruction")]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};
use std::mem::transmute;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::super::level::{Kernels, Level, Precision};
use super::super::product::{Product, Rows, Target};
use super::super::then::Then;
use super::{BLOCK_ROWS, Block, Pair, TILE, TILE_PAIRS};

/// Proof that this machine has the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Dot(());

/// Rows whose sums are kept in registers over a panel of four vectors: 24 sums, 4 vectors of the
/// panel and a broadcast make 29 of 32.
const ROWS: usize = 6;

impl Dot {
    /// If this machine has the instruction.
    pub(in super::super) fn detect() -> Option<Self> {
        let has_it = Level::available().contains(&Level::Avx512)
            && std::arch::is_x86_feature_detected!("avx512bf16");
        has_it.then_some(Self(()))
    }

    /// If this machine has the instruction and it is faster than products of floats, by at least a
    /// tenth. Measured once, for about a millisecond.
    pub(in super::super) fn when_faster() -> Option<Self> {
        static IS_FASTER: OnceLock<bool> = OnceLock::new();
        let dot = Self::detect()?;
        IS_FASTER.get_or_init(|| dot.is_faster()).then_some(dot)
    }

    fn is_faster(self) -> bool {
        // Everything of this size stays in the first cache, as in the midst of a large product.
        let (rows, depth, columns) = (24, 128, 48);
        let kernels = Kernels::on(Level::Avx512, Precision::F32);
        let (row_values, panels) = (vec![0.5; rows * depth], vec![0.5; depth * columns]);
        let mut values = vec![0.0; rows * columns];
        let (left, right) = (vec![0; BLOCK_ROWS * depth / 2], vec![0; depth * 64 / 2]);
        let mut sums = vec![0.0; BLOCK_ROWS * 64];
        let mut best = [Duration::MAX; 2];
        for _ in 0..100 {
            let started = Instant::now();
            kernels.dispatch(Product {
                rows: Rows::new(&row_values, depth),
                depth,
                panels: &panels,
                bias: None,
                target: Target {
                    values: &mut values,
                    stride: columns,
                    columns,
                },
                then: Then::Nothing,
            });
            best[0] = best[0].min(started.elapsed());
            let started = Instant::now();
            self.multiply(Block {
                left: &left,
                rows,
                right: &right,
                columns: 64,
                sums: &mut sums,
            });
            best[1] = best[1].min(started.elapsed());
        }
        // Of the two, the dot products computed 64 columns instead of 48.
        best[1].as_nanos() * 48 * 10 < best[0].as_nanos() * 64 * 9
    }

    /// Sums a block.
    pub(super) fn multiply(self, block: Block<'_>) {
        let Block {
            left,
            rows,
            right,
            columns,
            sums,
        } = block;
        assert!(rows <= BLOCK_ROWS && sums.len() >= rows * columns);
        let tiles = left.chunks_exact(left.len() / 2);
        let sums = sums.chunks_mut(TILE * columns);
        for (i, (tiles, sums)) in tiles.zip(sums).enumerate() {
            let rows = rows.saturating_sub(i * TILE).min(TILE);
            // SAFETY: `self` proves that the machine has AVX-512 and its dot products.
            unsafe {
                match columns {
                    32 => strip::<2>(tiles, rows, right, sums),
                    64 => strip::<4>(tiles, rows, right, sums),
                    _ => unreachable!("panels have 32 columns or 64"),
                }
            }
        }
    }
}

/// Up to 16 rows over a panel of `C` vectors, in blocks of nearly one size.
#[target_feature(enable = "avx512f,avx512bf16")]
fn strip<const C: usize>(tiles: &[Pair], rows: usize, right: &[Pair], sums: &mut [f32]) {
    let blocks = rows.div_ceil(ROWS);
    let mut row = 0;
    for block in 0..blocks {
        let size = rows / blocks + usize::from(block < rows % blocks);
        let sums = &mut sums[row * C * TILE..];
        match size {
            1 => rows_over::<1, C>(tiles, row, right, sums),
            2 => rows_over::<2, C>(tiles, row, right, sums),
            3 => rows_over::<3, C>(tiles, row, right, sums),
            4 => rows_over::<4, C>(tiles, row, right, sums),
            5 => rows_over::<5, C>(tiles, row, right, sums),
            6 => rows_over::<6, C>(tiles, row, right, sums),
            _ => unreachable!("no block is taller"),
        }
        row += size;
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn rows_over<const R: usize, const C: usize>(
    tiles: &[Pair],
    row: usize,
    right: &[Pair],
    sums: &mut [f32],
) {
    assert!(row + R <= TILE, "rows of one tile");
    let mut registers = [[_mm512_setzero_ps(); C]; R];
    let tiles = tiles.as_chunks::<TILE_PAIRS>().0;
    let steps = right.as_chunks::<TILE>().0.chunks_exact(TILE * C);
    for (tile, steps) in tiles.iter().zip(steps) {
        for k in 0..TILE {
            let mut step = [as_pairs(_mm512_setzero_si512()); C];
            for c in 0..C {
                step[c] = load(&steps[k * C + c]);
            }
            for r in 0..R {
                let x = as_pairs(_mm512_set1_epi32(tile[(row + r) * TILE + k].cast_signed()));
                for c in 0..C {
                    registers[r][c] = _mm512_dpbf16_ps(registers[r][c], x, step[c]);
                }
            }
        }
    }
    let (sums, _) = sums.as_chunks_mut::<TILE>();
    for r in 0..R {
        for c in 0..C {
            store(registers[r][c], &mut sums[r * C + c]);
        }
    }
}

/// Two numbers in each lane.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn as_pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes, and any bits are numbers.
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn load(pairs: &[Pair; TILE]) -> __m512bh {
    // SAFETY: the array is 64 bytes that may be read, and the load asks for no alignment.
    as_pairs(unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn store(register: __m512, sums: &mut [f32; TILE]) {
    // SAFETY: the array is 64 bytes that may be written, and the store asks for no alignment.
    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), register) }
}
