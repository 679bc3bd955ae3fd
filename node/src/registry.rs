//! The way to the replicated registry: writes under an op-id, and the state as applied here.

use std::sync::Arc;
use std::time::Duration;

use paceline_core::registry::Registry;
use paceline_protocol::registry::{Change, Command, Outcome, Reply, SCHEMA};
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, OpId};
use ractor::{ActorRef, Message};

use crate::clock::Wall;
use crate::raft::{MembershipError, RaftHandle, RaftMetrics, Role, WriteError};
use crate::supervisor::notify;

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    raft: RaftHandle,
    wall: Wall,
}

impl Handle {
    /// A handle over a running Raft; writes are stamped as `wall` shows.
    pub fn new(raft: RaftHandle, wall: Wall) -> Self {
        Self { raft, wall }
    }

    /// The time of stamps, in milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        self.wall.now_ms()
    }

    /// The state as this node has applied it.
    pub fn current(&self) -> Arc<Registry> {
        self.raft.state()
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.raft.metrics().role == Role::Leader
    }

    /// Raft, as this node sees it.
    pub fn raft(&self) -> RaftMetrics {
        self.raft.metrics()
    }

    /// Writes a change and waits until it is applied here. Repeating it with the same `op` is
    /// safe: it is applied once.
    ///
    /// # Errors
    /// The registry's refusal, or `NO_QUORUM`, `UNKNOWN`, `OVERLOADED`, `SHUTTING_DOWN`,
    /// `STORAGE_FAILED`. After `UNKNOWN` the change may still be committed.
    pub async fn write(&self, op: OpId, change: Change) -> Result<(Epoch, Reply), Failure> {
        self.write_expecting(op, change, None).await
    }

    /// The same, if the model that is changed has this revision.
    ///
    /// # Errors
    /// As [`Handle::write`], and `CONFLICT` if it has another one.
    pub async fn write_expecting(
        &self,
        op: OpId,
        change: Change,
        revision: Option<Epoch>,
    ) -> Result<(Epoch, Reply), Failure> {
        let Outcome { epoch, result } = self.propose(op, change, revision).await?;
        Ok((epoch, result?))
    }

    /// As [`Handle::write`], with the registry's refusal as it is.
    ///
    /// # Errors
    /// As [`Handle::write`], but for refusals.
    pub async fn write_outcome(&self, op: OpId, change: Change) -> Result<Outcome, Failure> {
        self.propose(op, change, None).await
    }

    async fn propose(
        &self,
        op: OpId,
        change: Change,
        expected_revision: Option<Epoch>,
    ) -> Result<Outcome, Failure> {
        let what = change.name();
        let command = Command {
            schema: SCHEMA,
            op,
            stamped_ms: self.wall_ms(),
            expected_revision,
            change,
        };
        let deadline = tokio::time::Instant::now() + WRITE_LIMIT;
        let written = self.raft.write(command, deadline).await;
        let outcome = written.map_err(|error| failure(&error))?;
        let epoch = outcome.epoch.0;
        match &outcome.result {
            Ok(_) => tracing::info!(change = what, %op, epoch, "committed"),
            Err(refusal) => tracing::info!(change = what, %op, epoch, %refusal, "refused"),
        }
        Ok(outcome)
    }

    /// How long ago a quorum was known to stand behind a leader; `None` if never.
    pub fn quorum_age(&self) -> Option<Duration> {
        self.raft.quorum_age()
    }

    /// Sees to it that the first of the two does not lead: if it does, the second shall.
    ///
    /// # Errors
    /// It leads on.
    pub(crate) async fn move_leadership(
        &self,
        from_to: (NodeId, NodeId),
        deadline: tokio::time::Instant,
    ) -> Result<(), MembershipError> {
        self.raft.move_leadership(from_to, deadline).await
    }

    /// Gives the vote of `voter` to a learner, if one can take it.
    ///
    /// # Errors
    /// It may have its vote still.
    pub(crate) async fn relieve(
        &self,
        voter: NodeId,
        deadline: tokio::time::Instant,
    ) -> Result<(), MembershipError> {
        self.raft.relieve(voter, deadline).await
    }

    /// Whether a quorum was known to stand behind a leader a moment ago.
    pub fn has_quorum(&self) -> bool {
        self.raft.has_quorum()
    }

    /// The state as applied here, whenever it changes.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Arc<Registry>> {
        self.raft.watch()
    }

    /// Waits until this node holds all that was committed anywhere up to now, but not for long;
    /// says whether it does.
    pub async fn catch_up(&self) -> bool {
        let deadline = tokio::time::Instant::now() + CATCH_UP_LIMIT;
        self.raft.read_index(deadline).await.is_ok()
    }

    /// Sends `message` to `actor` after each change, until the actor is gone.
    pub fn tell<M: Message>(&self, actor: &ActorRef<M>, message: impl Fn() -> M + Send + 'static) {
        notify(self.raft.watch(), actor.clone(), message);
    }
}

/// A fresh op-id from the operating system.
///
/// # Errors
/// `INTERNAL` if the system has no entropy to give.
pub(crate) fn fresh_op() -> Result<OpId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(
            ErrorCode::Internal,
            format!("the system gives no entropy: {error}"),
        )
    })?;
    Ok(OpId(u128::from_le_bytes(bytes)))
}

fn failure(error: &WriteError) -> Failure {
    let code = match error {
        WriteError::NoQuorum | WriteError::NotLeader { .. } => ErrorCode::NoQuorum,
        WriteError::Unknown => ErrorCode::Unknown,
        WriteError::Overloaded { .. } => ErrorCode::Overloaded,
        WriteError::TooLarge { .. } => ErrorCode::TooLarge,
        WriteError::ShuttingDown => ErrorCode::ShuttingDown,
        WriteError::StorageFailed { .. } => ErrorCode::StorageFailed,
    };
    Failure::new(code, error.to_string())
}

/// How long a read that must be current may wait for a leader.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(2);
/// How long a write may take: several elections and a slow disk fit.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
