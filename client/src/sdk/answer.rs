//! What comes back.

use std::time::Duration;

use paceline_protocol::frame::{Execution, Frame, Message};
use paceline_protocol::{Epoch, ErrorCode, NodeId, Tensor, VersionNumber};

use super::error::InferError;

/// The answer to an inference request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The outputs by name, in the order in which they were asked for, or else the model's.
    pub outputs: Vec<(String, Tensor)>,
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch of the registry that the request was answered at.
    pub epoch: Epoch,
    /// The node that answered.
    pub node: NodeId,
    /// Which attempt was answered: 2 after the first node was lost.
    pub attempt: u8,
    /// For how long the node has been without contact to a quorum, if it has none: what it
    /// knows, the version that serves among it, may be as old as that.
    pub stale: Option<Duration>,
}

impl Answer {
    /// The output called `name`.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        let found = self.outputs.iter().find(|(output, _)| output == name);
        found.map(|(_, tensor)| tensor)
    }

    /// What a node's frame says.
    pub(crate) fn of(frame: Frame, node: NodeId, attempt: u8) -> Result<Self, InferError> {
        match frame.message {
            Message::ClientAnswer {
                version,
                epoch,
                outputs,
                stale_seconds,
            } if outputs.len() == frame.tensors.len() => Ok(Self {
                outputs: outputs.into_iter().zip(frame.tensors).collect(),
                version,
                epoch,
                node,
                attempt,
                stale: stale_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            }),
            Message::Failed {
                failure, execution, ..
            } => Err(InferError::told(failure, execution, node)),
            _ => Err(InferError {
                execution: Execution::Unknown,
                node: Some(node),
                ..InferError::local(ErrorCode::Internal, "the node's answer makes no sense")
            }),
        }
    }
}
