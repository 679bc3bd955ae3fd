//! What always holds, one file each. An invariant sees every fact and keeps its own books: it
//! never asks the machines that it judges.

mod agreed;
mod bounded_queues;
mod conservation;
mod converged;
mod deadline;
mod drained;
mod enough_work;
mod executions;
mod expected;
mod limits;
mod no_starvation;
mod one_status;
mod one_version;
mod registry_epoch;
mod replaced;
mod restarts;
mod shares;

use paceline_core::Instant;

pub(crate) use self::enough_work::EnoughWork;

use crate::fact::Fact;
use crate::scenario::Scenario;

/// Something that always holds.
pub(crate) trait Invariant {
    /// Its number and name.
    fn name(&self) -> &'static str;

    /// Takes in a fact; an error says what is wrong with it.
    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String>;

    /// Judges the run as a whole, when nothing happens any more.
    fn end(&self, _now: Instant) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
pub(crate) fn all(scenario: &Scenario) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<one_status::OneStatus>::default(),
        Box::<deadline::Deadlines>::default(),
        Box::new(one_version::OneVersion),
        Box::<shares::Shares>::default(),
        Box::new(bounded_queues::BoundedQueues),
        Box::<executions::Executions>::default(),
        Box::<drained::Drained>::default(),
        Box::<conservation::Conservation>::default(),
        Box::<registry_epoch::RegistryEpoch>::default(),
        Box::new(no_starvation::NoStarvation),
        Box::new(limits::Limits::new(scenario)),
        Box::<replaced::Replaced>::default(),
        Box::<restarts::Restarts>::default(),
        Box::new(converged::Converged::new(scenario)),
        Box::new(enough_work::EnoughWork::new(scenario)),
        Box::new(expected::Expected::new(scenario)),
    ]
}
