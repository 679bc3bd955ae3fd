//! A canary as operators wish for it: which version gets which share of a model's requests for how
//! long, and what it must not do.

use serde::{Deserialize, Serialize};

use super::{Refusal, ReplicaTarget};
use crate::id::VersionNumber;
use crate::limits::{CANARY_HOLD_MAX_MS, CANARY_STAGES_MAX};
use crate::traffic::WEIGHT_ALL;

/// A canary that shall begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPlan {
    /// The version that is tried.
    pub version: VersionNumber,
    /// Its replicas, beside those of the version that serves.
    pub replicas: ReplicaTarget,
    /// Its shares of the requests, one after another; never none.
    pub stages: Vec<CanaryStage>,
    /// What ends it.
    pub guards: CanaryGuards,
}

/// A stage of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStage {
    /// Its share of the requests, in units of 1/10,000: 1 to 10,000, rising from stage to stage.
    pub weight: u16,
    /// How long it lasts at least, in milliseconds.
    pub hold_ms: u64,
}

/// What a canary must not do. Integers, since they are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryGuards {
    /// How many more of 1,000 requests may fail than fail of the version that serves: 1 to 1,000.
    pub failures_permille_max: u16,
    /// Its p99 latency at most, in per cent of that of the version that serves: 101 to 10,000.
    pub latency_percent_max: u16,
    /// Requests in a stage before it is judged to be good: 1 to 1,000,000.
    pub requests_min: u32,
}

impl Default for CanaryGuards {
    /// One request in a hundred more may fail, and p99 may be twice as long. After 100 requests
    /// without a failure 3 % is excluded at a confidence of 95 % ("rule of three").
    fn default() -> Self {
        Self {
            failures_permille_max: 10,
            latency_percent_max: 200,
            requests_min: 100,
        }
    }
}

impl CanaryPlan {
    /// Whether stages and guards are within what is allowed. Replicas and version depend on the
    /// cluster, and are not looked at.
    ///
    /// # Errors
    /// [`Refusal::CanaryInvalid`], which names what is not, and what would be.
    pub fn check(&self) -> Result<(), Refusal> {
        let count = self.stages.len();
        within("the number of stages", count as u64, (1, CANARY_STAGES_MAX))?;
        let mut before = 0;
        for stage in &self.stages {
            let weight = u64::from(stage.weight);
            within("a weight, in 1/10,000,", weight, (1, WEIGHT_ALL.into()))?;
            if weight <= before {
                let what = format!(
                    "weights rise from stage to stage, but {weight}/10,000 follows {before}/10,000"
                );
                return Err(Refusal::CanaryInvalid { what });
            }
            before = weight;
            let hold_ms = stage.hold_ms;
            within(
                "the hold of a stage, in ms,",
                hold_ms,
                (1, CANARY_HOLD_MAX_MS),
            )?;
        }
        let guards = self.guards;
        let failures = guards.failures_permille_max;
        within(
            "the guard on failures, per mille,",
            failures.into(),
            (1, 1_000),
        )?;
        let latency = guards.latency_percent_max;
        within(
            "the guard on latency, per cent,",
            latency.into(),
            (101, 10_000),
        )?;
        let requests = guards.requests_min;
        within(
            "the fewest requests of a stage",
            requests.into(),
            (1, 1_000_000),
        )
    }
}

fn within(what: &str, value: u64, (least, most): (u64, u64)) -> Result<(), Refusal> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let what = format!("{what} is {value}; allowed are {least} to {most}");
    Err(Refusal::CanaryInvalid { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(stages: &[(u16, u64)]) -> CanaryPlan {
        let stages = stages.iter();
        CanaryPlan {
            version: VersionNumber(2),
            replicas: ReplicaTarget::Count(1),
            stages: stages
                .map(|&(weight, hold_ms)| CanaryStage { weight, hold_ms })
                .collect(),
            guards: CanaryGuards::default(),
        }
    }

    fn objection(plan: &CanaryPlan) -> String {
        plan.check().unwrap_err().to_string()
    }

    #[test]
    fn stages_rise_and_keep_their_limits() {
        assert_eq!(
            plan(&[(100, 1), (1_000, 60_000), (10_000, 1)]).check(),
            Ok(())
        );
        assert!(objection(&plan(&[])).contains("stages is 0; allowed are 1 to"));
        assert!(objection(&plan(&[(0, 1)])).contains("is 0; allowed are 1 to 10000"));
        assert!(objection(&plan(&[(10_001, 1)])).contains("is 10001;"));
        assert!(objection(&plan(&[(100, 0)])).contains("the hold of a stage"));
        assert!(objection(&plan(&[(100, u64::MAX)])).contains("the hold of a stage"));
        let falls = objection(&plan(&[(1_000, 1), (1_000, 1)]));
        assert!(falls.contains("1000/10,000 follows 1000/10,000"), "{falls}");
        let many: Vec<_> = (1..100).map(|weight| (weight, 1)).collect();
        assert!(objection(&plan(&many)).contains("stages is 99"));
    }

    #[test]
    fn guards_that_could_never_or_always_break_are_refused() {
        let with = |change: fn(&mut CanaryGuards)| {
            let mut plan = plan(&[(100, 1)]);
            change(&mut plan.guards);
            objection(&plan)
        };
        let failures = with(|guards| guards.failures_permille_max = 1_001);
        assert!(
            failures.contains("failures, per mille, is 1001"),
            "{failures}"
        );
        let latency = with(|guards| guards.latency_percent_max = 100);
        assert!(latency.contains("latency, per cent, is 100"), "{latency}");
        let requests = with(|guards| guards.requests_min = 0);
        assert!(requests.contains("requests of a stage is 0"), "{requests}");
    }
}
