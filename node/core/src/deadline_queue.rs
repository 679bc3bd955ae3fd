//! A priority queue of requests, earliest deadline first, from which any can be taken out.
//!
//! A binary heap with a table from slot to position (an "indexed heap": Sedgewick and Wayne,
//! Algorithms, 4th edition, section 2.4). Insert and removal cost O(log n), the earliest is
//! read in O(1), and nothing is allocated once the tables have grown to the load. Several queues
//! share a table, since a slot waits in one of them at most.

use serde::{Deserialize, Serialize};

use crate::measure::Measure;
use crate::planted::Bug;
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DeadlineQueue {
    heap: Vec<Entry>,
}

/// Where requests stand in their queues.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Positions {
    /// Position in its heap plus one, by slot index; 0 is "not waiting".
    by_slot: Vec<u32>,
}

/// A request that waits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) request: RequestMeta,
    /// Equal deadlines are served in order of arrival.
    pub(crate) arrival: u64,
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
        self.heap.len() * size_of::<Entry>()
    }

    pub(crate) fn earliest(&self) -> Option<&RequestMeta> {
        self.heap.first().map(|entry| &entry.request)
    }

    pub(crate) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest().map(|request| request.deadline)
    }

    /// Size of what is served before a request with this deadline, within a few hundredths of all
    /// that waits: at most [`SAMPLES_MAX`] requests at even distances are looked at.
    pub(crate) fn size_before(&self, deadline: Instant, measure: Measure) -> u64 {
        let stride = self.heap.len().div_ceil(SAMPLES_MAX).max(1);
        let sampled = self.heap.iter().step_by(stride);
        let before = sampled.filter(|entry| entry.request.deadline <= deadline);
        let size: u64 = before
            .map(|entry| u64::from(measure.of(&entry.request)))
            .sum();
        let samples = self.heap.len().div_ceil(stride).max(1) as u64;
        size * self.heap.len() as u64 / samples
    }

    /// # Panics
    /// If the slot waits already: a slot names one request at a time.
    pub(crate) fn push(&mut self, entry: Entry, positions: &mut Positions) {
        let index = entry.request.slot.index;
        let place = positions.grown_to(index);
        assert_eq!(*place, 0, "slot {index} waits already");
        self.heap.push(entry);
        *place = self.heap.len() as u32;
        self.rise(self.heap.len() - 1, positions);
    }

    pub(crate) fn pop(&mut self, positions: &mut Positions) -> Option<Entry> {
        (!self.heap.is_empty()).then(|| self.remove_at(0, positions))
    }

    /// One that is not served soon: the last of the heap has no successors.
    pub(crate) fn pop_late(&mut self, positions: &mut Positions) -> Option<Entry> {
        let last = self.heap.len().checked_sub(1)?;
        Some(self.remove_at(last, positions))
    }

    /// The request of `slot`, if exactly that one waits here.
    pub(crate) fn waiting(&self, slot: Slot, positions: &Positions) -> Option<&RequestMeta> {
        let request = &self.heap.get(positions.of(slot)?)?.request;
        (request.slot == slot).then_some(request)
    }

    /// Takes the request of `slot` out, if exactly that one waits here.
    pub(crate) fn remove(&mut self, slot: Slot, positions: &mut Positions) -> Option<Entry> {
        let position = positions.of(slot)?;
        let entry = self.heap.get(position)?;
        (entry.request.slot == slot).then(|| self.remove_at(position, positions))
    }

    fn remove_at(&mut self, position: usize, positions: &mut Positions) -> Entry {
        let entry = self.heap.swap_remove(position);
        positions.by_slot[entry.request.slot.index as usize] = 0;
        if position < self.heap.len() {
            self.note(position, positions);
            if !Bug::RemovalOnlySinks.is_planted() {
                self.rise(position, positions);
            }
            self.sink(position, positions);
        }
        entry
    }

    fn rise(&mut self, mut position: usize, positions: &mut Positions) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].key() <= self.heap[position].key() {
                return;
            }
            self.swap(parent, position, positions);
            position = parent;
        }
    }

    fn sink(&mut self, mut position: usize, positions: &mut Positions) {
        loop {
            let first = 2 * position + 1;
            let children = first..(first + 2).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child].key()) else {
                return;
            };
            if self.heap[position].key() <= self.heap[least].key() {
                return;
            }
            self.swap(position, least, positions);
            position = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize, positions: &mut Positions) {
        self.heap.swap(a, b);
        self.note(a, positions);
        self.note(b, positions);
    }

    fn note(&self, position: usize, positions: &mut Positions) {
        let index = self.heap[position].request.slot.index as usize;
        positions.by_slot[index] = position as u32 + 1;
    }
}

