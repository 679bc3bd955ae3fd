//! What a node needs before its process can be started. It blocks: not for an event loop.

use std::path::PathBuf;

use paceline_core::up::Past;
use paceline_protocol::operator::{TokenCreated, TokenRequest};

use super::ask::Asker;
use super::home::{name, past};
use super::probe::seed;
use super::process::{Entry, Launch, Process};
use crate::config::{Block, EngineKind};

/// All that is known before.
pub(crate) struct Preparation {
    /// The nodes' program.
    pub(crate) program: PathBuf,
    /// The first node's ports.
    pub(crate) block: Block,
    /// Threads that run models, of each node.
    pub(crate) threads: usize,
    /// What computes encoders.
    pub(crate) engine: EngineKind,
    /// Whether this node brings the demo's models along.
    pub(crate) demo: bool,
    /// Which node it is.
    pub(crate) node: usize,
    /// Where each node keeps its data.
    pub(crate) directories: Vec<PathBuf>,
    /// For a token.
    pub(crate) asker: Asker,
}

impl Preparation {
    /// Starts the process.
    ///
    /// # Errors
    /// What is in the way, in a sentence.
    pub(crate) fn launch(self) -> Result<Process, String> {
        let launch = Launch {
            entry: self.entry()?,
            program: self.program,
            name: name(self.node),
            data: self.directories[self.node].clone(),
            http_port: self.block.of_node(self.node)?.http(),
            threads: self.threads,
            engine: self.engine,
            demo: self.demo,
        };
        let program = launch.program.display().to_string();
        launch
            .start()
            .map_err(|error| format!("{program} does not start: {error}"))
    }

    /// A member serves; the first of all founds the cluster by serving; any other joins by the
    /// first member there is.
    fn entry(&self) -> Result<Entry, String> {
        let is_member = |data: &PathBuf| past(data) == Past::Member;
        if is_member(&self.directories[self.node]) {
            return Ok(Entry::Serve);
        }
        let Some(member) = self.directories.iter().find(|data| is_member(data)) else {
            return Ok(Entry::Serve);
        };
        let (http, sdk) = seed(member)?;
        let request = TokenRequest {
            ttl_ms: Some(TOKEN_TTL_MS),
            uses: Some(1),
        };
        let created: TokenCreated = self
            .asker
            .post(http, "/v2/paceline/tokens", &request)
            .map_err(|error| format!("no token to join with: {error}"))?;
        Ok(Entry::Join {
            seed: sdk.to_string(),
            token: created.token,
        })
    }
}

/// The cores are shared out; a node computes with one at least.
pub(super) fn threads_of_each(nodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / nodes).max(1)
}

/// Joining takes seconds; the token is on a command line, where others can read it.
const TOKEN_TTL_MS: u64 = 60_000;
