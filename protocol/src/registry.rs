//! What the cluster agrees on: the commands of the replicated registry, and their outcomes.
//!
//! A command holds all that applying it needs: the leader stamps the time into it, and
//! weights and durations are integers, so every node computes the same state from it.

mod canary;
mod names;
mod refusal;
mod shadow;

use serde::{Deserialize, Serialize};

pub use self::canary::{CanaryGuards, CanaryPlan, CanaryStage};
pub use self::refusal::Refusal;
pub use self::shadow::ShadowPlan;
use crate::id::{
    DeviceId, Digest, Epoch, ModelName, NodeId, OpId, ReplicaId, TenantName, TokenId, VersionNumber,
};
use crate::label::Label;
use crate::signature::Signature;
use crate::tenant::{KeyId, KeyRecord, TenantLimits};

/// Number of the layout of [`Command`]; it comes first in every log entry. A node refuses
/// entries of a later schema rather than guess.
pub const SCHEMA: u16 = 4;

/// One intended change of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// [`SCHEMA`] at the time of writing.
    pub schema: u16,
    /// Names the intention; a repeat is answered with the first outcome.
    pub op: OpId,
    /// Wall clock of the node that proposed it, in milliseconds since 1970: for people, never
    /// for decisions.
    pub stamped_ms: u64,
    /// For a change of a model: its revision as the author has seen it, 0 if there was no such
    /// model. If it is another one, nothing is changed.
    pub expected_revision: Option<Epoch>,
    /// What to change.
    pub change: Change,
}

/// What a command changes. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A node announces what it is and has. The founder uses [`NodeId::FOUNDER`].
    RegisterNode(NodeRecord),
    /// A version becomes known; the model is created with its first version. The registry
    /// gives the number. The same artifact published again is the same version.
    PublishVersion {
        /// The model.
        model: ModelName,
        /// Who owns it; must equal the owner of an existing model.
        owner: TenantName,
        /// What the version is.
        version: Box<VersionRecord>,
    },
    /// A version shall serve with so many replicas. Traffic moves when they are ready.
    Deploy {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
        /// How many.
        replicas: ReplicaTarget,
    },
    /// Traffic moves to the deployed version: its replicas are ready. By the reconciler.
    Activate {
        /// The model.
        model: ModelName,
        /// The version that is ready.
        version: VersionNumber,
        /// The epoch that this was decided at.
        computed_at: Epoch,
    },
    /// A replica shall exist; its id is the index of this entry. By the reconciler.
    Assign {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
        /// Where.
        node: NodeId,
        /// On which of the node's devices.
        device: DeviceId,
        /// The epoch that this was decided at.
        computed_at: Epoch,
    },
    /// A replica shall go. By the reconciler.
    Unassign {
        /// Which one.
        replica: ReplicaId,
        /// The epoch that this was decided at.
        computed_at: Epoch,
    },
    /// A model, its versions and its deployment are forgotten.
    DeleteModel {
        /// The model.
        model: ModelName,
    },
    /// Somebody who knows a secret may join.
    CreateToken(TokenRecord),
    /// A token admits nobody any more.
    RevokeToken {
        /// Which one.
        token: TokenId,
    },
    /// A machine becomes a node; its id is the index of this entry. The same key again is the
    /// same node, whatever has become of the token.
    AdmitNode {
        /// The token that it has shown.
        token: TokenId,
        /// SHA-256 of the secret that it has shown.
        secret_sha256: Digest,
        /// SHA-256 of its public key (SubjectPublicKeyInfo, DER).
        key_sha256: Digest,
        /// What people shall call it; empty for the first of `n0`, `n1`, … that is free.
        name: String,
        /// Where it stands.
        zone: String,
    },
    /// A node was not heard for long: its replicas are replaced. By the leader.
    MarkDown {
        /// The node.
        node: NodeId,
        /// The epoch that this was decided at.
        computed_at: Epoch,
    },
    /// A node that was down is heard again. By the leader.
    MarkUp {
        /// The node.
        node: NodeId,
        /// The epoch that this was decided at.
        computed_at: Epoch,
    },
    /// A node leaves from the index of this entry on: it gets no new replicas, and those that
    /// it has go as they are replaced.
    Drain {
        /// The node.
        node: NodeId,
        /// How long that may take from when the node has applied it, in milliseconds; what is
        /// left then is ended.
        deadline_ms: u64,
        /// The epoch that this was found harmless at.
        computed_at: Epoch,
    },
    /// A draining node has ended what it had accepted, and takes nothing more.
    Drained {
        /// The node.
        node: NodeId,
        /// The index of the drain that this ends.
        since: Epoch,
    },
    /// A node takes work again.
    Undrain {
        /// The node.
        node: NodeId,
    },
    /// A node leaves for ever: its replicas go, and its id is never believed again.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// A tenant is made, or has other limits from now on. The id of a new one is the index of this
    /// entry.
    SetTenant {
        /// Its name.
        tenant: TenantName,
        /// What it may take.
        limits: TenantLimits,
    },
    /// A tenant and its keys are forgotten. Refused while it owns models.
    DeleteTenant {
        /// Its name.
        tenant: TenantName,
    },
    /// Whoever shows this key is this tenant.
    AddKey {
        /// The tenant.
        tenant: TenantName,
        /// How the key is recognised.
        key: KeyRecord,
    },
    /// A key is nobody's any more.
    RevokeKey {
        /// Which one.
        key: KeyId,
    },
    /// A version is tried beside the one that serves: it gets replicas, and once they are ready
    /// its first share of the requests.
    BeginCanary {
        /// The model.
        model: ModelName,
        /// Which version, and how.
        plan: Box<CanaryPlan>,
    },
    /// A canary enters a stage, the first one when its replicas are ready. By the leader.
    AdvanceCanary {
        /// The model.
        model: ModelName,
        /// The entry that began the canary.
        since: Epoch,
        /// The stage that it enters, counted from 0: the next one.
        stage: u32,
    },
    /// The canary shall serve: it has its stages behind it, or an operator says so. Traffic moves
    /// when its replicas are as many as were wanted and ready.
    PromoteCanary {
        /// The model.
        model: ModelName,
        /// The entry that began the canary, as the leader knows it; by hand, whichever it is.
        since: Option<Epoch>,
    },
    /// The canary gets no request from the index of this entry on, and its replicas go.
    AbortCanary {
        /// The model.
        model: ModelName,
        /// The entry that began the canary, as the leader knows it; by hand, whichever it is.
        since: Option<Epoch>,
        /// Why, of at most [`ABORT_REASON_BYTES_MAX`](crate::limits::ABORT_REASON_BYTES_MAX)
        /// bytes; what is longer is cut.
        reason: String,
    },
    /// The version that served before shall serve again; while a deployment is under way, the one
    /// that serves stays.
    Rollback {
        /// The model.
        model: ModelName,
    },
    /// A version is called so from the index of this entry on, and no other one is.
    SetLabel {
        /// The model.
        model: ModelName,
        /// What it is called.
        label: Label,
        /// Which version; none if the label goes.
        version: Option<VersionNumber>,
    },
    /// A version gets replicas, and once they are ready copies of a share of the requests, whose
    /// answers nobody waits for. Set anew for the same version its share or replicas change.
    SetShadow {
        /// The model.
        model: ModelName,
        /// Which version, and how much.
        plan: ShadowPlan,
    },
    /// The shadow gets no copy from the index of this entry on, and its replicas go.
    EndShadow {
        /// The model.
        model: ModelName,
    },
    /// No version shall serve from the index of this entry on: all replicas go, a shadow with them.
    /// Versions and labels stay, and so does what has served, for whoever deploys it again.
    Undeploy {
        /// The model.
        model: ModelName,
    },
}

