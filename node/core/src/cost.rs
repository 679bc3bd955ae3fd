//! A learnt estimate: what a batch of `n` rows costs, as `a + b·n`.
//!
//! Least squares with exponential forgetting over measured batches. Recent batches count most:
//! after [`MEMORY_BATCHES`] batches a measurement has lost two thirds of its weight.

use serde::{Deserialize, Serialize};

/// The fit. Costs are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CostFit {
    weight: f64,
    rows: f64,
    nanos: f64,
    rows_squared: f64,
    rows_nanos: f64,
    samples: u64,
}

/// Batches after which a measurement's weight has fallen to 1/e.
pub const MEMORY_BATCHES: f64 = 200.0;

impl CostFit {
    /// A fit that begins with two measurements, as a warm-up gives them: one row, and a full
    /// batch of `rows_max` rows.
    pub fn from_warm_up(one_row_nanos: u64, rows_max: u32, full_batch_nanos: u64) -> Self {
        let mut fit = Self::default();
        fit.learn(1, one_row_nanos);
        if rows_max > 1 {
            fit.learn(rows_max, full_batch_nanos.max(one_row_nanos));
        }
        fit.samples = 0;
        fit
    }

    /// Takes in that a batch of `rows` took `nanos`. Constant cost.
    pub fn learn(&mut self, rows: u32, nanos: u64) {
        let (rows, nanos) = (f64::from(rows), nanos as f64);
        let keep = 1.0 - 1.0 / MEMORY_BATCHES;
        self.weight = self.weight * keep + 1.0;
        self.rows = self.rows * keep + rows;
        self.nanos = self.nanos * keep + nanos;
        self.rows_squared = self.rows_squared * keep + rows * rows;
        self.rows_nanos = self.rows_nanos * keep + rows * nanos;
        self.samples += 1;
    }

    /// Measured batches, without the warm-up.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Expected nanoseconds of a batch of `rows`; 0 while nothing is known.
    pub fn batch_nanos(&self, rows: u32) -> u64 {
        let (fixed, per_row) = self.line();
        (fixed + per_row * f64::from(rows)).round() as u64
    }

    /// Expected nanoseconds that one more row adds when batches are full: what a queue of rows
    /// will take, divided by the rows.
    pub fn row_nanos(&self, rows_max: u32) -> u64 {
        self.batch_nanos(rows_max) / u64::from(rows_max.max(1))
    }

    /// `(a, b)`, both at least 0: a batch has a fixed cost, and rows do not make it cheaper.
    fn line(&self) -> (f64, f64) {
        if self.weight <= 0.0 {
            return (0.0, 0.0);
        }
        let mean_rows = self.rows / self.weight;
        let mean_nanos = self.nanos / self.weight;
        let variance = self.rows_squared / self.weight - mean_rows * mean_rows;
        if variance < 1e-6 {
            // All batches had one size: the honest line through one point is proportional.
            return (0.0, mean_nanos / mean_rows.max(1.0));
        }
        let covariance = self.rows_nanos / self.weight - mean_rows * mean_nanos;
        let per_row = (covariance / variance).max(0.0);
        let fixed = mean_nanos - per_row * mean_rows;
        if fixed >= 0.0 {
            (fixed, per_row)
        } else {
            (0.0, mean_nanos / mean_rows.max(1.0))
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