/// The standard error of a share of one half is then one sixteenth.
const SAMPLES_MAX: usize = 64;

impl Positions {
    /// Memory that a copy takes.
    pub(crate) fn bytes(&self) -> usize {
        self.by_slot.len() * size_of::<u32>()
    }

    fn of(&self, slot: Slot) -> Option<usize> {
        let place = *self.by_slot.get(slot.index as usize)?;
        (place as usize).checked_sub(1)
    }

    fn grown_to(&mut self, index: u32) -> &mut u32 {
        let index = index as usize;
        if index >= self.by_slot.len() {
            self.by_slot.resize((index + 1).next_power_of_two(), 0);
        }
        &mut self.by_slot[index]
    }
}

impl Entry {
    fn key(&self) -> (Instant, u64) {
        (self.request.deadline, self.arrival)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paceline_protocol::{Criticality, TenantId};

    use super::*;
    use crate::random::Random;
    use crate::request::BucketId;

    /// A queue and the table that it has to itself.
    #[derive(Default)]
    struct Alone {
        queue: DeadlineQueue,
        positions: Positions,
        arrivals: u64,
    }

    impl Alone {
        fn push(&mut self, request: RequestMeta) {
            self.arrivals += 1;
            let arrival = self.arrivals;
            let entry = Entry { request, arrival };
            self.queue.push(entry, &mut self.positions);
        }

        fn pop(&mut self) -> Option<Slot> {
            let entry = self.queue.pop(&mut self.positions)?;
            Some(entry.request.slot)
        }

        fn remove(&mut self, index: u32, generation: u32) -> Option<Slot> {
            let slot = Slot { index, generation };
            let entry = self.queue.remove(slot, &mut self.positions)?;
            Some(entry.request.slot)
        }
    }

    fn request(index: u32, generation: u32, deadline: u64) -> RequestMeta {
        RequestMeta {
            slot: Slot { index, generation },
            deadline: Instant::from_nanos(deadline),
            bucket: BucketId(0),
            tenant: TenantId::DEFAULT,
            bytes: 0,
            rows: 1,
            tokens: 0,
            criticality: Criticality::default(),
            is_alone: false,
        }
    }

    #[test]
    fn what_is_served_before_a_deadline_is_nearly_known() {
        let mut random = Random::from_seed(3);
        for count in [0, 1, 10, 64, 65, 1_000, 5_000] {
            let mut queue = Alone::default();
            for index in 0..count {
                queue.push(request(index, 0, 1 + random.below(1_000)));
            }
            for deadline in [0, 250, 500, 900, 1_000] {
                let deadline_at = Instant::from_nanos(deadline);
                let rows = queue.queue.size_before(deadline_at, Measure::Rows);
                let expected = u64::from(count) * deadline / 1_000;
                let slack = 4 + u64::from(count) / 5;
                assert!(rows.abs_diff(expected) <= slack, "{rows} of {count}");
            }
            let last = Instant::from_nanos(1_000);
            let all = queue.queue.size_before(last, Measure::Rows);
            assert_eq!(all, u64::from(count));
        }
    }

    /// Against a sorted map, over random pushes, pops and removals.
    #[test]
    fn behaves_as_a_sorted_map_does() {
        let mut random = Random::from_seed(11);
        let mut queue = Alone::default();
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
                    let popped = queue.pop();
                    let expected = model.pop_first().map(|(_, slot)| slot);
                    assert_eq!(popped, expected);
                    popped.map(|slot| waiting.remove(&slot.index));
                }
                _ => {
                    let key = waiting.remove(&index);
                    let slot = key.and_then(|key| model.remove(&key));
                    let removed = slot.and_then(|slot| queue.remove(slot.index, slot.generation));
                    assert_eq!(removed, slot);
                }
            }
            assert_eq!(queue.queue.len(), model.len());
        }
    }

    #[test]
    fn another_generation_of_a_slot_is_not_removed() {
        let mut queue = Alone::default();
        queue.push(request(3, 1, 10));
        assert_eq!(queue.remove(3, 0), None);
        assert_eq!(queue.remove(99, 0), None);
        assert!(queue.remove(3, 1).is_some());
    }
}
