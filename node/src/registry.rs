//! The way to the replicated registry: writes under an op-id, and the state as applied here.

use std::sync::Arc;
use std::time::Duration;

use paceline_core::registry::Registry;
use paceline_protocol::registry::{Change, Command, Outcome, Reply, SCHEMA};
use paceline_protocol::{Epoch, ErrorCode, Failure, OpId};
use ractor::{ActorRef, Message};

use crate::clock::wall_ms;
use crate::raft::{RaftHandle, RaftMetrics, Role, WriteError};
use crate::supervisor::notify;

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    raft: RaftHandle,
}

impl Handle {
    /// A handle over a running Raft.
    pub fn new(raft: RaftHandle) -> Self {
        Self { raft }
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
        let what = change.name();
        let command = Command {
            schema: SCHEMA,
            op,
            stamped_ms: wall_ms(),
            change,
        };
        let deadline = tokio::time::Instant::now() + WRITE_LIMIT;
        let Outcome { epoch, result } = self
            .raft
            .write(command, deadline)
            .await
            .map_err(|error| failure(&error))?;
        match result {
            Ok(reply) => {
                tracing::info!(change = what, %op, epoch = epoch.0, "committed");
                Ok((epoch, reply))
            }
            Err(refusal) => {
                tracing::info!(change = what, %op, epoch = epoch.0, %refusal, "refused");
                Err(refusal.into())
            }
        }
    }

    /// How long ago a quorum was known to stand behind a leader; `None` if never.
    pub fn quorum_age(&self) -> Option<Duration> {
        self.raft.quorum_age()
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

    /// Waits until this node has applied `epoch`, or `limit` has passed; says which.
    pub async fn wait_for(&self, epoch: Epoch, limit: Duration) -> bool {
        let mut states = self.raft.watch();
        let reached = async {
            states
                .wait_for(|state| state.epoch() >= epoch)
                .await
                .is_ok()
        };
        tokio::time::timeout(limit, reached).await.unwrap_or(false)
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
