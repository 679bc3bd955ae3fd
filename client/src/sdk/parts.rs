//! A request whose answer comes in parts, from its first attempt to its one end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use paceline_protocol::frame::{ClientInfer, Execution, Frame, LoadReport, Message};
use paceline_protocol::limits::{
    REQUEST_BUDGET_MAX_MS, REROUTES_MAX, STATUS_GRACE_MS, STREAM_PART_BUDGET_DEFAULT_MS,
};
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, Tensor, VersionNumber};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use super::Client;
use super::error::InferError;
use super::inference::Inference;
use super::sending::{is_turned_away, refused};
use super::session::{Heard, NotStarted, Session, Streamed};

/// Rows of an answer that comes in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The request's row that the first of these answers.
    pub first_row: u64,
    /// The outputs by name, in the order in which they were asked for, or else the model's.
    pub outputs: Vec<(String, Tensor)>,
    /// The version that ran: that of all parts.
    pub version: VersionNumber,
    /// The epoch of the registry that the request was answered at.
    pub epoch: Epoch,
    /// The node that answered.
    pub node: NodeId,
    /// For how long the node has been without contact to a quorum, if it has none.
    pub stale: Option<Duration>,
}

/// The parts of an answer, in the order of rows, each as soon as it and all before it are there.
///
/// Nothing is sent before it is first asked for. What is not asked for is not computed either, but
/// for a few parts ahead and what fits the connection's window. It ends after the last part, or with
/// exactly one [`InferError`]; dropping it cancels the rest.
#[must_use = "a stream does nothing until it is asked for its first part"]
pub struct Parts {
    inner: BoxStream<'static, Result<Part, InferError>>,
}

/// Where a stream stands between two of its parts.
enum State {
    Fresh(Box<Inference>),
    Open(Box<Open>),
    Ended,
}

/// A stream whose first part has come.
struct Open {
    client: Client,
    streamed: Streamed,
    patience: Duration,
    is_idempotent: bool,
    /// The row that the next part begins with.
    next_row: u64,
    _permit: OwnedSemaphorePermit,
}

/// A request that has no part yet.
struct Beginning {
    client: Client,
    request: ClientInfer,
    tensors: Vec<Tensor>,
    patience: Duration,
    /// When the first part must be there, wherever it comes from.
    deadline: Instant,
}

impl Part {
    /// The output called `name`.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        let found = self.outputs.iter().find(|(output, _)| output == name);
        found.map(|(_, tensor)| tensor)
    }

    /// How many rows it answers.
    pub fn rows(&self) -> u64 {
        self.outputs.first().map_or(0, |(_, tensor)| tensor.rows())
    }

    fn of(frame: Frame, node: NodeId) -> Result<Self, InferError> {
        match frame.message {
            Message::ClientPart {
                first_row,
                version,
                epoch,
                outputs,
                stale_seconds,
            } if outputs.len() == frame.tensors.len() => Ok(Self {
                first_row,
                outputs: outputs.into_iter().zip(frame.tensors).collect(),
                version,
                epoch,
                node,
                stale: stale_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            }),
            Message::Failed {
                failure, execution, ..
            } => Err(InferError::told(failure, execution, node)),
            _ => Err(senseless(node)),
        }
    }
}

impl Parts {
    pub(super) fn new(inference: Inference) -> Self {
        let state = State::Fresh(Box::new(inference));
        let inner = stream::unfold(state, State::next).boxed();
        Self { inner }
    }

    /// The next part; `None` after the last one, or after the one [`InferError`]. The same as the
    /// `next` of futures' `StreamExt`, for who has no other use for that.
    pub async fn next(&mut self) -> Option<Result<Part, InferError>> {
        self.inner.next().await
    }
}

