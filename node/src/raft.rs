//! The replicated registry: consensus by openraft over our own log, as a value with a handle.
//!
//! ```text
//!   RaftHandle ── write, read_index, state, watch, metrics
//!       │ bounded
//!   openraft ──────────── raft thread (current-thread runtime)
//!    │    │    └─ network ◀──▶ serving     peers, over the port Transport
//!    │    └── state machine   Registry in memory, snapshots on disk
//!    └── log store ────────── raft-log thread, storage::log
//! ```
//!
//! Read [`RaftNode::start`] first, then [`RaftHandle`]. This module alone names openraft, and
//! none of its types leave it: on disk everything is in an encoding of ours with a schema
//! number, since the library is a pre-release whose layouts change.
//!
//! Deliberately absent: who shall be a member (the membership actor decides), and what commands
//! mean (`paceline_core::registry`).

mod encoding;
mod error;
mod handle;
mod log_store;
mod members;
mod metrics;
mod network;
mod node;
mod options;
mod serving;
mod state_machine;
mod type_config;
mod wire;

pub use encoding::EncodingError;
pub use error::{OptionsError, ReadError, StartError, StopReason, WriteError};
pub use handle::RaftHandle;
pub use members::MembershipError;
pub use metrics::{RaftMetrics, Role};
pub use node::{AuthorityKey, RaftNode, RaftStart};
pub use options::RaftOptions;

#[cfg(test)]
mod tests;
