//! Sequences: one replica each at every router, few that move, and loads that stay bounded.

use std::collections::BTreeMap;

use paceline_protocol::traffic::Sequence;
use proptest::prelude::*;

use super::*;

/// The replicas `1..=count`, each on a node of its own, as the router of `node` sees them; every
/// other one is in its zone.
fn of_node(node: u64, replicas: impl IntoIterator<Item = u64>) -> Router {
    let mut router = Router::new(NodeId(node), node * 7);
    tell(&mut router, node, replicas);
    router
}

fn tell(router: &mut Router, node: u64, replicas: impl IntoIterator<Item = u64>) {
    let targets = replicas.into_iter().map(|replica| Target {
        replica: ReplicaId(replica),
        node: NodeId(replica),
        local: (replica == node).then_some(BatcherId(0)),
        is_near: replica % 2 == node % 2,
        row_nanos: 1_000 * replica,
    });
    let input = Input::SetTargets {
        route: ROUTE,
        targets: targets.collect(),
    };
    router.step(Instant::ZERO, input, &mut Vec::new());
}

fn send(router: &mut Router, sequence: u64, rows: u32) -> u64 {
    send_again(router, sequence, (rows, None)).unwrap()
}

fn send_again(
    router: &mut Router,
    sequence: u64,
    (rows, again): (u32, Option<Again>),
) -> Option<u64> {
    let mut out = Vec::new();
    let input = Input::Pick {
        route: ROUTE,
        slot: SLOT,
        rows,
        bytes: 64,
        may_probe: false,
        again: again.map(Box::new),
        sequence: Some(InSequence {
            sequence: Sequence(sequence),
            rows,
        }),
    };
    router.step(Instant::ZERO, input, &mut out);
    match out[..] {
        [Effect::Dispatch { replica, .. }] => Some(replica.0),
        [Effect::NoReplica { .. }] => None,
        _ => panic!("{out:?}"),
    }
}

fn end(router: &mut Router, replica: u64, rows: u32, heard: Heard) {
    let input = Input::Done {
        route: ROUTE,
        replica: ReplicaId(replica),
        rows,
        heard,
    };
    router.step(Instant::ZERO, input, &mut Vec::new());
}

/// Where a request of a sequence goes that nothing is beside.
fn home(router: &mut Router, sequence: u64) -> u64 {
    let replica = send(router, sequence, 1);
    end(router, replica, 1, Heard::Nothing);
    replica
}

fn homes(router: &mut Router, sequences: u64) -> Vec<u64> {
    (0..sequences).map(|of| home(router, of)).collect()
}

#[test]
fn a_replica_that_is_away_ejected_or_tried_already_is_passed_over() {
    let mut router = of_node(1, 1..=4);
    let before = homes(&mut router, 200);
    let first = before[0];
    set_conditions(&mut router, &[(first, Condition::Away)]);
    let moved = homes(&mut router, 200);
    for (sequence, (before, after)) in before.iter().zip(&moved).enumerate() {
        assert_eq!(before == after, *before != first, "sequence {sequence}");
    }
    set_conditions(&mut router, &[(first, Condition::Draining)]);
    assert_eq!(homes(&mut router, 200), moved, "it leaves");
    set_conditions(&mut router, &[]);
    assert_eq!(homes(&mut router, 200), before, "and is back");
    for _ in 0..5 {
        end(&mut router, first, 0, Heard::Fault);
    }
    assert_eq!(homes(&mut router, 200), moved, "it fails");
    let mut been = Been::default();
    been.to(NodeId(moved[0]));
    let again = Again {
        been,
        is_alone: false,
    };
    let third = send_again(&mut router, 0, (1, Some(again))).unwrap();
    assert!(third != first && third != moved[0]);
}

#[test]
fn who_is_left_is_taken_whatever_it_is_like_but_not_who_is_away() {
    let mut router = of_node(1, 1..=3);
    let all = [Condition::Draining, Condition::Suspect, Condition::Away];
    let conditions: Vec<_> = (1..=3).zip(all).collect();
    set_conditions(&mut router, &conditions);
    assert_eq!(homes(&mut router, 50), [1; 50]);
    set_conditions(&mut router, &conditions[1..]);
    tell(&mut router, 1, 2..=3);
    assert_eq!(homes(&mut router, 50), [2; 50]);
    tell(&mut router, 1, 3..=3);
    assert_eq!(send_again(&mut router, 0, (1, None)), None);
}

#[test]
fn replicas_beyond_those_that_are_considered_have_their_sequences_at_every_router() {
    let replicas = 3 * SUBSET_MAX as u64;
    let (mut one, mut other) = (of_node(1, 1..=replicas), of_node(2, 1..=replicas));
    let homes = homes(&mut one, 2_000);
    assert_eq!(homes, super::sticky::homes(&mut other, 2_000));
    let used: std::collections::BTreeSet<u64> = homes.into_iter().collect();
    assert!(used.len() as u64 > replicas - 5, "{} of them", used.len());
    assert_eq!(one.in_flight_rows() + other.in_flight_rows(), 0);
}

