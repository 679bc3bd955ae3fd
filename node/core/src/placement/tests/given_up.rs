//! Replicas that their nodes have given up: another takes their place, as far as there is one.

use super::*;
use crate::random::Random;

fn given_up() -> ReplicaState {
    ReplicaState::GivenUp {
        reason: "it fails".into(),
    }
}

impl Cluster {
    /// So many nodes in one zone, each with room for three copies.
    fn of(nodes: usize) -> Self {
        let mut cluster = Self::new(&vec![("a", 30); nodes]);
        cluster.publish(1, 10);
        cluster.publish(2, 10);
        cluster
    }

    /// Each node reports how its replicas have turned out: those of these nodes are given up.
    fn turn_out(&mut self, failing: &[u64]) {
        for (id, assignment) in self.registry.replicas() {
            let is_failing = failing.contains(&assignment.node.0);
            let state = match is_failing {
                true => given_up(),
                false => ReplicaState::Ready,
            };
            self.observed.insert(*id, state);
        }
    }

    fn ready(&self) -> usize {
        let states = self.observed.values();
        states
            .filter(|state| **state == ReplicaState::Ready)
            .count()
    }
}

#[test]
fn another_node_takes_the_place_of_what_was_given_up_once() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    assert_eq!(cluster.nodes_of(1), [1, 2]);
    cluster.turn_out(&[2]);
    assert_eq!(cluster.settle(), ["assign"]);
    assert_eq!(cluster.nodes_of(1), [1, 2, 3], "the mark stays");
    cluster.turn_out(&[2]);
    assert_eq!(cluster.settle(), [""; 0]);
    // Its node has started anew and tries once more: it is not wanted any more.
    cluster.report_all(&ReplicaState::Ready);
    assert_eq!(cluster.settle(), ["unassign"]);
    assert_eq!(cluster.nodes_of(1).len(), 2);
}

#[test]
fn what_only_waits_for_its_next_start_is_not_replaced() {
    let mut cluster = Cluster::serving(ReplicaTarget::Count(2));
    let failed = ReplicaState::Failed { reason: "x".into() };
    cluster.report_all(&failed);
    assert_eq!(cluster.settle(), [""; 0]);
}

#[test]
fn a_version_that_fails_everywhere_comes_to_rest_and_gets_no_traffic() {
    let mut cluster = Cluster::of(5);
    cluster.deploy(1, ReplicaTarget::Count(2));
    let mut changes = 0;
    loop {
        let done = cluster.settle();
        if done.is_empty() {
            break;
        }
        changes += done.len();
        cluster.turn_out(&[1, 2, 3, 4, 5]);
    }
    assert_eq!((changes, cluster.nodes_of(1).len()), (5, 5));
    assert_eq!(cluster.registry.models()[&model()].serving, None);
    let plan = plan(&cluster.registry, &cluster.observed);
    assert_eq!(plan.shortfalls, [], "it is not for want of room");
    // The next version is not held up by that.
    cluster.deploy(2, ReplicaTarget::Count(2));
    cluster.settle();
    for id in cluster.registry.replicas().keys() {
        cluster.observed.insert(*id, ReplicaState::Ready);
    }
    cluster.settle();
    let serving = cluster.registry.models()[&model()].serving;
    assert_eq!(serving, Some(VersionNumber(2)));
    assert_eq!(cluster.nodes_of(1), [0u64; 0], "the marks are gone");
}

#[test]
fn traffic_moves_when_as_many_as_are_wanted_are_ready_elsewhere_and_not_before() {
    for (nodes, serving) in [(3, VersionNumber(2)), (2, VersionNumber(1))] {
        let mut cluster = Cluster::of(nodes);
        cluster.deploy(1, ReplicaTarget::Count(2));
        cluster.settle();
        cluster.turn_out(&[]);
        cluster.settle();
        cluster.deploy(2, ReplicaTarget::Count(2));
        cluster.settle();
        let failing = cluster.nodes_of(2)[0];
        for _ in 0..4 {
            for (id, of) in cluster.registry.replicas() {
                let fails = of.version == VersionNumber(2) && of.node.0 == failing;
                let state = if fails {
                    given_up()
                } else {
                    ReplicaState::Ready
                };
                cluster.observed.insert(*id, state);
            }
            cluster.settle();
        }
        assert_eq!(cluster.registry.models()[&model()].serving, Some(serving));
    }
}

#[test]
fn what_stands_on_each_node_has_no_other_place() {
    let mut cluster = Cluster::serving(ReplicaTarget::Each);
    cluster.turn_out(&[2]);
    assert_eq!(cluster.settle(), [""; 0]);
    assert_eq!(cluster.nodes_of(1), [1, 2, 3]);
}

#[test]
fn a_replica_that_replaced_another_is_replaced_when_its_node_is_down() {
    let mut cluster = Cluster::of(4);
    cluster.deploy(1, ReplicaTarget::Count(1));
    cluster.settle();
    cluster.turn_out(&[1]);
    assert_eq!(cluster.settle(), ["assign"]);
    cluster.turn_out(&[1]);
    assert_eq!(cluster.settle(), ["activate"]);
    let on = cluster.nodes_of(1)[1];
    cluster.lose(on);
    assert_eq!(cluster.settle(), ["assign"]);
    cluster.turn_out(&[1]);
    assert_eq!(cluster.settle(), ["unassign"], "and not its mark");
    assert!(cluster.nodes_of(1).contains(&1) && cluster.ready() >= 1);
}

/// Wherever it fails: as many as are wanted are ready, as far as there are nodes, each node was
/// tried once, and nothing moves any more.
#[test]
fn whatever_fails_it_settles_after_each_node_was_tried_once() {
    let mut replaced = 0;
    for seed in 0..300 {
        let mut random = Random::from_seed(seed);
        let nodes = 1 + random.below(8);
        let count = 1 + random.below(4) as u32;
        let failing: Vec<u64> = (1..=nodes).filter(|_| random.below(3) == 0).collect();
        let mut cluster = Cluster::of(nodes as usize);
        cluster.deploy(1, ReplicaTarget::Count(count));
        let mut assigned = 0;
        loop {
            let done = cluster.settle();
            assigned += done.iter().filter(|change| **change == "assign").count();
            if done.is_empty() {
                break;
            }
            cluster.turn_out(&failing);
        }
        let good = nodes as usize - failing.len();
        assert_eq!(cluster.ready(), good.min(count as usize), "seed {seed}");
        assert!(assigned <= nodes as usize, "seed {seed}: {assigned} times");
        replaced += assigned - cluster.ready();
    }
    assert!(replaced > 100, "{replaced} were given up");
}
