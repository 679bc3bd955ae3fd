//! What the registry keeps of a model, its versions and its replicas.

use std::collections::BTreeMap;

use paceline_protocol::registry::{Refusal, ReplicaTarget, VersionRecord};
use paceline_protocol::{DeviceId, Epoch, Label, ModelName, NodeId, TenantName, VersionNumber};
use serde::{Deserialize, Serialize};

use super::shadow::Shadow;
use super::traffic::{Canary, CanaryEnd};

/// A model: what its owner has published and deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Who owns it.
    pub owner: TenantName,
    /// Versions kept, by number.
    pub versions: BTreeMap<VersionNumber, PublishedVersion>,
    /// What shall serve.
    pub deployment: Option<Deployment>,
    /// What serves: traffic without a version goes here.
    pub serving: Option<VersionNumber>,
    /// What is tried beside it.
    pub canary: Option<Canary>,
    /// How the last canary ended.
    pub ended: Option<CanaryEnd>,
    /// What gets copies of requests.
    pub shadow: Option<Shadow>,
    /// What served before.
    pub previous: Option<VersionNumber>,
    /// Versions by what clients may call them.
    pub labels: BTreeMap<Label, VersionNumber>,
    /// The last entry that has changed any of this.
    pub revision: Epoch,
    pub(super) next_version: VersionNumber,
}

/// A version as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedVersion {
    /// What it is.
    pub record: VersionRecord,
    /// When it was published, in milliseconds since 1970, as its author's clock said.
    pub published_ms: u64,
}

/// What shall serve, and on how many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The version.
    pub version: VersionNumber,
    /// How many.
    pub replicas: ReplicaTarget,
}

/// Where a replica shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The model.
    pub model: ModelName,
    /// The version that it is a copy of.
    pub version: VersionNumber,
    /// The node.
    pub node: NodeId,
    /// The node's device.
    pub device: DeviceId,
}

impl Model {
    pub(super) fn owned_by(owner: TenantName) -> Self {
        Self {
            owner,
            versions: BTreeMap::new(),
            deployment: None,
            serving: None,
            canary: None,
            ended: None,
            shadow: None,
            previous: None,
            labels: BTreeMap::new(),
            revision: Epoch::default(),
            next_version: VersionNumber(1),
        }
    }

    pub(super) fn check_version(
        &self,
        name: &ModelName,
        version: VersionNumber,
    ) -> Result<(), Refusal> {
        if self.versions.contains_key(&version) {
            return Ok(());
        }
        let known: Vec<String> = self.versions.keys().map(ToString::to_string).collect();
        Err(Refusal::VersionUnknown {
            model: name.clone(),
            version,
            known: known.join(", "),
        })
    }

    /// What its versions are called, for errors.
    pub(super) fn labels_as_text(&self) -> String {
        let labels: Vec<&str> = self.labels.keys().map(Label::as_str).collect();
        match &labels[..] {
            [] => "none".to_owned(),
            labels => labels.join(", "),
        }
    }
}
