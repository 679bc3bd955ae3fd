//! The SDK door: inference over QUIC, for clients that show no certificate.
//!
//! ```text
//!   endpoint ── accept ── handshake ─┬─ paceline-client/1 ── session ── stream × many ── Door
//!                                    └─ paceline-join/1 ──── the join door
//! ```
//!
//! A session is a connection whose client has said hello. Each of its streams carries frames:
//! requests in, answers out, in any order; a request whose answer comes in parts has one to itself. Everything that a client can open, send or leave
//! lying about has a limit or a deadline; what is said on the wire stands in
//! [`paceline_protocol::client`].

mod accepting;
mod door;
mod frames;
mod parts;
mod session;
mod stream;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use paceline_protocol::client::{CLIENT_PROTOCOL, CLOSED_ANSWERED, ClientDoor, JOIN_PROTOCOL};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use tokio::sync::{Semaphore, watch};

pub use self::accepting::accept;
pub use self::door::{ClientAnswer, ClientFailure, ClientRequest, Door};
use super::Guests;
pub use super::infer::{Disconnected, Moved, Taker, TensorAnswer, TensorPart};
use crate::telemetry::metrics::Metrics;
use crate::transport::Boxed;

/// Takes connections of nodes that want to join.
pub type JoinDoor = Arc<dyn Fn(quinn::Connection) -> Boxed<'static, ()> + Send + Sync>;

/// What every connection needs.
pub struct QuicDoors {
    /// Who answers.
    pub door: Arc<dyn Door>,
    /// Who takes in nodes, if this node does.
    pub join: Option<JoinDoor>,
    /// The cluster.
    pub cluster: u128,
    /// This node.
    pub node: NodeId,
    /// Where clients reach the cluster's nodes.
    pub nodes: watch::Receiver<Vec<ClientDoor>>,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// Limits.
    pub options: QuicOptions,
    /// Turns true when clients shall go elsewhere, and false when they may come back.
    pub leaving: watch::Receiver<bool>,
    /// Turns true when connections shall end.
    pub stopping: watch::Receiver<bool>,
    /// Where it is counted that the door is open.
    pub guests: Guests,
    places: Arc<Semaphore>,
}

/// Limits of the door.
#[derive(Clone, Copy, Debug)]
pub struct QuicOptions {
    /// Open connections.
    pub connections_max: u32,
    /// Requests in flight on one connection.
    pub in_flight_max: u32,
    /// Largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// How long a connection may take from its first packet to its hello.
    pub handshake_limit: Duration,
    /// How long a client may take to send its hello once it is connected.
    pub hello_limit: Duration,
    /// How long a half-sent frame may make no progress, and an answer may not be taken.
    pub stall_limit: Duration,
    /// How long requests in flight may take to end when the node stops.
    pub stop_limit: Duration,
}

/// What a door is made of, besides its limits.
pub struct QuicParts {
    /// Who answers.
    pub door: Arc<dyn Door>,
    /// Who takes in nodes, if this node does.
    pub join: Option<JoinDoor>,
    /// The cluster and this node.
    pub identity: (u128, NodeId),
    /// Where clients reach the cluster's nodes.
    pub nodes: watch::Receiver<Vec<ClientDoor>>,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// Turns true when clients shall go elsewhere.
    pub leaving: watch::Receiver<bool>,
    /// Turns true when connections shall end.
    pub stopping: watch::Receiver<bool>,
    /// Where it is counted that the door is open.
    pub guests: Guests,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            in_flight_max: 1_024,
            body_bytes_max: paceline_protocol::limits::BODY_BYTES_DEFAULT,
            handshake_limit: Duration::from_secs(5),
            hello_limit: Duration::from_secs(2),
            stall_limit: Duration::from_secs(10),
            stop_limit: Duration::from_secs(5),
        }
    }
}

impl QuicDoors {
    /// The doors of a node.
    pub fn new(parts: QuicParts, options: QuicOptions) -> Self {
        let QuicParts {
            door,
            join,
            identity: (cluster, node),
            nodes,
            metrics,
            leaving,
            stopping,
            guests,
        } = parts;
        let places = Arc::new(Semaphore::new(options.connections_max as usize));
        Self {
            door,
            join,
            cluster,
            node,
            nodes,
            metrics,
            options,
            leaving,
            stopping,
            guests,
            places,
        }
    }
}

/// The protocols that the door's TLS must offer, in the order of preference.
pub fn protocols() -> Vec<Vec<u8>> {
    vec![CLIENT_PROTOCOL.to_vec(), JOIN_PROTOCOL.to_vec()]
}

/// Opens the door's endpoint on a socket, to be kept while the node lives. Called within the
/// runtime that shall drive it.
///
/// # Errors
/// The socket cannot be used, or `tls` has no cipher suite that QUIC begins with.
pub fn bind(socket: UdpSocket, tls: rustls::ServerConfig) -> io::Result<Endpoint> {
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IDLE_MAX.try_into().expect("thirty seconds fit");
    config
        .max_concurrent_bidi_streams(STREAMS_MAX)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW_BYTES)
        .receive_window(WINDOW_BYTES)
        .send_window(SEND_WINDOW_BYTES)
        // Empty ones are a client's life signs; they are acknowledged and otherwise ignored.
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .max_idle_timeout(Some(idle));
    config
}

/// Streams that a client may have open: its lanes, and a large request on each of the others.
const STREAMS_MAX: VarInt = VarInt::from_u32(128);
const STREAM_WINDOW_BYTES: VarInt = VarInt::from_u32(8 << 20);
/// What a connection may hold for us that nobody has read yet.
const WINDOW_BYTES: VarInt = VarInt::from_u32(16 << 20);
/// What a connection may hold of ours that is not acknowledged yet.
const SEND_WINDOW_BYTES: u64 = 16 << 20;
const DATAGRAM_BYTES_MAX: usize = 2 << 10;
/// Clients sign every five seconds when nothing else is to be said.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections that have knocked and are not looked at yet, and their bytes.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 4 << 20;
const CLOSE_STOPPED: VarInt = VarInt::from_u32(0);
const CLOSE_ANSWERED: VarInt = VarInt::from_u32(CLOSED_ANSWERED);
const CLOSE_REFUSED: VarInt = VarInt::from_u32(2);
const CLOSE_MALFORMED: VarInt = VarInt::from_u32(4);
