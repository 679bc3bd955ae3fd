//! What will happen in a run: events in the order of their time, then of their planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use paceline_core::device::LaneId;
use paceline_core::{Instant, Slot};
use paceline_protocol::ReplicaId;
use paceline_protocol::registry::Command;

/// Position of a node in the run's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeIndex(pub(crate) usize);

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client sends a request.
    Arrival,
    /// The client of this request goes away.
    Hangup(NodeIndex, Slot),
    /// The client of this request stops waiting.
    Deadline(NodeIndex, Slot),
    /// A device wanted to be woken.
    Wakeup(NodeIndex),
    /// A lane's thread is awake.
    Begin(NodeIndex, LaneId),
    /// A lane's inputs are gathered.
    Launch(NodeIndex, LaneId),
    /// A lane's batch has run.
    Finished(NodeIndex, LaneId),
    /// A command is committed.
    Commit(Box<Command>),
    /// A replica is loaded and warm.
    Loaded(NodeIndex, ReplicaId),
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Planned>,
    planned: u64,
}

#[derive(Debug)]
struct Planned {
    at: Instant,
    /// Breaks ties: what was planned first happens first.
    sequence: u64,
    event: Event,
}

impl Agenda {
    pub(crate) fn plan(&mut self, at: Instant, event: Event) {
        self.planned += 1;
        let sequence = self.planned;
        self.heap.push(Planned {
            at,
            sequence,
            event,
        });
    }

    pub(crate) fn next(&mut self) -> Option<(Instant, Event)> {
        self.heap.pop().map(|planned| (planned.at, planned.event))
    }
}

impl Ord for Planned {
    /// Reversed, because the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_equals_keep_their_order() {
        let mut agenda = Agenda::default();
        for (at, node) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            agenda.plan(Instant::from_nanos(at), Event::Wakeup(NodeIndex(node)));
        }
        let mut order = Vec::new();
        while let Some((at, Event::Wakeup(node))) = agenda.next() {
            order.push((at.as_nanos(), node.0));
        }
        assert_eq!(order, [(3, 1), (3, 3), (4, 4), (5, 0), (5, 2)]);
    }
}
