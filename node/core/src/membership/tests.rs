//! Membership: view, exact step; who may leave, and the words of why not.

use paceline_protocol::registry::{
    Change, Command, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord, SCHEMA, VersionRecord,
};
use paceline_protocol::{DeviceId, Digest, Epoch, OpId, ReplicaId, Signature, TenantName};

use super::*;

/// Nodes 1 to `count`, in the zones that are named in turn.
fn registry(count: u64, zones: &[&str]) -> Registry {
    let mut registry = Registry::default();
    for id in 1..=count {
        let record = NodeRecord {
            id: NodeId(id),
            name: format!("n{id}"),
            zone: zones[(id as usize - 1) % zones.len()].into(),
            addresses: NodeAddresses::default(),
            devices: vec![DeviceRecord {
                kind: DeviceKind::Cpu,
                lanes: 1,
                memory_bytes: 1,
            }],
        };
        apply(&mut registry, Change::RegisterNode(record));
    }
    registry
}

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
    assert!(outcome.result.is_ok(), "{outcome}");
}

fn drain(registry: &mut Registry, node: NodeId) {
    let change = Change::Drain {
        node,
        deadline_ms: 60_000,
        computed_at: registry.epoch(),
    };
    apply(registry, change);
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn view<'a>(registry: &'a Registry, voters: &[u64], learners: &[u64]) -> View<'a> {
    let learners = ids(learners);
    View {
        registry,
        leader: NodeId(voters[0]),
        voters: ids(voters),
        lags: learners.iter().map(|node| (*node, 0)).collect(),
        learners,
    }
}

fn step(view: &View<'_>) -> Option<Step> {
    next(view)
}

#[test]
fn a_second_node_learns_and_the_third_makes_three_voters_in_one_step() {
    let two = registry(2, &["a"]);
    let learn = Some(Step::AddLearner(NodeId(2)));
    assert_eq!(step(&view(&two, &[1], &[])), learn);
    assert_eq!(
        step(&view(&two, &[1], &[2])),
        None,
        "two voters help nobody"
    );
    let three = registry(3, &["a"]);
    let voters = Some(Step::SetVoters(ids(&[1, 2, 3])));
    assert_eq!(step(&view(&three, &[1], &[2, 3])), voters);
    assert_eq!(step(&view(&three, &[1, 2, 3], &[])), None);
    let four = registry(4, &["a"]);
    assert_eq!(
        step(&view(&four, &[1, 2, 3], &[4])),
        None,
        "four would survive no more than three"
    );
    let five = registry(5, &["a"]);
    let voters = Some(Step::SetVoters(ids(&[1, 2, 3, 4, 5])));
    assert_eq!(step(&view(&five, &[1, 2, 3], &[4, 5])), voters);
    let ten = registry(10, &["a"]);
    let seven = [1, 2, 3, 4, 5, 6, 7];
    let voters = Some(Step::SetVoters(ids(&seven)));
    assert_eq!(
        step(&view(&ten, &[1, 2, 3], &[4, 5, 6, 7, 8, 9, 10])),
        voters
    );
    assert_eq!(step(&view(&ten, &seven, &[8, 9, 10])), None, "at most");
}

#[test]
fn who_has_not_caught_up_or_is_not_up_gets_no_vote() {
    let mut three = registry(3, &["a"]);
    let mut behind = view(&three, &[1], &[2, 3]);
    behind.lags.insert(NodeId(3), LAG_MAX + 1);
    assert_eq!(step(&behind), None);
    behind.lags.remove(&NodeId(3));
    assert_eq!(step(&behind), None, "not heard yet");
    drain(&mut three, NodeId(2));
    assert_eq!(step(&view(&three, &[1], &[2, 3])), None);
}

#[test]
fn voters_are_spread_over_zones() {
    let four = registry(4, &["a", "a", "b", "c"]);
    let voters = Some(Step::SetVoters(ids(&[1, 3, 4])));
    assert_eq!(step(&view(&four, &[1], &[2, 3, 4])), voters);
}

#[test]
fn a_removed_voter_is_replaced_in_one_step_and_then_forgotten() {
    let mut four = registry(4, &["a"]);
    apply(&mut four, Change::RemoveNode { node: NodeId(2) });
    let replaced = Some(Step::SetVoters(ids(&[1, 3, 4])));
    assert_eq!(step(&view(&four, &[1, 2, 3], &[4])), replaced);
    let forgotten = Some(Step::RemoveMember(NodeId(2)));
    assert_eq!(step(&view(&four, &[1, 3, 4], &[2])), forgotten);
    // Without a spare one, one voter decides alone rather than two together.
    let mut three = registry(3, &["a"]);
    apply(&mut three, Change::RemoveNode { node: NodeId(2) });
    let mut left = view(&three, &[1, 2, 3], &[]);
    left.leader = NodeId(3);
    assert_eq!(step(&left), Some(Step::SetVoters(ids(&[3]))));
}

