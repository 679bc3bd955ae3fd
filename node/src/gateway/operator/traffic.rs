//! Canaries: begun, promoted and aborted by hand, and the way back to what served before, or to
//! nothing. Shadows: set and ended.

use axum::extract::State;
use axum::{Extension, Json};
use paceline_core::registry::{Model, Registry};
use paceline_protocol::operator::{
    ArmView, CanaryEndView, CanaryRequest, CanaryView, Committed, ShadowRequest, ShadowView,
    TrafficRequest,
};
use paceline_protocol::registry::{CanaryPlan, Change, ReplicaTarget, ShadowPlan};
use paceline_protocol::report::{ArmCounts, latency_bucket_nanos};
use paceline_protocol::{ErrorCode, Failure, ModelName, VersionNumber};

use super::access::check_change;
use super::extract::{InPath, InQuery, Whole};
use super::{OpQuery, OperatorParts, Parts, Refused, SeenQuery, json, model_name, op_of, write};
use crate::router::Routes;
use crate::tenants::Caller;

pub(super) async fn begin(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let request: CanaryRequest = json(&body)?;
    let beside = (request.version, request.replicas);
    let (version, replicas) = beside_serving(&parts, &model, beside)?;
    let plan = Box::new(CanaryPlan {
        version,
        replicas,
        stages: request.stages,
        guards: request.guards,
    });
    let change = Change::BeginCanary { model, plan };
    write(&parts, request.op, (change, seen)).await
}

pub(super) async fn promote(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let TrafficRequest { op, .. } = json(&body)?;
    let since = None;
    let change = Change::PromoteCanary { model, since };
    write(&parts, op, (change, seen)).await
}

pub(super) async fn abort(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let TrafficRequest { op, reason } = json(&body)?;
    let change = Change::AbortCanary {
        model,
        since: None,
        reason: reason.unwrap_or_else(|| "by hand".to_owned()),
    };
    write(&parts, op, (change, seen)).await
}

pub(super) async fn rollback(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let TrafficRequest { op, .. } = json(&body)?;
    write(&parts, op, (Change::Rollback { model }, seen)).await
}

pub(super) async fn undeploy(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let TrafficRequest { op, .. } = json(&body)?;
    write(&parts, op, (Change::Undeploy { model }, seen)).await
}

pub(super) async fn set_shadow(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let request: ShadowRequest = json(&body)?;
    let beside = (request.version, request.replicas);
    let (version, replicas) = beside_serving(&parts, &model, beside)?;
    let plan = ShadowPlan {
        version,
        replicas,
        weight: request.weight,
    };
    write(
        &parts,
        request.op,
        (Change::SetShadow { model, plan }, seen),
    )
    .await
}

pub(super) async fn end_shadow(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let op = op_of(query)?;
    write(&parts, op, (Change::EndShadow { model }, seen)).await
}

/// The version that shall run beside the one that serves: the one that is named, or the newest; and
/// its replicas: those that are wanted, or as many as are deployed.
fn beside_serving(
    parts: &OperatorParts,
    model: &ModelName,
    (version, replicas): (Option<VersionNumber>, Option<ReplicaTarget>),
) -> Result<(VersionNumber, ReplicaTarget), Failure> {
    let registry = parts.registry.current();
    let known = registry.models().get(model);
    let newest = known.and_then(|known| known.versions.keys().next_back().copied());
    let version = version.or(newest).ok_or_else(|| {
        let message = format!("there is no model '{model}'");
        Failure::new(ErrorCode::ModelNotFound, message)
    })?;
    let deployment = known.and_then(|known| known.deployment);
    let replicas = replicas.or(deployment.map(|known| known.replicas));
    Ok((version, replicas.unwrap_or(ReplicaTarget::Count(1))))
}

/// A model that the caller may change.
pub(super) fn changed(
    parts: &OperatorParts,
    caller: Caller,
    name: &str,
) -> Result<ModelName, Failure> {
    let model = model_name(name)?;
    check_change(parts, caller, &model)?;
    Ok(model)
}

/// The canary of a model, with what all nodes have told of it.
pub(super) fn canary(
    parts: &OperatorParts,
    registry: &Registry,
    name: &ModelName,
) -> Option<CanaryView> {
    let model = registry.models().get(name)?;
    let canary = model.canary.as_ref()?;
    let (mut stable, mut tried) = (ArmCounts::default(), ArmCounts::default());
    for (_, report) in parts.observed.canaries(parts.node) {
        if report.model == *name && report.since == canary.since {
            stable.add(&report.stable);
            tried.add(&report.canary);
        }
    }
    Some(CanaryView {
        since: canary.since,
        plan: canary.plan.clone(),
        stage: canary.stage,
        weight: canary.weight(),
        promoting: model.is_promoting(),
        stable: arm(&stable),
        canary: arm(&tried),
    })
}

/// The shadow of a model, as this node would send it copies.
pub(super) fn shadow(model: &Model, routes: &Routes, name: &ModelName) -> Option<ShadowView> {
    let shadow = model.shadow?;
    let route = routes.model(name.as_str()).ok();
    let version = route.and_then(|route| route.versions.get(&shadow.plan.version));
    Some(ShadowView {
        since: shadow.since,
        plan: shadow.plan,
        ready: version.is_some_and(|version| version.ready > 0),
    })
}

pub(super) fn ended(model: &Model) -> Option<CanaryEndView> {
    let ended = model.ended.as_ref()?;
    Some(CanaryEndView {
        version: ended.version,
        since: ended.since,
        until: ended.until,
        stage: ended.stage,
        aborted: ended.aborted.clone(),
    })
}

fn arm(counts: &ArmCounts) -> ArmView {
    let p99 = counts.quantile_bucket(990);
    ArmView {
        requests: counts.requests,
        failures: counts.failures,
        p99_us: p99.map(|bucket| latency_bucket_nanos(bucket) / 1_000),
    }
}
