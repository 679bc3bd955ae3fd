//! The life of one inference request on this node, from its body to its answer.
//!
//! Hot path: everything here runs in the request's own task; admission, router and device are
//! stepped through their handles. Every way out is one typed status.

mod tensors;

use std::sync::Arc;

use bytes::Bytes;
use paceline_core::Instant;
use paceline_core::admission::Refusal;
use paceline_core::batcher::DropReason;
use paceline_core::router::Report;
use paceline_protocol::limits::{REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS};
use paceline_protocol::{Epoch, ErrorCode, Failure, Tensor, VersionNumber};

pub use self::tensors::{TensorAnswer, TensorRequest, execution_of};
use super::oip::{self, AnswerView, ParseOptions, ParsedRequest, Rendered};
use crate::clock::Clock;
use crate::device::{End, Ran, Submission, Work};
use crate::router::{Picked, VersionRoute};
use crate::telemetry::metrics::{Metrics, Protocol, Stage};
use crate::{admission, device, router};

/// The request path of a node. Cheap to clone.
#[derive(Clone)]
pub struct Serving {
    /// The node's clock.
    pub clock: Clock,
    /// Lets requests in.
    pub admission: admission::Handle,
    /// Picks replicas.
    pub router: router::Handle,
    /// Runs them.
    pub device: device::Handle,
    /// Where requests are counted.
    pub metrics: Metrics,
}

/// What a request is addressed to.
#[derive(Clone, Copy)]
struct Target<'a> {
    model: &'a str,
    version: Option<&'a str>,
}

/// An inference request as the door has read it.
pub struct InferBody<'a> {
    /// The model in the path.
    pub model: &'a str,
    /// The version in the path.
    pub version: Option<&'a str>,
    /// Length of the JSON in front of binary tensors, if the header says one.
    pub json_bytes: Option<usize>,
    /// The body.
    pub body: Bytes,
}

/// An answer, ready to be sent.
pub struct Answered {
    /// The body.
    pub rendered: Rendered,
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch that the request was pinned at.
    pub epoch: Epoch,
}

/// The version that a request is pinned to.
struct Pinned {
    version: Arc<VersionRoute>,
    epoch: Epoch,
}

/// Rows on their way to one replica.
struct Shard {
    picked: Picked,
    submission: Submission,
}

impl Serving {
    /// Answers a request.
    ///
    /// # Errors
    /// Exactly one [`Failure`], by the request's deadline.
    pub async fn infer(&self, request: InferBody<'_>) -> Result<Answered, Failure> {
        let arrived = self.clock.now();
        let pinned = self.pin(request.target()).inspect_err(|failure| {
            self.metrics.refused(Protocol::Http, failure.code);
        })?;
        let metrics = pinned.version.metrics.clone();
        let answered = self.infer_pinned(arrived, pinned, request).await;
        match &answered {
            Ok((rows, _)) => {
                let nanos = self.clock.now().nanos_since(arrived);
                metrics.succeeded(Protocol::Http, *rows, nanos);
            }
            Err(failure) => metrics.failed(Protocol::Http, failure.code),
        }
        answered.map(|(_, answered)| answered)
    }

    async fn infer_pinned(
        &self,
        arrived: Instant,
        pinned: Pinned,
        request: InferBody<'_>,
    ) -> Result<(u32, Answered), Failure> {
        let version = &pinned.version;
        let options = ParseOptions {
            finite_inputs: version.finite_inputs,
        };
        let InferBody {
            body, json_bytes, ..
        } = &request;
        let mut parsed = oip::parse(body, *json_bytes, &version.signature, options)?;
        let parsed_at = self.clock.now();
        version
            .metrics
            .stage(Stage::Parse, parsed_at.nanos_since(arrived));
        let deadline = arrived.plus_nanos(budget_nanos(parsed.parameters.timeout_us));
        let _permit = self.admission.admit(parsed_at, deadline).map_err(refused)?;
        let rows = parsed.rows() as u32;
        let inputs = std::mem::take(&mut parsed.inputs);
        let (outputs, pinned) = self
            .execute(pinned, inputs, deadline, request.target())
            .await?;
        let ran_at = self.clock.now();
        let rendered = render(&request, &pinned, &parsed, &outputs)?;
        let metrics = &pinned.version.metrics;
        metrics.stage(Stage::Render, self.clock.now().nanos_since(ran_at));
        let (version, epoch) = (pinned.version.version, pinned.epoch);
        Ok((
            rows,
            Answered {
                rendered,
                version,
                epoch,
            },
        ))
    }

