//! Counts what is answered while canaries are under way and, on the leader, acts on it.
//!
//! Owns the machine of [`paceline_core::canary`], which decides. Supervised by the node. Hears its
//! own timer and the end of its writes; speaks to the board, which peers read, and to the registry.
//! When it dies, its successor begins as a new leader does: with what is answered from then on.

use std::time::Duration;

use paceline_core::Machine;
use paceline_core::canary::{Canaries, Effect, Input, under_way};
use paceline_protocol::registry::Change;
use paceline_protocol::{Epoch, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::clock::Clock;
use crate::observed::Observed;
use crate::record::{Records, Share, Stepped};
use crate::registry::{self, fresh_op};
use crate::router;

/// What the actor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// Time to count.
    Tick,
}

impl ractor::Message for Message {}

/// What it needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// This node.
    pub node: NodeId,
    /// The node's clock.
    pub clock: Clock,
    /// What was agreed.
    pub registry: registry::Handle,
    /// Where requests are counted.
    pub router: router::Handle,
    /// What peers have counted.
    pub observed: Observed,
    /// What is kept of its decisions.
    pub records: Records,
}

/// The actor.
pub(crate) struct CanaryActor;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    /// On the leader.
    machine: Option<Stepped<Canaries>>,
    /// The epoch at which there was no canary.
    none_at: Option<Epoch>,
}

impl Actor for CanaryActor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        myself.send_interval(PERIOD, || Message::Tick);
        Ok(State {
            arguments,
            machine: None,
            none_at: None,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick => state.look(),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self) {
        let Arguments {
            node,
            clock,
            registry,
            router,
            observed,
            records,
        } = &self.arguments;
        let reports = router.routes().canary_reports();
        observed.note_canaries(reports);
        let current = registry.current();
        if !registry.is_leader() {
            (self.machine, self.none_at) = (None, None);
            return;
        }
        if self.none_at == Some(current.epoch()) {
            return;
        }
        let canaries = under_way(&current);
        let has_none = matches!(&canaries, Input::UnderWay(canaries) if canaries.is_empty());
        self.none_at = has_none.then(|| current.epoch());
        let now = clock.now();
        let mut effects = Vec::new();
        let machine = self.machine.get_or_insert_with(|| {
            let place = (Share::Canaries, "");
            records.stepped(place, Canaries::default())
        });
        // What is known of a stage that has begun meanwhile was answered before it.
        let heard = observed.canaries(*node).into_iter();
        for (node, report) in heard {
            let heard = Input::Heard { node, report };
            machine.step(now, heard, &mut effects);
        }
        machine.step(now, canaries, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&self, effect: Effect) {
        let change = match effect {
            Effect::Advance {
                model,
                since,
                stage,
            } => Change::AdvanceCanary {
                model,
                since,
                stage,
            },
            Effect::Promote { model, since } => Change::PromoteCanary {
                model,
                since: Some(since),
            },
            Effect::Abort {
                model,
                since,
                reason,
            } => {
                tracing::warn!(%model, %reason, "a canary is aborted");
                Change::AbortCanary {
                    model,
                    since: Some(since),
                    reason: reason.into(),
                }
            }
        };
        let registry = self.arguments.registry.clone();
        tokio::spawn(async move {
            let written = match fresh_op() {
                Ok(op) => registry.write(op, change).await.map(drop),
                Err(failure) => Err(failure),
            };
            // The machine says it again if it is still to be done.
            if let Err(failure) = written {
                tracing::debug!(%failure, "a change of a canary was not committed");
            }
        });
    }
}

/// How old a node's counts may be. A bad version is found a few of these after its last failure
/// that was needed.
const PERIOD: Duration = Duration::from_millis(250);
