//! Records: what is left of a ring plays to the same bytes, what was altered is found, and what a
//! file says of itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use paceline_protocol::record::RecordError;
use paceline_protocol::registry::{CanaryGuards, CanaryPlan, CanaryStage, ReplicaTarget};
use paceline_protocol::report::{ArmCounts, CanaryReport};
use paceline_protocol::{
    Criticality, Epoch, ModelName, NodeId, ReplicaId, TenantId, VersionNumber,
};

use super::*;
use crate::admission::{self, Admission};
use crate::batcher;
use crate::canary::{self, Canaries};
use crate::cost::CostFit;
use crate::detector::{self, Detector};
use crate::device::{self, BatcherId, Device, LaneId};
use crate::drain::{self, Drain};
use crate::random::Random;
use crate::registry::{Canary, NodeState};
use crate::request::{BucketId, RequestMeta, Slot};
use crate::restart::{self, Restart, RestartBudget};
use crate::router::{self, RouteId, Router, Target};

const FINISH: admission::Input = admission::Input::Finish {
    tenant: TenantId::DEFAULT,
    in_parts: false,
    times: Some(admission::Times {
        waited_nanos: 2_500,
        rest_nanos: 700,
    }),
};
const NODE: NodeId = NodeId(1);

fn at(micros: u64) -> Instant {
    Instant::from_nanos(micros * 1_000)
}

fn tape_of<M: Recordable>(recorded: &Recorded<M>) -> &Tape<M> {
    recorded.tape.as_deref().expect("it is recorded")
}

/// A device whose lanes are driven by what it says, with requests that come, expire and go.
fn busy_device(bytes: usize, turns: u64) -> Recorded<Device> {
    let mut random = Random::stream(7, "device");
    let mut device = Recorded::new(Device::new(2), bytes);
    let mut out = Vec::new();
    for batcher in 0..2 {
        let cost = CostFit::from_warm_up(40_000, 8, 200_000);
        let options = batcher::Options {
            rows_max: 8,
            tokens_max: 0,
            policy: batcher::Policy::default(),
            cost,
        };
        let batcher = BatcherId(batcher);
        device.step(at(0), device::Input::Attach { batcher, options }, &mut out);
    }
    let mut pending = Vec::new();
    for turn in 1..=turns {
        let now = at(turn * 10);
        let (batcher, slot) = (BatcherId(random.below(2) as u32), slot_of(turn));
        let request = RequestMeta {
            slot,
            deadline: now.plus_nanos(random.below(1_500_000)),
            bucket: BucketId(random.below(2)),
            tenant: TenantId::DEFAULT,
            bytes: 64,
            rows: 1 + random.below(3) as u32,
            tokens: 0,
            criticality: Criticality::ALL[random.below(4) as usize],
            is_alone: random.below(50) == 0,
        };
        let in_place = random.below(2) == 0;
        let arrive = device::Input::Arrive {
            batcher,
            request,
            in_place,
        };
        device.step(now, arrive, &mut out);
        if random.below(10) == 0 {
            device.step(now, device::Input::Cancel { batcher, slot }, &mut out);
        }
        device.wake(now, &mut out);
        pending.extend(out.drain(..).filter_map(next_input));
        if random.below(3) > 0 && !pending.is_empty() {
            device.step(now, pending.remove(0), &mut out);
        }
    }
    device
}

/// What a driver tells a device after an effect.
fn next_input(effect: device::Effect) -> Option<device::Input> {
    match effect {
        device::Effect::Wake { lane } => Some(device::Input::Begin { lane }),
        device::Effect::Stage { lane } => Some(device::Input::Launch { lane }),
        device::Effect::Run { lane, rows, .. } => Some(device::Input::Finished {
            lane,
            nanos: Some(30_000 + 20_000 * u64::from(rows)),
            in_place: false,
        }),
        device::Effect::Join { .. } | device::Effect::Drop { .. } => None,
    }
}

fn slot_of(turn: u64) -> Slot {
    Slot {
        index: (turn % 256) as u32,
        generation: (turn / 256) as u32,
    }
}

fn targets(count: u64) -> router::Input {
    let target = |replica| Target {
        replica: ReplicaId(replica),
        node: NodeId(replica),
        local: None,
        is_near: true,
        row_nanos: 40_000,
    };
    router::Input::SetTargets {
        route: RouteId(0),
        targets: (1..=count).map(target).collect(),
    }
}

fn pick() -> router::Input {
    router::Input::Pick {
        route: RouteId(0),
        slot: slot_of(1),
        rows: 1,
        bytes: 64,
        may_probe: true,
        again: None,
        sequence: None,
    }
}

fn fault() -> router::Input {
    router::Input::Done {
        route: RouteId(0),
        replica: ReplicaId(1),
        rows: 1,
        heard: router::Heard::Fault,
    }
}

