//! The router: state, input, exact effects; and the balance that two choices promise.

mod health;
mod sticky;

use super::route::{SPARE_MIN, SUBSET_MAX};
use super::*;

const ROUTE: RouteId = RouteId(0);
const SLOT: Slot = Slot {
    index: 0,
    generation: 0,
};

fn target(replica: u64, local: bool) -> Target {
    Target {
        replica: ReplicaId(replica),
        node: NodeId(if local { 1 } else { replica }),
        local: local.then_some(BatcherId(replica as u32)),
        is_near: true,
        row_nanos: 1_000,
    }
}

fn router(targets: Vec<Target>) -> Router {
    let mut router = Router::new(NodeId(1), 5);
    router.step(
        Instant::ZERO,
        Input::SetTargets {
            route: ROUTE,
            targets,
        },
        &mut Vec::new(),
    );
    router
}

fn pick(router: &mut Router, rows: u32, bytes: u64) -> Option<u64> {
    pick_with(router, 0, (rows, bytes))
}

fn pick_at(router: &mut Router, at_ms: u64) -> Option<u64> {
    pick_with(router, at_ms, (1, 0))
}

fn pick_with(router: &mut Router, at_ms: u64, (rows, bytes): (u32, u64)) -> Option<u64> {
    let mut out = Vec::new();
    router.step(
        Instant::from_nanos(at_ms * 1_000_000),
        Input::Pick {
            route: ROUTE,
            slot: SLOT,
            rows,
            bytes,
            may_probe: true,
            again: None,
            sequence: None,
        },
        &mut out,
    );
    match out[..] {
        [Effect::Dispatch { replica, .. }] => Some(replica.0),
        [Effect::NoReplica { .. }] => None,
        _ => panic!("{out:?}"),
    }
}

fn done(router: &mut Router, at_ms: u64, replica: u64, report: Option<Report>) {
    let now = Instant::from_nanos(at_ms * 1_000_000);
    let input = Input::Done {
        route: ROUTE,
        replica: ReplicaId(replica),
        rows: 1,
        heard: report.map_or(Heard::Nothing, Heard::Answer),
    };
    router.step(now, input, &mut Vec::new());
}

#[test]
fn without_ready_replicas_there_is_none_to_pick() {
    assert_eq!(pick(&mut Router::new(NodeId(1), 5), 1, 0), None);
    assert_eq!(pick(&mut router(vec![]), 1, 0), None);
}

#[test]
fn the_only_replica_is_picked_with_all_that_the_driver_needs() {
    let mut router = router(vec![target(9, true)]);
    let mut out = Vec::new();
    let input = Input::Pick {
        route: ROUTE,
        slot: SLOT,
        rows: 1,
        bytes: 8,
        may_probe: true,
        again: None,
        sequence: None,
    };
    router.step(Instant::ZERO, input, &mut out);
    let local = Some(BatcherId(9));
    let dispatch = Effect::Dispatch {
        slot: SLOT,
        replica: ReplicaId(9),
        node: NodeId(1),
        local,
    };
    assert_eq!(out, [dispatch]);
}

#[test]
fn the_local_replica_wins_ties_and_loses_when_it_is_busy() {
    let mut router = router(vec![target(2, false), target(9, true)]);
    assert_eq!(pick(&mut router, 1, 0), Some(9));
    assert_eq!(
        pick(&mut router, 1, 0),
        Some(2),
        "one row is in flight at the local one"
    );
    done(&mut router, 0, 9, None);
    assert_eq!(pick(&mut router, 1, 0), Some(9));
}

#[test]
fn bytes_and_round_trips_speak_against_other_nodes() {
    let mut router = router(vec![target(2, false), target(9, true)]);
    assert_eq!(pick(&mut router, 1, 0), Some(9));
    assert_eq!(
        pick(&mut router, 1, 1_000_000),
        Some(9),
        "sending a megabyte takes 3 ms"
    );
}

