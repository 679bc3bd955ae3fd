//! What will happen in a run: events in the order of their time, then of their planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use paceline_core::device::LaneId;
use paceline_core::failover::Attempt;
use paceline_core::{Instant, Slot};
use paceline_protocol::ReplicaId;

use crate::fact::RequestNumber;
use crate::message::Message;

/// Position of a node in the run's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeIndex(pub(crate) u16);

/// A process of a node: what was planned for an earlier one does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process {
    pub(crate) node: NodeIndex,
    pub(crate) life: u16,
}

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client of this group sends a request.
    Arrival(u16),
    /// A client sends this request again, which was refused.
    Again(RequestNumber),
    /// The client of this request goes away.
    Hangup(RequestNumber),
    /// The client of this request has waited as long as it would.
    Impatience(RequestNumber),
    /// The client of this request has heard nothing of its node for as long as it is patient.
    Silence(RequestNumber, Process),
    /// A message reaches a process.
    Message(Process, Box<Message>),
    /// A timer of a process.
    Timer(Process, Timer),
    /// An election may end.
    Election(u64),
    /// An entry has been written by a quorum.
    Quorum(u64, u64),
    /// An operation of the scenario is due; asked for the how many-th time.
    Operation(u32, u16),
    /// A fault of the scenario begins.
    Break(u16),
    /// It is mended.
    Mend(u16),
}

/// What a node has planned for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// Its device wanted to be woken.
    Device,
    /// A lane's thread is awake.
    Begin(LaneId),
    /// A lane's inputs are gathered.
    Launch(LaneId),
    /// A lane's batch has run, the how many-th of the lane.
    Finished(LaneId, u32),
    /// A replica is loaded and warm.
    Loaded(ReplicaId),
    /// A replica whose engine has failed may be loaded again.
    Restart(ReplicaId),
    /// A request's time is over.
    Deadline(Slot),
    /// The time of a copy for a shadow is over.
    Copy(Slot),
    /// A request has waited for this node to catch up as long as it may, or its time is over.
    Ahead(RequestNumber),
    /// A request has waited for a replica as long as it may.
    Patience(Slot, Attempt),
    /// It listens for its peers, and looks after its duties.
    Tick,
    /// It tells its peers what has changed here.
    Tell,
    /// Its process has started.
    Booted,
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

// A heap moves events about: what is large is boxed.
const _: () = assert!(size_of::<Event>() <= 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_equals_keep_their_order() {
        let mut agenda = Agenda::default();
        for (at, clients) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            agenda.plan(Instant::from_nanos(at), Event::Arrival(clients));
        }
        let mut order = Vec::new();
        while let Some((at, Event::Arrival(clients))) = agenda.next() {
            order.push((at.as_nanos(), clients));
        }
        assert_eq!(order, [(3, 1), (3, 3), (4, 4), (5, 0), (5, 2)]);
    }
}
