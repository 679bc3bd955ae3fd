//! Batches between their queue and their engine.

use std::sync::Arc;

use paceline_core::{Instant, Slot};
use paceline_protocol::Tensor;

use super::{Loaded, Reply, pending};

/// Requests that share a batch, and the replica that runs it: a replica that is detached
/// meanwhile still runs what was formed for it.
#[derive(Default)]
pub(super) struct Formed {
    pub(super) replica: Option<Arc<Loaded>>,
    pub(super) tickets: Vec<Ticket>,
    /// Who waits for each of them; nobody, once the node has left.
    pub(super) replies: Vec<Reply>,
}

/// A payload that has left the queue.
pub(super) struct Ticket {
    pub(super) slot: Slot,
    pub(super) inputs: Vec<Tensor>,
    pub(super) packed: Option<Vec<Tensor>>,
    pub(super) arrived: Instant,
    pub(super) is_second: bool,
    pub(super) is_suspect: bool,
}

impl Ticket {
    /// In the form in which it is computed.
    pub(super) fn computed(&self) -> &[Tensor] {
        self.packed.as_ref().unwrap_or(&self.inputs)
    }
}

impl Formed {
    pub(super) fn join(&mut self, slot: Slot, payload: pending::Payload) {
        let pending::Payload {
            batcher: _,
            inputs,
            packed,
            arrived,
            is_second,
            is_suspect,
            reply,
        } = payload;
        self.tickets.push(Ticket {
            slot,
            inputs,
            packed,
            arrived,
            is_second,
            is_suspect,
        });
        self.replies.push(reply);
    }

    /// Takes a request out again, unless its caller has been told its end already.
    pub(super) fn leave(&mut self, slot: Slot) -> Option<(Vec<Tensor>, Reply)> {
        let place = self.tickets.iter().position(|ticket| ticket.slot == slot)?;
        let Ticket { inputs, .. } = self.tickets.remove(place);
        (place < self.replies.len()).then(|| (inputs, self.replies.remove(place)))
    }
}
