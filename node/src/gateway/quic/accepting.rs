//! Who knocks, and which protocol they speak.

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::client::{CLIENT_PROTOCOL, JOIN_PROTOCOL};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{CLOSE_REFUSED, CLOSE_STOPPED, QuicDoors, session};

/// Accepts connections until its task ends, or until the node stops: then it lets nobody in any
/// more, gives what is in flight its time, and closes the endpoint. If the task is ended early,
/// open connections go on, and a successor may accept from the same endpoint. It has ended once
/// clients were told that the node is gone.
pub async fn accept(endpoint: Endpoint, doors: Arc<QuicDoors>) {
    let _inside = doors.guests.enter();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut stopping = doors.stopping.clone();
    let stop = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    let mut stop = std::pin::pin!(stop);
    loop {
        let incoming = tokio::select! {
            biased;
            () = &mut stop => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            return;
        };
        let Ok(place) = doors.places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        match handshakes.clone().try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(handshake(doors.clone(), incoming, (place, permit)));
            }
            // Under a flood of handshakes, those that have not proved their address are told to,
            // which costs us nothing to remember.
            Err(_) if incoming.may_retry() => drop(incoming.retry()),
            Err(_) => incoming.refuse(),
        }
    }
    endpoint.set_server_config(None);
    let everybody = doors.places.acquire_many(doors.options.connections_max);
    drop(timeout(doors.options.stop_limit, everybody).await);
    endpoint.close(CLOSE_STOPPED, b"the node stops");
    drop(timeout(GOODBYE_LIMIT, endpoint.wait_idle()).await);
}

async fn handshake(
    doors: Arc<QuicDoors>,
    incoming: Incoming,
    (place, permit): (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    let address = incoming.remote_address();
    let shaken = timeout(doors.options.handshake_limit, async {
        incoming.accept()?.await
    });
    let connection = match shaken.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "a client was not let in");
            return;
        }
        Err(_late) => {
            tracing::debug!(%address, "a client did not finish its handshake");
            return;
        }
    };
    drop(permit);
    match (protocol(&connection).as_deref(), &doors.join) {
        (Some(CLIENT_PROTOCOL), _) => session::serve(doors, connection).await,
        (Some(JOIN_PROTOCOL), Some(join)) => join(connection).await,
        _ => connection.close(CLOSE_REFUSED, b"not spoken here"),
    }
    drop(place);
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?;
    data.downcast::<HandshakeData>().ok()?.protocol
}

/// Handshakes at a time.
const HANDSHAKES_MAX: usize = 64;
/// For the last packets to leave the socket: a turn of each connection's task.
const GOODBYE_LIMIT: Duration = Duration::from_millis(100);
