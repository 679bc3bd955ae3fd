//! What was agreed on, as the commands that were taken say: the books of those invariants that
//! judge what the cluster does about it.

use std::collections::BTreeMap;

use paceline_core::Instant;
use paceline_protocol::registry::{Change, Outcome, ReplicaTarget, Reply};
use paceline_protocol::{Epoch, ModelName, NodeId, ReplicaId, VersionNumber};

use crate::fact::Fact;

/// Nodes, replicas and deployments.
#[derive(Default)]
pub(super) struct Agreed {
    pub(super) nodes: BTreeMap<NodeId, Condition>,
    pub(super) replicas: BTreeMap<ReplicaId, Place>,
    pub(super) models: BTreeMap<ModelName, Wanted>,
}

/// A command that was taken for the first time; the repeat of one is answered as at its first
/// epoch, and changes nothing.
pub(super) fn news<'a>(fact: &Fact<'a>) -> Option<(&'a Change, &'a Outcome)> {
    let Fact::Applied {
        epoch,
        command,
        outcome,
    } = *fact
    else {
        return None;
    };
    (outcome.epoch == epoch).then_some((&command.change, outcome))
}

/// How a node is agreed to be.
#[derive(Clone, Copy, Default)]
pub(super) struct Condition {
    pub(super) is_down: bool,
    pub(super) drain: Option<Drain>,
}

/// A drain that was not ended.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    pub(super) since: Epoch,
    /// The node counts from when it has heard of it: it closes no earlier than this.
    pub(super) deadline: Instant,
}

/// Where a replica was assigned to, and of what.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) model: ModelName,
    pub(super) version: VersionNumber,
}

/// What shall serve, and what does.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) deployed: VersionNumber,
    pub(super) target: ReplicaTarget,
    pub(super) serving: Option<VersionNumber>,
    pub(super) tried: Option<VersionNumber>,
}

impl Agreed {
    /// Takes in a command that is [new](news). One that was refused has changed nothing.
    pub(super) fn take(&mut self, now: Instant, change: &Change, outcome: &Outcome) {
        let Ok(reply) = outcome.result else { return };
        match change {
            Change::RegisterNode(node) => drop(self.nodes.entry(node.id).or_default()),
            Change::RemoveNode { node } => {
                self.nodes.remove(node);
                self.replicas.retain(|_, place| place.node != *node);
            }
            Change::MarkDown { node, .. } => self.node(*node).is_down = true,
            Change::MarkUp { node, .. } => self.node(*node).is_down = false,
            Change::Drain {
                node, deadline_ms, ..
            } => {
                let drain = Drain {
                    since: outcome.epoch,
                    deadline: now.plus_nanos(deadline_ms.saturating_mul(1_000_000)),
                };
                self.node(*node).drain.get_or_insert(drain);
            }
            Change::Undrain { node } => self.node(*node).drain = None,
            Change::Assign {
                model,
                version,
                node,
                ..
            } => {
                if let Reply::Assigned(replica) = reply {
                    let place = Place {
                        node: *node,
                        model: model.clone(),
                        version: *version,
                    };
                    self.replicas.insert(replica, place);
                }
            }
            Change::Unassign { replica, .. } => drop(self.replicas.remove(replica)),
            Change::Deploy {
                model,
                version,
                replicas,
            } => self.deploy(model, (*version, *replicas)),
            Change::Activate { model, version, .. } => {
                if let Some(known) = self.models.get_mut(model) {
                    known.serving = Some(*version);
                    known.tried = known.tried.filter(|tried| tried != version);
                }
            }
            Change::Undeploy { model } => drop(self.models.remove(model)),
            Change::DeleteModel { model } => {
                self.models.remove(model);
                self.replicas.retain(|_, place| place.model != *model);
            }
            Change::BeginCanary { .. }
            | Change::PromoteCanary { .. }
            | Change::AbortCanary { .. } => self.take_canary(change),
            Change::PublishVersion { .. }
            | Change::CreateToken(_)
            | Change::RevokeToken { .. }
            | Change::AdmitNode { .. }
            | Change::Drained { .. }
            | Change::SetTenant { .. }
            | Change::DeleteTenant { .. }
            | Change::AddKey { .. }
            | Change::RevokeKey { .. }
            | Change::AdvanceCanary { .. }
            | Change::Rollback { .. }
            | Change::SetLabel { .. }
            | Change::SetShadow { .. }
            | Change::EndShadow { .. } => {}
        }
    }

    fn deploy(&mut self, model: &ModelName, (deployed, target): (VersionNumber, ReplicaTarget)) {
        let known = self.models.get(model);
        let wanted = Wanted {
            deployed,
            target,
            serving: known.and_then(|known| known.serving),
            tried: known.and_then(|known| known.tried),
        };
        self.models.insert(model.clone(), wanted);
    }

