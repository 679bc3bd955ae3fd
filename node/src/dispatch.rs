//! Requests to replicas on other nodes, and their answers: what travels on `Plane::Infer`.
//!
//! ```text
//!    Peers::ask ─┬─ small ─▶ lane: many requests on one lasting stream ─┐
//!                └─ large ─▶ a stream of its own ───────────────────────┴─▶ serve ─▶ Handler
//! ```
//!
//! A stream carries frames: requests and `Cancel`s one way, answers in any order the other way,
//! told apart by their numbers. A *lane* is such a stream that lasts and is shared: what waits
//! for its writer leaves in one write, so that a loaded node sends many requests a packet.
//! What is large has a stream of its own, behind which nothing waits. The accepting side does
//! not tell the two apart.
//!
//! A caller that loses interest drops its future: a `Cancel` follows on a lane, a stream of its
//! own is reset, and the handler's future is dropped either way. When a connection goes,
//! everything that waits on it ends at once.

mod lane;
mod peers;
mod reading;
mod serving;
#[cfg(test)]
mod tests;
mod writing;

use paceline_protocol::NodeId;

pub use self::peers::Peers;
pub use self::serving::{Handler, serve};

/// A request that was sent to another node has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It did not leave, or not whole: it was certainly not executed.
    #[error("node {peer} did not get it: {reason}")]
    NotSent {
        /// Where it should have gone.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// So many requests are under way to the peer already; not executed.
    #[error("{PERMITS} requests are under way to node {peer} already")]
    Full {
        /// Where it should have gone.
        peer: NodeId,
    },
    /// It may have been executed, and its answer will not come.
    #[error("node {peer} fell silent: its stream was lost")]
    Silent {
        /// Where it went.
        peer: NodeId,
    },
    /// The deadline has passed; it may have been executed. The peer is told to stop.
    #[error("node {peer} did not answer in time")]
    Late {
        /// Where it went.
        peer: NodeId,
    },
}

impl Lost {
    fn not_sent(peer: NodeId, reason: impl ToString) -> Self {
        let reason = reason.to_string();
        Self::NotSent { peer, reason }
    }
}

/// Requests under way to one peer, or from one peer: more than its devices take at a time.
pub const PERMITS: usize = 1_024;
/// Longest request, and longest expected answer, on a lane: it is written in a few packets, so
/// what waits behind it waits for microseconds.
pub const LANE_BYTES_MAX: usize = 16 << 10;
