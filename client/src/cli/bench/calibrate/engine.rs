//! What engines have run so far, as nodes tell it to Prometheus.
//!
//! The names are those of `node/src/telemetry/metrics.rs`; tests/process/bench.rs holds that a
//! node still has them.

use crate::api::OperatorClient;
use crate::cli::failure::Failure;

/// Sums over the devices of some nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) batches: f64,
    pub(super) rows: f64,
    pub(super) seconds: f64,
}

/// What ran between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// One batch of so many rows, and how long the engine took.
    Alone { nanos: u64 },
    /// Something else, too, or not as one batch.
    Mixed,
}

const BATCHES: &str = "paceline_device_batch_duration_seconds_count";
const ROWS: &str = "paceline_device_batch_rows_sum";
const SECONDS: &str = "paceline_device_batch_duration_seconds_sum";

impl Reading {
    /// Of all these nodes, now.
    ///
    /// # Errors
    /// A node does not answer, or has no such metrics.
    pub(super) fn of(doors: &[OperatorClient]) -> Result<Self, Failure> {
        let mut all = Self::default();
        for door in doors {
            let text = door.metrics()?;
            let one = Self::parse(&text).ok_or_else(|| {
                let address = door.address();
                Failure::Failed(format!("{address} does not tell what its engines run"))
            })?;
            all.batches += one.batches;
            all.rows += one.rows;
            all.seconds += one.seconds;
        }
        Ok(all)
    }

    /// Whether what ran since `before` was one batch of `rows`.
    pub(super) fn since(self, before: Self, rows: u32) -> Ran {
        let is_one = self.batches - before.batches == 1.0;
        if !is_one || self.rows - before.rows != f64::from(rows) {
            return Ran::Mixed;
        }
        let nanos = ((self.seconds - before.seconds) * 1e9).round();
        Ran::Alone {
            nanos: nanos.max(1.0) as u64,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            batches: sum(text, BATCHES)?,
            rows: sum(text, ROWS)?,
            seconds: sum(text, SECONDS)?,
        })
    }
}

/// The sum of a metric over its labels.
fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole = rest.starts_with([' ', '{']);
        let value = rest.rsplit_once(' ')?.1;
        is_whole.then(|| value.parse::<f64>().ok())?
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_is_told_from_two_and_from_another() {
        let text = "# TYPE x histogram\n\
            paceline_device_batch_duration_seconds_sum 0.5\n\
            paceline_device_batch_duration_seconds_count 10\n\
            paceline_device_batch_duration_seconds_bucket{le=\"1\"} 10\n\
            paceline_device_batch_rows_sum{device=\"0\"} 60.0\n\
            paceline_device_batch_rows_sum{device=\"1\"} 4\n";
        let before = Reading::parse(text).unwrap();
        let wanted = Reading {
            batches: 10.0,
            rows: 64.0,
            seconds: 0.5,
        };
        assert_eq!(before, wanted);
        let after = |batches, rows| Reading {
            batches: 10.0 + batches,
            rows: 64.0 + rows,
            seconds: 0.500_012,
        };
        assert_eq!(
            after(1.0, 8.0).since(before, 8),
            Ran::Alone { nanos: 12_000 }
        );
        assert_eq!(after(1.0, 9.0).since(before, 8), Ran::Mixed);
        assert_eq!(after(2.0, 8.0).since(before, 8), Ran::Mixed);
        assert_eq!(Reading::parse("up 1\n"), None);
    }
}
