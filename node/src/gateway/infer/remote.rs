//! A request on another node: sent there by the router of this one, and served here for the
//! routers of others.

use std::pin::Pin;

use paceline_core::Instant;
use paceline_core::batcher::DropReason;
use paceline_core::router::Report;
use paceline_protocol::frame::{Execution, Frame, LoadReport, Message};
use paceline_protocol::limits::REQUEST_BUDGET_MAX_MS;
use paceline_protocol::{ErrorCode, Failure, NodeId, Tensor};

use super::{Missed, Pinned, Serving, dropped};
use crate::device::{End, Ran, Work};
use crate::dispatch::{Handler, Lost};
use crate::router::Picked;
use crate::transport::Boxed;

/// A request under way to another node.
pub(super) struct There {
    node: NodeId,
    inputs: Vec<Tensor>,
    sent_at: Instant,
    answer: Pin<Box<dyn Future<Output = Result<Frame, Lost>> + Send>>,
}

impl Serving {
    /// Sends a request to a replica on another node.
    pub(super) fn send(
        &self,
        pinned: &Pinned,
        (picked, attempt): (&Picked, u8),
        inputs: Vec<Tensor>,
        deadline: Instant,
    ) -> There {
        let now = self.clock.now();
        let frame = Frame {
            number: 0,
            message: Message::Infer {
                model: pinned.version.model.clone(),
                version: pinned.version.version,
                replica: picked.replica,
                epoch: pinned.epoch,
                budget_us: deadline.nanos_since(now) / 1_000,
                attempt,
            },
            tensors: inputs.clone(),
        };
        let (peers, node) = (self.peers.clone(), picked.node);
        let until = self.clock.deadline(deadline);
        There {
            node,
            inputs,
            sent_at: now,
            answer: Box::pin(async move { peers.ask(node, frame, until).await }),
        }
    }

    /// Waits for the answer; a node that becomes suspect meanwhile is not waited for.
    pub(super) async fn receive(&self, there: There) -> (Result<Ran, Missed>, Option<Report>) {
        let There {
            node,
            inputs,
            sent_at,
            answer,
        } = there;
        let answered = tokio::select! {
            biased;
            answered = answer => answered,
            () = self.suspects.wait_for(node) => Err(Lost::Silent { peer: node }),
        };
        let frame = match answered {
            Ok(frame) => frame,
            Err(lost) => return (Err(missed(node, &lost, inputs)), None),
        };
        let took = self.clock.now().nanos_since(sent_at);
        match frame.message {
            Message::Answer { load, .. } => {
                let report = report(load, took);
                let ran = Ran {
                    outputs: frame.tensors,
                    batch_rows: 0,
                    queue_nanos: took,
                    run_nanos: 0,
                };
                (Ok(ran), Some(report))
            }
            Message::Gone { .. } => {
                let failure = dropped(DropReason::Gone);
                (Err(Missed::Unexecuted(failure, inputs)), None)
            }
            Message::Failed { failure, .. } => (Err(Missed::Ended(failure)), None),
            other => {
                let message = format!("node {node} answered with {other:?}");
                let failure = Failure::new(ErrorCode::Internal, message);
                (Err(Missed::Ended(failure)), None)
            }
        }
    }

    /// Runs what another node's router has sent to a replica of this node.
    async fn run_for_peer(&self, frame: Frame) -> Frame {
        let Message::Infer {
            version,
            replica,
            epoch,
            budget_us,
            ..
        } = frame.message
        else {
            let failure = Failure::new(ErrorCode::Unsupported, "not a request");
            return failed(failure, Execution::NotExecuted, LoadReport::default());
        };
        let gone = || {
            let epoch = self.router.routes().epoch;
            plain(Message::Gone { epoch })
        };
        // A replica is served if and only if it is held here: epochs are never compared.
        let held = self.observed.current();
        let Some(batcher) = held.get(&replica).and_then(|seen| seen.batcher) else {
            return gone();
        };
        let rows = frame.tensors.first().map_or(0, Tensor::rows) as u32;
        let bytes = frame.tensors.iter().map(|t| t.data().len() as u64).sum();
        let budget_us = budget_us.min(REQUEST_BUDGET_MAX_MS * 1_000);
        let deadline = self.clock.now().plus_nanos(budget_us * 1_000);
        let submission = self.device.submit(Work {
            batcher,
            inputs: frame.tensors,
            rows,
            bytes,
            deadline,
        });
        let end = tokio::time::timeout_at(self.clock.deadline(deadline), submission).await;
        let load = self.device.load(batcher);
        let load = LoadReport {
            queued_rows: load.queued_rows,
            row_ns: load.row_nanos,
        };
        match end {
            Ok(End::Ran(ran)) => Frame {
                number: 0,
                message: Message::Answer {
                    version,
                    epoch,
                    load,
                },
                tensors: ran.outputs,
            },
            Ok(End::Dropped(DropReason::Gone, _)) => gone(),
            Ok(End::Dropped(why, _)) => failed(dropped(why), Execution::NotExecuted, load),
            Ok(End::Failed(failure)) => failed(failure, Execution::Executed, load),
            Err(_late) => failed(dropped(DropReason::Expired), Execution::Unknown, load),
        }
    }
}

impl Handler for Serving {
    fn serve(&self, _peer: NodeId, frame: Frame) -> Boxed<'_, Frame> {
        Box::pin(self.run_for_peer(frame))
    }
}

/// What a caller learns of a request that has no answer.
fn missed(node: NodeId, lost: &Lost, inputs: Vec<Tensor>) -> Missed {
    let message = lost.to_string();
    match lost {
        Lost::NotSent { .. } => {
            let failure = Failure::new(ErrorCode::VersionGone, message);
            Missed::Unexecuted(failure, inputs)
        }
        Lost::Full { .. } => Missed::Ended(Failure::new(ErrorCode::Overloaded, message)),
        Lost::Silent { .. } => {
            let failure = Failure::new(ErrorCode::VersionGone, message);
            Missed::Silent(node, failure, inputs)
        }
        Lost::Late { .. } => Missed::Ended(dropped(DropReason::Expired)),
    }
}

/// What an answer says of its replica; the way is what the work does not explain, and so holds
/// the wait at the replica as well.
fn report(load: LoadReport, took_nanos: u64) -> Report {
    Report {
        queued_rows: load.queued_rows,
        row_nanos: load.row_ns,
        round_trip_nanos: took_nanos.saturating_sub(load.row_ns),
    }
}

fn failed(failure: Failure, execution: Execution, load: LoadReport) -> Frame {
    plain(Message::Failed {
        failure,
        execution,
        load,
    })
}

fn plain(message: Message) -> Frame {
    Frame {
        number: 0,
        message,
        tensors: Vec::new(),
    }
}
