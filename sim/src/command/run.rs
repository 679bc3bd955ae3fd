//! `paceline sim run`: one run, or one for each of many seeds.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;

use super::{OutputFormat, RunArgs};
use crate::planted::Planted;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::swarm::with_faults;
use crate::traces::Traces;

/// A run that did not hold.
pub(super) struct Failure {
    /// The invariant that did not hold, or [`PANIC`].
    pub(super) kind: &'static str,
    /// What was seen.
    pub(super) what: String,
}

impl RunArgs {
    pub(super) fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let traces = match self.scenario.traces() {
            Ok(traces) => traces,
            Err(unusable) => {
                writeln!(err, "{unusable}")?;
                return Ok(ExitCode::FAILURE);
            }
        };
        if let Some(seeds) = self.seeds {
            return self.run_seeds(seeds, &traces, (out, err));
        }
        let seed = self.seed.unwrap_or(1);
        let scenario = self.scenario_of(seed);
        match held((&scenario, &traces), seed, self.plant) {
            Ok(report) => {
                if let Some(path) = &self.series {
                    write_file(path, &report.series.to_string())?;
                }
                print(&report, self.output, out)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => {
                let again = self.reproduction(&self.scenario.name(), seed, self.swarm);
                writeln!(err, "{}\nreproduce: {again}", failure.what)?;
                Ok(ExitCode::FAILURE)
            }
        }
    }

    /// What is run with a seed.
    pub(super) fn scenario_of(&self, seed: u64) -> Scenario {
        match self.swarm {
            true => with_faults(&self.scenario.scenario, seed),
            false => self.scenario.scenario.clone(),
        }
    }

    /// The command that runs this again.
    pub(super) fn reproduction(&self, scenario: &str, seed: u64, swarm: bool) -> String {
        let swarm = if swarm { " --swarm" } else { "" };
        let plant = self.plant.map(Planted::name);
        let plant = plant.map_or(String::new(), |name| format!(" --plant {name}"));
        format!("paceline sim run {scenario} --seed {seed}{swarm}{plant}")
    }
}

/// Runs once; a machine that panics is found as surely as an invariant that does not hold.
pub(super) fn held(
    (scenario, traces): (&Scenario, &Traces),
    seed: u64,
    planted: Option<Planted>,
) -> Result<Report, Failure> {
    let run = AssertUnwindSafe(|| crate::run_planted((scenario, traces), seed, planted));
    match std::panic::catch_unwind(run) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(violation)) => Err(Failure {
            kind: violation.invariant,
            what: violation.to_string(),
        }),
        Err(_panic) => Err(Failure {
            kind: PANIC,
            what: format!("a machine panicked with seed {seed}"),
        }),
    }
}

/// A machine has panicked.
const PANIC: &str = "panic";

fn print(report: &Report, output: OutputFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    match output {
        OutputFormat::Table => write!(out, "{report}")?,
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(report)?)?,
    }
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "what a run has given is written after it"
)]
pub(super) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    std::fs::write(path, text).with_context(|| format!("'{}' cannot be written", path.display()))
}
