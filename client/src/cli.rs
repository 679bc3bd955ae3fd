//! The operator commands: what they take, what they print, and how they end.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 used wrongly, 3 refused
//! by policy (the node said 403, 409 or 429, and its reason is on stderr). Nothing is coloured,
//! so there is nothing for NO_COLOR to switch off.

mod artifact;
mod bench;
mod connection;
mod context;
mod debug;
mod drain;
mod explain;
mod failure;
mod infer;
mod model;
mod node;
mod nodes;
mod operation;
mod progress;
mod shadow;
mod status;
mod table;
mod target;
mod tenant;
mod terminal;
#[cfg(test)]
mod tests;
mod token;
mod units;

use std::process::ExitCode;

use bench::BenchArgs;
use debug::DebugCommand;
use drain::{DrainArgs, RemoveArgs, UndrainArgs};
use explain::ExplainArgs;
use failure::Failure;
use infer::InferArgs;
use model::ModelCommand;
use nodes::NodesArgs;
use shadow::ShadowArgs;
use status::StatusArgs;
use tenant::TenantCommand;
use terminal::Terminal;
use token::TokenCommand;

/// What an operator can ask of a cluster.
#[derive(Debug, clap::Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Show how a node and its cluster are
    Status(StatusArgs),
    /// List the nodes of the cluster
    Nodes(NodesArgs),
    /// Push, list, show, deploy and delete models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Send a version copies of a share of the requests, and compare its answers
    Shadow(ShadowArgs),
    /// Send one request to a model and print its answer
    Infer(InferArgs),
    /// Make load on a model and measure how it answers
    Bench(BenchArgs),
    /// Make, list and revoke the tokens that nodes join with
    #[command(subcommand)]
    Token(TokenCommand),
    /// List and change who may send requests, what each may take, and their keys
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Empty a node without losing a request
    Drain(DrainArgs),
    /// Let a drained node take requests again
    Undrain(UndrainArgs),
    /// Remove a node from the cluster for ever
    Remove(RemoveArgs),
    /// Look into a node: what its machines were told last
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Explain an error code: its cause, its remedy, its statuses
    Explain(ExplainArgs),
}

impl Command {
    /// Runs the command on this process's standard streams and says how to exit.
    ///
    /// Blocks until the command is done or its time is over. A reader of stdout that goes away
    /// ends it in silence.
    pub fn run(self) -> ExitCode {
        let mut terminal = Terminal::of_process();
        ExitCode::from(self.finish(&mut terminal))
    }

    /// Runs on any terminal; the number is the exit code.
    fn finish(self, terminal: &mut Terminal) -> u8 {
        let ended = self
            .execute(terminal)
            .and_then(|()| terminal.flush().map_err(Failure::from));
        match ended {
            Ok(()) => 0,
            Err(failure) => {
                let talk = terminal.talk();
                failure.lines().iter().for_each(|line| talk.say(line));
                failure.exit_code()
            }
        }
    }

    fn execute(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self {
            Self::Status(args) => args.run(terminal),
            Self::Nodes(args) => args.run(terminal),
            Self::Model(command) => command.run(terminal),
            Self::Shadow(args) => args.run(terminal),
            Self::Infer(args) => args.run(terminal),
            Self::Bench(args) => args.run(terminal),
            Self::Token(command) => command.run(terminal),
            Self::Tenant(command) => command.run(terminal),
            Self::Drain(args) => args.run(terminal),
            Self::Undrain(args) => args.run(terminal),
            Self::Remove(args) => args.run(terminal),
            Self::Debug(command) => command.run(terminal),
            Self::Explain(args) => args.run(terminal),
        }
    }
}
