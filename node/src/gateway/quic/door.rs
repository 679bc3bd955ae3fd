//! Who answers behind the door: the node's request path, or a test's double.

use paceline_protocol::client::Hello;
use paceline_protocol::frame::{ClientInfer, Execution};
use paceline_protocol::{Epoch, Failure, Tensor, VersionNumber};

use crate::gateway::infer::{Serving, TensorAnswer, TensorRequest, Unanswered};
use crate::transport::Boxed;

/// Answers what arrives over QUIC.
pub trait Door: Send + Sync + 'static {
    /// Lets a client in.
    ///
    /// # Errors
    /// What it is told instead of welcome.
    fn admit(&self, hello: &Hello) -> Result<(), Failure>;

    /// The epoch that this node has applied.
    fn epoch(&self) -> Epoch;

    /// Answers a request by its deadline. Dropping the future cancels it.
    fn infer(&self, request: ClientRequest) -> Boxed<'_, Result<ClientAnswer, ClientFailure>>;
}

/// A request of a client. It has as many tensors as it names inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientRequest {
    /// What is asked.
    pub head: ClientInfer,
    /// The inputs, in the order of their names.
    pub inputs: Vec<Tensor>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAnswer {
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch that the request was pinned at.
    pub epoch: Epoch,
    /// The outputs by name.
    pub outputs: Vec<(String, Tensor)>,
}

/// Its end without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFailure {
    /// Why.
    pub failure: Failure,
    /// Whether any of it ran.
    pub execution: Execution,
}

impl Door for Serving {
    /// Everybody is let in: there are no tenants and keys yet.
    fn admit(&self, _hello: &Hello) -> Result<(), Failure> {
        Ok(())
    }

    fn epoch(&self) -> Epoch {
        self.router.routes().epoch
    }

    fn infer(&self, request: ClientRequest) -> Boxed<'_, Result<ClientAnswer, ClientFailure>> {
        let ClientRequest { head, inputs } = request;
        let request = TensorRequest {
            model: head.model.into(),
            version: head.version,
            inputs: head.inputs.into_iter().zip(inputs).collect(),
            outputs: head.outputs,
            budget_us: head.budget_us,
            epoch_seen: head.epoch_seen,
            is_idempotent: head.idempotent,
            is_second: head.attempt > 1,
        };
        Box::pin(async move {
            match self.infer_tensors(request).await {
                Ok(TensorAnswer {
                    outputs,
                    version,
                    epoch,
                }) => Ok(ClientAnswer {
                    version,
                    epoch,
                    outputs,
                }),
                Err(Unanswered { failure, execution }) => Err(ClientFailure { failure, execution }),
            }
        })
    }
}