#[test]
fn a_reported_queue_is_believed_while_it_is_fresh() {
    let mut router = router(vec![target(2, false), target(3, false)]);
    let report = Report {
        queued_rows: 1_000,
        row_nanos: 1_000,
        rest_nanos: 0,
    };
    assert!(pick(&mut router, 1, 0).is_some());
    done(&mut router, 0, 2, Some(report));
    done(&mut router, 0, 3, None);
    for _ in 0..20 {
        assert_eq!(pick(&mut router, 1, 0), Some(3));
    }
    // Two seconds later the report counts nothing, and twenty rows in flight count.
    let mut out = Vec::new();
    let late = Instant::from_nanos(2_000_000_000);
    router.step(
        late,
        Input::Pick {
            route: ROUTE,
            slot: SLOT,
            rows: 1,
            bytes: 0,
            may_probe: true,
            again: None,
            sequence: None,
        },
        &mut out,
    );
    assert!(matches!(
        out[..],
        [Effect::Dispatch {
            replica: ReplicaId(2),
            ..
        }]
    ));
}

#[test]
fn a_slow_replica_gets_little_and_a_fast_one_much() {
    let mut router = router((2..8).map(|replica| target(replica, false)).collect());
    let mut counts = std::collections::BTreeMap::<u64, u32>::new();
    for _ in 0..6_000 {
        let replica = pick(&mut router, 1, 0).unwrap();
        *counts.entry(replica).or_default() += 1;
        let row_nanos = if replica == 4 { 10_000 } else { 1_000 };
        let report = Report {
            queued_rows: 0,
            row_nanos,
            rest_nanos: 0,
        };
        done(&mut router, 0, replica, Some(report));
    }
    let slow = counts.remove(&4).unwrap_or(0);
    assert!(slow < 60, "the slow one got {slow} of 6,000");
    assert!(counts.values().all(|count| *count > 800), "{counts:?}");
}

#[test]
fn a_slow_replica_is_tried_again_when_little_is_known_of_it_any_more_also_on_this_node() {
    for slow in [target(1, true), target(4, false)] {
        let mut router = router(vec![slow, target(2, false), target(3, false)]);
        let slow = slow.replica.0;
        let of = |rest_nanos| {
            Some(Report {
                queued_rows: 0,
                row_nanos: 1_000,
                rest_nanos,
            })
        };
        done(&mut router, 0, slow, of(1_000_000));
        done(&mut router, 0, slow, of(80_000_000));
        let mut tried = Vec::new();
        for at_ms in (0..12_000).step_by(10) {
            for other in [2, 3] {
                done(&mut router, at_ms, other, of(1_000_000));
            }
            let replica = pick_at(&mut router, at_ms).unwrap();
            if replica == slow {
                tried.push(at_ms);
                done(&mut router, at_ms, slow, of(80_000_000));
            } else {
                done(&mut router, at_ms, replica, of(1_000_000));
            }
        }
        assert!((1..=2).contains(&tried.len()), "{slow}: {tried:?}");
        assert!(tried[0] >= 3_000, "{slow}: {tried:?}");
    }
}

#[test]
fn a_long_way_is_no_slowness_that_fades() {
    let mut router = router(vec![target(1, true), target(2, false)]);
    let of = |rest_nanos| {
        Some(Report {
            queued_rows: 0,
            row_nanos: 1_000,
            rest_nanos,
        })
    };
    done(&mut router, 0, 2, of(300_000));
    for at_ms in (0..30_000).step_by(1_000) {
        assert_eq!(pick_at(&mut router, at_ms), Some(1), "{at_ms}");
        done(&mut router, at_ms, 1, of(20_000));
    }
}

#[test]
fn what_was_learnt_survives_a_change_of_the_others() {
    let mut router = router(vec![target(2, false), target(3, false)]);
    for _ in 0..50 {
        let report = Report {
            queued_rows: 0,
            row_nanos: 1 << 20,
            rest_nanos: 0,
        };
        done(&mut router, 0, 2, Some(report));
    }
    let targets = vec![target(2, false), target(7, false)];
    router.step(
        Instant::ZERO,
        Input::SetTargets {
            route: ROUTE,
            targets,
        },
        &mut Vec::new(),
    );
    assert_eq!(pick(&mut router, 1, 0), Some(7));
    done(&mut router, 0, 3, None);
}

