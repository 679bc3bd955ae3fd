//! Requests that wait for one replica: by class, and within a class the earliest deadline first.

use paceline_protocol::Criticality;
use serde::{Deserialize, Serialize};

use crate::deadline_queue::{DeadlineQueue, Passed, Verdict};
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// A queue for each class.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    classes: [Class; Criticality::ALL.len()],
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Class {
    queue: DeadlineQueue,
    rows: u64,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(|class| class.queue.len()).sum()
    }

    /// Rows of all.
    pub(super) fn rows(&self) -> u64 {
        self.classes.iter().map(|class| class.rows).sum()
    }

    /// Rows of lower classes.
    pub(super) fn rows_below(&self, criticality: Criticality) -> u64 {
        let lower = self.classes[criticality as usize + 1..].iter();
        lower.map(|class| class.rows).sum()
    }

    /// Rows that are served before a request: all of higher classes, and nearly those of its own
    /// class that are due earlier.
    pub(super) fn rows_before(&self, request: &RequestMeta) -> u64 {
        let class = request.criticality as usize;
        let higher: u64 = self.classes[..class].iter().map(|class| class.rows).sum();
        higher + self.classes[class].queue.rows_before(request.deadline)
    }

    /// Memory that a copy takes.
    pub(super) fn bytes(&self) -> usize {
        self.classes.iter().map(|class| class.queue.bytes()).sum()
    }

    /// The request that is served first.
    pub(super) fn head(&self) -> Option<&RequestMeta> {
        self.classes.iter().find_map(|class| class.queue.earliest())
    }

    /// The earliest deadline of all, whoever is served first.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let classes = self.classes.iter();
        let deadlines = classes.filter_map(|class| class.queue.earliest_deadline());
        deadlines.min()
    }

    pub(super) fn push(&mut self, request: RequestMeta) {
        let class = &mut self.classes[request.criticality as usize];
        class.rows += u64::from(request.rows);
        class.queue.push(request);
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<RequestMeta> {
        let mut classes = self.classes.iter_mut();
        classes.find_map(|class| class.take_out(|queue| queue.remove(slot)))
    }

    /// One whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<RequestMeta> {
        let mut classes = self.classes.iter_mut();
        classes.find_map(|class| {
            let has_passed = class.queue.earliest_deadline()? <= now;
            has_passed.then(|| class.take_out(DeadlineQueue::pop))?
        })
    }

    /// Any.
    pub(super) fn pop(&mut self) -> Option<RequestMeta> {
        let mut classes = self.classes.iter_mut();
        classes.find_map(|class| class.take_out(DeadlineQueue::pop))
    }

    /// One of the lowest class that is lower than `than`: among the last of them, if not the last.
    pub(super) fn shed(&mut self, than: Criticality) -> Option<RequestMeta> {
        let mut lower = self.classes[than as usize + 1..].iter_mut().rev();
        lower.find_map(|class| class.take_out(DeadlineQueue::pop_late))
    }

    /// Takes out, in the order in which they are served, those of the first requests that
    /// `wanted` accepts; at most `looks` are passed over, which keep their places.
    pub(super) fn take(
        &mut self,
        mut looks: usize,
        passed: &mut Passed,
        mut wanted: impl FnMut(&RequestMeta) -> Verdict,
    ) {
        for Class { queue, rows } in &mut self.classes {
            let (mut is_over, mut passes) = (false, 0);
            queue.take(looks, passed, |request| {
                let verdict = wanted(request);
                match verdict {
                    Verdict::Take => *rows -= u64::from(request.rows),
                    Verdict::Pass => passes += 1,
                    Verdict::Stop => is_over = true,
                }
                verdict
            });
            looks -= passes;
            if is_over || looks == 0 {
                return;
            }
        }
    }
}

impl Class {
    fn take_out(
        &mut self,
        take: impl FnOnce(&mut DeadlineQueue) -> Option<RequestMeta>,
    ) -> Option<RequestMeta> {
        let request = take(&mut self.queue)?;
        self.rows -= u64::from(request.rows);
        Some(request)
    }
}
