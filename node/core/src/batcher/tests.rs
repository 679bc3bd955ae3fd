//! The batcher: state, input, exact effects; and its laws over random histories.

mod policies;
mod pressure;
mod tenants;
mod tokens;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::request::BucketId;

/// A batcher that has its device to itself.
struct Alone {
    batcher: Batcher,
    fair: Fair,
}

impl Alone {
    fn new(options: Options) -> Self {
        let (batcher, fair) = (Batcher::new(options), Fair::default());
        Self { batcher, fair }
    }

    fn urgency(&self) -> Option<(Criticality, Instant)> {
        let head = self.batcher.head(&self.fair)?;
        Some((head.criticality, head.deadline))
    }

    fn wake(&mut self, now: Instant) -> Vec<Effect> {
        let mut out = Vec::new();
        self.batcher.wake(now, &mut self.fair, &mut out);
        out
    }
}

impl std::ops::Deref for Alone {
    type Target = Batcher;

    fn deref(&self) -> &Batcher {
        &self.batcher
    }
}

fn batcher(rows_max: u32) -> Alone {
    let cost = CostFit::from_warm_up(10_000, rows_max, 100_000);
    Alone::new(Options {
        rows_max,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    })
}

fn request(index: u32, rows: u32, deadline_ms: u64) -> RequestMeta {
    RequestMeta {
        slot: Slot {
            index,
            generation: 0,
        },
        deadline: at(deadline_ms),
        bucket: BucketId(0),
        tenant: TenantId::DEFAULT,
        bytes: 64,
        rows,
        tokens: 0,
        criticality: Criticality::default(),
        is_alone: false,
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn step(batcher: &mut Alone, now_ms: u64, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    let Alone { batcher, fair } = batcher;
    batcher.step(at(now_ms), input, fair, &mut out);
    out
}

fn joined(effects: &[Effect]) -> Vec<u32> {
    let slots = effects.iter().filter_map(|effect| match effect {
        Effect::Join(request) => Some(request.slot.index),
        Effect::Drop { .. } => None,
    });
    slots.collect()
}

fn dropped(index: u32, why: DropReason) -> Effect {
    Effect::Drop {
        slot: Slot {
            index,
            generation: 0,
        },
        why,
    }
}

#[test]
fn the_earliest_deadline_goes_first_and_equals_go_in_order_of_arrival() {
    let mut batcher = batcher(8);
    for (index, deadline) in [(0, 30), (1, 10), (2, 30), (3, 20)] {
        assert_eq!(
            step(&mut batcher, 0, Input::Arrive(request(index, 1, deadline))),
            []
        );
    }
    assert_eq!(batcher.queued_rows(), 4);
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [1, 3, 0, 2]);
    assert_eq!(batcher.queued_rows(), 0);
}

#[test]
fn a_batch_ends_where_the_next_request_does_not_fit() {
    let mut batcher = batcher(4);
    for (index, rows) in [(0, 2), (1, 1), (2, 2), (3, 1)] {
        step(&mut batcher, 0, Input::Arrive(request(index, rows, 50)));
    }
    let first = step(&mut batcher, 1, Input::Form);
    assert_eq!(
        joined(&first),
        [0, 1],
        "3 would fit but must not overtake 2"
    );
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [2, 3]);
}

#[test]
fn a_request_larger_than_a_batch_runs_alone() {
    let mut batcher = batcher(4);
    step(&mut batcher, 0, Input::Arrive(request(0, 9, 50)));
    step(&mut batcher, 0, Input::Arrive(request(1, 1, 60)));
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [0]);
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [1]);
}

#[test]
fn other_buckets_are_passed_over_and_keep_their_place() {
    let mut batcher = batcher(8);
    let other = RequestMeta {
        bucket: BucketId(7),
        ..request(1, 1, 20)
    };
    step(&mut batcher, 0, Input::Arrive(request(0, 1, 10)));
    step(&mut batcher, 0, Input::Arrive(other));
    step(&mut batcher, 0, Input::Arrive(request(2, 1, 30)));
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [0, 2]);
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), [1]);
}