    fn take_canary(&mut self, change: &Change) {
        let (Change::BeginCanary { model, .. }
        | Change::PromoteCanary { model, .. }
        | Change::AbortCanary { model, .. }) = change
        else {
            return;
        };
        let Some(known) = self.models.get_mut(model) else {
            return;
        };
        if let Change::BeginCanary { plan, .. } = change {
            known.tried = Some(plan.version);
        } else if let Change::PromoteCanary { .. } = change {
            known.deployed = known.tried.unwrap_or(known.deployed);
        } else {
            known.deployed = known.serving.unwrap_or(known.deployed);
            known.tried = None;
        }
    }

    /// Whether a node is given replicas. Each has one device in the simulator.
    pub(super) fn takes_work(&self, node: NodeId) -> bool {
        let known = self.nodes.get(&node);
        known.is_some_and(|known| !known.is_down && known.drain.is_none())
    }

    /// Replicas that a version shall have.
    pub(super) fn wanted(&self, wanted: Wanted) -> usize {
        let working = self.working();
        match wanted.target {
            ReplicaTarget::Each => working,
            ReplicaTarget::Count(count) => working.min(count as usize),
        }
    }

    /// Nodes that are given replicas.
    pub(super) fn working(&self) -> usize {
        let nodes = self.nodes.keys();
        nodes.filter(|node| self.takes_work(**node)).count()
    }

    /// Replicas of a version on nodes that are given replicas.
    pub(super) fn standing<'a>(
        &'a self,
        model: &'a ModelName,
        version: VersionNumber,
    ) -> impl Iterator<Item = ReplicaId> + 'a {
        let of = self.replicas.iter().filter(move |(_, place)| {
            place.version == version && place.model == *model && self.takes_work(place.node)
        });
        of.map(|(id, _)| *id)
    }

    fn node(&mut self, node: NodeId) -> &mut Condition {
        self.nodes.entry(node).or_default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use paceline_protocol::registry::{Command, NodeAddresses, NodeRecord, SCHEMA};
    use paceline_protocol::{DeviceId, OpId};

    use super::super::Invariant;
    use super::*;
    use crate::fact::Fact;

    /// An invariant that is told of commands, all of which were taken.
    pub(in super::super) struct Told<I> {
        pub(in super::super) invariant: I,
        epoch: u64,
    }

    impl<I: Invariant> Told<I> {
        pub(in super::super) fn new(invariant: I) -> Self {
            let epoch = 0;
            Self { invariant, epoch }
        }

        pub(in super::super) fn see(&mut self, at: u64, fact: &Fact<'_>) -> Result<(), String> {
            self.invariant.observe(Instant::from_nanos(at), fact)
        }

        /// The epoch of the change, and what is said of it.
        pub(in super::super) fn take(&mut self, change: Change) -> (Epoch, Result<(), String>) {
            self.epoch += 1;
            let epoch = Epoch(self.epoch);
            let reply = if matches!(change, Change::Assign { .. }) {
                Reply::Assigned(ReplicaId(epoch.0))
            } else {
                Reply::Done
            };
            let command = Command {
                schema: SCHEMA,
                op: OpId(self.epoch.into()),
                stamped_ms: 0,
                expected_revision: None,
                change,
            };
            let result = Ok(reply);
            let outcome = Outcome { epoch, result };
            let applied = Fact::Applied {
                epoch,
                command: &command,
                outcome: &outcome,
            };
            (epoch, self.see(0, &applied))
        }

        /// Registers nodes from 1 to this one.
        pub(in super::super) fn register(&mut self, nodes: u64) {
            for id in (1..=nodes).map(NodeId) {
                let record = NodeRecord {
                    id,
                    name: format!("{id}"),
                    zone: String::new(),
                    addresses: NodeAddresses::default(),
                    devices: Vec::new(),
                };
                self.take(Change::RegisterNode(record)).1.unwrap();
            }
        }

        pub(in super::super) fn deploy(&mut self, count: u32) {
            let change = Change::Deploy {
                model: model(),
                version: VersionNumber(1),
                replicas: ReplicaTarget::Count(count),
            };
            self.take(change).1.unwrap();
        }

        pub(in super::super) fn activate(&mut self) {
            let change = Change::Activate {
                model: model(),
                version: VersionNumber(1),
                computed_at: Epoch(self.epoch),
            };
            self.take(change).1.unwrap();
        }

        pub(in super::super) fn assign(&mut self, node: u64) -> ReplicaId {
            let change = Change::Assign {
                model: model(),
                version: VersionNumber(1),
                node: NodeId(node),
                device: DeviceId(0),
                computed_at: Epoch(self.epoch),
            };
            let (epoch, judged) = self.take(change);
            judged.unwrap();
            ReplicaId(epoch.0)
        }

        pub(in super::super) fn unassign(&mut self, replica: ReplicaId) -> Result<(), String> {
            let computed_at = Epoch(self.epoch);
            let change = Change::Unassign {
                replica,
                computed_at,
            };
            self.take(change).1
        }

        /// The epoch of the drain.
        pub(in super::super) fn drain(&mut self, node: u64, deadline_ms: u64) -> Epoch {
            let change = Change::Drain {
                node: NodeId(node),
                deadline_ms,
                computed_at: Epoch(self.epoch),
            };
            self.take(change).0
        }
    }

    fn model() -> ModelName {
        ModelName::new("table").unwrap()
    }
}
