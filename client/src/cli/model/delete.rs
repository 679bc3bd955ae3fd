//! `paceline model delete`: a model and all its versions are forgotten.

use std::time::Duration;

use clap::Args;
use paceline_protocol::ModelName;

use crate::cli::connection::{Connection, Output};
use crate::cli::failure::Failure;
use crate::cli::operation::{Expectation, Operation, committed, unsettled};
use crate::cli::target::parse_name;
use crate::cli::terminal::Terminal;

/// Arguments of `paceline model delete`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline model delete digits
  paceline model delete digits --yes        in a script")]
pub struct DeleteArgs {
    /// The model
    #[arg(value_parser = parse_name)]
    name: ModelName,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    expectation: Expectation,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// An election and a few repeats fit.
const TIMEOUT: Duration = Duration::from_secs(30);

impl DeleteArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let name = &self.name;
        let question = format!("Delete model '{name}' with all its versions?");
        let sure = self.yes
            || terminal.confirm(&question).ok_or_else(|| {
                Failure::Usage(format!(
                    "nobody is there to ask; say --yes to delete '{name}' with all its versions"
                ))
            })?;
        if !sure {
            return Err(Failure::Failed(format!("'{name}' was not deleted")));
        }
        let op = self.operation.op()?;
        let command = format!("model delete {name} --yes");
        let command = self.expectation.added_to(command);
        let client = self.connection.client(terminal, TIMEOUT)?;
        let client = client.expecting(self.expectation.revision());
        let done = client.delete(name, op).map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| {
            format!("deleted {name}: {}\n", committed(done))
        })
    }
}
