//! What operators read and write under `/v2/paceline/…`, as JSON.
//!
//! The command line and every dashboard use these same types. Fields are only ever added.

mod errors;
mod precision;
mod tenants;
mod traffic;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::errors::ErrorView;
pub use self::precision::{Precision, PrecisionChoice, PrecisionReport};
pub use self::traffic::{
    ArmView, CanaryEndView, CanaryRequest, CanaryView, LabelRequest, ShadowRequest, ShadowView,
    TrafficRequest,
};
use crate::id::{Digest, Epoch, ModelName, NodeId, OpId, ReplicaId, TenantName, VersionNumber};
use crate::label::Label;
use crate::manifest::Manifest;
use crate::registry::{DeviceKind, ReplicaTarget, VersionRecord};

pub use self::tenants::{KeyCreated, LimitSetting, TenantRequest, TenantView, Unlimited};

/// Body of every answer that is not a success: `error` is always a string, since the
/// protocol's clients read it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was wrong and what is allowed.
    pub error: String,
    /// The stable code.
    #[serde(default)]
    pub code: String,
}

/// `GET /v2/paceline/status`; with `?consistent=true`, after contact to a quorum, as for every
/// read that names it: what was acknowledged before the question is in the answer, and without
/// a quorum the answer is `NO_QUORUM`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's identity, 32 hexadecimal digits.
    pub cluster: String,
    /// The node that answers.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Release of the binary.
    pub version: String,
    /// Whether it is ready for traffic.
    pub ready: bool,
    /// The epoch that it has applied.
    pub epoch: Epoch,
    /// Raft, as this node sees it.
    pub raft: RaftStatus,
    /// How many nodes may be lost before writes stop, and then before requests fail.
    pub survivable_losses: u32,
    /// Whether the node has contact to a quorum: writes are possible, and what it knows is new.
    #[serde(default)]
    pub quorum: bool,
    /// For how many seconds it has been without contact to a quorum; null while it has one.
    #[serde(default)]
    pub stale_seconds: Option<u64>,
    /// What an operator should know before it hurts, a sentence each; empty when all is well.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Models known, and how many of them are ready.
    pub models: usize,
    /// How many models have a ready replica.
    pub models_ready: usize,
    /// How many have a shadow, which gets copies of their requests.
    #[serde(default)]
    pub shadows: usize,
    /// Seconds since the node started.
    pub uptime_seconds: u64,
    /// Devices and what they do.
    pub devices: Vec<DeviceStatus>,
    /// Parts that have failed for good, each with its reason; empty when all is well.
    pub degraded: Vec<String>,
}

/// Raft, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftStatus {
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// Current term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Last entry in the log.
    pub last_log: u64,
    /// Last entry known committed.
    pub committed: u64,
    /// Last entry applied.
    pub applied: u64,
    /// Voters.
    pub voters: Vec<NodeId>,
}

/// A device and what it does now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// What it is.
    pub kind: DeviceKind,
    /// Batches that it can run at a time.
    pub lanes: u16,
    /// Batches running now.
    pub running: u32,
    /// Rows waiting.
    pub queued_rows: u64,
    /// Memory accounted by loaded replicas, in bytes.
    pub memory_used_bytes: u64,
    /// Memory to give, in bytes.
    pub memory_bytes: u64,
}

/// One entry of `GET /v2/paceline/nodes[?consistent=true]`, sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Identity.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// `up`, `down`, `draining` or `drained`.
    pub state: String,
    /// `leader`, `voter` or `learner`.
    pub role: String,
    /// Where it stands.
    pub zone: String,
    /// Process id, as far as the node that answers knows it.
    pub pid: Option<u32>,
    /// Where it is reached; doors that are not open are null.
    pub addresses: AddressesView,
    /// The epoch that it has applied, as far as the node that answers knows it.
    pub epoch: Option<Epoch>,
}

/// Where a node is reached, each as `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressesView {
    /// HTTP inference and operator API.
    pub http: Option<String>,
    /// gRPC inference.
    pub grpc: Option<String>,
    /// Prometheus metrics.
    pub metrics: Option<String>,
    /// SDK over QUIC.
    pub sdk: Option<String>,
    /// Peers over QUIC.
    pub peer: Option<String>,
}

/// One entry of `GET /v2/paceline/models[?consistent=true]`, and `GET /v2/paceline/models/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// Name.
    pub name: ModelName,
    /// Owner.
    pub owner: TenantName,
    /// The version that traffic goes to.
    pub serving: Option<VersionNumber>,
    /// What is deployed: traffic moves to it when its replicas are ready.
    pub deployed: Option<DeploymentView>,
    /// Whether a request would find a ready replica.
    pub ready: bool,
    /// Every version kept, oldest first.
    pub versions: Vec<VersionView>,
    /// Every replica assigned.
    pub replicas: Vec<ReplicaView>,
    /// What is tried beside the version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryView>,
    /// How the last canary ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_ended: Option<CanaryEndView>,
    /// What gets copies of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowView>,
    /// What `rollback` goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionNumber>,
    /// Versions by their labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Label, VersionNumber>,
    /// The last entry that has changed anything of it but where its replicas are. A write that names
    /// it as `?expected_revision=N` is refused with 409 if it has changed since.
    #[serde(default)]
    pub revision: Epoch,
    /// The epoch of this view.
    pub epoch: Epoch,
}

