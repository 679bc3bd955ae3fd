//! A request of another node's router, served by a replica of this node.

use paceline_core::batcher::DropReason;
use paceline_protocol::frame::{Execution, Frame, Infer, LoadReport, Message};
use paceline_protocol::limits::REQUEST_BUDGET_MAX_MS;
use paceline_protocol::{ErrorCode, Failure, NodeId, Reading, Tensor};
use tokio::sync::watch;

use super::Serving;
use super::missed::dropped;
use crate::device::{End, Work};
use crate::dispatch::Handler;
use crate::gateway::Guests;
use crate::planted::Bug;
use crate::transport::Boxed;

impl Serving {
    /// Runs what another node's router has sent to a replica of this node.
    async fn run_for_peer(&self, frame: Frame) -> Frame {
        let Some((infer, reading)) = asked(frame.message) else {
            let failure = Failure::new(ErrorCode::Unsupported, "not a request");
            return failed(failure, Execution::NotExecuted, LoadReport::default());
        };
        let gone = || {
            if Bug::DrainRace.is_planted() {
                let failure = Failure::new(ErrorCode::ShuttingDown, "the replica has left");
                return failed(failure, Execution::Executed, LoadReport::default());
            }
            let epoch = self.router.routes().epoch;
            plain(Message::Gone { epoch })
        };
        // A replica is served if and only if it is held here: epochs are never compared.
        let held = self.observed.current();
        let Some(batcher) = held.get(&infer.replica).and_then(|seen| seen.batcher) else {
            return gone();
        };
        let rows = frame.tensors.first().map_or(0, Tensor::rows) as u32;
        let bytes = frame.tensors.iter().map(|t| t.data().len() as u64).sum();
        let budget_us = infer.budget_us.min(REQUEST_BUDGET_MAX_MS * 1_000);
        let deadline = self.clock.now().plus_nanos(budget_us * 1_000);
        let submission = self.device.submit(Work {
            batcher,
            inputs: frame.tensors,
            rows,
            bytes,
            deadline,
            criticality: infer.criticality,
            tenant: infer.tenant,
            is_second: infer.attempt > 1,
            reading,
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
                    version: infer.version,
                    epoch: infer.epoch,
                    load,
                    waited_us: u32::try_from(ran.queue_nanos / 1_000).unwrap_or(u32::MAX),
                },
                tensors: ran.outputs,
            },
            Ok(End::Dropped(DropReason::Gone, _)) => gone(),
            Ok(End::Dropped(why, _)) => failed(dropped(why), Execution::NotExecuted, load),
            Ok(End::Refused(failure)) => failed(failure, Execution::NotExecuted, load),
            Ok(End::Failed(failure, _)) => failed(failure, Execution::Executed, load),
            Ok(End::Died(failure, _) | End::Left(failure)) => {
                failed(failure, Execution::Unknown, load)
            }
            Err(_late) => failed(dropped(DropReason::Expired), Execution::Unknown, load),
        }
    }
}

/// What peers reach of this node: their requests end before its parts do, and once it stops it
/// takes no more of them.
pub struct PeerDoor {
    /// The request path.
    pub serving: Serving,
    /// Turns true when nothing more is taken.
    pub stopping: watch::Receiver<bool>,
    /// Where requests are counted.
    pub guests: Guests,
}

impl Handler for PeerDoor {
    fn serve(&self, _peer: NodeId, frame: Frame) -> Boxed<'_, Frame> {
        // Nobody waits for a copy, nor does who stops.
        let is_copy = matches!(
            frame.message,
            Message::Infer(Infer { attempt: 0, .. })
                | Message::Read {
                    infer: Infer { attempt: 0, .. },
                    ..
                }
        );
        // Counted first: who stops waits for those that were let in before it said so.
        let inside = (!is_copy).then(|| self.guests.enter());
        Box::pin(async move {
            let _inside = inside;
            if *self.stopping.borrow() {
                let epoch = self.serving.router.routes().epoch;
                return plain(Message::Gone { epoch });
            }
            let Frame {
                number,
                message,
                tensors,
            } = frame;
            match message {
                Message::ClientInfer(head) => self.serving.answer_ahead(head, tensors).await,
                message => {
                    let frame = Frame {
                        number,
                        message,
                        tensors,
                    };
                    self.serving.run_for_peer(frame).await
                }
            }
        })
    }
}

/// What another node's router asks for, and how it is to be read.
fn asked(message: Message) -> Option<(Infer, Reading)> {
    match message {
        Message::Infer(infer) => Some((infer, Reading::default())),
        Message::Read { reading, infer } => Some((infer, reading)),
        _ => None,
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
