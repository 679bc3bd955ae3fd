//! How an attempt ended, and how that is read off the failure that tells of it.

use paceline_protocol::ErrorCode;
use paceline_protocol::frame::Execution;

use crate::time::Instant;

/// How an attempt ended, or how it is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing of it ran: the replica is gone or draining, or its node could not be sent to.
    Gone,
    /// Nothing of it ran: the replica or the node has too much to do.
    Overloaded,
    /// It was not sent: the version is routed to no more, or no replica can run it once more.
    Nowhere,
    /// It was not sent: no replica that it has not been to can be picked, but the version shall
    /// have some.
    NotYet {
        /// When the version's last ready replica went; if it has some, now.
        since: Instant,
    },
    /// Nothing of it ran, and nothing would anywhere.
    Refused,
    /// It ran and failed in a way that may not repeat itself.
    Passing,
    /// Nobody can tell: what served it has died, its engine above all, but its node speaks.
    Died,
    /// It ran and failed in a way that would be the same anywhere.
    Failed,
    /// Nobody can tell: it runs, is not waited for any longer, and has its inputs.
    Left,
    /// Nobody can tell: its node is suspect. It may still answer.
    Suspect,
    /// Nobody can tell: its worker, process or node is lost. It will not answer.
    Lost,
    /// Nobody can tell: its time is over.
    Late,
}

impl End {
    /// The end of an attempt that was told as a failure.
    pub fn of(code: ErrorCode, execution: Execution) -> Self {
        match (execution, code) {
            (Execution::NotExecuted, ErrorCode::VersionGone | ErrorCode::ShuttingDown) => {
                Self::Gone
            }
            (Execution::NotExecuted, ErrorCode::Overloaded | ErrorCode::QueueFull) => {
                Self::Overloaded
            }
            (Execution::NotExecuted, _) => Self::Refused,
            (Execution::Executed, ErrorCode::EngineFailed) => Self::Passing,
            (Execution::Executed, _) => Self::Failed,
            (Execution::Unknown, ErrorCode::DeadlineExceeded | ErrorCode::Cancelled) => Self::Late,
            (Execution::Unknown, _) => Self::Died,
        }
    }

    /// Whether it speaks against the replica that had it. What is silent is the detector's to judge.
    pub fn is_replicas_fault(self) -> bool {
        match self {
            Self::Passing | Self::Died => true,
            Self::Gone
            | Self::Overloaded
            | Self::Nowhere
            | Self::NotYet { .. }
            | Self::Refused
            | Self::Failed
            | Self::Left
            | Self::Suspect
            | Self::Lost
            | Self::Late => false,
        }
    }
}
