//! How a request, or an attempt to connect, ends when it does not end well.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use paceline_protocol::frame::Execution;
use paceline_protocol::{ErrorCode, Failure, NodeId};

use super::context::ContextError;
use super::trust::TrustError;

/// The typed end of a request that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferError {
    /// The stable code; [`ErrorCode::explain`] tells its cause and remedy.
    pub code: ErrorCode,
    /// For people.
    pub message: Cow<'static, str>,
    /// Whether the same request may succeed, and do no harm, if it is sent again.
    pub is_retryable: bool,
    /// When to try again, where that is known.
    pub retry_after: Option<Duration>,
    /// Whether any of it ran.
    pub execution: Execution,
    /// The node that said so; none if it was decided here.
    pub node: Option<NodeId>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody said where the cluster is.
    #[error("no address of any node is given; an SDK door is reached at HTTP port + 3")]
    NoSeeds,
    /// The context file cannot be used.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// What nodes are checked against cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No UDP socket.
    #[error("no UDP socket can be opened: {0}")]
    Socket(#[from] io::Error),
    /// No node has let the client in.
    #[error("no node of the cluster can be reached: {reason}")]
    Unreachable {
        /// What each address answered.
        reason: String,
    },
}

impl InferError {
    /// Decided on this side: nothing was executed.
    pub(crate) fn local(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            is_retryable: code.is_retryable(),
            retry_after: None,
            execution: Execution::NotExecuted,
            node: None,
        }
    }

    /// Told by a node.
    pub(crate) fn told(failure: Failure, execution: Execution, node: NodeId) -> Self {
        let wait_ms = failure.retry_after_ms.map(u64::from);
        Self {
            code: failure.code,
            message: failure.message,
            is_retryable: failure.code.is_retryable(),
            retry_after: wait_ms.map(Duration::from_millis),
            execution,
            node: Some(node),
        }
    }

    /// The same, of a request that may run twice, or else may not: then it does harm to send
    /// again what may have run.
    pub(crate) fn of(self, is_idempotent: bool) -> Self {
        let is_harmless = is_idempotent || self.execution == Execution::NotExecuted;
        Self {
            is_retryable: self.is_retryable && is_harmless,
            ..self
        }
    }

    /// The end of a second attempt: whatever became of it, the first one may have run.
    pub(crate) fn after_silence(self) -> Self {
        let execution = match self.execution {
            Execution::NotExecuted => Execution::Unknown,
            known => known,
        };
        Self { execution, ..self }
    }

    /// Of a stream of which a part was answered.
    pub(crate) fn midway(self) -> Self {
        Self {
            execution: Execution::Executed,
            ..self
        }
    }

    /// Sent, and never heard of again.
    pub(crate) fn lost(node: NodeId, is_idempotent: bool) -> Self {
        let message = format!("node {node} was lost before it answered");
        Self {
            is_retryable: is_idempotent,
            execution: Execution::Unknown,
            ..Self::local(ErrorCode::Unreachable, message)
        }
    }
}

impl fmt::Display for InferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for InferError {}
