//! The drain: state, input, exact effects.

use super::*;

const D: Epoch = Epoch(812);
const NOTHING: Input = Input::Left {
    replicas: 0,
    work: 0,
};

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn step(drain: &mut Drain, ms: u64, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    drain.step(at(ms), input, &mut out);
    out
}

fn wake(drain: &mut Drain) -> (u64, Vec<Effect>) {
    let due = drain.next_wakeup().expect("something is waited for");
    let mut out = Vec::new();
    drain.wake(due, &mut out);
    (due.as_nanos() / 1_000_000, out)
}

fn drains(since: Epoch) -> Input {
    Input::Applied(NodeState::Draining {
        since,
        deadline_ms: 60_000,
    })
}

fn closed(since: Epoch) -> Vec<Effect> {
    vec![Effect::Close, Effect::WriteDrained { since }]
}

/// A node that drains since `D`, told at 1 s.
fn draining() -> Drain {
    let mut drain = Drain::new(Options::default());
    let effects = step(&mut drain, 1_000, drains(D));
    assert_eq!(effects, [Effect::Leave { since: D }], "it serves on");
    drain
}

#[test]
fn a_drain_runs_empty_and_is_written() {
    let mut drain = draining();
    let left = |replicas, work| Input::Left { replicas, work };
    assert_eq!(step(&mut drain, 1_001, left(1, 0)), []);
    assert_eq!(step(&mut drain, 1_002, left(0, 3)), []);
    assert_eq!(step(&mut drain, 1_003, NOTHING), closed(D));
    assert_eq!(step(&mut drain, 1_004, NOTHING), [], "once");
    let drained = Input::Applied(NodeState::Drained { since: D });
    assert_eq!(step(&mut drain, 1_010, drained), []);
    assert_eq!((drain.next_wakeup(), drain.since()), (None, Some(D)));
}

#[test]
fn what_is_left_at_the_deadline_is_ended_once() {
    let mut drain = draining();
    let left = Input::Left {
        replicas: 2,
        work: 9,
    };
    step(&mut drain, 60_999, left);
    assert_eq!(wake(&mut drain), (61_000, closed(D)));
    assert_eq!(drain.next_wakeup(), None);
    assert_eq!(step(&mut drain, 61_001, NOTHING), []);
}

#[test]
fn the_end_is_written_until_the_registry_has_it() {
    let mut drain = draining();
    step(&mut drain, 1_001, NOTHING);
    for turn in 0..3 {
        assert_eq!(drain.next_wakeup(), None, "a write is under way");
        step(&mut drain, 2_000 + turn * 500, Input::WriteFailed);
        let written = vec![Effect::WriteDrained { since: D }];
        assert_eq!(wake(&mut drain), (2_500 + turn * 500, written));
    }
    let drained = Input::Applied(NodeState::Drained { since: D });
    step(&mut drain, 4_000, drained);
    assert_eq!(step(&mut drain, 4_001, Input::WriteFailed), []);
    assert_eq!(drain.next_wakeup(), None);
}

#[test]
fn the_same_drain_told_again_changes_nothing_nor_does_being_taken_for_dead() {
    let mut drain = draining();
    assert_eq!(step(&mut drain, 30_000, drains(D)), []);
    assert_eq!(
        step(&mut drain, 30_001, Input::Applied(NodeState::Down)),
        []
    );
    assert_eq!(drain.next_wakeup(), Some(at(61_000)), "nor the deadline");
}

#[test]
fn undrained_at_any_time_it_serves_again() {
    let drained = Input::Applied(NodeState::Drained { since: D });
    for told in [&[][..], &[NOTHING], &[NOTHING, drained]] {
        let mut drain = draining();
        for input in told {
            step(&mut drain, 1_500, *input);
        }
        let up = Input::Applied(NodeState::Up);
        assert_eq!(step(&mut drain, 2_000, up), [Effect::Return]);
        assert_eq!((drain.next_wakeup(), drain.since()), (None, None));
        assert_eq!(step(&mut drain, 2_001, NOTHING), []);
        assert_eq!(step(&mut drain, 2_002, up), []);
    }
}

#[test]
fn a_second_drain_within_one_look_is_a_drain_of_its_own() {
    let mut drain = draining();
    step(&mut drain, 1_001, NOTHING);
    let since = Epoch(840);
    let effects = step(&mut drain, 2_000, drains(since));
    assert_eq!(effects, [Effect::Return, Effect::Leave { since }]);
    assert_eq!(wake(&mut drain), (62_000, closed(since)));
}

#[test]
fn a_node_that_starts_drained_refuses_and_writes_nothing() {
    let mut drain = Drain::new(Options::default());
    let drained = Input::Applied(NodeState::Drained { since: D });
    let effects = step(&mut drain, 0, drained);
    assert_eq!(effects, [Effect::Leave { since: D }, Effect::Close]);
    assert_eq!(step(&mut drain, 1, NOTHING), []);
    let mut late = draining();
    assert_eq!(step(&mut late, 1_001, drained), [Effect::Close]);
}
