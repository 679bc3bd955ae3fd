//! Canaries as requests are routed by them, and what this node has answered of both versions.
//!
//! Counting is on the hot path: three relaxed additions, no lock, no allocation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paceline_core::registry::Canary;
use paceline_protocol::report::{ArmCounts, CanaryReport, LATENCY_BUCKETS, latency_bucket};
use paceline_protocol::{Epoch, ErrorCode, ModelName, VersionNumber, traffic};

use super::VersionRoute;

/// A canary at one epoch.
pub(super) struct CanaryRoute {
    since: Epoch,
    weight: u16,
    /// What it is, once it has a replica here or elsewhere.
    version: Option<Arc<VersionRoute>>,
    counts: Arc<Counts>,
}

/// What has been answered since a canary began, as this node counts.
struct Counts {
    model: ModelName,
    since: Epoch,
    salt: String,
    life: u64,
    stable: ArmCounter,
    canary: ArmCounter,
}

struct ArmCounter {
    requests: AtomicU64,
    failures: AtomicU64,
    latencies: [AtomicU64; LATENCY_BUCKETS],
}

/// Where a request is counted that a version was chosen for.
#[derive(Clone)]
pub struct Arm {
    counts: Arc<Counts>,
    is_canary: bool,
}

impl CanaryRoute {
    /// What follows from the registry; a canary that goes on keeps its counts.
    pub(super) fn next(
        before: Option<&Self>,
        (model, canary): (&ModelName, &Canary),
        versions: &BTreeMap<VersionNumber, Arc<VersionRoute>>,
    ) -> Self {
        let since = canary.since;
        let known = before.filter(|before| before.since == since);
        let counts = known.map_or_else(
            || Arc::new(Counts::begin(model, since)),
            |known| known.counts.clone(),
        );
        Self {
            since,
            weight: canary.weight(),
            version: versions.get(&canary.plan.version).cloned(),
            counts,
        }
    }

    /// The canary, if it is chosen, and where the request is counted. One without a ready replica
    /// is not chosen.
    pub(super) fn choose(
        &self,
        bucket: impl FnOnce(&str) -> u16,
    ) -> (Option<&Arc<VersionRoute>>, Arm) {
        let chosen = self.ready();
        let chosen = chosen.filter(|_| traffic::is_in(bucket(&self.counts.salt), self.weight));
        let arm = Arm {
            counts: self.counts.clone(),
            is_canary: chosen.is_some(),
        };
        (chosen, arm)
    }

    /// The version, if it has its share and a replica for it.
    pub(super) fn ready(&self) -> Option<&Arc<VersionRoute>> {
        let version = self.version.as_ref()?;
        (self.weight > 0 && version.ready > 0).then_some(version)
    }

    pub(super) fn report(&self) -> CanaryReport {
        let counts = &self.counts;
        CanaryReport {
            model: counts.model.clone(),
            since: counts.since,
            life: counts.life,
            stable: counts.stable.read(),
            canary: counts.canary.read(),
        }
    }
}

impl Counts {
    fn begin(model: &ModelName, since: Epoch) -> Self {
        Self {
            model: model.clone(),
            since,
            salt: traffic::salt(model, since),
            life: life(),
            stable: ArmCounter::new(),
            canary: ArmCounter::new(),
        }
    }
}

impl Arm {
    /// A request was answered after so long.
    pub fn answered(&self, nanos: u64) {
        self.count(nanos, false);
    }

    /// A request was told this after so long. Only what the version did is counted, and that it
    /// took too long.
    pub fn failed(&self, code: ErrorCode, nanos: u64) {
        match code {
            ErrorCode::EngineFailed | ErrorCode::Poison | ErrorCode::LoadFailed => {
                self.count(nanos, true);
            }
            ErrorCode::DeadlineExceeded => self.count(nanos, false),
            _ => {}
        }
    }

    fn count(&self, nanos: u64, is_failure: bool) {
        let arm = match self.is_canary {
            true => &self.counts.canary,
            false => &self.counts.stable,
        };
        arm.requests.fetch_add(1, Ordering::Relaxed);
        if is_failure {
            arm.failures.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(latencies) = arm.latencies.get(latency_bucket(nanos)) {
            latencies.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl ArmCounter {
    fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
        }
    }

    fn read(&self) -> ArmCounts {
        let latencies = self.latencies.iter();
        let mut latencies: Vec<u64> = latencies.map(|of| of.load(Ordering::Relaxed)).collect();
        let used = latencies.iter().rposition(|count| *count > 0);
        latencies.truncate(used.map_or(0, |last| last + 1));
        // Failures first: what is counted in between is a request and not yet a failure.
        let failures = self.failures.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        ArmCounts {
            requests: requests.max(failures),
            failures,
            latencies,
        }
    }
}

/// Another one for each beginning. Without entropy a restart may look like the life before: then
/// its first counts are taken for a part of those.
fn life() -> u64 {
    getrandom::u64().unwrap_or(0)
}
