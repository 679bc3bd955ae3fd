//! Machine that decides whether and when a failed part is started again.
//!
//! Back-off doubles from one second to sixty, with jitter so that parts which failed together
//! do not come back together. A part that fails too often within a window is given up.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::planted::Bug;
use crate::random::Random;
use crate::record::{Recordable, Recording, Tape};
use crate::time::Instant;

/// How patient a supervisor is. Data, so that each supervisor states its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartBudget {
    /// Failures within `window` after which the part is given up.
    pub failures_max: u32,
    /// How long a failure counts.
    pub window: Duration,
    /// Wait before the first restart.
    pub backoff_min: Duration,
    /// Longest wait.
    pub backoff_max: Duration,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The part has failed.
    Failed,
    /// The part was asked to start again by hand: the budget is whole again.
    Reset,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Start the part again now.
    Restart,
    /// It will be started again then.
    Wait {
        /// When.
        until: Instant,
    },
    /// Leave it: it has failed too often.
    GiveUp {
        /// Failures within the window.
        failures: u32,
    },
}

/// The machine, one for each supervised part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restart {
    budget: RestartBudget,
    random: Random,
    failures: VecDeque<Instant>,
    pending: Option<Instant>,
    given_up: bool,
}

impl Default for RestartBudget {
    /// Five failures in ten minutes; 1 s doubling to 60 s.
    fn default() -> Self {
        Self {
            failures_max: 5,
            window: Duration::from_secs(600),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

impl Restart {
    /// A part that has not failed. `seed` decides the jitter.
    pub fn new(budget: RestartBudget, seed: u64) -> Self {
        Self {
            budget,
            random: Random::stream(seed, "restart"),
            failures: VecDeque::with_capacity(budget.failures_max as usize + 1),
            pending: None,
            given_up: false,
        }
    }

    /// Whether the part has been given up.
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    fn failed(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.given_up {
            return;
        }
        let window = self.budget.window;
        while self
            .failures
            .front()
            .is_some_and(|at| now.since(*at) > window)
        {
            self.failures.pop_front();
        }
        if Bug::FailuresForgotten.is_planted() {
            self.failures.clear();
        }
        self.failures.push_back(now);
        let failures = self.failures.len() as u32;
        if failures >= self.budget.failures_max {
            self.given_up = true;
            self.pending = None;
            out.push(Effect::GiveUp { failures });
            return;
        }
        let until = now + self.backoff(failures);
        self.pending = Some(until);
        out.push(Effect::Wait { until });
    }

    /// Between half of the doubled wait and all of it ("equal jitter").
    fn backoff(&mut self, failures: u32) -> Duration {
        let doubled = self
            .budget
            .backoff_min
            .saturating_mul(1 << (failures - 1).min(16));
        let longest = doubled.min(self.budget.backoff_max);
        longest.mul_f64(0.5 + 0.5 * self.random.unit())
    }
}

impl Machine for Restart {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Failed => self.failed(now, out),
            Input::Reset => {
                self.failures.clear();
                self.given_up = false;
                self.pending = None;
            }
        }
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.pending.is_some_and(|at| at <= now) {
            self.pending = None;
            out.push(Effect::Restart);
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.pending
    }
}

impl Recordable for Restart {
    fn state_bytes(&self) -> usize {
        self.failures.capacity() * size_of::<Instant>()
    }

    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Restart(tape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> RestartBudget {
        RestartBudget {
            failures_max: 4,
            ..RestartBudget::default()
        }
    }

    fn seconds(at: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(at)
    }

    fn fail(restart: &mut Restart, at: u64) -> Effect {
        let mut out = Vec::new();
        restart.step(seconds(at), Input::Failed, &mut out);
        assert_eq!(out.len(), 1);
        out[0]
    }

    #[test]
    fn waits_double_within_their_jitter_and_then_it_is_given_up() {
        let mut restart = Restart::new(budget(), 3);
        for (failure, longest_ms) in [(0, 1_000), (1, 2_000), (2, 4_000)] {
            let Effect::Wait { until } = fail(&mut restart, failure * 10) else {
                panic!("expected a wait");
            };
            let wait = until.since(seconds(failure * 10)).as_millis();
            assert!(
                (longest_ms / 2..=longest_ms).contains(&wait),
                "{wait} of {longest_ms}"
            );
            assert_eq!(restart.next_wakeup(), Some(until));
            let mut out = Vec::new();
            restart.wake(until, &mut out);
            assert_eq!(out, [Effect::Restart]);
            assert_eq!(restart.next_wakeup(), None);
        }
        assert_eq!(fail(&mut restart, 30), Effect::GiveUp { failures: 4 });
        let mut out = Vec::new();
        restart.step(seconds(31), Input::Failed, &mut out);
        assert_eq!(out, [], "what is given up stays given up");
        restart.step(seconds(32), Input::Reset, &mut out);
        assert!(!restart.has_given_up());
        assert!(matches!(fail(&mut restart, 33), Effect::Wait { .. }));
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut restart = Restart::new(budget(), 3);
        for round in 0..20 {
            assert!(matches!(
                fail(&mut restart, round * 300),
                Effect::Wait { .. }
            ));
        }
    }

    #[test]
    fn the_longest_wait_is_bounded() {
        let mut restart = Restart::new(
            RestartBudget {
                failures_max: 60,
                ..budget()
            },
            1,
        );
        for at in 0..59 {
            let Effect::Wait { until } = fail(&mut restart, at) else {
                panic!()
            };
            assert!(until.since(seconds(at)) <= Duration::from_secs(60));
        }
    }
}
