//! Sizes with a heavy tail: a bounded Pareto distribution, in whole numbers.
//!
//! With shape a, least L and most H, the share of sizes of at least n is
//! (n⁻ᵃ − (H+1)⁻ᵃ) / (L⁻ᵃ − (H+1)⁻ᵃ): a Pareto variable below H + 1, rounded down.
//!
//! Method: log₂ of a Pareto variable over L is exponential with mean log₂(e) / a. An exponential
//! variable knows no past, so what it leaves when divided by log₂((H+1) / L) is distributed as
//! itself given that it is below that: one draw, no rejection, no logarithm of a random number.
//! The power of two is then taken in fixed point.
//!
//! Error: the drawn logarithm has steps of at most 2⁻²⁸ (shape 0.1; finer in proportion to the
//! shape), and the power is right to one part in 2⁵⁵, so that a border between two sizes is off
//! by at most one part in 2²⁸ of the size: among sizes above 2²⁸ some are never drawn.

use paceline_core::Random;

use super::powers::{LOG2_E, POWER_BITS, inverse_power, log2, times_power};
use crate::draws;

/// A bounded Pareto distribution, ready to be drawn from.
#[derive(Clone, Debug)]
pub(in crate::workload) struct Pareto {
    least: u32,
    most: u32,
    shape_permille: u32,
    /// Mean of the logarithm without a bound, in steps of 2⁻⁴⁰.
    mean: u64,
    /// The logarithm's bound, in the same steps.
    bound: u64,
}

impl Pareto {
    /// Of `least` to `most`, with a shape from 100 thousandths on.
    pub(super) fn new(least: u32, most: u32, shape_permille: u32) -> Self {
        let least = least.max(1);
        let bound = log2(u64::from(most.max(least)) + 1) - log2(u64::from(least));
        Self {
            least,
            most: most.max(least),
            shape_permille,
            mean: LOG2_E * 1_000 / u64::from(shape_permille.max(1)),
            // log₂(2³² / (2³² − 1)) is still 369 steps.
            bound: bound.max(1),
        }
    }

    /// A size.
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        let logarithm = draws::exponential(random, self.mean) % self.bound;
        let size = times_power(self.least, logarithm).min(u64::from(self.most));
        u32::try_from(size).map_or(self.most, |size| size.max(self.least))
    }

    /// The mean in thousandths: least + Σ share of at least n. Cost: a term for each size, so
    /// for short ranges only.
    pub(super) fn mean_thousandths(&self) -> u64 {
        let beyond = u128::from(self.share_unbounded(self.bound));
        let sum: u128 = (self.least + 1..=self.most)
            .map(|size| {
                let logarithm = log2(u64::from(size)) - log2(u64::from(self.least));
                u128::from(self.share_unbounded(logarithm)).saturating_sub(beyond)
            })
            .sum();
        let whole = (1u128 << POWER_BITS) - beyond;
        u64::from(self.least) * 1_000 + (sum * 1_000 / whole.max(1)) as u64
    }

    /// 2^(−a × logarithm).
    fn share_unbounded(&self, logarithm: u64) -> u64 {
        let product = u128::from(logarithm) * u128::from(self.shape_permille) / 1_000;
        u64::try_from(product).map_or(0, inverse_power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact share of sizes of at least `size`.
    fn share(pareto: &Pareto, size: u32) -> f64 {
        let power = |n: f64| n.powf(-f64::from(pareto.shape_permille) / 1_000.0);
        let end = power(f64::from(pareto.most) + 1.0);
        (power(f64::from(size)) - end) / (power(f64::from(pareto.least)) - end)
    }

    #[test]
    fn the_tail_is_as_heavy_as_the_formula_says() {
        let draws = 200_000;
        for (least, most, shape) in [
            (1, 1_000_000, 1_000),
            (100, 100_000, 1_160),
            (16, 4_096, 500),
            (1, 10, 2_500),
            (7, u32::MAX, 100),
        ] {
            let pareto = Pareto::new(least, most, shape);
            let mut random = Random::from_seed(11);
            let sizes: Vec<u32> = (0..draws).map(|_| pareto.draw(&mut random)).collect();
            assert!(sizes.iter().all(|size| (least..=most).contains(size)));
            for doubling in 0..16 {
                let Some(from) = least.checked_shl(2 * doubling).filter(|n| n <= &most) else {
                    break;
                };
                if from < least {
                    break;
                }
                let expected = share(&pareto, from);
                let found = sizes.iter().filter(|size| **size >= from).count();
                let found = found as f64 / f64::from(draws);
                // Four standard deviations of a share of 200,000 draws.
                let bound = 4.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
                assert!(
                    (found - expected).abs() <= bound + 1e-9,
                    "{least}..={most} shape {shape}: {found} of at least {from}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn every_size_of_a_short_range_has_its_share_and_the_last_is_reached() {
        let pareto = Pareto::new(1, 4, 1_000);
        let mut random = Random::from_seed(12);
        let mut counts = [0i64; 5];
        for _ in 0..100_000 {
            counts[pareto.draw(&mut random) as usize] += 1;
        }
        // (1/n − 1/(n+1)) / (1 − 1/5): 0.625, 0.208 1/3, 0.104 1/6, 0.0625.
        for (count, expected) in counts[1..].iter().zip([62_500, 20_833, 10_417, 6_250]) {
            assert!((count - expected).abs() < 500, "{counts:?}");
        }
    }

    #[test]
    fn the_mean_is_that_of_the_draws() {
        // 0.625 + 2 × 0.2083 + 3 × 0.1042 + 4 × 0.0625 = 1.6042.
        assert_eq!(Pareto::new(1, 4, 1_000).mean_thousandths(), 1_604);
        assert_eq!(Pareto::new(9, 9, 1_000).mean_thousandths(), 9_000);
        for shape in [100, 900, 3_000, 100_000] {
            let pareto = Pareto::new(2, 1_024, shape);
            let mut random = Random::from_seed(13);
            let sum: u64 = (0..100_000)
                .map(|_| u64::from(pareto.draw(&mut random)))
                .sum();
            let (found, expected) = (sum / 100, pareto.mean_thousandths());
            assert!(
                found.abs_diff(expected) < 3 * expected / 100,
                "shape {shape}: {found}, not {expected}"
            );
        }
    }
}
