//! `paceline drain`, `undrain` and `remove`: nodes that leave for a while or for ever.

mod wait;

use std::time::Duration;

use clap::Args;
use paceline_protocol::limits::REQUEST_BUDGET_MAX_MS;
use paceline_protocol::operator::{Committed, DrainRequest, UndrainRequest};
use paceline_protocol::{NodeId, OpId};
use serde::Serialize;

use crate::api::{Deadline, Freshness, OperatorClient};

use super::connection::{Connection, Output};
use super::failure::Failure;
use super::node::{Found, NodeTarget};
use super::operation::{Operation, committed, unsettled};
use super::terminal::Terminal;
use super::units::parse_duration;
use wait::Emptying;

/// Arguments of `paceline drain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
If the node leads, another one leads first. Then it is no longer ready, asks its clients to go
elsewhere, and its replicas go one after another, each once another one is ready in its place;
what still arrives is served. What runs there at the deadline ends with a status that may be
sent again. The drain is refused, with exit code 3, when the cluster would lose its quorum, or
when no other node has room for the last replica of a version that serves. A drained node can be
stopped; `paceline undrain` takes it back.

Examples:
  paceline drain n2
  paceline drain --self --addr :8020
  paceline drain n2 --deadline 5m && systemctl stop paceline")]
pub struct DrainArgs {
    /// The node, by id or name
    #[arg(value_name = "NODE", required_unless_present = "this")]
    node: Option<NodeTarget>,
    /// The node that is asked: the one at --addr
    #[arg(long = "self", conflicts_with = "node")]
    this: bool,
    /// How long it may take, at most 1h; what runs there then ends with a retryable status
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_deadline)]
    deadline: Duration,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline undrain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline undrain n2")]
pub struct UndrainArgs {
    /// The node, by id or name
    #[arg(value_name = "NODE")]
    node: NodeTarget,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline remove`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A removed node never comes back: its id is burnt, and its machine joins anew, with an empty
directory and another token. Drain a node that still runs before it is removed.

Examples:
  paceline remove n2
  paceline remove 7 --yes        in a script")]
pub struct RemoveArgs {
    /// The node, by id or name
    #[arg(value_name = "NODE")]
    node: NodeTarget,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// What became of a node, as JSON has it.
#[derive(Debug, Serialize)]
struct Done {
    node: NodeId,
    name: Option<String>,
    /// `drained`, `up` or `removed`.
    state: &'static str,
    #[serde(flatten)]
    committed: Committed,
}

/// An election and a few repeats fit.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much longer than its deadline a drain is waited for: the entry that ends it.
const GRACE: Duration = Duration::from_secs(10);

impl DrainArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        // One deadline for all of it: placing elsewhere, committing, running empty.
        let patience = self.connection.timeout_or(self.deadline + GRACE);
        let deadline = Deadline::after(patience);
        let client = self.connection.client_within(terminal, patience)?;
        let node = match &self.node {
            Some(target) => target.find(&client)?,
            None => {
                let status = client.status(Freshness::Local)?;
                Found {
                    id: status.node,
                    name: Some(status.name),
                }
            }
        };
        let op = self.operation.op()?;
        let request = DrainRequest {
            deadline_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
            op,
        };
        let seconds = self.deadline.as_secs();
        let command = format!("drain {} --deadline {seconds}s", node.id);
        terminal.talk().say(&format!(
            "draining {}: its replicas are placed elsewhere first",
            node.shown()
        ));
        let done = client
            .drain(node.id, &request)
            .map_err(unsettled(&command, op))?;
        let emptying = Emptying {
            node: &node,
            client: &client,
            talk: &terminal.talk(),
        };
        emptying.until(deadline)?;
        finish(terminal, self.output, Done::new(node, "drained", done))
    }
}

impl UndrainArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let (node, op) = target(&self.node, self.operation, &client)?;
        let done = client
            .undrain(node.id, &UndrainRequest { op })
            .map_err(unsettled(&format!("undrain {}", node.id), op))?;
        finish(terminal, self.output, Done::new(node, "up", done))
    }
}

impl RemoveArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let (node, op) = target(&self.node, self.operation, &client)?;
        let shown = node.shown();
        let sure = self.yes
            || terminal
                .confirm(&format!("Remove {shown} for ever?"))
                .ok_or_else(|| {
                    Failure::Usage(format!(
                        "nobody is there to ask; say --yes to remove {shown} for ever"
                    ))
                })?;
        if !sure {
            return Err(Failure::Failed(format!("{shown} was not removed")));
        }
        let done = client
            .remove_node(node.id, op)
            .map_err(unsettled(&format!("remove {} --yes", node.id), op))?;
        finish(terminal, self.output, Done::new(node, "removed", done))
    }
}

impl Done {
    fn new(node: Found, state: &'static str, committed: Committed) -> Self {
        Self {
            node: node.id,
            name: node.name,
            state,
            committed,
        }
    }
}

fn target(
    node: &NodeTarget,
    operation: Operation,
    client: &OperatorClient,
) -> Result<(Found, OpId), Failure> {
    Ok((node.find(client)?, operation.op()?))
}

fn finish(terminal: &mut Terminal, output: Output, done: Done) -> Result<(), Failure> {
    terminal.show(output.format, &done, |done| {
        let node = Found {
            id: done.node,
            name: done.name.clone(),
        };
        let (shown, state) = (node.shown(), done.state);
        format!("{shown} is {state}: {}\n", committed(&done.committed))
    })
}

fn parse_deadline(text: &str) -> Result<Duration, String> {
    let most = Duration::from_millis(REQUEST_BUDGET_MAX_MS) * 6;
    match parse_duration(text)? {
        deadline if deadline <= most => Ok(deadline),
        _ => Err("at most 1h: no request takes longer than 10m".to_owned()),
    }
}
