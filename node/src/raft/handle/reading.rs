//! Reads that hold all that was committed before them.

use openraft::ReadPolicy;
use openraft::errors::{Fatal, LinearizableReadError, RaftError};
use paceline_protocol::{Epoch, NodeId};
use tokio::time::{Instant, timeout_at};

use super::attempt::Waiting;
use super::{ATTEMPT_MAX, RaftHandle};
use crate::planted::Bug;
use crate::raft::error::{ReadError, StopReason};
use crate::raft::metrics::Role;
use crate::raft::wire::{Answer, Request};

/// What comes of asking the leader.
enum Said {
    /// What it knows committed.
    Index(u64),
    /// It leads, as far as is known, and no quorum has confirmed that in time.
    Nothing,
    /// Nobody is known to lead, or whoever did does not answer.
    NoLeader,
}

impl RaftHandle {
    /// Returns when the local state holds all that was committed anywhere when this was called,
    /// with the index that it then holds at least (ReadIndex: Ongaro, "Consensus: bridging
    /// theory and practice", 2014, section 6.4).
    ///
    /// # Errors
    /// As [`ReadError`] says. Nothing was changed.
    pub async fn read_index(&self, deadline: Instant) -> Result<Epoch, ReadError> {
        let mut waiting = Waiting::until(deadline);
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
            match self.read_log_index(deadline).await? {
                Said::Index(index) => {
                    let mut states = self.inner.parts.state.clone();
                    let reached = states.wait_for(|state| state.epoch().0 >= index);
                    let reached = timeout_at(deadline, reached).await;
                    let is_reached = reached.is_ok_and(|reached| reached.is_ok());
                    return match is_reached {
                        true => Ok(Epoch(index)),
                        false => Err(ReadError::NoQuorum),
                    };
                }
                // A slow line is no reason to give up early; a quorum that is not heard is.
                Said::Nothing if self.has_lost_quorum() => return Err(ReadError::NoQuorum),
                Said::Nothing => {
                    waiting.leaderless_since = None;
                    let paused = waiting.pause().await;
                    paused.map_err(|_| ReadError::NoQuorum)?;
                }
                Said::NoLeader => {
                    waiting.leaderless_since.get_or_insert(Instant::now());
                    let paused = waiting.pause().await;
                    paused.map_err(|_| ReadError::NoQuorum)?;
                }
            }
        }
    }

    /// What the leader knows committed.
    async fn read_log_index(&self, deadline: Instant) -> Result<Said, ReadError> {
        let parts = &self.inner.parts;
        if Bug::StaleRead.is_planted() && self.trusts_its_lease() {
            return Ok(Said::Index(self.state().epoch().0));
        }
        let until = deadline.min(Instant::now() + ATTEMPT_MAX);
        let reading = parts.raft.get_read_log_id(ReadPolicy::ReadIndex);
        let reading = self.while_leading(reading);
        let leader = match timeout_at(until, reading).await.unwrap_or(None).ok_or(()) {
            Ok(Ok((read, _))) => return Ok(Said::Index(read.index())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                forward.leader_id.filter(|leader| *leader != self.node().0)
            }
            Ok(Err(RaftError::Fatal(Fatal::Stopped))) => return Err(ReadError::ShuttingDown),
            Ok(Err(RaftError::Fatal(fatal))) => {
                return Err(ReadError::StorageFailed {
                    reason: fatal.to_string(),
                });
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => return Ok(Said::Nothing),
        };
        let Some(leader) = leader else {
            return Ok(Said::NoLeader);
        };
        let left = until.saturating_duration_since(Instant::now());
        let asked = self.ask_leader(NodeId(leader), &Request::ReadIndex, left);
        match asked.await {
            Ok(Answer::ReadIndex(Ok(index))) => Ok(Said::Index(index)),
            Ok(_) => Ok(Said::Nothing),
            Err(_) => Ok(Said::NoLeader),
        }
    }

    /// [`Bug::StaleRead`]: what was true a while ago is taken to be true.
    fn trusts_its_lease(&self) -> bool {
        let age = self.quorum_age();
        self.metrics().role == Role::Leader && age.is_some_and(|age| age < ATTEMPT_MAX)
    }
}
