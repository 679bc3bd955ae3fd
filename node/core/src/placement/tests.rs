//! The placement policy, driven against the real registry until nothing is left to do.

mod given_up;

use paceline_protocol::registry::{
    CanaryGuards, CanaryPlan, CanaryStage, Command, DeviceKind, DeviceRecord, NodeAddresses,
    NodeRecord, SCHEMA, ShadowPlan, VersionRecord,
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
            expected_revision: None,
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
            golden: Vec::new(),
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

impl Cluster {
    /// Three nodes with room for three copies each, and version 1 ready on those it is on.
    fn serving(replicas: ReplicaTarget) -> Self {
        let mut cluster = Self::new(&[("a", 30), ("b", 30), ("c", 30)]);
        cluster.publish(1, 10);
        cluster.deploy(1, replicas);
        cluster.settle();
        cluster.report_all(&ReplicaState::Ready);
        assert_eq!(cluster.settle(), ["activate"]);
        cluster
    }

    /// A node is down, and what it reported is unknown.
    fn lose(&mut self, node: u64) {
        let (node, computed_at) = (NodeId(node), self.registry.epoch());
        self.apply(Change::MarkDown { node, computed_at });
        let replicas = self.registry.replicas();
        self.observed
            .retain(|id, _| replicas.get(id).is_some_and(|a| a.node != node));
    }

    fn find_again(&mut self, node: u64) {
        let (node, computed_at) = (NodeId(node), self.registry.epoch());
        self.apply(Change::MarkUp { node, computed_at });
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

#[test]
fn replicas_of_a_node_that_is_down_are_replaced_and_then_taken_away() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    assert_eq!(cluster.nodes_of(1), [1, 2]);
    cluster.lose(2);
    assert_eq!(cluster.settle(), ["assign"]);
    assert_eq!(cluster.nodes_of(1), [1, 2, 3], "until the new one is ready");
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["unassign"]);
    assert_eq!(cluster.nodes_of(1), [1, 3]);
    cluster.find_again(2);
    assert!(cluster.settle().is_empty());
}

#[test]
fn who_comes_back_early_does_not_push_out_who_is_ready() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    cluster.lose(2);
    cluster.settle();
    cluster.find_again(2);
    let replacement = cluster.registry.replicas().keys().last().copied().unwrap();
    cluster.observed.insert(replacement, ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["unassign"]);
    assert_eq!(cluster.nodes_of(1), [1, 3], "node 2 had nothing ready yet");
}

#[test]
fn what_stands_on_each_node_waits_for_the_one_that_is_down_and_not_for_one_that_leaves() {
    let mut cluster = Cluster::serving(ReplicaTarget::Each);
    cluster.lose(2);
    assert!(cluster.settle().is_empty());
    let computed_at = cluster.registry.epoch();
    cluster.apply(Change::Drain {
        node: NodeId(3),
        deadline_ms: 60_000,
        computed_at,
    });
    assert_eq!(cluster.settle(), ["unassign"]);
    assert_eq!(cluster.nodes_of(1), [1, 2]);
}

#[test]
fn a_stuck_rollout_does_not_cost_the_version_that_serves_its_replicas() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    cluster.publish(2, 10);
    cluster.deploy(2, ReplicaTarget::Count(2));
    assert_eq!(cluster.settle(), ["assign", "assign"]);
    let replicas = cluster.registry.replicas().iter();
    let loading = replicas
        .filter(|(_, a)| a.version.0 == 2)
        .map(|(id, _)| *id);
    for replica in loading.collect::<Vec<_>>() {
        cluster.observed.insert(replica, ReplicaState::Loading);
    }
    let victim = cluster.nodes_of(1)[0];
    cluster.lose(victim);
    cluster.settle();
    let standing = |cluster: &Cluster, version| {
        let nodes = cluster.nodes_of(version).into_iter();
        nodes.filter(|node| *node != victim).count()
    };
    assert_eq!(standing(&cluster, 1), 2, "the one that serves");
    assert_eq!(standing(&cluster, 2), 2, "the one that shall serve");
    cluster.report_all(&ReplicaState::Ready);
    cluster.settle();
    assert_eq!((standing(&cluster, 1), standing(&cluster, 2)), (0, 2));
    assert!(!cluster.nodes_of(2).contains(&victim));
}

