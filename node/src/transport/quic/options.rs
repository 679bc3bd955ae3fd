//! How QUIC is tuned: every window and every wait has a bound.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TransportConfig, VarInt};

use crate::transport::{KEEP_ALIVE, Plane};

pub(super) fn server_config(tls: rustls::ServerConfig) -> ServerConfig {
    let tls = QuicServerConfig::try_from(tls).expect("ring has QUIC's initial cipher suite");
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(KEEP_ALIVE)))
        // A peer has one address; who shows up from another one dials again.
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    config
}

pub(super) fn client_config(tls: rustls::ClientConfig, plane: Plane) -> ClientConfig {
    let tls = QuicClientConfig::try_from(tls).expect("ring has QUIC's initial cipher suite");
    let mut config = ClientConfig::new(Arc::new(tls));
    // Both sides acknowledge what keeps a connection alive, so the dialler's pace is enough.
    let keep_alive = match plane {
        Plane::Raft | Plane::Mesh => KEEP_ALIVE,
        Plane::Infer | Plane::Blob => KEEP_ALIVE_QUIET,
    };
    config.transport_config(Arc::new(transport(keep_alive)));
    config
}

fn transport(keep_alive: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IDLE_MAX.try_into().expect("ten seconds fit");
    config
        .max_concurrent_bidi_streams(STREAMS_MAX)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW_BYTES)
        .receive_window(WINDOW_BYTES)
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(keep_alive))
        .max_idle_timeout(Some(idle));
    config
}

/// Streams that a peer may have open on one plane: four for each of its permits.
pub(super) const STREAMS_MAX: VarInt = VarInt::from_u32(4_096);
/// What one stream may have under way: a tensor of 8 MiB needs no pause at 1 ms and 8 GB/s.
const STREAM_WINDOW_BYTES: VarInt = VarInt::from_u32(8 << 20);
/// What a connection may hold for us that nobody has read yet.
const WINDOW_BYTES: VarInt = VarInt::from_u32(32 << 20);
/// What a connection may hold of ours that is not acknowledged yet.
const SEND_WINDOW_BYTES: u64 = 32 << 20;
/// The detector decides long before; this only ends what nobody asks about any more.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Planes that nobody listens to for life signs.
const KEEP_ALIVE_QUIET: Duration = Duration::from_secs(3);
/// Connections that have knocked and are not looked at yet, and their bytes.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 4 << 20;
