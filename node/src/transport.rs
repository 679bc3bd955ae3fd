//! The port `Transport`: byte streams between the nodes of one cluster.
//!
//! There is a connection for each pair of nodes *and each plane*, so that no plane waits behind
//! another's bytes: a lost packet of an artifact delays no heartbeat. Streams are ordered,
//! reliable, and flow-controlled; what a stream means is its plane's own business. In
//! production this is QUIC under mutual TLS; tests run on a twin in memory that delays, cuts
//! and partitions by seed. Both pass one conformance suite.

#[cfg(test)]
pub(crate) mod conformance;
pub mod memory;
pub(crate) mod message;
pub mod quic;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use paceline_protocol::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Consensus: entries, votes, snapshots, forwarded commands.
    Raft,
    /// Actors: discovery, observed state, control messages.
    Mesh,
    /// Requests and answers with their tensors.
    Infer,
    /// Chunks of artifacts.
    Blob,
}

impl Plane {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Raft, Self::Mesh, Self::Infer, Self::Blob];
}

/// A future behind a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Streams to and from peers. Usable from any runtime.
pub trait Transport: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;

    /// Opens a stream to `peer`, connecting first if there is no connection. A peer sees the
    /// stream once something has been written to it.
    ///
    /// # Errors
    /// [`OpenError`], at the latest after `limit`.
    fn open(
        &self,
        peer: NodeId,
        plane: Plane,
        limit: Duration,
    ) -> Boxed<'_, Result<Stream, OpenError>>;

    /// The next stream that a peer has opened on `plane`; `None` once the transport is closed.
    /// Each plane has one acceptor. Streams that are not accepted wait, and their number is
    /// bounded by what a peer may open.
    fn accept(&self, plane: Plane) -> Boxed<'_, Option<Incoming>>;

    /// Says where peers are reached now. Connections to nodes that are no longer named, or are
    /// reached elsewhere, are closed.
    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>);

    /// A number that rises whenever anything arrives from `peer`, at least every
    /// [`KEEP_ALIVE`] while it lives and is connected on any plane.
    fn heard(&self, peer: NodeId) -> u64;

    /// Closes every connection with `peer`: streams on them fail at once. The next
    /// [`Transport::open`] connects anew.
    fn disconnect(&self, peer: NodeId);

    /// Closes everything; what waits for a stream is told so.
    fn close(&self);

    /// Waits, after [`Transport::close`], until peers were told: what they have under way here
    /// ends at once instead of at its deadline.
    fn closed(&self) -> Boxed<'_, ()>;
}

/// A stream in both directions. Dropping `send` without [`SendHalf::finish`] resets it, and
/// dropping `receive` before its end tells the peer to stop sending.
pub struct Stream {
    /// What this side says.
    pub send: Box<dyn SendHalf>,
    /// What the peer says.
    pub receive: Box<dyn AsyncRead + Send + Sync + Unpin>,
}

/// The sending half of a stream.
pub trait SendHalf: AsyncWrite + Send + Sync + Unpin {
    /// Nothing more will be written: the peer reads to the end. What was written is still
    /// delivered, also after the half is dropped.
    fn finish(&mut self);

    /// Abandons the stream: the peer's reads fail, what was not delivered may never be.
    fn reset(&mut self);
}

/// A stream that a peer has opened.
pub struct Incoming {
    /// Who, as its certificate says.
    pub peer: NodeId,
    /// The stream.
    pub stream: Stream,
}

/// Why no stream could be opened. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nobody said where the peer is.
    #[error("node {peer} is not a known peer")]
    Unknown {
        /// Who was wanted.
        peer: NodeId,
    },
    /// The peer does not answer, or not in time.
    #[error("node {peer} cannot be reached: {reason}")]
    Unreachable {
        /// Who was wanted.
        peer: NodeId,
        /// What is known.
        reason: String,
    },
    /// The peer has as many streams open as it allows.
    #[error("node {peer} has no free stream on this plane")]
    Exhausted {
        /// Who was wanted.
        peer: NodeId,
    },
    /// The transport was closed.
    #[error("the transport is closed")]
    Closed,
}

/// Longest silence of a connected peer that lives.
pub const KEEP_ALIVE: Duration = Duration::from_millis(100);
