//! What the outside speaks to: inference over HTTP and gRPC, the operator API, and metrics.
//!
//! Owns the listeners' accept loops. Supervised by the node; hears nothing; speaks to the
//! request path and the operator API. When it dies, open connections go on, its successor
//! accepts new ones from the same listeners, and no port is given up in between.

mod bodies;
mod body;
mod coding;
mod front;
mod grpc;
mod guests;
pub mod infer;
mod inflate;
pub mod models;
pub mod oip;
mod operator;
mod pace;
mod path;
pub mod predict;
pub mod quic;
mod sender;
mod server;
mod settings;
pub mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paceline_protocol::Epoch;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

pub use self::bodies::Bodies;
pub use self::front::{Door, Front, Listener, MemoryFront};
pub use self::grpc::{CallParts, Calls};
pub use self::guests::Guests;
pub use self::infer::{Copies, PeerDoor, Serving};
pub use self::models::Models;
pub use self::operator::{Operator, OperatorParts};
pub use self::server::HttpOptions;
use crate::observer::OwnFacts;
use crate::supervisor::Health;
use crate::telemetry::metrics::Metrics;
use crate::tending::tend;
use crate::tls::TlsDoor;

/// What the gateway needs to start.
#[derive(Clone)]
pub struct Arguments {
    /// Where clients come in.
    pub listeners: Listeners,
    /// What every connection needs.
    pub doors: Arc<Doors>,
    /// Where a door that is lost is written.
    pub health: Health,
}

/// Where clients come in over TCP.
#[derive(Clone)]
pub struct Listeners {
    /// HTTP inference and operator API.
    pub http: Listener,
    /// gRPC inference.
    pub grpc: Listener,
    /// Prometheus.
    pub metrics: Listener,
}

/// What every connection needs.
pub struct Doors {
    /// The request path.
    pub serving: Serving,
    /// What there is to tell of models.
    pub models: Models,
    /// The operator API.
    pub operator: axum::Router,
    /// What only gRPC needs.
    pub calls: Calls,
    /// What Prometheus reads.
    pub metrics: Metrics,
    /// Limits.
    pub options: HttpOptions,
    /// What bodies may take.
    pub bodies: Bodies,
    /// What HTTP is wrapped in, if it is.
    pub tls: Option<TlsDoor>,
    /// Whether the node is ready for traffic.
    pub readiness: Readiness,
    /// Turns true when connections shall end.
    pub stopping: watch::Receiver<bool>,
    /// Where open connections are counted.
    pub guests: Guests,
}

/// Whether a node is ready: it has been caught up once, and is not leaving. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    leaving: watch::Sender<bool>,
    facts: watch::Sender<OwnFacts>,
}

/// The actor.
pub struct Gateway;

/// Accept loops that end with the actor.
pub struct State {
    loops: Vec<tokio::task::JoinHandle<()>>,
}

/// The gateway hears nothing.
#[derive(Debug)]
pub enum Message {}

impl ractor::Message for Message {}

impl Readiness {
    /// Whether the node is ready.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.is_leaving()
    }

    /// Whether clients shall go elsewhere.
    pub fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Whether the node leaves: its doors ask clients to go elsewhere.
    pub fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Says that clients shall go elsewhere since the drain of this epoch, or may stay: a node
    /// that leaves is not ready, and goes on serving what still comes.
    pub fn leave(&self, since: Option<Epoch>) {
        self.leaving.send_replace(since.is_some());
        self.facts.send_modify(|facts| facts.draining = since);
        self.tell();
    }

    /// What other nodes are told of it.
    pub fn facts(&self) -> watch::Receiver<OwnFacts> {
        self.facts.subscribe()
    }

    fn tell(&self) {
        let ready = self.is_ready();
        self.facts.send_modify(|facts| facts.ready = ready);
    }

    /// Says whether it is.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        self.tell();
    }
}

/// What HTTP offers under TLS (ALPN), the better first.
pub(crate) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

impl Actor for Gateway {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let Arguments {
            listeners,
            doors,
            health,
        } = arguments;
        let accept = |name, listener: &Listener, door| {
            let listener = Arc::new(listener.accepting()?);
            let (doors, health) = (doors.clone(), health.clone());
            let start = move || server::accept(listener.clone(), doors.clone(), door);
            Ok::<_, std::io::Error>(tokio::spawn(tend(name, (health, 0), start)))
        };
        let loops = vec![
            accept("HTTP door", &listeners.http, Door::Http)?,
            accept("gRPC door", &listeners.grpc, Door::Grpc)?,
            accept("metrics door", &listeners.metrics, Door::Metrics)?,
        ];
        Ok(State { loops })
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Message>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.loops.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
