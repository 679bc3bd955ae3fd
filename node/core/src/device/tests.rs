//! The device: state, input, exact effects; and conservation over random histories.

use proptest::prelude::*;

use paceline_protocol::{Criticality, TenantId};

use super::*;
use crate::cost::CostFit;
use crate::request::BucketId;

const CHEAP_NANOS: u64 = 5_000;
const DEAR_NANOS: u64 = 5_000_000;
const QUEUE: BatcherId = BatcherId(0);
const LANE: LaneId = LaneId(0);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn slot(index: u32) -> Slot {
    Slot {
        index,
        generation: 0,
    }
}

fn request(index: u32, deadline_ms: u64) -> RequestMeta {
    RequestMeta {
        slot: slot(index),
        deadline: at(deadline_ms),
        bucket: BucketId(0),
        tenant: TenantId::DEFAULT,
        bytes: 0,
        rows: 1,
        tokens: 0,
        criticality: Criticality::default(),
        is_alone: false,
    }
}

fn device(lanes: u16, row_nanos: u64) -> Device {
    let mut device = Device::new(lanes);
    for queue in 0..2 {
        let cost = CostFit::from_warm_up(row_nanos, 8, row_nanos * 2);
        let options = batcher::Options {
            rows_max: 8,
            tokens_max: 0,
            policy: batcher::Policy::default(),
            cost,
        };
        step(
            &mut device,
            0,
            Input::Attach {
                batcher: BatcherId(queue),
                options,
            },
        );
    }
    device
}

fn step(device: &mut Device, now_ms: u64, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    device.step(at(now_ms), input, &mut out);
    out
}

fn arrive(device: &mut Device, queue: u32, index: u32, deadline_ms: u64) -> Vec<Effect> {
    let (batcher, request) = (BatcherId(queue), request(index, deadline_ms));
    step(
        device,
        0,
        Input::Arrive {
            batcher,
            request,
            in_place: true,
        },
    )
}

fn finished(device: &mut Device, in_place: bool) -> Vec<Effect> {
    step(
        device,
        1,
        Input::Finished {
            lane: LANE,
            nanos: Some(CHEAP_NANOS),
            in_place,
        },
    )
}

#[test]
fn a_cheap_batch_runs_in_the_callers_task() {
    let mut device = device(1, CHEAP_NANOS);
    assert_eq!(
        arrive(&mut device, 0, 7, 100),
        [
            Effect::Join { slot: slot(7) },
            Effect::Run {
                lane: LANE,
                batcher: QUEUE,
                rows: 1
            }
        ]
    );
    assert_eq!(device.running(), 1);
    assert_eq!(arrive(&mut device, 0, 8, 100), [], "the lane is busy");
    assert_eq!(
        finished(&mut device, true),
        [
            Effect::Join { slot: slot(8) },
            Effect::Run {
                lane: LANE,
                batcher: QUEUE,
                rows: 1
            }
        ],
        "the same task goes on for who queued"
    );
    assert_eq!(finished(&mut device, true), []);
    assert_eq!(device.running(), 0);
}

#[test]
fn a_dear_batch_wakes_the_lanes_thread_and_is_formed_when_it_is_awake() {
    let mut device = device(1, DEAR_NANOS);
    assert_eq!(
        arrive(&mut device, 0, 1, 100),
        [Effect::Wake { lane: LANE }]
    );
    assert_eq!(
        arrive(&mut device, 0, 2, 50),
        [],
        "it is being woken already"
    );
    assert_eq!(
        step(&mut device, 0, Input::Begin { lane: LANE }),
        [
            Effect::Join { slot: slot(2) },
            Effect::Join { slot: slot(1) },
            Effect::Stage { lane: LANE }
        ]
    );
    assert_eq!(
        step(&mut device, 0, Input::Launch { lane: LANE }),
        [Effect::Run {
            lane: LANE,
            batcher: QUEUE,
            rows: 2
        }]
    );
    assert_eq!(finished(&mut device, false), []);
}

#[test]
fn a_caller_that_cannot_run_it_wakes_the_thread_even_for_a_cheap_batch() {
    let mut device = device(1, CHEAP_NANOS);
    let input = Input::Arrive {
        batcher: QUEUE,
        request: request(1, 100),
        in_place: false,
    };
    assert_eq!(step(&mut device, 0, input), [Effect::Wake { lane: LANE }]);
}

#[test]
fn one_task_runs_for_others_only_so_often() {
    let mut device = device(1, CHEAP_NANOS);
    arrive(&mut device, 0, 0, 100);
    let mut runs = 1;
    loop {
        arrive(&mut device, 0, runs, 100);
        let effects = finished(&mut device, true);
        if effects == [Effect::Wake { lane: LANE }] {
            break;
        }
        assert!(
            matches!(effects[..], [Effect::Join { .. }, Effect::Run { .. }]),
            "{effects:?}"
        );
        runs += 1;
    }
    assert_eq!(runs, IN_PLACE_RUNS_MAX);
}

