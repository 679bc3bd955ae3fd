//! One try to write, and the patience between two of them.

use std::time::Duration;

use paceline_protocol::NodeId;
use paceline_protocol::registry::Outcome;
use tokio::time::{Instant, sleep};

use crate::raft::error::WriteError;

/// What came of one try to write.
pub(super) enum Attempt {
    Done(Outcome),
    Failed(WriteError),
    /// This node leads, nothing was done here.
    Leader(NodeId),
    /// Nobody leads, or who leads cannot be reached; nothing was done.
    Leaderless,
    /// It may be done, or be done later.
    MayBeDone,
}

impl Attempt {
    pub(super) fn of(leader: Option<u64>) -> Self {
        leader.map_or(Self::Leaderless, |leader| Self::Leader(NodeId(leader)))
    }
}

/// Patience with a cluster without a leader.
pub(super) struct Waiting {
    pub(super) deadline: Instant,
    pub(super) leaderless_since: Option<Instant>,
    pub(super) may_be_done: bool,
}

impl Waiting {
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            leaderless_since: None,
            may_be_done: false,
        }
    }

    /// How a write ends that no quorum takes.
    pub(super) fn without_quorum(&self) -> WriteError {
        match self.may_be_done {
            true => WriteError::Unknown,
            false => WriteError::NoQuorum,
        }
    }

    /// Waits a moment, unless patience is at its end.
    pub(super) async fn pause(&self) -> Result<(), WriteError> {
        let now = Instant::now();
        let since = self.leaderless_since.unwrap_or(now);
        if now + LEADER_POLL > self.deadline || now.duration_since(since) > LEADERLESS_MAX {
            return Err(self.without_quorum());
        }
        sleep(LEADER_POLL).await;
        Ok(())
    }
}

/// How long a command without a leader waits before it asks again: small beside an election.
pub(super) const LEADER_POLL: Duration = Duration::from_millis(5);
/// How long nobody may lead before a write or read gives up: several elections.
const LEADERLESS_MAX: Duration = Duration::from_millis(1_500);
