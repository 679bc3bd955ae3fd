//! State, input, exact effects.

use super::*;

/// A machine and its clock.
struct Bench {
    up: Up,
    now: Instant,
}

impl Bench {
    fn new(options: Options, pasts: &[Past]) -> Self {
        Self {
            up: Up::new(options, pasts),
            now: Instant::ZERO,
        }
    }

    /// A cluster whose nodes all serve.
    fn raised(options: Options, nodes: usize) -> Self {
        let mut bench = Self::new(options, &vec![Past::Member; nodes]);
        bench.step(Input::Begin);
        for node in 0..nodes {
            bench.step(Input::Ready { node });
            let effects = bench.step(Input::Serving { node });
            let last = node + 1 == nodes;
            assert_eq!(effects, if last { vec![Effect::Raised] } else { vec![] });
        }
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.up.step(self.now, input, &mut out);
        out
    }

    fn ended(&mut self, node: usize, ending: Ending) -> Vec<Effect> {
        self.step(Input::Ended { node, ending })
    }

    /// Sleeps as long as the machine wants, and says what it does then.
    fn wake(&mut self) -> Vec<Effect> {
        self.now = self.up.next_wakeup().expect("it waits for something");
        let mut out = Vec::new();
        self.up.wake(self.now, &mut out);
        out
    }
}

fn at(milliseconds: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(milliseconds)
}

#[test]
fn nodes_that_never_joined_are_started_one_after_another() {
    let mut bench = Bench::new(Options::default(), &[Past::New; 3]);
    assert_eq!(bench.step(Input::Begin), [Effect::Start { node: 0 }]);
    for node in [0, 1] {
        let next = Effect::Start { node: node + 1 };
        assert_eq!(bench.step(Input::Ready { node }), [next]);
        assert_eq!(bench.step(Input::Ready { node }), [], "a repeat is nothing");
        assert_eq!(bench.step(Input::Serving { node }), []);
    }
    assert_eq!(bench.step(Input::Serving { node: 2 }), [], "not ready yet");
    assert_eq!(bench.step(Input::Ready { node: 2 }), []);
    assert_eq!(bench.step(Input::Serving { node: 2 }), [Effect::Raised]);
    assert_eq!(bench.up.next_wakeup(), None);
}

#[test]
fn members_are_started_together_and_newcomers_wait_for_them() {
    let mut bench = Bench::new(
        Options::default(),
        &[Past::Member, Past::Member, Past::Member, Past::New],
    );
    let started = [0, 1, 2].map(|node| Effect::Start { node });
    assert_eq!(bench.step(Input::Begin), started);
    assert_eq!(bench.step(Input::Ready { node: 0 }), []);
    assert_eq!(bench.step(Input::Ready { node: 2 }), []);
    let fourth = [Effect::Start { node: 3 }];
    assert_eq!(bench.step(Input::Ready { node: 1 }), fourth);
}

#[test]
fn a_node_that_dies_is_started_again_after_two_seconds_however_often() {
    let mut bench = Bench::raised(Options::default(), 3);
    for _ in 0..20 {
        let until = bench.now + Duration::from_secs(2);
        let waits = [Effect::Wait { node: 1, until }];
        assert_eq!(bench.ended(1, Ending::Killed), waits);
        assert_eq!(bench.wake(), [Effect::Start { node: 1 }]);
        assert_eq!(bench.now, until);
        assert_eq!(
            bench.step(Input::Ready { node: 1 }),
            [Effect::Back { node: 1 }]
        );
        assert_eq!(bench.step(Input::Serving { node: 1 }), [], "said once only");
    }
}

#[test]
fn a_node_that_does_not_get_ready_waits_longer_and_is_left_in_the_end() {
    let mut bench = Bench::raised(Options::default(), 2);
    let mut waits = Vec::new();
    let mut effects = bench.ended(1, Ending::Killed);
    while let [Effect::Wait { node: 1, until }] = effects[..] {
        waits.push(until.since(bench.now).as_secs());
        assert_eq!(bench.wake(), [Effect::Start { node: 1 }]);
        effects = bench.ended(1, Ending::Failed);
    }
    assert_eq!(waits, [2, 2, 4, 8, 16]);
    let left = Effect::Leave {
        node: 1,
        failures: 5,
    };
    assert_eq!(effects, [left], "the other node goes on");
    assert!(!bench.up.is_ending());
    let mut patient = Bench::raised(
        Options {
            failures_max: 60,
            ..Options::default()
        },
        1,
    );
    patient.ended(0, Ending::Killed);
    for _ in 0..50 {
        patient.wake();
        let [Effect::Wait { until, .. }] = patient.ended(0, Ending::NotStarted)[..] else {
            panic!("it is started again");
        };
        assert!(until.since(patient.now) <= Duration::from_secs(30));
    }
}

#[test]
fn what_fails_by_itself_while_the_cluster_comes_up_ends_it() {
    let mut bench = Bench::new(Options::default(), &[Past::Member; 3]);
    bench.step(Input::Begin);
    let wanted = [
        Effect::Leave {
            node: 1,
            failures: 1,
        },
        Effect::Stop { node: 2 },
        Effect::Stop { node: 0 },
    ];
    assert_eq!(bench.ended(1, Ending::Failed), wanted);
    assert_eq!(bench.ended(2, Ending::Done), []);
    let finish = [Effect::Finish { well: false }];
    assert_eq!(bench.ended(0, Ending::Done), finish);

    // What somebody else ended, or what could not be prepared yet, may go well the next time.
    for ending in [Ending::Killed, Ending::NotStarted, Ending::Done] {
        let mut bench = Bench::new(Options::default(), &[Past::New; 2]);
        bench.step(Input::Begin);
        let until = at(2_000);
        assert_eq!(
            bench.ended(0, ending),
            [Effect::Wait { node: 0, until }],
            "{ending:?}"
        );
        assert_eq!(bench.wake(), [Effect::Start { node: 0 }]);
    }
}

