//! What the operator does: nodes are registered, versions published and deployed, nodes drained
//! and taken back. Each command is asked for until it has an answer, with one op-id.

use std::collections::BTreeMap;

use paceline_core::membership::{self, View};
use paceline_core::registry::Registry;
use paceline_protocol::registry::{
    Change, Command, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord, Outcome, Refusal, SCHEMA,
    ShadowPlan, VersionRecord,
};
use paceline_protocol::{
    Digest, Dim, Dtype, ModelName, NodeId, OpId, ShapePattern, Signature, TenantName, TensorSpec,
    VersionNumber,
};

use super::{State, World};
use crate::agenda::{Event, NodeIndex};
use crate::scenario::{Group, Operation, Scenario, node_position};

/// Something that the operator wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Register(NodeIndex),
    SetTenant(u16),
    Publish(u16, u32),
    Deploy(u16, u32),
    Try(u16, u32),
    Shadow(u16, u32),
    Do(Operation),
}

/// What the operator wants, in the order of the scenario, and under which op-ids.
pub(super) struct Operator {
    wishes: Vec<Wish>,
    ops: BTreeMap<u32, OpId>,
}

impl Operator {
    /// Everything that the scenario wants, with when.
    pub(super) fn new(scenario: &Scenario) -> (Self, Vec<u64>) {
        let nodes = (0..scenario.nodes()).map(|node| (0, Wish::Register(NodeIndex(node as u16))));
        let tenants = 0..scenario.tenants.len();
        let tenants = tenants.map(|tenant| (0, Wish::SetTenant(tenant as u16)));
        let models = scenario.models.iter().enumerate();
        let versions = models.flat_map(|(model, of)| {
            let versions = of.versions.iter().enumerate();
            versions.flat_map(move |(position, version)| {
                let (model, number) = (model as u16, position as u32 + 1);
                [
                    (version.deploy_ms, Wish::Publish(model, number)),
                    (
                        version.deploy_ms,
                        match (&version.canary, version.shadow) {
                            (Some(_), _) => Wish::Try(model, number),
                            (None, Some(_)) => Wish::Shadow(model, number),
                            (None, None) => Wish::Deploy(model, number),
                        },
                    ),
                ]
            })
        });
        let operations = scenario.operations.iter();
        let operations = operations.map(|of| (of.at_ms(), Wish::Do(of.clone())));
        let (times, wishes) = nodes
            .chain(tenants)
            .chain(versions)
            .chain(operations)
            .unzip();
        let ops = BTreeMap::new();
        (Self { wishes, ops }, times)
    }
}

impl World {
    /// The operator asks for something, for the how many-th time.
    pub(super) fn operate(&mut self, number: u32, asked: u16) {
        let wish = self.operator.wishes[number as usize].clone();
        if let Some(op) = self.operator.ops.get(&number) {
            match self.consensus.outcome(*op) {
                Some(Outcome { result: Ok(_), .. }) => return,
                // It is decided anew, under another op-id.
                Some(Outcome {
                    result: Err(Refusal::Outdated { .. }),
                    ..
                }) => drop(self.operator.ops.remove(&number)),
                Some(Outcome { result: Err(_), .. }) => return,
                None => {}
            }
        }
        if asked < ASKED_MAX {
            let at = self.outside.now.plus_nanos(ASK_AGAIN_NANOS);
            let again = Event::Operation(number, asked + 1);
            self.outside.agenda.plan(at, again);
        }
        let Some(leader) = self.outside.leader else {
            return;
        };
        let Some(change) = self.change(&wish, leader.node) else {
            return;
        };
        let next = self.outside.op();
        let op = *self.operator.ops.entry(number).or_insert(next);
        let command = Command {
            schema: SCHEMA,
            op,
            stamped_ms: self.outside.now.as_nanos() / 1_000_000,
            expected_revision: None,
            change,
        };
        let at = (leader, leader);
        self.consensus
            .propose(&mut self.outside, at, Box::new(command));
    }

