//! Inference whose tensors have arrived as tensors: the way of the doors that speak frames.

use paceline_core::Instant;
use paceline_core::failover::Terms;
use paceline_protocol::frame::Execution;
use paceline_protocol::traffic::{Sequence, Unit};
use paceline_protocol::{
    Criticality, Epoch, ErrorCode, Failure, NodeId, TenantId, Tensor, VersionNumber, VersionRef,
};

use super::{Pinned, Serving, Target, Unanswered, budget_nanos, refused};
use crate::gateway::oip::{ParseOptions, arrange, arrange_outputs};
use crate::telemetry::metrics::{Protocol, Stage};

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

impl Serving {
    /// Answers a request.
    ///
    /// # Errors
    /// Exactly one [`Unanswered`], by the request's deadline.
    pub async fn infer_tensors(&self, request: TensorRequest) -> Result<TensorAnswer, Unanswered> {
        let arrived = self.clock.now();
        let version = request.version.as_ref().map(ToString::to_string);
        let target = Target {
            model: &request.model,
            version: version.as_deref(),
            unit: request.unit.as_ref().or(request.sequence.as_ref()),
            arrived,
        };
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
            Ok((rows, _)) => metrics.succeeded(Protocol::Quic, *rows, nanos),
            Err(unanswered) => metrics.failed(Protocol::Quic, unanswered.failure.code),
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
    ) -> Result<(u32, TensorAnswer), Unanswered> {
        let version = &pinned.version;
        let options = ParseOptions {
            finite_inputs: version.finite_inputs,
        };
        let wanted = arrange_outputs(&request.outputs, &version.signature)?;
        // Tensors are shared: a copy of the list copies no values.
        let inputs = arrange(request.inputs.clone(), &version.signature, options)?;
        let arranged_at = self.clock.now();
        version
            .metrics
            .stage(Stage::Parse, arranged_at.nanos_since(arrived));
        let deadline = arrived.plus_nanos(budget_nanos(Some(request.budget_us)));
        let permit = self
            .admission
            .admit(arranged_at, deadline, (request.criticality, request.tenant))
            .map_err(refused)?;
        let rows = inputs.first().map_or(0, Tensor::rows) as u32;
        let terms = Terms {
            deadline,
            is_idempotent: request.is_idempotent && request.sequence.is_none(),
            is_second: request.is_second,
            lost: request.lost,
            criticality: request.criticality,
            tenant: request.tenant,
            sequence: request.sequence.as_ref().map(Sequence::named),
        };
        let (mut outputs, pinned) = self.execute(pinned, inputs, terms, target).await?;
        let names = &pinned.version.signature.outputs;
        let mut named = Vec::with_capacity(wanted.len());
        for place in wanted {
            let (Some(spec), Some(tensor)) = (names.get(place), outputs.get_mut(place)) else {
                let message = "the engine's outputs are not those of the signature";
                return Err(Unanswered {
                    failure: Failure::new(ErrorCode::EngineFailed, message),
                    execution: Execution::Executed,
                });
            };
            named.push((spec.name.clone(), tensor.clone()));
        }
        let answer = TensorAnswer {
            outputs: named,
            version: pinned.version.version,
            epoch: pinned.epoch,
            stale_seconds: pinned.stale_seconds,
        };
        permit.answered(pinned.waited.nanos());
        Ok((rows, answer))
    }
}