#[test]
fn of_very_many_each_node_considers_its_own_few_and_always_its_local_one() {
    let mut targets: Vec<Target> = (2..1_000).map(|replica| target(replica, false)).collect();
    targets.push(target(1_000, true));
    let mut seen = std::collections::BTreeSet::new();
    for node in 1..200 {
        let mut router = Router::new(NodeId(node), 1);
        let input = Input::SetTargets {
            route: ROUTE,
            targets: targets.clone(),
        };
        router.step(Instant::ZERO, input, &mut Vec::new());
        assert_eq!(router.targets(ROUTE), SUBSET_MAX);
        assert!(router.routes[0].candidates[0].target.local.is_some());
        seen.extend(
            router.routes[0]
                .candidates
                .iter()
                .map(|candidate| candidate.target.replica),
        );
    }
    assert!(
        seen.len() > 950,
        "together they consider {} of 999",
        seen.len()
    );
}

/// A replica in the zone `near` or in another one.
fn remote(replica: u64, is_near: bool) -> Target {
    Target {
        is_near,
        ..target(replica, false)
    }
}

fn set_conditions(router: &mut Router, conditions: &[(u64, Condition)]) {
    let conditions = conditions.iter();
    let conditions = conditions.map(|(node, condition)| (NodeId(*node), *condition));
    let mut out = Vec::new();
    let input = Input::SetConditions {
        conditions: conditions.collect(),
    };
    router.step(Instant::ZERO, input, &mut out);
    assert_eq!(out, []);
}

/// Picks for a request that was at `nodes`.
fn pick_another(router: &mut Router, nodes: &[u64], is_alone: bool) -> Option<u64> {
    let mut been = Been::default();
    nodes.iter().for_each(|node| been.to(NodeId(*node)));
    let mut out = Vec::new();
    let input = Input::Pick {
        route: ROUTE,
        slot: SLOT,
        rows: 1,
        bytes: 0,
        may_probe: true,
        again: Some(Box::new(Again { been, is_alone })),
        sequence: None,
    };
    router.step(Instant::ZERO, input, &mut out);
    match out[..] {
        [Effect::Dispatch { replica, .. }] => Some(replica.0),
        [Effect::NoReplica { .. }] => None,
        _ => panic!("{out:?}"),
    }
}

#[test]
fn what_was_agreed_and_what_is_heard_make_a_condition() {
    use Liveness::{Alive, Down, Lost, Suspect};
    let since = paceline_protocol::Epoch(7);
    let draining = NodeState::Draining {
        since,
        deadline_ms: 1,
    };
    let table = [
        (NodeState::Up, Alive, Condition::Good),
        (draining, Alive, Condition::Draining),
        (draining, Suspect, Condition::Suspect),
        (NodeState::Drained { since }, Alive, Condition::Away),
        (NodeState::Up, Suspect, Condition::Suspect),
        (NodeState::Up, Lost, Condition::Away),
        (NodeState::Up, Down, Condition::Away),
        (NodeState::Down, Alive, Condition::Away),
    ];
    for (state, liveness, condition) in table {
        assert_eq!(Condition::of(state, liveness), condition);
    }
    let serving = [Condition::Good, Condition::Draining];
    let all = [serving[0], serving[1], Condition::Suspect, Condition::Away];
    assert!(all.iter().all(|c| c.serves() == serving.contains(c)));
}

#[test]
fn the_own_zone_first_and_the_other_before_it_is_too_much() {
    let mut router = router(vec![remote(2, true), remote(3, false)]);
    // A row takes 1 µs: the two thousandth in flight would make it 2 ms.
    let picked: Vec<_> = (0..4_000).map(|_| pick(&mut router, 1, 0)).collect();
    assert!(picked[..2_000].iter().all(|replica| *replica == Some(2)));
    let spilt = picked[2_000..].iter().filter(|r| **r == Some(3)).count();
    // Of 4,000 in flight a third: half of what waits here.
    assert_eq!(spilt, 1_333);
    for _ in 0..1_500 {
        done(&mut router, 0, 2, None);
    }
    assert_eq!(pick(&mut router, 1, 0), Some(2), "and back");
}

