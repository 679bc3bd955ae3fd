//! `paceline model`: from a folder to a version that serves, and back.

mod canary;
mod delete;
mod deploy;
mod label;
mod list;
mod precision;
mod push;
mod show;
mod traffic;

use clap::Subcommand;

pub(super) use canary::{parse_share, share};

use delete::DeleteArgs;
use deploy::DeployArgs;
pub(super) use deploy::chosen;
use label::LabelArgs;
use list::ListArgs;
use push::PushArgs;
use show::ShowArgs;
use traffic::{AbortArgs, PromoteArgs, RollbackArgs, UndeployArgs};

use super::failure::Failure;
use super::terminal::Terminal;

/// What can be done with models.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum ModelCommand {
    /// Upload a model's folder and publish it as a version
    Push(PushArgs),
    /// List the models and how they are
    List(ListArgs),
    /// Show one model: signature, versions, replicas
    Show(ShowArgs),
    /// Let a version serve, and wait until it does
    Deploy(DeployArgs),
    /// Let the canary serve
    Promote(PromoteArgs),
    /// End the canary; it gets no more requests
    Abort(AbortArgs),
    /// Let the version serve that served before
    Rollback(RollbackArgs),
    /// Let no version serve
    Undeploy(UndeployArgs),
    /// Give a version a name that clients may use instead of its number
    Label(LabelArgs),
    /// Delete a model with all its versions
    Delete(DeleteArgs),
}

impl ModelCommand {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self {
            Self::Push(args) => args.run(terminal),
            Self::List(args) => args.run(terminal),
            Self::Show(args) => args.run(terminal),
            Self::Deploy(args) => args.run(terminal),
            Self::Promote(args) => args.run(terminal),
            Self::Abort(args) => args.run(terminal),
            Self::Rollback(args) => args.run(terminal),
            Self::Undeploy(args) => args.run(terminal),
            Self::Label(args) => args.run(terminal),
            Self::Delete(args) => args.run(terminal),
        }
    }
}
