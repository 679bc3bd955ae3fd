//! The way to consensus: write, read, watch, stop.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError,
};
use paceline_core::registry::Registry;
use paceline_protocol::limits::REGISTRY_ENTRY_BYTES_MAX;
use paceline_protocol::registry::{Command, Outcome};
use paceline_protocol::{Epoch, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::encoding::command_bytes;
use super::error::{ReadError, StopReason, WriteError};
use super::metrics::RaftMetrics;
use super::node::Parts;
use super::type_config::TypeConfig;

/// Consensus on this node, for everybody in the process. Cheap to clone, usable from any
/// runtime. When the last clone is dropped, consensus stops.
#[derive(Clone)]
pub struct RaftHandle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    permits: Semaphore,
}

impl RaftHandle {
    pub(super) fn new(parts: Parts) -> Self {
        let permits = Semaphore::new(parts.writes_in_flight_max);
        Self {
            inner: Arc::new(Inner { parts, permits }),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.parts.node
    }

    /// Commits a command and applies it here. After that [`RaftHandle::state`] holds it.
    ///
    /// While no node leads, this waits for one. If the future is dropped, the command may be
    /// done or not, as with [`WriteError::Unknown`]. Cost: one sync of the log, shared with
    /// all that is written meanwhile; 0.2 ms on a local disk.
    ///
    /// # Errors
    /// As [`WriteError`] says; each variant tells whether something may have been done.
    pub async fn write(&self, command: Command, deadline: Instant) -> Result<Outcome, WriteError> {
        let limit = self.inner.parts.writes_in_flight_max;
        let Ok(_permit) = self.inner.permits.try_acquire() else {
            return Err(WriteError::Overloaded { limit });
        };
        let limit = REGISTRY_ENTRY_BYTES_MAX;
        match command_bytes(&command) {
            Ok(bytes) if bytes <= limit => {}
            Ok(bytes) => return Err(WriteError::TooLarge { bytes, limit }),
            Err(_) => {
                return Err(WriteError::TooLarge {
                    bytes: usize::MAX,
                    limit,
                });
            }
        }
        loop {
            if let Some(reason) = self.stop_reason() {
                return Err(reason.into());
            }
            let writing = self.inner.parts.raft.client_write(command.clone());
            let error = match timeout_at(deadline, writing).await {
                Ok(Ok(written)) => return Ok(written.data),
                Ok(Err(error)) => error,
                Err(_late) => return Err(WriteError::Unknown),
            };
            match error {
                RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                    self.wait_for_leader(&forward, deadline).await?;
                }
                RaftError::APIError(_) => return Err(WriteError::Unknown),
                RaftError::Fatal(fatal) => return Err(self.stopped_while_writing(&fatal)),
            }
        }
    }

    /// Returns when the local state holds all that was committed anywhere when this was called,
    /// with the index that it then holds at least (ReadIndex: Ongaro, "Consensus: bridging
    /// theory and practice", 2014, section 6.4).
    ///
    /// # Errors
    /// As [`ReadError`] says. Nothing was changed.
    pub async fn read_index(&self, deadline: Instant) -> Result<Epoch, ReadError> {
        loop {
            match self.stop_reason() {
                None => {}
                Some(StopReason::Requested) => return Err(ReadError::ShuttingDown),
                Some(other) => {
                    return Err(ReadError::StorageFailed {
                        reason: other.to_string(),
                    });
                }
            }
            let reading = self
                .inner
                .parts
                .raft
                .ensure_linearizable(ReadPolicy::ReadIndex);
            let error = match timeout_at(deadline, reading).await {
                Ok(Ok(read)) => return Ok(Epoch(read.log_id().index)),
                Ok(Err(error)) => error,
                Err(_late) => return Err(ReadError::NoQuorum),
            };
            match error {
                RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                    self.wait_for_leader(&forward, deadline).await.map_err(
                        |error| match error {
                            WriteError::NotLeader { leader } => ReadError::NotLeader { leader },
                            _ => ReadError::NoQuorum,
                        },
                    )?;
                }
                RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                    self.pause(deadline)
                        .await
                        .map_err(|NoTime| ReadError::NoQuorum)?;
                }
                RaftError::Fatal(Fatal::Stopped) => return Err(ReadError::ShuttingDown),
                RaftError::Fatal(fatal) => {
                    return Err(ReadError::StorageFailed {
                        reason: fatal.to_string(),
                    });
                }
            }
        }
    }

    /// The registry as applied here: never waits, may lag behind the leader.
    pub fn state(&self) -> Arc<Registry> {
        self.inner.parts.state.borrow().clone()
    }

    /// The registry as applied here, whenever it changes. States between two looks are
    /// skipped.
    pub fn watch(&self) -> watch::Receiver<Arc<Registry>> {
        self.inner.parts.state.clone()
    }

    /// What consensus does at the moment.
    pub fn metrics(&self) -> RaftMetrics {
        RaftMetrics::of(&self.inner.parts.raft.metrics().borrow_watched())
    }

    /// Stops consensus, closes the log and gives the directory back; returns when that is done.
    pub async fn shutdown(&self) -> StopReason {
        self.inner.parts.stop.send_replace(true);
        self.stopped().await
    }

    /// Waits until consensus has ended here, and says why. If the reason
    /// [is fatal](StopReason::is_fatal), the process must end: nothing more will be
    /// acknowledged.
    pub async fn stopped(&self) -> StopReason {
        let mut ended = self.inner.parts.has_ended.clone();
        match ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone())
        {
            Some(reason) => reason,
            None => StopReason::Defect {
                reason: "the raft thread panicked".to_owned(),
            },
        }
    }

    fn stop_reason(&self) -> Option<StopReason> {
        let parts = &self.inner.parts;
        let is_stopping = *parts.stop.borrow();
        let ended = parts.has_ended.borrow().clone();
        ended.or(is_stopping.then_some(StopReason::Requested))
    }

    /// The command was handed over, and consensus ended before it was answered.
    fn stopped_while_writing(&self, fatal: &Fatal<TypeConfig>) -> WriteError {
        let failure = self
            .inner
            .parts
            .failure
            .borrow()
            .as_ref()
            .map(ToString::to_string);
        match (failure, fatal) {
            (Some(reason), _) => WriteError::StorageFailed { reason },
            (None, Fatal::StorageError(error)) => WriteError::StorageFailed {
                reason: error.to_string(),
            },
            (None, Fatal::Stopped | Fatal::Panicked) => WriteError::Unknown,
        }
    }

    /// Waits a moment if nobody leads; another leader is for the caller to turn to.
    async fn wait_for_leader(
        &self,
        forward: &ForwardToLeader<TypeConfig>,
        deadline: Instant,
    ) -> Result<(), WriteError> {
        match forward.leader_id {
            Some(leader) if leader != self.node().0 => Err(WriteError::NotLeader {
                leader: NodeId(leader),
            }),
            _ => self
                .pause(deadline)
                .await
                .map_err(|NoTime| WriteError::NoQuorum),
        }
    }

    async fn pause(&self, deadline: Instant) -> Result<(), NoTime> {
        timeout_at(deadline, sleep(LEADER_POLL))
            .await
            .map_err(|_late| NoTime)
    }
}

impl From<StopReason> for WriteError {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Requested => Self::ShuttingDown,
            other => Self::StorageFailed {
                reason: other.to_string(),
            },
        }
    }
}

/// The deadline passed.
struct NoTime;

/// How long a command without a leader waits before it asks again: small beside an election.
const LEADER_POLL: Duration = Duration::from_millis(5);