    /// Runs the request, and once more elsewhere while its replica is gone unexecuted. A
    /// request keeps its version and epoch; if the version has lost its last replica, it is
    /// pinned anew, provided that the newer version takes the same inputs.
    async fn execute(
        &self,
        mut pinned: Pinned,
        mut inputs: Vec<Tensor>,
        deadline: Instant,
        target: Target<'_>,
    ) -> Result<(Vec<Tensor>, Pinned), Failure> {
        for _ in 0..ROUTES_MAX {
            let rows = inputs.first().map_or(0, Tensor::rows);
            let ran = if rows <= u64::from(pinned.version.rows_max) {
                self.run(&pinned, inputs, deadline).await
            } else {
                self.run_sharded(&pinned, &inputs, deadline)
                    .await
                    .map_err(|end| (end, inputs))
            };
            let (failure, unexecuted) = match ran {
                Ok(outputs) => return Ok((outputs, pinned)),
                Err(missed) => missed,
            };
            if failure.code != ErrorCode::VersionGone {
                return Err(failure);
            }
            inputs = unexecuted;
            let again = self.pin(target)?;
            if again.version.signature != pinned.version.signature {
                return Err(failure);
            }
            pinned = again;
        }
        Err(Failure::new(
            ErrorCode::VersionGone,
            "the model's replicas are changing; try again",
        ))
    }

    /// One replica takes the request whole.
    async fn run(
        &self,
        pinned: &Pinned,
        inputs: Vec<Tensor>,
        deadline: Instant,
    ) -> Result<Vec<Tensor>, (Failure, Vec<Tensor>)> {
        let mut shard = match self.submit(pinned, inputs, deadline) {
            Ok(shard) => shard,
            Err(failed) => return Err(failed),
        };
        self.end(pinned, &mut shard, deadline)
            .await
            .map(|ran| ran.outputs)
    }

    /// Several replicas, or several batches of one, take rows of the request; the answers are
    /// put together in order. A shard that is not executed fails the request as a whole.
    async fn run_sharded(
        &self,
        pinned: &Pinned,
        inputs: &[Tensor],
        deadline: Instant,
    ) -> Result<Vec<Tensor>, Failure> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        let step = u64::from(pinned.version.rows_max);
        let mut shards = Vec::new();
        for start in (0..rows).step_by(step as usize) {
            let range = start..(start + step).min(rows);
            let part = inputs
                .iter()
                .map(|tensor| tensor.slice_rows(range.clone()))
                .collect();
            shards.push(
                self.submit(pinned, part, deadline)
                    .map_err(|(failure, _)| failure)?,
            );
        }
        let mut parts = Vec::with_capacity(shards.len());
        for shard in &mut shards {
            let ran = self
                .end(pinned, shard, deadline)
                .await
                .map_err(|(failure, _)| failure)?;
            parts.push(ran.outputs);
        }
        let outputs = 0..pinned.version.signature.outputs.len();
        let gathered = outputs.map(|output| {
            let parts: Option<Vec<&Tensor>> = parts.iter().map(|part| part.get(output)).collect();
            parts
                .and_then(|parts| Tensor::concat_rows(&parts))
                .ok_or_else(|| {
                    Failure::new(
                        ErrorCode::EngineFailed,
                        "shards of the answer do not fit together",
                    )
                })
        });
        gathered.collect()
    }

    fn submit(
        &self,
        pinned: &Pinned,
        inputs: Vec<Tensor>,
        deadline: Instant,
    ) -> Result<Shard, (Failure, Vec<Tensor>)> {
        let rows = inputs.first().map_or(0, Tensor::rows) as u32;
        let bytes = inputs.iter().map(|tensor| tensor.data().len() as u64).sum();
        match self.router.pick(&pinned.version, rows, bytes) {
            Ok(picked) => {
                let batcher = picked.batcher;
                let work = Work {
                    batcher,
                    inputs,
                    rows,
                    bytes,
                    deadline,
                };
                Ok(Shard {
                    picked,
                    submission: self.device.submit(work),
                })
            }
            Err(failure) => Err((failure, inputs)),
        }
    }

    /// Waits for a shard's end, at most until the deadline, and tells the router.
    async fn end(
        &self,
        pinned: &Pinned,
        shard: &mut Shard,
        deadline: Instant,
    ) -> Result<Ran, (Failure, Vec<Tensor>)> {
        let end = match shard.submission.try_end() {
            Some(end) => Some(end),
            None => {
                let until = self.clock.deadline(deadline);
                tokio::time::timeout_at(until, &mut shard.submission)
                    .await
                    .ok()
            }
        };
        let load = self.device.load(shard.picked.batcher);
        let report = matches!(end, Some(End::Ran(_))).then_some(Report {
            queued_rows: load.queued_rows,
            row_nanos: load.row_nanos,
            round_trip_nanos: 0,
        });
        self.router.done(shard.picked, report);
        match end {
            Some(End::Ran(ran)) => {
                pinned.version.metrics.stage(Stage::Queue, ran.queue_nanos);
                pinned.version.metrics.stage(Stage::Run, ran.run_nanos);
                Ok(ran)
            }
            Some(End::Dropped(why, inputs)) => Err((dropped(why), inputs)),
            Some(End::Failed(failure)) => Err((failure, Vec::new())),
            None => Err((dropped(DropReason::Expired), Vec::new())),
        }
    }

    fn pin(&self, target: Target<'_>) -> Result<Pinned, Failure> {
        let routes = self.router.routes();
        let version = routes.resolve(target.model, target.version)?.clone();
        Ok(Pinned {
            version,
            epoch: routes.epoch,
        })
    }
}

