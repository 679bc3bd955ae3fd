//! Checks every fact of a run against every invariant, and keeps the first violation.

use paceline_core::Instant;

use crate::fact::Fact;
use crate::invariant::{self, Invariant};
use crate::scenario::Scenario;

/// The invariants of a run.
pub(crate) struct Ledger {
    invariants: Vec<Box<dyn Invariant>>,
    first: Option<Broken>,
}

/// An invariant that did not hold.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) at: Instant,
    pub(crate) what: String,
}

impl Ledger {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            invariants: invariant::all(scenario),
            first: None,
        }
    }

    pub(crate) fn record(&mut self, now: Instant, fact: &Fact<'_>) {
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.observe(now, fact) {
                let invariant = invariant.name();
                self.first.get_or_insert(Broken {
                    invariant,
                    at: now,
                    what,
                });
            }
        }
    }

    /// The first violation so far, once.
    pub(crate) fn broken(&mut self) -> Option<Broken> {
        self.first.take()
    }

    /// What can only be said when nothing happens any more.
    pub(crate) fn end(&mut self, now: Instant) -> Option<Broken> {
        self.invariants.iter().find_map(|invariant| {
            let what = invariant.end(now).err()?;
            Some(Broken {
                invariant: invariant.name(),
                at: now,
                what,
            })
        })
    }
}
