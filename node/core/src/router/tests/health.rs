//! Replicas that fail: left out, probed, back; and never too many of them.

use super::super::health::{FAULTS_MAX, OUT_NANOS, SLOW_START_NANOS};
use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn remotes(count: u64) -> Vec<Target> {
    (2..2 + count)
        .map(|replica| target(replica, false))
        .collect()
}

fn end(router: &mut Router, now: Instant, replica: u64, heard: Heard) -> Vec<Effect> {
    let mut out = Vec::new();
    let input = Input::Done {
        route: ROUTE,
        replica: ReplicaId(replica),
        rows: 1,
        heard,
    };
    router.step(now, input, &mut out);
    out
}

fn answer() -> Heard {
    Heard::Answer(Report {
        queued_rows: 0,
        row_nanos: 1_000,
        rest_nanos: 0,
    })
}

/// Fails there until it is left out; says until when.
fn eject(router: &mut Router, now: Instant, replica: u64) -> Instant {
    for _ in 1..FAULTS_MAX {
        assert_eq!(end(router, now, replica, Heard::Fault), []);
    }
    ejected(&end(router, now, replica, Heard::Fault), replica)
}

fn ejected(effects: &[Effect], of: u64) -> Instant {
    let [
        Effect::Ejected {
            replica,
            node: _,
            until,
        },
    ] = *effects
    else {
        panic!("{effects:?}");
    };
    assert_eq!(replica.0, of);
    until
}

/// Picks for a request that must not run twice.
fn pick_once(router: &mut Router, now: Instant) -> u64 {
    let mut out = Vec::new();
    let input = Input::Pick {
        route: ROUTE,
        slot: SLOT,
        rows: 1,
        bytes: 0,
        may_probe: false,
        again: None,
        sequence: None,
    };
    router.step(now, input, &mut out);
    match out[..] {
        [Effect::Dispatch { replica, .. }] => replica.0,
        _ => panic!("{out:?}"),
    }
}

/// Of so many requests that are answered at once, those that go there.
fn share(router: &mut Router, at_ms: u64, of: u64) -> u64 {
    let mut count = 0;
    for _ in 0..2_000 {
        let replica = pick_at(router, at_ms).unwrap();
        count += u64::from(replica == of);
        end(router, at(at_ms), replica, answer());
    }
    count
}

#[test]
fn a_replica_that_fails_in_a_row_is_out_and_one_request_at_a_time_tries_it() {
    let mut router = router(remotes(4));
    let until = eject(&mut router, at(0), 3);
    let first_nanos = until.nanos_since(at(0));
    assert!((OUT_NANOS..OUT_NANOS * 5 / 4).contains(&first_nanos));
    assert_eq!(router.ejected(), 1);
    assert_eq!(share(&mut router, 999, 3), 0, "it is out");
    let probed_ms = until.as_nanos() / 1_000_000 + 1;
    let once = pick_once(&mut router, at(probed_ms));
    assert_ne!(once, 3, "it could not run again");
    assert_eq!(pick_at(&mut router, probed_ms), Some(3), "the probe");
    for _ in 0..2_000 {
        let next = pick_at(&mut router, probed_ms + 500);
        assert_ne!(next, Some(3), "one at a time");
    }
    let until = ejected(&end(&mut router, at(3_000), 3, Heard::Fault), 3);
    let second_nanos = until.nanos_since(at(3_000));
    assert!((OUT_NANOS * 2..OUT_NANOS * 5 / 2).contains(&second_nanos));
    assert_eq!(pick_at(&mut router, 5_500), Some(3));
    let back = Effect::Back {
        replica: ReplicaId(3),
        node: NodeId(3),
    };
    assert_eq!(end(&mut router, at(5_600), 3, answer()), [back]);
    assert_eq!(router.ejected(), 0);
}

#[test]
fn a_probe_of_which_nothing_is_heard_is_sent_anew() {
    let mut router = router(remotes(4));
    eject(&mut router, at(0), 3);
    assert_eq!(pick_at(&mut router, 2_000), Some(3));
    assert_eq!(end(&mut router, at(2_001), 3, Heard::Nothing), []);
    assert_eq!(router.ejected(), 1);
    assert_eq!(pick_at(&mut router, 2_001), Some(3));
}

#[test]
fn the_share_of_who_is_back_grows() {
    let mut router = router(remotes(4));
    eject(&mut router, at(0), 3);
    assert_eq!(pick_at(&mut router, 2_000), Some(3));
    end(&mut router, at(2_000), 3, answer());
    let shares = [2_000, 4_000, 2_000 + SLOW_START_NANOS / 1_000_000];
    let [first, half, all] = shares.map(|ms| share(&mut router, ms, 3));
    assert!((20..100).contains(&first), "{first} of 500");
    assert!((150..350).contains(&half), "{half} of 500");
    assert!((400..600).contains(&all), "{all} of 500");
}

#[test]
fn what_was_sent_before_it_was_ejected_changes_nothing() {
    let mut router = router(remotes(4));
    for _ in 0..8 {
        assert!(pick(&mut router, 1, 0).is_some());
    }
    let until = eject(&mut router, at(0), 3);
    for heard in [answer(), Heard::Fault, Heard::Nothing] {
        assert_eq!(end(&mut router, at(1), 3, heard), []);
    }
    assert_eq!(router.ejected(), 1);
    let past_ms = until.as_nanos() / 1_000_000 + 1;
    assert_eq!(pick_at(&mut router, past_ms), Some(3), "and no later");
}

