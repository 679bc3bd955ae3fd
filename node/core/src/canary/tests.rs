//! Canaries: state, input, exact effects.

use paceline_protocol::VersionNumber;
use paceline_protocol::registry::{CanaryGuards, CanaryPlan, CanaryStage, ReplicaTarget};
use paceline_protocol::report::latency_bucket;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * SECOND)
}

fn name() -> ModelName {
    ModelName::new("m").unwrap()
}

fn canary(since: u64, stage: Option<u32>) -> Canary {
    let stages = [100, 5_000, 10_000].map(|weight| CanaryStage {
        weight,
        hold_ms: 60_000,
    });
    Canary {
        since: Epoch(since),
        plan: CanaryPlan {
            version: VersionNumber(2),
            replicas: ReplicaTarget::Count(1),
            stages: stages.to_vec(),
            guards: CanaryGuards::default(),
        },
        stage,
    }
}

fn arm(requests: u64, failures: u64) -> ArmCounts {
    let mut latencies = vec![0; latency_bucket(1_000_000) + 1];
    *latencies.last_mut().unwrap() = requests;
    ArmCounts {
        requests,
        failures,
        latencies,
    }
}

struct Leader {
    machine: Canaries,
}

impl Leader {
    fn new() -> Self {
        let machine = Canaries::default();
        Self { machine }
    }

    fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.machine.step(at(now), input, &mut out);
        out
    }

    fn sees(&mut self, now: u64, stage: Option<u32>) -> Vec<Effect> {
        self.step(now, Input::UnderWay(vec![(name(), canary(7, stage))]))
    }

    /// What a node in a life has counted of both versions: requests and failures.
    fn hears(
        &mut self,
        now: u64,
        (node, life): (u64, u64),
        [stable, canary]: [(u64, u64); 2],
    ) -> Vec<Effect> {
        let report = CanaryReport {
            model: name(),
            since: Epoch(7),
            life,
            stable: arm(stable.0, stable.1),
            canary: arm(canary.0, canary.1),
        };
        let node = NodeId(node);
        self.step(now, Input::Heard { node, report })
    }

    fn wakes(&mut self, now: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        self.machine.wake(at(now), &mut out);
        out
    }
}

fn advance(stage: u32) -> Vec<Effect> {
    let (model, since) = (name(), Epoch(7));
    vec![Effect::Advance {
        model,
        since,
        stage,
    }]
}

fn is_abort(effects: &[Effect]) -> bool {
    matches!(
        effects,
        [Effect::Abort {
            since: Epoch(7),
            ..
        }]
    )
}

#[test]
fn a_good_canary_takes_each_stage_when_its_time_is_over_and_then_is_promoted() {
    let mut leader = Leader::new();
    assert_eq!(leader.sees(0, None), []);
    assert_eq!(leader.machine.next_wakeup(), None, "it loads");
    assert_eq!(leader.sees(10, Some(0)), []);
    assert_eq!(leader.hears(20, (1, 1), [(900, 1), (99, 0)]), []);
    assert_eq!(leader.wakes(70), [], "99 of 100 requests");
    assert_eq!(leader.hears(71, (1, 1), [(901, 1), (100, 0)]), advance(1));
    assert_eq!(leader.machine.next_wakeup(), Some(at(73)));
    assert_eq!(leader.wakes(72), [], "it was said");
    assert_eq!(leader.wakes(73), advance(1), "it was not done");
    // In the second stage only what is answered in it counts.
    assert_eq!(leader.sees(74, Some(1)), []);
    assert_eq!(leader.hears(80, (1, 1), [(1_000, 1), (199, 0)]), []);
    assert_eq!(leader.machine.next_wakeup(), None);
    assert_eq!(leader.hears(81, (1, 1), [(1_001, 1), (200, 0)]), []);
    assert_eq!(leader.machine.next_wakeup(), Some(at(134)));
    assert_eq!(leader.wakes(133), []);
    assert_eq!(leader.wakes(134), advance(2));
    // In the last one the version that serves answers nothing any more.
    leader.sees(135, Some(2));
    assert_eq!(leader.hears(140, (1, 1), [(1_001, 1), (400, 1)]), []);
    let (model, since) = (name(), Epoch(7));
    assert_eq!(leader.wakes(195), [Effect::Promote { model, since }]);
    assert_eq!(leader.step(196, Input::UnderWay(vec![])), []);
    assert_eq!(leader.machine.next_wakeup(), None);
    assert_eq!(
        leader.hears(197, (1, 1), [(0, 0), (900, 900)]),
        [],
        "it is over"
    );
}

