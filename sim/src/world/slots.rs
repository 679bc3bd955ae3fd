//! The requests that a node has admitted, by slot: what production's slab of payloads is.

use paceline_core::device::{BatcherId, LaneId};
use paceline_core::router::RouteId;
use paceline_core::{RequestMeta, Slot};
use paceline_protocol::{ReplicaId, VersionNumber};

use crate::fact::RequestNumber;

/// A request that a node has admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) request: RequestNumber,
    pub(super) meta: RequestMeta,
    /// What it is pinned to.
    pub(super) version: VersionNumber,
    pub(super) place: Option<Place>,
    /// The batch that it is part of.
    pub(super) lane: Option<LaneId>,
    /// Whether its client knows how it ended.
    pub(super) ended: bool,
    /// How often it was sent to a replica.
    pub(super) attempts: u8,
}

/// Where a request was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) route: RouteId,
    pub(super) replica: ReplicaId,
    pub(super) batcher: BatcherId,
}

/// The requests by slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    request: Option<InFlight>,
}

impl Slots {
    /// Takes a slot for the request that `make` gives, which learns its slot.
    pub(super) fn insert(&mut self, make: impl FnOnce(Slot) -> InFlight) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        let generation = entry.generation;
        let slot = Slot { index, generation };
        entry.request = Some(make(slot));
        slot
    }

    /// The request of a slot; `None` if it has left.
    pub(super) fn request(&mut self, slot: Slot) -> Option<&mut InFlight> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        let current = entry.generation == slot.generation;
        entry.request.as_mut().filter(|_| current)
    }

    /// Frees a slot.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<InFlight> {
        self.request(slot)?;
        let entry = &mut self.entries[slot.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot.index);
        entry.request.take()
    }
}
