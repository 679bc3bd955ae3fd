//! Many latencies in little room: counts in buckets that are 1/64 as wide as what they hold.

use std::ops::Range;

/// A log-linear histogram of nanoseconds (as HdrHistogram's, G. Tene): each power of two is
/// divided into 64 buckets, so a quantile is at most 1.6 % above the truth. 30 KiB, however
/// many are counted.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
    /// The buckets that have been counted in; memory of the others was never touched.
    used: Range<usize>,
}

/// A quantile is above the truth by no more than this share of it.
pub(super) const ERROR_MAX: f64 = 1.0 / STEPS as f64;
/// Buckets of a power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) * STEPS as usize;

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            count: 0,
            sum: 0,
            max: 0,
            used: 0..0,
        }
    }

    pub(super) fn record(&mut self, nanos: u64) {
        let at = bucket(nanos);
        self.counts[at] += 1;
        self.touch(at..at + 1);
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for at in other.used.clone() {
            self.counts[at] += other.counts[at];
        }
        self.touch(other.used.clone());
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Forgets everything, and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.counts[self.used.clone()].fill(0);
        (self.count, self.sum, self.max, self.used) = (0, 0, 0, 0..0);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What was counted: the largest value of a bucket, and how many are in it, rising.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counted = |at: &usize| self.counts[*at] > 0;
        let used = self.used.clone().filter(counted);
        used.map(|at| (last_of(at).min(self.max), self.counts[at]))
    }

    /// Exact.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Exact; 0 if nothing was counted.
    pub(super) fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        u64::try_from(mean).unwrap_or(u64::MAX)
    }

    /// A value that the share `q` of all do not exceed; 0 if nothing was counted.
    pub(super) fn quantile(&self, q: f64) -> u64 {
        let wanted = (q * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (last, count) in self.buckets() {
            seen += count;
            if seen >= wanted {
                return last;
            }
        }
        self.max
    }

    fn touch(&mut self, more: Range<usize>) {
        self.used = match (self.used.is_empty(), more.is_empty()) {
            (true, _) => more,
            (_, true) => return,
            _ => self.used.start.min(more.start)..self.used.end.max(more.end),
        };
    }
}

/// Below 64 each value has a bucket; above, its six bits after the first one choose.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    let step = (nanos >> shift) - STEPS;
    ((u64::from(shift) + 1) * STEPS + step) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (shift, step) = (bucket / STEPS - 1, bucket % STEPS);
    let next = u128::from(STEPS + step + 1) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for nanos in (0..5_000).chain([1 << 40, (1 << 40) + 1, u64::MAX - 1, u64::MAX]) {
            let at = bucket(nanos);
            assert!(at < BUCKETS);
            let last = last_of(at);
            assert!(last >= nanos);
            assert!(
                last - nanos <= nanos / STEPS,
                "{nanos} in a bucket to {last}"
            );
            if let Some(next) = last.checked_add(1) {
                assert_eq!(bucket(next), at + 1);
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let (mut low, mut high) = (Latencies::new(), Latencies::new());
        (1..=500).for_each(|ms| low.record(ms * 1_000_000));
        (501..=1_000).for_each(|ms| high.record(ms * 1_000_000));
        low.add(&high);
        for (q, wanted_ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0)] {
            let found_ms = low.quantile(q) as f64 / 1e6;
            let error = (found_ms - wanted_ms) / wanted_ms;
            assert!((0.0..0.016).contains(&error), "{q}: {found_ms}");
        }
        assert_eq!(low.max(), 1_000_000_000);
        assert_eq!(low.quantile(1.0), 1_000_000_000);
        assert_eq!(low.mean(), 500_500_000);
        assert_eq!((low.count(), Latencies::new().quantile(0.5)), (1_000, 0));
        low.clear();
        low.record(7);
        assert_eq!(
            low.buckets().collect::<Vec<_>>(),
            [(7, 1)],
            "nothing is left behind"
        );
        assert_eq!((low.mean(), low.max()), (7, 7));
    }

    proptest! {
        /// Whatever is counted, in however many parts: a quantile is the true one or above it,
        /// by no more than 1/64, and the parts together are the whole.
        #[test]
        fn a_quantile_is_at_most_a_sixty_fourth_above_the_truth(
            nanos in prop::collection::vec(prop_oneof![0..200u64, 0..u64::MAX, 1_000..100_000_000u64], 1..200),
            parts in 1..5usize,
            q in 0.0..=1.0f64,
        ) {
            let mut shares = vec![Latencies::new(); parts];
            for (at, nanos) in nanos.iter().enumerate() {
                shares[at % parts].record(*nanos);
            }
            let mut whole = Latencies::new();
            shares.iter().for_each(|share| whole.add(share));
            let mut sorted = nanos.clone();
            sorted.sort_unstable();
            let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
            let truth = sorted[rank - 1];
            let told = whole.quantile(q);
            prop_assert!(told >= truth && told - truth <= truth / STEPS, "{told} for {truth}");
            prop_assert_eq!(whole.count(), nanos.len() as u64);
            prop_assert_eq!(whole.max(), sorted[sorted.len() - 1]);
            let counted: u64 = whole.buckets().map(|(_, count)| count).sum();
            prop_assert_eq!(counted, whole.count());
        }
    }
}
