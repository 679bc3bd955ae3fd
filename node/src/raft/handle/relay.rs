//! The way to a leader that this node does not know or cannot reach: by another voter.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use paceline_protocol::NodeId;
use paceline_protocol::registry::Command;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::{ATTEMPT_MAX, Peer, RaftHandle};
use crate::raft::wire::Request;

impl RaftHandle {
    /// Sends the command to all who may know a leader that this node does not know or cannot
    /// reach: before it is a member, those it was told of; the other voters then; not whom it has
    /// just asked. Two nodes that have both moved do not find each other, since neither knows the
    /// other's address, and only a third one knows both. Its op-id has it done once.
    pub(super) async fn relay(
        &self,
        command: &Command,
        asked: Option<NodeId>,
        deadline: Instant,
    ) -> Attempt {
        let deadline = deadline.min(Instant::now() + RELAY_MAX);
        let (request, limit) = forwarding(command, deadline, true);
        let request = &request;
        let relays = self.guides(asked).into_iter().map(|guide| async move {
            let peer = Peer::new(self.inner.parts.transport.clone(), guide);
            self.attempt(peer.call(request, limit).await)
        });
        let mut relays: FuturesUnordered<_> = relays.collect();
        let mut worst = Attempt::Leaderless;
        while let Some(attempt) = relays.next().await {
            match attempt {
                Attempt::Leaderless => {}
                Attempt::MayBeDone => worst = attempt,
                Attempt::Leader(_) if matches!(worst, Attempt::MayBeDone) => {}
                Attempt::Leader(_) => worst = attempt,
                Attempt::Done(_) | Attempt::Failed(_) => return attempt,
            }
        }
        worst
    }

    fn guides(&self, asked: Option<NodeId>) -> Vec<NodeId> {
        let voters = self.raft().voter_ids().map(NodeId);
        let mut guides: Vec<NodeId> = voters.collect();
        if guides.is_empty() {
            guides.clone_from(&self.inner.parts.guides);
        }
        guides.retain(|guide| *guide != self.node() && Some(*guide) != asked);
        guides
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

/// One try by way of others: several of them fit in the patience without a leader.
const RELAY_MAX: Duration = Duration::from_millis(400);
