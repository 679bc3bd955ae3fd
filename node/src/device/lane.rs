//! A lane's thread: parked until it is woken, then it runs batches until none waits.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use paceline_core::device::{Input, LaneId};
use paceline_models::Batch as EngineBatch;
use paceline_protocol::{ErrorCode, Failure, Tensor};

use super::{Batch, End, Ran, Shared};

pub(super) enum Signal {
    Begin,
    Stop,
}

/// One wake-up is under way at most, and one stop.
pub(super) fn channel() -> (SyncSender<Signal>, Receiver<Signal>) {
    sync_channel(2)
}

pub(super) fn spawn(
    lane: LaneId,
    inbox: Receiver<Signal>,
    shared: Weak<Shared>,
) -> std::io::Result<()> {
    let name = format!("lane-{}", lane.0);
    std::thread::Builder::new().name(name).spawn(move || {
        while let Ok(Signal::Begin) = inbox.recv() {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            shared.serve(lane);
        }
    })?;
    Ok(())
}

impl Shared {
    fn serve(&self, lane: LaneId) {
        let begun = self.step(self.lock(), Input::Begin { lane });
        debug_assert!(begun.is_none(), "a batch is launched after it is staged");
        let mut next = self.step(self.lock(), Input::Launch { lane });
        while let Some(batch) = next {
            next = self.run(batch, false);
        }
    }
}

impl Batch {
    /// Runs the engine and answers every request; returns the engine's time, if it did not
    /// fail. Requests share one span and one measurement.
    pub(super) fn run(self, shared: &Shared) -> Option<u64> {
        let Shared { clock, metrics, .. } = shared;
        let span = tracing::debug_span!(
            "batch",
            replica = self.replica.replica.0,
            rows = self.rows,
            requests = self.tickets.len(),
        );
        let _entered = span.enter();
        let inputs: Vec<&[Tensor]> = self.tickets.iter().map(|t| t.inputs.as_slice()).collect();
        let started = clock.now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.replica.model.run(&EngineBatch::new(&inputs))
        }));
        let run_nanos = clock.now().nanos_since(started);
        drop(inputs);
        metrics.ran(self.rows, run_nanos);
        // Nobody waits any more if the node has left meanwhile.
        let replies = std::mem::take(&mut *shared.waiting(self.lane));
        let failure = match result {
            Ok(Ok(outputs)) if outputs.len() == self.tickets.len() => {
                let answered = self.tickets.into_iter().zip(outputs).zip(replies);
                for ((ticket, outputs), reply) in answered {
                    let queue_nanos = started.nanos_since(ticket.arrived);
                    let batch_rows = self.rows;
                    let ran = Ran {
                        outputs,
                        batch_rows,
                        queue_nanos,
                        run_nanos,
                    };
                    // A caller that has gone needs no answer.
                    let _ = reply.send(End::Ran(ran));
                }
                return Some(run_nanos);
            }
            Ok(Ok(outputs)) => {
                let (got, wanted) = (outputs.len(), self.tickets.len());
                tracing::error!(
                    got,
                    wanted,
                    "the engine answered another number of requests"
                );
                Failure::new(
                    ErrorCode::EngineFailed,
                    "the engine answered too few requests",
                )
            }
            Ok(Err(error)) => {
                let replica = self.replica.replica.0;
                tracing::warn!(replica, %error, "the engine refused a batch");
                Failure::new(ErrorCode::EngineFailed, error.to_string())
            }
            Err(panic) => {
                (self.replica.on_panic)(panic_text(&*panic));
                Failure::new(
                    ErrorCode::EngineFailed,
                    "the engine panicked; it is started again",
                )
            }
        };
        for (reply, ticket) in replies.into_iter().zip(self.tickets) {
            let _ = reply.send(End::Failed(failure.clone(), ticket.inputs));
        }
        None
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}
