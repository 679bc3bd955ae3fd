//! A request on its way, from its first attempt to its one end.

use std::sync::Arc;

use paceline_protocol::frame::{ClientInfer, Execution, Frame, Message};
use paceline_protocol::limits::REROUTES_MAX;
use paceline_protocol::{ErrorCode, NodeId, Tensor};
use tokio::time::Instant;

use super::answer::Answer;
use super::error::InferError;
use super::pool::Pool;
use super::session::{Attempt, NotStarted, Outcome, Session};

/// A request that is complete, and when it must have ended.
pub(super) struct Sending<'a> {
    pub(super) pool: &'a Pool,
    pub(super) request: ClientInfer,
    pub(super) tensors: Vec<Tensor>,
    pub(super) deadline: Instant,
}

impl Sending<'_> {
    /// One attempt; and, if its node falls silent or is lost, one more at another node, once.
    /// A node that stops and refuses it does not count.
    pub(super) async fn run(&self, was_sent: &mut bool) -> Result<Answer, InferError> {
        let mut moves = Moves::default();
        let mut first = self.start_anywhere(None, was_sent).await?;
        let session = loop {
            let session = first.session.clone();
            tokio::select! {
                biased;
                outcome = first.end() => match outcome {
                    outcome if moves.allows(&outcome, false) => {
                        first = self.start_anywhere(Some(&session), was_sent).await?;
                    }
                    Outcome::Told(frame) if is_turned_away(&frame, ErrorCode::Stale) => {
                        return self.elsewhere(frame, &session).await;
                    }
                    Outcome::Told(frame) => return self.told(frame, &session, 1),
                    Outcome::Lost | Outcome::NotTaken if !self.request.idempotent => {
                        return Err(InferError::lost(session.welcome.node, false));
                    }
                    Outcome::Lost | Outcome::NotTaken => return self.second(&session).await,
                },
                () = session.suspected(), if self.request.idempotent => break session,
            }
        };
        // The first may still be answered: a silent node need not be a dead one.
        let mut second = std::pin::pin!(self.second(&session));
        let refused = tokio::select! {
            biased;
            outcome = first.end() => match outcome {
                // That the first one did nothing says nothing of the second.
                Outcome::Told(frame) if has_not_run(&frame) => return second.await,
                Outcome::Told(frame) => {
                    let told = self.told(frame, &session, 1);
                    return told.map_err(InferError::after_silence);
                }
                Outcome::Lost | Outcome::NotTaken => return second.await,
            },
            answer = &mut second => match answer {
                Err(error) if error.is_retryable => error,
                ended => return ended,
            },
        };
        match first.end().await {
            Outcome::Told(frame) if has_not_run(&frame) => Err(refused),
            Outcome::Told(frame) => {
                let told = self.told(frame, &session, 1);
                told.map_err(InferError::after_silence)
            }
            Outcome::Lost | Outcome::NotTaken => Err(refused),
        }
    }

    /// The first attempt, at whichever node takes it. Nothing has been sent where it fails.
    async fn start_anywhere(
        &self,
        avoided: Option<&Arc<Session>>,
        was_sent: &mut bool,
    ) -> Result<Attempt, InferError> {
        loop {
            let session = self.pool.pick(avoided).await;
            match self.start(&session, (1, None)) {
                Ok(attempt) => {
                    *was_sent = true;
                    return Ok(attempt);
                }
                Err(NotStarted::Lost) => tokio::task::yield_now().await,
                Err(not_started) => return Err(refused(not_started)),
            }
        }
    }

    /// A node that is alone and behind what this client has seen did nothing, and says so: that
    /// is no answer to the request but to where it was sent. Another node is asked, if there is
    /// one; its word stands.
    async fn elsewhere(&self, frame: Frame, stale: &Arc<Session>) -> Result<Answer, InferError> {
        let session = self.pool.pick_elsewhere(stale);
        let started = session.and_then(|session| self.start(&session, (1, None)).ok());
        let Some(mut attempt) = started else {
            return self.told(frame, stale, 1);
        };
        let session = attempt.session.clone();
        match attempt.end().await {
            Outcome::Told(frame) => self.told(frame, &session, 1),
            Outcome::Lost | Outcome::NotTaken => {
                let is_idempotent = self.request.idempotent;
                Err(InferError::lost(session.welcome.node, is_idempotent))
            }
        }
    }

    /// Another attempt at another node, which is told that it is one: it runs it once at most.
    async fn second(&self, avoided: &Arc<Session>) -> Result<Answer, InferError> {
        let mut moves = Moves::default();
        loop {
            let session = self.pool.pick(Some(avoided)).await;
            let lost = Some(avoided.welcome.node);
            let mut attempt = match self.start(&session, (2, lost)) {
                Ok(attempt) => attempt,
                Err(NotStarted::Lost) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(not_started) => return Err(refused(not_started).after_silence()),
            };
            match attempt.end().await {
                outcome if moves.allows(&outcome, true) => {}
                Outcome::Told(frame) => {
                    let told = self.told(frame, &session, 2);
                    return told.map_err(InferError::after_silence);
                }
                Outcome::Lost | Outcome::NotTaken => {
                    return Err(InferError::lost(session.welcome.node, true));
                }
            }
        }
    }

    fn start(
        &self,
        session: &Arc<Session>,
        (attempt, lost): (u8, Option<NodeId>),
    ) -> Result<Attempt, NotStarted> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        session.start(|number| Frame {
            number,
            message: Message::ClientInfer(ClientInfer {
                budget_us: u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1),
                attempt,
                lost,
                ..self.request.clone()
            }),
            tensors: self.tensors.clone(),
        })
    }

    fn told(&self, frame: Frame, by: &Session, attempt: u8) -> Result<Answer, InferError> {
        let answer = Answer::of(frame, by.welcome.node, attempt);
        let answer = answer.map_err(|error| error.of(self.request.idempotent))?;
        self.pool.saw(answer.epoch);
        Ok(answer)
    }
}

