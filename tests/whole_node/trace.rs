//! What happened in a run, in order: what two runs of one seed must agree on.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Lines with the invented time before them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace {
    began: Instant,
    text: Arc<Mutex<String>>,
}

impl Trace {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            text: Arc::default(),
        }
    }

    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        let micros = self.micros();
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(text, "{micros:>9} {what}");
    }

    /// Invented microseconds since the beginning.
    pub(crate) fn micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    pub(crate) fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}
