//! A connection whose client says hello, is greeted, and opens streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use paceline_protocol::client::{CLIENT_SCHEMA, Greeting, Welcome};
use paceline_protocol::{ErrorCode, Failure};
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frames::{Reading, read_hello};
use super::stream::{self, Shared};
use super::{CLOSE_ANSWERED, CLOSE_MALFORMED, CLOSE_REFUSED, CLOSE_STOPPED, QuicDoors};
use crate::gateway::guests::Counted;
use crate::tenants::Caller;

/// Serves a connection until it is gone, or the node stops and nothing is in flight.
pub(super) async fn serve(doors: Arc<QuicDoors>, connection: Connection) {
    let address = connection.remote_address();
    let greeted = timeout(doors.options.hello_limit, greet(&doors, &connection)).await;
    let (greetings, caller) = match greeted.unwrap_or(Err("no hello in time")) {
        Ok(greeted) => greeted,
        Err(reason) => {
            tracing::debug!(%address, reason, "a client was not let in");
            connection.close(CLOSE_REFUSED, reason.as_bytes());
            return;
        }
    };
    let counted = Counted::new(&doors.metrics.gauges.quic_connections);
    let mut session = Session {
        shared: Arc::new(Shared {
            door: doors.door.clone(),
            connection: connection.clone(),
            caller,
            permits: Arc::new(Semaphore::new(doors.options.in_flight_max as usize)),
            is_owed: AtomicBool::new(false),
            reading: Reading {
                body_bytes_max: doors.options.body_bytes_max,
                stall_limit: doors.options.stall_limit,
                large: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
            },
        }),
        doors,
        greetings,
        streams: JoinSet::new(),
        is_leaving: false,
    };
    let code = session.run().await;
    // First, so that no stream is seen to end before the client knows why.
    connection.close(code, b"");
    session.streams.shutdown().await;
    drop(counted);
}

struct Session {
    shared: Arc<Shared>,
    doors: Arc<QuicDoors>,
    greetings: SendStream,
    streams: JoinSet<stream::Ended>,
    is_leaving: bool,
}

impl Session {
    /// Returns what the connection is closed with.
    async fn run(&mut self) -> VarInt {
        let (mut leaving, mut stopping) = (self.doors.leaving.clone(), self.doors.stopping.clone());
        let mut nodes = self.doors.nodes.clone();
        // A client that comes while the node leaves is told at once.
        leaving.mark_changed();
        nodes.mark_unchanged();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => return self.finish().await,
                Ok(()) = leaving.changed() => {
                    let is_leaving = *leaving.borrow_and_update();
                    let was_leaving = std::mem::replace(&mut self.is_leaving, is_leaving);
                    let greeting = if is_leaving { Greeting::GoAway } else { Greeting::Stay };
                    if is_leaving != was_leaving && !self.say(greeting).await {
                        return CLOSE_MALFORMED;
                    }
                }
                Ok(()) = nodes.changed() => {
                    let named = nodes.borrow_and_update().clone();
                    if !self.say(Greeting::Nodes(named)).await {
                        return CLOSE_MALFORMED;
                    }
                }
                Some(ended) = self.streams.join_next() => {
                    if matches!(ended, Ok(stream::Ended::Malformed)) {
                        return CLOSE_MALFORMED;
                    }
                }
                accepted = self.shared.connection.accept_bi() => {
                    let Ok((send, receive)) = accepted else {
                        return CLOSE_STOPPED;
                    };
                    self.streams.spawn(stream::serve(self.shared.clone(), send, receive));
                }
            }
        }
    }

    /// The node stops: the client is told, and what it has in flight may end.
    async fn finish(&mut self) -> VarInt {
        if !self.say(Greeting::GoAway).await {
            return CLOSE_STOPPED;
        }
        // What arrives before the client has heard of it is served as well.
        let linger = linger(&self.shared.connection);
        tokio::time::sleep(linger).await;
        let permits = &self.shared.permits;
        // From here on, what arrives is refused: what is in flight now is all that there is.
        permits.close();
        let in_flight_max = self.doors.options.in_flight_max as usize;
        let all_ended = async {
            while permits.available_permits() < in_flight_max {
                tokio::time::sleep(LINGER).await;
            }
        };
        let all_ended = timeout(self.doors.options.stop_limit, all_ended).await;
        // The last answers may still be on their way.
        tokio::time::sleep(linger).await;
        let is_owed = self.shared.is_owed.load(Ordering::Acquire);
        match all_ended {
            Ok(()) if !is_owed => CLOSE_ANSWERED,
            _ => CLOSE_STOPPED,
        }
    }

    /// `false` if the client is gone, or does not listen.
    async fn say(&mut self, greeting: Greeting) -> bool {
        let Ok(bytes) = greeting.encode() else {
            // More nodes than a greeting holds: clients go on with those that they know.
            return true;
        };
        let said = self.greetings.write_all(&bytes);
        let said = timeout(self.doors.options.stall_limit, said).await;
        matches!(said, Ok(Ok(())))
    }
}

/// For what is on its way in either direction: two round trips.
fn linger(connection: &Connection) -> Duration {
    (connection.rtt() * 2).clamp(LINGER, LINGER_MAX)
}

async fn greet(
    doors: &QuicDoors,
    connection: &Connection,
) -> Result<(SendStream, Caller), &'static str> {
    let (mut send, mut receive) = connection
        .accept_bi()
        .await
        .map_err(|_gone| "it went away")?;
    let hello = read_hello(&mut receive).await.map_err(|_| "not a hello")?;
    let admitted = if hello.schema == CLIENT_SCHEMA {
        doors.door.admit(&hello)
    } else {
        let message = "the client speaks another version of the protocol than this node";
        Err(Failure::new(ErrorCode::Unsupported, message))
    };
    let greeting = match &admitted {
        Err(failure) => Greeting::Refused(failure.clone()),
        Ok(_) => Greeting::Welcome(Welcome {
            schema: CLIENT_SCHEMA,
            cluster: doors.cluster,
            node: doors.node,
            epoch: doors.door.epoch(),
            nodes: doors.nodes.borrow().clone(),
            in_flight_max: doors.options.in_flight_max,
            body_bytes_max: doors.options.body_bytes_max as u64,
        }),
    };
    let bytes = greeting
        .encode()
        .map_err(|_| "the greeting is too long to be sent")?;
    let said = send.write_all(&bytes).await;
    said.map_err(|_gone| "it went away")?;
    let Ok(caller) = admitted else {
        // The client reads why before the connection is closed under it.
        let _ = send.finish();
        drop(send.stopped().await);
        return Err("it was refused");
    };
    Ok((send, caller))
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A node that is gone has stopped.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Requests over 1 MiB of one connection that are in memory at a time.
const LARGE_BODIES_MAX: usize = 8;
/// For the last packets of answers, acknowledgements included.
const LINGER: Duration = Duration::from_millis(20);
/// Around the world and back.
const LINGER_MAX: Duration = Duration::from_millis(600);
