//! `paceline model promote`, `abort`, `rollback` and `undeploy`: traffic is moved by hand, in one
//! entry.

use std::time::Duration;

use clap::Args;
use paceline_protocol::ModelName;
use paceline_protocol::operator::{Committed, TrafficRequest};

use crate::api::TrafficMove;
use crate::cli::connection::{Connection, Output};
use crate::cli::failure::Failure;
use crate::cli::operation::{Expectation, Operation, committed, unsettled};
use crate::cli::target::parse_name;
use crate::cli::terminal::Terminal;

/// Arguments of `paceline model promote`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The canary keeps its share until it has as many ready replicas as the version that serves; then all
requests go to it, in one entry.

Examples:
  paceline model promote digits")]
pub struct PromoteArgs {
    #[command(flatten)]
    what: What,
}

/// Arguments of `paceline model abort`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
From the entry on that this commits the canary gets no request.

Examples:
  paceline model abort digits
  paceline model abort digits --reason 'answers look wrong'")]
pub struct AbortArgs {
    #[command(flatten)]
    what: What,
    /// Why; `model show` tells it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `paceline model rollback`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A deployment that is under way is taken back at once. Otherwise the version that served before is
deployed again: at once while its replicas are still there, or else when they are loaded.

Examples:
  paceline model rollback digits")]
pub struct RollbackArgs {
    #[command(flatten)]
    what: What,
}

/// Arguments of `paceline model undeploy`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
No version of the model serves from the entry on that this commits, and its replicas go. Versions and
labels stay: `paceline model deploy` has it serve again.

Examples:
  paceline model undeploy digits")]
pub struct UndeployArgs {
    #[command(flatten)]
    what: What,
}

#[derive(Clone, Debug, Args)]
struct What {
    /// The model
    #[arg(value_parser = parse_name)]
    name: ModelName,
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

impl PromoteArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        self.what.run((TrafficMove::Promote, None), terminal)
    }
}

impl AbortArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        self.what.run((TrafficMove::Abort, self.reason), terminal)
    }
}

impl RollbackArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        self.what.run((TrafficMove::Rollback, None), terminal)
    }
}

impl UndeployArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        self.what.run((TrafficMove::Undeploy, None), terminal)
    }
}

impl What {
    fn run(
        self,
        (to, reason): (TrafficMove, Option<String>),
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let op = self.operation.op()?;
        let (name, command) = (&self.name, format!("model {} {}", to.name(), self.name));
        let command = self.expectation.added_to(command);
        let client = self.connection.client(terminal, TIMEOUT)?;
        let client = client.expecting(self.expectation.revision());
        let request = TrafficRequest { reason, op };
        let done = client.move_traffic(name, to, &request);
        let done = done.map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| sentence(name, to, done))
    }
}

fn sentence(name: &ModelName, to: TrafficMove, done: &Committed) -> String {
    let what = match to {
        TrafficMove::Promote => format!("the canary of {name} serves when its replicas are ready"),
        TrafficMove::Abort => format!("the canary of {name} gets no request any more"),
        TrafficMove::Rollback => {
            format!("the version of {name} that served before serves when its replicas are ready")
        }
        TrafficMove::Undeploy => format!("no version of {name} serves any more"),
    };
    format!("{what}: {}\n", committed(done))
}
