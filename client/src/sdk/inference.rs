//! A request as it is put together.

use std::time::Duration;

use paceline_protocol::frame::ClientInfer;
use paceline_protocol::limits::{NAME_BYTES_MAX, REQUEST_BUDGET_MAX_MS, TENSORS_MAX};
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Criticality, ErrorCode, ModelName, TenantId, Tensor, VersionRef};
use tokio::time::{Instant, timeout_at};

use super::Client;
use super::answer::Answer;
use super::error::InferError;
use super::parts::Parts;
use super::pool::Pool;
use super::sending::{Sending, late};

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
