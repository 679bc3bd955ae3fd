//! Machine that admits requests to a node: as many at a time as there are permits, and none
//! whose deadline has passed. The last permits are kept for the more critical classes, and each
//! tenant is held to its [limits](crate::quota).
//!
//! Where there are several tenants, one that has many permits leaves some for others: it may have
//! eight times as many as are free (dynamic thresholds: Choudhury and Hahne, "Dynamic queue length
//! thresholds for shared-memory packet switches", 1998). Alone it has eight ninths; a second one
//! finds the last ninth, and then each may have eight seventeenths.
//!
//! Where requests wait for longer than they should, fewer are let in: the permits there are are then
//! those that [`delay`] has learnt.
//!
//! A refusal costs nothing but the step and says when a retry makes sense: permits come back
//! at the learnt rate of finished requests.

mod delay;

use std::time::Duration;

use paceline_protocol::{Criticality, TenantId};
use serde::{Deserialize, Serialize};

use self::delay::DelayLimit;
use crate::machine::Machine;
use crate::planted::Bug;
use crate::quota::{Demand, Limit, Part, Quotas};
use crate::record::{Recordable, Recording, Tape};
use crate::time::Instant;

/// How much a node takes on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Requests in flight. Default 4,096: at 1 ms each that is four million a second, and at
    /// 64 KiB each 256 MiB. Lower it when requests are large, raise it when they are slow.
    pub permits: u32,
    /// How long requests should wait for their batch when there is more to do than is done; zero
    /// sets no limit. Default 2 s: with ten seconds to answer nobody hopes for more. Lower it where
    /// answers are wanted sooner or not at all; raise it for work that may wait.
    pub queue_delay_max: Duration,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A request asks to be let in.
    Arrive {
        /// When its answer is worthless.
        deadline: Instant,
        /// How much it matters.
        criticality: Criticality,
        /// Who sends it.
        tenant: TenantId,
        /// Whether its answer is streamed: then it lasts as long as its client takes.
        in_parts: bool,
    },
    /// An admitted request has ended, however.
    Finish {
        /// Who sent it.
        tenant: TenantId,
        /// As it arrived.
        in_parts: bool,
        /// What it had taken, if it was answered and not in parts.
        times: Option<Times>,
    },
    /// The declared tenants, and what each may take of this node from now on.
    SetParts {
        /// By tenant, none twice.
        parts: Vec<(TenantId, Part)>,
    },
    /// What have tenants with limits asked for since this was asked last? A second is what it is
    /// meant for.
    Measure,
}

/// What a request has taken from when it was let in to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Waiting for its batch, in nanoseconds.
    pub waited_nanos: u64,
    /// Everything else, in nanoseconds.
    pub rest_nanos: u64,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The request is in; its end must be reported with [`Input::Finish`].
    Admit,
    /// The request is not in.
    Refuse(Refusal),
    /// A tenant with limits has asked for this.
    Seen {
        /// Which one.
        tenant: TenantId,
        /// What for.
        demand: Demand,
    },
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
    /// Its tenant sends more requests than it may.
    Limited {
        /// Which limit it has come to.
        by: LimitedBy,
        /// When it may send the next one.
        retry_after: Duration,
    },
}

