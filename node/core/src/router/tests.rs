//! The router: state, input, exact effects; and the balance that two choices promise.

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
    let mut out = Vec::new();
    router.step(
        Instant::ZERO,
        Input::Pick {
            route: ROUTE,
            slot: SLOT,
            rows,
            bytes,
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
        report,
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
        round_trip_nanos: 0,
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
            round_trip_nanos: 0,
        };
        done(&mut router, 0, replica, Some(report));
    }
    let slow = counts.remove(&4).unwrap_or(0);
    assert!(slow < 60, "the slow one got {slow} of 6,000");
    assert!(counts.values().all(|count| *count > 800), "{counts:?}");
}

#[test]
fn what_was_learnt_survives_a_change_of_the_others() {
    let mut router = router(vec![target(2, false), target(3, false)]);
    for _ in 0..50 {
        let report = Report {
            queued_rows: 0,
            row_nanos: 1 << 20,
            round_trip_nanos: 0,
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
        assert!(router.routes[0][0].target.local.is_some());
        seen.extend(
            router.routes[0]
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