#[test]
fn one_in_ten_is_out_and_others_that_fail_are_picked_seldom() {
    let mut router = router(remotes(20));
    for replica in [2, 3] {
        eject(&mut router, at(0), replica);
    }
    for _ in 0..100 {
        assert_eq!(end(&mut router, at(0), 4, Heard::Fault), []);
    }
    assert_eq!(router.ejected(), 2);
    let mut failing = 0;
    for _ in 0..2_000 {
        let replica = pick_at(&mut router, 1).unwrap();
        assert!(replica != 2 && replica != 3);
        failing += u64::from(replica == 4);
        let heard = if replica == 4 { Heard::Fault } else { answer() };
        end(&mut router, at(1), replica, heard);
    }
    assert!((1..40).contains(&failing), "{failing} of 111");
}

#[test]
fn if_more_than_half_fail_none_is_out_and_all_are_tried() {
    let mut router = router(remotes(6));
    let mut counts = std::collections::BTreeMap::<u64, u32>::new();
    for turn in 0..6_000 {
        let replica = pick_at(&mut router, turn).unwrap();
        *counts.entry(replica).or_default() += 1;
        let effects = end(&mut router, at(turn), replica, Heard::Fault);
        assert!(turn < 100 || effects.is_empty(), "{turn}: {effects:?}");
    }
    assert_eq!(router.ejected(), 0);
    assert!(counts.values().all(|count| *count > 800), "{counts:?}");
    // Half of them answer again: the others are to blame.
    for replica in [2, 3, 4] {
        end(&mut router, at(6_000), replica, answer());
    }
    ejected(&end(&mut router, at(6_000), 5, Heard::Fault), 5);
    assert_eq!(router.ejected(), 1);
}

#[test]
fn the_only_replica_is_never_out_and_of_two_the_last_never() {
    let mut one = router(remotes(1));
    for _ in 0..100 {
        assert_eq!(end(&mut one, at(0), 2, Heard::Fault), []);
    }
    assert_eq!((pick(&mut one, 1, 0), one.ejected()), (Some(2), 0));
    let mut two = router(remotes(2));
    eject(&mut two, at(0), 2);
    for _ in 0..FAULTS_MAX {
        assert_eq!(end(&mut two, at(0), 3, Heard::Fault), []);
    }
    assert_eq!(two.ejected(), 0, "both fail");
}

#[test]
fn who_is_out_serves_if_all_others_are_silent() {
    let mut router = router(remotes(2));
    eject(&mut router, at(0), 2);
    set_conditions(&mut router, &[(3, Condition::Draining)]);
    assert_eq!(pick(&mut router, 1, 0), Some(3), "it leaves, and answers");
    set_conditions(&mut router, &[(3, Condition::Suspect)]);
    assert_eq!(pick(&mut router, 1, 0), Some(2));
}

#[test]
fn fewer_targets_are_fewer_that_may_be_out() {
    let mut router = router(remotes(20));
    for replica in [2, 3] {
        eject(&mut router, at(0), replica);
    }
    let few = Input::SetTargets {
        route: ROUTE,
        targets: remotes(6),
    };
    router.step(at(10), few, &mut Vec::new());
    assert_eq!(router.ejected(), 1);
}

/// Whatever happens: a request is sent to somebody, few are out, and those get one at a time.
#[test]
fn any_history_leaves_few_out_and_always_somebody_to_ask() {
    let mut ejections = 0;
    for seed in 0..200 {
        let mut random = Random::from_seed(seed);
        let count = 1 + random.below(24);
        let mut router = router(remotes(count));
        let mut now = at(0);
        let mut under_way: Vec<u64> = Vec::new();
        let faults_permille: Vec<u64> = (0..count).map(|_| random.below(3) * 450).collect();
        for _ in 0..2_000 {
            now = now.plus_nanos(random.below(20_000_000));
            if random.below(2) == 0 || under_way.is_empty() {
                let out = out_of(&router);
                let replica = pick_with(&mut router, now.as_nanos() / 1_000_000, (1, 0));
                let replica = replica.expect("there are some");
                let is_first = !under_way.contains(&replica);
                assert!(is_first || !out.contains(&replica), "{seed}: two probes");
                under_way.push(replica);
            } else {
                let ended = random.below(under_way.len() as u64) as usize;
                let replica = under_way.swap_remove(ended);
                let heard = match random.below(1_000) {
                    drawn if drawn < faults_permille[replica as usize - 2] => Heard::Fault,
                    drawn if drawn > 980 => Heard::Nothing,
                    _ => answer(),
                };
                ejections += end(&mut router, now, replica, heard).len();
            }
            let most = (count as usize / 10).max(1);
            assert!(router.ejected() <= most, "seed {seed}");
            assert_eq!(router.in_flight_rows(), under_way.len() as u64);
        }
    }
    assert!(ejections > 1_000, "{ejections} times");
}

fn out_of(router: &Router) -> Vec<u64> {
    let candidates = router.routes[0].candidates.iter();
    let out = candidates.filter(|candidate| candidate.health.is_out());
    out.map(|candidate| candidate.target.replica.0).collect()
}
