//! Machine of the control plane: the replicated state, changed only by [`Registry::apply`].
//!
//! It holds desired state and slow facts: nodes, models, versions, deployments, assignments,
//! and the remembered outcomes of recent op-ids. What is observed (a replica loads, is ready,
//! has failed) is not in it. Applying reads no clock, draws nothing at random and uses no
//! float, so every node computes the same state from the same log.

mod labels;
mod model;
mod ops;
mod replicas;
mod revision;
mod seat;
mod shadow;
mod tenants;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use paceline_protocol::limits::{MODELS_MAX, REPLICAS_MAX, VERSIONS_KEPT_MAX};
use paceline_protocol::registry::{
    Change, Command, NodeRecord, Outcome, Refusal, ReplicaTarget, Reply, SCHEMA, TokenRecord,
    VersionRecord,
};
use paceline_protocol::{
    Digest, Epoch, ModelName, NodeId, OpId, ReplicaId, TenantName, TokenId, VersionNumber,
};
use serde::{Deserialize, Serialize};

use crate::planted::Bug;

pub use self::model::{Assignment, Deployment, Model, PublishedVersion};
use self::ops::RememberedOps;
use self::replicas::Replicas;
pub use self::seat::NodeState;
use self::seat::{NodesMax, Seat};
pub use self::shadow::Shadow;
pub use self::tenants::Tenant;
pub use self::traffic::{Canary, CanaryEnd};

/// The replicated state. Cloning shares the models, so a clone is cheap to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    epoch: Epoch,
    assignments_changed_at: Epoch,
    nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    /// Who may be a node, also before it has said where it is reached.
    seats: BTreeMap<NodeId, Seat>,
    /// Ids of nodes that were removed, and their keys.
    burnt: BTreeMap<NodeId, Option<Digest>>,
    tokens: BTreeMap<TokenId, TokenRecord>,
    models: BTreeMap<ModelName, Arc<Model>>,
    replicas: Replicas,
    ops: RememberedOps,
    tenants: BTreeMap<TenantName, Arc<Tenant>>,
    /// In no snapshot: what is read from one is the product's.
    #[serde(skip)]
    nodes_max: NodesMax,
}

impl Registry {
    /// An empty one that takes so many nodes, where [`Registry::default`] takes
    /// [`NODES_MAX`](paceline_protocol::limits::NODES_MAX), as the product does. Registries that apply one log must have one limit.
    pub fn of_nodes(nodes_max: usize) -> Self {
        Self {
            nodes_max: NodesMax(nodes_max),
            ..Self::default()
        }
    }