/// A canary whose node tells that it fails every request, and which is aborted.
fn canary_inputs() -> [canary::Input; 2] {
    let model = ModelName::new("m").unwrap();
    let since = Epoch(7);
    let stage = CanaryStage {
        weight: 1_000,
        hold_ms: 60_000,
    };
    let begun = Canary {
        since,
        plan: CanaryPlan {
            version: VersionNumber(2),
            replicas: ReplicaTarget::Count(1),
            stages: vec![stage],
            guards: CanaryGuards::default(),
        },
        stage: Some(0),
    };
    let arm = |failures| ArmCounts {
        requests: 1_000,
        failures,
        latencies: vec![1_000],
    };
    let report = CanaryReport {
        model: model.clone(),
        since,
        life: 1,
        stable: arm(0),
        canary: arm(1_000),
    };
    let heard = canary::Input::Heard { node: NODE, report };
    [canary::Input::UnderWay(vec![(model, begun)]), heard]
}

/// Some steps of each kind of machine.
fn some_of_all() -> Vec<Kept> {
    let mut admission = Recorded::new(
        Admission::new(admission::Options {
            permits: 1,
            ..admission::Options::default()
        }),
        4_096,
    );
    for turn in 0..3 {
        let deadline = at(5);
        let arrive = admission::Input::Arrive {
            deadline,
            criticality: Criticality::default(),
            tenant: TenantId::DEFAULT,
            in_parts: false,
        };
        admission.step(at(turn), arrive, &mut Vec::new());
    }
    admission.step(at(9), FINISH, &mut Vec::new());
    // What a state is made of is pinned by machines that have one when their tape begins.
    let mut begun = Router::new(NODE, 3);
    begun.step(at(0), targets(5), &mut Vec::new());
    let mut router = Recorded::new(begun, 16_384);
    router.step(at(1), targets(4), &mut Vec::new());
    router.step(at(2), pick(), &mut Vec::new());
    for _ in 0..6 {
        router.step(at(3), fault(), &mut Vec::new());
    }
    let options = detector::Options::default();
    let mut detector = Recorded::new(Detector::new(options, at(0)), 4_096);
    detector.step(at(1), detector::Input::Heard, &mut Vec::new());
    detector.wake(at(2_000_000), &mut Vec::new());
    let mut drain = Recorded::new(Drain::new(drain::Options::default()), 4_096);
    let applied = drain::Input::Applied(NodeState::Up);
    drain.step(at(1), applied, &mut Vec::new());
    let mut restart = Recorded::new(Restart::new(RestartBudget::default(), 1), 4_096);
    restart.step(at(1), restart::Input::Failed, &mut Vec::new());
    let mut canaries = Recorded::new(Canaries::default(), 16_384);
    for input in canary_inputs() {
        canaries.step(at(1), input, &mut Vec::new());
    }
    let device = busy_device(256 << 10, 2_000);
    let all = [
        admission.recording(),
        router.recording(),
        device.recording(),
        detector.recording(),
        drain.recording(),
        restart.recording(),
        canaries.recording(),
    ];
    let kept = all.into_iter().map(|recording| Kept {
        instance: "one".to_owned(),
        recording: recording.expect("it is recorded"),
    });
    kept.collect()
}

#[test]
fn what_is_left_of_a_ring_is_played_to_the_same_bytes() {
    let device = busy_device(256 << 10, 20_000);
    let tape = tape_of(&device);
    let played = replay(tape);
    assert_eq!(played.divergence, None);
    assert_eq!((played.segments, played.steps), (4, tape.steps() as u64));
    assert!(played.steps > 1_000 && played.effects > 500, "{played:?}");
    assert!(tape.steps() < 3_000, "the rest was dropped");
    let (first, last) = tape.span().unwrap();
    assert!(
        first > at(180_000) && last == at(200_000),
        "{first:?} {last:?}"
    );
}

#[test]
fn a_recorded_machine_says_what_it_would_say_otherwise() {
    let (plain, recorded) = (busy_device(0, 5_000), busy_device(256 << 10, 5_000));
    assert!(plain.recording().is_none());
    let state = |device: &Recorded<Device>| format!("{:?}", device.machine);
    assert_eq!(state(&plain), state(&recorded));
}

