//! The snapshot that a request is routed by: models, versions and their signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use paceline_core::Instant;
use paceline_core::placement::ReplicaState;
use paceline_core::registry::{Model, PublishedVersion, Registry};
use paceline_core::router::{Condition, RouteId};
use paceline_protocol::report::CanaryReport;
use paceline_protocol::{
    Epoch, ErrorCode, Failure, ModelName, NodeId, Signature, TenantName, VersionNumber, VersionRef,
};

use super::ShadowRoute;
use super::traffic::{Arm, CanaryRoute};
use crate::observed::Observations;
use crate::telemetry::metrics::{Metrics, VersionMetrics};

/// Models that can be addressed, at one epoch.
#[derive(Default)]
pub struct Routes {
    /// The epoch that this follows from.
    pub epoch: Epoch,
    pub(super) models: BTreeMap<String, ModelRoute>,
    /// Where the next free number of a route is looked for.
    cursor: u32,
}

/// A model that can be addressed.
pub struct ModelRoute {
    /// Who owns it.
    pub owner: TenantName,
    /// The version that traffic without a version goes to.
    pub serving: Option<Arc<VersionRoute>>,
    /// The version that is tried beside it.
    pub(super) canary: Option<CanaryRoute>,
    /// What gets copies of its requests.
    shadow: Option<Arc<ShadowRoute>>,
    /// Versions with replicas, and the one that serves.
    pub versions: BTreeMap<VersionNumber, Arc<VersionRoute>>,
    /// What versions are called, whether they have replicas or not.
    labels: BTreeMap<String, VersionNumber>,
}

/// The version that a request gets that names none.
pub struct Chosen<'a> {
    /// The version.
    pub version: &'a Arc<VersionRoute>,
    /// Where it is counted while a canary is under way.
    pub arm: Option<Arm>,
    /// What may get a copy of it: only of what the version gets that serves.
    pub shadow: Option<&'a Arc<ShadowRoute>>,
}

/// A version that can be addressed.
pub struct VersionRoute {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionNumber,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// The family that runs it.
    pub family: String,
    /// Whether NaN and infinities are refused.
    pub finite_inputs: bool,
    /// Rows that a replica takes at once; larger requests are sent in shards.
    pub rows_max: u32,
    /// Ready replicas.
    pub ready: usize,
    /// Since when there has been none, if there is none.
    pub bare_since: Option<Instant>,
    /// Where its requests are counted.
    pub metrics: VersionMetrics,
    pub(super) route: RouteId,
}

/// What routes follow from.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// What shall be.
    pub(super) registry: &'a Registry,
    /// What is.
    pub(super) observed: &'a Observations,
    /// What nodes are good for, where that is not everything.
    pub(super) conditions: &'a BTreeMap<NodeId, Condition>,
    /// When it is looked at.
    pub(super) now: Instant,
}

/// How many replicas of a version are ready, or since when none is.
#[derive(Clone, Copy)]
struct Readiness {
    ready: usize,
    bare_since: Option<Instant>,
}

impl Routes {
    /// The version that a request goes to: the one that it names, or the one that serves.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `VERSION_NOT_FOUND` or `MODEL_NOT_READY`, by name.
    pub fn resolve(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<&Arc<VersionRoute>, Failure> {
        let route = self.model(model)?;
        match version {
            None => route.serving.as_ref().ok_or_else(|| {
                let message = format!("model '{model}' serves no version yet; deploy one");
                Failure::new(ErrorCode::ModelNotReady, message)
            }),
            Some(version) => {
                let version = route.named(version);
                version.map_err(|unknown| unknown.failure(model, route))
            }
        }
    }

    /// The version that a request gets that names none. `bucket` gives the bucket of the request
    /// under a salt; it is asked only while a canary is under way.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND` or `MODEL_NOT_READY`, by name.
    pub fn choose(
        &self,
        model: &str,
        bucket: impl FnOnce(&str) -> u16,
    ) -> Result<Chosen<'_>, Failure> {
        let serving = self.resolve(model, None)?;
        let model = self.model(model)?;
        let canary = model.canary.as_ref();
        let (canary, arm) = canary.map(|canary| canary.choose(bucket)).unzip();
        let canary = canary.flatten();
        Ok(Chosen {
            version: canary.unwrap_or(serving),
            arm,
            shadow: model.shadow.as_ref().filter(|_| canary.is_none()),
        })
    }

