//! A request, from its tensors to its one end.

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::frame::{ClientInfer, Execution, Frame, Message};
use paceline_protocol::limits::{NAME_BYTES_MAX, REQUEST_BUDGET_MAX_MS, REROUTES_MAX, TENSORS_MAX};
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Criticality, ErrorCode, ModelName, NodeId, TenantId, Tensor, VersionRef};
use tokio::time::{Instant, timeout_at};

use super::Client;
use super::answer::Answer;
use super::error::InferError;
use super::parts::Parts;
use super::pool::Pool;
use super::session::{Attempt, NotStarted, Outcome, Session};

/// A request that is being put together; [`send`](Self::send) sends it.
#[must_use = "a request does nothing until it is sent"]
#[derive(Clone)]
pub struct Inference {
    client: Client,
    model: String,
    version: Option<VersionRef>,
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<String>,
    /// The client's own unless given.
    budget: Option<Duration>,
    is_idempotent: bool,
    criticality: Criticality,
    unit: Option<Unit>,
    sequence: Option<Unit>,
}

/// A request that is complete, and when it must have ended.
struct Sending<'a> {
    pool: &'a Pool,
    request: ClientInfer,
    tensors: Vec<Tensor>,
    deadline: Instant,
}

impl Inference {
    pub(super) fn new(client: Client, model: String) -> Self {
        Self {
            client,
            model,
            version: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            budget: None,
            is_idempotent: true,
            criticality: Criticality::default(),
            unit: None,
            sequence: None,
        }
    }

    /// Adds an input. Tensors are shared, not copied.
    pub fn input(mut self, name: impl Into<String>, tensor: Tensor) -> Self {
        self.inputs.push((name.into(), tensor));
        self
    }

    /// Asks for this output, and others so named, only. Without it the answer holds all.
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.outputs.push(name.into());
        self
    }

    /// Asks for a certain version, by its number or by a label. Without it the model's traffic policy
    /// decides.
    pub fn version(mut self, version: impl Into<VersionRef>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// How long the answer may take, from [`send`](Self::send) on, or else each part of a
    /// [`stream`](Self::stream); at most ten minutes. What is left of it travels with the request,
    /// and work whose time is over is not done.
    pub fn deadline(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Whether the request may run twice. It may, unless said otherwise: inference changes
    /// nothing. A request that may not is not tried again when its node is lost.
    pub fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.is_idempotent = is_idempotent;
        self
    }

    /// How much the request matters: [`Criticality::Critical`] unless said otherwise. While a
    /// request of one class waits, none of a lower class is begun, and those are refused first.
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = criticality;
        self
    }

    /// What the request belongs to: a user, a session. While a canary is tried, the same unit gets
    /// the same version on every node. Without it each request is a unit of its own.
    pub fn unit(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }

    /// The sequence that the request belongs to: its requests go to one replica of the version, as
    /// long as that can take them, and none is executed twice, so a request whose node is lost is not
    /// tried again. The sequence is its unit, too, if [`unit`](Self::unit) names none.
    pub fn sequence(mut self, name: Unit) -> Self {
        self.sequence = Some(name);
        self
    }

    /// Sends the request and waits for its end. Dropping the future cancels the request, also at
    /// the node: rows that have not started are not computed.
    ///
    /// # Errors
    /// Exactly one [`InferError`], at the latest at the deadline.
    pub async fn send(self) -> Result<Answer, InferError> {
        let pool = self.client.pool();
        let budget = self.budget.unwrap_or(pool.options.budget);
        let budget = budget.min(Duration::from_millis(REQUEST_BUDGET_MAX_MS));
        let deadline = Instant::now() + budget;
        let _permit = self.client.permit().ok_or_else(|| {
            let message = "as many requests are in flight as the client's options allow";
            InferError::local(ErrorCode::Overloaded, message)
        })?;
        let sending = self.sending(pool, deadline)?;
        let mut was_sent = false;
        let ended = timeout_at(deadline, sending.run(&mut was_sent)).await;
        ended.unwrap_or_else(|_late| Err(late(pool, was_sent)))
    }

    /// Has the answer come in [`Parts`]: ranges of rows, in order, each as soon as it and all before
    /// it are there. A part may take 30 s unless [`deadline`](Self::deadline) says otherwise, and
    /// all of them ten minutes.
    pub fn stream(self) -> Parts {
        Parts::new(self)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The budget that was given.
    pub(super) fn own_budget(&self) -> Option<Duration> {
        self.budget
    }

    fn sending<'a>(&self, pool: &'a Pool, deadline: Instant) -> Result<Sending<'a>, InferError> {
        let (request, tensors) = self.request(pool)?;
        Ok(Sending {
            pool,
            request,
            tensors,
            deadline,
        })
    }

    /// What is asked, without the budget and number of an attempt, and the tensors that go along.
    pub(super) fn request(&self, pool: &Pool) -> Result<(ClientInfer, Vec<Tensor>), InferError> {
        let invalid = |message: String| InferError::local(ErrorCode::ParameterInvalid, message);
        let model = ModelName::new(self.model.as_str());
        let model = model.map_err(|error| invalid(format!("the model's name: {error}")))?;
        let (inputs, tensors): (Vec<String>, Vec<Tensor>) = self.inputs.iter().cloned().unzip();
        for (what, names) in [("inputs", &inputs), ("outputs", &self.outputs)] {
            if names.len() > TENSORS_MAX || names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
                let allowed = format!(
                    "a request names at most {TENSORS_MAX} {what}, each with at most {NAME_BYTES_MAX} bytes"
                );
                return Err(invalid(allowed));
            }
        }
        let request = ClientInfer {
            model,
            version: self.version.clone(),
            budget_us: 0,
            attempt: 0,
            epoch_seen: pool.epoch(),
            idempotent: self.is_idempotent && self.sequence.is_none(),
            criticality: self.criticality,
            tenant: TenantId::DEFAULT,
            inputs,
            outputs: self.outputs.clone(),
            lost: None,
            unit: self.unit.clone(),
            sequence: self.sequence.clone(),
            in_parts: false,
        };
        Ok((request, tensors))
    }
}

impl Sending<'_> {
    /// One attempt; and, if its node falls silent or is lost, one more at another node, once.
    /// A node that stops and refuses it does not count.
    async fn run(&self, was_sent: &mut bool) -> Result<Answer, InferError> {
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

fn late(pool: &Pool, was_sent: bool) -> InferError {
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
