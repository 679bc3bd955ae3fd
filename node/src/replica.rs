//! One loaded copy of a version: fetched, loaded, warmed up, attached, and loaded again when
//! its engine dies or answers a known row otherwise than before.
//!
//! Supervised by the [`crate::worker`] of its device. Hears the end of its loading, the death
//! of its engine and what its canary found; speaks to the device and the board of observations.
//! Loading and canaries run off the serving path. It gives up as its [`RestartBudget`] says and then reports *failed*. When
//! it stops or dies, its attachment goes with it: what waits is told that the replica is gone.

mod loading;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use paceline_core::Machine;
use paceline_core::placement::ReplicaState;
use paceline_core::restart::{Effect, Input, Restart, RestartBudget};
use paceline_models::{Canary, CanaryError, Engine, LoadedModel, RunError, WarmUp};
use paceline_protocol::{Digest, ModelName, ReplicaId, VersionNumber};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::Instrument;

use crate::artifacts::{Artifacts, Fetcher};
use crate::clock::Clock;
use crate::device::{self, Attachment, Suspects};
use crate::observed::{Observation, Observed};
use crate::record::{Records, Share, Stepped};
use crate::registry;

/// What the replica hears.
pub(crate) enum Message {
    /// Its loading has ended.
    Loaded(Result<Ready, String>),
    /// Its engine died: panicked, or ended with its process.
    Died(Life, String),
    /// Time to ask a known row.
    AskCanary,
    /// What came of that.
    Asked(Life, Result<(), CanaryError>),
    /// The wait before the next attempt may be over.
    Due,
}

impl ractor::Message for Message {}

/// A model that has been loaded and warmed up.
pub(crate) struct Ready {
    model: Arc<dyn LoadedModel>,
    warm_up: WarmUp,
    canary: Canary,
}

/// Which of its engines, counted: what is told of one that has gone concerns nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life(u64);

/// What the replica needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// Its identity.
    pub id: ReplicaId,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionNumber,
    /// The version's artifact.
    pub digest: Digest,
    /// What it answered where it was pushed.
    pub golden: Vec<u16>,
    /// The device that it is on.
    pub device: device::Handle,
    /// What loads it.
    pub engine: Arc<dyn Engine>,
    /// Where its artifact is.
    pub artifacts: Artifacts,
    /// Where it is fetched from, if it is not here.
    pub fetcher: Fetcher,
    /// Who may have it.
    pub registry: registry::Handle,
    /// Where it reports.
    pub observed: Observed,
    /// For deadlines of restarts.
    pub clock: Clock,
    /// Where what was decided is kept.
    pub records: Records,
    /// How often its canary is asked.
    pub canary_every: Duration,
}

/// The actor.
pub(crate) struct Replica;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    restart: Stepped<Restart>,
    serving: Option<Serving>,
    life: Life,
    /// What the version answered when it was first loaded here: engines after that must, too.
    canary: Option<Canary>,
    suspects: Arc<Suspects>,
    /// Whose canary is being asked. An engine that hangs is asked once, not every time anew.
    asking: Option<Life>,
}

/// A replica that takes requests.
struct Serving {
    model: Arc<dyn LoadedModel>,
    /// Takes it off the device when it is dropped.
    _attachment: Attachment,
}

impl Actor for Replica {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (id, budget) = (arguments.id.0, budget());
        let restart = Restart::new(budget, id);
        let name = format!("replica {id}");
        let state = State {
            restart: arguments.records.stepped((Share::Restart, &name), restart),
            serving: None,
            life: Life::default(),
            canary: None,
            suspects: Arc::default(),
            asking: None,
            arguments,
        };
        myself.send_interval(state.arguments.canary_every, || Message::AskCanary);
        state.load(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Loaded(Ok(ready)) => state.attach(&myself, ready),
            Message::Loaded(Err(reason)) => state.failed(&myself, reason),
            Message::Died(life, reason) => state.died(&myself, life, &reason),
            Message::AskCanary => state.ask_canary(&myself),
            Message::Asked(life, found) => state.asked(&myself, life, found),
            Message::Due => state.due(&myself),
        }
        Ok(())
    }
}

impl State {
    fn load(&self, myself: &ActorRef<Message>) {
        self.note(ReplicaState::Loading);
        let (arguments, canary) = (self.arguments.clone(), self.canary.clone());
        let myself = myself.clone();
        let span = tracing::info_span!(
            "replica",
            replica = arguments.id.0,
            model = %arguments.model,
            version = arguments.version.0
        );
        let loading = async move {
            let result = arguments.fetch_and_load(canary).await;
            // A replica that was taken away meanwhile needs no model.
            let _ = myself.cast(Message::Loaded(result));
        };
        tokio::spawn(loading.instrument(span));
    }