#[test]
fn what_serves_during_a_rollout_is_replaced_and_does_not_grow() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(1));
    cluster.publish(2, 31);
    cluster.deploy(2, ReplicaTarget::Count(3));
    let plan = plan(&cluster.registry, &cluster.observed);
    assert_eq!(plan.next, None, "it fits nowhere, and what serves stays");
    assert_eq!(plan.shortfalls.len(), 1);
    let victim = cluster.nodes_of(1)[0];
    cluster.lose(victim);
    cluster.settle();
    let standing = cluster.nodes_of(1).iter().filter(|n| **n != victim).count();
    assert!((1..=2).contains(&standing), "{standing} on two nodes");
}

#[test]
fn the_last_replica_stays_when_nobody_can_replace_it() {
    let mut cluster = Cluster::new(&[("a", 30)]);
    cluster.publish(1, 10);
    cluster.deploy(1, ReplicaTarget::Count(1));
    cluster.settle();
    cluster.report_all(&ReplicaState::Ready);
    cluster.settle();
    cluster.lose(1);
    assert!(cluster.settle().is_empty());
    assert_eq!(cluster.nodes_of(1), [1]);
}

impl Cluster {
    fn begin(&mut self, version: u32, replicas: ReplicaTarget) {
        let stages = [1_000, 5_000].map(|weight| CanaryStage { weight, hold_ms: 1 });
        let plan = Box::new(CanaryPlan {
            version: VersionNumber(version),
            replicas,
            stages: stages.to_vec(),
            guards: CanaryGuards::default(),
        });
        let model = model();
        self.apply(Change::BeginCanary { model, plan });
    }

    fn weight(&self) -> Option<u16> {
        let canary = self.registry.models()[&model()].canary.as_ref();
        canary.map(|canary| canary.weight())
    }
}

#[test]
fn a_canary_has_its_replicas_beside_what_serves_and_begins_when_they_are_ready() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    cluster.publish(2, 10);
    cluster.begin(2, ReplicaTarget::Count(1));
    assert_eq!(cluster.settle(), ["assign"]);
    assert_eq!(
        (cluster.nodes_of(1), cluster.nodes_of(2)),
        (vec![1, 2], vec![3])
    );
    assert_eq!(cluster.weight(), Some(0), "it loads");
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["advance-canary"]);
    assert_eq!(cluster.weight(), Some(1_000));
    // One that is lost is replaced; the node that comes back makes it one too many.
    cluster.lose(3);
    assert_eq!(cluster.settle(), ["assign"]);
    cluster.find_again(3);
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["unassign"]);
    assert_eq!(cluster.nodes_of(2).len(), 1);

    // Promoted, it gets as many as the other one has, and only then all requests.
    let (model, since) = (model(), None);
    cluster.apply(Change::PromoteCanary { model, since });
    assert_eq!(cluster.settle(), ["assign"]);
    assert_eq!(
        (cluster.nodes_of(1).len(), cluster.weight()),
        (2, Some(1_000))
    );
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["activate", "unassign", "unassign"]);
    assert_eq!(
        (cluster.nodes_of(1).len(), cluster.nodes_of(2).len()),
        (0, 2)
    );
}

