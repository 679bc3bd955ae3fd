//! Requests that wait for one replica: by class, and within a class the earliest deadline first.

use paceline_protocol::Criticality;
use serde::{Deserialize, Serialize};

use crate::deadline_queue::{DeadlineQueue, Passed, Verdict};
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// A queue for each class, and beside them what says which are worth a look: most are empty, and
/// every step of a device asks all of its batchers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// A bit for each class of which something waits, the highest class the lowest bit.
    occupied: u8,
    rows: [u64; CLASSES],
    queues: [DeadlineQueue; CLASSES],
}

const CLASSES: usize = Criticality::ALL.len();

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(DeadlineQueue::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Rows of all.
    pub(super) fn rows(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// Rows of lower classes.
    pub(super) fn rows_below(&self, criticality: Criticality) -> u64 {
        self.rows[criticality as usize + 1..].iter().sum()
    }

    /// Rows that are served before a request: all of higher classes, and nearly those of its own
    /// class that are due earlier.
    pub(super) fn rows_before(&self, request: &RequestMeta) -> u64 {
        let class = request.criticality as usize;
        let higher: u64 = self.rows[..class].iter().sum();
        higher + self.queues[class].rows_before(request.deadline)
    }

    /// Memory that a copy takes.
    pub(super) fn bytes(&self) -> usize {
        self.queues.iter().map(DeadlineQueue::bytes).sum()
    }

    /// The request that is served first.
    pub(super) fn head(&self) -> Option<&RequestMeta> {
        self.queues[self.occupied().next()?].earliest()
    }

    /// The earliest deadline of all, whoever is served first.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let occupied = self.occupied();
        let deadlines = occupied.filter_map(|class| self.queues[class].earliest_deadline());
        deadlines.min()
    }

    pub(super) fn push(&mut self, request: RequestMeta) {
        let class = request.criticality as usize;
        self.occupied |= 1 << class;
        self.rows[class] += u64::from(request.rows);
        self.queues[class].push(request);
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<RequestMeta> {
        let mut occupied = self.occupied();
        occupied.find_map(|class| self.take_out(class, |queue| queue.remove(slot)))
    }

    /// One whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<RequestMeta> {
        let has_expired = |class: &usize| {
            let earliest = self.queues[*class].earliest_deadline();
            earliest.is_some_and(|deadline| deadline <= now)
        };
        let class = self.occupied().find(has_expired)?;
        self.take_out(class, DeadlineQueue::pop)
    }

    /// Any.
    pub(super) fn pop(&mut self) -> Option<RequestMeta> {
        let class = self.occupied().next()?;
        self.take_out(class, DeadlineQueue::pop)
    }

    /// One of the lowest class that is lower than `than`: among the last of them, if not the last.
    pub(super) fn shed(&mut self, than: Criticality) -> Option<RequestMeta> {
        let lowest = self.occupied().last()?;
        let is_lower = lowest > than as usize;
        is_lower.then(|| self.take_out(lowest, DeadlineQueue::pop_late))?
    }

    /// Takes out, in the order in which they are served, those of the first requests that
    /// `wanted` accepts; at most `looks` are passed over, which keep their places.
    pub(super) fn take(
        &mut self,
        mut looks: usize,
        passed: &mut Passed,
        mut wanted: impl FnMut(&RequestMeta) -> Verdict,
    ) {
        for class in self.occupied() {
            let (mut is_over, mut passes) = (false, 0);
            let rows = &mut self.rows[class];
            self.queues[class].take(looks, passed, |request| {
                let verdict = wanted(request);
                match verdict {
                    Verdict::Take => *rows -= u64::from(request.rows),
                    Verdict::Pass => passes += 1,
                    Verdict::Stop => is_over = true,
                }
                verdict
            });
            self.note(class);
            looks -= passes;
            if is_over || looks == 0 {
                return;
            }
        }
    }

    /// The classes of which something waits, the highest first.
    fn occupied(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.occupied;
        std::iter::from_fn(move || {
            let class = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(class)
        })
    }

    fn take_out(
        &mut self,
        class: usize,
        take: impl FnOnce(&mut DeadlineQueue) -> Option<RequestMeta>,
    ) -> Option<RequestMeta> {
        let request = take(&mut self.queues[class])?;
        self.rows[class] -= u64::from(request.rows);
        self.note(class);
        Some(request)
    }

    /// Something has left a queue.
    fn note(&mut self, class: usize) {
        if self.queues[class].is_empty() {
            self.occupied &= !(1 << class);
        }
    }
}