#[test]
fn an_effect_an_input_or_a_state_that_was_altered_is_found() {
    let tape = tape_of(&busy_device(256 << 10, 2_000)).clone();
    let mut altered = tape.clone();
    let second = altered.segment(1);
    let place = second.effects.len() / 2;
    second.effects[place] = device::Effect::Wake { lane: LaneId(9) };
    let Some(Divergence::Step {
        recorded, replayed, ..
    }) = replay(&altered).divergence
    else {
        panic!("an effect was altered");
    };
    assert!(recorded.to_string().contains("LaneId(9)"), "{recorded}");
    assert_ne!(recorded, replayed);
    let mut altered = tape.clone();
    let steps = &mut altered.segment(2).steps;
    let cancelled = device::Input::Cancel {
        batcher: BatcherId(0),
        slot: slot_of(0),
    };
    let begun = steps.iter_mut().find(|step| {
        let is_begin = matches!(step.told, Told::Input(device::Input::Begin { .. }));
        is_begin && step.effects > Some(0)
    });
    begun.expect("a lane began").told = Told::Input(cancelled);
    assert!(replay(&altered).divergence.is_some(), "an input was");
    let mut altered = tape.clone();
    altered.segment(3).start = Device::new(2);
    let divergence = replay(&altered).divergence;
    let Some(Divergence::State { step }) = divergence else {
        panic!("a state was altered: {divergence:?}");
    };
    let before = tape.segments().take(3).map(|s| s.steps().count() as u64);
    assert_eq!(step, before.sum::<u64>());
}

#[test]
fn a_step_that_panicked_is_kept_and_panics_again() {
    let mut admission = Recorded::new(Admission::new(admission::Options::default()), 4_096);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        admission.step(at(1), FINISH, &mut Vec::new());
    }));
    assert!(panicked.is_err(), "nothing was admitted");
    let deadline = at(9);
    let arrive = admission::Input::Arrive {
        deadline,
        criticality: Criticality::default(),
        tenant: TenantId::DEFAULT,
        in_parts: false,
    };
    admission.step(at(2), arrive, &mut Vec::new());
    let mut tape = tape_of(&admission).clone();
    let played = replay(&tape);
    assert_eq!(
        (played.steps, played.effects, played.divergence),
        (2, 1, None)
    );
    tape.segment(0).steps[0].effects = Some(0);
    let Some(Divergence::Step { replayed, .. }) = replay(&tape).divergence else {
        panic!("it is told as having ended well");
    };
    assert_eq!(replayed, Said::Panicked);
}

#[test]
fn a_machine_that_is_too_large_is_not_kept_until_it_is_smaller() {
    let mut router = Recorded::new(Router::new(NODE, 3), 4_096);
    let mut out = Vec::new();
    router.step(at(1), targets(32), &mut out);
    for turn in 0..100 {
        router.step(at(2 + turn), pick(), &mut out);
    }
    let tape = tape_of(&router);
    assert_eq!(tape.steps(), 0, "copies of it have no room");
    assert_eq!(
        tape.unkept(),
        100,
        "the first step is dropped with its segment"
    );
    router.step(at(200), targets(0), &mut out);
    for turn in 0..100 {
        router.step(at(201 + turn), pick(), &mut out);
    }
    let tape = tape_of(&router);
    assert!(tape.steps() > 0 && tape.unkept() < 150);
    assert_eq!(replay(tape).divergence, None);
}

#[test]
fn a_file_is_read_back_and_says_what_is_in_it() {
    let kept = some_of_all();
    let file = write(NODE, "0.1.0", &kept).unwrap();
    let (header, read_back) = read(&file).unwrap();
    assert_eq!((header.release.as_str(), header.node), ("0.1.0", NODE));
    let machines: Vec<_> = header.machines.iter().map(|m| m.machine.as_str()).collect();
    let all = [
        "admission",
        "router",
        "device",
        "detector",
        "drain",
        "restart",
        "canaries",
    ];
    assert_eq!(machines, all);
    assert!(header.machines.iter().all(|m| m.steps > 0));
    assert_eq!(header.machines[0].span_nanos, Some((0, 9_000)));
    assert_eq!(write(NODE, "0.1.0", &read_back).unwrap(), file);
    for kept in read_back {
        let played = kept.recording.replay();
        assert_eq!(played.divergence, None);
        assert!(played.steps > 0);
    }
}

#[test]
fn a_file_that_contradicts_itself_is_refused() {
    let mut kept = some_of_all();
    let Recording::Admission(tape) = &mut kept[0].recording else {
        panic!("admission is the first");
    };
    tape.segment(0).steps[0].effects = Some(u32::MAX);
    let file = write(NODE, "0.1.0", &kept).unwrap();
    let error = read(&file).err().expect("an effect is not there");
    assert!(matches!(error, RecordError::Inconsistent), "{error}");
}

/// Old files are told from new ones by their schema alone, since the codec writes no names.
#[test]
fn the_layout_of_all_machines_is_the_one_that_the_schema_stands_for() {
    let file = write(NODE, "0.1.0", &some_of_all()).unwrap();
    let digest = file.iter().fold(0u64, |hash, byte| {
        hash.rotate_left(5)
            .wrapping_add(u64::from(*byte))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    assert_eq!(
        digest, LAYOUT,
        "if a machine's types have changed, raise paceline_protocol::record::SCHEMA; in any case \
         write this digest below"
    );
}

/// Of layout 5.
const LAYOUT: u64 = 16_742_418_024_403_738_672;

impl<M: Recordable> Tape<M> {
    fn segment(&mut self, position: usize) -> &mut Segment<M> {
        &mut self.segments[position]
    }
}
