//! A priority queue of requests, earliest deadline first, from which any can be taken out.
//!
//! A binary heap with a table from slot to position (an "indexed heap": Sedgewick and Wayne,
//! Algorithms, 4th edition, section 2.4). Insert and removal cost O(log n), the earliest is
//! read in O(1), and nothing is allocated once the tables have grown to the load.

use serde::{Deserialize, Serialize};

use crate::planted::Bug;
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DeadlineQueue {
    heap: Vec<Entry>,
    /// Position in the heap plus one, by slot index; 0 is "not waiting".
    positions: Vec<u32>,
    arrivals: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Entry {
    request: RequestMeta,
    /// Equal deadlines are served in order of arrival.
    arrival: u64,
}

impl DeadlineQueue {
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Memory that a copy takes.
    pub(crate) fn bytes(&self) -> usize {
        self.heap.len() * size_of::<Entry>() + self.positions.len() * size_of::<u32>()
    }

    pub(crate) fn earliest(&self) -> Option<&RequestMeta> {
        self.heap.first().map(|entry| &entry.request)
    }

    pub(crate) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest().map(|request| request.deadline)
    }

    /// Rows that are served before a request with this deadline, within a few hundredths of all
    /// that waits: at most [`SAMPLES_MAX`] requests at even distances are looked at.
    pub(crate) fn rows_before(&self, deadline: Instant) -> u64 {
        let stride = self.heap.len().div_ceil(SAMPLES_MAX).max(1);
        let sampled = self.heap.iter().step_by(stride);
        let before = sampled.filter(|entry| entry.request.deadline <= deadline);
        let rows: u64 = before.map(|entry| u64::from(entry.request.rows)).sum();
        let samples = self.heap.len().div_ceil(stride).max(1) as u64;
        rows * self.heap.len() as u64 / samples
    }

    /// # Panics
    /// If the slot waits already: a slot names one request at a time.
    pub(crate) fn push(&mut self, request: RequestMeta) {
        self.arrivals += 1;
        self.insert(Entry {
            request,
            arrival: self.arrivals,
        });
    }

    pub(crate) fn pop(&mut self) -> Option<RequestMeta> {
        self.pop_entry().map(|entry| entry.request)
    }

    /// One that is not served soon: the last of the heap has no successors.
    pub(crate) fn pop_late(&mut self) -> Option<RequestMeta> {
        let last = self.heap.len().checked_sub(1)?;
        Some(self.remove_at(last).request)
    }

    /// Takes the request of `slot` out, if exactly that one waits.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<RequestMeta> {
        let position = (*self.positions.get(slot.index as usize)? as usize).checked_sub(1)?;
        (self.heap[position].request.slot == slot).then(|| self.remove_at(position).request)
    }

    /// Takes out, in order, those of the first `looks` requests that `wanted` accepts; it says
    /// for each whether to take it, pass over it, or stop. What is passed over keeps its place.
    pub(crate) fn take(
        &mut self,
        looks: usize,
        passed: &mut Passed,
        mut wanted: impl FnMut(&RequestMeta) -> Verdict,
    ) {
        passed.0.clear();
        while passed.0.len() < looks {
            let Some(head) = self.heap.first() else { break };
            match wanted(&head.request) {
                Verdict::Take => drop(self.pop_entry()),
                Verdict::Pass => passed.0.extend(self.pop_entry()),
                Verdict::Stop => break,
            }
        }
        for entry in passed.0.drain(..) {
            self.insert(entry);
        }
    }

    fn insert(&mut self, entry: Entry) {
        let index = entry.request.slot.index as usize;
        if index >= self.positions.len() {
            self.positions.resize((index + 1).next_power_of_two(), 0);
        }
        assert_eq!(self.positions[index], 0, "slot {index} waits already");
        self.heap.push(entry);
        self.positions[index] = self.heap.len() as u32;
        self.rise(self.heap.len() - 1);
    }

    fn pop_entry(&mut self) -> Option<Entry> {
        (!self.heap.is_empty()).then(|| self.remove_at(0))
    }

    fn remove_at(&mut self, position: usize) -> Entry {
        let entry = self.heap.swap_remove(position);
        self.positions[entry.request.slot.index as usize] = 0;
        if position < self.heap.len() {
            self.note(position);
            if !Bug::RemovalOnlySinks.is_planted() {
                self.rise(position);
            }
            self.sink(position);
        }
        entry
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].key() <= self.heap[position].key() {
                return;
            }
            self.swap(parent, position);
            position = parent;
        }
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let first = 2 * position + 1;
            let children = first..(first + 2).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child].key()) else {
                return;
            };
            if self.heap[position].key() <= self.heap[least].key() {
                return;
            }
            self.swap(position, least);
            position = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn note(&mut self, position: usize) {
        let index = self.heap[position].request.slot.index as usize;
        self.positions[index] = position as u32 + 1;
    }
}

