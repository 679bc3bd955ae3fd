//! Policy of a canary's guards: from what two versions answered to whether one is worse.
//!
//! **Failures.** The canary shall fail at most as often as the version that serves, and a few per
//! mille more (the guard): with a probability of at most p₀. What the version that serves fails at
//! most is the upper end of its score interval at three standard deviations (E. B. Wilson, "Probable
//! inference, the law of succession, and statistical inference", JASA 22, 1927), so who has
//! answered little proves little. Against p₀ stand eight alternatives p₁, each twice as close to p₀
//! as the one before, from halfway to certain failure on, and for each the ratio of likelihoods of
//! k failures in n requests, (p₁/p₀)^k · ((1−p₁)/(1−p₀))^(n−k), which is A. Wald's sequential
//! probability ratio ("Sequential tests of statistical hypotheses", Ann. Math. Stat. 16, 1945). If
//! the canary keeps the guard, the chance that a ratio *ever* reaches 8/α, however often it is
//! looked at, is at most α/8 (J. Ville's inequality), so over all eight it is at most α, one in
//! ten thousand.
//!
//! So a version that fails everything is found after three or four requests, one that fails a tenth
//! after about a hundred, and no single failure is ever enough unless the guard is below 1/100,000.
//!
//! **Latency.** The version that serves has a p99; times the guard it is a limit. One request in a
//! hundred of the canary may be slower, or as many as may be slower of the version that serves, by
//! the same interval; more than that is found by the same test. Latencies are known by bucket, at
//! most a quarter wide, so the limit is the end of its bucket.

use paceline_protocol::registry::CanaryGuards;
use paceline_protocol::report::{ArmCounts, latency_bucket, latency_bucket_nanos};
use serde::{Deserialize, Serialize};

/// What both versions have answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Both {
    /// The version that serves.
    pub stable: ArmCounts,
    /// The canary.
    pub canary: ArmCounts,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A guard is broken, beyond chance.
    Broken(String),
    /// Too little is known, or the figures are beyond a guard, which may be chance.
    Unclear,
    /// Enough is known, and the guards hold.
    Good,
}

/// Judges a canary. Costs a few hundred multiplications and logarithms.
pub fn judge(both: &Both, guards: CanaryGuards) -> Verdict {
    let failures = Share::of_failures(both, guards);
    if failures.is_beyond_chance() {
        return Verdict::Broken(failed(both, guards));
    }
    let slow = Slow::of(both, guards);
    if let Some(slow) = &slow
        && slow.share.is_beyond_chance()
    {
        return Verdict::Broken(slow.reason(both, guards));
    }
    let is_known = both.canary.requests >= u64::from(guards.requests_min);
    let is_slow = slow.is_some_and(|slow| slow.share.is_above());
    match is_known && !failures.is_above() && !is_slow {
        true => Verdict::Good,
        false => Verdict::Unclear,
    }
}

/// How many of how many, and how large a share is allowed.
struct Share {
    found: u64,
    of: u64,
    /// At most, as far as is known.
    allowed: f64,
    /// At most, if what is known were exact.
    allowed_exactly: f64,
}

/// How many are slower than is allowed.
struct Slow {
    share: Share,
    stable_nanos: u64,
    limit_nanos: u64,
}

impl Share {
    fn of_failures(both: &Both, guards: CanaryGuards) -> Self {
        let Both { stable, canary } = both;
        let margin = f64::from(guards.failures_permille_max) / 1_000.0;
        Self {
            found: canary.failures.min(canary.requests),
            of: canary.requests,
            allowed: upper(stable.failures, stable.requests) + margin,
            allowed_exactly: rate(stable.failures, stable.requests) + margin,
        }
    }

