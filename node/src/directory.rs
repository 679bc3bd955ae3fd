//! The port `Directory`: which nodes are there, and what each of them says of itself.
//!
//! In production this is the actor mesh ([`crate::mesh`]); tests run on a twin that speaks over
//! streams of the transport, so that what a network does is done to it too. A node that is not
//! in it is *unknown*: whether it lives is for the detector to say, from silence on the wire.

mod board;
mod publication;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use paceline_protocol::report::NodeReport;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use board::Board;
pub(crate) use publication::{Publication, Publisher};
pub use streams::StreamDirectory;

/// What peers say, and what is said to them.
pub trait Directory: Send + Sync + 'static {
    /// Says to every peer what this node knows of itself: at once if nothing was said for
    /// [`COALESCE`], and again every [`EVERY`]. Only the newest report is ever under way.
    fn publish(&self, report: NodeReport);

    /// The newest report of each peer that is connected. Changes with what they say, not each
    /// time they repeat it; [`Report::heard_at`] is to be read when it is needed.
    fn reports(&self) -> watch::Receiver<Arc<Reports>>;

    /// Says who the peers are. Reports of others are forgotten.
    fn set_peers(&self, peers: BTreeSet<NodeId>);

    /// Ends everything.
    fn close(&self);
}

/// What is known of all peers. A node that is not here is unknown.
pub type Reports = BTreeMap<NodeId, Report>;

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it said last.
    pub report: Arc<NodeReport>,
    /// When it said, last, that this is so.
    pub heard_at: Instant,
}

/// Reports of one node are at least so far apart: what changes together is said together.
pub const COALESCE: Duration = Duration::from_millis(10);
/// And at most so far: whoever has heard nothing for longer has lost something.
pub const EVERY: Duration = Duration::from_secs(1);
