//! Machine that admits requests to a node: as many at a time as there are permits, and none
//! whose deadline has passed. The last permits are kept for the more critical classes.
//!
//! A refusal costs nothing but the step and says when a retry makes sense: permits come back
//! at the learnt rate of finished requests.

use std::time::Duration;

use paceline_protocol::Criticality;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::planted::Bug;
use crate::record::{Recordable, Recording, Tape};
use crate::time::Instant;

/// How much a node takes on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Requests in flight. Default 4,096: at 1 ms each that is four million a second, and at
    /// 64 KiB each 256 MiB. Lower it when requests are large, raise it when they are slow.
    pub permits: u32,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A request asks to be let in.
    Arrive {
        /// When its answer is worthless.
        deadline: Instant,
        /// How much it matters.
        criticality: Criticality,
    },
    /// An admitted request has ended, however.
    Finish,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The request is in; its end must be reported with [`Input::Finish`].
    Admit,
    /// The request is not in.
    Refuse(Refusal),
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Its deadline has passed already.
    Expired,
    /// All permits that its class may have are out.
    Overloaded {
        /// When a permit is likely to be free.
        retry_after: Duration,
    },
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Admission {
    options: Options,
    in_flight: u32,
    last_finish: Option<Instant>,
    /// Learnt time between two ends while permits were short, in nanoseconds.
    finish_interval_nanos: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { permits: 4_096 }
    }
}

impl Admission {
    /// Nothing in flight.
    ///
    /// # Panics
    /// If there are no permits: such a node could never serve.
    pub fn new(options: Options) -> Self {
        assert!(options.permits > 0, "a node without permits admits nothing");
        Self {
            options,
            in_flight: 0,
            last_finish: None,
            finish_interval_nanos: 0,
        }
    }

    /// Requests that are in.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The last eighth of all permits is not for what may be shed, and the one before it not for what
    /// may be shed first.
    fn permits_of(&self, criticality: Criticality) -> u32 {
        let permits = self.options.permits;
        let eighths = match criticality {
            Criticality::CriticalPlus | Criticality::Critical => 0,
            Criticality::SheddablePlus => 1,
            Criticality::Sheddable => 2,
        };
        permits - permits / 8 * eighths
    }

    fn arrive(&mut self, now: Instant, deadline: Instant, criticality: Criticality) -> Effect {
        if deadline <= now {
            self.in_flight += u32::from(Bug::ExpiredKeepsPermit.is_planted());
            return Effect::Refuse(Refusal::Expired);
        }
        if self.in_flight >= self.permits_of(criticality) {
            let nanos = self
                .finish_interval_nanos
                .clamp(RETRY_NANOS_MIN, RETRY_NANOS_MAX);
            let retry_after = Duration::from_nanos(nanos);
            return Effect::Refuse(Refusal::Overloaded { retry_after });
        }
        self.in_flight += 1;
        Effect::Admit
    }

    fn finish(&mut self, now: Instant) {
        assert!(self.in_flight > 0, "more requests ended than were admitted");
        self.in_flight -= 1;
        if let Some(last) = self.last_finish.replace(now) {
            let interval = now.nanos_since(last);
            let learnt = self.finish_interval_nanos;
            // A moving average over about eight ends: permits come back one by one.
            self.finish_interval_nanos = learnt - learnt / 8 + interval / 8;
        }
    }
}

impl Machine for Admission {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Arrive {
                deadline,
                criticality,
            } => out.push(self.arrive(now, deadline, criticality)),
            Input::Finish => self.finish(now),
        }
    }

    fn wake(&mut self, _now: Instant, _out: &mut Vec<Effect>) {}

    fn next_wakeup(&self) -> Option<Instant> {
        None
    }
}

impl Recordable for Admission {
    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Admission(tape)
    }
}

/// A client that retries sooner only adds load.
const RETRY_NANOS_MIN: u64 = 1_000_000;
/// A longer wait says nothing that was measured.
const RETRY_NANOS_MAX: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn step(admission: &mut Admission, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        admission.step(Instant::from_nanos(now_ms * 1_000_000), input, &mut out);
        out
    }

    fn arrive(admission: &mut Admission, now_ms: u64) -> Vec<Effect> {
        let deadline = Instant::from_nanos(u64::MAX);
        step(
            admission,
            now_ms,
            Input::Arrive {
                deadline,
                criticality: Criticality::default(),
            },
        )
    }

    #[test]
    fn the_last_permits_are_for_who_may_not_be_shed() {
        use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
        let mut admission = Admission::new(Options { permits: 16 });
        let mut admitted = |criticality| {
            let deadline = Instant::from_nanos(1_000_000_000);
            let input = Input::Arrive {
                deadline,
                criticality,
            };
            (0..)
                .take_while(|_| {
                    let mut out = Vec::new();
                    admission.step(Instant::ZERO, input, &mut out);
                    out == [Effect::Admit]
                })
                .count()
        };
        let classes = [Sheddable, SheddablePlus, Critical, CriticalPlus];
        assert_eq!(classes.map(&mut admitted), [12, 2, 2, 0]);
    }

    #[test]
    fn permits_are_given_until_they_are_out_and_come_back() {
        let mut admission = Admission::new(Options { permits: 2 });
        assert_eq!(arrive(&mut admission, 0), [Effect::Admit]);
        assert_eq!(arrive(&mut admission, 0), [Effect::Admit]);
        let retry_after = Duration::from_millis(1);
        assert_eq!(
            arrive(&mut admission, 0),
            [Effect::Refuse(Refusal::Overloaded { retry_after })]
        );
        assert_eq!(step(&mut admission, 1, Input::Finish), []);
        assert_eq!(arrive(&mut admission, 1), [Effect::Admit]);
        assert_eq!(admission.in_flight(), 2);
    }

    #[test]
    fn an_expired_request_takes_no_permit() {
        let mut admission = Admission::new(Options { permits: 1 });
        let deadline = Instant::from_nanos(5);
        let refused = step(
            &mut admission,
            1,
            Input::Arrive {
                deadline,
                criticality: Criticality::default(),
            },
        );
        assert_eq!(refused, [Effect::Refuse(Refusal::Expired)]);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn advice_on_retrying_follows_the_rate_of_ends() {
        let mut admission = Admission::new(Options { permits: 1 });
        for round in 0..100 {
            arrive(&mut admission, round * 40);
            step(&mut admission, round * 40 + 40, Input::Finish);
        }
        arrive(&mut admission, 4_000);
        let refused = arrive(&mut admission, 4_000);
        let [Effect::Refuse(Refusal::Overloaded { retry_after })] = refused[..] else {
            panic!("{refused:?}");
        };
        let millis = retry_after.as_millis();
        assert!((38..=40).contains(&millis), "{millis} ms");
    }

    #[test]
    #[should_panic(expected = "more requests ended")]
    fn an_end_without_a_beginning_is_a_bug() {
        step(&mut Admission::new(Options::default()), 0, Input::Finish);
    }
}