/// What is deployed of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// The version.
    pub version: VersionNumber,
    /// Replicas wanted.
    pub replicas: ReplicaTarget,
}

/// One version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// Its number.
    pub version: VersionNumber,
    /// When it was published, in milliseconds since 1970.
    pub published_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub record: VersionRecord,
}

/// One replica of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// Identity.
    pub id: ReplicaId,
    /// The version that it is a copy of.
    pub version: VersionNumber,
    /// Where it is.
    pub node: NodeId,
    /// On which of the node's devices.
    pub device: crate::id::DeviceId,
    /// `unknown`, `loading`, `ready` or `failed`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
}

/// `POST /v2/paceline/blobs/missing`: which of these files does the node lack?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobQuery {
    /// SHA-256 of files.
    pub digests: Vec<Digest>,
}

/// Answer to [`BlobQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobsMissing {
    /// Those to upload with `PUT /v2/paceline/blobs/SHA256`.
    pub missing: Vec<Digest>,
}

/// `POST /v2/paceline/models/NAME/versions`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// The artifact; its files have been uploaded.
    pub manifest: Manifest,
    /// Names the intention.
    pub op: OpId,
    /// How an encoder's factors shall be rounded: both ways are measured, and the choice is written
    /// into the `model.toml` of what is published. As the artifact says, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionChoice>,
}

/// Answer to [`PublishRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishAnswer {
    /// The model.
    pub model: ModelName,
    /// The number that the registry gave.
    pub version: VersionNumber,
    /// Whether this request made the version.
    pub created: bool,
    /// What was measured and read.
    pub record: VersionRecord,
    /// The epoch that it is known from.
    pub epoch: Epoch,
    /// What precisions gave, if one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionReport>,
}

/// `POST /v2/paceline/models/NAME/deploy`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The version; the newest if absent.
    #[serde(default)]
    pub version: Option<VersionNumber>,
    /// Replicas; 2 if absent (1 on one node).
    #[serde(default)]
    pub replicas: Option<ReplicaTarget>,
    /// Names the intention.
    pub op: OpId,
}

/// Answer to every write that has no richer one: it is committed, and on how many ready nodes
/// it is applied: no request that arrives there later is decided at an older epoch. The same of
/// any epoch is told by `GET /v2/paceline/applied/EPOCH`, which waits two seconds for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The epoch that it holds from.
    pub epoch: Epoch,
    /// Ready nodes that have applied it, the one that answers among them.
    pub applied_on: u32,
    /// Ready nodes, the one that answers among them.
    pub nodes: u32,
}

/// `POST /v2/paceline/tokens`: a secret that lets new nodes join.
///
/// It has no op-id: a repeat makes another token, and the first, whose secret nobody has seen,
/// expires unused. A node that answers the repeat of a write with its first outcome could not
/// show the first secret, since only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For how long it can be used, in milliseconds; an hour if absent, at most
    /// [`crate::limits::TOKEN_TTL_MAX_MS`].
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// How many nodes can join with it; 1 if absent, at most [`crate::limits::NODES_MAX`].
    #[serde(default)]
    pub uses: Option<u32>,
}

/// Answer to [`TokenRequest`]: the only time that the token is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// What `paceline join --token` takes; it begins with `pcl1.` and pins the cluster's
    /// authority.
    pub token: String,
    /// What names it without being secret.
    pub id: String,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// One entry of `GET /v2/paceline/tokens`, sorted by id: tokens that can still be used. Revoked
/// with `DELETE /v2/paceline/tokens/ID?op=OP`, which is answered with [`Committed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// What names it.
    pub id: String,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many nodes can still join with it.
    pub uses_left: u32,
}

/// `POST /v2/paceline/nodes/ID/drain`: the node shall leave without losing a request.
///
/// Answered with [`Committed`] when the drain is committed: then the node's replicas go one
/// after another, each once another one is ready in its place. The node is empty once
/// `GET /v2/paceline/nodes` calls it `drained`, which is at the deadline at the latest. A drain
/// that would break the quorum, or leave a version that serves without a replica, is refused
/// with 409 and the reason. A node that is draining or drained already stays so, with the
/// deadline that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// How long placing elsewhere and running empty may take together, in milliseconds, from
    /// when the node has applied the drain; at most [`crate::limits::DRAIN_DEADLINE_MAX_MS`].
    /// What is left then ends with a typed status that may be sent again.
    pub deadline_ms: u64,
    /// Names the intention.
    pub op: OpId,
}

/// `POST /v2/paceline/nodes/ID/undrain`: the node takes requests again. Answered with
/// [`Committed`].
///
/// `DELETE /v2/paceline/nodes/ID?op=OP` removes a node for ever, and burns its id; it is
/// answered with [`Committed`], too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndrainRequest {
    /// Names the intention.
    pub op: OpId,
}