    /// Whether a request that names no version would get this one, perhaps.
    pub fn may_choose(&self, version: &VersionRoute) -> Option<&Arc<VersionRoute>> {
        let model = self.models.get(version.model.as_str())?;
        let canary = model.canary.as_ref().and_then(CanaryRoute::ready);
        let mut choice = model.serving.iter().chain(canary);
        choice.find(|choice| choice.version == version.version)
    }

    /// What this node has answered of models whose canary is under way.
    pub fn canary_reports(&self) -> Vec<CanaryReport> {
        let canaries = self
            .models
            .values()
            .filter_map(|model| model.canary.as_ref());
        canaries.map(CanaryRoute::report).collect()
    }

    /// A model by name.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, by name.
    pub fn model(&self, name: &str) -> Result<&ModelRoute, Failure> {
        self.models.get(name).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            let message = format!("there is no model {shown:?}");
            Failure::new(ErrorCode::ModelNotFound, message)
        })
    }

    /// A version that a request was pinned to at another epoch, as it is routed now; `None` if
    /// nothing of it is left.
    pub fn same(&self, pinned: &VersionRoute) -> Option<&Arc<VersionRoute>> {
        let model = self.models.get(pinned.model.as_str())?;
        model.versions.get(&pinned.version)
    }

    /// Names of all models, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Models that have a ready replica of the version that serves.
    pub fn ready_models(&self) -> usize {
        self.models
            .values()
            .filter(|model| model.is_ready())
            .count()
    }

    /// Every version of every model.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<VersionRoute>> {
        self.models
            .values()
            .flat_map(|model| model.versions.values())
    }

    pub(super) fn has_route(&self, route: RouteId) -> bool {
        self.versions().any(|version| version.route == route)
    }

    /// The snapshot that follows `before`: versions keep their route and their metrics.
    pub(super) fn next(before: &Self, view: View<'_>, metrics: &Metrics) -> Self {
        let registry = view.registry;
        let mut numbers = Numbers {
            taken: before.versions().map(|version| version.route).collect(),
            cursor: before.cursor,
        };
        let mut models = BTreeMap::new();
        for (name, model) in registry.models() {
            let known = before.models.get(name.as_str());
            let versions = addressable(registry, name, model).filter_map(|version| {
                let published = model.versions.get(&version)?;
                let known = known.and_then(|known| known.versions.get(&version));
                let route = known.map_or_else(|| numbers.free(), |known| known.route);
                let metrics = known.map_or_else(
                    || metrics.version(name.as_str(), version),
                    |known| known.metrics.clone(),
                );
                let ready = view.ready_replicas(name, version);
                let bare_since = known.and_then(|known| known.bare_since);
                let readiness = Readiness {
                    ready,
                    bare_since: (ready == 0).then(|| bare_since.unwrap_or(view.now)),
                };
                let route =
                    VersionRoute::new((name, version), published, (route, readiness), metrics);
                Some((version, Arc::new(route)))
            });
            let versions: BTreeMap<_, _> = versions.collect();
            let serving = model
                .serving
                .and_then(|version| versions.get(&version).cloned());
            let canary = model.canary.as_ref().map(|canary| {
                let before = known.and_then(|known| known.canary.as_ref());
                CanaryRoute::next(before, (name, canary), &versions)
            });
            let labels = model.labels.iter();
            let shadow = model.shadow.map(|shadow| {
                let before = known.and_then(|known| known.shadow.as_deref());
                Arc::new(ShadowRoute::next(
                    before,
                    (name, shadow),
                    &versions,
                    metrics,
                ))
            });
            let route = ModelRoute {
                owner: model.owner.clone(),
                serving,
                canary,
                shadow,
                versions,
                labels: labels.map(|(label, of)| (label.to_string(), *of)).collect(),
            };
            models.insert(name.as_str().to_owned(), route);
        }
        Self {
            epoch: registry.epoch(),
            models,
            cursor: numbers.cursor,
        }
    }
}

impl ModelRoute {
    /// The version of this number or label, if it has replicas or serves.
    fn named(&self, version: &str) -> Result<&Arc<VersionRoute>, Unrouted> {
        let label = self.labels.get(version).copied();
        let number = label.or_else(|| match version.parse() {
            Ok(VersionRef::Number(number)) => Some(number),
            Ok(VersionRef::Label(_)) | Err(_) => None,
        });
        let found = number.and_then(|number| self.versions.get(&number));
        found.ok_or_else(|| Unrouted {
            named: version.chars().take(NAMED_CHARS_SHOWN).collect(),
            label,
        })
    }

