//! What a node has answered while a canary is under way: of the version that serves, and of the
//! one that is tried.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, ModelName};

/// What a node has answered of a model since its canary began. Counts only rise while the node
/// lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// The model.
    pub model: ModelName,
    /// The entry that began the canary.
    pub since: Epoch,
    /// Drawn when the node began to count: another number means that it counts anew, from zero.
    pub life: u64,
    /// Requests that the version that serves was chosen for.
    pub stable: ArmCounts,
    /// Those that the canary was chosen for.
    pub canary: ArmCounts,
}

/// Requests that one version was chosen for, and how they ended. Those whose caller left, that
/// were refused for load, or that were at fault themselves, are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// All.
    pub requests: u64,
    /// Those that the version failed.
    pub failures: u64,
    /// By how long they took, whatever their end; what is behind the last bucket is zero.
    pub latencies: Vec<u64>,
}

impl CanaryReport {
    pub(super) fn is_sound(&self) -> bool {
        let arms = [&self.stable, &self.canary];
        arms.iter()
            .all(|arm| arm.latencies.len() <= LATENCY_BUCKETS)
    }
}

impl ArmCounts {
    /// Adds what others have counted.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        if self.latencies.len() < other.latencies.len() {
            self.latencies.resize(other.latencies.len(), 0);
        }
        for (own, more) in self.latencies.iter_mut().zip(&other.latencies) {
            *own = own.saturating_add(*more);
        }
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        since.requests = since.requests.saturating_sub(before.requests);
        since.failures = since.failures.saturating_sub(before.failures);
        for (own, less) in since.latencies.iter_mut().zip(&before.latencies) {
            *own = own.saturating_sub(*less);
        }
        since
    }

    /// The bucket below which, or in which, so many of 1,000 requests are; none without requests.
    pub fn quantile_bucket(&self, permille: u64) -> Option<usize> {
        let all: u128 = self.latencies.iter().map(|count| u128::from(*count)).sum();
        let wanted = (all * u128::from(permille)).div_ceil(1_000).max(1);
        let mut below = 0;
        self.latencies.iter().position(|count| {
            below += u128::from(*count);
            below >= wanted
        })
    }

    /// Requests in buckets above this one.
    pub fn above(&self, bucket: usize) -> u64 {
        let above = self.latencies.iter().skip(bucket + 1);
        above.fold(0, |sum: u64, count| sum.saturating_add(*count))
    }
}

/// The bucket of a latency: by microsecond below 4 µs, and from there four to each doubling, so a
/// bucket is at most a quarter wider than where it begins. The last one is open.
pub fn latency_bucket(nanos: u64) -> usize {
    let micros = nanos / 1_000;
    if micros < 4 {
        return micros as usize;
    }
    let octave = micros.ilog2() as usize;
    let quarter = (micros >> (octave - 2)) as usize & 3;
    ((octave - 1) * 4 + quarter).min(LATENCY_BUCKETS - 1)
}

/// Where a bucket ends, in nanoseconds; all in it took less, but for the last one.
pub fn latency_bucket_nanos(bucket: usize) -> u64 {
    let bucket = bucket.min(LATENCY_BUCKETS - 1) as u64;
    let micros = match bucket {
        0..4 => bucket + 1,
        _ => (bucket % 4 + 5) << (bucket / 4 - 1),
    };
    micros * 1_000
}

/// Buckets of latencies: up to the largest budget, ten minutes.
pub const LATENCY_BUCKETS: usize = 113;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REQUEST_BUDGET_MAX_MS;

    #[test]
    fn each_latency_is_in_the_bucket_that_ends_above_it() {
        let mut nanos = 1;
        while nanos < REQUEST_BUDGET_MAX_MS * 1_000_000 {
            let bucket = latency_bucket(nanos);
            assert!(nanos < latency_bucket_nanos(bucket), "{nanos} in {bucket}");
            if bucket > 0 {
                let begins = latency_bucket_nanos(bucket - 1);
                assert!(nanos >= begins, "{nanos} in {bucket}");
                let is_narrow = latency_bucket_nanos(bucket) * 4 <= begins * 5;
                assert!(is_narrow || nanos < 4_000, "{bucket}");
            }
            nanos += nanos / 7 + 1;
        }
        assert_eq!(
            latency_bucket(REQUEST_BUDGET_MAX_MS * 1_000_000),
            LATENCY_BUCKETS - 1
        );
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn counts_are_added_and_taken_apart_again() {
        let arm = |requests, latencies: &[u64]| ArmCounts {
            requests,
            failures: 1,
            latencies: latencies.to_vec(),
        };
        let before = arm(3, &[1, 2]);
        let mut sum = before.clone();
        sum.add(&arm(97, &[0, 96, 0, 1]));
        assert_eq!(
            sum,
            ArmCounts {
                failures: 2,
                ..arm(100, &[1, 98, 0, 1])
            }
        );
        assert_eq!(sum.since(&before), arm(97, &[0, 96, 0, 1]));
        assert_eq!(sum.quantile_bucket(990), Some(1));
        assert_eq!(sum.quantile_bucket(991), Some(3));
        assert_eq!((sum.above(0), sum.above(1), sum.above(3)), (99, 1, 0));
        assert_eq!(ArmCounts::default().quantile_bucket(990), None);
    }
}
