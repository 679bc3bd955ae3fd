//! What a request spends its time on, until it has ended: a version's statistics take it over once the
//! request is answered, so that they are of nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::metrics::Stage;

/// How long a request has been at each stage, over all of its parts.
pub(super) struct Times {
    nanos: [AtomicU64; Stage::ALL.len()],
    /// How long it has waited for its batch: the first of its parts, since the others may have waited
    /// for that.
    waited: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            nanos: Default::default(),
            waited: AtomicU64::new(u64::MAX),
        }
    }
}

impl Times {
    /// A part has been at a stage for so long.
    pub(super) fn note(&self, stage: Stage, nanos: u64) {
        self.nanos[stage as usize].fetch_add(nanos, Ordering::Relaxed);
        if stage == Stage::Queue {
            self.waited.fetch_min(nanos, Ordering::Relaxed);
        }
    }

    /// All stages, in their order.
    pub(super) fn nanos(&self) -> [u64; Stage::ALL.len()] {
        self.nanos
            .each_ref()
            .map(|nanos| nanos.load(Ordering::Relaxed))
    }

    /// How long the request has waited for its batch; nothing while it is not known.
    pub(super) fn waited_nanos(&self) -> Option<u64> {
        let nanos = self.waited.load(Ordering::Relaxed);
        (nanos != u64::MAX).then_some(nanos)
    }

    /// Those of a request that is pinned anew: what was done for it stays done, and nothing of it has
    /// waited for a batch that ran.
    pub(super) fn anew(&self) -> Self {
        Self {
            nanos: self.nanos().map(AtomicU64::new),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_summed_and_the_shortest_wait_is_the_first() {
        let times = Times::default();
        assert_eq!(times.waited_nanos(), None);
        times.note(Stage::Parse, 5);
        for (queued, ran) in [(30, 2), (10, 3)] {
            times.note(Stage::Queue, queued);
            times.note(Stage::Run, ran);
        }
        assert_eq!(times.nanos(), [5, 40, 5, 0]);
        assert_eq!(times.waited_nanos(), Some(10));
        let anew = times.anew();
        assert_eq!((anew.nanos(), anew.waited_nanos()), ([5, 40, 5, 0], None));
    }
}
