//! What surrounds the machines: the time, what is to come, chance, and who takes notes.

use paceline_core::{Instant, Random};

use crate::agenda::Agenda;
use crate::draws;
use crate::fact::Fact;
use crate::ledger::{Broken, Ledger};
use crate::measured::Measured;
use crate::report::Report;
use crate::scenario::Scenario;

/// Everything that a node or the control plane needs besides itself.
pub(super) struct Outside {
    pub(super) now: Instant,
    pub(super) agenda: Agenda,
    pub(super) scenario: Scenario,
    service: Random,
    ledger: Ledger,
    measured: Measured,
}

impl Outside {
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            agenda: Agenda::default(),
            service: Random::stream(seed, "service"),
            ledger: Ledger::new(&scenario),
            measured: Measured::default(),
            scenario,
        }
    }

    pub(super) fn record(&mut self, fact: &Fact<'_>) {
        self.ledger.record(self.now, fact);
        self.measured.observe(self.now, fact);
    }

    /// How long the engine takes for a batch of `rows`, in nanoseconds.
    pub(super) fn service_nanos(&mut self, rows: u32) -> u64 {
        let model = self.scenario.model;
        let nanos = model.fixed_nanos + model.row_nanos * u64::from(rows);
        draws::noisy(&mut self.service, nanos, model.noise_permille)
    }

    pub(super) fn broken(&mut self) -> Option<Broken> {
        self.ledger.broken()
    }

    pub(super) fn end(&mut self) -> Option<Broken> {
        self.ledger.end(self.now)
    }

    pub(super) fn report(self, seed: u64, end: Instant) -> Report {
        self.measured.report(&self.scenario, seed, end)
    }
}
