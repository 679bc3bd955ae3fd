//! The same decisions in invented time: a deterministic simulator of a cluster.
//!
//! ```text
//!   scenario + seed ─▶ clients ─▶ node: admission ─▶ failover ─▶ router ─┬▶ device ─▶ batches
//!                        ▲                                               │ network    │
//!             faults ────┤                                               └▶ node …    │ facts
//!                        ▼                                                            ▼
//!        operator ─▶ log ─▶ registry ─▶ placement, drain     report ◀─ measured ◀─ ledger
//! ```
//!
//! The machines are those of `paceline-core`, stepped exactly as production steps them; what is
//! invented is the time, the network, the clients, the engine's cost, and who leads. Everything
//! random is drawn from one `u64`, so a run can be repeated byte for byte, on any machine.
//!
//! Read [`Scenario`] first, then [`run`]. A [`Workload`] says who sends what, when; its [`Sender`]
//! gives the requests one by one.
//!
//! Deliberately absent: clocks, threads, hashed containers, floats that a platform could round
//! in its own way, and consensus itself, which `tests/whole_node` runs as it is.

#![warn(clippy::wildcard_enum_match_arm)]

mod agenda;
mod command;
mod draws;
mod fact;
mod invariant;
mod ledger;
mod measured;
mod message;
mod planted;
mod report;
mod scenario;
mod series;
mod shrink;
mod swarm;
mod traces;
mod violation;
mod workload;
mod world;

pub use command::{Command, OutputFormat, RunArgs, SeedRange};
pub use planted::Planted;
pub use report::{BatchSize, ClientsShare, Latency, Outcomes, Report};
pub use scenario::{
    Clients, Cluster, Cost, Delays, Expect, Fault, Group, Model, Network, Operation, Problem,
    Replicas, Scenario, ScenarioError, TenantPlan, Trial, UnknownScenario, Version, What,
};
pub use series::Series;
pub use shrink::shrink;
pub use swarm::with_faults;
pub use traces::{Traces, Unusable, UnusableTrace};
pub use violation::Violation;
pub use workload::{
    Arrivals, Columns, InvalidWorkload, Sender, Sending, Sequences, Sizes, SkippedLine, Tenant,
    TimeUnit, Trace, TraceError, TraceFormat, TraceOptions, TraceSummary, WeightedSize, Workload,
};

/// Runs a scenario to its end in invented time, every invariant being checked throughout.
///
/// The same scenario, traces and seed give the same report, byte for byte, in any process. Cost:
/// some microseconds and some 100 bytes of memory for each simulated request.
///
/// # Errors
/// The first [`Violation`] of an invariant.
///
/// # Panics
/// The scenario has [problems](Scenario::problems), or a trace that it names is not given.
pub fn run(scenario: &Scenario, traces: &Traces, seed: u64) -> Result<Report, Violation> {
    run_planted((scenario, traces), seed, None)
}

/// Like [`run`], with a bug planted: shows that the ledger finds it.
///
/// # Errors
/// The first [`Violation`] of an invariant.
///
/// # Panics
/// As [`run`].
pub fn run_planted(
    (scenario, traces): (&Scenario, &Traces),
    seed: u64,
    planted: Option<Planted>,
) -> Result<Report, Violation> {
    let problems = scenario.problems();
    assert!(problems.is_empty(), "{problems:?}");
    planted::with(planted, || {
        world::World::new((scenario, traces), seed, planted).run()
    })
}

#[cfg(test)]
mod tests;
