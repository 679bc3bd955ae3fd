//! The dialling side of a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use quinn::{Connection, ConnectionError, TransportErrorCode};
use rustls::AlertDescription;
use tokio::time::timeout;

use super::hello::{HELLO_BYTES, Life, PeerLife};
use super::options::client_config;
use super::pool::Next;
use super::{CLOSE_REFUSED, Shared, accepting};
use crate::transport::{OpenError, Plane};
use paceline_protocol::Subject;

impl Shared {
    /// A connection with `peer`, dialled if there is none.
    pub(super) async fn connection(
        self: &Arc<Self>,
        peer: NodeId,
        plane: Plane,
    ) -> Result<Connection, OpenError> {
        loop {
            if self.is_closed() {
                return Err(OpenError::Closed);
            }
            let next = self.pool().next(self.node, peer, plane);
            let changed = match next {
                Next::Use(connection) => return Ok(connection),
                Next::Unknown => return Err(OpenError::Unknown { peer }),
                Next::Failed(reason) => return Err(OpenError::Unreachable { peer, reason }),
                Next::Wait(changed) => changed,
                Next::Dial(address, changed) => {
                    // A task of its own: whoever waits for it may give up before it is done.
                    tokio::spawn(self.clone().dial((peer, plane), address));
                    changed
                }
            };
            let notified = changed.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            // What happened between the look and the enabling is seen by a second look.
            if matches!(self.pool().next(self.node, peer, plane), Next::Wait(_)) {
                notified.await;
            }
        }
    }

    async fn dial(self: Arc<Self>, way: (NodeId, Plane), address: SocketAddr) {
        let dialled = timeout(DIAL_LIMIT, self.try_dial(way, address)).await;
        match dialled.unwrap_or_else(|_late| Err("it does not answer".to_owned())) {
            Ok((life, connection)) => {
                let (node, plane) = way;
                self.connected(PeerLife { node, life }, plane, &connection, self.node);
                accepting::serve(self, way, connection).await;
            }
            Err(reason) => {
                tracing::debug!(peer = way.0.0, plane = ?way.1, reason, "a dial failed");
                self.pool().failed(way, reason);
            }
        }
    }

    async fn try_dial(
        &self,
        (peer, plane): (NodeId, Plane),
        address: SocketAddr,
    ) -> Result<(Life, Connection), String> {
        let tls = self.credentials.peer_client(plane.protocol().to_vec());
        let config = client_config(tls.map_err(|error| error.to_string())?, plane);
        let cluster = self.credentials.subject().cluster;
        let name = Subject {
            node: peer,
            cluster,
        };
        let connecting = self
            .endpoint
            .connect_with(config, address, &name.to_string());
        let connecting = connecting.map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        match self.hello(&connection).await {
            Ok(life) => Ok((life, connection)),
            Err(reason) => {
                if is_removal(connection.close_reason().as_ref()) {
                    self.credentials.disown();
                }
                connection.close(CLOSE_REFUSED, b"no hello");
                Err(reason)
            }
        }
    }

    /// Says hello, which reaches the acceptor only if it has believed our certificate, and waits
    /// for the same.
    async fn hello(&self, connection: &Connection) -> Result<Life, String> {
        let (mut send, mut receive) = connection
            .open_bi()
            .await
            .map_err(|error| error.to_string())?;
        send.write_all(&self.life.hello())
            .await
            .map_err(|error| error.to_string())?;
        // Finished streams are closed already if the peer has refused them.
        let _ = send.finish();
        let answer = receive.read_to_end(HELLO_BYTES).await;
        let answer = answer.map_err(|error| {
            let reason = connection.close_reason();
            reason.map_or_else(|| error.to_string(), |reason| reason.to_string())
        })?;
        Life::of(&answer).ok_or_else(|| "it speaks another version".to_owned())
    }
}

/// Whether a peer has closed a connection because this node's certificate is that of a node which
/// was removed. The peer is who it should be: its own certificate was verified before it saw ours.
fn is_removal(reason: Option<&ConnectionError>) -> bool {
    let revoked = TransportErrorCode::crypto(AlertDescription::CertificateRevoked.into());
    matches!(reason, Some(ConnectionError::ConnectionClosed(close)) if close.error_code == revoked)
}

/// The longest dial: three lost packets at QUIC's first timeouts.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