/// A limit of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitedBy {
    /// Of requests a second.
    Rate,
    /// Of requests at a time.
    Concurrency,
    /// Of permits that the tenant has, while other tenants may want some.
    Others,
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Admission {
    options: Options,
    in_flight: u32,
    /// Those of them whose answers are streamed.
    in_parts: u32,
    delay: DelayLimit,
    quotas: Quotas,
    last_finish: Option<Instant>,
    /// Learnt time between two ends while permits were short, in nanoseconds.
    finish_interval_nanos: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            permits: 4_096,
            queue_delay_max: Duration::from_secs(2),
        }
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
            in_parts: 0,
            delay: DelayLimit::new(options.queue_delay_max, options.permits),
            quotas: Quotas::default(),
            last_finish: None,
            finish_interval_nanos: 0,
        }
    }

    /// Requests that are in.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Permits that a request finds free. The last eighth of all is not for what may be shed, and
    /// the one before it not for what may be shed first. What is streamed goes at its client's pace,
    /// so it is no queue, and counts for the permits alone.
    fn free(&self, criticality: Criticality, in_parts: bool) -> u32 {
        let all = permits_of(criticality, self.options.permits);
        let free = all.saturating_sub(self.in_flight);
        if in_parts {
            return free;
        }
        let queued = self.in_flight - self.in_parts;
        let limit = permits_of(criticality, self.delay.limit());
        free.min(limit.saturating_sub(queued))
    }

    /// Requests that may be in, of those that may not be shed.
    pub fn limit(&self) -> u32 {
        self.delay.limit()
    }

    /// Requests of a tenant that are in.
    pub fn in_flight_of(&self, tenant: TenantId) -> u32 {
        self.quotas.in_flight(tenant)
    }

    fn arrive(
        &mut self,
        now: Instant,
        deadline: Instant,
        (criticality, tenant): (Criticality, TenantId),
        in_parts: bool,
    ) -> Result<(), Refusal> {
        self.delay.arrived(now);
        if deadline <= now {
            self.in_flight += u32::from(Bug::ExpiredKeepsPermit.is_planted());
            return Err(Refusal::Expired);
        }
        let limit = self.quotas.arrive(now, tenant);
        let free = self.free(criticality, in_parts);
        if free == 0 {
            let retry_after = self.next_finish();
            return Err(Refusal::Overloaded { retry_after });
        }
        let is_greedy = || self.quotas.in_flight(tenant) / TIMES_FREE_MAX >= free;
        let limited = match limit {
            Some(Limit::Rate(wait)) => Some((LimitedBy::Rate, wait)),
            Some(Limit::Concurrency) => Some((LimitedBy::Concurrency, self.next_finish())),
            None if self.quotas.is_shared() && is_greedy() => {
                Some((LimitedBy::Others, self.next_finish()))
            }
            None => None,
        };
        if let Some((by, retry_after)) = limited {
            return Err(Refusal::Limited { by, retry_after });
        }
        self.quotas.admit(now, tenant);
        self.in_flight += 1;
        self.in_parts += u32::from(in_parts);
        Ok(())
    }

    /// When the next permit is likely to come back.
    fn next_finish(&self) -> Duration {
        let nanos = self.finish_interval_nanos;
        Duration::from_nanos(nanos.clamp(RETRY_NANOS_MIN, RETRY_NANOS_MAX))
    }

    fn finish(&mut self, now: Instant, (tenant, in_parts): (TenantId, bool), times: Option<Times>) {
        assert!(self.in_flight > 0, "more requests ended than were admitted");
        self.in_parts -= u32::from(in_parts);
        if let Some(times) = times {
            self.delay.ended(now, times);
        }
        self.in_flight -= 1;
        self.quotas.finish(tenant);
        if self.in_flight == self.in_parts {
            self.delay.emptied();
        }
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
                tenant,
                in_parts,
            } => out.push(
                match self.arrive(now, deadline, (criticality, tenant), in_parts) {
                    Ok(()) => Effect::Admit,
                    Err(refusal) => Effect::Refuse(refusal),
                },
            ),
            Input::Finish {
                tenant,
                in_parts,
                times,
            } => self.finish(now, (tenant, in_parts), times),
            Input::SetParts { parts } => self.quotas.set(&parts),
            Input::Measure => self.quotas.measure(|tenant, demand| {
                out.push(Effect::Seen { tenant, demand });
            }),
        }
    }

    fn wake(&mut self, _now: Instant, _out: &mut Vec<Effect>) {}

    fn next_wakeup(&self) -> Option<Instant> {
        None
    }
}

impl Recordable for Admission {
    fn state_bytes(&self) -> usize {
        self.quotas.bytes()
    }

