//! Inference whose tensors have arrived as tensors, answered whole or in parts: the way of the doors
//! that speak frames.

use paceline_core::Instant;
use paceline_core::failover::Terms;
use paceline_core::router::InSequence;
use paceline_protocol::frame::Execution;
use paceline_protocol::traffic::{Sequence, Unit};
use paceline_protocol::{
    Criticality, Epoch, ErrorCode, Failure, NodeId, TenantId, Tensor, VersionNumber, VersionRef,
};

use super::stream::{Done, Limits, Outlet, Ran, Streamed, Taker, Tally};
use super::{Pinned, Served, Serving, Target, Unanswered, budget_nanos};
use crate::admission::Asker;
use crate::gateway::oip::{ParseOptions, arrange, arrange_outputs};
use crate::telemetry::metrics::{Protocol, Stage, Took};

/// A request by names.
#[derive(Clone, Debug)]
pub struct TensorRequest {
    /// The model.
    pub model: String,
    /// The version, if it must be this one.
    pub version: Option<VersionRef>,
    /// Inputs by name, in any order.
    pub inputs: Vec<(String, Tensor)>,
    /// Outputs that are wanted; all of them if it names none.
    pub outputs: Vec<String>,
    /// What is left of the budget, in microseconds.
    pub budget_us: u64,
    /// Whether it may run twice.
    pub is_idempotent: bool,
    /// Whether the caller has sent it to another node before, and lost that one.
    pub is_second: bool,
    /// That node, if it is known.
    pub lost: Option<NodeId>,
    /// How much it matters.
    pub criticality: Criticality,
    /// Who sends it.
    pub tenant: TenantId,
    /// What it belongs to that shall always get the same version, if it says so.
    pub unit: Option<Unit>,
    /// The sequence that it belongs to, if it does: then it never runs twice.
    pub sequence: Option<Unit>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorAnswer {
    /// The outputs that were wanted, by name.
    pub outputs: Vec<(String, Tensor)>,
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch that the request was pinned at.
    pub epoch: Epoch,
    /// For how many seconds the node had been without contact to a quorum when it was pinned, if
    /// it had none.
    pub stale_seconds: Option<u64>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPart {
    /// The request's row that the first of these answers.
    pub first_row: u64,
    /// The outputs that were wanted, by name, of these rows, and what the whole answer says.
    pub answer: TensorAnswer,
}

impl Serving {
    /// Answers a request.
    ///
    /// # Errors
    /// Exactly one [`Unanswered`], by the request's deadline.
    pub async fn infer_tensors(&self, request: TensorRequest) -> Result<TensorAnswer, Unanswered> {
        let arrived = self.clock.now();
        let version = request.version.as_ref().map(ToString::to_string);
        let target = request.target(version.as_deref(), arrived);
        let pinned = self.pin(target).inspect_err(|failure| {
            self.metrics.refused(Protocol::Quic, failure.code);
        })?;
        let metrics = pinned.version.metrics.clone();
        let arm = pinned.arm.clone();
        let answered = self
            .infer_tensors_pinned((arrived, pinned), target, &request)
            .await;
        let nanos = self.clock.now().nanos_since(arrived);
        match &answered {
            Ok((Served { rows, stages }, _)) => {
                let stages = *stages;
                metrics.succeeded(Protocol::Quic, *rows, Took { nanos, stages });
            }
            Err(unanswered) => metrics.failed(Protocol::Quic, unanswered.failure.code, nanos),
        }
        if let Some(arm) = arm {
            let failure = answered.as_ref().err().map(|ended| ended.failure.code);
            failure.map_or_else(|| arm.answered(nanos), |code| arm.failed(code, nanos));
        }
        answered.map(|(_, answer)| answer)
    }

    async fn infer_tensors_pinned(
        &self,
        (arrived, pinned): (Instant, Pinned),
        target: Target<'_>,
        request: &TensorRequest,
    ) -> Result<(Served, TensorAnswer), Unanswered> {
        let version = &pinned.version;
        let options = ParseOptions {
            finite_inputs: version.finite_inputs,
        };
        let wanted = arrange_outputs(&request.outputs, &version.signature)?;
        // Tensors are shared: a copy of the list copies no values.
        let inputs = arrange(request.inputs.clone(), &version.signature, options)?;
        let arranged_at = self.clock.now();
        pinned.spent(Stage::Parse, arranged_at.nanos_since(arrived));
        let deadline = arrived.plus_nanos(budget_nanos(Some(request.budget_us)));
        let asker = request.asker(false);
        let permit = self.admit(arranged_at, deadline, asker)?;
        let rows = inputs.first().map_or(0, Tensor::rows) as u32;
        let terms = request.terms(deadline, rows);
        let (outputs, pinned) = self.execute(pinned, inputs, terms, target).await?;
        let outputs = named(&pinned, &wanted, &outputs).map_err(|failure| Unanswered {
            failure,
            execution: Execution::Executed,
        })?;
        let answer = TensorAnswer {
            outputs,
            version: pinned.version.version,
            epoch: pinned.epoch,
            stale_seconds: pinned.stale_seconds,
        };
        permit.answered(pinned.times.waited_nanos());
        let stages = pinned.times.nanos();
        Ok((Served { rows, stages }, answer))
    }
}

impl Serving {
    /// Answers a request in parts, and says how many rows they answer together. Dropping the future
    /// cancels what has not started.
    ///
    /// # Errors
    /// Exactly one [`Unanswered`]; parts before it may have been taken.
    pub async fn stream_tensors(
        &self,
        request: TensorRequest,
        taker: &mut dyn Taker<TensorPart>,
    ) -> Result<u64, Unanswered> {
        let arrived = self.clock.now();
        let version = request.version.as_ref().map(ToString::to_string);
        let target = request.target(version.as_deref(), arrived);
        let pinned = self.pin(target).inspect_err(|failure| {
            self.metrics.refused(Protocol::Quic, failure.code);
        })?;
        let tally = Tally::begin(self, Protocol::Quic, (&pinned, arrived));
        let ended = self
            .stream_tensors_pinned(pinned, target, (&request, taker))
            .await;
        tally.end(ended.as_ref().map_err(|unanswered| unanswered.failure.code));
        ended.map(|done| done.rows)
    }

    async fn stream_tensors_pinned(
        &self,
        pinned: Pinned,
        target: Target<'_>,
        (request, taker): (&TensorRequest, &mut dyn Taker<TensorPart>),
    ) -> Result<Done, Unanswered> {
        let version = &pinned.version;
        let options = ParseOptions {
            finite_inputs: version.finite_inputs,
        };
        let wanted = arrange_outputs(&request.outputs, &version.signature)?;
        let inputs = arrange(request.inputs.clone(), &version.signature, options)?;
        let arranged_at = self.clock.now();
        pinned.spent(Stage::Parse, arranged_at.nanos_since(target.arrived));
        let limits = Limits::begin(target.arrived, Some(request.budget_us));
        let asker = request.asker(true);
        let _permit = self.admit(arranged_at, limits.first_due, asker)?;
        let write = |ran: Ran<'_>| {
            let Ran {
                pinned,
                first_row,
                outputs,
            } = ran;
            let answer = TensorAnswer {
                outputs: named(pinned, &wanted, &outputs)?,
                version: pinned.version.version,
                epoch: pinned.epoch,
                stale_seconds: pinned.stale_seconds,
            };
            Ok(TensorPart { first_row, answer })
        };
        let rows = inputs.first().map_or(0, Tensor::rows) as u32;
        let streamed = Streamed {
            inputs,
            terms: request.terms(limits.first_due, rows),
            limits,
            target,
        };
        let outlet = Outlet {
            write: &write,
            taker,
        };
        self.execute_in_parts(pinned, streamed, outlet).await
    }
}

impl TensorRequest {
    fn target<'a>(&'a self, version: Option<&'a str>, arrived: Instant) -> Target<'a> {
        Target {
            model: &self.model,
            version,
            unit: self.unit.as_ref().or(self.sequence.as_ref()),
            arrived,
        }
    }

    fn asker(&self, in_parts: bool) -> Asker {
        Asker {
            criticality: self.criticality,
            tenant: self.tenant,
            in_parts,
        }
    }

    fn terms(&self, deadline: Instant, rows: u32) -> Terms {
        Terms {
            deadline,
            is_idempotent: self.is_idempotent && self.sequence.is_none(),
            is_second: self.is_second,
            lost: self.lost,
            criticality: self.criticality,
            tenant: self.tenant,
            sequence: self.sequence.as_ref().map(|name| InSequence {
                sequence: Sequence::named(name),
                rows,
            }),
        }
    }
}

/// The outputs that are wanted, by their places in the signature, with their names.
fn named(
    pinned: &Pinned,
    wanted: &[usize],
    outputs: &[Tensor],
) -> Result<Vec<(String, Tensor)>, Failure> {
    let names = &pinned.version.signature.outputs;
    let named = wanted.iter().map(|place| {
        let (spec, tensor) = (names.get(*place)?, outputs.get(*place)?);
        Some((spec.name.clone(), tensor.clone()))
    });
    named.collect::<Option<Vec<_>>>().ok_or_else(|| {
        let message = "the engine's outputs are not those of the signature";
        Failure::new(ErrorCode::EngineFailed, message)
    })
}
