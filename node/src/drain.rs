//! Lets this node leave without losing a request.
//!
//! Owns nothing that lasts. Supervised by the node. Hears that the registry has changed, and its
//! own timer; speaks to the doors' readiness and to the registry. When it dies, its successor
//! reads from the registry how far the drain is.
//!
//! From the drain's entry on, routers everywhere prefer other replicas, the node is no longer
//! ready, and clients are told to go elsewhere; what still comes is served. Its replicas go one
//! after another, each once a replacement is ready: whoever still sends to one is told that it
//! is gone, unexecuted, and sends it elsewhere. When the last has gone and nothing runs, the
//! node is drained.

use std::time::Duration;

use paceline_core::registry::{NodeState, Registry};
use paceline_protocol::registry::Change;
use paceline_protocol::{Epoch, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::device;
use crate::gateway::Readiness;
use crate::registry::{self, fresh_op};

/// What the actor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry has changed, or time has passed: look again.
    Look,
    /// The end of the drain was written, or not.
    Written,
}

impl ractor::Message for Message {}

/// What the actor needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// This node.
    pub node: NodeId,
    /// What was agreed.
    pub registry: registry::Handle,
    /// What the doors say.
    pub readiness: Readiness,
    /// What runs here.
    pub device: device::Handle,
}

/// The actor.
pub(crate) struct Drain;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    is_writing: bool,
}

impl Actor for Drain {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        arguments.registry.tell(&myself, || Message::Look);
        myself.send_interval(LOOK_EVERY, || Message::Look);
        Ok(State {
            arguments,
            is_writing: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look => state.look(&myself),
            Message::Written => state.is_writing = false,
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Message>) {
        let registry = self.arguments.registry.current();
        let state = registry.node_state(self.arguments.node);
        let leaves = matches!(state, Some(NodeState::Draining { .. } | NodeState::Drained));
        self.arguments.readiness.leave(leaves);
        if let Some(NodeState::Draining { since }) = state
            && !self.is_writing
            && self.is_empty(&registry)
        {
            self.write(myself, since);
        }
    }

    /// Whether nothing of the cluster's work is left here.
    fn is_empty(&self, registry: &Registry) -> bool {
        let mut replicas = registry.replicas().values();
        let has_replica = replicas.any(|assignment| assignment.node == self.arguments.node);
        !has_replica && self.arguments.device.occupancy() == (0, 0)
    }

    fn write(&mut self, myself: &ActorRef<Message>, since: Epoch) {
        self.is_writing = true;
        let (registry, myself) = (self.arguments.registry.clone(), myself.clone());
        let node = self.arguments.node;
        tokio::spawn(async move {
            if let Ok(op) = fresh_op() {
                let written = registry.write(op, Change::Drained { node, since }).await;
                if let Err(failure) = written {
                    tracing::debug!(%failure, "the end of the drain was not written yet");
                }
            }
            // An actor that died meanwhile has a successor, which looks for itself.
            let _ = myself.cast(Message::Written);
        });
    }
}

/// A drain has no moment of its own at which the last batch ends.
const LOOK_EVERY: Duration = Duration::from_millis(200);
