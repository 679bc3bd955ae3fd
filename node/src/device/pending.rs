//! Payloads of requests that wait at a device, named by slots that are never ambiguous.

use paceline_core::device::BatcherId;
use paceline_core::{Instant, Slot};
use paceline_protocol::Tensor;
use tokio::sync::oneshot;

use super::End;

pub(super) struct Payload {
    pub(super) batcher: BatcherId,
    pub(super) inputs: Vec<Tensor>,
    /// What was read of them, if that is what is computed.
    pub(super) packed: Option<Vec<Tensor>>,
    pub(super) arrived: Instant,
    /// Whether it has cost an engine or a node before.
    pub(super) is_second: bool,
    /// Whether an engine of this replica died while it ran.
    pub(super) is_suspect: bool,
    pub(super) reply: oneshot::Sender<End>,
}

/// A slab: positions are used again, and their generation tells users apart. It never shrinks,
/// and it never holds more than the queues of its device allow.
#[derive(Default)]
pub(super) struct Pending {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    generation: u32,
    payload: Option<Payload>,
}

impl Pending {
    pub(super) fn insert(&mut self, payload: Payload) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                payload: None,
            });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.payload = Some(payload);
        Slot {
            index,
            generation: entry.generation,
        }
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<Payload> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation != slot.generation {
            return None;
        }
        let payload = entry.payload.take()?;
        self.free.push(slot.index);
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_finds_nothing() {
        let payload = || Payload {
            batcher: BatcherId(0),
            inputs: vec![],
            packed: None,
            arrived: Instant::ZERO,
            is_second: false,
            is_suspect: false,
            reply: oneshot::channel().0,
        };
        let mut pending = Pending::default();
        let first = pending.insert(payload());
        assert!(pending.take(first).is_some());
        let second = pending.insert(payload());
        assert_eq!(second.index, first.index);
        assert!(pending.take(first).is_none());
        assert!(pending.take(second).is_some());
    }
}
