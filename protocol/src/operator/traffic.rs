//! What operators read and write of canaries and shadows.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, OpId, VersionNumber};
use crate::registry::{CanaryGuards, CanaryPlan, CanaryStage, ReplicaTarget, ShadowPlan};

/// A canary that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryView {
    /// The entry that began it.
    pub since: Epoch,
    /// Which version, and how.
    #[serde(flatten)]
    pub plan: CanaryPlan,
    /// The stage that it is in, from 0; null while its replicas are not ready.
    pub stage: Option<u32>,
    /// Its share of the requests now, in units of 1/10,000.
    pub weight: u16,
    /// Whether it has been promoted, and waits for the last of its replicas.
    pub promoting: bool,
    /// What the version that serves has answered since the canary began, as nodes have told.
    pub stable: ArmView,
    /// The same of the canary.
    pub canary: ArmView,
}

/// What was answered by one of two versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmView {
    /// Requests that it was chosen for, and that ended by its doing.
    pub requests: u64,
    /// Those that it failed.
    pub failures: u64,
    /// Its p99 at most, in microseconds: the end of a bucket that is a quarter wide.
    pub p99_us: Option<u64>,
}

/// How a canary ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryEndView {
    /// The version.
    pub version: VersionNumber,
    /// The entry that began it.
    pub since: Epoch,
    /// The entry that ended it.
    pub until: Epoch,
    /// The stage that it was in, from 0; null if its replicas were not ready.
    pub stage: Option<u32>,
    /// Why it was aborted; null if it was promoted.
    pub aborted: Option<String>,
}

/// `POST /v2/paceline/models/NAME/canary`: a version is tried beside the one that serves. Answered
/// with [`Committed`](super::Committed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryRequest {
    /// The version; the newest if absent.
    #[serde(default)]
    pub version: Option<VersionNumber>,
    /// Replicas; as many as the version that serves has if absent.
    #[serde(default)]
    pub replicas: Option<ReplicaTarget>,
    /// Its shares of the requests, one after another.
    pub stages: Vec<CanaryStage>,
    /// What ends it.
    #[serde(default)]
    pub guards: CanaryGuards,
    /// Names the intention.
    pub op: OpId,
}

/// `PUT /v2/paceline/models/NAME/labels/LABEL`: what the version is called from now on. Answered with
/// [`Committed`](super::Committed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRequest {
    /// The version.
    pub version: VersionNumber,
    /// Names the intention.
    pub op: OpId,
}

/// `POST /v2/paceline/models/NAME/promote`, `…/abort` and `…/rollback`: the canary shall serve, or
/// ends, or the version that served before shall serve again. Answered with [`Committed`](super::Committed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficRequest {
    /// Why, for `abort`; kept, and shown with the model.
    #[serde(default)]
    pub reason: Option<String>,
    /// Names the intention.
    pub op: OpId,
}

/// A version that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowView {
    /// The entry that began it; it salts the choice of what is copied.
    pub since: Epoch,
    /// Which version, and how much.
    #[serde(flatten)]
    pub plan: ShadowPlan,
    /// Whether a replica of it is ready, so that it gets copies.
    pub ready: bool,
}

/// `POST /v2/paceline/models/NAME/shadow`: a version gets copies of a share of the requests, whose
/// answers nobody waits for. Answered with [`Committed`](super::Committed).
///
/// `DELETE /v2/paceline/models/NAME/shadow?op=OP` ends that, and is answered likewise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowRequest {
    /// The version; the newest if absent.
    #[serde(default)]
    pub version: Option<VersionNumber>,
    /// Replicas; as many as the version that serves has if absent.
    #[serde(default)]
    pub replicas: Option<ReplicaTarget>,
    /// The share of the requests that are copied, in units of 1/10,000.
    pub weight: u16,
    /// Names the intention.
    pub op: OpId,
}