/// The standard error of a share of one half is then one sixteenth.
const SAMPLES_MAX: usize = 64;

impl Entry {
    fn key(&self) -> (Instant, u64) {
        (self.request.deadline, self.arrival)
    }
}

/// What to do with a request that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Take,
    Pass,
    Stop,
}

/// Room for what [`DeadlineQueue::take`] passes over; kept by the caller so that taking
/// allocates nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed(Vec<Entry>);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paceline_protocol::Criticality;

    use super::*;
    use crate::random::Random;
    use crate::request::BucketId;

    fn request(index: u32, generation: u32, deadline: u64) -> RequestMeta {
        RequestMeta {
            slot: Slot { index, generation },
            deadline: Instant::from_nanos(deadline),
            bucket: BucketId(0),
            bytes: 0,
            rows: 1,
            criticality: Criticality::default(),
            is_alone: false,
        }
    }

    #[test]
    fn what_is_served_before_a_deadline_is_nearly_known() {
        let mut random = Random::from_seed(3);
        for count in [0, 1, 10, 64, 65, 1_000, 5_000] {
            let mut queue = DeadlineQueue::default();
            for index in 0..count {
                queue.push(request(index, 0, 1 + random.below(1_000)));
            }
            for deadline in [0, 250, 500, 900, 1_000] {
                let rows = queue.rows_before(Instant::from_nanos(deadline));
                let expected = u64::from(count) * deadline / 1_000;
                let slack = 4 + u64::from(count) / 5;
                assert!(rows.abs_diff(expected) <= slack, "{rows} of {count}");
            }
            let all = queue.rows_before(Instant::from_nanos(1_000));
            assert_eq!(all, u64::from(count));
        }
    }

    /// Against a sorted map, over random pushes, pops and removals.
    #[test]
    fn behaves_as_a_sorted_map_does() {
        let mut random = Random::from_seed(11);
        let mut queue = DeadlineQueue::default();
        let mut model = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        for step in 0..20_000u64 {
            let index = random.below(64) as u32;
            match random.below(3) {
                0 if !waiting.contains_key(&index) => {
                    let request = request(index, step as u32, random.below(50));
                    queue.push(request);
                    model.insert((request.deadline, step), request.slot);
                    waiting.insert(index, (request.deadline, step));
                }
                1 => {
                    let popped = queue.pop().map(|request| request.slot);
                    let expected = model.pop_first().map(|(_, slot)| slot);
                    assert_eq!(popped, expected);
                    popped.map(|slot| waiting.remove(&slot.index));
                }
                _ => {
                    let key = waiting.remove(&index);
                    let slot = key.and_then(|key| model.remove(&key));
                    let removed = slot.and_then(|slot| queue.remove(slot));
                    assert_eq!(removed.map(|request| request.slot), slot);
                }
            }
            assert_eq!(queue.len(), model.len());
        }
    }

    #[test]
    fn another_generation_of_a_slot_is_not_removed() {
        let mut queue = DeadlineQueue::default();
        queue.push(request(3, 1, 10));
        assert_eq!(
            queue.remove(Slot {
                index: 3,
                generation: 0
            }),
            None
        );
        assert_eq!(
            queue.remove(Slot {
                index: 99,
                generation: 0
            }),
            None
        );
        assert!(
            queue
                .remove(Slot {
                    index: 3,
                    generation: 1
                })
                .is_some()
        );
    }

    #[test]
    fn what_is_passed_over_keeps_its_place() {
        let mut queue = DeadlineQueue::default();
        for (index, deadline) in [(0, 5), (1, 5), (2, 5), (3, 9)] {
            queue.push(request(index, 0, deadline));
        }
        let mut taken = Vec::new();
        queue.take(8, &mut Passed::default(), |request| {
            if request.slot.index == 1 {
                return Verdict::Pass;
            }
            taken.push(request.slot.index);
            Verdict::Take
        });
        assert_eq!(taken, [0, 2, 3]);
        assert_eq!(queue.pop().map(|request| request.slot.index), Some(1));
    }
}
