//! The traces that a scenario replays, read before it begins.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::scenario::Scenario;
use crate::workload::{Arrivals, Trace, TraceError};

/// Traces by the position of the clients that replay them.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    by_clients: BTreeMap<usize, Arc<Trace>>,
}

/// A trace that cannot be replayed.
#[derive(Debug)]
pub struct UnusableTrace {
    /// Where it lies.
    pub path: PathBuf,
    /// Why.
    pub reason: Unusable,
}

/// Why a trace cannot be replayed.
#[derive(Debug)]
pub enum Unusable {
    /// The file cannot be opened.
    File(std::io::Error),
    /// It is not what it is said to be.
    Content(TraceError),
}

impl Traces {
    /// Reads the traces of a scenario; those with relative paths lie in `folder`.
    ///
    /// # Errors
    /// [`UnusableTrace`] names the first that cannot be replayed.
    pub fn read(scenario: &Scenario, folder: &Path) -> Result<Self, UnusableTrace> {
        let mut traces = Self::default();
        for (position, clients) in scenario.clients.iter().enumerate() {
            let Arrivals::Trace(options) = &clients.workload.arrivals else {
                continue;
            };
            let path = folder.join(&options.path);
            let unusable = |reason| UnusableTrace {
                path: path.clone(),
                reason,
            };
            let file = open(&path).map_err(|error| unusable(Unusable::File(error)))?;
            let trace = Trace::read(BufReader::new(file), options);
            let trace = trace.map_err(|error| unusable(Unusable::Content(error)))?;
            traces.by_clients.insert(position, Arc::new(trace));
        }
        Ok(traces)
    }

    /// What became of the lines of each trace, by the position of its clients.
    pub fn summaries(&self) -> impl Iterator<Item = (usize, &crate::workload::TraceSummary)> {
        let traces = self.by_clients.iter();
        traces.map(|(position, trace)| (*position, trace.summary()))
    }

    pub(crate) fn of(&self, clients: usize) -> Option<Arc<Trace>> {
        self.by_clients.get(&clients).cloned()
    }
}

#[allow(
    clippy::disallowed_types,
    reason = "a trace is read before its run begins"
)]
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(path)
}

impl std::fmt::Display for UnusableTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Unusable::File(error) => write!(f, "the trace '{path}' cannot be opened: {error}"),
            Unusable::Content(error) => write!(f, "the trace '{path}' cannot be replayed: {error}"),
        }
    }
}

impl std::error::Error for UnusableTrace {}
