//! `paceline model label`: what a version is called.

use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::LabelRequest;
use paceline_protocol::{Label, LabelError};

use super::deploy::chosen;
use crate::cli::connection::{Connection, Output};
use crate::cli::failure::Failure;
use crate::cli::operation::{Expectation, Operation, committed, unsettled};
use crate::cli::target::ModelTarget;
use crate::cli::terminal::Terminal;

/// Arguments of `paceline model label`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Clients that ask for the label get that version from the entry on that this commits. A label loads
nothing: where the version has no replica, they are told so.

Examples:
  paceline model label digits@2 stable
  paceline model label digits@next stable      what is called next is now stable, too
  paceline model label digits stable --delete
  paceline infer digits@stable --row …")]
pub struct LabelArgs {
    /// NAME@V, or NAME for its newest version
    #[arg(value_name = "NAME[@V]")]
    target: ModelTarget,
    /// The label: [a-z][a-z0-9_-]*
    #[arg(value_parser = parse_label)]
    label: Label,
    /// Forget the label; the version stays
    #[arg(long)]
    delete: bool,
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

impl LabelArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let Self { target, label, .. } = &self;
        if self.delete && target.version.is_some() {
            let wrong = format!(
                "a label is deleted whatever version it is of: \
                 `paceline model label {} {label} --delete`",
                target.name
            );
            return Err(Failure::Usage(wrong));
        }
        let op = self.operation.op()?;
        let client = self.connection.client(terminal, TIMEOUT)?;
        let client = client.expecting(self.expectation.revision());
        let what = (&target.name, label);
        let (done, sentence, command) = if self.delete {
            let command = format!("model label {} {label} --delete", target.name);
            let sentence = format!("{} has no label '{label}' any more", target.name);
            (client.delete_label(what, op), sentence, command)
        } else {
            let version = chosen(&client, target)?;
            let command = format!("model label {}@{version} {label}", target.name);
            let sentence = format!("'{label}' is version {version} of {}", target.name);
            let request = LabelRequest { version, op };
            (client.set_label(what, &request), sentence, command)
        };
        let command = self.expectation.added_to(command);
        let done = done.map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| {
            format!("{sentence}: {}\n", committed(done))
        })
    }
}

fn parse_label(text: &str) -> Result<Label, LabelError> {
    text.parse()
}
