//! One attempt of a part of a request, at one replica: on this node or on another one.

use std::pin::Pin;
use std::task::{Context, Poll};

use paceline_core::Instant;
use paceline_core::batcher::DropReason;
use paceline_core::device::BatcherId;
use paceline_core::failover;
use paceline_core::router::Report;
use paceline_protocol::frame::{Execution, Frame, Infer, Message};
use paceline_protocol::{Criticality, Epoch, ErrorCode, Failure, Reading, TenantId, Tensor};

use super::missed::{dropped, gone};
use super::{Pinned, Serving};
use crate::device::{End, Submission, Work};
use crate::dispatch::Lost;
use crate::router::Picked;
use crate::telemetry::metrics::Stage;
use crate::transport::Boxed;

/// An attempt under way. Dropping it cancels it.
pub(super) struct Flight<'a> {
    serving: &'a Serving,
    pinned: &'a Pinned,
    /// There until it has landed.
    picked: Option<Picked<'a>>,
    way: Way<'a>,
}

enum Way<'a> {
    Here(BatcherId, Submission),
    There {
        sent_at: Instant,
        answer: Boxed<'a, Result<Frame, Lost>>,
        /// Resolves when the node is suspect; gone once it has.
        silence: Option<Boxed<'a, ()>>,
    },
}

/// What is sent.
pub(super) struct Cargo<'a> {
    pub(super) inputs: &'a mut Vec<Tensor>,
    pub(super) rows: u32,
    pub(super) bytes: u64,
    pub(super) deadline: Instant,
    pub(super) criticality: Criticality,
    pub(super) tenant: TenantId,
    /// As the wire has it: a second execution shares its batch with nobody, and 0 is a copy.
    pub(super) attempt: u8,
}

/// What is heard of an attempt.
pub(super) enum Landed {
    /// It was answered.
    Ran(Vec<Tensor>),
    /// It ended otherwise, or is likely to.
    Missed(Miss),
}

/// An attempt without an answer.
pub(super) struct Miss {
    pub(super) end: failover::End,
    pub(super) failure: Failure,
    /// Those that a replica of this node was given.
    pub(super) inputs: Vec<Tensor>,
    /// The epoch of the node that says so.
    pub(super) epoch: Option<Epoch>,
}

impl<'a> Flight<'a> {
    /// Sends a part to the replica that was picked for it. A replica on this node takes the
    /// inputs, and gives them back unless it answers.
    pub(super) fn begin(
        serving: &'a Serving,
        pinned: &'a Pinned,
        picked: Picked<'a>,
        cargo: Cargo<'_>,
    ) -> Self {
        let way = match picked.batcher {
            Some(batcher) => {
                let submission = serving.device.submit(Work {
                    batcher,
                    inputs: std::mem::take(cargo.inputs),
                    rows: cargo.rows,
                    bytes: cargo.bytes,
                    deadline: cargo.deadline,
                    criticality: cargo.criticality,
                    tenant: cargo.tenant,
                    is_second: cargo.attempt > 1,
                    reading: pinned.reading,
                });
                Way::Here(batcher, submission)
            }
            None => Way::there(serving, pinned, &picked, &cargo),
        };
        Self {
            serving,
            pinned,
            picked: Some(picked),
            way,
        }
    }

    /// What has been heard already: a request that ran in place never waits.
    pub(super) fn at_once(&mut self) -> Option<Landed> {
        let Way::Here(batcher, submission) = &mut self.way else {
            return None;
        };
        let (batcher, end) = (*batcher, submission.try_end()?);
        let landed = self.landed_here(batcher, end);
        Some(self.noted(landed))
    }

