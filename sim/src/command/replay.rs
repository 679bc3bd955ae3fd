//! `paceline sim replay`: what the machines of a node decided, decided again.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use paceline_core::Instant;
use paceline_core::record::{self, Divergence, Kept, Replay};
use paceline_protocol::limits::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES_MAX};
use paceline_protocol::record::{RecordHeader, RecordedMachine};
use serde::Serialize;

use super::{OutputFormat, ReplayArgs};

/// What came of a record.
#[derive(Debug, Serialize)]
struct Replayed {
    node: u64,
    release: String,
    /// Whether every step said the same.
    is_same: bool,
    machines: Vec<Machine>,
    /// Every step in the order of time, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
}

/// A step of one of the machines.
#[derive(Debug, Serialize)]
struct Step {
    at_nanos: u64,
    machine: String,
    told: String,
    said: String,
}

/// What came of one machine's steps.
#[derive(Debug, Serialize)]
struct Machine {
    machine: String,
    instance: String,
    steps: u64,
    effects: u64,
    segments: u64,
    /// Steps that were not recorded, since the machine was too large.
    unkept: u64,
    /// When its first and last step were recorded, in nanoseconds since the node's start.
    from_nanos: Option<u64>,
    to_nanos: Option<u64>,
    /// Where it went another way; nothing is compared after that.
    divergence: Option<Parted>,
}

/// Where a machine and its record part.
#[derive(Debug, Serialize)]
struct Parted {
    /// Counted from 1.
    step: u64,
    at_nanos: Option<u64>,
    told: String,
    recorded: String,
    replayed: String,
}