#[test]
fn a_voter_is_relieved_before_it_is_removed_if_somebody_can_take_its_vote() {
    let mut four = registry(4, &["a"]);
    let spare = view(&four, &[1, 2, 3], &[4]);
    assert_eq!(relieved(&spare, NodeId(2)), Some(ids(&[1, 3, 4])));
    assert_eq!(relieved(&spare, NodeId(4)), None, "it has no vote");
    assert_eq!(relieved(&view(&four, &[1, 2, 3], &[]), NodeId(2)), None);
    let mut behind = view(&four, &[1, 2, 3], &[4]);
    behind.lags.insert(NodeId(4), LAG_MAX + 1);
    assert_eq!(relieved(&behind, NodeId(2)), None, "it has not caught up");
    drain(&mut four, NodeId(4));
    let leaves = view(&four, &[1, 2, 3], &[4]);
    assert_eq!(relieved(&leaves, NodeId(2)), None, "it leaves itself");
}

#[test]
fn a_drain_must_leave_a_majority_that_works() {
    let mut three = registry(3, &["a"]);
    let observed = Observed::new();
    assert_eq!(
        may_drain(&view(&three, &[1, 2, 3], &[]), &observed, NodeId(2)),
        Ok(())
    );
    drain(&mut three, NodeId(1));
    let objection = Objection::Quorum {
        left: 1,
        voters: 3,
        majority: 2,
    };
    assert_eq!(
        may_drain(&view(&three, &[1, 2, 3], &[]), &observed, NodeId(2)),
        Err(objection.clone())
    );
    assert!(objection.to_string().contains("1 of 3 voters"));
    let one = registry(1, &["a"]);
    let alone = may_drain(&view(&one, &[1], &[]), &observed, NodeId(1));
    assert!(matches!(alone, Err(Objection::Quorum { left: 0, .. })));
    let node = NodeId(9);
    assert_eq!(
        may_drain(&view(&one, &[1], &[]), &observed, node),
        Err(Objection::Unknown { node })
    );
}

/// A version of so many bytes serves with one replica, on node 1; devices have one byte.
fn served_by_node_1(nodes: u64, memory_bytes: u64) -> (Registry, Observed) {
    let mut registry = registry(nodes, &["a"]);
    let model = ModelName::new("m").unwrap();
    let version = VersionNumber(1);
    apply(
        &mut registry,
        Change::PublishVersion {
            model: model.clone(),
            owner: TenantName::default(),
            version: Box::new(VersionRecord {
                digest: Digest([1; 32]),
                family: "identity".into(),
                signature: Signature {
                    inputs: vec![],
                    outputs: vec![],
                },
                rows_max: 1,
                finite_inputs: false,
                artifact_bytes: 1,
                memory_bytes,
                one_row_ns: 1,
                full_batch_ns: 1,
                golden: Vec::new(),
            }),
        },
    );
    let computed_at = registry.epoch();
    let assign = Change::Assign {
        model: model.clone(),
        version,
        node: NodeId(1),
        device: DeviceId(0),
        computed_at,
    };
    apply(&mut registry, assign);
    let replica = ReplicaId(registry.epoch().0);
    let computed_at = registry.epoch();
    let activate = Change::Activate {
        model,
        version,
        computed_at,
    };
    apply(&mut registry, activate);
    (registry, [(replica, ReplicaState::Ready)].into())
}

#[test]
fn the_last_replica_leaves_only_if_another_node_that_stays_has_room_for_it() {
    let node = NodeId(1);
    let may = |registry: &Registry, observed: &Observed| {
        may_drain(&view(registry, &[1, 2, 3], &[]), observed, node)
    };
    let (fits, observed) = served_by_node_1(3, 1);
    assert_eq!(may(&fits, &observed), Ok(()));
    assert_eq!(may(&fits, &Observed::new()), Ok(()), "nothing serves here");
    let (too_large, observed) = served_by_node_1(3, 2);
    let refused = may(&too_large, &observed).unwrap_err();
    assert!(matches!(refused, Objection::LastReplica { .. }));
    let words = "'m' version 1 is ready on node 1 alone, and no other node that is up has room";
    assert!(refused.to_string().contains(words), "{refused}");
    // Whoever leaves already is refused nothing any more.
    let mut leaving = too_large;
    drain(&mut leaving, node);
    assert_eq!(may(&leaving, &observed), Ok(()));
}

#[test]
fn the_voter_that_lags_the_least_and_stays_leads_next() {
    let mut four = registry(4, &["a"]);
    let mut before = view(&four, &[1, 2, 3], &[4]);
    assert_eq!(successor(&before, NodeId(1)), Some(NodeId(2)));
    before.lags = [(NodeId(2), 9), (NodeId(3), 4), (NodeId(4), 0)].into();
    assert_eq!(successor(&before, NodeId(1)), Some(NodeId(3)));
    drain(&mut four, NodeId(3));
    let after = view(&four, &[1, 2, 3], &[4]);
    assert_eq!(successor(&after, NodeId(1)), Some(NodeId(2)));
    assert_eq!(successor(&view(&four, &[1], &[2]), NodeId(1)), None);
}

#[test]
fn losses_that_are_survived_are_counted_from_those_who_live() {
    let mut three = registry(3, &["a"]);
    let voters = ids(&[1, 2, 3]);
    assert_eq!(survivable_losses(&three, &voters), 1);
    let computed_at: Epoch = three.epoch();
    apply(
        &mut three,
        Change::MarkDown {
            node: NodeId(3),
            computed_at,
        },
    );
    assert_eq!(survivable_losses(&three, &voters), 0);
    assert_eq!(survivable_losses(&three, &ids(&[1])), 0);
    let mut leaving = registry(3, &["a"]);
    drain(&mut leaving, NodeId(2));
    assert_eq!(survivable_losses(&leaving, &voters), 0, "it may be stopped");
}
