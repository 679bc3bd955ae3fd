//! Waiting until a node has run empty.

use std::thread;
use std::time::{Duration, Instant};

use paceline_protocol::operator::NodeView;

use crate::api::{ApiError, Deadline, Freshness, OperatorClient};
use crate::cli::failure::Failure;
use crate::cli::node::Found;
use crate::cli::terminal::Talk;
use crate::cli::units;

/// A drain that is committed.
pub(super) struct Emptying<'a> {
    pub(super) node: &'a Found,
    pub(super) client: &'a OperatorClient,
    pub(super) talk: &'a Talk,
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// One look: a node that takes longer is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

impl Emptying<'_> {
    /// Looks until the node is drained. Any node of the cluster can say so, also one that is
    /// asked because the drained one has gone.
    pub(super) fn until(&self, deadline: Deadline) -> Result<(), Failure> {
        let (begun, shown) = (Instant::now(), self.node.shown());
        let mut told = String::new();
        loop {
            let limit = deadline.remaining().min(LOOK_TIMEOUT);
            let looked = self.client.within(limit).nodes(Freshness::Local);
            let state = match looked {
                Ok(nodes) => match self.state(&nodes)? {
                    State::Drained => return Ok(()),
                    State::Leaving(state) => state,
                },
                Err(error) if passes(&error) => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            let line = format!("{shown}: {state}");
            if self.talk.is_live() {
                let seconds = units::seconds(begun.elapsed().as_secs());
                self.talk.update(&format!("{line}, {seconds}"));
            } else if line != told {
                self.talk.say(&line);
                told = line;
            }
            if deadline.remaining() <= LOOK_EVERY {
                return Err(Failure::Failed(format!(
                    "{shown} is not drained in time; it goes on, and `paceline nodes` shows it"
                )));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn state(&self, nodes: &[NodeView]) -> Result<State, Failure> {
        let Some(node) = nodes.iter().find(|node| node.id == self.node.id) else {
            let shown = self.node.shown();
            return Err(Failure::Failed(format!("{shown} has been removed since")));
        };
        match node.state.as_str() {
            "drained" => Ok(State::Drained),
            // The node that is asked may not have applied the drain yet.
            state => Ok(State::Leaving(state.to_owned())),
        }
    }
}

enum State {
    Drained,
    Leaving(String),
}

/// The drain is committed: a node that is away for a moment changes nothing about it.
fn passes(error: &ApiError) -> bool {
    matches!(error, ApiError::Unreachable { .. }) || error.is_worth_repeating()
}
