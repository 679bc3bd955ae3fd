//! Starts children again when they fail, as their [`RestartBudget`] allows.
//!
//! Owns an ordered list of children, each with its own budget; hears of their ends from ractor
//! and of due restarts from its timer; speaks to nobody but the health board. Supervised by
//! the node, or by another supervisor. A child that is given up leaves the node degraded, and
//! the rest goes on. When the supervisor itself dies, its children stop with it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::Machine;
use paceline_core::restart::{Effect, Input, Restart, RestartBudget};
use ractor::{
    Actor, ActorCell, ActorProcessingErr, ActorRef, Message as ActorMessage, SupervisionEvent,
};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::record::{Records, Share, Stepped};

/// Starts one child under the given supervisor.
pub(crate) type Spawn = Arc<
    dyn Fn(ActorCell) -> Pin<Box<dyn Future<Output = Result<ActorCell, String>> + Send>>
        + Send
        + Sync,
>;

/// A child as its supervisor knows it.
#[derive(Clone)]
pub(crate) struct Child {
    /// For logs and the health board.
    pub name: String,
    /// How patient the supervisor is with it.
    pub budget: RestartBudget,
    /// How it is started.
    pub spawn: Spawn,
}

/// What a supervisor needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// In the order in which they are started; they are stopped in the reverse order.
    pub children: Vec<Child>,
    /// Where lost children are written.
    pub health: Health,
    /// For deadlines of restarts.
    pub clock: Clock,
    /// Decides the jitter of restarts.
    pub seed: u64,
    /// Where what was decided is kept.
    pub records: Records,
}

/// What a supervisor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// A child's wait may be over.
    Due(usize),
    /// Stop all children, in the reverse order of their start.
    StopChildren(ractor::RpcReplyPort<()>),
}

impl ActorMessage for Message {}

/// The actor.
pub(crate) struct Supervisor;

/// Its state.
pub(crate) struct State {
    children: Vec<Supervised>,
    arguments: Arguments,
}

struct Supervised {
    child: Child,
    restart: Stepped<Restart>,
    cell: Option<ActorCell>,
}

/// Parts of the node that have been given up, each with its reason. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health {
    degraded: Arc<Mutex<Vec<String>>>,
}

impl Health {
    /// Notes that a part is lost.
    pub fn degrade(&self, what: String) {
        self.degraded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    /// All parts that are lost; empty when all is well.
    pub fn degraded(&self) -> Vec<String> {
        self.degraded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Child {
    /// A child that is an actor started with a clone of `arguments`.
    pub(crate) fn new<A>(name: &str, actor: fn() -> A, arguments: A::Arguments) -> Self
    where
        A: Actor,
        A::Arguments: Clone + Send + Sync + 'static,
    {
        let spawn: Spawn = Arc::new(move |supervisor: ActorCell| {
            let arguments = arguments.clone();
            Box::pin(async move {
                let spawned = Actor::spawn_linked(None, actor(), arguments, supervisor).await;
                spawned
                    .map(|(actor, _)| actor.get_cell())
                    .map_err(|error| error.to_string())
            })
        });
        Self {
            name: name.to_owned(),
            budget: RestartBudget::default(),
            spawn,
        }
    }
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let mut children = Vec::new();
        for (position, child) in arguments.children.iter().enumerate() {
            let cell = (child.spawn)(myself.get_cell()).await.map_err(|error| {
                ActorProcessingErr::from(format!("{} does not start: {error}", child.name))
            })?;
            let restart = Restart::new(child.budget, arguments.seed ^ position as u64);
            children.push(Supervised {
                child: child.clone(),
                restart: arguments
                    .records
                    .stepped((Share::Restart, &child.name), restart),
                cell: Some(cell),
            });
        }
        Ok(State {
            children,
            arguments,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Due(position) => state.restart_due(&myself, position).await,
            Message::StopChildren(reply) => {
                state.stop_children().await;
                // The asker may have given up waiting.
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                state.failed(&myself, &cell, &error.to_string());
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let reason = reason.unwrap_or_else(|| "it stopped unasked".to_owned());
                state.failed(&myself, &cell, &reason);
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => {}
        }
        Ok(())
    }
}

impl State {
    fn failed(&mut self, myself: &ActorRef<Message>, cell: &ActorCell, reason: &str) {
        let id = cell.get_id();
        let is_it = |s: &Supervised| s.cell.as_ref().is_some_and(|known| known.get_id() == id);
        // A child that was stopped on purpose has been forgotten before.
        let Some(position) = self.children.iter().position(is_it) else {
            return;
        };
        self.children[position].cell = None;
        self.fail(myself, position, reason);
    }

    fn fail(&mut self, myself: &ActorRef<Message>, position: usize, reason: &str) {
        let now = self.arguments.clock.now();
        let supervised = &mut self.children[position];
        let name = &supervised.child.name;
        let mut effects = Vec::new();
        supervised.restart.step(now, Input::Failed, &mut effects);
        for effect in effects {
            match effect {
                Effect::Wait { until } => {
                    let wait = until.since(now);
                    tracing::warn!(child = %name, reason, ?wait, "a part failed; it is started again");
                    myself.send_after(wait, move || Message::Due(position));
                }
                Effect::GiveUp { failures } => {
                    tracing::error!(child = %name, reason, failures, "a part failed too often and is given up");
                    self.arguments.health.degrade(format!("{name}: {reason}"));
                }
                Effect::Restart => unreachable!("a failure never restarts at once"),
            }
        }
    }

    async fn restart_due(&mut self, myself: &ActorRef<Message>, position: usize) {
        let now = self.arguments.clock.now();
        let mut effects = Vec::new();
        self.children[position].restart.wake(now, &mut effects);
        if !effects.contains(&Effect::Restart) {
            return;
        }
        let spawn = self.children[position].child.spawn.clone();
        match spawn(myself.get_cell()).await {
            Ok(cell) => self.children[position].cell = Some(cell),
            Err(error) => self.fail(myself, position, &error),
        }
    }

    async fn stop_children(&mut self) {
        for supervised in self.children.iter_mut().rev() {
            if let Some(cell) = supervised.cell.take() {
                let name = &supervised.child.name;
                if cell.stop_and_wait(None, Some(STOP_LIMIT)).await.is_err() {
                    tracing::warn!(child = %name, "a part did not stop in time");
                    cell.kill();
                }
            }
        }
    }
}

/// Sends `message` to `actor` after each change of `watched`, until either is gone. Only the
/// control plane changes such values, a few times a second at most, so mailboxes stay short.
pub(crate) fn notify<T, M>(
    mut watched: watch::Receiver<T>,
    actor: ActorRef<M>,
    message: impl Fn() -> M + Send + 'static,
) where
    T: Send + Sync + 'static,
    M: ActorMessage,
{
    tokio::spawn(async move {
        while watched.changed().await.is_ok() {
            if actor.cast(message()).is_err() {
                return;
            }
        }
    });
}

/// How long a child may take to stop before it is ended.
const STOP_LIMIT: std::time::Duration = std::time::Duration::from_secs(3);