    /// Waits until something is heard of it. After it was suspect it may be polled on, otherwise
    /// it has landed for good.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Landed> {
        match &mut self.way {
            Way::Here(batcher, submission) => {
                let batcher = *batcher;
                let end = Pin::new(submission).poll(context);
                end.map(|end| {
                    let landed = self.landed_here(batcher, end);
                    self.noted(landed)
                })
            }
            Way::There {
                sent_at,
                answer,
                silence,
            } => {
                if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                    let sent_at = *sent_at;
                    let landed = self.landed_there(sent_at, answered);
                    return Poll::Ready(self.noted(landed));
                }
                let Some(silent) = silence else {
                    return Poll::Pending;
                };
                if silent.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                *silence = None;
                let failure = Failure::new(ErrorCode::Unreachable, "its node is silent");
                let miss = Miss::new(failover::End::Suspect, failure);
                Poll::Ready(Landed::Missed(miss))
            }
        }
    }

    fn landed_here(&mut self, batcher: BatcherId, end: End) -> Landed {
        match end {
            End::Ran(ran) => {
                self.pinned.spent(Stage::Queue, ran.queue_nanos);
                self.pinned.spent(Stage::Run, ran.run_nanos);
                let load = self.serving.device.load(batcher);
                self.report(Report {
                    queued_rows: load.queued_rows,
                    row_nanos: load.row_nanos,
                    // Learnt costs are of one thread; a batch may have had several.
                    rest_nanos: (load.one_row_nanos.min(ran.run_nanos))
                        .saturating_sub(load.row_nanos),
                });
                Landed::Ran(ran.outputs)
            }
            End::Dropped(why, inputs) => {
                Landed::told(dropped(why), Execution::NotExecuted).with_inputs(inputs)
            }
            End::Refused(failure) => Landed::told(failure, Execution::NotExecuted),
            End::Failed(failure, inputs) => {
                Landed::told(failure, Execution::Executed).with_inputs(inputs)
            }
            End::Died(failure, inputs) => {
                Landed::told(failure, Execution::Unknown).with_inputs(inputs)
            }
            // Its inputs are with the engine: there is nothing to send elsewhere.
            End::Left(failure) => Landed::Missed(Miss::new(failover::End::Left, failure)),
        }
    }

    fn landed_there(&mut self, sent_at: Instant, answered: Result<Frame, Lost>) -> Landed {
        let frame = match answered {
            Ok(frame) => frame,
            Err(lost) => return Landed::lost(&lost),
        };
        match frame.message {
            Message::Answer {
                load, waited_us, ..
            } => {
                let waited_nanos = u64::from(waited_us) * 1_000;
                let took_nanos = self.serving.clock.now().nanos_since(sent_at);
                // As seen from here, the way there and back is part of the run.
                let rest_nanos = took_nanos.saturating_sub(waited_nanos);
                // Histograms tell it where it was.
                self.pinned.times.note(Stage::Queue, waited_nanos);
                self.pinned.times.note(Stage::Run, rest_nanos);
                self.report(Report {
                    queued_rows: load.queued_rows,
                    row_nanos: load.row_ns,
                    rest_nanos: took_nanos.saturating_sub(load.row_ns),
                });
                Landed::Ran(frame.tensors)
            }
            Message::Gone { epoch } => Landed::Missed(Miss {
                epoch: Some(epoch),
                ..Miss::new(failover::End::Gone, gone())
            }),
            Message::Failed {
                failure, execution, ..
            } => Landed::told(failure, execution),
            other => {
                let message = format!("a node answered with {other:?}");
                let failure = Failure::new(ErrorCode::Internal, message);
                Landed::Missed(Miss::new(failover::End::Failed, failure))
            }
        }
    }

    /// A replica that is to blame is told of.
    fn noted(&mut self, landed: Landed) -> Landed {
        if let Landed::Missed(miss) = &landed
            && miss.end.is_replicas_fault()
            && let Some(picked) = self.picked.take()
        {
            picked.failed();
        }
        landed
    }

    fn report(&mut self, report: Report) {
        if let Some(picked) = self.picked.take() {
            picked.ended(report);
        }
    }
}

impl<'a> Way<'a> {
    fn there(
        serving: &'a Serving,
        pinned: &Pinned,
        picked: &Picked<'_>,
        cargo: &Cargo<'_>,
    ) -> Self {
        let now = serving.clock.now();
        let model = pinned.version.model.clone();
        let (version, epoch) = (pinned.version.version, pinned.epoch);
        let budget_us = cargo.deadline.nanos_since(now) / 1_000;
        let Picked { replica, node, .. } = *picked;
        let Cargo {
            attempt,
            criticality,
            tenant,
            ..
        } = *cargo;
        let infer = Infer {
            model,
            version,
            replica,
            epoch,
            budget_us,
            attempt,
            criticality,
            tenant,
        };
        // Nodes of before readings know plain requests.
        let message = match pinned.reading {
            reading if reading == Reading::default() => Message::Infer(infer),
            reading => Message::Read { reading, infer },
        };
        let frame = Frame {
            number: 0,
            message,
            tensors: cargo.inputs.clone(),
        };
        let until = serving.clock.deadline(cargo.deadline);
        Self::There {
            sent_at: now,
            answer: Box::pin(serving.peers.ask(node, frame, until)),
            silence: Some(Box::pin(serving.suspects.wait_for(node))),
        }
    }
}

impl Landed {
    fn told(failure: Failure, execution: Execution) -> Self {
        let end = failover::End::of(failure.code, execution);
        Self::Missed(Miss::new(end, failure))
    }

    fn lost(lost: &Lost) -> Self {
        let failure = |code| Failure::new(code, lost.to_string());
        let (end, failure) = match lost {
            Lost::NotSent { .. } => (failover::End::Gone, failure(ErrorCode::Unreachable)),
            Lost::Full { .. } => (failover::End::Overloaded, failure(ErrorCode::Overloaded)),
            Lost::Silent { .. } => (failover::End::Lost, failure(ErrorCode::Unreachable)),
            Lost::Late { .. } => (failover::End::Late, dropped(DropReason::Expired)),
        };
        Self::Missed(Miss::new(end, failure))
    }

    fn with_inputs(self, inputs: Vec<Tensor>) -> Self {
        match self {
            Self::Ran(outputs) => Self::Ran(outputs),
            Self::Missed(miss) => Self::Missed(Miss { inputs, ..miss }),
        }
    }
}

impl Miss {
    fn new(end: failover::End, failure: Failure) -> Self {
        Self {
            end,
            failure,
            inputs: Vec::new(),
            epoch: None,
        }
    }
}
