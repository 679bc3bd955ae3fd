//! The way to a leader that this node does not know or cannot reach: by another voter.

use std::sync::atomic::Ordering;
use std::time::Duration;

use paceline_protocol::NodeId;
use paceline_protocol::registry::Command;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::{ATTEMPT_MAX, Peer, RaftHandle};
use crate::raft::wire::Request;

impl RaftHandle {
    /// Sends the command to a node that may know who leads.
    pub(super) async fn relay(
        &self,
        command: &Command,
        asked: Option<NodeId>,
        deadline: Instant,
    ) -> Attempt {
        let Some(guide) = self.guide(asked) else {
            return Attempt::Leaderless;
        };
        let deadline = deadline.min(Instant::now() + RELAY_MAX);
        let (request, limit) = forwarding(command, deadline, true);
        let peer = Peer::new(self.inner.parts.transport.clone(), guide);
        self.attempt(peer.call(&request, limit).await)
    }

    /// Whom a node asks that knows of no leader or cannot reach it: those it was told of
    /// before it was a member, the other voters then; not whom it has just asked. A leader that has moved, as this node has, cannot be found
    /// otherwise: neither knows the other's address, and only a third one knows both.
    fn guide(&self, asked: Option<NodeId>) -> Option<NodeId> {
        let voters = self.raft().voter_ids().map(NodeId);
        let mut guides: Vec<NodeId> = voters.collect();
        if guides.is_empty() {
            guides.clone_from(&self.inner.parts.guides);
        }
        guides.retain(|guide| *guide != self.node() && Some(*guide) != asked);
        // Each in its turn, across writes: the first may be the one that has moved.
        let turn = self.inner.guided.fetch_add(1, Ordering::Relaxed);
        guides.get(turn % guides.len().max(1)).copied()
    }
}

/// The request that hands a command over, and how long its answer may take.
pub(super) fn forwarding(command: &Command, deadline: Instant, relay: bool) -> (Request, Duration) {
    let left = deadline.saturating_duration_since(Instant::now());
    let limit = left.min(ATTEMPT_MAX);
    let request = Request::Forward {
        command: command.clone(),
        budget_ms: limit.as_millis() as u64,
        relay,
    };
    (request, limit)
}

/// One try by way of another node: several of them fit in the patience without a leader.
const RELAY_MAX: Duration = Duration::from_millis(400);
