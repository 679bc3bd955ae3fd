//! Products of bfloat16: what the units compute against sums in float64, and the layout of factors.

use half::bf16;
use proptest::prelude::*;

use super::super::level::{Level, Precision};
use super::super::noise::noise;
use super::super::product::Rows;
use super::*;

/// What a unit does, in plain Rust.
pub(super) fn multiply(block: Block<'_>) {
    let Block {
        left,
        rows,
        right,
        columns,
        sums,
    } = block;
    assert_eq!(sums.len(), BLOCK_ROWS * columns);
    let row_pairs = left.len() / BLOCK_ROWS;
    // Sums of rows that are not wanted may hold anything.
    sums.fill(f32::NAN);
    for (row, sums) in sums.chunks_exact_mut(columns).take(rows).enumerate() {
        sums.fill(0.0);
        for pair in 0..row_pairs {
            let tile = row / TILE * TILE * row_pairs + pair / TILE * TILE_PAIRS;
            let x = halves(left[tile + row % TILE * TILE + pair % TILE]);
            for (sum, y) in sums.iter_mut().zip(&right[pair * columns..]) {
                let y = halves(*y);
                *sum += x[0] * y[0] + x[1] * y[1];
            }
        }
    }
}

fn halves(pair: Pair) -> [f32; 2] {
    [pair as u16, (pair >> 16) as u16].map(|bits| bf16::from_bits(bits).to_f32())
}

/// Every unit of this machine, and Rust.
pub(in super::super) fn units() -> Vec<(Level, Unit)> {
    let mut units = vec![(Level::Plain, Unit::Emulated)];
    #[cfg(target_arch = "x86_64")]
    {
        match dot::Dot::detect() {
            Some(dot) => units.push((Level::Avx512, Unit::Dot(dot))),
            None => println!("not tested: this machine has no dot products of bfloat16"),
        }
        match amx::Amx::detect() {
            Some(amx) => units.push((Level::Amx, Unit::Tiles(amx))),
            None => println!("not tested: this machine has no AMX, or may not use it"),
        }
    }
    units
}

/// A product whose scratch and rest of the last block are no numbers.
fn product(
    (level, unit): (Level, Unit),
    (x, depth): (&[f32], usize),
    right: &[Pair],
    columns: usize,
) -> Vec<f32> {
    let kernels = Kernels::on(level, Precision::Bf16);
    let rows = Rows::new(x, depth);
    let mut left = vec![Pair::MAX; left_pairs(rows.count, depth)];
    kernels.dispatch(PackLeft {
        rows,
        depth,
        left: &mut left,
    });
    let mut values = vec![f32::NAN; rows.count * columns];
    let product = Product {
        unit,
        rows: rows.count,
        depth,
        left: &left,
        right,
        bias: None,
        target: Target {
            values: &mut values,
            stride: columns,
            columns,
        },
        then: Then::Nothing,
    };
    product.run(kernels);
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_is_a_product_and_no_row_knows_its_neighbours(
        rows in 1usize..66, depth in 1usize..100, columns in 1usize..150, seed: u64,
    ) {
        let (x, weight) = (noise(rows * depth, seed), noise(columns * depth, !seed));
        let turned: Vec<f32> = (0..depth * columns)
            .map(|i| weight[i % columns * depth + i / columns])
            .collect();
        let mut packed = [(); 2].map(|()| vec![Pair::MAX; right_pairs(depth, columns)]);
        for level in Level::available() {
            let kernels = Kernels::on(level, Precision::Bf16);
            kernels.dispatch(PackColumns {
                columns: Rows::new(&weight, depth),
                depth,
                scale: 1.0,
                right: &mut packed[0],
            });
            kernels.dispatch(PackRows {
                rows: Rows::new(&turned, columns),
                columns,
                right: &mut packed[1],
            });
            prop_assert_eq!(&packed[0], &packed[1], "both ways give the same layout");
        }
        for unit in units() {
            let got = product(unit, (&x, depth), &packed[0], columns);
            for row in 0..rows {
                let x = &x[row * depth..][..depth];
                for column in 0..columns {
                    let w = &weight[column * depth..][..depth];
                    let exact: f64 = x.iter().zip(w).map(|(x, w)| rounded(*x) * rounded(*w)).sum();
                    let got = f64::from(got[row * columns + column]);
                    prop_assert!((exact - got).abs() < 2e-5, "{unit:?}: {exact} {got}");
                }
                let alone = product(unit, (x, depth), &packed[0], columns);
                prop_assert_eq!(&alone[..], &got[row * columns..][..columns]);
            }
        }
    }
}

fn rounded(x: f32) -> f64 {
    f64::from(bf16::from_f32(x).to_f32())
}

#[test]
fn rounding_is_that_of_the_half_crate() {
    let mut values = noise(3_200, 3);
    let odd = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffff_ffff),
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(1),
    ];
    values[..odd.len()].copy_from_slice(&odd);
    for level in Level::available() {
        for line in values.chunks_exact(2 * TILE) {
            let mut left = vec![0; left_pairs(1, 2 * TILE)];
            Kernels::on(level, Precision::Bf16).dispatch(PackLeft {
                rows: Rows::new(line, 2 * TILE),
                depth: 2 * TILE,
                left: &mut left,
            });
            for (k, value) in line.iter().enumerate() {
                let (pair, shift) = (k % TILE, k / TILE * 16);
                let (got, wanted) = ((left[pair] >> shift) as u16, bf16::from_f32(*value));
                assert_eq!(
                    got,
                    wanted.to_bits(),
                    "{level} {value} {:x}",
                    value.to_bits()
                );
            }
        }
    }
}