#[test]
fn the_queue_with_the_earliest_head_goes_first() {
    let mut device = device(1, DEAR_NANOS);
    arrive(&mut device, 0, 1, 100);
    arrive(&mut device, 1, 2, 50);
    let begun = step(&mut device, 0, Input::Begin { lane: LANE });
    assert_eq!(
        begun,
        [Effect::Join { slot: slot(2) }, Effect::Stage { lane: LANE }]
    );
    let run = step(&mut device, 0, Input::Launch { lane: LANE });
    assert_eq!(
        run,
        [Effect::Run {
            lane: LANE,
            batcher: BatcherId(1),
            rows: 1
        }]
    );
    assert_eq!(finished(&mut device, false), [Effect::Wake { lane: LANE }]);
}

#[test]
fn what_expires_or_is_cancelled_after_forming_is_dropped_at_launch() {
    let mut device = device(1, DEAR_NANOS);
    for (index, deadline) in [(1, 10), (2, 100), (3, 100)] {
        arrive(&mut device, 0, index, deadline);
    }
    step(&mut device, 0, Input::Begin { lane: LANE });
    let cancel = Input::Cancel {
        batcher: QUEUE,
        slot: slot(3),
    };
    assert_eq!(step(&mut device, 5, cancel), []);
    assert_eq!(
        step(&mut device, 10, Input::Launch { lane: LANE }),
        [
            Effect::Drop {
                slot: slot(1),
                why: DropReason::Expired
            },
            Effect::Drop {
                slot: slot(3),
                why: DropReason::Cancelled
            },
            Effect::Run {
                lane: LANE,
                batcher: QUEUE,
                rows: 1
            },
        ]
    );
}

#[test]
fn a_batch_of_which_nothing_is_left_frees_its_lane_for_the_next() {
    let mut device = device(1, DEAR_NANOS);
    arrive(&mut device, 0, 1, 10);
    step(&mut device, 0, Input::Begin { lane: LANE });
    arrive(&mut device, 0, 2, 100);
    assert_eq!(
        step(&mut device, 10, Input::Launch { lane: LANE }),
        [
            Effect::Drop {
                slot: slot(1),
                why: DropReason::Expired
            },
            Effect::Wake { lane: LANE },
        ]
    );
}

#[test]
fn a_thread_that_wakes_to_an_empty_queue_goes_idle() {
    let mut device = device(1, DEAR_NANOS);
    arrive(&mut device, 0, 1, 10);
    let begun = step(&mut device, 10, Input::Begin { lane: LANE });
    assert_eq!(
        begun,
        [Effect::Drop {
            slot: slot(1),
            why: DropReason::Expired
        }]
    );
    assert_eq!(
        arrive(&mut device, 0, 2, 100),
        [Effect::Wake { lane: LANE }]
    );
}

#[test]
fn a_detached_replica_gives_back_what_waits_and_takes_nothing_more() {
    let mut device = device(1, DEAR_NANOS);
    arrive(&mut device, 0, 1, 100);
    let gone = |index| Effect::Drop {
        slot: slot(index),
        why: DropReason::Gone,
    };
    assert_eq!(
        step(&mut device, 0, Input::Detach { batcher: QUEUE }),
        [gone(1)]
    );
    assert_eq!(arrive(&mut device, 0, 2, 100), [gone(2)]);
    assert_eq!(step(&mut device, 0, Input::Begin { lane: LANE }), []);
    assert_eq!(device.next_wakeup(), None);
}

#[test]
fn a_node_that_leaves_gives_back_what_waits_and_keeps_its_queues() {
    let mut device = device(1, DEAR_NANOS);
    arrive(&mut device, 0, 1, 100);
    arrive(&mut device, 1, 2, 50);
    let gone = |index| Effect::Drop {
        slot: slot(index),
        why: DropReason::Gone,
    };
    assert_eq!(step(&mut device, 0, Input::Evict), [gone(1), gone(2)]);
    assert_eq!(device.queued_rows(), 0);
    assert_eq!(step(&mut device, 0, Input::Begin { lane: LANE }), []);
    let woken = [Effect::Wake { lane: LANE }];
    assert_eq!(arrive(&mut device, 0, 3, 100), woken, "it came back");
}

#[test]
fn waking_drops_what_has_expired_in_every_queue() {
    let mut device = device(1, DEAR_NANOS);
    arrive(&mut device, 0, 1, 10);
    arrive(&mut device, 1, 2, 20);
    arrive(&mut device, 1, 3, 30);
    assert_eq!(device.next_wakeup(), Some(at(10)));
    let mut out = Vec::new();
    device.wake(at(20), &mut out);
    let expired = |index| Effect::Drop {
        slot: slot(index),
        why: DropReason::Expired,
    };
    assert_eq!(out, [expired(1), expired(2)]);
    assert_eq!(device.next_wakeup(), Some(at(30)));
}