/// What the registry knows of a join token: enough to recognise its secret, not to show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Which one.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub secret_sha256: Digest,
    /// When it admits nobody any more, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many nodes it still admits.
    pub uses_left: u32,
}

/// How many replicas a deployment wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaTarget {
    /// This many, on as many nodes as possible.
    Count(u32),
    /// One on each node.
    Each,
}

/// What the registry knows of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its identity.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where it stands; replicas are spread over zones.
    pub zone: String,
    /// Where it is reached.
    pub addresses: NodeAddresses,
    /// What it can compute on; the position is the device's id.
    pub devices: Vec<DeviceRecord>,
}

/// Where a node is reached, each as `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// HTTP inference and operator API.
    pub http: String,
    /// gRPC inference; empty where there is no such door.
    pub grpc: String,
    /// Prometheus metrics.
    pub metrics: String,
    /// SDK and joining, over QUIC.
    pub sdk: String,
    /// Peers, over QUIC.
    pub peer: String,
}

/// A device of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// What it is.
    pub kind: DeviceKind,
    /// Batches that it runs at a time.
    pub lanes: u16,
    /// Memory for weights and activations, in bytes.
    pub memory_bytes: u64,
}

/// Kinds of devices. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A pool of CPU threads.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// What the registry knows of a version. Immutable once published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// SHA-256 of the artifact's manifest.
    pub digest: Digest,
    /// The family that loads it: `mlp`, `identity`, …
    pub family: String,
    /// What it takes and gives.
    pub signature: Signature,
    /// Largest batch, in rows.
    pub rows_max: u32,
    /// Whether NaN and infinities are refused at the door.
    pub finite_inputs: bool,
    /// Bytes of the artifact.
    pub artifact_bytes: u64,
    /// Memory of one replica as its engine accounts it, in bytes.
    pub memory_bytes: u64,
    /// Measured cost of one row when it was pushed, in nanoseconds.
    pub one_row_ns: u64,
    /// Measured cost of a batch of `rows_max` when it was pushed, in nanoseconds.
    pub full_batch_ns: u64,
    /// Up to 64 numbers of what it answered to a known row when it was pushed, as bits of bfloat16:
    /// replicas that answer something else do not serve. None where its answer has no floats, or some
    /// that are not finite.
    #[serde(default)]
    pub golden: Vec<u16>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The log index that the command was applied at; for a repeat, that of the first time.
    pub epoch: Epoch,
    /// What it did, or why it did nothing.
    pub result: Result<Reply, Refusal>,
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The state is as wished.
    Done,
    /// The version has this number; `created` is false if it was known before.
    Published {
        /// Its number.
        version: VersionNumber,
        /// Whether this command made it.
        created: bool,
    },
    /// The replica has this id.
    Assigned(ReplicaId),
    /// The node has this id.
    Admitted(NodeId),
}

#[cfg(test)]
mod tests;
