//! The life of one inference request on this node, from its body to its answer.
//!
//! Hot path: everything here runs in the request's own task; admission, router and device are
//! stepped through their handles. Every way out is one typed status.

mod ahead;
mod missed;
mod remote;
mod tensors;

use std::sync::Arc;

use bytes::Bytes;
use paceline_core::Instant;
use paceline_core::attempt::{self, Attempts, Verdict};
use paceline_core::batcher::DropReason;
use paceline_core::router::Report;
use paceline_protocol::limits::{REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS};
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, Tensor, VersionNumber};

use self::missed::{Missed, dropped, refused};
use self::remote::There;
pub use self::tensors::{TensorAnswer, TensorRequest, execution_of};
use super::oip::{self, AnswerView, ParseOptions, ParsedRequest, Rendered};
use crate::clock::Clock;
use crate::detector::Suspects;
use crate::device::{End, Ran, Submission, Work};
use crate::observed::Observed;
use crate::router::{Picked, VersionRoute};
use crate::telemetry::metrics::{Metrics, Protocol, Stage};
use crate::{admission, contact, device, dispatch, router};

/// The request path of a node. Cheap to clone.
#[derive(Clone)]
pub struct Serving {
    /// The node's clock.
    pub clock: Clock,
    /// Lets requests in.
    pub admission: admission::Handle,
    /// Picks replicas.
    pub router: router::Handle,
    /// Runs them, on this node.
    pub device: device::Handle,
    /// Runs them, on others.
    pub peers: dispatch::Peers,
    /// Nodes whose answers are not waited for.
    pub suspects: Suspects,
    /// Which replicas are here.
    pub observed: Observed,
    /// How old what is known may be.
    pub contact: contact::Handle,
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

/// How an attempt is sent.
#[derive(Clone, Copy)]
struct Sending {
    deadline: Instant,
    number: u8,
    /// A node that fell silent over the attempt before.
    avoid: Option<NodeId>,
}

/// Rows on their way to one replica.
struct Shard {
    picked: Picked,
    way: Way,
}

/// Where a replica is.
enum Way {
    /// On this node.
    Here(Submission),
    /// On another one.
    There(Box<There>),
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

    /// Runs the request, and once more elsewhere as [`Attempts`] allows. A request keeps its
    /// version and epoch; if the version has lost its last replica and nothing was executed, it
    /// is pinned anew, provided that the newer version takes the same inputs.
    async fn execute(
        &self,
        mut pinned: Pinned,
        mut inputs: Vec<Tensor>,
        deadline: Instant,
        target: Target<'_>,
    ) -> Result<(Vec<Tensor>, Pinned), Failure> {
        let mut attempts = Attempts::new(true);
        let mut silent = None;
        loop {
            let how = Sending {
                deadline,
                number: attempts.next_number(),
                avoid: silent,
            };
            let rows = inputs.first().map_or(0, Tensor::rows);
            let ran = if rows <= u64::from(pinned.version.rows_max) {
                self.run(&pinned, inputs, how).await
            } else {
                self.run_sharded(&pinned, inputs, how).await
            };
            let (failure, verdict) = match ran {
                Ok(outputs) => return Ok((outputs, pinned)),
                Err(Missed::Ended(failure)) => return Err(failure),
                Err(Missed::Unexecuted(failure, back)) => {
                    if failure.code != ErrorCode::VersionGone {
                        return Err(failure);
                    }
                    inputs = back;
                    (failure, attempts.ended(attempt::End::NotExecuted))
                }
                Err(Missed::Silent(node, failure, back)) => {
                    inputs = back;
                    silent = Some(node);
                    (failure, attempts.ended(attempt::End::Silent))
                }
            };
            match verdict {
                Verdict::Again => {}
                Verdict::GiveUp => return Err(failure),
                Verdict::Poison => {
                    let message = "two nodes fell silent while they worked on the request";
                    return Err(Failure::new(ErrorCode::Poison, message));
                }
            }
            // The newest routes know best where a replica is now; the version stays.
            let again = self.pin(target)?;
            if again.version.signature != pinned.version.signature {
                return Err(failure);
            }
            pinned = again;
        }
    }

    /// One replica takes the request whole.
    async fn run(
        &self,
        pinned: &Pinned,
        inputs: Vec<Tensor>,
        how: Sending,
    ) -> Result<Vec<Tensor>, Missed> {
        let shard = self.submit(pinned, inputs, how)?;
        let ran = self.end(pinned, shard, how.deadline).await;
        ran.map(|ran| ran.outputs)
    }

