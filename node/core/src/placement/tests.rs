//! The placement policy, driven against the real registry until nothing is left to do.

use paceline_protocol::registry::{
    Command, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord, SCHEMA, VersionRecord,
};
use paceline_protocol::{
    Digest, Dim, Dtype, OpId, ShapePattern, Signature, TenantName, TensorSpec,
};

use super::*;

struct Cluster {
    registry: Registry,
    observed: Observed,
}

impl Cluster {
    fn new(nodes: &[(&str, u64)]) -> Self {
        let mut cluster = Self {
            registry: Registry::default(),
            observed: Observed::new(),
        };
        for (position, (zone, memory_bytes)) in nodes.iter().enumerate() {
            cluster.apply(Change::RegisterNode(NodeRecord {
                id: NodeId(position as u64 + 1),
                name: format!("n{position}"),
                zone: (*zone).into(),
                addresses: NodeAddresses::default(),
                devices: vec![DeviceRecord {
                    kind: DeviceKind::Cpu,
                    lanes: 1,
                    memory_bytes: *memory_bytes,
                }],
            }));
        }
        cluster
    }

    fn apply(&mut self, change: Change) {
        let index = self.registry.epoch().0 + 1;
        let command = Command {
            schema: SCHEMA,
            op: OpId(index.into()),
            stamped_ms: 0,
            change,
        };
        let outcome = self.registry.apply(index, &command);
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }

    fn publish(&mut self, digest: u8, memory_bytes: u64) {
        let spec = TensorSpec {
            name: "x".into(),
            dtype: Dtype::Fp32,
            shape: ShapePattern(vec![Dim::Any]),
        };
        let version = Box::new(VersionRecord {
            digest: Digest([digest; 32]),
            family: "identity".into(),
            signature: Signature {
                inputs: vec![spec.clone()],
                outputs: vec![spec],
            },
            rows_max: 8,
            finite_inputs: false,
            artifact_bytes: 1,
            memory_bytes,
            one_row_ns: 1,
            full_batch_ns: 8,
        });
        let owner = TenantName::default();
        self.apply(Change::PublishVersion {
            model: model(),
            owner,
            version,
        });
    }

    fn deploy(&mut self, version: u32, replicas: ReplicaTarget) {
        let version = VersionNumber(version);
        self.apply(Change::Deploy {
            model: model(),
            version,
            replicas,
        });
    }

    /// Commits what the policy wants until it wants nothing, and returns the changes' names.
    fn settle(&mut self) -> Vec<&'static str> {
        let mut done = Vec::new();
        while let Some(change) = plan(&self.registry, &self.observed).next {
            done.push(change.name());
            assert!(
                done.len() < 100,
                "the policy goes round in circles: {done:?}"
            );
            self.apply(change);
        }
        done
    }

    fn report_all(&mut self, state: &ReplicaState) {
        for replica in self.registry.replicas().keys() {
            self.observed.insert(*replica, state.clone());
        }
    }

    fn nodes_of(&self, version: u32) -> Vec<u64> {
        let replicas = self.registry.replicas().values();
        let mut nodes: Vec<u64> = replicas
            .filter(|a| a.version.0 == version)
            .map(|a| a.node.0)
            .collect();
        nodes.sort_unstable();
        nodes
    }
}

fn model() -> ModelName {
    ModelName::new("m").unwrap()
}

#[test]
fn traffic_moves_only_when_the_replica_is_ready() {
    let mut cluster = Cluster::new(&[("a", 100)]);
    cluster.publish(1, 10);
    cluster.deploy(1, ReplicaTarget::Count(2));
    assert_eq!(cluster.settle(), ["assign"], "one device takes one copy");
    cluster.report_all(&ReplicaState::Loading);
    assert!(cluster.settle().is_empty());
    cluster.report_all(&ReplicaState::Failed { reason: "x".into() });
    assert!(cluster.settle().is_empty());
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["activate"]);
    assert_eq!(
        cluster.registry.models()[&model()].serving,
        Some(VersionNumber(1))
    );
}

#[test]
fn the_old_version_serves_until_the_new_one_does() {
    let mut cluster = Cluster::new(&[("a", 100)]);
    cluster.publish(1, 10);
    cluster.deploy(1, ReplicaTarget::Each);
    cluster.settle();
    cluster.report_all(&ReplicaState::Ready);
    cluster.settle();
    cluster.publish(2, 10);
    cluster.deploy(2, ReplicaTarget::Each);
    assert_eq!(cluster.settle(), ["assign"]);
    assert_eq!(
        (cluster.nodes_of(1), cluster.nodes_of(2)),
        (vec![1], vec![1])
    );
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["activate", "unassign"]);
    assert_eq!(
        (cluster.nodes_of(1), cluster.nodes_of(2)),
        (vec![], vec![1])
    );
}

#[test]
fn copies_are_spread_over_zones_before_nodes() {
    let mut cluster = Cluster::new(&[("a", 100), ("a", 100), ("b", 50)]);
    cluster.publish(1, 10);
    cluster.deploy(1, ReplicaTarget::Count(2));
    cluster.settle();
    assert_eq!(cluster.nodes_of(1), [1, 3]);
    cluster.deploy(1, ReplicaTarget::Each);
    assert_eq!(cluster.settle(), ["assign"]);
    cluster.deploy(1, ReplicaTarget::Count(1));
    assert_eq!(cluster.settle(), ["unassign", "unassign"]);
}

#[test]
fn what_does_not_fit_is_said_with_both_figures() {
    let mut cluster = Cluster::new(&[("a", 100)]);
    cluster.publish(1, 101);
    cluster.deploy(1, ReplicaTarget::Count(1));
    let plan = plan(&cluster.registry, &cluster.observed);
    assert_eq!(plan.next, None);
    let shortfall = Shortfall {
        model: model(),
        needed_bytes: 101,
        largest_free_bytes: 100,
    };
    assert_eq!(plan.shortfalls, [shortfall]);
}