#[test]
fn without_restarts_the_dead_are_left_and_the_last_one_ends_it() {
    let options = Options {
        restarts: false,
        ..Options::default()
    };
    let mut bench = Bench::raised(options, 2);
    let left = |node| Effect::Leave { node, failures: 0 };
    assert_eq!(bench.ended(0, Ending::Killed), [left(0)]);
    assert_eq!(bench.up.next_wakeup(), None);
    let finish = Effect::Finish { well: false };
    assert_eq!(bench.ended(1, Ending::Killed), [left(1), finish]);

    let mut bench = Bench::new(options, &[Past::Member; 2]);
    bench.step(Input::Begin);
    let wanted = [
        Effect::Leave {
            node: 0,
            failures: 1,
        },
        Effect::Stop { node: 1 },
    ];
    assert_eq!(bench.ended(0, Ending::Killed), wanted);
}

#[test]
fn the_first_request_stops_the_youngest_first_and_the_second_kills() {
    let mut bench = Bench::raised(Options::default(), 3);
    bench.ended(1, Ending::Killed);
    let stops = [Effect::Stop { node: 2 }, Effect::Stop { node: 0 }];
    assert_eq!(bench.step(Input::StopAsked), stops, "node 1 is dead");
    assert_eq!(
        bench.step(Input::Ready { node: 1 }),
        [],
        "it comes too late"
    );
    assert_eq!(bench.ended(2, Ending::Done), []);
    let kills = [Effect::Kill { node: 0 }];
    assert_eq!(bench.step(Input::StopAsked), kills);
    assert_eq!(bench.step(Input::StopAsked), []);
    let finish = [Effect::Finish { well: false }];
    assert_eq!(bench.ended(0, Ending::Killed), finish);
    assert_eq!(bench.up.next_wakeup(), None);
}

#[test]
fn what_stops_in_time_ends_well() {
    let mut bench = Bench::raised(Options::default(), 2);
    bench.step(Input::StopAsked);
    assert_eq!(bench.ended(1, Ending::Done), []);
    let finish = [Effect::Finish { well: true }];
    assert_eq!(bench.ended(0, Ending::Failed), finish);
    let mut unborn = Bench::new(Options::default(), &[Past::New]);
    assert_eq!(unborn.step(Input::StopAsked), finish);
    assert_eq!(unborn.step(Input::Begin), []);
}

#[test]
fn what_does_not_stop_is_killed_and_not_waited_for_for_ever() {
    let mut bench = Bench::raised(Options::default(), 2);
    bench.step(Input::StopAsked);
    let kills = [Effect::Kill { node: 1 }, Effect::Kill { node: 0 }];
    assert_eq!(bench.wake(), kills);
    assert_eq!(bench.now, at(6_000));
    assert_eq!(bench.wake(), [Effect::Finish { well: false }]);
    assert_eq!(bench.now, at(7_000));
}

#[test]
fn a_late_node_is_reported_once_for_each_thing_that_it_is_late_with() {
    let mut bench = Bench::new(Options::default(), &[Past::Member]);
    bench.step(Input::Begin);
    let late = [Effect::Late { node: 0 }];
    assert_eq!(bench.wake(), late);
    assert_eq!(bench.now, at(20_000));
    assert_eq!(bench.up.next_wakeup(), None);
    bench.step(Input::Ready { node: 0 });
    assert_eq!(bench.wake(), late);
    assert_eq!(bench.now, at(40_000));
    assert_eq!(bench.step(Input::Serving { node: 0 }), [Effect::Raised]);
}

#[test]
fn a_node_that_was_removed_is_neither_started_again_nor_waited_for() {
    let mut bench = Bench::raised(Options::default(), 3);
    let removed = [Effect::Removed { node: 1 }];
    assert_eq!(bench.ended(1, Ending::Removed), removed);
    assert_eq!(bench.up.next_wakeup(), None, "nothing is left to do");
    let pasts = [Past::Member, Past::Removed, Past::New];
    let mut again = Bench::new(Options::default(), &pasts);
    let begun = [Effect::Removed { node: 1 }, Effect::Start { node: 0 }];
    assert_eq!(again.step(Input::Begin), begun);
    let third = [Effect::Start { node: 2 }];
    assert_eq!(again.step(Input::Ready { node: 0 }), third);
    assert_eq!(again.step(Input::Serving { node: 0 }), []);
    // One that finds out while the cluster comes up is not waited for either.
    let last = [Effect::Removed { node: 2 }, Effect::Raised];
    assert_eq!(again.ended(2, Ending::Removed), last);
    assert_eq!(again.step(Input::StopAsked), [Effect::Stop { node: 0 }]);
    let finish = [Effect::Finish { well: true }];
    assert_eq!(again.ended(0, Ending::Done), finish);
}

#[test]
fn a_cluster_of_which_every_node_was_removed_ends() {
    let mut bench = Bench::new(Options::default(), &[Past::Removed]);
    let finish = Effect::Finish { well: false };
    let over = [Effect::Removed { node: 0 }, finish];
    assert_eq!(bench.step(Input::Begin), over);
    let mut last = Bench::raised(Options::default(), 1);
    assert_eq!(last.ended(0, Ending::Removed), over);
}