impl ReplayArgs {
    pub(super) fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let shown = self.file.display();
        let bytes = match bytes_of(&self.file) {
            Ok(bytes) => bytes,
            Err(error) => {
                writeln!(err, "{error:#}")?;
                return Ok(ExitCode::FAILURE);
            }
        };
        let (header, kept) = match record::read(&bytes) {
            Ok(record) => record,
            Err(error) => {
                writeln!(err, "'{shown}': {error}")?;
                return Ok(ExitCode::FAILURE);
            }
        };
        if header.release != RELEASE {
            let made_by = &header.release;
            writeln!(
                err,
                "release {made_by} made the record, and this is {RELEASE}: where they decide \
                 otherwise, steps differ"
            )?;
        }
        let replays = kept.iter().map(|kept| kept.recording.replay());
        let steps = self.steps.then(|| in_order(&header, &kept));
        let replayed = Replayed::of(header, replays, steps);
        match self.output {
            OutputFormat::Table => write!(out, "{replayed}")?,
            OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&replayed)?)?,
        }
        Ok(match replayed.is_same {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

impl Replayed {
    fn of(
        header: RecordHeader,
        replays: impl Iterator<Item = Replay>,
        steps: Option<Vec<Step>>,
    ) -> Self {
        let machines = header.machines.into_iter().zip(replays);
        let machines: Vec<Machine> = machines.map(Machine::of).collect();
        Self {
            node: header.node.0,
            release: header.release,
            is_same: machines.iter().all(|machine| machine.divergence.is_none()),
            machines,
            steps,
        }
    }
}

impl Machine {
    fn of((recorded, replay): (RecordedMachine, Replay)) -> Self {
        let (from_nanos, to_nanos) = recorded.span_nanos.unzip();
        Self {
            machine: recorded.machine,
            instance: recorded.instance,
            steps: replay.steps,
            effects: replay.effects,
            segments: replay.segments,
            unkept: recorded.unkept,
            from_nanos,
            to_nanos,
            divergence: replay.divergence.map(Parted::of),
        }
    }

    fn is_stepped(&self) -> bool {
        self.steps > 0 || self.unkept > 0
    }

    fn name(&self) -> String {
        name(&self.machine, &self.instance)
    }
}

impl Parted {
    fn of(divergence: Divergence) -> Self {
        match divergence {
            Divergence::Step {
                step,
                now,
                told,
                recorded,
                replayed,
            } => Self {
                step,
                at_nanos: Some(now.as_nanos()),
                told,
                recorded: recorded.to_string(),
                replayed: replayed.to_string(),
            },
            Divergence::State { step } => Self {
                step,
                at_nanos: None,
                told: "all that was recorded until then".to_owned(),
                recorded: "the same effects, and the state that the next segment begins with"
                    .to_owned(),
                replayed: "the same effects, and another state".to_owned(),
            },
        }
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps.iter().flatten() {
            let at = seconds(Some(step.at_nanos));
            let Step {
                machine,
                told,
                said,
                ..
            } = step;
            writeln!(f, "{at:>14}  {machine}: {told} → {said}")?;
        }
        writeln!(f, "node     {}", self.node)?;
        writeln!(f, "release  {}", self.release)?;
        let names = self.machines.iter().filter(|m| m.is_stepped());
        let width = names.map(|m| m.name().chars().count());
        let width = width.max().unwrap_or(0).max("MACHINE".len());
        writeln!(
            f,
            "{:<width$}  {:>8}  {:>8}  {:>8}  {:>10}  {:>10}  SAME",
            "MACHINE", "STEPS", "EFFECTS", "MISSING", "FROM", "TO"
        )?;
        // Most machines of a healthy node are never stepped: those that start failed parts again.
        let (stepped, idle): (Vec<&Machine>, Vec<_>) = self
            .machines
            .iter()
            .partition(|machine| machine.is_stepped());
        for machine in stepped {
            let (steps, effects, unkept) = (machine.steps, machine.effects, machine.unkept);
            let (from, to) = (seconds(machine.from_nanos), seconds(machine.to_nanos));
            let same = match &machine.divergence {
                None => "yes".to_owned(),
                Some(parted) => format!("NO, at step {}", parted.step),
            };
            let name = machine.name();
            writeln!(
                f,
                "{name:<width$}  {steps:>8}  {effects:>8}  {unkept:>8}  {from:>10}  {to:>10}  {same}"
            )?;
        }
        if !idle.is_empty() {
            writeln!(f, "{} more were not stepped", idle.len())?;
        }
        for machine in &self.machines {
            if let Some(parted) = &machine.divergence {
                let (name, step) = (machine.name(), parted.step);
                writeln!(f, "\n{name}, step {step}, at {}:", seconds(parted.at_nanos))?;
                writeln!(f, "  told      {}", parted.told)?;
                writeln!(f, "  recorded  {}", parted.recorded)?;
                writeln!(f, "  replayed  {}", parted.replayed)?;
            }
        }
        Ok(())
    }
}

/// The steps of all machines, so that a request can be followed from one to the next. Those of
/// one machine stay in their order: its drivers may have looked at the clock in another one.
fn in_order(header: &RecordHeader, kept: &[Kept]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (machine, kept) in header.machines.iter().zip(kept) {
        let name = name(&machine.machine, &machine.instance);
        let mut latest = Instant::ZERO;
        steps.extend(kept.recording.lines().into_iter().map(|line| {
            latest = latest.max(line.now);
            let step = Step {
                at_nanos: line.now.as_nanos(),
                machine: name.clone(),
                told: line.told,
                said: line.said.to_string(),
            };
            (latest, step)
        }));
    }
    steps.sort_by_key(|(latest, _)| *latest);
    steps.into_iter().map(|(_, step)| step).collect()
}

fn name(machine: &str, instance: &str) -> String {
    format!("{machine} {instance}").trim_end().to_owned()
}

/// Seconds since the node's start, in microseconds.
fn seconds(nanos: Option<u64>) -> String {
    nanos.map_or("-".to_owned(), |nanos| {
        let micros = nanos / 1_000;
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    })
}

#[allow(
    clippy::disallowed_types,
    reason = "a record is read before it is replayed"
)]
fn bytes_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("'{shown}' cannot be opened"))?;
    let mut bytes = Vec::new();
    // One more than there can be, so that what is longer is told so.
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("'{shown}' cannot be read"))?;
    Ok(bytes)
}

const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// What stands before the header is small beside it.
const FILE_BYTES_MAX: u64 = (RECORD_BYTES_MAX + 2 * RECORD_HEADER_BYTES_MAX) as u64;

#[cfg(test)]
mod tests;