/// One lane; the first queue's batches are dear and the second's cheap.
fn mixed() -> Device {
    let mut device = device(1, DEAR_NANOS);
    let batcher = BatcherId(1);
    step(&mut device, 0, Input::Detach { batcher });
    let options = batcher::Options {
        rows_max: 8,
        tokens_max: 0,
        policy: batcher::Policy::default(),
        cost: CostFit::from_warm_up(CHEAP_NANOS, 8, CHEAP_NANOS * 2),
    };
    step(&mut device, 0, Input::Attach { batcher, options });
    device
}

fn runs(lane: LaneId, queue: u32, index: u32) -> [Effect; 2] {
    let (batcher, rows) = (BatcherId(queue), 1);
    [
        Effect::Join { slot: slot(index) },
        Effect::Run {
            lane,
            batcher,
            rows,
        },
    ]
}

#[test]
fn what_is_cheap_does_not_wait_for_what_takes_long() {
    let mut device = mixed();
    let strip = LaneId(1);
    arrive(&mut device, 0, 1, 100);
    step(&mut device, 0, Input::Begin { lane: LANE });
    step(&mut device, 0, Input::Launch { lane: LANE });
    assert_eq!(arrive(&mut device, 1, 2, 100), runs(strip, 1, 2));
    assert_eq!(arrive(&mut device, 0, 3, 100), [], "it is dear itself");
    assert_eq!(arrive(&mut device, 1, 4, 100), [], "there is one strip");
    let finished_there = |in_place| Input::Finished {
        lane: strip,
        nanos: Some(CHEAP_NANOS),
        in_place,
    };
    let effects = step(&mut device, 1, finished_there(true));
    assert_eq!(
        effects,
        runs(strip, 1, 4),
        "its task goes on for who queued"
    );
    assert_eq!(step(&mut device, 1, finished_there(true)), []);
    assert_eq!((device.running(), device.queued_rows()), (1, 1));
    // Who cannot run it itself waits for a lane.
    let input = Input::Arrive {
        batcher: BatcherId(1),
        request: request(5, 100),
        in_place: false,
    };
    assert_eq!(step(&mut device, 1, input), []);
    assert_eq!(finished(&mut device, false), [Effect::Wake { lane: LANE }]);
}

#[test]
fn what_is_cheap_waits_for_what_is_quick() {
    let mut device = mixed();
    assert_eq!(arrive(&mut device, 1, 1, 100), runs(LANE, 1, 1));
    assert_eq!(arrive(&mut device, 1, 2, 100), [], "they share a batch");
    // Nor does it overtake what a thread is being woken for.
    let mut device = mixed();
    arrive(&mut device, 0, 1, 100);
    assert_eq!(arrive(&mut device, 1, 2, 100), []);
}

#[test]
fn a_task_slips_in_for_others_only_so_often() {
    let mut device = mixed();
    arrive(&mut device, 0, 0, 100);
    step(&mut device, 0, Input::Begin { lane: LANE });
    step(&mut device, 0, Input::Launch { lane: LANE });
    let strip = LaneId(1);
    let mut runs = u32::from(!arrive(&mut device, 1, 1, 100).is_empty());
    let finished_there = || Input::Finished {
        lane: strip,
        nanos: Some(CHEAP_NANOS),
        in_place: true,
    };
    loop {
        arrive(&mut device, 1, 1 + runs, 100);
        match step(&mut device, 1, finished_there())[..] {
            [] => break,
            _ => runs += 1,
        }
    }
    assert_eq!(runs, IN_PLACE_RUNS_MAX);
    let next = arrive(&mut device, 1, 90, 100);
    assert!(matches!(
        next[..],
        [
            Effect::Join { .. },
            Effect::Join { .. },
            Effect::Run { rows: 2, .. }
        ]
    ));
}

/// A driver that keeps the books: what waits, what has joined, what has ended.
struct Books {
    device: Device,
    open: std::collections::BTreeSet<u32>,
    joined: std::collections::BTreeSet<u32>,
    awake: Vec<LaneId>,
    staged: Vec<(LaneId, std::collections::BTreeSet<u32>)>,
    running: Vec<(LaneId, std::collections::BTreeSet<u32>)>,
}