    /// Whether the share found is larger, and not by chance.
    fn is_beyond_chance(&self) -> bool {
        let (found, rest) = (self.found as f64, (self.of - self.found) as f64);
        let null = self.allowed;
        if null >= 1.0 || null <= 0.0 {
            return false;
        }
        let limit = (ALTERNATIVES as f64 / FALSE_ALARMS).ln();
        let mut distance = 1.0 - null;
        (0..ALTERNATIVES).any(|_| {
            distance /= 2.0;
            let other = null + distance;
            let ratio = found * (other / null).ln() + rest * ((1.0 - other) / (1.0 - null)).ln();
            ratio >= limit
        })
    }

    fn is_above(&self) -> bool {
        rate(self.found, self.of) > self.allowed_exactly
    }
}

impl Slow {
    /// None as long as either version has answered nothing.
    fn of(both: &Both, guards: CanaryGuards) -> Option<Self> {
        let Both { stable, canary } = both;
        let p99 = stable.quantile_bucket(990)?;
        let stable_nanos = latency_bucket_nanos(p99);
        let percent = u64::from(guards.latency_percent_max);
        let bucket = latency_bucket((stable_nanos / 100).saturating_mul(percent));
        let count = |arm: &ArmCounts| arm.latencies.iter().sum::<u64>();
        let of = count(canary);
        (of > 0).then(|| Self {
            share: Share {
                found: canary.above(bucket),
                of,
                allowed: upper(stable.above(p99), count(stable)).max(TAIL),
                allowed_exactly: TAIL,
            },
            stable_nanos,
            limit_nanos: latency_bucket_nanos(bucket),
        })
    }

    fn reason(&self, both: &Both, guards: CanaryGuards) -> String {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let Share { found, of, .. } = self.share;
        let canary = both
            .canary
            .quantile_bucket(990)
            .map_or(0, latency_bucket_nanos);
        format!(
            "{found} of {of} requests took longer than {} ms: its p99 is up to {} ms, that of the \
             version that serves up to {} ms, and {} % of it are allowed",
            ms(self.limit_nanos),
            ms(canary),
            ms(self.stable_nanos),
            guards.latency_percent_max
        )
    }
}

fn failed(both: &Both, guards: CanaryGuards) -> String {
    let Both { stable, canary } = both;
    format!(
        "{} of {} requests failed, and {} of {} of the version that serves; {} in 1,000 more are \
         allowed",
        canary.failures,
        canary.requests,
        stable.failures,
        stable.requests,
        guards.failures_permille_max
    )
}

fn rate(found: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        of => found.min(of) as f64 / of as f64,
    }
}

/// The upper end of Wilson's score interval; 1 if nothing is known.
fn upper(found: u64, of: u64) -> f64 {
    if of == 0 {
        return 1.0;
    }
    let (rate, of) = (rate(found, of), of as f64);
    let z = DEVIATIONS;
    let spread = (rate * (1.0 - rate) / of + z * z / (4.0 * of * of)).sqrt();
    (rate + z * z / (2.0 * of) + z * spread) / (1.0 + z * z / of)
}

