//! What can go wrong with consensus, one type for each thing that is asked of it.

use paceline_protocol::NodeId;

use super::encoding::EncodingError;
use crate::storage::log::{AppendError, OpenError};
use crate::storage::snapshots::SnapshotError;

/// Why consensus cannot be started on a directory.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is out of bounds.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The snapshots cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An intact record says something that this release cannot read.
    #[error("{place}: {cause}")]
    Encoding {
        /// The directory.
        place: String,
        /// What is wrong.
        cause: EncodingError,
    },
    /// The log begins behind the newest snapshot that can be read.
    #[error(
        "{place}: the log holds entries from {first_entry} on, and no intact snapshot reaches \
         that far; restore one, or let this machine join again as a new node. Damaged: {damaged}"
    )]
    SnapshotMissing {
        /// The directory.
        place: String,
        /// The first entry that is left.
        first_entry: u64,
        /// The damaged snapshots and why, or "none".
        damaged: String,
    },
    /// The consensus library refuses what it found.
    #[error("{place}: consensus cannot start: {reason}")]
    Refused {
        /// The directory.
        place: String,
        /// Why.
        reason: String,
    },
    /// The operating system gives no thread.
    #[error("cannot start the raft thread: {cause}")]
    Thread {
        /// What the operating system says.
        cause: std::io::Error,
    },
}

/// An option that is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft option {key} = {value} is out of bounds; allowed: {allowed}")]
pub struct OptionsError {
    /// Which.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// What is allowed.
    pub allowed: String,
}

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Too many writes are under way; nothing was done.
    #[error("{limit} registry writes are under way already; try again")]
    Overloaded {
        /// How many may be.
        limit: usize,
    },
    /// The command is too large; nothing was done.
    #[error("a registry command of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The largest one.
        limit: usize,
    },
    /// Another node leads; nothing was done.
    #[error("node {leader} leads; send it there")]
    NotLeader {
        /// Which one.
        leader: NodeId,
    },
    /// No leader with a quorum appeared before the deadline; nothing was done.
    #[error("no leader has a quorum; nothing was written")]
    NoQuorum,
    /// The node is shutting down; nothing was done.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The command was handed over, and what became of it is not known: it may be done, or be
    /// done later. A repeat with the same op-id is safe.
    #[error(
        "the deadline passed or the node stopped before the outcome was known; repeat it with the same op-id"
    )]
    Unknown,
    /// The disk failed. If the command was handed over before, its outcome is unknown until
    /// the node has started again.
    #[error("the registry's storage failed: {reason}")]
    StorageFailed {
        /// How.
        reason: String,
    },
}

/// Why a linearizable read cannot be promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads.
    #[error("node {leader} leads; ask it")]
    NotLeader {
        /// Which one.
        leader: NodeId,
    },
    /// No quorum confirmed a leader before the deadline.
    #[error("no leader was confirmed by a quorum in time")]
    NoQuorum,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The disk failed.
    #[error("the registry's storage failed: {reason}")]
    StorageFailed {
        /// How.
        reason: String,
    },
}

/// Why consensus has ended on this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was asked to.
    #[error("consensus was stopped")]
    Requested,
    /// The disk is full. Reads of the local state go on; writes need room and a restart.
    #[error("{reason}")]
    DiskFull {
        /// Which disk, and how much is needed.
        reason: String,
    },
    /// The disk failed: what it holds is unknown until it is read again, so the process must
    /// end.
    #[error("{reason}; the process must end")]
    StorageFailed {
        /// How.
        reason: String,
    },
    /// A defect of ours or of the library; the process must end.
    #[error("consensus failed: {reason}; the process must end")]
    Defect {
        /// What is known.
        reason: String,
    },
}

impl StopReason {
    /// Whether the process must end.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::StorageFailed { .. } | Self::Defect { .. })
    }

    /// What it means that the log has failed.
    pub(super) fn of(failed: Option<&AppendError>) -> Self {
        match failed {
            Some(full @ AppendError::Full { .. }) => Self::DiskFull {
                reason: full.to_string(),
            },
            Some(other) => Self::StorageFailed {
                reason: other.to_string(),
            },
            None => Self::Defect {
                reason: "a failure without a reason".to_owned(),
            },
        }
    }
}
