//! The op-id of a write: drawn here, shown when its end is unknown, given again to repeat it.

use clap::Args;
use paceline_protocol::operator::Committed;
use paceline_protocol::{Epoch, OpId};

use crate::api::ApiError;

use super::failure::Failure;

/// Which write this is.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Operation {
    /// Repeat a write whose end is unknown, with the op-id that it was reported under
    #[arg(long, value_name = "HEX32")]
    op_id: Option<OpId>,
}

/// What a write of a model presupposes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Expectation {
    /// Change nothing unless the model has this revision, which `paceline model show` tells
    #[arg(long, value_name = "N")]
    expected_revision: Option<u64>,
}

impl Expectation {
    /// The revision, if one is expected.
    pub(crate) fn revision(self) -> Option<Epoch> {
        self.expected_revision.map(Epoch)
    }

    /// A command that says so, too.
    pub(crate) fn added_to(self, command: String) -> String {
        match self.expected_revision {
            None => command,
            Some(revision) => format!("{command} --expected-revision {revision}"),
        }
    }
}

impl Operation {
    /// The op-id given, or a new one.
    pub(crate) fn op(self) -> Result<OpId, Failure> {
        self.op_id.map_or_else(fresh, Ok)
    }
}

/// 128 bits of the operating system's entropy: two writes never share them.
pub(crate) fn fresh() -> Result<OpId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::Failed(format!("the system gives no random bytes: {e}")))?;
    Ok(OpId(u128::from_le_bytes(bytes)))
}

/// What became of a write, for people.
pub(crate) fn committed(done: &Committed) -> String {
    let Committed {
        epoch,
        applied_on,
        nodes,
    } = done;
    format!("committed at {epoch}, applied on {applied_on} of {nodes}")
}

/// A failure that tells how to repeat the write: `command`, which means the same, with `op`.
pub(crate) fn unsettled(command: &str, op: OpId) -> impl FnOnce(ApiError) -> Failure {
    let repeat = format!("paceline {command} --op-id {op}");
    move |error| Failure::Write { error, repeat }
}
