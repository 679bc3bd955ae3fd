//! What a node keeps on disk: the Raft log, its snapshots, and the port below them.
//!
//! ```text
//!      raft (log store, state machine)
//!        │ entries, vote, committed            │ snapshots
//!      Log ── raft-log thread ── segments    SnapshotStore
//!        └──────────────┬──────────────────────┘
//!                     Disk            one directory of files
//!              ┌────────┴────────┐
//!           RealDisk         MemoryDisk   (tests: torn writes, lost syncs, full, failing)
//! ```
//!
//! Read [`Disk`] first, then [`log::Log`]. Deliberately absent: what the bytes mean. Entries,
//! votes and snapshots are opaque here; `raft` encodes them.

pub mod disk;
mod header;
pub mod log;
pub mod memory_disk;
pub mod real_disk;
pub mod snapshots;

pub use disk::{Disk, DiskFile, LockError};
pub use header::{HeaderError, Owner};
pub use memory_disk::MemoryDisk;
pub use real_disk::RealDisk;
