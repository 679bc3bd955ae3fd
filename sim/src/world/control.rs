//! The control plane: drives the registry and the placement policy, and loads replicas.
//!
//! Raft is a delay here: a command is applied on every node at once, so long after it was
//! proposed. What nodes observe of their replicas is known at once.

use paceline_core::batcher;
use paceline_core::cost::CostFit;
use paceline_core::placement::{self, Observed, ReplicaState};
use paceline_core::registry::Registry;
use paceline_protocol::registry::{
    Change, Command, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord, ReplicaTarget, SCHEMA,
    VersionRecord,
};
use paceline_protocol::{
    Digest, Dim, Dtype, ModelName, NodeId, OpId, ReplicaId, ShapePattern, Signature, TenantName,
    TensorSpec, VersionNumber,
};

use super::node::Node;
use super::outside::Outside;
use crate::agenda::Event;
use crate::fact::Fact;
use crate::scenario::Scenario;

/// The registry, what is observed, and the reconciler.
#[derive(Default)]
pub(super) struct Control {
    registry: Registry,
    observed: Observed,
    /// Index of the last log entry.
    index: u64,
    ops: u128,
    /// The reconciler's command that is not committed yet.
    proposed: Option<OpId>,
}

impl Control {
    /// Plans what the operator does: the nodes start, and each version is published and
    /// deployed when its time has come.
    pub(super) fn operate(&mut self, outside: &mut Outside) {
        for number in 1..=u64::from(outside.scenario.nodes) {
            let node = node_record(NodeId(number), &outside.scenario);
            self.propose(outside, Change::RegisterNode(node), 0);
        }
        for position in 0..outside.scenario.deploys_ms.len() {
            let at_ms = outside.scenario.deploys_ms[position];
            let number = position as u32 + 1;
            let publish = Change::PublishVersion {
                model: model_name(),
                owner: TenantName::default(),
                version: Box::new(version_record(number, &outside.scenario)),
            };
            self.propose(outside, publish, at_ms);
            let deploy = Change::Deploy {
                model: model_name(),
                version: VersionNumber(number),
                replicas: ReplicaTarget::Each,
            };
            self.propose(outside, deploy, at_ms);
        }
    }

    /// A command is committed: applies it, lets the nodes follow, and looks what is next.
    pub(super) fn commit(&mut self, outside: &mut Outside, nodes: &mut [Node], command: &Command) {
        self.index += 1;
        let outcome = self.registry.apply(self.index, command);
        outside.record(&Fact::Applied {
            epoch: outcome.epoch,
            change: command.change.name(),
            refusal: outcome.result.as_ref().err(),
        });
        if self.proposed == Some(command.op) {
            self.proposed = None;
        }
        let assigned = self.registry.replicas();
        self.observed
            .retain(|replica, _| assigned.contains_key(replica));
        for node in nodes {
            self.follow(outside, node);
            node.settle(outside);
        }
        self.reconcile(outside);
    }

    /// A node has loaded a replica, which may have been taken away meanwhile.
    pub(super) fn loaded(&mut self, outside: &mut Outside, node: &mut Node, replica: ReplicaId) {
        let Some(assignment) = self.registry.replicas().get(&replica) else {
            return;
        };
        let model = &self.registry.models()[&assignment.model];
        let record = &model.versions[&assignment.version].record;
        let rows_max = record.rows_max;
        let cost = CostFit::from_warm_up(record.one_row_ns, rows_max, record.full_batch_ns);
        let options = batcher::Options { rows_max, cost };
        node.attach(outside, (replica, assignment.version), options);
        self.observed.insert(replica, ReplicaState::Ready);
        self.reconcile(outside);
    }

    /// Lets a node do what the registry says: load what is assigned to it, let go of what is
    /// not, and send what comes to the version that serves.
    fn follow(&mut self, outside: &mut Outside, node: &mut Node) {
        let serving = self.registry.models().get(&model_name());
        node.serve(serving.and_then(|model| model.serving));
        for (replica, assignment) in self.registry.replicas() {
            if assignment.node == node.id() && !self.observed.contains_key(replica) {
                self.observed.insert(*replica, ReplicaState::Loading);
                let at = outside
                    .now
                    .plus_nanos(outside.scenario.delays.load_ms * 1_000_000);
                outside
                    .agenda
                    .plan(at, Event::Loaded(node.index(), *replica));
            }
        }
        for replica in node.replicas() {
            if !self.registry.replicas().contains_key(&replica) {
                node.detach(outside, replica);
            }
        }
    }

    /// Proposes the next change, unless one is under way.
    fn reconcile(&mut self, outside: &mut Outside) {
        if self.proposed.is_some() {
            return;
        }
        if let Some(change) = placement::plan(&self.registry, &self.observed).next {
            let now_ms = outside.now.as_nanos() / 1_000_000;
            let op = self.propose(outside, change, now_ms);
            self.proposed = Some(op);
        }
    }

    /// Proposes a change: not before now, and not before `at_ms`.
    fn propose(&mut self, outside: &mut Outside, change: Change, at_ms: u64) -> OpId {
        self.ops += 1;
        let op = OpId(self.ops);
        let command = Command {
            schema: SCHEMA,
            op,
            stamped_ms: at_ms,
            change,
        };
        let from = outside.now.as_nanos().max(at_ms * 1_000_000);
        let delay = outside.scenario.delays.commit_us * 1_000;
        let at = paceline_core::Instant::from_nanos(from).plus_nanos(delay);
        outside.agenda.plan(at, Event::Commit(Box::new(command)));
        op
    }
}

fn model_name() -> ModelName {
    ModelName::new("simulated").expect("it keeps to the alphabet")
}

fn node_record(id: NodeId, scenario: &Scenario) -> NodeRecord {
    let cpu = DeviceRecord {
        kind: DeviceKind::Cpu,
        lanes: scenario.lanes,
        memory_bytes: 1 << 30,
    };
    NodeRecord {
        id,
        name: format!("n{}", id.0 - 1),
        zone: "z0".into(),
        addresses: NodeAddresses::default(),
        devices: vec![cpu],
    }
}

fn version_record(number: u32, scenario: &Scenario) -> VersionRecord {
    let model = scenario.model;
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(vec![Dim::Any, Dim::Any]),
    };
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    VersionRecord {
        digest: Digest(digest),
        family: "simulated".into(),
        signature: Signature {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        },
        rows_max: model.rows_max,
        finite_inputs: false,
        artifact_bytes: 1,
        memory_bytes: 1 << 20,
        one_row_ns: model.fixed_nanos + model.row_nanos,
        full_batch_ns: model.fixed_nanos + model.row_nanos * u64::from(model.rows_max),
    }
}