impl Stream for Parts {
    type Item = Result<Part, InferError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl State {
    async fn next(self) -> Option<(Result<Part, InferError>, Self)> {
        let next = match self {
            Self::Fresh(inference) => begin(*inference).await.map(Some),
            Self::Open(open) => open.next().await,
            Self::Ended => return None,
        };
        match next {
            Ok(Some((part, open))) => Some((Ok(part), Self::Open(Box::new(open)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), Self::Ended)),
        }
    }
}

impl Open {
    /// The next part; `None` at the end.
    async fn next(mut self) -> Result<Option<(Part, Self)>, InferError> {
        let node = self.streamed.session.welcome.node;
        let heard = timeout(self.patience, self.streamed.next()).await;
        let frame = match heard.unwrap_or_else(|_late| Heard::Told(too_late())) {
            Heard::Told(frame) => frame,
            Heard::GivenUp => return Err(given_up(node).midway()),
            Heard::NotTaken | Heard::Lost => {
                return Err(InferError::lost(node, self.is_idempotent).midway());
            }
        };
        match frame.message {
            Message::ClientEnd { rows } if rows == self.next_row => Ok(None),
            Message::ClientPart { first_row, .. } if first_row == self.next_row => {
                let part = Part::of(frame, node)?;
                self.next_row += part.rows();
                self.client.pool().saw(part.epoch);
                Ok(Some((part, self)))
            }
            Message::Failed { .. } => {
                let failed = Part::of(frame, node).err();
                let failed = failed.unwrap_or_else(|| senseless(node));
                Err(failed.of(self.is_idempotent).midway())
            }
            _ => Err(senseless(node).midway()),
        }
    }
}

/// The first part. Until it is there, the request goes elsewhere as any other does: once if its node
/// was lost and it may run twice, and as often as nodes stop and refuse it.
async fn begin(inference: Inference) -> Result<(Part, Open), InferError> {
    let client = inference.client().clone();
    let permit = client.permit().ok_or_else(|| {
        let message = "as many requests are in flight as the client's options allow";
        InferError::local(ErrorCode::Overloaded, message)
    })?;
    let default = Duration::from_millis(STREAM_PART_BUDGET_DEFAULT_MS);
    let longest = Duration::from_millis(REQUEST_BUDGET_MAX_MS);
    let budget = inference.own_budget().unwrap_or(default).min(longest);
    let (mut request, tensors) = inference.request(client.pool())?;
    request.in_parts = true;
    request.attempt = 1;
    request.budget_us = u64::try_from(budget.as_micros()).unwrap_or(u64::MAX).max(1);
    // What a node says of a part that is late arrives after its budget.
    let patience = budget + Duration::from_millis(STATUS_GRACE_MS);
    let beginning = Beginning {
        client,
        request,
        tensors,
        patience,
        deadline: Instant::now() + patience,
    };
    beginning.run(permit).await
}

impl Beginning {
    async fn run(mut self, permit: OwnedSemaphorePermit) -> Result<(Part, Open), InferError> {
        let (mut avoided, mut moves): (Option<Arc<Session>>, u8) = (None, 0);
        loop {
            let mut streamed = self.start(avoided.as_ref()).await?;
            let session = streamed.session.clone();
            let node = session.welcome.node;
            let heard = timeout_at(self.deadline, streamed.next()).await;
            let is_idempotent = self.request.idempotent;
            match heard.unwrap_or_else(|_late| Heard::Told(too_late())) {
                Heard::Told(frame)
                    if moves < REROUTES_MAX && self.goes_elsewhere(&frame, &session) =>
                {
                    moves += 1;
                }
                Heard::Told(frame) => return self.opened(frame, streamed, permit),
                Heard::Lost | Heard::NotTaken if is_idempotent && self.request.attempt == 1 => {
                    self.request.attempt = 2;
                    self.request.lost = Some(node);
                }
                Heard::Lost | Heard::NotTaken => {
                    return Err(InferError::lost(node, is_idempotent));
                }
                Heard::GivenUp => return Err(given_up(node)),
            }
            avoided = Some(session);
        }
    }

    /// Sends it to whichever node takes it.
    async fn start(&self, avoided: Option<&Arc<Session>>) -> Result<Streamed, InferError> {
        let pool = self.client.pool();
        let starting = async {
            loop {
                let session = pool.pick(avoided).await;
                let frame = |number| Frame {
                    number,
                    message: Message::ClientInfer(self.request.clone()),
                    tensors: self.tensors.clone(),
                };
                match session.open(frame).await {
                    Ok(streamed) => return Ok(streamed),
                    Err(NotStarted::Lost) => tokio::task::yield_now().await,
                    Err(not_started) => return Err(self.so_far(refused(not_started))),
                }
            }
        };
        let started = timeout_at(self.deadline, starting).await;
        started.unwrap_or_else(|_late| {
            let message = format!("no node could be reached in time: {}", pool.reasons());
            Err(self.so_far(InferError::local(ErrorCode::Unreachable, message)))
        })
    }

    /// Whether a node has done nothing, and another one may do it: one that stops, or that is
    /// behind what this client has seen.
    fn goes_elsewhere(&self, frame: &Frame, session: &Arc<Session>) -> bool {
        is_turned_away(frame, ErrorCode::ShuttingDown)
            || is_turned_away(frame, ErrorCode::Stale)
                && self.client.pool().pick_elsewhere(session).is_some()
    }

    fn opened(
        self,
        frame: Frame,
        streamed: Streamed,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Part, Open), InferError> {
        let node = streamed.session.welcome.node;
        let is_idempotent = self.request.idempotent;
        let part = Part::of(frame, node);
        let part = part.map_err(|error| self.so_far(error.of(is_idempotent)))?;
        if part.first_row != 0 {
            return Err(senseless(node));
        }
        self.client.pool().saw(part.epoch);
        let open = Open {
            next_row: part.rows(),
            client: self.client,
            streamed,
            patience: self.patience,
            is_idempotent,
            _permit: permit,
        };
        Ok((part, open))
    }

    /// A first attempt that was lost may have run.
    fn so_far(&self, error: InferError) -> InferError {
        match self.request.attempt {
            1 => error,
            _ => error.after_silence(),
        }
    }
}

fn senseless(node: NodeId) -> InferError {
    InferError {
        execution: Execution::Unknown,
        node: Some(node),
        ..InferError::local(ErrorCode::Internal, "the node's answer makes no sense")
    }
}

fn given_up(node: NodeId) -> InferError {
    let message = "the node has given the answer up: nothing of it was read for too long";
    InferError {
        execution: Execution::Unknown,
        node: Some(node),
        ..InferError::local(ErrorCode::Cancelled, message)
    }
}

/// What is concluded when the next part does not come.
fn too_late() -> Frame {
    let message = "the budget of a part ran out before it was there";
    Frame {
        number: 0,
        message: Message::Failed {
            failure: Failure::new(ErrorCode::DeadlineExceeded, message),
            execution: Execution::Unknown,
            load: LoadReport::default(),
        },
        tensors: Vec::new(),
    }
}
