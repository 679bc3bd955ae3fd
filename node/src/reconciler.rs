//! Brings what is towards what shall be: one committed change after another.
//!
//! Owns nothing but the knowledge that a write is under way. Supervised by the node. Hears
//! that the registry or what is observed has changed; speaks to the registry. It acts on the
//! leader only, and [`paceline_core::placement`] decides. When it dies, its successor looks at
//! the same state and goes on.

use std::time::Duration;

use paceline_core::placement::{self, Shortfall};
use paceline_protocol::Failure;
use paceline_protocol::registry::Change;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::observed::Observed;
use crate::registry::{self, fresh_op};

/// What the reconciler hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry or what is observed has changed.
    Changed,
    /// The write that was under way has ended.
    Written(Result<(), Failure>),
}

impl ractor::Message for Message {}

/// What the reconciler needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// What shall be.
    pub registry: registry::Handle,
    /// What is.
    pub observed: Observed,
}

/// The actor.
pub(crate) struct Reconciler;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    writing: bool,
    shortfalls: Vec<Shortfall>,
}

impl Actor for Reconciler {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        arguments.registry.tell(&myself, || Message::Changed);
        arguments.observed.tell(&myself, || Message::Changed);
        myself.cast(Message::Changed)?;
        Ok(State {
            arguments,
            writing: false,
            shortfalls: Vec::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Changed => state.advance(&myself),
            Message::Written(result) => state.written(&myself, result),
        }
        Ok(())
    }
}

impl State {
    fn advance(&mut self, myself: &ActorRef<Message>) {
        let registry = self.arguments.registry.current();
        if self.writing || !self.arguments.registry.is_leader() {
            return;
        }
        let plan = placement::plan(&registry, &self.arguments.observed.states());
        self.report(plan.shortfalls);
        if let Some(change) = plan.next {
            self.write(myself, change);
        }
    }

    fn write(&mut self, myself: &ActorRef<Message>, change: Change) {
        self.writing = true;
        let registry = self.arguments.registry.clone();
        let myself = myself.clone();
        tokio::spawn(async move {
            let result = match fresh_op() {
                Ok(op) => registry.write(op, change).await.map(drop),
                Err(failure) => Err(failure),
            };
            // A reconciler that died meanwhile has a successor, which looks for itself.
            let _ = myself.cast(Message::Written(result));
        });
    }

    fn written(&mut self, myself: &ActorRef<Message>, result: Result<(), Failure>) {
        self.writing = false;
        match result {
            Ok(()) => self.advance(myself),
            // Also what was outdated is simply decided anew, after a moment.
            Err(failure) => {
                tracing::debug!(%failure, "a change was not committed; it is decided anew");
                myself.send_after(RETRY_AFTER, || Message::Changed);
            }
        }
    }

    /// Says once what does not fit, and again when it changes.
    fn report(&mut self, shortfalls: Vec<Shortfall>) {
        if shortfalls != self.shortfalls {
            for shortfall in &shortfalls {
                tracing::warn!(
                    model = %shortfall.model,
                    needed_bytes = shortfall.needed_bytes,
                    largest_free_bytes = shortfall.largest_free_bytes,
                    "no device has room for a replica"
                );
            }
            self.shortfalls = shortfalls;
        }
    }
}

/// Pause after a write that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
