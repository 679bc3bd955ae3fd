//! Why the registry did nothing, and the code that its caller is told.

use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::error::{ErrorCode, Failure};
use crate::id::{DeviceId, Epoch, ModelName, NodeId, ReplicaId, TenantName, VersionNumber};
use crate::label::Label;
use crate::limits::{TENANT_KEYS_MAX, TENANT_LIMIT_MAX, TENANT_WEIGHT_MAX};
use crate::tenant::KeyId;

/// Why a command did nothing. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such model.
    #[error("there is no model '{model}'")]
    ModelUnknown {
        /// What was named.
        model: ModelName,
    },
    /// No such version.
    #[error("model '{model}' has no version {version}; its versions: {known}")]
    VersionUnknown {
        /// The model.
        model: ModelName,
        /// What was named.
        version: VersionNumber,
        /// The versions there are, as text.
        known: String,
    },
    /// The model belongs to another tenant.
    #[error("model '{model}' belongs to another tenant")]
    OwnerDiffers {
        /// The model.
        model: ModelName,
    },
    /// No such replica.
    #[error("there is no replica {replica}")]
    ReplicaUnknown {
        /// What was named.
        replica: ReplicaId,
    },
    /// No such node or device.
    #[error("node {node} has no device {device}")]
    DeviceUnknown {
        /// The node.
        node: NodeId,
        /// The device.
        device: DeviceId,
    },
    /// The command was computed from a state that has changed since.
    #[error("computed at epoch {computed_at}, but assignments changed at epoch {changed_at}")]
    Outdated {
        /// What the command was computed from.
        computed_at: Epoch,
        /// When assignments changed last.
        changed_at: Epoch,
    },
    /// A limit of the registry.
    #[error("the registry holds at most {limit} {what}")]
    Limit {
        /// What there would be too many of.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The deployment asks for no replicas or for too many.
    #[error("a deployment has 1 to {limit} replicas, not {replicas}")]
    ReplicaCount {
        /// What was asked for.
        replicas: u32,
        /// The limit.
        limit: u32,
    },
    /// Two nodes would share a name.
    #[error("the name '{name}' belongs to node {node}")]
    NodeName {
        /// The name.
        name: String,
        /// Who has it.
        node: NodeId,
    },
    /// The entry was written by a later release.
    #[error("entry of schema {schema}; this node understands up to {SCHEMA}")]
    Schema {
        /// The entry's.
        schema: u16,
    },
    /// No such token, or not its secret: which of both is not told.
    #[error("the join token is not known here; `paceline token create` makes one")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the join token has expired; `paceline token create` makes another one")]
    TokenExpired,
    /// The token has admitted as many nodes as it may.
    #[error("the join token has been used; `paceline token create` makes another one")]
    TokenUsed,
    /// A token of this id exists.
    #[error("a join token of this id exists")]
    TokenExists,
    /// No such node.
    #[error("there is no node {node}")]
    NodeUnknown {
        /// What was named.
        node: NodeId,
    },
    /// The node was removed: neither its id nor its key is believed again.
    #[error("node {node} was removed; a machine that comes back joins with a new key")]
    NodeBurnt {
        /// Which one.
        node: NodeId,
    },
    /// The last node cannot leave.
    #[error("node {node} is the only one; a cluster has at least one node")]
    LastNode {
        /// Which one.
        node: NodeId,
    },
    /// The node is not draining, or a later drain is under way.
    #[error("node {node} is not draining since epoch {since}")]
    NotDraining {
        /// Which one.
        node: NodeId,
        /// The drain that was named.
        since: Epoch,
    },
    /// No such tenant.
    #[error("there is no tenant '{tenant}'; `paceline tenant list` shows them")]
    TenantUnknown {
        /// What was named.
        tenant: TenantName,
    },
    /// The tenant cannot be forgotten yet.
    #[error("tenant '{tenant}' owns {models} models, '{model}' among them; delete those first")]
    TenantOwns {
        /// The tenant.
        tenant: TenantName,
        /// How many.
        models: u32,
        /// One of them.
        model: ModelName,
    },
    /// The tenant of requests without a key is always there.
    #[error("tenant 'default' is who shows no key; it cannot be deleted")]
    TenantDefault,
    /// A limit of a tenant has a value outside what is allowed.
    #[error(
        "a tenant weighs 1 to {TENANT_WEIGHT_MAX}, and may have 1 to {TENANT_LIMIT_MAX} requests \
         a second and at a time"
    )]
    TenantLimits,
    /// No such key.
    #[error("there is no key {key}; `paceline tenant list` shows each tenant's keys")]
    KeyUnknown {
        /// What was named.
        key: KeyId,
    },
    /// A key of this id exists.
    #[error("a key of this id exists")]
    KeyExists,
    /// A tenant has all the keys that it may have.
    #[error(
        "tenant '{tenant}' has {TENANT_KEYS_MAX} keys, enough to change from one to the other; \
         revoke one first"
    )]
    KeysMany {
        /// The tenant.
        tenant: TenantName,
    },
    /// Stages or guards of a canary are not within what is allowed.
    #[error("{what}")]
    CanaryInvalid {
        /// What is not, and what would be.
        what: String,
    },
    /// A canary must be promoted or aborted first.
    #[error(
        "version {version} of model '{model}' is tried as a canary; `paceline model promote {model}` or `paceline model abort {model}` ends that"
    )]
    CanaryUnderWay {
        /// The model.
        model: ModelName,
        /// The canary.
        version: VersionNumber,
    },
    /// There is nothing that a canary could be compared with.
    #[error(
        "model '{model}' has no version that serves and is to go on serving, which a canary is compared with; `paceline model deploy {model}` makes one"
    )]
    NoStableVersion {
        /// The model.
        model: ModelName,
    },
    /// The version serves already.
    #[error("version {version} of model '{model}' serves already; a canary is another one")]
    ServesAlready {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
    },
    /// No canary, or another one than the command was decided for.
    #[error("model '{model}' has no canary that this could be done to")]
    NoCanary {
        /// The model.
        model: ModelName,
    },
    /// The canary is in another stage than the command was decided in.
    #[error(
        "the canary of model '{model}' cannot enter stage {stage} now; its stages are {stages}, one after another"
    )]
    CanaryStage {
        /// The model.
        model: ModelName,
        /// The stage that was named, from 0.
        stage: u32,
        /// How many it has.
        stages: u32,
    },
    /// No version has served before.
    #[error(
        "no other version of model '{model}' has served before; `paceline model deploy {model}@V` names one"
    )]
    NoPrevious {
        /// The model.
        model: ModelName,
    },
    /// The model has changed since the author of the write has looked.
    #[error(
        "model '{model}' is at revision {found}, not {expected}: it has changed meanwhile; \
         `paceline model show {model}` shows it"
    )]
    RevisionDiffers {
        /// The model.
        model: ModelName,
        /// What was expected.
        expected: Epoch,
        /// What it is; 0 if there is no such model.
        found: Epoch,
    },
    /// Only models have revisions.
    #[error("only a write of a model can expect a revision")]
    NoRevision,
    /// No such label.
    #[error("model '{model}' has no label '{label}'; its labels: {known}")]
    LabelUnknown {
        /// The model.
        model: ModelName,
        /// What was named.
        label: Label,
        /// The labels there are, as text.
        known: String,
    },
    /// No share of the requests.
    #[error("a shadow's share, in 1/10,000, is {weight}; allowed are 1 to 10000")]
    ShadowShare {
        /// What was wanted.
        weight: u16,
    },
    /// The version is its model's shadow.
    #[error(
        "version {version} is the shadow of model '{model}'; `paceline shadow {model} --off` ends that first"
    )]
    IsShadow {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
    },
    /// The version is tried as a canary.
    #[error(
        "version {version} of model '{model}' is tried as its canary: its answers are given, and need no copies"
    )]
    IsCanary {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
    },
    /// There is nothing to switch off.
    #[error("model '{model}' has no shadow; `paceline shadow {model}@V --traffic 10%` makes one")]
    NoShadow {
        /// The model.
        model: ModelName,
    },
}