    /// Whether a request without a version would find a ready replica.
    pub fn is_ready(&self) -> bool {
        self.serving
            .as_ref()
            .is_some_and(|version| version.ready > 0)
    }
}

impl VersionRoute {
    fn new(
        (model, version): (&ModelName, VersionNumber),
        published: &PublishedVersion,
        (route, readiness): (RouteId, Readiness),
        metrics: VersionMetrics,
    ) -> Self {
        let record = &published.record;
        Self {
            model: model.clone(),
            version,
            signature: Arc::new(record.signature.clone()),
            family: record.family.clone(),
            finite_inputs: record.finite_inputs,
            rows_max: record.rows_max,
            ready: readiness.ready,
            bare_since: readiness.bare_since,
            metrics,
            route,
        }
    }
}

/// A version that was named, and that no request can go to.
struct Unrouted {
    named: String,
    /// What a label of this name points to.
    label: Option<VersionNumber>,
}

impl Unrouted {
    fn failure(self, model: &str, route: &ModelRoute) -> Failure {
        let Self { named, label } = self;
        if let Some(version) = label {
            let message = format!(
                "model '{model}' has no replica of version {version}, which is its '{named}'; \
                 deploy it, or set the label to another one"
            );
            return Failure::new(ErrorCode::ModelNotReady, message);
        }
        let known: Vec<String> = route.versions.keys().map(ToString::to_string).collect();
        let known = known.join(", ");
        let labels: Vec<&str> = route.labels.keys().map(String::as_str).collect();
        let labels = match &labels[..] {
            [] => String::new(),
            labels => format!("; its labels: {}", labels.join(", ")),
        };
        let message = format!(
            "model '{model}' has no version {named:?} that serves; those that do: {known}{labels}"
        );
        Failure::new(ErrorCode::VersionNotFound, message)
    }
}

/// Versions with replicas, and the one that serves.
fn addressable<'a>(
    registry: &'a Registry,
    name: &'a ModelName,
    model: &'a Model,
) -> impl Iterator<Item = VersionNumber> {
    let assigned = registry
        .replicas()
        .values()
        .filter(move |a| a.model == *name);
    let versions: BTreeSet<VersionNumber> =
        assigned.map(|a| a.version).chain(model.serving).collect();
    versions.into_iter()
}

impl View<'_> {
    fn ready_replicas(&self, name: &ModelName, version: VersionNumber) -> usize {
        let replicas = self.registry.replicas_of(name, version);
        let ready = replicas.filter(|(replica, assignment)| {
            let condition = self.conditions.get(&assignment.node);
            let seen = self.observed.get(replica);
            condition.is_none_or(|condition| condition.serves())
                && seen.is_some_and(|seen| seen.state == ReplicaState::Ready)
        });
        ready.count()
    }
}

/// Numbers of routes. A request may hold one of a version that has gone since, so a number is
/// used again only after many others were.
struct Numbers {
    taken: BTreeSet<RouteId>,
    cursor: u32,
}

impl Numbers {
    fn free(&mut self) -> RouteId {
        let numbers = self.taken.len() as u32 + REUSED_AFTER;
        loop {
            let number = RouteId(self.cursor % numbers);
            self.cursor = (number.0 + 1) % numbers;
            if self.taken.insert(number) {
                return number;
            }
        }
    }
}

/// So many versions come and go while a request waits for its answer, and no more: each costs
/// the router a few words for ever.
const REUSED_AFTER: u32 = 1_024;

/// More of what was named for a version is not shown.
const NAMED_CHARS_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_only_after_many_others() {
        let mut numbers = Numbers {
            taken: BTreeSet::new(),
            cursor: 0,
        };
        let first = numbers.free();
        let stays = numbers.free();
        numbers.taken.remove(&first);
        let mut next = || {
            let next = numbers.free();
            assert_ne!(next, stays, "it is in use");
            numbers.taken.remove(&next);
            next
        };
        let seen: BTreeSet<RouteId> = (0..1_000).map(|_| next()).collect();
        assert!(seen.len() == 1_000 && !seen.contains(&first), "too soon");
        assert!((0..1_000).any(|_| next() == first), "but some day");
    }
}
