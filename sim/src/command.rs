//! `paceline sim …`: the simulator on the command line.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::planted::Planted;
use crate::scenario::Scenario;
use crate::violation::reproduction;

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
    /// List the scenarios.
    List,
}

/// What to run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A scenario's name; `paceline sim list` shows them.
    #[arg(value_parser = Scenario::named)]
    pub scenario: Scenario,
    /// What all of a run's chance is drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
    /// Plant a bug in the simulator's own driver, to see that the invariants find it.
    #[arg(long, value_enum, value_name = "BUG")]
    pub plant: Option<Planted>,
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
    /// Does what was asked: reports on stdout, violations on stderr.
    ///
    /// # Errors
    /// Stdout or stderr cannot be written to.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        match self {
            Self::Run(arguments) => arguments.run(&mut out, &mut err),
            Self::List => {
                for scenario in Scenario::all() {
                    writeln!(out, "{:<16} {}", scenario.name, scenario.summary)?;
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl RunArgs {
    fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let (scenario, seed, planted) = (&self.scenario, self.seed, self.plant);
        // A machine that panics is found as surely as an invariant that does not hold.
        let run = AssertUnwindSafe(|| crate::run_planted(scenario, seed, planted));
        let Ok(outcome) = std::panic::catch_unwind(run) else {
            let again = reproduction(&scenario.name, seed, planted);
            writeln!(
                err,
                "a machine panicked with seed {seed}\nreproduce: {again}"
            )?;
            return Ok(ExitCode::FAILURE);
        };
        let report = match outcome {
            Ok(report) => report,
            Err(violation) => {
                writeln!(err, "{violation}")?;
                return Ok(ExitCode::FAILURE);
            }
        };
        match self.output {
            OutputFormat::Table => write!(out, "{report}")?,
            OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

const EXAMPLES: &str = "Examples:
  paceline sim list
  paceline sim run steady
  paceline sim run steady --seed 7 -o json
  paceline sim run steady --plant lost-batch";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
        let arguments = [&["sim"], arguments].concat();
        Program::try_parse_from(arguments).map(|program| program.command)
    }

    /// Exit code, stdout and stderr of `sim run` with these arguments.
    fn run(arguments: &[&str]) -> (ExitCode, String, String) {
        let Ok(Command::Run(arguments)) = parse(&[&["run"], arguments].concat()) else {
            panic!("{arguments:?} does not parse");
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = arguments.run(&mut out, &mut err).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Program::command().debug_assert();
        let help = Program::command().render_long_help().to_string();
        assert!(help.contains("paceline sim run steady --seed 7 -o json"));
    }

    #[test]
    fn an_unknown_scenario_is_a_usage_error_that_lists_what_there_is() {
        let error = parse(&["run", "stedy"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("there are: steady"), "{error}");
    }

    #[test]
    fn a_run_reports_on_stdout_in_both_formats() {
        let (code, table, talk) = run(&["steady", "--seed", "3"]);
        assert_eq!((code, talk.as_str()), (ExitCode::SUCCESS, ""));
        assert!(table.starts_with("scenario     steady\nseed         3\n"));
        let (_, json, _) = run(&["steady", "--seed", "3", "-o", "json"]);
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(report["seed"], 3);
        let requests = format!("requests     {}\n", report["requests"]);
        assert!(table.contains(&requests), "both say the same");
    }

    #[test]
    fn a_violation_exits_with_one_and_says_how_to_see_it_again() {
        let (code, out, talk) = run(&["steady", "--seed", "3", "--plant", "lost-permit"]);
        assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
        assert!(
            talk.starts_with("I9 conservation does not hold at 2."),
            "{talk}"
        );
        let again = "\nreproduce: paceline sim run steady --seed 3 --plant lost-permit\n";
        assert!(talk.ends_with(again), "{talk}");
    }
}
