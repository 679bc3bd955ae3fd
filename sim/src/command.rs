//! `paceline sim …`: the simulator on the command line.

mod check;
mod open;
mod replay;
mod run;
mod seeds;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use self::open::Opened;
pub use self::seeds::SeedRange;
use crate::planted::Planted;
use crate::scenario::Scenario;

/// Simulate a cluster in invented time: the same decisions, no machines.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Run a scenario and report what became of its requests.
    ///
    /// The same scenario and seed give the same output, byte for byte. When an invariant does
    /// not hold, the command says which, when, and how to see it again, and exits with 1.
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// Say whether scenarios can be run, and where not.
    #[command(after_help = EXAMPLES)]
    Check(CheckArgs),
    /// Replay what a node recorded, and say whether its machines decide the same.
    ///
    /// Each machine starts as it was and is told the same at the same moments; its effects are
    /// compared byte for byte. The first that differs is shown, and the command exits with 1.
    /// `paceline debug record` makes such files.
    #[command(after_help = EXAMPLES)]
    Replay(ReplayArgs),
    /// List the scenarios that come along.
    List,
    /// Print a scenario that comes along, to begin an own one with.
    Show(Box<ShowArgs>),
}

/// What to run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A scenario's name, which `paceline sim list` shows, or a file (`*.toml`).
    #[arg(value_name = "SCENARIO|FILE", value_parser = Opened::parse)]
    pub scenario: Opened,
    /// What all of a run's chance is drawn from [default: 1].
    #[arg(long, conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Run it once for each seed from A to B, B not included, and report how many held.
    #[arg(long, value_name = "A..B")]
    pub seeds: Option<SeedRange>,
    /// Runs at a time, with --seeds.
    #[arg(short, long, default_value_t = 1, requires = "seeds", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Draw faults from each seed, in the place of the scenario's own.
    #[arg(long)]
    pub swarm: bool,
    /// Where the smallest scenario is written that shows what a seed of --seeds has found.
    #[arg(long, value_name = "FOLDER", default_value = ".", requires = "seeds")]
    pub save: PathBuf,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
    /// Write what happened in each second as CSV.
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    pub series: Option<PathBuf>,
    /// Plant a bug, to see that the invariants find it: in the simulator's own driver, or, if this
    /// program was built with the feature `planted`, in what is decided.
    #[arg(long, value_enum, value_name = "BUG")]
    pub plant: Option<Planted>,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files, or names of scenarios that come along.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,
}

/// What to replay.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A record of a node.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print every step, too: when it was, what the machine was told, and what it said.
    #[arg(long)]
    pub steps: bool,
    /// How to print what came of it.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
}

/// What to print.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The scenario's name.
    #[arg(value_parser = Scenario::named)]
    pub scenario: Scenario,
}

/// How to print a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Command {
    /// Does what was asked: reports on stdout, violations and progress on stderr.
    ///
    /// # Errors
    /// Stdout, stderr or a file cannot be written to.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.run_to(&mut std::io::stdout(), &mut std::io::stderr())
    }

    fn run_to(self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        self.perform(out, err)
            .or_else(|error| match error.downcast_ref::<std::io::Error>() {
                // Whoever reads has seen enough, as `head` has.
                Some(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => {
                    Ok(ExitCode::SUCCESS)
                }
                _ => Err(error),
            })
    }

    fn perform(self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(arguments) => arguments.run(out, err),
            Self::Check(arguments) => arguments.run(out, err),
            Self::Replay(arguments) => arguments.run(out, err),
            Self::List => {
                for scenario in Scenario::all() {
                    writeln!(out, "{:<21} {}", scenario.name, scenario.summary)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Show(arguments) => {
                write!(out, "{}", arguments.scenario.write())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

const EXAMPLES: &str = "Examples:
  paceline sim list
  paceline sim run steady
  paceline sim run steady --seed 7 -o json
  paceline sim run node-kill --series second-by-second.csv
  paceline sim run node-kill --swarm --seeds 0..1000 -j 4
  paceline sim show node-kill > mine.toml && paceline sim check mine.toml
  paceline sim run mine.toml
  paceline debug record -o n0.record && paceline sim replay n0.record
  paceline sim replay n0.record --steps | grep 'detector of node 2'
  paceline sim run steady --plant lost-batch";

#[cfg(test)]
mod tests;
