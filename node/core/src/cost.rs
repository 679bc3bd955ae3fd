//! A learnt estimate: what a batch of size `n` costs, as `a + b·n`. Who learns decides what the size
//! is counted in: rows or, of models that read texts, tokens.
//!
//! Least squares with exponential forgetting over measured batches. Recent batches count most:
//! after [`MEMORY_BATCHES`] batches a measurement has lost two thirds of its weight.

use serde::{Deserialize, Serialize};

/// The fit. Costs are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CostFit {
    weight: f64,
    size: f64,
    nanos: f64,
    size_squared: f64,
    size_nanos: f64,
    samples: u64,
}

/// Batches after which a measurement's weight has fallen to 1/e.
pub const MEMORY_BATCHES: f64 = 200.0;

impl CostFit {
    /// A fit that begins with two measurements, as a warm-up gives them: one row, and a full
    /// batch of `rows_max` rows.
    pub fn from_warm_up(one_row_nanos: u64, rows_max: u32, full_batch_nanos: u64) -> Self {
        Self::from_batches((1, one_row_nanos), (rows_max, full_batch_nanos))
    }

    /// The same of batches of any two sizes, each with its nanoseconds; the first is the smaller.
    pub fn from_batches((small, small_nanos): (u32, u64), (full, full_nanos): (u32, u64)) -> Self {
        let mut fit = Self::default();
        fit.learn(small, small_nanos);
        if full > small {
            fit.learn(full, full_nanos.max(small_nanos));
        }
        fit.samples = 0;
        fit
    }

    /// Takes in that a batch of `size` took `nanos`. Constant cost.
    pub fn learn(&mut self, size: u32, nanos: u64) {
        let (size, nanos) = (f64::from(size), nanos as f64);
        let keep = 1.0 - 1.0 / MEMORY_BATCHES;
        self.weight = self.weight * keep + 1.0;
        self.size = self.size * keep + size;
        self.nanos = self.nanos * keep + nanos;
        self.size_squared = self.size_squared * keep + size * size;
        self.size_nanos = self.size_nanos * keep + size * nanos;
        self.samples += 1;
    }

    /// Measured batches, without the warm-up.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Expected nanoseconds of a batch of `size`; 0 while nothing is known.
    pub fn batch_nanos(&self, size: u32) -> u64 {
        let (fixed, per_unit) = self.line();
        (fixed + per_unit * f64::from(size)).round() as u64
    }

    /// Expected nanoseconds of one row, or token, where batches of size `full` run: what a queue of
    /// them will take, divided by their number.
    pub fn unit_nanos(&self, full: u32) -> u64 {
        self.batch_nanos(full) / u64::from(full.max(1))
    }

    /// `(a, b)`, both at least 0: a batch has a fixed cost, and rows do not make it cheaper.
    fn line(&self) -> (f64, f64) {
        if self.weight <= 0.0 {
            return (0.0, 0.0);
        }
        let mean_size = self.size / self.weight;
        let mean_nanos = self.nanos / self.weight;
        let variance = self.size_squared / self.weight - mean_size * mean_size;
        if variance < 1e-6 {
            // All batches had one size: the honest line through one point is proportional.
            return (0.0, mean_nanos / mean_size.max(1.0));
        }
        let covariance = self.size_nanos / self.weight - mean_size * mean_nanos;
        let per_unit = (covariance / variance).max(0.0);
        let fixed = mean_nanos - per_unit * mean_size;
        if fixed >= 0.0 {
            (fixed, per_unit)
        } else {
            (0.0, mean_nanos / mean_size.max(1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_behind_the_measurements() {
        let mut fit = CostFit::default();
        for rows in (1..=64).cycle().take(500) {
            fit.learn(rows, 40_000 + 1_500 * u64::from(rows));
        }
        assert!(
            (fit.batch_nanos(1) as i64 - 41_500).abs() < 50,
            "{}",
            fit.batch_nanos(1)
        );
        assert!((fit.batch_nanos(64) as i64 - 136_000).abs() < 50);
        assert_eq!(fit.samples(), 500);
    }

    #[test]
    fn follows_a_change_within_a_few_hundred_batches() {
        let mut fit = CostFit::from_warm_up(10_000, 32, 41_000);
        assert_eq!(fit.batch_nanos(32), 41_000);
        for rows in (1..=32).cycle().take(1_000) {
            fit.learn(rows, 20_000 + 2_000 * u64::from(rows));
        }
        assert!((fit.batch_nanos(16) as i64 - 52_000).abs() < 2_000);
    }

    #[test]
    fn never_promises_a_negative_or_falling_cost() {
        let mut fit = CostFit::default();
        assert_eq!(fit.batch_nanos(8), 0);
        for (rows, nanos) in [(1, 9_000), (64, 100), (32, 50)] {
            fit.learn(rows, nanos);
            assert!(fit.batch_nanos(64) >= fit.batch_nanos(1));
        }
    }
}