#[test]
fn a_shadow_has_its_replicas_beside_what_serves_and_keeps_no_node() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    cluster.publish(2, 10);
    let plan = ShadowPlan {
        version: VersionNumber(2),
        replicas: ReplicaTarget::Each,
        weight: 1_000,
    };
    cluster.apply(Change::SetShadow {
        model: model(),
        plan,
    });
    assert_eq!(cluster.settle(), ["assign"; 3]);
    assert_eq!(cluster.nodes_of(2), [1, 2, 3]);
    // None of them is ready, and that of a node that leaves goes all the same.
    let (node, computed_at) = (NodeId(3), cluster.registry.epoch());
    cluster.apply(Change::Drain {
        node,
        deadline_ms: 1_000,
        computed_at,
    });
    assert_eq!(cluster.settle(), ["unassign"]);
    assert_eq!(cluster.nodes_of(2), [1, 2]);
    cluster.apply(Change::EndShadow { model: model() });
    assert_eq!(cluster.settle(), ["unassign"; 2]);
    assert_eq!(cluster.nodes_of(1), [1, 2]);
    // What serves goes, too, as soon as nothing shall.
    cluster.apply(Change::Undeploy { model: model() });
    assert_eq!(cluster.settle(), ["unassign"; 2]);
    assert_eq!(cluster.nodes_of(1), [] as [u64; 0]);
}

/// Two devices with room for one replica each: what answers comes before what does not.
#[test]
fn a_shadow_gives_way_to_what_answers() {
    let mut cluster = Cluster::new(&[("a", 10), ("b", 10)]);
    cluster.publish(1, 10);
    cluster.publish(2, 10);
    cluster.deploy(1, ReplicaTarget::Count(1));
    cluster.settle();
    cluster.report_all(&ReplicaState::Ready);
    cluster.settle();
    let plan = ShadowPlan {
        version: VersionNumber(2),
        replicas: ReplicaTarget::Count(1),
        weight: 1_000,
    };
    cluster.apply(Change::SetShadow {
        model: model(),
        plan,
    });
    assert_eq!(cluster.settle(), ["assign"]);
    let serving = NodeId(cluster.nodes_of(1)[0]);
    let version = (&model(), VersionNumber(1));
    assert!(has_room(&cluster.registry, version, serving), "for a drain");
    cluster.deploy(1, ReplicaTarget::Count(2));
    assert_eq!(cluster.settle(), ["unassign", "assign"]);
    assert_eq!(
        (cluster.nodes_of(1), cluster.nodes_of(2)),
        (vec![1, 2], vec![])
    );
}

#[test]
fn an_aborted_canary_leaves_its_devices_and_a_rollback_needs_no_loading_while_replicas_are_there() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    cluster.publish(2, 10);
    cluster.begin(2, ReplicaTarget::Each);
    cluster.settle();
    cluster.report_all(&ReplicaState::Ready);
    cluster.settle();
    cluster.apply(Change::AbortCanary {
        model: model(),
        since: None,
        reason: "by hand".into(),
    });
    assert_eq!(cluster.settle(), ["unassign"; 3]);
    assert_eq!(
        (cluster.nodes_of(1).len(), cluster.nodes_of(2).len()),
        (2, 0)
    );

    // Traffic has just moved, and the old replicas are still there.
    cluster.deploy(2, ReplicaTarget::Count(2));
    cluster.settle();
    cluster.report_all(&ReplicaState::Ready);
    let activate = plan(&cluster.registry, &cluster.observed).next.unwrap();
    assert_eq!(activate.name(), "activate");
    cluster.apply(activate);
    cluster.apply(Change::Rollback { model: model() });
    assert_eq!(cluster.settle(), ["activate", "unassign", "unassign"]);
    assert_eq!(
        (cluster.nodes_of(1).len(), cluster.nodes_of(2).len()),
        (2, 0)
    );
}

#[test]
fn a_canary_that_fits_nowhere_is_said_and_costs_what_serves_nothing() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    cluster.publish(2, 31);
    cluster.begin(2, ReplicaTarget::Count(1));
    let plan = plan(&cluster.registry, &cluster.observed);
    assert_eq!(plan.next, None);
    assert_eq!(plan.shortfalls.len(), 1);
    assert_eq!((cluster.nodes_of(1).len(), cluster.weight()), (2, Some(0)));
}
