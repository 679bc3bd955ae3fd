//! `paceline status`: how the node that is asked and its cluster are.

use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::{DeviceStatus, RaftStatus, Status};
use paceline_protocol::registry::DeviceKind;

use super::connection::{Connection, Consistency, Output};
use super::failure::Failure;
use super::table::{Side, Table, fields};
use super::terminal::Terminal;
use super::units;

/// Arguments of `paceline status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline status
  paceline status --addr :8010
  paceline status --consistent
  paceline status -o json | jq .ready")]
pub struct StatusArgs {
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// A node answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

impl StatusArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let status = client.status(self.consistency.freshness())?;
        terminal.show(self.output.format, &status, text)
    }
}

fn text(status: &Status) -> String {
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut pairs = vec![
        ("node", format!("{} (id {})", status.name, status.node)),
        ("state", ready.to_owned()),
        ("release", status.version.clone()),
        ("uptime", units::seconds(status.uptime_seconds)),
        ("cluster", status.cluster.clone()),
        ("epoch", status.epoch.to_string()),
        ("raft", raft(&status.raft)),
        ("quorum", quorum(status)),
        ("losses", losses(status.survivable_losses)),
        ("models", models(status)),
    ];
    for warning in &status.warnings {
        pairs.push(("warning", warning.clone()));
    }
    for reason in &status.degraded {
        pairs.push(("degraded", reason.clone()));
    }
    format!("{}\n{}", fields(&pairs), devices(&status.devices))
}

fn models(status: &Status) -> String {
    let ready = format!("{} of {} ready", status.models_ready, status.models);
    match status.shadows {
        0 => ready,
        shadows => format!("{ready}, {shadows} with a shadow"),
    }
}

fn raft(raft: &RaftStatus) -> String {
    let leader = raft.leader.map_or_else(
        || "no leader known".to_owned(),
        |leader| format!("leader is node {leader}"),
    );
    let voters: Vec<String> = raft.voters.iter().map(ToString::to_string).collect();
    format!(
        "{}, term {}, {leader}, voters {}",
        raft.role,
        raft.term,
        voters.join(" ")
    )
}

fn quorum(status: &Status) -> String {
    match (status.quorum, status.stale_seconds) {
        (true, _) => "yes".to_owned(),
        (false, None) => "no: writes are not possible".to_owned(),
        (false, Some(stale)) => format!(
            "no, for {}: writes are not possible, answers may be stale",
            units::seconds(stale)
        ),
    }
}

fn losses(survivable: u32) -> String {
    match survivable {
        0 => "no loss of a node is survivable".to_owned(),
        1 => "the loss of 1 node is survivable".to_owned(),
        more => format!("the loss of {more} nodes is survivable"),
    }
}

fn devices(devices: &[DeviceStatus]) -> String {
    let mut table = Table::new([
        ("DEVICE", Side::Right),
        ("KIND", Side::Left),
        ("LANES", Side::Right),
        ("RUNNING", Side::Right),
        ("QUEUED ROWS", Side::Right),
        ("MEMORY USED", Side::Right),
        ("MEMORY", Side::Right),
    ]);
    for (position, device) in devices.iter().enumerate() {
        let kind = match device.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
        };
        table.row([
            position.to_string(),
            kind.to_owned(),
            device.lanes.to_string(),
            device.running.to_string(),
            device.queued_rows.to_string(),
            units::bytes(device.memory_used_bytes),
            units::bytes(device.memory_bytes),
        ]);
    }
    table.render()
}