    /// Several replicas, or several batches of one, take rows of the request; the answers are
    /// put together in order. A shard without an answer ends the attempt as a whole.
    async fn run_sharded(
        &self,
        pinned: &Pinned,
        inputs: Vec<Tensor>,
        how: Sending,
    ) -> Result<Vec<Tensor>, Missed> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        let step = u64::from(pinned.version.rows_max);
        // What comes back of a shard is a part: the whole is what is sent again.
        let whole = |missed| match missed {
            Missed::Unexecuted(failure, _) => Missed::Unexecuted(failure, inputs.clone()),
            Missed::Silent(node, failure, _) => Missed::Silent(node, failure, inputs.clone()),
            Missed::Ended(failure) => Missed::Ended(failure),
        };
        let mut shards = Vec::new();
        for start in (0..rows).step_by(step as usize) {
            let range = start..(start + step).min(rows);
            let part = inputs
                .iter()
                .map(|tensor| tensor.slice_rows(range.clone()))
                .collect();
            shards.push(self.submit(pinned, part, how).map_err(whole)?);
        }
        let mut parts = Vec::with_capacity(shards.len());
        for shard in shards {
            let ran = self.end(pinned, shard, how.deadline).await;
            parts.push(ran.map_err(whole)?.outputs);
        }
        let outputs = 0..pinned.version.signature.outputs.len();
        let gathered = outputs.map(|output| {
            let parts: Option<Vec<&Tensor>> = parts.iter().map(|part| part.get(output)).collect();
            parts
                .and_then(|parts| Tensor::concat_rows(&parts))
                .ok_or_else(|| {
                    Missed::Ended(Failure::new(
                        ErrorCode::EngineFailed,
                        "shards of the answer do not fit together",
                    ))
                })
        });
        gathered.collect()
    }

    fn submit(&self, pinned: &Pinned, inputs: Vec<Tensor>, how: Sending) -> Result<Shard, Missed> {
        let rows = inputs.first().map_or(0, Tensor::rows) as u32;
        let bytes = inputs.iter().map(|tensor| tensor.data().len() as u64).sum();
        let picked = self
            .router
            .pick_elsewhere(&pinned.version, (rows, bytes), how.avoid);
        let picked = match picked {
            Ok(picked) => picked,
            Err(failure) => return Err(Missed::Unexecuted(failure, inputs)),
        };
        let way = match picked.batcher {
            Some(batcher) => Way::Here(self.device.submit(Work {
                batcher,
                inputs,
                rows,
                bytes,
                deadline: how.deadline,
            })),
            None => {
                let sent = self.send(pinned, (&picked, how.number), inputs, how.deadline);
                Way::There(Box::new(sent))
            }
        };
        Ok(Shard { picked, way })
    }

    /// Waits for a shard's end, at most until the deadline, and tells the router.
    async fn end(&self, pinned: &Pinned, shard: Shard, deadline: Instant) -> Result<Ran, Missed> {
        let Shard { picked, way } = shard;
        let mut submission = match way {
            Way::Here(submission) => submission,
            Way::There(there) => {
                let (ran, report) = self.receive(*there).await;
                self.router.done(picked, report);
                return ran;
            }
        };
        let end = match submission.try_end() {
            Some(end) => Some(end),
            None => {
                let until = self.clock.deadline(deadline);
                tokio::time::timeout_at(until, &mut submission).await.ok()
            }
        };
        let load = picked.batcher.map(|batcher| self.device.load(batcher));
        let load = load.unwrap_or_default();
        let report = matches!(end, Some(End::Ran(_))).then_some(Report {
            queued_rows: load.queued_rows,
            row_nanos: load.row_nanos,
            round_trip_nanos: 0,
        });
        self.router.done(picked, report);
        match end {
            Some(End::Ran(ran)) => {
                pinned.version.metrics.stage(Stage::Queue, ran.queue_nanos);
                pinned.version.metrics.stage(Stage::Run, ran.run_nanos);
                Ok(ran)
            }
            Some(End::Dropped(why, inputs)) => Err(Missed::Unexecuted(dropped(why), inputs)),
            Some(End::Failed(failure)) => Err(Missed::Ended(failure)),
            None => Err(Missed::Ended(dropped(DropReason::Expired))),
        }
    }

    fn pin(&self, target: Target<'_>) -> Result<Pinned, Failure> {
        self.contact.check()?;
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
