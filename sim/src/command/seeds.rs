//! Many runs: one for each seed, several at a time, the first that fails made small and saved.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use serde::Serialize;

use super::run::{Failure, held, write_file};
use super::{OutputFormat, RunArgs};
use crate::invariant::EnoughWork;
use crate::scenario::Scenario;
use crate::shrink::shrink;
use crate::traces::Traces;

/// Seeds from the first to before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedRange {
    first: u64,
    end: u64,
}

/// What became of many runs; nothing of wall time or threads.
#[derive(Serialize)]
struct Summary {
    scenario: String,
    seeds: String,
    swarm: bool,
    runs: u64,
    held: u64,
    requests: u64,
    answered: u64,
    failed_over: u64,
    first_failure: Option<u64>,
}

/// What a run has given.
type Outcome = (u64, Result<(u64, u64, u64), Failure>);

impl RunArgs {
    /// Runs each seed, and stops at the first that fails.
    pub(super) fn run_seeds(
        &self,
        seeds: SeedRange,
        traces: &Traces,
        (out, err): (&mut dyn Write, &mut dyn Write),
    ) -> anyhow::Result<ExitCode> {
        let mut summary = Summary {
            scenario: self.scenario.name(),
            seeds: seeds.to_string(),
            swarm: self.swarm,
            runs: 0,
            held: 0,
            requests: 0,
            answered: 0,
            failed_over: 0,
            first_failure: None,
        };
        let failure = self.run_all(seeds, traces, (&mut summary, err))?;
        match self.output {
            OutputFormat::Table => write!(out, "{summary}")?,
            OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?,
        }
        let Some((seed, failure)) = failure else {
            return Ok(ExitCode::SUCCESS);
        };
        writeln!(err, "{}", failure.what)?;
        let again = self.reproduction(&self.scenario.name(), seed, self.swarm);
        writeln!(err, "reproduce: {again}")?;
        self.save_smallest(seed, traces, err)?;
        Ok(ExitCode::FAILURE)
    }

    /// The first seed that fails, in the order of seeds, whatever ends first.
    #[allow(
        clippy::disallowed_methods,
        reason = "runs know nothing of each other, and are counted in the order of their seeds"
    )]
    fn run_all(
        &self,
        seeds: SeedRange,
        traces: &Traces,
        (summary, err): (&mut Summary, &mut dyn Write),
    ) -> anyhow::Result<Option<(u64, Failure)>> {
        let (next, has_failed) = (AtomicU64::new(seeds.first), AtomicBool::new(false));
        let (tell, told) = sync_channel(usize::from(self.jobs) * 2);
        let shows = std::io::stderr().is_terminal();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                let tell: SyncSender<Outcome> = tell.clone();
                let (next, has_failed) = (&next, &has_failed);
                scope.spawn(move || {
                    while !has_failed.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            break;
                        }
                        let scenario = self.scenario_of(seed);
                        let report = held((&scenario, traces), seed, self.plant);
                        let counts = report.map(|report| {
                            (
                                report.requests,
                                report.outcomes.answered,
                                report.failed_over,
                            )
                        });
                        if counts.is_err() {
                            has_failed.store(true, Ordering::Relaxed);
                        }
                        if tell.send((seed, counts)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(tell);
            let mut waiting: BTreeMap<u64, Result<(u64, u64, u64), Failure>> = BTreeMap::new();
            let (mut turn, mut failure) = (seeds.first, None);
            for (seed, outcome) in told {
                waiting.insert(seed, outcome);
                while let Some(outcome) = waiting.remove(&turn) {
                    if failure.is_none() {
                        match outcome {
                            Ok(counts) => summary.count(counts),
                            Err(found) => failure = Some((turn, found)),
                        }
                    }
                    turn += 1;
                }
                if shows && failure.is_none() {
                    let all = seeds.end - seeds.first;
                    write!(err, "\r{} of {all} seeds", turn - seeds.first)?;
                }
            }
            if shows {
                writeln!(err)?;
            }
            summary.runs += u64::from(failure.is_some());
            summary.first_failure = failure.as_ref().map(|(seed, _)| *seed);
            Ok(failure)
        })
    }

    fn save_smallest(&self, seed: u64, traces: &Traces, err: &mut dyn Write) -> anyhow::Result<()> {
        let failing = self.scenario_of(seed);
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let kind = |scenario: &Scenario| {
            let held = held((scenario, traces), seed, self.plant);
            held.err().map(|failure| failure.kind)
        };
        let found = kind(&failing);
        // Another failure is another bug; that there is too little to do is one that every
        // shorter run has.
        let may_shorten = found != Some(EnoughWork::NAME);
        let mut smallest = shrink(&failing, SHRINKS_MAX, |candidate| {
            (may_shorten || candidate.clients == failing.clients) && kind(candidate) == found
        });
        std::panic::set_hook(quiet);
        smallest.name = format!("{}-{seed}", smallest.name);
        let path = self.save.join(format!("{}.toml", smallest.name));
        write_file(&path, &smallest.write())?;
        let path = path.display().to_string();
        writeln!(
            err,
            "{} faults and {} operations are enough, of {} and {}\nreproduce: {}",
            smallest.faults.len(),
            smallest.operations.len(),
            failing.faults.len(),
            failing.operations.len(),
            self.reproduction(&path, seed, false)
        )?;
        Ok(())
    }
}

impl Summary {
    fn count(&mut self, (requests, answered, failed_over): (u64, u64, u64)) {
        self.runs += 1;
        self.held += 1;
        self.requests += requests;
        self.answered += answered;
        self.failed_over += failed_over;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let swarm = if self.swarm { ", faults by seed" } else { "" };
        writeln!(f, "scenario     {}{swarm}", self.scenario)?;
        writeln!(f, "seeds        {}", self.seeds)?;
        writeln!(f, "runs         {}", self.runs)?;
        writeln!(f, "held         {}", self.held)?;
        writeln!(f, "requests     {}", self.requests)?;
        writeln!(f, "  answered   {}", self.answered)?;
        writeln!(f, "failed over  {}", self.failed_over)
    }
}

impl FromStr for SeedRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text.split_once("..").and_then(|(first, end)| {
            let range: Range<u64> = first.parse().ok()?..end.parse().ok()?;
            (!range.is_empty()).then_some(range)
        });
        let range = range.ok_or("seeds are A..B with B above A, such as 0..1000")?;
        Ok(Self {
            first: range.start,
            end: range.end,
        })
    }
}

impl fmt::Display for SeedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// Runs that making a scenario small may take.
const SHRINKS_MAX: u32 = 300;
