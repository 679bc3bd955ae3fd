//! A run that proves nothing fails: requests must have been answered, batches must have been
//! shared, and the disturbances that the scenario asks for must have happened.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::{End, Fact};
use crate::scenario::Scenario;

pub(crate) struct EnoughWork {
    answers_min: u64,
    wants_cancellations: bool,
    answers: u64,
    cancellations: u64,
    shared_batches: u64,
}

impl EnoughWork {
    /// What it is called where a run has not held.
    pub(crate) const NAME: &str = "enough-work";

    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            answers_min: scenario.expect.answers_min,
            wants_cancellations: scenario.clients.iter().any(|of| of.cancel_permille > 0),
            answers: 0,
            cancellations: 0,
            shared_batches: 0,
        }
    }
}

impl Invariant for EnoughWork {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Ended { end, .. } = fact {
            self.answers += u64::from(*end == End::Answered);
            self.cancellations += u64::from(*end == End::Cancelled);
        }
        if let Fact::Ran(batch) = fact {
            self.shared_batches += u64::from(batch.members.len() > 1);
        }
        Ok(())
    }

    fn end(&self, _now: Instant) -> Result<(), String> {
        if self.answers < self.answers_min || self.shared_batches == 0 {
            return Err(format!(
                "{} requests were answered, {} are wanted; {} batches held more than one request",
                self.answers, self.answers_min, self.shared_batches
            ));
        }
        if self.wants_cancellations && self.cancellations == 0 {
            return Err("no request was cancelled, though some clients hang up".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_work_is_found() {
        let scenario = Scenario::named("steady").unwrap();
        let mut worked = EnoughWork::new(&scenario);
        assert!(worked.end(Instant::ZERO).is_err());
        worked.answers = scenario.expect.answers_min;
        worked.shared_batches = 1;
        assert!(worked.end(Instant::ZERO).is_err(), "nobody hung up");
        worked.cancellations = 1;
        assert_eq!(worked.end(Instant::ZERO), Ok(()));
    }
}