    fn input_bytes(input: &Input) -> usize {
        match input {
            Input::SetParts { parts } => size_of_val(&parts[..]),
            Input::Arrive { .. } | Input::Finish { .. } | Input::Measure => 0,
        }
    }

    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Admission(tape)
    }
}

/// Of so many permits, those that a class may have.
fn permits_of(criticality: Criticality, permits: u32) -> u32 {
    let eighths = match criticality {
        Criticality::CriticalPlus | Criticality::Critical => 0,
        Criticality::SheddablePlus => 1,
        Criticality::Sheddable => 2,
    };
    permits - permits / 8 * eighths
}

/// A tenant may have so many times as many permits as are free.
const TIMES_FREE_MAX: u32 = 8;
/// A client that retries sooner only adds load.
const RETRY_NANOS_MIN: u64 = 1_000_000;
/// A longer wait says nothing that was measured.
const RETRY_NANOS_MAX: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const FINISH: Input = Input::Finish {
        tenant: TenantId::DEFAULT,
        in_parts: false,
        times: None,
    };

    fn finish(tenant: TenantId) -> Input {
        let times = None;
        Input::Finish {
            tenant,
            in_parts: false,
            times,
        }
    }

    fn of_permits(permits: u32) -> Admission {
        Admission::new(Options {
            permits,
            ..Options::default()
        })
    }

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
                tenant: TenantId::DEFAULT,
                in_parts: false,
            },
        )
    }

    #[test]
    fn the_last_permits_are_for_who_may_not_be_shed() {
        use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
        let mut admission = of_permits(16);
        let mut admitted = |criticality| {
            let deadline = Instant::from_nanos(1_000_000_000);
            let input = Input::Arrive {
                deadline,
                criticality,
                tenant: TenantId::DEFAULT,
                in_parts: false,
            };
            (0..)
                .take_while(|_| {
                    let mut out = Vec::new();
                    admission.step(Instant::ZERO, input.clone(), &mut out);
                    out == [Effect::Admit]
                })
                .count()
        };
        let classes = [Sheddable, SheddablePlus, Critical, CriticalPlus];
        assert_eq!(classes.map(&mut admitted), [12, 2, 2, 0]);
    }

    #[test]
    fn permits_are_given_until_they_are_out_and_come_back() {
        let mut admission = of_permits(2);
        assert_eq!(arrive(&mut admission, 0), [Effect::Admit]);
        assert_eq!(arrive(&mut admission, 0), [Effect::Admit]);
        let retry_after = Duration::from_millis(1);
        assert_eq!(
            arrive(&mut admission, 0),
            [Effect::Refuse(Refusal::Overloaded { retry_after })]
        );
        assert_eq!(step(&mut admission, 1, FINISH), []);
        assert_eq!(arrive(&mut admission, 1), [Effect::Admit]);
        assert_eq!(admission.in_flight(), 2);
    }

    /// A stream lasts as long as its client reads; that others wait for long is not its doing.
    #[test]
    fn streams_count_for_the_permits_and_not_for_the_limit_on_delays() {
        let mut admission = of_permits(64);
        let arrive = |admission: &mut Admission, in_parts| {
            let input = Input::Arrive {
                deadline: Instant::from_nanos(u64::MAX),
                criticality: Criticality::default(),
                tenant: TenantId::DEFAULT,
                in_parts,
            };
            step(admission, 100_000, input) == [Effect::Admit]
        };
        // A standing queue: whoever ended had waited for long, and ends come one in a second. One
        // never ends.
        self::arrive(&mut admission, 0);
        for second in 0..40 {
            self::arrive(&mut admission, second * 1_000);
            let times = Some(Times {
                waited_nanos: 30_000_000_000,
                rest_nanos: 0,
            });
            let finish = Input::Finish {
                tenant: TenantId::DEFAULT,
                in_parts: false,
                times,
            };
            step(&mut admission, second * 1_000 + 999, finish);
        }
        assert_eq!(admission.limit(), 16);
        let streams = (0..100).filter(|_| arrive(&mut admission, true)).count();
        assert_eq!(streams, 63, "all permits but that one's");
        for _ in 0..40 {
            let tenant = TenantId::DEFAULT;
            let finish = Input::Finish {
                tenant,
                in_parts: true,
                times: None,
            };
            step(&mut admission, 100_000, finish);
        }
        assert_eq!(admission.limit(), 32, "nothing has ended for long");
        let others = (0..100).filter(|_| arrive(&mut admission, false)).count();
        assert_eq!(others, 31);
    }

    #[test]
    fn an_expired_request_takes_no_permit() {
        let mut admission = of_permits(1);
        let deadline = Instant::from_nanos(5);
        let refused = step(
            &mut admission,
            1,
            Input::Arrive {
                deadline,
                criticality: Criticality::default(),
                tenant: TenantId::DEFAULT,
                in_parts: false,
            },
        );
        assert_eq!(refused, [Effect::Refuse(Refusal::Expired)]);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn advice_on_retrying_follows_the_rate_of_ends() {
        let mut admission = of_permits(1);
        for round in 0..100 {
            arrive(&mut admission, round * 40);
            step(&mut admission, round * 40 + 40, FINISH);
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
        step(&mut Admission::new(Options::default()), 0, FINISH);
    }

    /// Lets requests of a tenant in until one is refused: how many, and why no more.
    fn fill(admission: &mut Admission, tenant: TenantId) -> (u32, Refusal) {
        let deadline = Instant::from_nanos(u64::MAX);
        for count in 0.. {
            let input = Input::Arrive {
                deadline,
                criticality: Criticality::default(),
                tenant,
                in_parts: false,
            };
            if let [Effect::Refuse(why)] = step(admission, 0, input)[..] {
                return (count, why);
            }
        }
        unreachable!("permits are few")
    }

    #[test]
    fn of_several_tenants_one_leaves_permits_for_others() {
        let mut admission = of_permits(90);
        let (first, second) = (TenantId(3), TenantId(4));
        let parts = vec![(first, Part::default()), (second, Part::default())];
        step(&mut admission, 0, Input::SetParts { parts });
        let others = |refusal| {
            let is_others = |by| by == LimitedBy::Others;
            matches!(refusal, Refusal::Limited { by, .. } if is_others(by))
        };
        let (count, why) = fill(&mut admission, first);
        assert!(count == 80 && others(why), "{count}: {why:?}");
        let (count, why) = fill(&mut admission, second);
        assert!(count == 9 && others(why), "{count}: {why:?}");
        for _ in 0..40 {
            step(&mut admission, 0, finish(first));
        }
        assert!(fill(&mut admission, second).0 > 30);
        let mut alone = of_permits(90);
        assert_eq!(fill(&mut alone, TenantId::DEFAULT).0, 90);
    }

    #[test]
    fn a_tenant_is_held_to_its_part_and_what_it_asked_for_is_told() {
        let mut admission = of_permits(90);
        let tenant = TenantId(3);
        let part = Part {
            rate_milli: Some(4_000),
            concurrency: Some(3),
        };
        let parts = vec![(tenant, part)];
        step(&mut admission, 0, Input::SetParts { parts });
        let (count, why) = fill(&mut admission, tenant);
        let by = LimitedBy::Concurrency;
        assert!(count == 3 && matches!(why, Refusal::Limited { by: other, .. } if other == by));
        for _ in 0..3 {
            step(&mut admission, 0, finish(tenant));
        }
        let (count, why) = fill(&mut admission, tenant);
        let limited = Refusal::Limited {
            by: LimitedBy::Rate,
            retry_after: Duration::from_millis(250),
        };
        assert_eq!((count, why), (1, limited));
        let demand = Demand {
            arrivals: 6,
            peak: 4,
        };
        let seen = Effect::Seen { tenant, demand };
        assert_eq!(step(&mut admission, 0, Input::Measure), [seen]);
        assert_eq!(
            step(&mut admission, 0, Input::Measure).len(),
            1,
            "one is in"
        );
        assert_eq!(arrive(&mut admission, 0), [Effect::Admit], "others are not");
    }
}
