//! The transport over QUIC with mutual TLS (RFC 9000, RFC 9001): one UDP port for all peers.
//!
//! Either side dials when it needs a stream and there is no connection; if both do so at once,
//! both keep the one that the lower node id dialled. A connection counts only after each side
//! has said hello on it: in TLS 1.3 a client believes that it is connected before the server
//! has looked at its certificate. Dials of one pair and plane are never made at the same time,
//! and not sooner after a failure than its backoff says.

mod accepting;
mod dialling;
mod hello;
mod options;
mod pool;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paceline_protocol::NodeId;
use quinn::Connection;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use self::hello::{Life, PeerLife};
use self::options::server_config;
use self::pool::{Link, Pool};
use self::stream::stream_of;
use super::{Boxed, Incoming, OpenError, Plane, Stream, Transport};
use crate::identity::credentials::Credentials;
use crate::supervisor::Health;
use crate::tending::tend;

/// A node's peer port.
pub struct QuicTransport {
    shared: Arc<Shared>,
    incoming: BTreeMap<Plane, AsyncMutex<mpsc::Receiver<Incoming>>>,
    health: Health,
}

/// What the transport and its tasks have in common.
struct Shared {
    node: NodeId,
    life: Life,
    credentials: Credentials,
    endpoint: quinn::Endpoint,
    doors: BTreeMap<Plane, mpsc::Sender<Incoming>>,
    pool: Mutex<Pool>,
    handshakes: Arc<Semaphore>,
    closed: watch::Sender<bool>,
}

/// Why the peer port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The socket cannot be used.
    #[error("the peer port cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// TLS cannot be set up.
    #[error("TLS for peers cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl QuicTransport {
    /// Speaks to peers over `socket`, as who `credentials` say. Called within the runtime that
    /// shall drive the port.
    ///
    /// # Errors
    /// The socket or the credentials cannot be used.
    pub fn start(socket: UdpSocket, credentials: Credentials) -> Result<Arc<Self>, QuicError> {
        let protocols = Plane::ALL.map(|plane| plane.protocol().to_vec()).to_vec();
        let config = server_config(credentials.peer_server(protocols)?);
        let endpoint = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            Some(config),
            socket,
            Arc::new(quinn::TokioRuntime),
        )?;
        let (doors, incoming) = Plane::ALL
            .map(|plane| {
                let (door, incoming) = mpsc::channel(STREAMS_WAITING_MAX);
                ((plane, door), (plane, AsyncMutex::new(incoming)))
            })
            .into_iter()
            .unzip();
        let shared = Arc::new(Shared {
            node: credentials.subject().node,
            life: Life(getrandom::u64().map_err(io::Error::other)?),
            credentials,
            endpoint,
            doors,
            pool: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            closed: watch::Sender::new(false),
        });
        let health = Health::default();
        let accepting = shared.clone();
        let accept = move || accepting::accept(accepting.clone());
        let tended = (health.clone(), shared.node.0);
        tokio::spawn(tend("peer port", tended, accept));
        Ok(Arc::new(Self {
            shared,
            incoming,
            health,
        }))
    }

    /// Where it is written when the peer port is lost; the node's other parts write there, too.
    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Where peers reach this node.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    async fn open_until(
        &self,
        (peer, plane): (NodeId, Plane),
        deadline: Instant,
    ) -> Result<Stream, OpenError> {
        loop {
            let connecting = self.shared.connection(peer, plane);
            let late = |_| OpenError::Unreachable {
                peer,
                reason: "it does not answer in time".to_owned(),
            };
            let connection = timeout_at(deadline, connecting).await.map_err(late)??;
            match timeout_at(deadline, connection.open_bi()).await {
                Ok(Ok((send, receive))) => return Ok(stream_of(send, receive)),
                // It was lost meanwhile; the next turn connects anew.
                Ok(Err(_lost)) => tokio::task::yield_now().await,
                Err(_late) => return Err(OpenError::Exhausted { peer }),
            }
        }
    }
}

impl Transport for QuicTransport {
    fn node(&self) -> NodeId {
        self.shared.node
    }

    fn open(
        &self,
        peer: NodeId,
        plane: Plane,
        limit: Duration,
    ) -> Boxed<'_, Result<Stream, OpenError>> {
        Box::pin(self.open_until((peer, plane), Instant::now() + limit))
    }

    fn accept(&self, plane: Plane) -> Boxed<'_, Option<Incoming>> {
        Box::pin(async move {
            let mut closed = self.shared.closed.subscribe();
            let mut incoming = self.incoming.get(&plane)?.lock().await;
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => None,
                accepted = incoming.recv() => accepted,
            }
        })
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        let changed = self.shared.pool().set_peers(peers);
        for peer in changed {
            self.disconnect(peer);
        }
    }

    fn heard(&self, peer: NodeId) -> u64 {
        self.shared.pool().heard(peer)
    }

    fn disconnect(&self, peer: NodeId) {
        let connections = self.shared.pool().take(peer);
        for connection in connections {
            connection.close(CLOSE_DISCONNECTED, b"disconnected");
        }
    }

    fn close(&self) {
        self.shared.closed.send_replace(true);
        self.shared.endpoint.close(CLOSE_STOPPED, b"stopped");
    }

    fn closed(&self) -> Boxed<'_, ()> {
        let idle = self.shared.endpoint.wait_idle();
        Box::pin(async { drop(timeout(GOODBYE_LIMIT, idle).await) })
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Notes a connection that both sides have said hello on. Those with an earlier process of
    /// the peer are over, however long it takes until they notice.
    fn connected(&self, peer: PeerLife, plane: Plane, connection: &Connection, dialled_by: NodeId) {
        let link = Link {
            connection: connection.clone(),
            dialled_by,
            life: peer.life,
        };
        let over = self.pool().connected((peer.node, plane), link);
        for connection in over {
            connection.close(CLOSE_DISCONNECTED, b"another life");
        }
    }
}

impl Plane {
    /// The plane's name in the handshake (ALPN, RFC 7301).
    pub fn protocol(self) -> &'static [u8] {
        match self {
            Self::Raft => b"paceline-raft/1",
            Self::Mesh => b"paceline-mesh/1",
            Self::Infer => b"paceline-infer/1",
            Self::Blob => b"paceline-blob/1",
        }
    }

    fn of_protocol(protocol: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|plane| plane.protocol() == protocol)
    }
}

/// Streams that peers have opened and nobody has taken yet, a plane. What is beyond waits in
/// its connection, where [`options::STREAMS_MAX`] bounds it.
const STREAMS_WAITING_MAX: usize = 1_024;
/// Handshakes at a time; from then on, who does not prove its address is asked to.
const HANDSHAKES_MAX: usize = 64;
/// For the last packets to leave the socket: a turn of each connection's task.
const GOODBYE_LIMIT: Duration = Duration::from_millis(100);
const CLOSE_STOPPED: quinn::VarInt = quinn::VarInt::from_u32(0);
const CLOSE_DISCONNECTED: quinn::VarInt = quinn::VarInt::from_u32(1);
const CLOSE_REFUSED: quinn::VarInt = quinn::VarInt::from_u32(2);
const CLOSE_OLD: quinn::VarInt = quinn::VarInt::from_u32(3);

#[cfg(test)]
pub(crate) mod tests;
