//! What is said when an invariant does not hold.

use std::fmt;

use paceline_core::Instant;

use crate::planted::Planted;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When, in invented time.
    pub at: Instant,
    /// What was seen.
    pub what: String,
    /// The scenario's name.
    pub scenario: String,
    /// The run's seed.
    pub seed: u64,
    /// What was planted.
    pub planted: Option<Planted>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (
            self.at.as_nanos() / 1_000_000_000,
            self.at.as_nanos() % 1_000_000_000,
        );
        write!(
            f,
            "{} does not hold at {seconds}.{nanos:09} s with seed {}: {}",
            self.invariant, self.seed, self.what
        )
    }
}

impl std::error::Error for Violation {}
