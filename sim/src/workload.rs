//! Workloads: who sends what, when, drawn from a seed.
//!
//! ```text
//!   Arrivals ── constant, poisson, bursty, ──▶ Sender ──▶ Sending, Sending, Sending, …
//!               diurnal, flash crowd             ▲         (in the order of their times)
//!   Trace ───── CSV or JSON lines ───────────────┤
//!   Sizes, tenants, sequences ───────────────────┘
//! ```
//!
//! A [`Workload`] is settings; a [`Sender`] of it gives the requests one by one. Time is in
//! nanoseconds from the workload's start. Everything is whole numbers: the same workload and seed
//! give the same requests on any machine.
//!
//! Deliberately absent: closed loops (clients that wait for an answer before they send again are
//! the simulator's, since only it knows when answers come), and opening files.

mod arrivals;
mod limits;
mod sender;
mod sequences;
mod sizes;
mod tenants;
mod weights;

use paceline_trace::within;
use serde::{Deserialize, Serialize};

pub use paceline_trace::InvalidSetting as InvalidWorkload;
pub use paceline_trace::{
    Columns, SkippedLine, TimeUnit, Trace, TraceError, TraceFormat, TraceOptions, TraceSummary,
};

pub use self::arrivals::Arrivals;
pub use self::sender::Sender;
pub use self::sequences::Sequences;
pub use self::sizes::{Sizes, WeightedSize};
pub use self::tenants::Tenant;

use self::limits::DURATION_MS_MAX;

/// Who sends what, when: everything but the seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// When requests arrive.
    pub arrivals: Arrivals,
    /// Nothing is sent from then on, in milliseconds from the start: 1 to 31 days.
    pub duration_ms: u64,
    /// No more than so many requests are sent.
    #[serde(default)]
    pub requests_max: Option<u64>,
    /// Rows of a request, at least 1. Where a trace has sizes of its own, they are taken.
    #[serde(default = "one")]
    pub rows: Sizes,
    /// Tokens that go in.
    #[serde(default = "none")]
    pub tokens: Sizes,
    /// Tokens that are asked for.
    #[serde(default = "none")]
    pub tokens_out: Sizes,
    /// Bytes that go in.
    #[serde(default = "none")]
    pub bytes: Sizes,
    /// On whose behalf, 1 to 1,000; what a trace says goes before.
    #[serde(default = "one_tenant")]
    pub tenants: Vec<Tenant>,
    /// Which requests follow others; without it, none do.
    #[serde(default)]
    pub sequences: Option<Sequences>,
}

/// A request that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// When, in nanoseconds from the workload's start.
    pub at_nanos: u64,
    /// Rows, at least 1.
    pub rows: u32,
    /// Tokens that go in.
    pub tokens: u32,
    /// Tokens that are asked for.
    pub tokens_out: u32,
    /// Bytes that go in.
    pub bytes: u32,
    /// Whose it is: an index into [`Sender::tenants`].
    pub tenant: u32,
    /// The sequence that it belongs to; numbers are given in the order in which sequences begin.
    pub sequence: Option<u64>,
}

impl Workload {
    /// Requests of one row that arrive so, for `duration_ms`, all of one tenant.
    pub fn new(arrivals: Arrivals, duration_ms: u64) -> Self {
        Self {
            arrivals,
            duration_ms,
            requests_max: None,
            rows: one(),
            tokens: none(),
            tokens_out: none(),
            bytes: none(),
            tenants: one_tenant(),
            sequences: None,
        }
    }

    /// Whether every setting is allowed.
    ///
    /// # Errors
    /// [`InvalidWorkload`] names the first key that is not, its value and what is allowed.
    pub fn check(&self) -> Result<(), InvalidWorkload> {
        self.arrivals.check()?;
        within("duration_ms", self.duration_ms, (1, DURATION_MS_MAX))?;
        self.rows.check("rows", 1, u32::MAX)?;
        self.tokens.check("tokens", 0, u32::MAX)?;
        self.tokens_out.check("tokens_out", 0, u32::MAX)?;
        self.bytes.check("bytes", 0, u32::MAX)?;
        tenants::check(&self.tenants)?;
        self.sequences.as_ref().map_or(Ok(()), Sequences::check)
    }
}

fn one() -> Sizes {
    Sizes::Fixed { size: 1 }
}

fn none() -> Sizes {
    Sizes::Fixed { size: 0 }
}

fn one_tenant() -> Vec<Tenant> {
    let name = "default".to_owned();
    vec![Tenant { name, weight: 1 }]
}

#[cfg(test)]
mod tests;