impl<'a> InferBody<'a> {
    fn target(&self) -> Target<'a> {
        Target {
            model: self.model,
            version: self.version,
        }
    }
}

fn render(
    request: &InferBody<'_>,
    pinned: &Pinned,
    parsed: &ParsedRequest,
    outputs: &[Tensor],
) -> Result<Rendered, Failure> {
    oip::render(&AnswerView {
        model_name: request.model,
        version: pinned.version.version,
        id: parsed.id.as_deref(),
        parameters: &[],
        signature: &pinned.version.signature,
        outputs,
        wanted: &parsed.outputs,
    })
}

/// What the client allows, within what is allowed to it.
fn budget_nanos(timeout_us: Option<u64>) -> u64 {
    let longest = REQUEST_BUDGET_MAX_MS * 1_000_000;
    match timeout_us {
        None | Some(0) => REQUEST_BUDGET_DEFAULT_MS * 1_000_000,
        Some(micros) => micros.saturating_mul(1_000).min(longest),
    }
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Expired => dropped(DropReason::Expired),
        Refusal::Overloaded { retry_after } => {
            let message = "the node works on as many requests as it admits";
            Failure::new(ErrorCode::Overloaded, message)
                .retry_after_ms(retry_after.as_millis() as u32)
        }
    }
}

/// The one translation from how a request left its queue to what its caller is told.
fn dropped(why: DropReason) -> Failure {
    match why {
        DropReason::Expired => Failure::new(
            ErrorCode::DeadlineExceeded,
            "the request's budget ran out before its answer was there",
        ),
        DropReason::Late => Failure::new(
            ErrorCode::DeadlineExceeded,
            "the request could not be answered within its budget behind what was waiting",
        ),
        DropReason::Cancelled => Failure::new(ErrorCode::Cancelled, "the request was cancelled"),
        DropReason::QueueFull { retry_after } => {
            let wait_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            Failure::new(
                ErrorCode::QueueFull,
                "the queue holds all that can be finished in time",
            )
            .retry_after_ms(wait_ms)
        }
        DropReason::Gone => Failure::new(
            ErrorCode::VersionGone,
            "the version was taken away while the request waited; nothing was executed",
        ),
    }
}

/// How often a request that was not executed is sent elsewhere.
const ROUTES_MAX: usize = 3;
