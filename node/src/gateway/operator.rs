//! The operator API under `/v2/paceline/`: what command line and dashboards use.
//!
//! Off the hot path, so it is axum. Reads answer from what this node has applied, with the
//! epoch; writes return when they are committed, and say on how many ready nodes they are
//! applied.

mod access;
mod extract;
mod labels;
mod members;
mod record;
mod tenants;
mod traffic;
mod upload;
mod view;
mod writes;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json};
use paceline_protocol::limits::MANIFEST_BYTES_MAX;
use paceline_protocol::operator::{
    BlobQuery, BlobsMissing, Committed, DeployRequest, ErrorView, ModelView, NodeView,
    PublishAnswer, PublishRequest, Status,
};
use paceline_protocol::registry::{Change, ReplicaTarget};
use paceline_protocol::{Digest, Epoch, ErrorCode, Failure, ModelName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::access::{administrators, check_change};
use self::extract::{InPath, InQuery, Whole};
use self::writes::{OpQuery, SeenQuery, committed, op_of, write};
use super::Readiness;
use crate::artifacts::{ArtifactError, Artifacts};
use crate::clock::Clock;
use crate::observed::Observed;
use crate::publish::{Publisher, blocking};
use crate::record::Records;
use crate::supervisor::Health;
use crate::tenants::Caller;
use crate::tls::Tls;
use crate::{admission, contact, device, registry, router, tenants as callers};

/// What the operator API shows and changes.
pub struct OperatorParts {
    /// The cluster's identity.
    pub cluster: u128,
    /// The registry.
    pub registry: registry::Handle,
    /// What is observed.
    pub observed: Observed,
    /// What requests can be sent to.
    pub router: router::Handle,
    /// Queues and batches.
    pub device: device::Handle,
    /// Who callers are.
    pub tenants: callers::Handle,
    /// What is in of whom.
    pub admission: admission::Handle,
    /// Files of artifacts.
    pub artifacts: Artifacts,
    /// Makes versions.
    pub publisher: Publisher,
    /// Parts that were given up.
    pub health: Health,
    /// Whether the node is ready.
    pub readiness: Readiness,
    /// Whether there is a quorum.
    pub contact: contact::Handle,
    /// What machines were told last.
    pub records: Records,
    /// For the uptime.
    pub clock: Clock,
    /// This node's id.
    pub node: paceline_protocol::NodeId,
    /// Its process.
    pub pid: u32,
    /// What join tokens pin, if there is a door to join through.
    pub pin: Option<Digest>,
    /// The certificate of its HTTP door, if it has one.
    pub tls: Option<Tls>,
}

/// The operator API.
pub struct Operator;

type Parts = State<Arc<OperatorParts>>;

/// A failure as axum answers it.
struct Refused(Failure);

impl Operator {
    /// All paths.
    pub fn router(parts: OperatorParts) -> axum::Router {
        // What concerns the cluster as a whole, or more than one tenant.
        let administration = axum::Router::new()
            .route("/v2/paceline/nodes/{node}", delete(members::remove))
            .route("/v2/paceline/nodes/{node}/drain", post(members::drain))
            .route("/v2/paceline/nodes/{node}/undrain", post(members::undrain))
            .route(
                "/v2/paceline/tokens",
                get(members::tokens).merge(post(members::create_token)),
            )
            .route("/v2/paceline/tokens/{id}", delete(members::revoke_token))
            .route("/v2/paceline/tenants", get(tenants::tenants))
            .route(
                "/v2/paceline/tenants/{name}",
                put(tenants::set).merge(delete(tenants::delete)),
            )
            .route("/v2/paceline/tenants/{name}/keys", post(tenants::add_key))
            .route("/v2/paceline/keys/{id}", delete(tenants::revoke_key))
            .route("/v2/paceline/debug/record", get(record::record))
            .route_layer(from_fn(administrators));
        axum::Router::new()
            .route("/v2/paceline/status", get(status))
            .route("/v2/paceline/applied/{epoch}", get(applied))
            .route("/v2/paceline/errors", get(errors))
            .route("/v2/paceline/nodes", get(nodes))
            .route("/v2/paceline/models", get(models))
            .route(
                "/v2/paceline/models/{name}",
                get(model).merge(delete(delete_model)),
            )
            .route("/v2/paceline/models/{name}/versions", post(publish))
            .route("/v2/paceline/models/{name}/deploy", post(deploy))
            .route("/v2/paceline/models/{name}/canary", post(traffic::begin))
            .route("/v2/paceline/models/{name}/promote", post(traffic::promote))
            .route("/v2/paceline/models/{name}/abort", post(traffic::abort))
            .route(
                "/v2/paceline/models/{name}/rollback",
                post(traffic::rollback),
            )
            .route(
                "/v2/paceline/models/{name}/undeploy",
                post(traffic::undeploy),
            )
            .route(
                "/v2/paceline/models/{name}/labels/{label}",
                put(labels::set).merge(delete(labels::remove)),
            )
            .route(
                "/v2/paceline/models/{name}/shadow",
                post(traffic::set_shadow).merge(delete(traffic::end_shadow)),
            )
            .route("/v2/paceline/blobs/missing", post(blobs_missing))
            .route("/v2/paceline/blobs/{digest}", put(upload_blob))
            .merge(administration)
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(MANIFEST_BYTES_MAX))
            .with_state(Arc::new(parts))
    }
}

