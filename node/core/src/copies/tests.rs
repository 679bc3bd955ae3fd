//! Who keeps what, against the real registry.

use std::collections::BTreeSet;

use paceline_protocol::registry::{
    Change, Command, NodeAddresses, NodeRecord, SCHEMA, VersionRecord,
};
use paceline_protocol::{Dim, Dtype, ModelName, OpId, ShapePattern, Signature, TensorSpec};

use super::*;

fn apply(registry: &mut Registry, change: Change) {
    let index = registry.epoch().0 + 1;
    let command = Command {
        schema: SCHEMA,
        op: OpId(index.into()),
        stamped_ms: 0,
        expected_revision: None,
        change,
    };
    let outcome = registry.apply(index, &command);
    assert!(outcome.result.is_ok(), "{outcome:?}");
}

/// Nodes from 1 on, and as many artifacts.
fn cluster(nodes: u64, artifacts: u8) -> Registry {
    let mut registry = Registry::default();
    for node in 1..=nodes {
        let record = NodeRecord {
            id: NodeId(node),
            name: format!("n{node}"),
            zone: String::new(),
            addresses: NodeAddresses::default(),
            devices: Vec::new(),
        };
        apply(&mut registry, Change::RegisterNode(record));
    }
    for byte in 0..artifacts {
        let spec = TensorSpec {
            name: "x".into(),
            dtype: Dtype::Fp32,
            shape: ShapePattern(vec![Dim::Any]),
        };
        let version = Box::new(VersionRecord {
            digest: Digest([byte; 32]),
            family: "identity".into(),
            signature: Signature {
                inputs: vec![spec.clone()],
                outputs: vec![spec],
            },
            rows_max: 8,
            finite_inputs: false,
            artifact_bytes: 1,
            memory_bytes: 1,
            one_row_ns: 1,
            full_batch_ns: 8,
            golden: Vec::new(),
        });
        let publish = Change::PublishVersion {
            model: ModelName::new(format!("m{}", byte % 7)).unwrap(),
            owner: Default::default(),
            version,
        };
        apply(&mut registry, publish);
    }
    registry
}

/// Everything that a node fetches, one after another.
fn kept(registry: &Registry, node: u64) -> BTreeSet<Digest> {
    let mut held = BTreeSet::new();
    while let Some(artifact) = lacking(registry, NodeId(node), |a| held.contains(a)) {
        assert!(held.insert(artifact), "what is settled is not named again");
    }
    held
}

#[test]
fn two_nodes_keep_each_artifact_and_one_is_enough_if_there_is_one() {
    let registry = cluster(8, 200);
    let mut copies = std::collections::BTreeMap::new();
    for node in 1..=8 {
        let kept = kept(&registry, node);
        assert!((20..=80).contains(&kept.len()), "{} of 400", kept.len());
        for artifact in kept {
            *copies.entry(artifact).or_insert(0) += 1;
        }
    }
    assert_eq!(copies.len(), 200);
    assert!(copies.values().all(|copies| *copies == 2));
    assert_eq!(kept(&cluster(1, 3), 1).len(), 3);
}

#[test]
fn who_is_lost_is_replaced_and_nothing_else_moves() {
    let mut registry = cluster(8, 200);
    let before: Vec<_> = (1..=8).map(|node| kept(&registry, node)).collect();
    let (node, computed_at) = (NodeId(5), registry.epoch());
    apply(&mut registry, Change::MarkDown { node, computed_at });
    assert_eq!(kept(&registry, 5), BTreeSet::new());
    let mut taken_over = Vec::new();
    for node in (1..=8).filter(|node| *node != 5) {
        let now = kept(&registry, node);
        let before = &before[node as usize - 1];
        assert!(now.is_superset(before));
        taken_over.extend(now.difference(before).copied());
    }
    taken_over.sort_unstable();
    let lost: Vec<Digest> = before[4].iter().copied().collect();
    assert_eq!(taken_over, lost);
}

#[test]
fn who_leaves_keeps_nothing_and_is_asked_last() {
    let mut registry = cluster(4, 1);
    let (node, computed_at) = (NodeId(4), registry.epoch());
    apply(&mut registry, Change::MarkDown { node, computed_at });
    let drain = Change::Drain {
        node: NodeId(2),
        deadline_ms: 1_000,
        computed_at: registry.epoch(),
    };
    apply(&mut registry, drain);
    let keepers = keepers(&registry, Digest([0; 32]));
    assert_eq!(keepers.len(), 2);
    let sources = sources(&registry, Digest([0; 32]));
    assert_eq!(sources, [&keepers[..], &[NodeId(2)]].concat());
}
