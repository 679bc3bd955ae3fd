//! Who answers behind the door: the node's request path, or a test's double.

use paceline_protocol::client::Hello;
use paceline_protocol::frame::{ClientInfer, Execution, Frame, LoadReport, Message};
use paceline_protocol::{Epoch, ErrorCode, Failure, Tensor, VersionNumber};

use crate::gateway::infer::{
    Serving, Taker, TensorAnswer, TensorPart, TensorRequest, Unanswered, budget_nanos,
};
use crate::tenants::Caller;
use crate::transport::Boxed;

/// Answers what arrives over QUIC.
pub trait Door: Send + Sync + 'static {
    /// Lets a client in, and says who it is.
    ///
    /// # Errors
    /// What it is told instead of welcome.
    fn admit(&self, hello: &Hello) -> Result<Caller, Failure>;

    /// Whether a client that was let in is still who it was.
    ///
    /// # Errors
    /// What its requests are told from now on.
    fn check(&self, caller: Caller) -> Result<(), Failure>;

    /// The epoch that this node has applied.
    fn epoch(&self) -> Epoch;

    /// Answers a request by its deadline. Dropping the future cancels it.
    fn infer(&self, request: ClientRequest) -> Boxed<'_, Result<ClientAnswer, ClientFailure>>;

    /// Answers a request in parts, in the order of its rows, and says how many rows they answer.
    /// Dropping the future cancels what has not started.
    fn stream<'a>(
        &'a self,
        request: ClientRequest,
        taker: &'a mut dyn Taker<TensorPart>,
    ) -> Boxed<'a, Result<u64, ClientFailure>>;
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
    /// For how many seconds the node has been without contact to a quorum, if it has none.
    pub stale_seconds: Option<u32>,
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
    fn admit(&self, hello: &Hello) -> Result<Caller, Failure> {
        self.tenants.caller(hello.api_key.as_ref())
    }

    fn check(&self, caller: Caller) -> Result<(), Failure> {
        self.tenants.check(caller)
    }

    fn epoch(&self) -> Epoch {
        self.router.routes().epoch
    }

    fn infer(&self, request: ClientRequest) -> Boxed<'_, Result<ClientAnswer, ClientFailure>> {
        Box::pin(async move {
            let budget_nanos = budget_nanos(Some(request.head.budget_us));
            let deadline = self.clock.now().plus_nanos(budget_nanos);
            match self.catch_up(request.head.epoch_seen).await {
                true => self.answer_client(request).await,
                false => self.send_ahead(request, deadline).await,
            }
        })
    }

    fn stream<'a>(
        &'a self,
        request: ClientRequest,
        taker: &'a mut dyn Taker<TensorPart>,
    ) -> Boxed<'a, Result<u64, ClientFailure>> {
        Box::pin(async move {
            let reached = self.reach_for_stream(request.head.epoch_seen).await;
            reached.map_err(Unanswered::from)?;
            Ok(self.stream_tensors(request.into(), taker).await?)
        })
    }
}

impl Serving {
    /// Answers from what this node knows.
    pub(in crate::gateway) async fn answer_client(
        &self,
        request: ClientRequest,
    ) -> Result<ClientAnswer, ClientFailure> {
        let TensorAnswer {
            outputs,
            version,
            epoch,
            stale_seconds,
        } = self.infer_tensors(request.into()).await?;
        Ok(ClientAnswer {
            version,
            epoch,
            outputs,
            stale_seconds: stale_seconds.map(saturated),
        })
    }
}

impl From<ClientRequest> for TensorRequest {
    fn from(request: ClientRequest) -> Self {
        let ClientRequest { head, inputs } = request;
        Self {
            model: head.model.into(),
            version: head.version,
            inputs: head.inputs.into_iter().zip(inputs).collect(),
            outputs: head.outputs,
            budget_us: head.budget_us,
            is_idempotent: head.idempotent,
            is_second: head.attempt > 1,
            lost: head.lost,
            criticality: head.criticality,
            tenant: head.tenant,
            unit: head.unit,
            sequence: head.sequence,
        }
    }
}

impl From<Unanswered> for ClientFailure {
    fn from(unanswered: Unanswered) -> Self {
        let Unanswered { failure, execution } = unanswered;
        Self { failure, execution }
    }
}

/// A part as a frame says it.
pub(super) fn part_message(part: TensorPart) -> (Message, Vec<Tensor>) {
    let TensorPart { first_row, answer } = part;
    let (outputs, tensors) = answer.outputs.into_iter().unzip();
    let message = Message::ClientPart {
        first_row,
        version: answer.version,
        epoch: answer.epoch,
        outputs,
        stale_seconds: answer.stale_seconds.map(saturated),
    };
    (message, tensors)
}

impl ClientAnswer {
    /// As a frame says it.
    pub(in crate::gateway) fn into_message(self) -> (Message, Vec<Tensor>) {
        let (outputs, tensors) = self.outputs.into_iter().unzip();
        let message = Message::ClientAnswer {
            version: self.version,
            epoch: self.epoch,
            outputs,
            stale_seconds: self.stale_seconds,
        };
        (message, tensors)
    }

    /// What a frame of a peer says, which has answered in this node's place.
    pub(in crate::gateway) fn told(frame: Frame) -> Result<Self, ClientFailure> {
        match frame.message {
            Message::ClientAnswer {
                version,
                epoch,
                outputs,
                stale_seconds,
            } if outputs.len() == frame.tensors.len() => Ok(Self {
                version,
                epoch,
                outputs: outputs.into_iter().zip(frame.tensors).collect(),
                stale_seconds,
            }),
            Message::Failed {
                failure, execution, ..
            } => Err(ClientFailure { failure, execution }),
            _ => Err(ClientFailure {
                failure: Failure::new(ErrorCode::Internal, "a peer's answer makes no sense"),
                execution: Execution::Unknown,
            }),
        }
    }
}

impl ClientFailure {
    /// As a frame says it.
    pub(in crate::gateway) fn into_message(self) -> Message {
        Message::Failed {
            failure: self.failure,
            execution: self.execution,
            load: LoadReport::default(),
        }
    }
}

fn saturated(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
