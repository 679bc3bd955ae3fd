//! Layer normalisation (Ba, Kiros and Hinton, 2016), with the residual that comes before it.

use pulp::{Simd, WithSimd};

use super::level::Kernels;

/// What normalised rows are multiplied by and moved by, and what keeps the divisor above zero.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[width]`
    pub weight: &'a [f32],
    /// `[width]`
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Replaces each row of `values [rows, width]`, after `residual [rows, width]` has been added to it, by
/// `(x - mean) / √(variance + eps) · weight + bias`, with the variance over all of the row.
///
/// The mean is corrected by what remains of it after it was subtracted, so that rows that are far
/// from zero lose nothing. Cost: three passes over a row, which stays in the first cache.
///
/// # Panics
/// If a length is not that of whole rows.
pub fn layer_norm(kernels: Kernels, values: &mut [f32], residual: Option<&[f32]>, norm: Norm<'_>) {
    let width = norm.weight.len();
    assert!(width > 0, "a row is not empty");
    assert_eq!(norm.bias.len(), width, "bias [width]");
    assert!(values.len().is_multiple_of(width), "values [rows, width]");
    assert!(
        residual.is_none_or(|residual| residual.len() == values.len()),
        "residual [rows, width]"
    );
    kernels.dispatch(Run {
        values,
        residual,
        norm,
    });
}

struct Run<'a> {
    values: &'a mut [f32],
    residual: Option<&'a [f32]>,
    norm: Norm<'a>,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.norm.weight.len();
        for (row, values) in self.values.chunks_exact_mut(width).enumerate() {
            if let Some(residual) = self.residual {
                add(simd, values, &residual[row * width..][..width]);
            }
            normalise(simd, values, self.norm);
        }
    }
}

/// Adds one row to another.
#[inline(always)]
pub(super) fn add<S: Simd>(simd: S, values: &mut [f32], residual: &[f32]) {
    let (whole, rest) = S::as_mut_simd_f32s(values);
    let (others, other_rest) = S::as_simd_f32s(residual);
    for (x, other) in whole.iter_mut().zip(others) {
        *x = simd.add_f32s(*x, *other);
    }
    for (x, other) in rest.iter_mut().zip(other_rest) {
        *x += other;
    }
}

#[inline(always)]
fn normalise<S: Simd>(simd: S, values: &mut [f32], norm: Norm<'_>) {
    let count = values.len() as f32;
    let mean = moments(simd, values, 0.0).0 / count;
    let (rest, squares) = moments(simd, values, mean);
    let rest = rest / count;
    let variance = (squares / count - rest * rest).max(0.0);
    let scale = 1.0 / (variance + norm.eps).sqrt();
    let (means, rests) = (simd.splat_f32s(mean), simd.splat_f32s(rest));
    let scales = simd.splat_f32s(scale);
    let (whole, tail) = S::as_mut_simd_f32s(values);
    let (weights, weight_tail) = S::as_simd_f32s(norm.weight);
    let (biases, bias_tail) = S::as_simd_f32s(norm.bias);
    for ((x, weight), bias) in whole.iter_mut().zip(weights).zip(biases) {
        let centred = simd.sub_f32s(simd.sub_f32s(*x, means), rests);
        *x = simd.mul_add_e_f32s(simd.mul_f32s(centred, scales), *weight, *bias);
    }
    for ((x, weight), bias) in tail.iter_mut().zip(weight_tail).zip(bias_tail) {
        *x = (*x - mean - rest) * scale * weight + bias;
    }
}

/// The sums of all distances from `centre`, and of their squares.
#[inline(always)]
fn moments<S: Simd>(simd: S, values: &[f32], centre: f32) -> (f32, f32) {
    let (whole, rest) = S::as_simd_f32s(values);
    let centres = simd.splat_f32s(centre);
    // Four sums of each kind, since one addition takes as long as four begin.
    let mut sums = [simd.splat_f32s(0.0); 4];
    let mut squares = sums;
    let (fours, ones) = whole.as_chunks::<4>();
    for four in fours {
        for i in 0..4 {
            let distance = simd.sub_f32s(four[i], centres);
            sums[i] = simd.add_f32s(sums[i], distance);
            squares[i] = simd.mul_add_e_f32s(distance, distance, squares[i]);
        }
    }
    for (i, x) in ones.iter().enumerate() {
        let distance = simd.sub_f32s(*x, centres);
        sums[i] = simd.add_f32s(sums[i], distance);
        squares[i] = simd.mul_add_e_f32s(distance, distance, squares[i]);
    }
    let (mut sum, mut square) = (total(simd, sums), total(simd, squares));
    for x in rest {
        let distance = x - centre;
        sum += distance;
        square += distance * distance;
    }
    (sum, square)
}