/// Where a part of a request goes: it has so many rows of those of the request.
fn part(router: &mut Router, now: Instant, (rows, of): (u32, u32)) -> u64 {
    let mut out = Vec::new();
    let input = Input::Pick {
        route: ROUTE,
        slot: SLOT,
        rows,
        bytes: 64,
        may_probe: false,
        again: None,
        sequence: Some(InSequence {
            sequence: Sequence(0),
            rows: of,
        }),
    };
    router.step(now, input, &mut out);
    match out[..] {
        [Effect::Dispatch { replica, .. }] => replica.0,
        _ => panic!("{out:?}"),
    }
}

fn heard(router: &mut Router, now: Instant, (replica, rows): (u64, u32), heard: Heard) {
    let input = Input::Done {
        route: ROUTE,
        replica: ReplicaId(replica),
        rows,
        heard,
    };
    router.step(now, input, &mut Vec::new());
}

#[test]
fn the_parts_of_one_request_stay_together() {
    let mut router = of_node(1, 1..=3);
    let parts: Vec<u64> = (0..8)
        .map(|_| part(&mut router, Instant::ZERO, (32, 256)))
        .collect();
    assert_eq!(parts, [parts[0]; 8], "nothing else is under way");
}

#[test]
fn who_failed_is_tried_by_one_request_of_its_sequences_and_comes_back() {
    // Among few, and beyond those that are considered for other requests.
    for replicas in [3, 3 * SUBSET_MAX as u64] {
        let mut router = of_node(1, 1..=replicas);
        let (now, later) = (Instant::ZERO, Instant::from_nanos(2_000_000_000));
        let first = part(&mut router, now, (1, 1));
        heard(&mut router, now, (first, 1), Heard::Fault);
        for _ in 0..4 {
            heard(&mut router, now, (first, 0), Heard::Fault);
        }
        let other = part(&mut router, now, (1, 1));
        assert_ne!(other, first, "it is left out");
        heard(&mut router, now, (other, 1), Heard::Nothing);
        assert_eq!(part(&mut router, later, (1, 1)), first, "it is tried");
        assert_eq!(part(&mut router, later, (1, 1)), other, "by one request");
        heard(&mut router, later, (other, 1), Heard::Nothing);
        let report = Report {
            queued_rows: 0,
            row_nanos: 1,
            rest_nanos: 1,
        };
        heard(&mut router, later, (first, 1), Heard::Answer(report));
        assert_eq!(part(&mut router, later, (1, 1)), first, "and is back");
    }
}

proptest! {
    #[test]
    fn every_router_gives_a_sequence_the_same_replica_also_after_a_restart(
        replicas in proptest::collection::btree_set(1..500_u64, 1..50),
        nodes in proptest::collection::vec(1..500_u64, 2..4),
        sequence: u64,
    ) {
        let found: Vec<u64> = nodes
            .iter()
            .map(|node| home(&mut of_node(*node, replicas.iter().copied()), sequence))
            .collect();
        prop_assert!(found.iter().all(|replica| *replica == found[0]), "{:?}", found);
    }

    #[test]
    fn only_the_sequences_of_a_replica_that_goes_move(
        replicas in proptest::collection::btree_set(1..500_u64, 2..20),
        gone in any::<proptest::sample::Index>(),
    ) {
        let mut router = of_node(1, replicas.iter().copied());
        let before = homes(&mut router, 500);
        let gone = *replicas.iter().nth(gone.index(replicas.len())).unwrap();
        tell(&mut router, 1, replicas.iter().copied().filter(|other| *other != gone));
        let after = homes(&mut router, 500);
        let mut moved = 0.0;
        for (before, after) in before.iter().zip(&after) {
            prop_assert_eq!(before != after, *before == gone);
            moved += f64::from(u8::from(before != after));
        }
        // One in n, within five standard deviations.
        let share = 1.0 / replicas.len() as f64;
        let bound = 5.0 * (500.0 * share * (1.0 - share)).sqrt();
        prop_assert!((moved - 500.0 * share).abs() <= bound, "{} of {}", moved, replicas.len());
        tell(&mut router, 1, replicas.iter().copied());
        prop_assert_eq!(homes(&mut router, 500), before);
    }

    #[test]
    fn no_replica_takes_a_request_above_the_bound(
        count in 1..12_u64,
        requests in proptest::collection::vec((0..6_u64, 1..9_u32, any::<bool>()), 1..200),
    ) {
        let mut router = of_node(1, 1..=count);
        let mut loads: BTreeMap<u64, u64> = (1..=count).map(|of| (of, 0)).collect();
        let mut open = Vec::new();
        for (sequence, rows, ends) in requests {
            if ends && let Some((replica, rows)) = open.pop() {
                end(&mut router, replica, rows, Heard::Nothing);
                *loads.get_mut(&replica).unwrap() -= u64::from(rows);
            }
            let mean = loads.values().sum::<u64>() as f64 / count as f64;
            let replica = send(&mut router, sequence, rows);
            let load = loads.get_mut(&replica).unwrap();
            let bound = 1.25 * mean + f64::from(rows);
            prop_assert!(*load as f64 <= bound + 1e-6, "{} above {}", load, bound);
            *load += u64::from(rows);
            open.push((replica, rows));
        }
        prop_assert_eq!(router.in_flight_rows(), loads.values().sum::<u64>());
    }
}
