//! The scripted engine of a world, with a ledger of what it ran.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use paceline_models::{
    Batch, CostCurve, DeviceSpec, Engine, LoadError, LoadedModel, MemoryUse, ModelDescription,
    ModelSource, Pace, RunError, StubEngine,
};
use paceline_protocol::Tensor;

/// How often each row was run, by its first value, which names it. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    rows: Arc<Mutex<BTreeMap<u32, u32>>>,
}

/// [`StubEngine`] in invented time, which writes down what it runs.
pub(crate) struct LedgerEngine {
    stub: StubEngine,
    ledger: Ledger,
}

struct LedgerModel {
    stub: Arc<dyn LoadedModel>,
    ledger: Ledger,
}

impl Ledger {
    /// How often the row was run.
    pub(crate) fn runs(&self, row: u32) -> u32 {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(&row).copied().unwrap_or(0)
    }

    fn note(&self, row: u32) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        *rows.entry(row).or_default() += 1;
    }
}

impl LedgerEngine {
    pub(crate) fn new(cost: CostCurve, ledger: Ledger) -> Self {
        let mut stub = StubEngine::new(cost);
        stub.pace = Pace::Told;
        stub.device.threads = LANES;
        Self { stub, ledger }
    }
}

impl Engine for LedgerEngine {
    fn device(&self) -> DeviceSpec {
        self.stub.device()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let ledger = self.ledger.clone();
        let stub = self.stub.load(source)?;
        Ok(Arc::new(LedgerModel { stub, ledger }))
    }
}

impl LoadedModel for LedgerModel {
    fn description(&self) -> &ModelDescription {
        self.stub.description()
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let mut values = Vec::new();
        for request in batch.requests() {
            values.clear();
            request[0].extend_f32(&mut values);
            // Warm-ups have no name.
            for name in values.iter().step_by(COLUMNS).filter(|name| **name > 0.0) {
                self.ledger.note(*name as u32);
            }
        }
        self.stub.run(batch)
    }

    fn bytes(&self) -> MemoryUse {
        self.stub.bytes()
    }

    fn told_cost(&self, rows: u64) -> Option<Duration> {
        self.stub.told_cost(rows)
    }
}

/// Columns of a world's models.
pub(crate) const COLUMNS: usize = 2;
/// Two batches at a time, so that one waits for the other.
const LANES: usize = 2;
