//! How a replica has answered of late: whether it is left out, and how it comes back.
//!
//! ```text
//!        FAULTS_MAX faults in a row           its time is over, and a request comes
//!   In ─────────────────────────────▶ Out ───────────────────────────────────────▶ Probed
//!   ▲                                  ▲                                             │
//!   │                                  └──────── it fails: out for twice as long ◀───┤
//!   └──── its share grows ◀──────────────────────────────────────── it answers ◀────┘
//! ```
//!
//! Outlier detection as Envoy does it (its documentation, "Outlier detection" and "Slow start
//! mode"), with one request as the probe in place of all of them.

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::time::Instant;

/// What is known of the last answers of a replica.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Health {
    /// Faults since it has last answered.
    faults: u8,
    /// How often it was ejected without having been well for long in between.
    ejections: u8,
    /// When it was last picked again after it had been out.
    back_at: Instant,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// It is picked.
    In,
    /// It is not picked until then.
    Out { until: Instant },
    /// A single request is on its way there.
    Probed,
}

impl Health {
    /// Of a replica of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            faults: 0,
            ejections: 0,
            back_at: Instant::ZERO,
            standing: Standing::In,
        }
    }

    /// Whether it is left out, or tried by a probe.
    pub(super) fn is_out(&self) -> bool {
        self.standing != Standing::In
    }

    /// Whether it has failed so often in a row that it would be left out.
    pub(super) fn is_failing(&self) -> bool {
        self.faults >= FAULTS_MAX || self.is_out()
    }

    /// When it may be probed, if it is out and is not yet.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        match self.standing {
            Standing::Out { until } => Some(until),
            Standing::In | Standing::Probed => None,
        }
    }

    /// Until when it is picked less than others, if it is not out.
    pub(super) fn doubtful_until(&self) -> Instant {
        match self.faults >= FAULTS_MAX {
            true => Instant::FAR,
            false if self.ejections > 0 => self.back_at.plus_nanos(SLOW_START_NANOS),
            false => Instant::ZERO,
        }
    }

    /// In how many of a thousand picks it stands as it would otherwise; at least in one of ten.
    pub(super) fn share_permille(&self, now: Instant) -> u64 {
        if now >= self.doubtful_until() {
            return 1_000;
        }
        if self.faults >= FAULTS_MAX {
            return SHARE_PERMILLE_MIN;
        }
        let back_nanos = now.nanos_since(self.back_at);
        (back_nanos * 1_000 / SLOW_START_NANOS).max(SHARE_PERMILLE_MIN)
    }

    /// It has answered. Says whether that brings it back.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        match self.standing {
            // What was sent there before it was ejected says nothing new.
            Standing::Out { .. } => false,
            Standing::In => {
                self.faults = 0;
                false
            }
            Standing::Probed => {
                self.readmit(now);
                self.faults = 0;
                true
            }
        }
    }

    /// A request has failed there, by its fault. Says whether it was the probe.
    pub(super) fn failed(&mut self) -> bool {
        self.faults = self.faults.saturating_add(1);
        self.standing == Standing::Probed
    }

    /// A request has ended there, and nothing is known of it by that: a probe is sent anew.
    pub(super) fn unheard(&mut self, now: Instant) -> bool {
        let was_probed = self.standing == Standing::Probed;
        if was_probed {
            self.standing = Standing::Out { until: now };
        }
        was_probed
    }

    /// It is left out from now on; says until when.
    pub(super) fn eject(&mut self, now: Instant, random: &mut Random) -> Instant {
        let was_back_nanos = now.nanos_since(self.back_at);
        let is_relapse = self.is_out() || was_back_nanos < RELAPSE_NANOS;
        self.ejections = match is_relapse {
            true => self.ejections.saturating_add(1),
            false => 1,
        };
        let doublings = u32::from(self.ejections - 1).min(DOUBLINGS_MAX);
        let nanos = OUT_NANOS << doublings;
        // Up to a quarter more, so that not all routers probe at once.
        let until = now.plus_nanos(nanos + random.below(nanos / 4));
        self.standing = Standing::Out { until };
        until
    }

    /// It is picked again.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.standing = Standing::In;
        self.back_at = now;
    }

    /// The request that is sent there now is its probe.
    pub(super) fn probe(&mut self) {
        self.standing = Standing::Probed;
    }
}

