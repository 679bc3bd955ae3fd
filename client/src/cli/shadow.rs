//! `paceline shadow NAME@V --traffic P%`: a version gets copies of requests, and answers nobody.

use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::{Committed, ShadowRequest};
use paceline_protocol::registry::ReplicaTarget;

use super::connection::{Connection, Output};
use super::failure::Failure;
use super::model::chosen;
use super::model::{parse_share, share};
use super::operation::{Expectation, Operation, committed, unsettled};
use super::target::{ModelTarget, parse_replicas};
use super::terminal::Terminal;

/// Arguments of `paceline shadow`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The version gets replicas of its own. Copies of requests that were answered are sent to it in the
lowest class, and nobody waits for them; /metrics counts them, how long they take, and in how many
rows both versions agree (paceline_shadow_…).

Examples:
  paceline shadow digits@2 --traffic 10%
  paceline shadow digits --off")]
pub struct ShadowArgs {
    /// The model, and the version that gets the copies; without one the newest
    target: ModelTarget,
    /// The share of the requests that are copied
    #[arg(long, value_name = "P%", value_parser = parse_share, required_unless_present = "off")]
    traffic: Option<u16>,
    /// End it: no copy is sent any more, and the replicas go
    #[arg(long, conflicts_with_all = ["traffic", "replicas"])]
    off: bool,
    /// Its replicas, or `each` for one on each node; as many as are deployed if absent
    #[arg(long, value_name = "N", value_parser = parse_replicas)]
    replicas: Option<ReplicaTarget>,
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

impl ShadowArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let op = self.operation.op()?;
        let client = self.connection.client(terminal, TIMEOUT)?;
        let client = client.expecting(self.expectation.revision());
        let (name, target) = (&self.target.name, &self.target);
        let (done, command, said) = match self.traffic {
            Some(weight) => {
                let version = chosen(&client, target)?;
                let target = format!("{name}@{version}");
                let request = ShadowRequest {
                    version: Some(version),
                    replicas: self.replicas,
                    weight,
                    op,
                };
                let share = share(weight);
                (
                    client.set_shadow(name, &request),
                    format!("shadow {target} --traffic {share}"),
                    format!("{target} gets copies of {share} of the requests when it is ready"),
                )
            }
            None => (
                client.end_shadow(name, op),
                format!("shadow {target} --off"),
                format!("{name} has no shadow any more"),
            ),
        };
        let command = self.expectation.added_to(command);
        let done = done.map_err(unsettled(&command, op))?;
        let sentence = |done: &Committed| format!("{said}: {}\n", committed(done));
        terminal.show(self.output.format, &done, sentence)
    }
}