#[test]
fn who_must_be_alone_is_a_batch_and_keeps_its_place_in_the_order() {
    let alone = |index, deadline_ms| RequestMeta {
        criticality: Criticality::default(),
        is_alone: true,
        ..request(index, 1, deadline_ms)
    };
    let mut batcher = batcher(8);
    for arrives in [request(0, 1, 10), alone(1, 20), request(2, 1, 30)] {
        step(&mut batcher, 0, Input::Arrive(arrives));
    }
    step(&mut batcher, 0, Input::Arrive(alone(3, 20)));
    for batch in [&[0, 2][..], &[1], &[3], &[]] {
        assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), batch);
    }
    for arrives in [alone(4, 10), request(5, 1, 20)] {
        step(&mut batcher, 0, Input::Arrive(arrives));
    }
    for batch in [[4], [5]] {
        assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), batch);
    }
}

#[test]
fn expired_requests_are_dropped_on_arrival_on_waking_and_when_a_batch_is_formed() {
    let mut batcher = batcher(8);
    let late = step(&mut batcher, 5, Input::Arrive(request(0, 1, 5)));
    assert_eq!(late, [dropped(0, DropReason::Expired)]);
    step(&mut batcher, 0, Input::Arrive(request(1, 1, 10)));
    step(&mut batcher, 0, Input::Arrive(request(2, 1, 20)));
    assert_eq!(batcher.earliest_deadline(), Some(at(10)));
    assert_eq!(batcher.wake(at(10)), [dropped(1, DropReason::Expired)]);
    let formed = step(&mut batcher, 20, Input::Form);
    assert_eq!(formed, [dropped(2, DropReason::Expired)]);
    assert_eq!(
        (batcher.queued_rows(), batcher.earliest_deadline()),
        (0, None)
    );
}

#[test]
fn under_pressure_what_cannot_be_finished_makes_room_for_what_can() {
    // A full batch of 4 takes 100 µs. Six requests wait; two could not be done in time.
    let cost = CostFit::from_warm_up(70_000, 4, 100_000);
    let mut batcher = Alone::new(Options {
        rows_max: 4,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    });
    let soon = Instant::from_nanos(90_000);
    for index in 0..6 {
        let deadline = if index % 3 == 0 { soon } else { at(50) };
        let request = RequestMeta {
            deadline,
            ..request(index, 1, 50)
        };
        step(&mut batcher, 0, Input::Arrive(request));
    }
    let formed = step(&mut batcher, 0, Input::Form);
    assert_eq!(
        formed[..2],
        [dropped(0, DropReason::Late), dropped(3, DropReason::Late)]
    );
    assert_eq!(joined(&formed), [1, 2, 4, 5]);
}

#[test]
fn without_pressure_everything_is_tried() {
    let cost = CostFit::from_warm_up(70_000, 4, 100_000);
    let mut batcher = Alone::new(Options {
        rows_max: 4,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    });
    let deadline = Instant::from_nanos(1);
    step(
        &mut batcher,
        0,
        Input::Arrive(RequestMeta {
            deadline,
            ..request(0, 1, 50)
        }),
    );
    assert_eq!(joined(&step(&mut batcher, 0, Input::Form)), [0]);
}

#[test]
fn a_cancelled_request_leaves_at_once_and_only_once() {
    let mut batcher = batcher(8);
    step(&mut batcher, 0, Input::Arrive(request(0, 3, 10)));
    let slot = Slot {
        index: 0,
        generation: 0,
    };
    let cancelled = step(&mut batcher, 1, Input::Cancel(slot));
    assert_eq!(cancelled, [dropped(0, DropReason::Cancelled)]);
    assert_eq!(step(&mut batcher, 1, Input::Cancel(slot)), []);
    assert_eq!(batcher.queued_rows(), 0);
}