#[test]
fn another_zone_serves_what_this_one_does_not_have() {
    let mut router = router(vec![remote(3, false), remote(4, false)]);
    assert!(pick(&mut router, 1, 0).is_some());
}

#[test]
fn the_worse_a_node_is_the_later_it_is_picked_and_those_away_never() {
    use Condition::{Away, Draining, Suspect};
    let mut router = router(vec![target(9, true), target(2, false), remote(3, false)]);
    set_conditions(&mut router, &[(1, Draining), (2, Suspect)]);
    for _ in 0..50 {
        assert_eq!(pick(&mut router, 1, 0), Some(3));
    }
    set_conditions(&mut router, &[(1, Draining), (2, Suspect), (3, Away)]);
    for _ in 0..50 {
        assert_eq!(
            pick(&mut router, 1, 0),
            Some(9),
            "it leaves, and serves yet"
        );
    }
    set_conditions(&mut router, &[(1, Away), (2, Suspect), (3, Away)]);
    assert_eq!(pick(&mut router, 1, 0), Some(2), "suspect, but the last");
    set_conditions(&mut router, &[(1, Away), (2, Away), (3, Away)]);
    assert_eq!(pick(&mut router, 1, 0), None);
    set_conditions(&mut router, &[]);
    assert_eq!(router.targets(ROUTE), 3, "none was forgotten");
    assert!(pick(&mut router, 1, 0).is_some());
}

#[test]
fn a_condition_outlives_a_change_of_targets() {
    let mut router = router(vec![target(2, false)]);
    set_conditions(&mut router, &[(3, Condition::Suspect)]);
    let input = Input::SetTargets {
        route: ROUTE,
        targets: vec![target(2, false), target(3, false)],
    };
    router.step(Instant::ZERO, input, &mut Vec::new());
    for _ in 0..50 {
        assert_eq!(pick(&mut router, 1, 0), Some(2));
    }
}

#[test]
fn a_request_is_sent_where_it_was_not_or_nowhere() {
    let others = [target(2, false), target(3, false), remote(4, false)];
    let mut all = router([&others[..], &[target(9, true)]].concat());
    let nodes = [1, 2, 3, 4];
    for left_out in nodes {
        let been: Vec<u64> = nodes.into_iter().filter(|n| *n != left_out).collect();
        let only = if left_out == 1 { 9 } else { left_out };
        assert_eq!(pick_another(&mut all, &been, false), Some(only));
    }
    assert_eq!(pick_another(&mut all, &nodes, false), None);
    let local = pick_another(&mut all, &[2], false);
    assert_eq!(local, Some(9), "the one that answers soonest");
}

#[test]
fn what_may_have_silenced_a_node_goes_to_no_other_silent_one() {
    use Condition::{Draining, Suspect};
    let mut two = router(vec![target(2, false), remote(4, false)]);
    set_conditions(&mut two, &[(4, Suspect)]);
    assert_eq!(pick_another(&mut two, &[2], true), None);
    assert_eq!(pick_another(&mut two, &[2], false), Some(4));
    set_conditions(&mut two, &[(4, Draining)]);
    assert_eq!(pick_another(&mut two, &[2], true), Some(4));
    set_conditions(&mut two, &[(2, Suspect), (4, Suspect)]);
    assert_eq!(pick_another(&mut two, &[], true), None);
}

#[test]
fn of_very_many_some_of_another_zone_are_considered() {
    let targets = (2..1_000).map(|replica| remote(replica, replica % 2 == 0));
    let router = router(targets.collect());
    let considered = &router.routes[0].candidates;
    assert_eq!(considered.len(), SUBSET_MAX);
    let far = considered.iter().filter(|c| !c.target.is_near).count();
    assert_eq!(far, SPARE_MIN);
}
