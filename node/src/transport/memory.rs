//! The twin of the transport in memory: what a network does to bytes, by seed.
//!
//! Links delay what is written, deliver it in order, and can be cut in one direction or in
//! both: what is under way then waits, as QUIC's retransmissions would have it wait, until the
//! link is healed, or until the stream has been silent for [`IDLE_MAX`] and fails. A node that
//! crashes says nothing to anybody. Everything is a function of the seed and of tokio's clock,
//! so a run under paused time repeats itself.

mod network;
mod pipe;
mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use tokio::sync::{Mutex, mpsc};

use self::network::Network;
use super::{Boxed, Incoming, OpenError, Plane, Stream, Transport};

/// A network in memory. Cheap to clone.
#[derive(Clone)]
pub struct MemoryNetwork {
    network: Arc<Network>,
}

/// A node's place in it.
pub struct MemoryTransport {
    network: Arc<Network>,
    /// Which life of the node this is: a restarted node is another one to its peers.
    life: u64,
    node: NodeId,
    incoming: BTreeMap<Plane, Mutex<mpsc::Receiver<Incoming>>>,
}

/// How long a link takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTiming {
    /// The shortest way, in microseconds.
    pub delay_min_us: u64,
    /// The longest way, in microseconds; each one between is equally likely.
    pub delay_max_us: u64,
    /// So many of a thousand writes are lost at first and come one retransmission later.
    pub loss_permille: u64,
}

impl MemoryNetwork {
    /// A network without nodes, whose links take 0.1 to 0.5 ms.
    pub fn new(seed: u64) -> Self {
        Self {
            network: Arc::new(Network::new(seed)),
        }
    }

    /// Gives `node` a place. If it had one before, that life of it ends: its streams fail, at
    /// its peers too.
    pub fn join(&self, node: NodeId) -> Arc<MemoryTransport> {
        let (doors, incoming): (BTreeMap<_, _>, BTreeMap<_, _>) = Plane::ALL
            .map(|plane| {
                let (door, incoming) = mpsc::channel(STREAMS_WAITING_MAX);
                ((plane, door), (plane, Mutex::new(incoming)))
            })
            .into_iter()
            .unzip();
        let life = self.network.join(node, doors);
        let network = self.network.clone();
        Arc::new(MemoryTransport {
            network,
            life,
            node,
            incoming,
        })
    }

    /// Says how long all links take from now on.
    pub fn set_timing(&self, timing: LinkTiming) {
        self.network.set_timing(timing);
    }

    /// Cuts what goes from `from` to `to`; the other direction still works.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.network.cut(from, to);
    }

    /// Cuts both directions between each of `some` and each of `others`.
    pub fn partition(&self, some: &[NodeId], others: &[NodeId]) {
        for (a, b) in some
            .iter()
            .flat_map(|a| others.iter().map(move |b| (*a, *b)))
        {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Heals every link: what waited arrives.
    pub fn heal(&self) {
        self.network.heal();
    }

    /// How many writes there were, and a digest of all of them: what was said, on which stream,
    /// and when. Two runs of one seed agree on it.
    pub fn traffic(&self) -> (u64, u64) {
        self.network.traffic()
    }

    /// Ends a node as a loss of power would: nobody is told.
    pub fn crash(&self, node: NodeId) {
        self.network.crash(node);
    }
}

impl Transport for MemoryTransport {
    fn node(&self) -> NodeId {
        self.node
    }

    fn open(
        &self,
        peer: NodeId,
        plane: Plane,
        limit: Duration,
    ) -> Boxed<'_, Result<Stream, OpenError>> {
        Box::pin(async move {
            let late = |reason: &str| OpenError::Unreachable {
                peer,
                reason: reason.to_owned(),
            };
            let opening = self.network.connect((self.node, self.life), peer, plane);
            tokio::time::timeout(limit, opening)
                .await
                .map_err(|_late| late("no answer in time"))?
        })
    }

    fn accept(&self, plane: Plane) -> Boxed<'_, Option<Incoming>> {
        Box::pin(async move {
            let incoming = self.incoming.get(&plane)?;
            incoming.lock().await.recv().await
        })
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        let known = peers.into_keys().collect();
        self.network.set_peers((self.node, self.life), known);
    }

    fn heard(&self, peer: NodeId) -> u64 {
        self.network.heard(peer, self.node)
    }

    fn disconnect(&self, peer: NodeId) {
        self.network.disconnect(self.node, peer);
    }

    fn close(&self) {
        self.network.leave((self.node, self.life));
    }

    fn closed(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.close();
    }
}

/// Streams that have been opened and not accepted yet, a plane: as many as QUIC lets a peer open.
const STREAMS_WAITING_MAX: usize = 4_096;
/// Bytes that are written and not read yet, a stream and direction.
const WINDOW_BYTES: usize = 1 << 20;
/// How long a cut stream waits before it fails.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
