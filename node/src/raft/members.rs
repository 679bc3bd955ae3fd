//! Changes of membership, for the one actor that makes them.
//!
//! openraft lets two changes interleave, after which a cluster may stay between two memberships
//! for ever; so the second one is refused here until the first has ended.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode};
use paceline_core::membership;
use paceline_core::registry::Registry;
use paceline_protocol::NodeId;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::handle::RaftHandle;
use super::metrics::{RaftMetrics, Role};
use super::type_config::{Raft, TypeConfig};
use super::wire::{Answer, Request};

/// Why a membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another change is under way; nothing was done.
    #[error("another change of membership is under way")]
    UnderWay,
    /// This node does not lead; nothing was done.
    #[error("this node does not lead")]
    NotLeader,
    /// The cluster does not allow it; nothing was done.
    #[error("the change is not possible: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It was not done before the deadline, and may be done later.
    #[error("the change was not committed in time; it may still be")]
    Unknown,
}

impl RaftHandle {
    /// Lets `node` receive the log, without a vote. Returns when that is committed, not when
    /// the node has caught up.
    ///
    /// # Errors
    /// As [`MembershipError`] says.
    pub async fn add_learner(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let adding = || self.raft().add_learner(node.0, EmptyNode::new(), false);
        change(self.changing(), adding, deadline).await
    }

    /// Gives the vote to exactly these members, in one joint step (Ongaro 2014, section 4.3);
    /// voters that are not among them become learners. Their number must be odd.
    ///
    /// # Errors
    /// As [`MembershipError`] says.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        if voters.len().is_multiple_of(2) {
            return Err(MembershipError::Refused {
                reason: format!(
                    "{} voters survive no more losses than {}",
                    voters.len(),
                    voters.len().saturating_sub(1)
                ),
            });
        }
        give_votes((self.raft(), self.changing()), voters, deadline).await
    }

    /// Sees to it that a learner has the vote of `voter`, wherever this cluster is led from, if
    /// there is one that can take it: for a voter that will be removed.
    ///
    /// # Errors
    /// As [`MembershipError`] says.
    pub async fn relieve(&self, voter: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        let leader = self.metrics().leader.ok_or(MembershipError::NotLeader)?;
        if leader == self.node() {
            let registry = self.state();
            return relieve((self.raft(), self.changing()), (&registry, voter), deadline).await;
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        let request = Request::Relieve { voter: voter.0 };
        match self.peer(leader).call(&request, limit).await {
            Ok(Answer::Relieved) => Ok(()),
            Ok(Answer::Failed { reason }) => Err(MembershipError::Refused { reason }),
            Ok(_) | Err(_) => Err(MembershipError::Unknown),
        }
    }

    /// Takes a member without a vote out.
    ///
    /// # Errors
    /// As [`MembershipError`] says; a voter must lose its vote first.
    pub async fn remove_member(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        if self.metrics().voters.contains(&node) {
            return Err(MembershipError::Refused {
                reason: format!("node {node} has a vote"),
            });
        }
        let removing = || {
            let gone = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
            self.raft().change_membership(gone, true)
        };
        change(self.changing(), removing, deadline).await
    }

    /// Asks `to` to lead, and returns when this node no longer does.
    ///
    /// # Errors
    /// This node does not lead, `to` has no vote, or it has not taken over in time.
    pub async fn transfer_leader(
        &self,
        to: NodeId,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        transfer(self.raft(), to, deadline).await
    }

    /// Sees to it that `from` does not lead, wherever it is: if it does, `to` shall.
    ///
    /// # Errors
    /// `from` leads on, or cannot be asked.
    pub async fn move_leadership(
        &self,
        (from, to): (NodeId, NodeId),
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        if from == self.node() {
            return match self.transfer_leader(to, deadline).await {
                Err(MembershipError::NotLeader) => Ok(()),
                moved => moved,
            };
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        let request = Request::Yield { to: to.0 };
        match self.peer(from).call(&request, limit).await {
            Ok(Answer::Yielded) => Ok(()),
            Ok(_) => Err(MembershipError::Unknown),
            Err(error) => Err(MembershipError::Refused {
                reason: error.to_string(),
            }),
        }
    }
}

/// Makes one change, after the one before it is committed: a leader that has just been elected
/// may still be about to finish its predecessor's.
async fn change<T, F>(
    changing: &Mutex<()>,
    change: impl Fn() -> F,
    deadline: Instant,
) -> Result<(), MembershipError>
where
    F: Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
{
    let Ok(_only) = changing.try_lock() else {
        return Err(MembershipError::UnderWay);
    };
    loop {
        let error = match timeout_at(deadline, change()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_late) => return Err(MembershipError::Unknown),
        };
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                return Err(MembershipError::NotLeader);
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            error => {
                let reason = error.to_string();
                return Err(MembershipError::Refused { reason });
            }
        }
    }
}

async fn give_votes(
    (raft, changing): (&Raft, &Mutex<()>),
    voters: BTreeSet<NodeId>,
    deadline: Instant,
) -> Result<(), MembershipError> {
    let ids: BTreeSet<u64> = voters.into_iter().map(|node| node.0).collect();
    let giving = || {
        let voters = ChangeMembers::ReplaceAllVoters(ids.clone());
        raft.change_membership(voters, true)
    };
    change(changing, giving, deadline).await
}

/// Gives the vote of `voter` to a learner, if this node leads and there is one that can take it.
pub(super) async fn relieve(
    (raft, changing): (&Raft, &Mutex<()>),
    (registry, voter): (&Registry, NodeId),
    deadline: Instant,
) -> Result<(), MembershipError> {
    let metrics = RaftMetrics::of(&raft.metrics().borrow_watched());
    if metrics.role != Role::Leader {
        return Err(MembershipError::NotLeader);
    }
    let view = crate::membership::view(registry, &metrics);
    match membership::relieved(&view, voter) {
        Some(voters) => give_votes((raft, changing), voters, deadline).await,
        None => Ok(()),
    }
}

/// Asks `to` to lead in this node's place, and returns when it does.
pub(super) async fn transfer(
    raft: &Raft,
    to: NodeId,
    deadline: Instant,
) -> Result<(), MembershipError> {
    let metrics = || RaftMetrics::of(&raft.metrics().borrow_watched());
    let before = metrics();
    if before.leader != Some(before.node) {
        return Err(MembershipError::NotLeader);
    }
    let refused = |reason| Err(MembershipError::Refused { reason });
    if !before.voters.contains(&to) {
        return refused(format!("node {to} has no vote"));
    }
    let trigger = raft.trigger();
    let asking = trigger.transfer_leader(to.0);
    match timeout_at(deadline, asking).await {
        Err(_late) => return Err(MembershipError::Unknown),
        Ok(Err(fatal)) => return refused(fatal.to_string()),
        Ok(Ok(())) => {}
    }
    while metrics().leader != Some(to) {
        if Instant::now() > deadline {
            return Err(MembershipError::Unknown);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// How often it is looked whether something has come to its end.
const POLL: Duration = Duration::from_millis(5);
