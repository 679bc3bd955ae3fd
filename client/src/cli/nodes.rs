//! `paceline nodes`: who is a member, in which state and where.

use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::NodeView;

use super::connection::{Connection, Consistency, Output, or_dash};
use super::failure::Failure;
use super::table::{Side, Table};
use super::terminal::Terminal;

/// Arguments of `paceline nodes`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline nodes
  paceline nodes --consistent
  paceline nodes --addr 10.0.0.7 -o json")]
pub struct NodesArgs {
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// A node answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

impl NodesArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let nodes = client.nodes(self.consistency.freshness())?;
        terminal.show(self.output.format, &nodes, |nodes| table(nodes))
    }
}

fn table(nodes: &[NodeView]) -> String {
    let mut table = Table::new([
        ("ID", Side::Right),
        ("NAME", Side::Left),
        ("STATE", Side::Left),
        ("ROLE", Side::Left),
        ("ZONE", Side::Left),
        ("EPOCH", Side::Right),
        ("PID", Side::Right),
        ("HTTP", Side::Left),
        ("METRICS", Side::Left),
        ("SDK", Side::Left),
        ("PEER", Side::Left),
    ]);
    for node in nodes {
        table.row([
            node.id.to_string(),
            node.name.clone(),
            node.state.clone(),
            node.role.clone(),
            node.zone.clone(),
            or_dash(node.epoch),
            or_dash(node.pid),
            or_dash(node.addresses.http.as_ref()),
            or_dash(node.addresses.metrics.as_ref()),
            or_dash(node.addresses.sdk.as_ref()),
            or_dash(node.addresses.peer.as_ref()),
        ]);
    }
    table.render()
}
