//! Requests that wait for one replica: by class, and within a class the earliest deadline first.

use paceline_protocol::Criticality;
use serde::{Deserialize, Serialize};

use crate::deadline_queue::{DeadlineQueue, Passed, Verdict};
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// A queue for each class.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    classes: [DeadlineQueue; Criticality::ALL.len()],
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(DeadlineQueue::len).sum()
    }

    /// Memory that a copy takes.
    pub(super) fn bytes(&self) -> usize {
        self.classes.iter().map(DeadlineQueue::bytes).sum()
    }

    /// The request that is served first.
    pub(super) fn head(&self) -> Option<&RequestMeta> {
        self.classes.iter().find_map(DeadlineQueue::earliest)
    }

    /// The earliest deadline of all, whoever is served first.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let deadlines = self.classes.iter();
        deadlines.filter_map(DeadlineQueue::earliest_deadline).min()
    }

    pub(super) fn push(&mut self, request: RequestMeta) {
        self.classes[request.criticality as usize].push(request);
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<RequestMeta> {
        let mut classes = self.classes.iter_mut();
        classes.find_map(|queue| queue.remove(slot))
    }

    /// One whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<RequestMeta> {
        let mut classes = self.classes.iter_mut();
        classes.find_map(|queue| {
            let has_passed = queue.earliest_deadline()? <= now;
            has_passed.then(|| queue.pop())?
        })
    }

    /// Any.
    pub(super) fn pop(&mut self) -> Option<RequestMeta> {
        self.classes.iter_mut().find_map(DeadlineQueue::pop)
    }

    /// One of the lowest class that is lower than `than`: among the last of them, if not the last.
    pub(super) fn shed(&mut self, than: Criticality) -> Option<RequestMeta> {
        let lower = &mut self.classes[than as usize + 1..];
        lower.iter_mut().rev().find_map(DeadlineQueue::pop_late)
    }

    /// Rows that are served before a request: all of higher classes, and nearly those of its own
    /// class that are due earlier.
    pub(super) fn rows_before(&self, request: &RequestMeta) -> u64 {
        let class = request.criticality as usize;
        let higher = self.classes[..class].iter();
        let higher: u64 = higher.map(|queue| queue.rows_before(Instant::FAR)).sum();
        higher + self.classes[class].rows_before(request.deadline)
    }

    /// Takes out, in the order in which they are served, those of the first requests that
    /// `wanted` accepts; at most `looks` are passed over, which keep their places.
    pub(super) fn take(
        &mut self,
        mut looks: usize,
        passed: &mut Passed,
        mut wanted: impl FnMut(&RequestMeta) -> Verdict,
    ) {
        for queue in &mut self.classes {
            let (mut is_over, mut passes) = (false, 0);
            queue.take(looks, passed, |request| {
                let verdict = wanted(request);
                is_over |= verdict == Verdict::Stop;
                passes += usize::from(verdict == Verdict::Pass);
                verdict
            });
            looks -= passes;
            if is_over || looks == 0 {
                return;
            }
        }
    }
}