/// So many faults in a row are no accident. A batch that fails is as many as it has requests.
pub(super) const FAULTS_MAX: u8 = 5;
/// How long a replica is out for the first time: a second is what it takes an engine to be started
/// again.
pub(super) const OUT_NANOS: u64 = 1_000_000_000;
/// Sixteen seconds at most: a probe costs one request in so long its retry, and a replica that is
/// well again is not missed for longer.
const DOUBLINGS_MAX: u32 = 4;
/// Who was well for so long is ejected as if for the first time.
const RELAPSE_NANOS: u64 = 60_000_000_000;
/// How long the share of a replica that is back grows: an engine that has been idle may have its
/// caches to fill, and one that fails under load shows it before all depend on it.
pub(super) const SLOW_START_NANOS: u64 = 4_000_000_000;
/// Enough to learn from. Replicas that fail and may not be ejected have this share as well.
const SHARE_PERMILLE_MIN: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn out_ms(health: &mut Health, now: Instant, random: &mut Random) -> u64 {
        health.eject(now, random).nanos_since(now) / 1_000_000
    }

    #[test]
    fn each_time_out_is_twice_as_long_with_jitter_and_a_bound() {
        let mut health = Health::new();
        let mut random = Random::from_seed(1);
        let mut now = at(100_000);
        for least_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000] {
            let out_ms = out_ms(&mut health, now, &mut random);
            assert!((least_ms..=least_ms * 5 / 4).contains(&out_ms), "{out_ms}");
            now = now.plus_nanos(out_ms * 1_000_000);
            health.probe();
            assert!(health.is_out() && health.failed());
        }
        health.readmit(now);
        now = now.plus_nanos(RELAPSE_NANOS);
        assert!(out_ms(&mut health, now, &mut random) < 1_300, "long ago");
        let mut jitter = (0..100).map(|_| Health::new().eject(now, &mut random));
        let first = jitter.next();
        assert!(jitter.any(|until| Some(until) != first));
    }

    #[test]
    fn who_is_back_has_a_share_that_grows_from_a_tenth_to_all() {
        let mut health = Health::new();
        assert_eq!(health.share_permille(at(0)), 1_000, "never ejected");
        health.eject(at(0), &mut Random::from_seed(1));
        health.probe();
        assert!(health.answered(at(1_500)) && !health.is_failing());
        let shares = [0, 200, 1_000, 2_000, 3_999, 4_000];
        let shares = shares.map(|ms| health.share_permille(at(1_500 + ms)));
        assert_eq!(shares, [100, 100, 250, 500, 999, 1_000]);
    }

    #[test]
    fn faults_count_in_a_row_only() {
        let mut health = Health::new();
        for _ in 0..100 {
            for _ in 1..FAULTS_MAX {
                assert!(!health.failed() && !health.is_failing());
            }
            assert!(!health.answered(at(1)));
        }
        for _ in 0..300 {
            health.failed();
        }
        assert!(health.is_failing() && !health.is_out());
        assert_eq!(health.share_permille(at(1)), SHARE_PERMILLE_MIN);
    }

    #[test]
    fn while_it_is_out_only_its_probe_says_anything() {
        let mut health = Health::new();
        let until = health.eject(at(0), &mut Random::from_seed(1));
        assert!(!health.answered(at(1)) && !health.failed() && !health.unheard(at(1)));
        assert_eq!(health.probe_at(), Some(until));
        health.probe();
        assert_eq!(health.probe_at(), None);
        assert!(health.unheard(at(2_000)));
        assert_eq!(health.probe_at(), Some(at(2_000)), "another one at once");
    }
}
