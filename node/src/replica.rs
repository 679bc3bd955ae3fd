//! One loaded copy of a version: fetched, loaded, warmed up, attached, and loaded again when
//! its engine panics.
//!
//! Supervised by the [`crate::worker`] of its device. Hears the end of its loading and the
//! panics of its engine; speaks to the device and the board of observations. Loading runs off
//! the serving path. It gives up as its [`RestartBudget`] says and then reports *failed*. When
//! it stops or dies, its attachment goes with it: what waits is told that the replica is gone.

use std::sync::Arc;
use std::time::Duration;

use paceline_core::Machine;
use paceline_core::copies::sources;
use paceline_core::placement::ReplicaState;
use paceline_core::restart::{Effect, Input, Restart, RestartBudget};
use paceline_models::{Engine, LoadedModel, WarmUp};
use paceline_protocol::{Digest, ModelName, NodeId, ReplicaId, VersionNumber};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::Instrument;

use crate::artifacts::{Artifacts, Fetcher};
use crate::clock::Clock;
use crate::device::{self, Attachment};
use crate::observed::{Observation, Observed};
use crate::record::{Records, Share, Stepped};
use crate::registry;

/// What the replica hears.
pub(crate) enum Message {
    /// Its loading has ended.
    Loaded(Result<Ready, String>),
    /// Its engine panicked.
    Panicked(String),
    /// The wait before the next attempt may be over.
    Due,
}

impl ractor::Message for Message {}

/// A model that has been loaded and warmed up.
pub(crate) struct Ready {
    model: Arc<dyn LoadedModel>,
    warm_up: WarmUp,
}

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
}

/// The actor.
pub(crate) struct Replica;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    restart: Stepped<Restart>,
    attachment: Option<Attachment>,
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
        let (id, budget) = (arguments.id.0, RestartBudget::default());
        let restart = Restart::new(budget, id);
        let name = format!("replica {id}");
        let state = State {
            restart: arguments.records.stepped((Share::Restart, &name), restart),
            arguments,
            attachment: None,
        };
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
            Message::Panicked(reason) => {
                // Several batches may report the panic of one engine.
                if state.attachment.take().is_some() {
                    state.failed(&myself, format!("the engine panicked: {reason}"));
                }
            }
            Message::Due => state.due(&myself),
        }
        Ok(())
    }
}

impl State {
    fn load(&self, myself: &ActorRef<Message>) {
        self.note(ReplicaState::Loading);
        let arguments = self.arguments.clone();
        let myself = myself.clone();
        let span = tracing::info_span!(
            "replica",
            replica = arguments.id.0,
            model = %arguments.model,
            version = arguments.version.0
        );
        let loading = async move {
            let result = arguments.fetch_and_load().await;
            // A replica that was taken away meanwhile needs no model.
            let _ = myself.cast(Message::Loaded(result));
        };
        tokio::spawn(loading.instrument(span));
    }

    fn attach(&mut self, myself: &ActorRef<Message>, ready: Ready) {
        let Ready { model, warm_up } = ready;
        let options = device::options(&*model, &warm_up);
        let row_nanos = warm_up.full_batch_ns / u64::from(warm_up.rows.max(1));
        let memory_bytes = model
            .bytes()
            .total_bytes(self.arguments.engine.device().threads);
        let myself = myself.clone();
        let Arguments {
            device,
            model: name,
            version,
            ..
        } = &self.arguments;
        let attachment = device.attach(device::Loaded {
            replica: self.arguments.id,
            model,
            statistics: device.statistics(name.as_str(), *version),
            options,
            on_panic: Arc::new(move |reason| {
                let _ = myself.cast(Message::Panicked(reason));
            }),
        });
        let batcher = Some(attachment.batcher());
        self.attachment = Some(attachment);
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

impl Arguments {
    /// Loads what is here; what is missing or damaged is fetched from peers first.
    async fn fetch_and_load(&self) -> Result<Ready, String> {
        match self.load().await {
            Err(LoadError::Artifact(reason)) => {
                let peers = self.peers();
                let deadline = tokio::time::Instant::now() + FETCH_LIMIT;
                let fetched = self.fetcher.fetch(self.digest, &peers, deadline).await;
                // Nobody else has it: then what is wrong here is what matters.
                fetched.map_err(|error| format!("{reason}; {error}"))?;
                self.load().await.map_err(LoadError::into_reason)
            }
            loaded => loaded.map_err(LoadError::into_reason),
        }
    }

    async fn load(&self) -> Result<Ready, LoadError> {
        let (artifacts, engine, digest) =
            (self.artifacts.clone(), self.engine.clone(), self.digest);
        let threads = artifacts.threads();
        let loading = threads.blocking(move || load(&artifacts, digest, &*engine));
        loading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "loading a model panicked");
            Err(LoadError::Engine("loading it panicked".to_owned()))
        })
    }

    fn peers(&self) -> Vec<NodeId> {
        sources(&self.registry.current(), self.digest)
    }
}

/// Why a model could not be loaded.
enum LoadError {
    /// A file is missing or damaged: another copy helps.
    Artifact(String),
    /// The model itself; another copy does not help.
    Engine(String),
}

impl LoadError {
    fn into_reason(self) -> String {
        match self {
            Self::Artifact(reason) | Self::Engine(reason) => reason,
        }
    }
}

/// Reads, verifies, loads and warms up; blocks for as long as that takes.
fn load(artifacts: &Artifacts, digest: Digest, engine: &dyn Engine) -> Result<Ready, LoadError> {
    let source = artifacts
        .source(digest)
        .map_err(|error| LoadError::Artifact(error.to_string()))?;
    let engine_error = |error: String| LoadError::Engine(error);
    let model = engine
        .load(&source)
        .map_err(|error| engine_error(error.to_string()))?;
    let warm_up =
        paceline_models::warm_up(&*model).map_err(|error| engine_error(error.to_string()))?;
    Ok(Ready { model, warm_up })
}

/// How long an artifact may take to arrive: 10 GiB over a line of 200 Mbit/s.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