async fn status(
    State(parts): Parts,
    InQuery(query): InQuery<ReadQuery>,
) -> Result<Json<Status>, Refused> {
    query.wait(&parts).await?;
    Ok(Json(view::status(&parts)))
}

async fn applied(State(parts): Parts, InPath(epoch): InPath) -> Result<Json<Committed>, Refused> {
    let epoch = epoch.parse().map(Epoch).map_err(|_| {
        let message = "an epoch is a number: the one that a write was answered with";
        Failure::new(ErrorCode::ParameterInvalid, message)
    })?;
    Ok(Json(committed(&parts, epoch).await))
}

async fn errors() -> Json<Vec<ErrorView>> {
    Json(ErrorView::all())
}

async fn nodes(
    State(parts): Parts,
    InQuery(query): InQuery<ReadQuery>,
) -> Result<Json<Vec<NodeView>>, Refused> {
    query.wait(&parts).await?;
    Ok(Json(view::nodes(&parts)))
}

async fn models(
    State(parts): Parts,
    InQuery(query): InQuery<ReadQuery>,
) -> Result<Json<Vec<ModelView>>, Refused> {
    query.wait(&parts).await?;
    let registry = parts.registry.current();
    let names = registry.models().keys();
    Ok(Json(
        names
            .filter_map(|name| view::model(&parts, &registry, name))
            .collect(),
    ))
}

async fn model(State(parts): Parts, InPath(name): InPath) -> Result<Json<ModelView>, Refused> {
    let name = model_name(&name)?;
    let registry = parts.registry.current();
    view::model(&parts, &registry, &name)
        .map(Json)
        .ok_or_else(|| {
            Refused(Failure::new(
                ErrorCode::ModelNotFound,
                format!("there is no model '{name}'"),
            ))
        })
}

async fn blobs_missing(
    State(parts): Parts,
    Whole(body): Whole,
) -> Result<Json<BlobsMissing>, Refused> {
    let query: BlobQuery = json(&body)?;
    let artifacts = parts.artifacts.clone();
    let missing = blocking(artifacts.threads(), move || {
        artifacts
            .missing(&query.digests)
            .map_err(|error| ArtifactError::Disk(error).into())
    });
    Ok(Json(BlobsMissing {
        missing: missing.await?,
    }))
}

async fn upload_blob(
    State(parts): Parts,
    InPath(digest): InPath,
    body: Body,
) -> Result<StatusCode, Refused> {
    let digest: Digest = digest
        .parse()
        .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("digest: {error}")))?;
    upload::receive(&parts.artifacts, digest, body).await?;
    Ok(StatusCode::CREATED)
}

async fn publish(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<PublishAnswer>, Refused> {
    let model = model_name(&name)?;
    check_change(&parts, caller, &model)?;
    let PublishRequest {
        manifest,
        op,
        precision,
    } = json(&body)?;
    let owner = parts.tenants.name_of(caller.tenant);
    let publishing = parts.publisher.publish(
        (model.clone(), owner),
        (manifest, precision),
        (op, seen.revision()),
    );
    let (published, precision) = publishing.await?;
    Ok(Json(PublishAnswer {
        model,
        version: published.version,
        created: published.created,
        record: published.record,
        epoch: published.epoch,
        precision,
    }))
}

async fn deploy(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = model_name(&name)?;
    check_change(&parts, caller, &model)?;
    let DeployRequest {
        version,
        replicas,
        op,
    } = json(&body)?;
    let registry = parts.registry.current();
    let newest = || {
        let known = registry.models().get(&model)?;
        known.versions.keys().next_back().copied()
    };
    let version = version.or_else(newest).ok_or_else(|| {
        Failure::new(
            ErrorCode::ModelNotFound,
            format!("there is no model '{model}'"),
        )
    })?;
    // Two copies survive the loss of one; more than one on one node gives nothing.
    let copies = registry.nodes().len().clamp(1, 2) as u32;
    let replicas = replicas.unwrap_or(ReplicaTarget::Count(copies));
    let change = Change::Deploy {
        model,
        version,
        replicas,
    };
    write(&parts, op, (change, seen)).await
}

/// The query of a read.
#[derive(Deserialize)]
struct ReadQuery {
    #[serde(default)]
    consistent: bool,
}

impl ReadQuery {
    /// What is read after this was acknowledged before it, if that is wished for.
    async fn wait(&self, parts: &OperatorParts) -> Result<(), Failure> {
        if !self.consistent || parts.registry.catch_up().await {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::NoQuorum,
            "no quorum confirms that this node knows the newest state",
        ))
    }
}

async fn delete_model(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    InQuery(seen): InQuery<SeenQuery>,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let model = model_name(&name)?;
    check_change(&parts, caller, &model)?;
    let op = op_of(query)?;
    write(&parts, op, (Change::DeleteModel { model }, seen)).await
}

async fn not_found() -> Refused {
    Refused(Failure::new(
        ErrorCode::NotFound,
        "nothing answers under this path",
    ))
}

async fn method_not_allowed() -> Refused {
    Refused(Failure::new(
        ErrorCode::MethodNotAllowed,
        "this path takes another method",
    ))
}

fn model_name(name: &str) -> Result<ModelName, Failure> {
    ModelName::new(name)
        .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("model name: {error}")))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(ErrorCode::JsonInvalid, format!("body: {error}")))
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        super::server::failed(&self.0).map(Body::new)
    }
}
