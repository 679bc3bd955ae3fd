//! Other servers' policies: what they wait for, and in which order they take.

use super::*;

fn of(policy: Policy) -> Alone {
    let cost = CostFit::from_warm_up(1_000_000, 4, 4_000_000);
    Alone::new(Options {
        rows_max: 4,
        tokens_max: 0,
        policy,
        cost,
    })
}

#[test]
fn requests_go_in_order_of_arrival_whatever_they_ask_for() {
    let mut batcher = of(Policy::Arrival);
    let urgent = RequestMeta {
        criticality: Criticality::CriticalPlus,
        tenant: TenantId(7),
        ..request(2, 1, 20)
    };
    for arrives in [request(0, 1, 90), request(1, 1, 30), urgent] {
        step(&mut batcher, 0, Input::Arrive(arrives));
    }
    let slot = request(1, 1, 0).slot;
    step(&mut batcher, 0, Input::Cancel(slot));
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [0, 2]);
    assert!(batcher.queue.is_empty());
}

#[test]
fn those_of_other_shapes_keep_their_places() {
    let mut batcher = of(Policy::Arrival);
    let other = RequestMeta {
        bucket: BucketId(7),
        ..request(1, 1, 90)
    };
    for arrives in [request(0, 1, 90), other, request(2, 1, 90)] {
        step(&mut batcher, 0, Input::Arrive(arrives));
    }
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [0, 2]);
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [1]);
}

#[test]
fn nothing_is_refused_for_being_late_and_what_has_expired_does_not_run() {
    let mut batcher = of(Policy::Arrival);
    for index in 0..64 {
        let arrives = Input::Arrive(request(index, 1, 10));
        assert_eq!(step(&mut batcher, 0, arrives), []);
    }
    let first = step(&mut batcher, 9, Input::Form);
    assert_eq!(joined(&first), [0, 1, 2, 3], "though it ends at 13 ms");
    let second = step(&mut batcher, 10, Input::Form);
    assert_eq!(second.len(), 60);
    assert_eq!(joined(&second), []);
}

#[test]
fn a_batch_waits_until_it_is_full_or_its_time_has_come() {
    let mut batcher = of(Policy::Timeout { nanos: 5_000_000 });
    step(&mut batcher, 10, Input::Arrive(request(0, 1, 900)));
    assert_eq!(batcher.held_until(at(10)), Some(at(15)));
    assert_eq!(batcher.held_until(at(15)), None);
    step(&mut batcher, 12, Input::Arrive(request(1, 2, 900)));
    assert_eq!(batcher.held_until(at(12)), Some(at(15)), "of the oldest");
    step(&mut batcher, 12, Input::Arrive(request(2, 1, 900)));
    assert_eq!(batcher.held_until(at(12)), None, "it is full");
    let mut batcher = of(Policy::Timeout { nanos: 50_000_000 });
    step(&mut batcher, 10, Input::Arrive(request(0, 1, 20)));
    assert_eq!(batcher.held_until(at(10)), Some(at(19)), "it takes 1 ms");
}

#[test]
fn a_batch_waits_as_long_as_its_latency_allows() {
    let mut batcher = of(Policy::Latency { nanos: 10_000_000 });
    step(&mut batcher, 0, Input::Arrive(request(0, 1, 900)));
    assert_eq!(batcher.held_until(at(0)), Some(at(9)));
    step(&mut batcher, 0, Input::Arrive(request(1, 2, 900)));
    assert_eq!(
        batcher.held_until(at(0)),
        Some(at(7)),
        "three rows take 3 ms"
    );
}