    /// Applies the entry at log index `index`.
    ///
    /// A command whose op-id is remembered changes nothing and gets its first outcome. A
    /// refused command changes nothing but is remembered too: a retry must not succeed where
    /// the first try failed.
    ///
    /// # Panics
    /// If `index` is not above every index applied before: entries are applied in order.
    pub fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        let epoch = Epoch(index);
        assert!(
            epoch > self.epoch,
            "entry {index} applied after {}",
            self.epoch
        );
        self.epoch = epoch;
        if let Some(outcome) = self.ops.outcome(command.op)
            && !Bug::RepeatExecutes.is_planted()
        {
            return outcome.clone();
        }
        let result = if command.schema > SCHEMA {
            Err(Refusal::Schema {
                schema: command.schema,
            })
        } else {
            self.change(epoch, command)
        };
        let outcome = Outcome { epoch, result };
        self.ops.remember(command.op, outcome.clone());
        outcome
    }

    /// Notes that the entry at `index` was applied and held no command of ours.
    pub fn skip(&mut self, index: u64) {
        self.epoch = Epoch(index);
    }

    /// What became of the write that `op` names, if it is remembered.
    pub fn outcome(&self, op: OpId) -> Option<&Outcome> {
        self.ops.outcome(op)
    }

    /// Index of the last entry applied.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch at which assignments, or what they follow from, changed last.
    pub fn assignments_changed_at(&self) -> Epoch {
        self.assignments_changed_at
    }

    /// Nodes by id.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Arc<NodeRecord>> {
        &self.nodes
    }

    /// Models by name.
    pub fn models(&self) -> &BTreeMap<ModelName, Arc<Model>> {
        &self.models
    }

    /// Replicas by id.
    pub fn replicas(&self) -> &BTreeMap<ReplicaId, Arc<Assignment>> {
        self.replicas.all()
    }

    fn perform(&mut self, epoch: Epoch, command: &Command) -> Result<Reply, Refusal> {
        match &command.change {
            Change::RegisterNode(node) => self.register_node(epoch, node),
            Change::PublishVersion {
                model,
                owner,
                version,
            } => self.publish(model, owner, version, command.stamped_ms),
            Change::Deploy {
                model,
                version,
                replicas,
            } => self.deploy(epoch, model, (*version, *replicas)),
            Change::Activate {
                model,
                version,
                computed_at,
            } => {
                self.check_current(*computed_at)?;
                self.activate(epoch, model, *version)
            }
            Change::Assign {
                model,
                version,
                node,
                device,
                computed_at,
            } => {
                self.check_current(*computed_at)?;
                let assignment = Assignment {
                    model: model.clone(),
                    version: *version,
                    node: *node,
                    device: *device,
                };
                self.assign(epoch, assignment)
            }
            Change::Unassign {
                replica,
                computed_at,
            } => {
                self.check_current(*computed_at)?;
                self.unassign(epoch, *replica)
            }
            Change::Undeploy { model } => self.undeploy(epoch, model),
            Change::DeleteModel { model } => self.delete_model(epoch, model),
            Change::SetTenant { .. }
            | Change::DeleteTenant { .. }
            | Change::AddKey { .. }
            | Change::RevokeKey { .. } => self.change_tenants(epoch, &command.change),
            Change::CreateToken(_)
            | Change::RevokeToken { .. }
            | Change::AdmitNode { .. }
            | Change::MarkDown { .. }
            | Change::MarkUp { .. }
            | Change::Drain { .. }
            | Change::Drained { .. }
            | Change::Undrain { .. }
            | Change::RemoveNode { .. } => self.change_members(epoch, command),
            Change::BeginCanary { .. }
            | Change::AdvanceCanary { .. }
            | Change::PromoteCanary { .. }
            | Change::AbortCanary { .. }
            | Change::Rollback { .. }
            | Change::SetLabel { .. } => self.change_traffic(epoch, &command.change),
            Change::SetShadow { model, plan } => self.set_shadow(epoch, model, *plan),
            Change::EndShadow { model } => self.end_shadow(epoch, model),
        }
    }

    fn register_node(&mut self, epoch: Epoch, node: &NodeRecord) -> Result<Reply, Refusal> {
        self.check_name(&node.name, Some(node.id))?;
        if self.burnt.contains_key(&node.id) {
            return Err(Refusal::NodeBurnt { node: node.id });
        }
        let known = self.nodes.get(&node.id);
        if known.is_none() {
            self.check_room(self.nodes.len())?;
        }
        if known.is_none_or(|known| **known != *node) {
            self.nodes.insert(node.id, Arc::new(node.clone()));
            let seat = self.seats.entry(node.id).or_default();
            seat.name.clone_from(&node.name);
            self.assignments_changed_at = epoch;
        }
        Ok(Reply::Done)
    }

    fn publish(
        &mut self,
        name: &ModelName,
        owner: &TenantName,
        record: &VersionRecord,
        stamped_ms: u64,
    ) -> Result<Reply, Refusal> {
        if !self.models.contains_key(name) {
            if self.models.len() >= MODELS_MAX {
                return Err(Refusal::Limit {
                    what: "models".into(),
                    limit: MODELS_MAX as u64,
                });
            }
            self.models
                .insert(name.clone(), Arc::new(Model::owned_by(owner.clone())));
        }
        let in_use = self.versions_in_use(name);
        let model = self.model_mut(name)?;
        if model.owner != *owner {
            return Err(Refusal::OwnerDiffers {
                model: name.clone(),
            });
        }
        let same = model
            .versions
            .iter()
            .find(|(_, known)| known.record.digest == record.digest);
        if let Some((version, _)) = same {
            return Ok(Reply::Published {
                version: *version,
                created: false,
            });
        }
        if model.versions.len() >= VERSIONS_KEPT_MAX {
            let idle = model
                .versions
                .keys()
                .find(|version| !in_use.contains(version))
                .copied();
            let limit = VERSIONS_KEPT_MAX as u64;
            let oldest = idle.ok_or(Refusal::Limit {
                what: "versions in use".into(),
                limit,
            })?;
            model.versions.remove(&oldest);
        }
        let version = model.next_version;
        model.next_version = VersionNumber(version.0 + 1);
        let published = PublishedVersion {
            record: record.clone(),
            published_ms: stamped_ms,
        };
        model.versions.insert(version, published);
        Ok(Reply::Published {
            version,
            created: true,
        })
    }

    fn deploy(
        &mut self,
        epoch: Epoch,
        name: &ModelName,
        (version, replicas): (VersionNumber, ReplicaTarget),
    ) -> Result<Reply, Refusal> {
        self.check_replicas(replicas)?;
        let model = self.model_mut(name)?;
        model.check_version(name, version)?;
        model.check_no_canary(name, Some(version))?;
        model.deployment = Some(Deployment { version, replicas });
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    /// Nothing of the model serves any more; what did is remembered as what served before.
    fn undeploy(&mut self, epoch: Epoch, name: &ModelName) -> Result<Reply, Refusal> {
        let model = self.model_mut(name)?;
        model.check_no_canary(name, None)?;
        model.rest();
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    fn activate(
        &mut self,
        epoch: Epoch,
        name: &ModelName,
        version: VersionNumber,
    ) -> Result<Reply, Refusal> {
        let model = self.model_mut(name)?;
        model.check_version(name, version)?;
        model.serve(version, epoch);
        Ok(Reply::Done)
    }

    fn assign(&mut self, epoch: Epoch, assignment: Assignment) -> Result<Reply, Refusal> {
        self.models
            .get(&assignment.model)
            .ok_or_else(|| Refusal::ModelUnknown {
                model: assignment.model.clone(),
            })?
            .check_version(&assignment.model, assignment.version)?;
        let (node, device) = (assignment.node, assignment.device);
        let known = self.nodes.get(&node);
        if known.is_none_or(|node| usize::from(device.0) >= node.devices.len()) {
            return Err(Refusal::DeviceUnknown { node, device });
        }
        if self.replicas().len() >= REPLICAS_MAX {
            return Err(Refusal::Limit {
                what: "replicas".into(),
                limit: REPLICAS_MAX as u64,
            });
        }
        let replica = ReplicaId(epoch.0);
        self.replicas.insert(replica, Arc::new(assignment));
        self.assignments_changed_at = epoch;
        Ok(Reply::Assigned(replica))
    }

    fn unassign(&mut self, epoch: Epoch, replica: ReplicaId) -> Result<Reply, Refusal> {
        self.replicas
            .remove(replica)
            .ok_or(Refusal::ReplicaUnknown { replica })?;
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    fn delete_model(&mut self, epoch: Epoch, name: &ModelName) -> Result<Reply, Refusal> {
        self.models
            .remove(name)
            .ok_or_else(|| Refusal::ModelUnknown {
                model: name.clone(),
            })?;
        self.replicas.remove_model(name);
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    fn check_current(&self, computed_at: Epoch) -> Result<(), Refusal> {
        let changed_at = self.assignments_changed_at;
        if computed_at < changed_at {
            return Err(Refusal::Outdated {
                computed_at,
                changed_at,
            });
        }
        Ok(())
    }

    fn model_mut(&mut self, name: &ModelName) -> Result<&mut Model, Refusal> {
        self.models
            .get_mut(name)
            .map(Arc::make_mut)
            .ok_or_else(|| Refusal::ModelUnknown {
                model: name.clone(),
            })
    }

    /// Versions that must not be forgotten: they are named, or have replicas.
    fn versions_in_use(&self, name: &ModelName) -> Vec<VersionNumber> {
        let model = self.models.get(name);
        let wanted = model.into_iter().flat_map(|model| model.versions_named());
        let assigned = self.replicas.by_version();
        let assigned = assigned.filter(|(model, ..)| *model == name);
        wanted
            .chain(assigned.map(|(_, version, _)| version))
            .collect()
    }
}

#[cfg(test)]
mod tests;
