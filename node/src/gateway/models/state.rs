//! Which versions there are, and how they are: what Triton's repository index lists.

use std::collections::BTreeSet;

use paceline_core::placement::ReplicaState;
use paceline_core::registry::{Model, Registry};
use paceline_protocol::{ErrorCode, Failure, ModelName, VersionNumber};

use super::Models;
use crate::observed::Observations;
use crate::router::{ModelRoute, Routes};

/// How a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A replica of it answers.
    Ready,
    /// It shall answer, and no replica is ready yet.
    Loading,
    /// It shall not answer any more, and has replicas yet.
    Unloading,
    /// It has no replica, or none that loads.
    Unavailable,
}

/// A version, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionState {
    /// The model.
    pub name: String,
    /// The version.
    pub version: VersionNumber,
    /// How it is.
    pub state: State,
    /// Why, if it is unavailable.
    pub reason: String,
}

/// A model, as those see it who list models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSummary {
    /// Its name.
    pub name: String,
    /// The tenant that owns it.
    pub owner: String,
    /// When the version that serves, or the newest, was published, in seconds since 1970.
    pub created_s: u64,
    /// Whether a request without a version would be answered.
    pub is_ready: bool,
    /// Its versions that have replicas or shall answer, or its newest.
    pub versions: Vec<VersionState>,
}

impl VersionState {
    /// Why it cannot be had although it shall be.
    pub fn failure(&self) -> Option<&str> {
        let is_failure = self.state == State::Unavailable && self.reason != UNLOADED;
        is_failure.then_some(self.reason.as_str())
    }
}

impl State {
    /// What Triton calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// What states follow from.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) registry: &'a Registry,
    pub(super) observed: &'a Observations,
    pub(super) routes: &'a Routes,
}

impl Models {
    /// Every model with its versions that have replicas or shall answer; of one that has none, its
    /// newest.
    pub fn index(&self, only_ready: bool) -> Vec<VersionState> {
        self.view(|view| {
            let models = view.registry.models().iter();
            let all = models.flat_map(|(name, model)| view.of_model(name, model));
            let wanted = all.filter(|version| !only_ready || version.state == State::Ready);
            wanted.collect()
        })
    }

    /// How a version is that is named by its number or a label.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND` or `VERSION_NOT_FOUND`, by name.
    pub fn state(&self, model: &str, version: &str) -> Result<VersionState, Failure> {
        self.view(|view| {
            let (name, model) = view.known(model)?;
            let mut labels = model.labels.iter();
            let labelled = labels.find(|(label, _)| label.as_str() == version);
            let number = labelled.map(|(_, number)| *number);
            let number = number.or_else(|| version.parse().ok().map(VersionNumber));
            let number = number.filter(|number| model.versions.contains_key(number));
            let number = number.ok_or_else(|| {
                let shown: String = version.chars().take(32).collect();
                let message = format!("model '{name}' has no version {shown:?}");
                Failure::new(ErrorCode::VersionNotFound, message)
            })?;
            Ok(view.state((&name, model), number))
        })
    }

    /// All models.
    pub fn summaries(&self) -> Vec<ModelSummary> {
        self.view(|view| {
            let models = view.registry.models().iter();
            let summaries = models.map(|(name, model)| view.summary(name, model));
            summaries.collect()
        })
    }

    /// One model.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, by name.
    pub fn summary(&self, model: &str) -> Result<ModelSummary, Failure> {
        self.view(|view| {
            let (name, model) = view.known(model)?;
            Ok(view.summary(&name, model))
        })
    }

    /// Looks at what is at one moment.
    pub(super) fn view<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        let (registry, observed) = (self.registry.current(), self.observed.current());
        let routes = self.router.routes();
        look(View {
            registry: &registry,
            observed: &observed,
            routes: &routes,
        })
    }
}

impl<'a> View<'a> {
    fn known(self, name: &str) -> Result<(ModelName, &'a Model), Failure> {
        let known = ModelName::new(name).ok();
        let known = known.and_then(|name| {
            let model = self.registry.models().get(&name)?;
            Some((name, &**model))
        });
        known.ok_or_else(|| super::unknown(name))
    }

    fn summary(self, name: &ModelName, model: &Model) -> ModelSummary {
        let newest = model.versions.keys().next_back().copied();
        let version = model.serving.or(newest);
        let published = version.and_then(|version| model.versions.get(&version));
        let route = self.routes.model(name.as_str());
        ModelSummary {
            name: name.to_string(),
            owner: model.owner.to_string(),
            created_s: published.map_or(0, |version| version.published_ms / 1_000),
            is_ready: route.is_ok_and(ModelRoute::is_ready),
            versions: self.of_model(name, model),
        }
    }

    fn of_model(self, name: &ModelName, model: &Model) -> Vec<VersionState> {
        let route = self.routes.model(name.as_str()).ok();
        let routed = route.into_iter().flat_map(|route| route.versions.keys());
        let mut versions: BTreeSet<VersionNumber> = routed.copied().collect();
        // No request can go to one that shall answer and has found no place, so it has no route.
        versions.extend(wanted(model));
        if versions.is_empty() {
            versions.extend(model.versions.keys().next_back());
        }
        let versions = versions.into_iter();
        let states = versions.map(|version| self.state((name, model), version));
        states.collect()
    }

    /// How a version is, and why if it is unavailable.
    pub(super) fn state(
        self,
        (name, model): (&ModelName, &Model),
        version: VersionNumber,
    ) -> VersionState {
        let (state, reason) = self.state_and_reason((name, model), version);
        VersionState {
            name: name.to_string(),
            version,
            state,
            reason,
        }
    }

    fn state_and_reason(
        self,
        (name, model): (&ModelName, &Model),
        version: VersionNumber,
    ) -> (State, String) {
        let told = |state| (state, String::new());
        let mut replicas = self.registry.replicas_of(name, version).peekable();
        let has_replicas = replicas.peek().is_some();
        if !wanted(model).any(|wanted| wanted == version) {
            return match has_replicas {
                true => told(State::Unloading),
                false => (State::Unavailable, UNLOADED.to_owned()),
            };
        }
        let route = self.routes.model(name.as_str()).ok();
        let routed = route.and_then(|route| route.versions.get(&version));
        if routed.is_some_and(|version| version.ready > 0) {
            return told(State::Ready);
        }
        if !has_replicas {
            return (State::Unavailable, NO_REPLICA.to_owned());
        }
        let states = replicas.map(|(replica, _)| self.observed.get(&replica));
        let failed = states.map(|seen| match seen.map(|seen| &seen.state) {
            Some(ReplicaState::Failed { reason } | ReplicaState::GivenUp { reason }) => {
                Some(reason)
            }
            Some(ReplicaState::Unknown | ReplicaState::Loading | ReplicaState::Ready) | None => {
                None
            }
        });
        // One that has not failed may become ready.
        match failed.collect::<Option<Vec<_>>>() {
            Some(reasons) => (State::Unavailable, reasons[0].clone()),
            None => told(State::Loading),
        }
    }
}

/// The versions that serve, shall serve, are tried, or get copies.
fn wanted(model: &Model) -> impl Iterator<Item = VersionNumber> {
    let deployed = model.deployment.map(|deployment| deployment.version);
    let canary = model.canary.as_ref().map(|canary| canary.plan.version);
    let shadow = model.shadow.map(|shadow| shadow.plan.version);
    let wanted = [model.serving, deployed, canary, shadow];
    wanted.into_iter().flatten()
}

const UNLOADED: &str = "unloaded";
const NO_REPLICA: &str = "it has no replica: no node that is up has room for one yet";