    /// What to write for a wish; `None` if it has to wait.
    fn change(&mut self, wish: &Wish, leader: NodeIndex) -> Option<Change> {
        let scenario = self.outside.scenario.clone();
        let registry = self.outside.history.newest();
        let name =
            |model: u16| ModelName::new(scenario.models[usize::from(model)].name.as_str()).ok();
        Some(match wish {
            Wish::Register(node) => {
                let group = &self.nodes[usize::from(node.0)].group;
                Change::RegisterNode(node_record(*node, group))
            }
            Wish::SetTenant(tenant) => {
                let tenant = &scenario.tenants[usize::from(*tenant)];
                Change::SetTenant {
                    tenant: TenantName::new(tenant.name.as_str()).ok()?,
                    limits: tenant.limits(),
                }
            }
            Wish::Publish(model, number) => Change::PublishVersion {
                model: name(*model)?,
                owner: TenantName::default(),
                version: Box::new(version_record((*model, *number), &scenario)),
            },
            Wish::Deploy(model, number) => {
                let (name, version) = (name(*model)?, VersionNumber(*number));
                let known = registry.models().get(&name)?;
                known.versions.get(&version)?;
                Change::Deploy {
                    model: name,
                    version,
                    replicas: scenario.models[usize::from(*model)].replicas.target(),
                }
            }
            Wish::Try(model, number) => {
                let (name, of) = (name(*model)?, &scenario.models[usize::from(*model)]);
                let known = registry.models().get(&name)?;
                let version = VersionNumber(*number);
                known.versions.get(&version)?;
                // Nothing can be tried beside a deployment or another canary: it waits for the end.
                let deployed = known.deployment.map(|deployment| deployment.version);
                let is_stable = known.serving.is_some() && known.serving == deployed;
                if !is_stable || known.canary.is_some() {
                    return None;
                }
                let trial = of.versions[*number as usize - 1].canary.as_ref()?;
                Change::BeginCanary {
                    model: name,
                    plan: Box::new(trial.plan(version, of.replicas.target())),
                }
            }
            Wish::Shadow(model, number) => {
                let (name, of) = (name(*model)?, &scenario.models[usize::from(*model)]);
                let known = registry.models().get(&name)?;
                let version = VersionNumber(*number);
                known.versions.get(&version)?;
                known.serving?;
                let plan = ShadowPlan {
                    version,
                    replicas: of.replicas.target(),
                    weight: of.versions[*number as usize - 1].shadow?,
                };
                Change::SetShadow { model: name, plan }
            }
            Wish::Do(Operation::Drain {
                node, deadline_ms, ..
            }) => return self.drain(&registry, (leader, node), *deadline_ms),
            Wish::Do(Operation::Undrain { node, .. }) => Change::Undrain {
                node: self.named(node)?,
            },
        })
    }

    /// As the operator API does: not if it would harm, and leadership goes first.
    fn drain(
        &mut self,
        registry: &Registry,
        (leader, node): (NodeIndex, &str),
        deadline_ms: u64,
    ) -> Option<Change> {
        let node = self.named(node)?;
        let voters = (1..=u64::from(self.consensus.voters())).map(NodeId);
        let leads = NodeId(u64::from(leader.0) + 1);
        let view = View {
            registry,
            leader: leads,
            voters: voters.collect(),
            learners: Default::default(),
            lags: Default::default(),
        };
        let observed = self.nodes[usize::from(leader.0)].node.observed();
        membership::may_drain(&view, &observed, node).ok()?;
        if leads == node
            && let Some(to) = membership::successor(&view, node)
        {
            let place = &self.nodes[to.0 as usize - 1];
            let to = place.node.process();
            let network = &self.outside.network;
            let is_reached = network.reaches(leader, to.node) && network.reaches(to.node, leader);
            // Who does not answer takes nothing over: it is asked again.
            if place.state != State::Runs || !is_reached {
                return None;
            }
            self.consensus.transfer(&mut self.outside, to);
        }
        Some(Change::Drain {
            node,
            deadline_ms,
            computed_at: registry.epoch(),
        })
    }

    /// The node of this name.
    fn named(&self, name: &str) -> Option<NodeId> {
        let position = node_position(name, self.nodes.len())?;
        Some(NodeId(u64::from(position) + 1))
    }
}

fn node_record(node: NodeIndex, group: &Group) -> NodeRecord {
    let cpu = DeviceRecord {
        kind: DeviceKind::Cpu,
        lanes: group.lanes,
        memory_bytes: group.memory_mib << 20,
    };
    NodeRecord {
        id: NodeId(u64::from(node.0) + 1),
        name: format!("n{}", node.0),
        zone: format!("{}/{}", group.region, group.zone),
        addresses: NodeAddresses::default(),
        devices: vec![cpu],
    }
}

fn version_record((model, number): (u16, u32), scenario: &Scenario) -> VersionRecord {
    let of = &scenario.models[usize::from(model)].versions[number as usize - 1];
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(vec![Dim::Any, Dim::Any]),
    };
    let mut digest = [0; 32];
    digest[..2].copy_from_slice(&model.to_le_bytes());
    digest[2..6].copy_from_slice(&number.to_le_bytes());
    VersionRecord {
        digest: Digest(digest),
        family: "simulated".into(),
        signature: Signature {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        },
        rows_max: of.rows_max,
        finite_inputs: false,
        artifact_bytes: 1,
        memory_bytes: of.memory_mib << 20,
        one_row_ns: of.cost.batch_ns(1, u64::from(of.row_tokens())),
        full_batch_ns: of.cost.batch_ns(of.rows_max, u64::from(of.tokens_max)),
        golden: Vec::new(),
    }
}

/// Pause before a command without an answer is asked for again.
const ASK_AGAIN_NANOS: u64 = 200_000_000;
/// Nothing is asked for longer than ten minutes.
const ASKED_MAX: u16 = 3_000;