/// How often an attempt has gone on to another node because the one before has stopped.
#[derive(Default)]
struct Moves(u8);

impl Moves {
    /// Whether an attempt that has ended so may go on as if it had not been made. That a node has
    /// closed in order says so only as surely as its last packets have arrived: enough for a
    /// second attempt, which runs once at most wherever it goes; a first one has become one.
    fn allows(&mut self, outcome: &Outcome, is_second: bool) -> bool {
        let is_open = match outcome {
            Outcome::Told(frame) => is_turned_away(frame, ErrorCode::ShuttingDown),
            Outcome::NotTaken => is_second,
            Outcome::Lost => false,
        };
        let allows = is_open && self.0 < REROUTES_MAX;
        self.0 += u8::from(allows);
        allows
    }
}

/// Whether a node says that it did nothing about a request.
fn has_not_run(frame: &Frame) -> bool {
    matches!(
        &frame.message,
        Message::Failed {
            execution: Execution::NotExecuted,
            ..
        }
    )
}

/// Whether a node says that it did nothing about a request, for this reason.
pub(super) fn is_turned_away(frame: &Frame, why: ErrorCode) -> bool {
    let Message::Failed {
        failure, execution, ..
    } = &frame.message
    else {
        return false;
    };
    failure.code == why && *execution == Execution::NotExecuted
}

pub(super) fn refused(not_started: NotStarted) -> InferError {
    match not_started {
        NotStarted::Full => {
            let message = "as many requests are in flight as the node allows on one connection";
            InferError::local(ErrorCode::Overloaded, message)
        }
        NotStarted::TooLarge { bytes, limit } => {
            let message = format!("the tensors have {bytes} bytes; the node takes {limit}");
            InferError::local(ErrorCode::TooLarge, message)
        }
        NotStarted::Malformed(error) => {
            InferError::local(ErrorCode::ParameterInvalid, error.to_string())
        }
        NotStarted::Lost => InferError::local(ErrorCode::Unreachable, "the connection is gone"),
    }
}

pub(super) fn late(pool: &Pool, was_sent: bool) -> InferError {
    if was_sent {
        let message = "the request's budget ran out before its answer was there";
        return InferError {
            execution: Execution::Unknown,
            ..InferError::local(ErrorCode::DeadlineExceeded, message)
        };
    }
    let message = format!("no node could be reached in time: {}", pool.reasons());
    InferError::local(ErrorCode::Unreachable, message)
}
