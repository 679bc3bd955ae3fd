//! The Raft log on disk: segments of fixed size, written by one thread, one sync for all that
//! waits.
//!
//! ```text
//!  segment-0000000001.log        segment-0000000002.log
//!  ┌────────┬────────────┬───────┬───┐ ┌────────┬────────────┬───────┬────────┬─ ─ ─ ─ ┐
//!  │ header │ checkpoint │ entry │ … │ │ header │ checkpoint │ entry │ vote │ …   zeros │
//!  └────────┴────────────┴───────┴───┘ └────────┴────────────┴───────┴────────┴─ ─ ─ ─ ┘
//! ```
//!
//! Entries, vote, committed position, truncations and purges are records of one ordered file,
//! so their order on disk is the order in which they were asked for. A segment is filled with
//! zeros and synced before it gets its name, so later syncs write data only; it begins with a
//! checkpoint of all that is not an entry, so the segments before it can be removed.
//!
//! **Recovery.** Each record says up to which log offset everything was durable when it was
//! written. Damage below the largest such offset has eaten something that may have been
//! acknowledged: opening refuses and names file and offset. Damage above it is the torn tail
//! of a crash: it is cut and overwritten with zeros.
//!
//! **Failure.** A failed sync or an unexpected error of a write poisons the log: nothing is
//! acknowledged again, and [`Log::failure`] tells. A full disk refuses the write and all that
//! waited behind it, and keeps what was acknowledged. Room for one more segment is kept beside
//! the log, so artifacts that fill the disk do not stop the registry at once.

mod error;
mod record;
mod recovery;
mod scan;
mod segment;
mod state;
mod thread;
mod writer;

pub use error::{AppendError, OpenError};
pub use state::{Entry, Mark, Recovered, Write};
pub use thread::{Done, Drive, Log};

/// How the log uses its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a segment file, preallocated. Default 16 MiB: a new one takes tens of
    /// milliseconds, once in some 60,000 typical entries. At least 1 MiB, so that the largest
    /// entry of a registry fits three times.
    pub segment_bytes: u64,
    /// Most writes that wait for the log's thread; further ones wait in their callers.
    /// Default 1,024.
    pub queue_writes_max: usize,
    /// Most bytes written before one sync. Default 4 MiB: about 10 ms of a slow disk.
    pub group_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            queue_writes_max: 1024,
            group_bytes_max: 4 << 20,
        }
    }
}

#[cfg(test)]
mod tests;