#[inline(always)]
fn total<S: Simd>(simd: S, s: [S::f32s; 4]) -> f32 {
    let pairs = (simd.add_f32s(s[0], s[1]), simd.add_f32s(s[2], s[3]));
    simd.reduce_sum_f32s(simd.add_f32s(pairs.0, pairs.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::level::{Level, Precision};
    use super::super::noise::noise;
    use super::*;

    fn exact(values: &[f32], residual: &[f32], norm: Norm<'_>) -> Vec<f64> {
        let width = norm.weight.len();
        let mut normalised = Vec::new();
        for (row, more) in values.chunks_exact(width).zip(residual.chunks_exact(width)) {
            let row: Vec<f64> = row
                .iter()
                .zip(more)
                .map(|(x, r)| f64::from(x + r))
                .collect();
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let scale = 1.0 / (variance + f64::from(norm.eps)).sqrt();
            let scaled = row.iter().zip(norm.weight).zip(norm.bias);
            normalised.extend(
                scaled.map(|((x, w), b)| (x - mean) * scale * f64::from(*w) + f64::from(*b)),
            );
        }
        normalised
    }

    proptest! {
        #[test]
        fn rows_of_any_width_are_normalised_alike_in_any_company(
            rows in 1usize..6, width in 1usize..200, far in -1e4f32..1e4, seed: u64,
        ) {
            let mut values = noise(rows * width, seed);
            values.iter_mut().for_each(|x| *x += far);
            let residual = noise(rows * width, seed ^ 1);
            let (weight, bias) = (noise(width, seed ^ 2), noise(width, seed ^ 3));
            let norm = Norm { weight: &weight, bias: &bias, eps: 1e-5 };
            let wanted = exact(&values, &residual, norm);
            for level in Level::available() {
                let kernels = Kernels::on(level, Precision::F32);
                let mut got = values.clone();
                layer_norm(kernels, &mut got, Some(&residual), norm);
                for (got, wanted) in got.iter().zip(&wanted) {
                    let error = (f64::from(*got) - wanted).abs();
                    prop_assert!(error < 2e-5, "{} {} {}", level, got, wanted);
                }
                let last = (rows - 1) * width..;
                let mut alone = values[last.clone()].to_vec();
                layer_norm(kernels, &mut alone, Some(&residual[last.clone()]), norm);
                prop_assert_eq!(&alone[..], &got[last]);
            }
        }
    }

    #[test]
    fn a_constant_row_becomes_the_bias() {
        for width in [1, 7, 384, 1_000] {
            let (weight, bias) = (vec![1.0; width], noise(width, 1));
            let norm = Norm {
                weight: &weight,
                bias: &bias,
                eps: 1e-12,
            };
            for level in Level::available() {
                for constant in [0.0, 1.0, -3.3, 1e6, 1e-20] {
                    let mut row = vec![constant; width];
                    layer_norm(Kernels::on(level, Precision::F32), &mut row, None, norm);
                    for (x, bias) in row.iter().zip(&bias) {
                        assert!((x - bias).abs() < 0.01, "{level} {width} {constant}: {x}");
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for (values, residual, bias) in [(7, None, 4), (8, Some(4), 4), (8, None, 3)] {
            let (weight, bias) = ([1.0; 4], vec![0.0; bias]);
            let residual = residual.map(|len| vec![0.0; len]);
            let run = move || {
                let norm = Norm {
                    weight: &weight,
                    bias: &bias,
                    eps: 1e-5,
                };
                let kernels = Kernels::on(Level::Plain, Precision::F32);
                layer_norm(kernels, &mut vec![0.0; values], residual.as_deref(), norm);
            };
            assert!(std::panic::catch_unwind(run).is_err());
        }
    }
}