impl Refusal {
    /// The stable code of this refusal.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ModelUnknown { .. } => ErrorCode::ModelNotFound,
            Self::VersionUnknown { .. } => ErrorCode::VersionNotFound,
            Self::OwnerDiffers { .. } | Self::NodeName { .. } => ErrorCode::AlreadyExists,
            Self::ReplicaUnknown { .. } | Self::Outdated { .. } => ErrorCode::Conflict,
            Self::DeviceUnknown { .. } | Self::ReplicaCount { .. } => ErrorCode::ParameterInvalid,
            Self::Limit { .. } => ErrorCode::LimitReached,
            Self::Schema { .. } => ErrorCode::Unsupported,
            Self::TokenUnknown | Self::TokenExpired | Self::TokenUsed | Self::NodeBurnt { .. } => {
                ErrorCode::Unauthenticated
            }
            Self::TokenExists => ErrorCode::AlreadyExists,
            Self::NodeUnknown { .. } => ErrorCode::NotFound,
            Self::LastNode { .. } | Self::NotDraining { .. } => ErrorCode::Conflict,
            Self::TenantUnknown { .. } | Self::KeyUnknown { .. } => ErrorCode::NotFound,
            Self::TenantOwns { .. } | Self::TenantDefault => ErrorCode::Conflict,
            Self::TenantLimits => ErrorCode::ParameterInvalid,
            Self::KeyExists => ErrorCode::AlreadyExists,
            Self::KeysMany { .. } => ErrorCode::LimitReached,
            Self::CanaryInvalid { .. } => ErrorCode::ParameterInvalid,
            Self::CanaryUnderWay { .. }
            | Self::NoStableVersion { .. }
            | Self::ServesAlready { .. }
            | Self::NoCanary { .. }
            | Self::CanaryStage { .. }
            | Self::NoPrevious { .. }
            | Self::RevisionDiffers { .. } => ErrorCode::Conflict,
            Self::NoRevision | Self::ShadowShare { .. } => ErrorCode::ParameterInvalid,
            Self::IsShadow { .. } | Self::IsCanary { .. } | Self::NoShadow { .. } => {
                ErrorCode::Conflict
            }
            Self::LabelUnknown { .. } => ErrorCode::VersionNotFound,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}
