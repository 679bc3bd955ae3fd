//! The accepting side: who knocks, who is let in, and the streams that peers open.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use paceline_protocol::NodeId;
use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use webpki::KeyUsage;

use super::hello::{HELLO_BYTES, Life, PeerLife};
use super::stream::stream_of;
use super::{CLOSE_OLD, CLOSE_REFUSED, Shared};
use crate::transport::{Incoming, Plane};

/// Lets peers in until the endpoint is closed. Under a flood of handshakes, those that have not
/// proved their address are told to, which costs us nothing to remember.
pub(super) async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        match shared.handshakes.clone().try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(handshake(shared.clone(), incoming, permit))),
            Err(_) if incoming.may_retry() => drop(incoming.retry()),
            Err(_) => incoming.refuse(),
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let admitted = timeout(HANDSHAKE_LIMIT, admit(&shared, incoming)).await;
    drop(permit);
    match admitted.unwrap_or_else(|_late| Err("no hello in time".to_owned())) {
        Ok((peer, plane, connection)) => {
            shared.connected(peer, plane, &connection, peer.node);
            serve(shared, (peer.node, plane), connection).await;
        }
        Err(reason) => tracing::debug!(%address, reason, "a peer was not let in"),
    }
}

async fn admit(
    shared: &Shared,
    incoming: quinn::Incoming,
) -> Result<(PeerLife, Plane, Connection), String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let refuse = |reason: &str| {
        connection.close(CLOSE_REFUSED, reason.as_bytes());
        reason.to_owned()
    };
    let node = peer_of(shared, &connection).ok_or_else(|| refuse("no name of a peer"))?;
    let plane = plane_of(&connection).ok_or_else(|| refuse("no such plane"))?;
    let (mut send, mut receive) = connection
        .accept_bi()
        .await
        .map_err(|error| error.to_string())?;
    let hello = receive.read_to_end(HELLO_BYTES).await.ok();
    let life = hello.and_then(|hello| Life::of(&hello));
    let life = life.ok_or_else(|| refuse("not the same version"))?;
    let said = send.write_all(&shared.life.hello()).await;
    said.map_err(|error| error.to_string())?;
    // A stream that cannot be finished has been given up by the peer, as all else will be.
    let _ = send.finish();
    Ok((PeerLife { node, life }, plane, connection))
}

/// Hands out the streams that the peer opens, until the connection is gone, or too old: TLS
/// looks at a certificate only once.
pub(super) async fn serve(shared: Arc<Shared>, way: (NodeId, Plane), connection: Connection) {
    let (peer, plane) = way;
    let old_at = Instant::now() + AGE_MAX;
    let door = &shared.doors[&plane];
    loop {
        tokio::select! {
            biased;
            () = sleep_until(old_at) => break,
            accepted = connection.accept_bi() => {
                let Ok((send, receive)) = accepted else { break };
                let stream = stream_of(send, receive);
                // A door that nobody looks after must not keep a connection that is over.
                let taken = tokio::select! {
                    sent = door.send(Incoming { peer, stream }) => sent.is_ok(),
                    _closed = connection.closed() => false,
                    () = sleep_until(old_at) => false,
                };
                if !taken {
                    break;
                }
            }
        }
    }
    // From now on, streams are opened on another connection; what runs on this one may end.
    shared.pool().forget(way, &connection);
    if connection.close_reason().is_none() {
        tokio::time::sleep(OLD_GRACE).await;
        connection.close(CLOSE_OLD, b"old");
    }
}

fn peer_of(shared: &Shared, connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let trust = shared.credentials.trust();
    let now = UnixTime::since_unix_epoch(now);
    let subject = trust.subject(chain.first()?, KeyUsage::client_auth(), now);
    // Nobody is its own peer.
    let node = subject.ok()?.node;
    (node != shared.node).then_some(node)
}

fn plane_of(connection: &Connection) -> Option<Plane> {
    let data = connection.handshake_data()?;
    let data = data.downcast::<HandshakeData>().ok()?;
    Plane::of_protocol(data.protocol.as_deref()?)
}

/// From the first packet to the hello.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The longest life of a connection.
const AGE_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long what runs on an old connection may take to end: the largest budget of a stream.
const OLD_GRACE: Duration = Duration::from_secs(600);