/// How far what the version that serves does may be above what was seen of it.
const DEVIATIONS: f64 = 3.0;
/// Canaries within their guards that are aborted all the same, at most.
const FALSE_ALARMS: f64 = 1e-4;
const ALTERNATIVES: u32 = 8;
/// Requests slower than the p99.
const TAIL: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn arm(requests: u64, failures: u64, nanos: u64) -> ArmCounts {
        let mut latencies = vec![0; latency_bucket(nanos) + 1];
        *latencies.last_mut().unwrap() = requests;
        ArmCounts {
            requests,
            failures,
            latencies,
        }
    }

    const MS: u64 = 1_000_000;

    fn with(stable: (u64, u64), canary: (u64, u64)) -> Both {
        Both {
            stable: arm(stable.0, stable.1, MS),
            canary: arm(canary.0, canary.1, MS),
        }
    }

    fn is_broken(both: &Both) -> bool {
        matches!(judge(both, CanaryGuards::default()), Verdict::Broken(_))
    }

    #[test]
    fn a_single_failure_is_chance_and_four_of_four_are_not() {
        for requests in 1..200 {
            assert!(!is_broken(&with((1_000, 0), (requests, 1))), "{requests}");
        }
        assert!(!is_broken(&with((1_000, 0), (2, 2))));
        assert!(is_broken(&with((1_000, 0), (4, 4))));
        assert!(is_broken(&with((10_000, 10), (100, 12))));
        // Everything fails, also of the version that serves: the canary is not to blame.
        assert!(!is_broken(&with((1_000, 500), (100, 50))));
        // Nothing is known of the version that serves.
        assert!(!is_broken(&with((0, 0), (1_000, 1_000))));
        assert!(is_broken(&with((20, 0), (40, 40))));
    }

    #[test]
    fn what_is_within_the_guard_is_good_once_enough_is_known() {
        let judge = |canary| judge(&with((1_000, 1), canary), CanaryGuards::default());
        assert_eq!(judge((99, 0)), Verdict::Unclear, "99 of 100");
        assert_eq!(judge((100, 0)), Verdict::Good);
        assert_eq!(judge((1_000, 11)), Verdict::Good);
        assert_eq!(judge((1_000, 12)), Verdict::Unclear, "it may be chance");
        let Verdict::Broken(reason) = judge((1_000, 60)) else {
            panic!("six in a hundred")
        };
        let wanted = "60 of 1000 requests failed, and 1 of 1000 of the version that serves; 10 in \
                      1,000 more are allowed";
        assert_eq!(reason, wanted);
    }

    #[test]
    fn who_is_slow_is_found_by_its_tail() {
        let guards = CanaryGuards::default();
        let both = |slow: u64| {
            let mut both = with((1_000, 0), (200 - slow, 0));
            both.canary.add(&arm(slow, 0, 4 * MS));
            both
        };
        assert_eq!(judge(&both(0), guards), Verdict::Good);
        assert_eq!(judge(&both(2), guards), Verdict::Good);
        assert_eq!(judge(&both(3), guards), Verdict::Unclear);
        let Verdict::Broken(reason) = judge(&both(200), guards) else {
            panic!("all of them")
        };
        assert!(
            reason.starts_with("200 of 200 requests took longer than 2."),
            "{reason}"
        );
        assert!(reason.ends_with("and 200 % of it are allowed"), "{reason}");
        assert!(matches!(judge(&both(30), guards), Verdict::Broken(_)));
        let slower = Both {
            stable: arm(1_000, 0, MS),
            canary: arm(1_000, 0, 2 * MS),
        };
        assert_eq!(judge(&slower, guards), Verdict::Good, "twice is allowed");
    }

    /// Looked at after each request, for 2,000 requests: as a canary within its guard that is
    /// watched for long.
    fn aborted(seed: u64, permille: u64) -> Option<u64> {
        let mut random = Random::from_seed(seed);
        let mut both = with((20_000, 20), (0, 0));
        for number in 1..=2_000 {
            let failures = u64::from(random.below(1_000) < permille);
            both.canary.add(&arm(1, failures, MS));
            if is_broken(&both) {
                return Some(number);
            }
        }
        None
    }

    #[test]
    fn a_good_version_is_not_aborted_and_a_bad_one_is_soon() {
        // At the guard itself: one in 10,000 at most is aborted.
        let alarms = (0..300).filter(|seed| aborted(*seed, 11).is_some()).count();
        assert_eq!(alarms, 0);
        let found = |permille| {
            let numbers = (0..50).map(move |seed| aborted(seed, permille));
            numbers.map(|number| number.expect("it is found")).max()
        };
        assert!(found(1_000) <= Some(4), "{:?}", found(1_000));
        assert!(found(500) <= Some(25), "{:?}", found(500));
        assert!(found(100) <= Some(400), "{:?}", found(100));
    }
}