#[test]
fn the_queue_holds_what_can_be_finished_in_the_default_budget() {
    // 8 rows take 8 s when batched: 10 s of them are 10 rows, below the smallest queue of 64.
    let cost = CostFit::from_warm_up(1_000_000_000, 8, 8_000_000_000);
    let mut batcher = Alone::new(Options {
        rows_max: 8,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    });
    assert_eq!(batcher.queue_rows_max(), 64);
    for index in 0..64 {
        assert_eq!(
            step(&mut batcher, 0, Input::Arrive(request(index, 1, 99_999))),
            []
        );
    }
    let retry_after = Duration::from_secs(64);
    let full = step(&mut batcher, 0, Input::Arrive(request(64, 1, 99_999)));
    assert_eq!(full, [dropped(64, DropReason::QueueFull { retry_after })]);
}

#[test]
fn a_closed_batcher_gives_everything_back_unexecuted() {
    let mut batcher = batcher(8);
    step(&mut batcher, 0, Input::Arrive(request(0, 1, 10)));
    step(&mut batcher, 0, Input::Arrive(request(1, 1, 20)));
    let closed = step(&mut batcher, 1, Input::Close);
    assert_eq!(
        closed,
        [dropped(0, DropReason::Gone), dropped(1, DropReason::Gone)]
    );
}

proptest! {
    /// Every request that arrives leaves exactly once, batches keep to their limits, one batch
    /// holds one bucket and one class, and nobody of a higher class is left waiting.
    #[test]
    fn every_request_leaves_exactly_once(
        arrivals in proptest::collection::vec(
            (1u32..6, 1u64..40, 0u64..3, (0usize..4, 0u64..3), any::<bool>()),
            1..120,
        ),
        rows_max in 1u32..8,
    ) {
        let mut batcher = batcher(rows_max);
        let mut open = BTreeMap::new();
        let settle = |effects: Vec<Effect>, open: &mut BTreeMap<u32, Criticality>| {
            let mut batch: Vec<RequestMeta> = Vec::new();
            for effect in effects {
                let slot = match effect {
                    Effect::Join(request) => {
                        batch.push(request);
                        request.slot
                    }
                    Effect::Drop { slot, .. } => slot,
                };
                assert!(open.remove(&slot.index).is_some(), "{} left twice", slot.index);
            }
            let rows: u32 = batch.iter().map(|request| request.rows).sum();
            assert!(rows <= rows_max || batch.len() == 1);
            assert!(batch.windows(2).all(|pair| pair[0].bucket == pair[1].bucket));
            for tenant in (0..3).map(TenantId) {
                let own = batch.iter().filter(|request| request.tenant == tenant);
                assert!(own.is_sorted_by_key(|request| request.deadline));
            }
            if let Some(first) = batch.first() {
                assert!(batch.iter().all(|other| other.criticality == first.criticality));
                assert!(open.values().all(|class| *class >= first.criticality));
            }
        };
        for (now, (rows, wait, bucket, (class, tenant), form)) in arrivals.iter().enumerate() {
            let (now, index) = (now as u64, now as u32);
            let bucket = BucketId(*bucket);
            let criticality = Criticality::ALL[*class];
            let request = RequestMeta {
                bucket,
                criticality,
                tenant: TenantId(*tenant),
                ..request(index, *rows, now + wait)
            };
            open.insert(index, criticality);
            settle(step(&mut batcher, now, Input::Arrive(request)), &mut open);
            if *form {
                settle(step(&mut batcher, now, Input::Form), &mut open);
            }
            if rows % 5 == 0 {
                let slot = Slot { index: index / 2, generation: 0 };
                settle(step(&mut batcher, now, Input::Cancel(slot)), &mut open);
            }
            prop_assert_eq!(batcher.queued_requests(), open.len());
        }
        settle(batcher.wake(Instant::FAR), &mut open);
        prop_assert!(open.is_empty());
        prop_assert_eq!(batcher.queued_rows(), 0);
    }
}