    fn attach(&mut self, myself: &ActorRef<Message>, ready: Ready) {
        let Ready {
            model,
            warm_up,
            canary,
        } = ready;
        self.life.0 += 1;
        let life = self.life;
        self.canary.get_or_insert(canary);
        let options = device::options(&*model, &warm_up);
        let row_nanos = warm_up.full_batch_ns / u64::from(warm_up.rows.max(1));
        let memory_bytes = model
            .bytes()
            .total_bytes(self.arguments.engine.device().threads);
        let myself = myself.clone();
        let tell = move |reason| {
            // A replica that was taken away meanwhile mourns nobody.
            let _ = myself.cast(Message::Died(life, reason));
        };
        let Arguments {
            device,
            model: name,
            version,
            ..
        } = &self.arguments;
        model.on_death(Box::new(tell.clone()));
        let attachment = device.attach(device::Loaded {
            replica: self.arguments.id,
            model: model.clone(),
            statistics: device.statistics(name.as_str(), *version),
            options,
            suspects: self.suspects.clone(),
            on_death: Arc::new(tell),
        });
        let batcher = Some(attachment.batcher());
        self.serving = Some(Serving {
            model,
            _attachment: attachment,
        });
        let Arguments {
            id, model, version, ..
        } = &self.arguments;
        tracing::info!(replica = id.0, %model, version = version.0, row_nanos, "ready");
        let state = ReplicaState::Ready;
        self.arguments.observed.note(
            *id,
            Observation {
                state,
                batcher,
                row_nanos,
                memory_bytes,
            },
        );
    }

    /// Several batches may tell of one death, and the process too.
    fn died(&mut self, myself: &ActorRef<Message>, life: Life, reason: &str) {
        if life != self.life || self.serving.take().is_none() {
            return;
        }
        self.arguments.device.metrics().died();
        self.failed(myself, format!("the engine died: {reason}"));
    }

    /// Beside the batches that run: it waits for none of them, and they hardly for it.
    fn ask_canary(&mut self, myself: &ActorRef<Message>) {
        let (Some(serving), Some(canary)) = (&self.serving, self.canary.clone()) else {
            return;
        };
        let (model, myself, life) = (serving.model.clone(), myself.clone(), self.life);
        if self.asking == Some(life) {
            return;
        }
        self.asking = Some(life);
        self.arguments.artifacts.threads().blocking(move || {
            let asked = catch_unwind(AssertUnwindSafe(|| canary.check(&*model)));
            let message = match asked {
                Ok(found) => Message::Asked(life, found),
                Err(_) => Message::Died(life, "it panicked on its canary".to_owned()),
            };
            // A replica that was taken away meanwhile is asked nothing.
            let _ = myself.cast(message);
        });
    }

    fn asked(&mut self, myself: &ActorRef<Message>, life: Life, found: Result<(), CanaryError>) {
        self.asking.take_if(|asking| *asking == life);
        let Err(error) = found else { return };
        if life != self.life || self.serving.is_none() {
            return;
        }
        if let CanaryError::Run(RunError::Gone | RunError::Died { .. }) = error {
            return self.died(myself, life, &error.to_string());
        }
        self.serving = None;
        self.arguments.device.metrics().canary_failed();
        self.failed(myself, error.to_string());
    }

    fn failed(&mut self, myself: &ActorRef<Message>, reason: String) {
        let now = self.arguments.clock.now();
        let Arguments {
            id, model, version, ..
        } = &self.arguments;
        tracing::error!(replica = id.0, %model, version = version.0, reason, "failed");
        let mut effects = Vec::new();
        self.restart.step(now, Input::Failed, &mut effects);
        let is_given_up = |effect: &Effect| matches!(effect, Effect::GiveUp { .. });
        self.note(match effects.iter().any(is_given_up) {
            true => ReplicaState::GivenUp { reason },
            false => ReplicaState::Failed { reason },
        });
        for effect in effects {
            match effect {
                Effect::Wait { until } => {
                    myself.send_after(until.since(now), || Message::Due);
                }
                Effect::GiveUp { failures } => {
                    tracing::error!(replica = self.arguments.id.0, failures, "given up");
                }
                Effect::Restart => unreachable!("a failure never restarts at once"),
            }
        }
    }

    fn due(&mut self, myself: &ActorRef<Message>) {
        let mut effects = Vec::new();
        self.restart.wake(self.arguments.clock.now(), &mut effects);
        if effects.contains(&Effect::Restart) {
            self.load(myself);
        }
    }

    fn note(&self, state: ReplicaState) {
        let observation = Observation {
            state,
            ..Observation::default()
        };
        self.arguments.observed.note(self.arguments.id, observation);
    }
}

/// An engine that has died is back before those who share it are told: the first wait is short.
fn budget() -> RestartBudget {
    RestartBudget {
        backoff_min: Duration::from_millis(100),
        ..RestartBudget::default()
    }
}
