//! Lets this node leave without losing a request.
//!
//! Owns the [`paceline_core::drain`] machine. Supervised by the node. Hears that the registry
//! has changed, and its own timers; speaks to the doors, the device and the registry. When it
//! dies, its successor reads from the registry how far the drain is, and counts its deadline
//! anew.
//!
//! From the drain's entry on, routers everywhere prefer other replicas, the node is no longer
//! ready, HTTP connections end after their next answer, and SDK clients are told to go
//! elsewhere; what still comes is served. Its replicas go one after another, each once a
//! replacement is ready: whoever still sends to one is told that it is gone, unexecuted, and
//! sends it elsewhere.

use std::time::Duration;

use paceline_core::Machine;
use paceline_core::drain::{self, Effect, Input, Options};
use paceline_core::registry::Registry;
use paceline_protocol::registry::Change;
use paceline_protocol::{Epoch, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::clock::Clock;
use crate::device;
use crate::gateway::Readiness;
use crate::record::{Records, Share, Stepped};
use crate::registry::{self, fresh_op};

/// What the actor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry has changed, or time has passed: look again.
    Look,
    /// What the machine waits for may be due.
    Due,
    /// The end of the drain was not written.
    WriteFailed,
}

impl ractor::Message for Message {}

/// What the actor needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// This node.
    pub node: NodeId,
    /// For the deadline.
    pub clock: Clock,
    /// What was agreed.
    pub registry: registry::Handle,
    /// What the doors say.
    pub readiness: Readiness,
    /// What runs here.
    pub device: device::Handle,
    /// Where what was decided is kept.
    pub records: Records,
}

/// The actor.
pub(crate) struct Drain;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    machine: Stepped<drain::Drain>,
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
        let machine = drain::Drain::new(Options::default());
        let mut state = State {
            machine: arguments.records.stepped((Share::Watcher, ""), machine),
            arguments,
        };
        // A drained node that starts says so before it is asked.
        state.look(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look => state.look(&myself),
            Message::Due => {
                let now = state.arguments.clock.now();
                let mut effects = Vec::new();
                state.machine.wake(now, &mut effects);
                state.perform(&myself, effects);
            }
            Message::WriteFailed => state.step(&myself, Input::WriteFailed),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Message>) {
        let registry = self.arguments.registry.current();
        if let Some(state) = registry.node_state(self.arguments.node) {
            self.step(myself, Input::Applied(state));
        }
        if self.machine.look(drain::Drain::since).is_some() {
            let left = self.left(&registry);
            self.step(myself, left);
        }
    }

    /// What of the cluster's work is left here.
    fn left(&self, registry: &Registry) -> Input {
        let replicas = registry.replicas().values();
        let here = replicas.filter(|assignment| assignment.node == self.arguments.node);
        let (running, queued_rows) = self.arguments.device.occupancy();
        Input::Left {
            replicas: here.count(),
            work: u64::from(running) + queued_rows,
        }
    }

    fn step(&mut self, myself: &ActorRef<Message>, input: Input) {
        let now = self.arguments.clock.now();
        let (before, mut effects) = (self.machine.next_wakeup(), Vec::new());
        self.machine.step(now, input, &mut effects);
        self.perform(myself, effects);
        let due = self.machine.next_wakeup();
        if let Some(due) = due.filter(|_| due != before) {
            myself.send_after(due.since(now), || Message::Due);
        }
    }

    fn perform(&self, myself: &ActorRef<Message>, effects: Vec<Effect>) {
        let Arguments {
            readiness, device, ..
        } = &self.arguments;
        for effect in effects {
            tracing::info!(?effect, "the node drains");
            match effect {
                Effect::Leave { since } => readiness.leave(Some(since)),
                Effect::Close => device.close(),
                Effect::Return => {
                    device.open();
                    readiness.leave(None);
                }
                Effect::WriteDrained { since } => self.write(myself, since),
            }
        }
    }

    fn write(&self, myself: &ActorRef<Message>, since: Epoch) {
        let (registry, myself) = (self.arguments.registry.clone(), myself.clone());
        let node = self.arguments.node;
        tokio::spawn(async move {
            let written = match fresh_op() {
                Ok(op) => registry.write(op, Change::Drained { node, since }).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = written {
                tracing::debug!(%failure, "the end of the drain was not written yet");
                // An actor that died meanwhile has a successor, which looks for itself.
                let _ = myself.cast(Message::WriteFailed);
            }
        });
    }
}

/// A drain has no moment of its own at which the last batch ends.
const LOOK_EVERY: Duration = Duration::from_millis(200);
