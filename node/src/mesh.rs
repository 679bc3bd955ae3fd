//! The actor mesh: the directory in production, over sessions of ractor_cluster.
//!
//! A session runs on one stream of `Plane::Mesh`, inside the cluster's mutual TLS: the lower
//! node id opens it, the other one accepts, and it is opened again when it ends. Each node has
//! one remotable actor, the [`port`], in a process group of a scope of our own; the [`hub`]
//! sees peers' ports come and go and tells each of them what this node knows of itself.
//!
//! Process groups, names and actor ids of ractor belong to the process, so a process has one
//! mesh at most; several nodes in one process use [`crate::directory::StreamDirectory`]. Never
//! tensors here: all sessions' queues are without bound, so one message at a time is under way
//! to a peer, and the next follows its answer; from who does not keep to that no more is read
//! than its [`allowance`]. Whoever is authenticated may speak to any actor
//! of the mesh; that a message's author is a peer is checked, that it is *this* peer is not.

mod allowance;
mod hub;
mod line;
mod port;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paceline_protocol::NodeId;
use paceline_protocol::limits::NODE_REPORT_BYTES_MAX;
use paceline_protocol::report::NodeReport;
use ractor::{Actor, ActorRef};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{NodeServer, NodeServerMessage};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::directory::{Board, Directory, Publisher, Reports};
use crate::supervisor::Health;
use crate::tending::tend;
use crate::transport::Transport;

/// The mesh of this process.
pub struct Mesh {
    shared: Arc<Shared>,
    hub: ActorRef<hub::Message>,
    sessions: ActorRef<NodeServerMessage>,
    accepting: AbortHandle,
    runtime: Handle,
}

/// What the mesh's parts share.
struct Shared {
    transport: Arc<dyn Transport>,
    board: Board,
    publisher: Publisher,
    life: u64,
    /// All peers; with what keeps a session to them, for those that this node opens it to.
    peers: Mutex<BTreeMap<NodeId, Option<AbortHandle>>>,
}

/// What a mesh needs to start.
pub struct MeshOptions {
    /// The cluster's secret of this plane, as the join answer brought it: it guards the TCP
    /// listener that ractor_cluster always opens, here on loopback.
    pub cookie: [u8; 32],
    /// The cluster.
    pub cluster: u128,
    /// Drawn at this start of the node, and different at every other one.
    pub life: u64,
    /// Where it is written when no more sessions are accepted.
    pub health: Health,
}

/// Why the mesh does not start.
#[derive(Debug, thiserror::Error)]
#[error("the actor mesh does not start: {reason}")]
pub struct MeshError {
    /// What ractor says.
    pub reason: String,
}

impl Mesh {
    /// Starts the mesh, on the runtime that it is called on, without peers.
    ///
    /// # Errors
    /// [`MeshError`], for example if loopback has no free port.
    pub async fn start(
        transport: Arc<dyn Transport>,
        options: MeshOptions,
    ) -> Result<Self, MeshError> {
        let failed = |error: ractor::SpawnErr| MeshError {
            reason: error.to_string(),
        };
        let name = format!("n{}", transport.node());
        let shared = Arc::new(Shared {
            transport,
            board: Board::default(),
            publisher: Publisher::new(options.life),
            life: options.life,
            peers: Mutex::default(),
        });
        let cookie = options.cookie.map(|byte| format!("{byte:02x}")).concat();
        // Two nodes of one name take each other for themselves: the name is the node's id.
        let mode = Some(NodeConnectionMode::Isolated);
        let server = NodeServer::new(0, cookie, name.clone(), name, None, mode)
            .with_listen_addr(Ipv4Addr::LOCALHOST.into())
            .with_max_inbound_frame_size(FRAME_BYTES_MAX);
        let (sessions, _) = Actor::spawn(None, server, ()).await.map_err(failed)?;
        let group = format!("{:032x}", options.cluster);
        let arguments = (shared.clone(), group);
        let (hub, _) = match Actor::spawn(None, hub::Hub, arguments).await {
            Ok(hub) => hub,
            Err(error) => {
                sessions.stop(None);
                return Err(failed(error));
            }
        };
        let parts = (shared.clone(), sessions.clone());
        let accept = move || line::accept(parts.0.clone(), parts.1.clone());
        let tended = (options.health, options.life);
        let accepting = tokio::spawn(tend("mesh sessions", tended, accept));
        Ok(Self {
            shared,
            hub,
            sessions,
            accepting: accepting.abort_handle(),
            runtime: Handle::current(),
        })
    }
}

impl Directory for Mesh {
    fn publish(&self, report: NodeReport) {
        self.shared.publisher.publish(report);
    }

    fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.shared.board.watch()
    }

    fn set_peers(&self, mut named: BTreeSet<NodeId>) {
        let own = self.shared.transport.node();
        named.remove(&own);
        let mut peers = self.shared.locked();
        peers.retain(|peer, keeping| {
            let stays = named.contains(peer);
            if let (false, Some(keeping)) = (stays, keeping) {
                keeping.abort();
            }
            stays
        });
        for peer in &named {
            peers.entry(*peer).or_insert_with(|| {
                let keep = line::keep(self.shared.clone(), self.sessions.clone(), *peer);
                (own < *peer).then(|| self.runtime.spawn(keep).abort_handle())
            });
        }
        drop(peers);
        self.shared.board.keep(&named);
    }

    fn close(&self) {
        self.accepting.abort();
        for keeping in std::mem::take(&mut *self.shared.locked()).into_values() {
            keeping.inspect(AbortHandle::abort);
        }
        self.hub.stop(None);
        self.sessions.stop(None);
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<NodeId, Option<AbortHandle>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_peer(&self, node: NodeId) -> bool {
        self.locked().contains_key(&node)
    }
}

/// The largest report, with what the library writes around it.
const FRAME_BYTES_MAX: u64 = NODE_REPORT_BYTES_MAX as u64 + (64 << 10);