impl Books {
    fn take(&mut self, now: u64, input: Input) {
        for effect in step(&mut self.device, now, input) {
            match effect {
                Effect::Join { slot } => {
                    assert!(self.open.contains(&slot.index) && self.joined.insert(slot.index));
                }
                Effect::Wake { lane } => self.awake.push(lane),
                Effect::Stage { lane } => {
                    self.staged.push((lane, std::mem::take(&mut self.joined)));
                }
                Effect::Run { lane, rows, .. } => {
                    // What has joined in this very step runs in place.
                    let staged = self.staged.iter().position(|(known, _)| *known == lane);
                    let batch = match staged {
                        Some(at) => self.staged.swap_remove(at).1,
                        None => std::mem::take(&mut self.joined),
                    };
                    assert_eq!(batch.len(), rows as usize);
                    self.running.push((lane, batch));
                }
                Effect::Drop { slot, .. } => {
                    self.joined.remove(&slot.index);
                    for (_, batch) in &mut self.staged {
                        batch.remove(&slot.index);
                    }
                    assert!(self.open.remove(&slot.index), "{} ended twice", slot.index);
                }
            }
        }
    }
}

proptest! {
    /// Every request ends exactly once, whatever happens in whatever order on one lane.
    #[test]
    fn every_request_ends_exactly_once(
        events in proptest::collection::vec((0u8..8, any::<bool>(), 1u64..30), 1..200),
        (cheap, both) in any::<(bool, bool)>(),
    ) {
        let nanos = if cheap { CHEAP_NANOS } else { DEAR_NANOS };
        let mut books = Books {
            device: if both { mixed() } else { device(1, nanos) },
            open: Default::default(),
            joined: Default::default(),
            awake: vec![],
            staged: vec![],
            running: vec![],
        };
        for (now, (event, in_place, wait)) in events.into_iter().enumerate() {
            let (now, index) = (now as u64, now as u32);
            match event {
                0..=2 => {
                    books.open.insert(index);
                    let batcher = BatcherId(index % 2);
                    let request = request(index, now + wait);
                    books.take(now, Input::Arrive { batcher, request, in_place });
                }
                3 => {
                    let slot = slot(index / 2);
                    books.take(now, Input::Cancel { batcher: BatcherId(slot.index % 2), slot });
                }
                4 => if let Some(lane) = books.awake.pop() {
                    books.take(now, Input::Begin { lane });
                },
                5 => if let Some((lane, _)) = books.staged.last() {
                    let lane = *lane;
                    books.take(now, Input::Launch { lane });
                    books.staged.retain(|(known, _)| *known != lane);
                },
                6 => books.take(now, Input::Evict),
                _ => if let Some((lane, batch)) = books.running.pop() {
                    for index in batch {
                        prop_assert!(books.open.remove(&index));
                    }
                    books.take(now, Input::Finished { lane, nanos: Some(nanos), in_place });
                },
            }
        }
        // The liveness half: with the lane served, everything ends.
        for now in 1_000..1_400 {
            if let Some(lane) = books.awake.pop() {
                books.take(now, Input::Begin { lane });
            }
            if let Some((lane, _)) = books.staged.last() {
                let lane = *lane;
                books.take(now, Input::Launch { lane });
                books.staged.retain(|(known, _)| *known != lane);
            }
            if let Some((lane, batch)) = books.running.pop() {
                books.open.retain(|index| !batch.contains(index));
                books.take(now, Input::Finished { lane, nanos: None, in_place: false });
            }
        }
        prop_assert!(books.open.is_empty(), "{:?} never ended", books.open);
        prop_assert_eq!(books.device.running(), 0);
    }
}

#[test]
fn what_is_held_wakes_a_lane_when_its_time_has_come_and_keeps_no_other_waiting() {
    let mut device = Device::new(2);
    let policies = [
        batcher::Policy::Timeout { nanos: 5_000_000 },
        batcher::Policy::Deadlines,
    ];
    for (queue, policy) in (0..).zip(policies) {
        let options = batcher::Options {
            rows_max: 8,
            tokens_max: 0,
            policy,
            cost: CostFit::from_warm_up(DEAR_NANOS, 8, DEAR_NANOS * 2),
        };
        let batcher = BatcherId(queue);
        step(&mut device, 0, Input::Attach { batcher, options });
    }
    assert_eq!(arrive(&mut device, 0, 1, 100), [], "it waits for company");
    assert!(!device.is_idle(at(0)), "on purpose");
    assert_eq!(device.next_wakeup(), Some(at(5)));
    assert_eq!(
        arrive(&mut device, 1, 2, 100),
        [Effect::Wake { lane: LANE }]
    );
    let begun = step(&mut device, 0, Input::Begin { lane: LANE });
    assert_eq!(begun[0], Effect::Join { slot: slot(2) });
    let mut out = Vec::new();
    device.wake(at(5), &mut out);
    assert_eq!(out, [Effect::Wake { lane: LaneId(1) }]);
    let begun = step(&mut device, 5, Input::Begin { lane: LaneId(1) });
    assert_eq!(begun[0], Effect::Join { slot: slot(1) });
}
