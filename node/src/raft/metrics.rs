//! What is known of consensus on this node.

use std::collections::BTreeMap;

use openraft::ServerState;
use paceline_protocol::NodeId;

use super::type_config::TypeConfig;

/// What a node is in the cluster at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It receives entries and has no vote.
    Learner,
    /// It has a vote and follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// Consensus has ended here.
    Stopped,
}

/// A view of consensus on one node, at most one heartbeat old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMetrics {
    /// This node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// The newest term it knows.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Index of the last entry in its log.
    pub last_log: Option<u64>,
    /// Index of the last entry that it knows committed.
    pub committed: Option<u64>,
    /// Index of the last entry applied to its registry.
    pub applied: Option<u64>,
    /// Index of the last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// Index of the last entry removed from its log.
    pub purged: Option<u64>,
    /// The voters, sorted.
    pub voters: Vec<NodeId>,
    /// The members without a vote, sorted.
    pub learners: Vec<NodeId>,
    /// On the leader: the last entry that each member is known to hold.
    pub matched: BTreeMap<NodeId, Option<u64>>,
}

impl RaftMetrics {
    pub(super) fn of(metrics: &openraft::RaftMetrics<TypeConfig>) -> Self {
        let members = metrics.membership_config.membership();
        let sorted = |ids: &mut dyn Iterator<Item = u64>| {
            let mut ids: Vec<NodeId> = ids.map(NodeId).collect();
            ids.sort_unstable();
            ids
        };
        let role = match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        };
        Self {
            node: NodeId(metrics.id),
            role: if metrics.running_state.is_err() {
                Role::Stopped
            } else {
                role
            },
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.as_ref().map(|id| id.index),
            applied: metrics.last_applied.as_ref().map(|id| id.index),
            snapshot: metrics.snapshot.as_ref().map(|id| id.index),
            purged: metrics.purged.as_ref().map(|id| id.index),
            voters: sorted(&mut members.voter_ids()),
            learners: sorted(&mut members.learner_ids()),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .map(|(node, last)| (NodeId(*node), last.as_ref().map(|id| id.index)))
                .collect(),
        }
    }
}
