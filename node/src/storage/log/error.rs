//! Why a log cannot be opened, and why a write is not in it.

use std::io;
use std::sync::Arc;

use crate::storage::disk::LockError;
use crate::storage::header::HeaderError;

/// Why a log cannot be opened. Nothing was changed, except that a torn tail may have been cut.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory has another user.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk failed.
    #[error("{place}: cannot {action} '{file}': {cause}")]
    Io {
        /// The directory.
        place: String,
        /// What was tried.
        action: &'static str,
        /// With which file; empty for the directory itself.
        file: String,
        /// What the operating system says.
        cause: io::Error,
    },
    /// There is no room for the first segment.
    #[error("{place}: no room for a segment of {bytes} bytes; free space and start again")]
    Full {
        /// The directory.
        place: String,
        /// How many bytes are needed.
        bytes: u64,
    },
    /// A segment is not this node's.
    #[error("{place}: '{file}' cannot be used: {cause}")]
    Header {
        /// The directory.
        place: String,
        /// The segment.
        file: String,
        /// Why.
        cause: HeaderError,
    },
    /// Something that was durable, and may have been acknowledged, is damaged.
    #[error(
        "{place}: '{file}' is damaged at byte {position} (log offset {offset}), although all up \
         to offset {durable} was durable; do not repair it: let this machine join again as a new \
         node, or restore the directory"
    )]
    Corrupt {
        /// The directory.
        place: String,
        /// The damaged segment.
        file: String,
        /// Where in the segment, in bytes.
        position: u64,
        /// Where in the log, in bytes.
        offset: u64,
        /// Up to which log offset all was known durable.
        durable: u64,
    },
    /// A segment between others, or before the first needed one, is gone.
    #[error("{place}: segment '{file}' is missing; restore it, or join again as a new node")]
    Missing {
        /// The directory.
        place: String,
        /// The segment that should be there.
        file: String,
    },
    /// Intact records contradict each other.
    #[error("{place}: '{file}' has a record at byte {position} that cannot follow: {reason}")]
    Contradiction {
        /// The directory.
        place: String,
        /// The segment.
        file: String,
        /// Where in the segment, in bytes.
        position: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Why a write is not in the log. After [`AppendError::Poisoned`] nothing ever will be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full. What was acknowledged is kept, this write is not; it may be tried
    /// again when there is room.
    #[error("{place}: the disk is full; free {bytes} bytes: {cause}")]
    Full {
        /// The directory.
        place: String,
        /// How many bytes were needed.
        bytes: u64,
        /// What the operating system says.
        cause: Arc<io::Error>,
    },
    /// An earlier failure left the disk's content unknown. The process must end.
    #[error("{place}: the log failed and takes no more writes: {cause}")]
    Poisoned {
        /// The directory.
        place: String,
        /// The first failure.
        cause: String,
    },
    /// An entry would leave a hole.
    #[error("entry {found} would leave a hole: the next one is {expected}")]
    Gap {
        /// The index that may follow at most.
        expected: u64,
        /// The one that was given.
        found: u64,
    },
    /// An entry is older than what was purged.
    #[error("entry {found} was purged: everything up to {purged} is")]
    Purged {
        /// Up to where.
        purged: u64,
        /// The one that was given.
        found: u64,
    },
    /// A record does not fit into a segment.
    #[error("a record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest one.
        limit: usize,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}