#[test]
fn a_bad_one_is_aborted_at_once_by_what_all_nodes_say() {
    let mut leader = Leader::new();
    leader.sees(0, None);
    leader.sees(1, Some(0));
    assert_eq!(leader.hears(2, (1, 1), [(500, 0), (2, 2)]), []);
    let effects = leader.hears(3, (2, 1), [(500, 0), (2, 2)]);
    let [Effect::Abort { reason, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let wanted = "4 of 4 requests failed, and 0 of 1000 of the version that serves";
    assert!(reason.starts_with(wanted), "{reason}");
}

#[test]
fn a_node_that_starts_anew_confuses_nobody() {
    let mut leader = Leader::new();
    leader.sees(0, None);
    leader.sees(1, Some(0));
    assert_eq!(leader.hears(2, (1, 1), [(500, 0), (60, 0)]), []);
    // From zero, and already above what it had counted: a difference of both would be 20 failures
    // of no request.
    assert_eq!(leader.hears(3, (1, 2), [(500, 0), (20, 0)]), []);
    assert_eq!(leader.hears(4, (1, 2), [(600, 0), (20, 0)]), []);
    assert_eq!(leader.wakes(61), [], "80 of 100");
    assert_eq!(leader.hears(62, (1, 2), [(600, 0), (40, 0)]), advance(1));
    let mut leader = Leader::new();
    leader.sees(0, None);
    leader.sees(1, Some(0));
    leader.hears(2, (1, 1), [(500, 0), (60, 3)]);
    let again = leader.hears(3, (1, 1), [(500, 0), (60, 3)]);
    assert_eq!(again, [], "a repeat counts once");
    assert!(
        is_abort(&leader.hears(4, (1, 2), [(10, 0), (20, 10)])),
        "13 of 80"
    );
}

#[test]
fn a_new_leader_judges_what_it_has_seen_of_the_stage() {
    let mut leader = Leader::new();
    leader.sees(100, Some(1));
    // Half of what was tried earlier had failed, in another stage or before this leader.
    assert_eq!(leader.hears(101, (1, 1), [(500, 0), (60, 30)]), []);
    assert_eq!(leader.hears(102, (1, 1), [(800, 0), (159, 30)]), []);
    assert_eq!(leader.wakes(160), [], "99 of 100");
    assert_eq!(leader.hears(161, (1, 1), [(800, 0), (160, 30)]), advance(2));
    assert!(is_abort(&leader.hears(164, (1, 1), [(800, 0), (200, 70)])));
}

#[test]
fn another_canary_of_the_model_begins_from_nothing() {
    let mut leader = Leader::new();
    leader.sees(0, None);
    leader.sees(1, Some(0));
    leader.hears(2, (1, 1), [(500, 0), (3, 3)]);
    let other = vec![(name(), canary(9, Some(0)))];
    assert_eq!(leader.step(3, Input::UnderWay(other)), []);
    assert_eq!(
        leader.hears(4, (1, 1), [(500, 0), (9, 9)]),
        [],
        "of the one before"
    );
}

#[test]
fn an_effect_is_small() {
    assert!(size_of::<Effect>() <= 64, "{}", size_of::<Effect>());
}
