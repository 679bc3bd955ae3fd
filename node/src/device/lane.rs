//! A lane: parked until it is woken, then it runs batches until none waits. In production it is
//! a thread; on shared threads it is a task, in which an engine's told time passes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{MutexGuard, PoisonError, Weak, mpsc as thread};
use std::time::Duration;

use paceline_core::Instant;
use paceline_core::batcher::DropReason;
use paceline_core::device::{Input, LaneId, Spare};
use paceline_models::{Batch as EngineBatch, RunError};
use paceline_protocol::{ErrorCode, Failure, Tensor};
use tokio::sync::mpsc as task;

use super::{Batch, End, Loaded, Ran, Reply, Shared, Ticket};
use crate::threads::{Threads, give_way};

pub(super) enum Signal {
    Begin,
    Stop,
}

/// The way to a lane.
pub(super) enum Door {
    Thread(thread::SyncSender<Signal>),
    Task(task::Sender<Signal>),
}

/// What a lane waits at.
pub(super) enum Inbox {
    Thread(thread::Receiver<Signal>),
    Task(task::Receiver<Signal>),
}

pub(super) fn open(threads: Threads) -> (Door, Inbox) {
    match threads {
        Threads::Own => {
            let (door, inbox) = thread::sync_channel(SIGNALS_MAX);
            (Door::Thread(door), Inbox::Thread(inbox))
        }
        Threads::Shared => {
            let (door, inbox) = task::channel(SIGNALS_MAX);
            (Door::Task(door), Inbox::Task(inbox))
        }
    }
}

pub(super) fn spawn(lane: LaneId, inbox: Inbox, shared: Weak<Shared>) -> std::io::Result<()> {
    match inbox {
        Inbox::Thread(inbox) => {
            let name = format!("lane-{}", lane.0);
            std::thread::Builder::new().name(name).spawn(move || {
                give_way();
                while let Ok(Signal::Begin) = inbox.recv() {
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    shared.serve(lane);
                }
            })?;
        }
        Inbox::Task(mut inbox) => drop(tokio::spawn(async move {
            while let Some(Signal::Begin) = inbox.recv().await {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                shared.serve_here(lane).await;
            }
        })),
    }
    Ok(())
}

impl Door {
    /// One wake-up is under way at most, since the machine wakes a lane once until it begins,
    /// and one stop: there is room, unless the lane has ended.
    pub(super) fn tell(&self, signal: Signal) {
        match self {
            Self::Thread(door) => drop(door.try_send(signal)),
            Self::Task(door) => drop(door.try_send(signal)),
        }
    }
}

impl Shared {
    /// The lanes' threads, for batches that can be divided.
    pub(super) fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, lane: LaneId) {
        let mut next = self.launch(lane);
        while let Some(batch) = next {
            next = self.run(batch, false);
        }
    }

    async fn serve_here(&self, lane: LaneId) {
        let mut next = self.launch(lane);
        while let Some(batch) = next {
            tokio::time::sleep(batch.told_cost().unwrap_or_default()).await;
            next = self.run(batch, false);
        }
    }

    fn launch(&self, lane: LaneId) -> Option<Batch> {
        let begun = self.step(self.lock(), Input::Begin { lane });
        debug_assert!(begun.is_none(), "a batch is launched after it is staged");
        self.step(self.lock(), Input::Launch { lane })
    }
}

impl Batch {
    /// What it takes, if its engine says so.
    fn told_cost(&self) -> Option<Duration> {
        self.replica.model.told_cost(u64::from(self.rows))
    }

    /// Runs the engine, which may divide the batch among `threads`, and answers every request; returns
    /// the time that it took from lanes, if it did not fail. Requests share one span and one measurement.
    pub(super) fn run(self, shared: &Shared, threads: u16) -> Option<u64> {
        let Shared { clock, metrics, .. } = shared;
        let span = tracing::debug_span!(
            "batch",
            replica = self.replica.replica.0,
            rows = self.rows,
            requests = self.tickets.len(),
        );
        let _entered = span.enter();
        let inputs: Vec<&[Tensor]> = self.tickets.iter().map(Ticket::computed).collect();
        let started = clock.now();
        let batch = EngineBatch::new(&inputs).among(threads.into());
        let model = &self.replica.model;
        let is_suspect = self.tickets.iter().any(|it| it.is_second || it.is_suspect);
        let result = catch_unwind(AssertUnwindSafe(|| match is_suspect {
            true => model.run_suspect(&batch),
            false => model.run(&batch),
        }));
        let run_nanos = match self.told_cost() {
            Some(told) => told.as_nanos() as u64,
            None => clock.now().nanos_since(started),
        };
        let cost_nanos = run_nanos.saturating_mul(batch.threads().into());
        drop(inputs);
        metrics.ran(self.rows, cost_nanos);
        // Nobody waits any more if the node has left meanwhile.
        let replies = std::mem::take(&mut *shared.waiting(self.lane));
        match result {
            Ok(Ok(outputs)) if outputs.len() == self.tickets.len() => {
                self.answer(replies, outputs, (started, run_nanos));
                return Some(cost_nanos);
            }
            Ok(Ok(outputs)) => {
                let (got, wanted) = (outputs.len(), self.tickets.len());
                tracing::error!(
                    got,
                    wanted,
                    "the engine answered another number of requests"
                );
                let message = "the engine answered too few requests";
                let failure = Failure::new(ErrorCode::EngineFailed, message);
                self.end(replies, |inputs| End::Failed(failure.clone(), inputs));
            }
            Ok(Err(RunError::Gone)) => {
                self.end(replies, |inputs| End::Dropped(DropReason::Gone, inputs));
            }
            Ok(Err(RunError::Died { message })) => self.died(shared, replies, message),
            Ok(Err(error)) => {
                let replica = self.replica.replica.0;
                tracing::warn!(replica, %error, "the engine refused a batch");
                let failure = Failure::new(ErrorCode::EngineFailed, error.to_string());
                self.end(replies, |inputs| End::Failed(failure.clone(), inputs));
            }
            Err(panic) => self.died(shared, replies, panic_text(&*panic)),
        }
        None
    }

    fn answer(
        self,
        replies: Vec<Reply>,
        outputs: Vec<Vec<Tensor>>,
        (started, run_nanos): (Instant, u64),
    ) {
        let Loaded {
            statistics,
            suspects,
            ..
        } = &*self.replica;
        statistics.ran(self.rows, run_nanos, started);
        suspects.ran(self.inputs());
        let batch_rows = self.rows;
        for ((ticket, outputs), reply) in self.tickets.into_iter().zip(outputs).zip(replies) {
            let ran = Ran {
                outputs,
                batch_rows,
                queue_nanos: started.nanos_since(ticket.arrived),
                run_nanos,
            };
            // A caller that has gone needs no answer.
            let _ = reply.send(End::Ran(ran));
        }
    }

    /// Each of the requests may be what killed the engine; who ran alone for that reason was.
    fn died(self, shared: &Shared, replies: Vec<Reply>, reason: String) {
        let is_second = matches!(&self.tickets[..], [ticket] if ticket.is_second);
        let suspects = &self.replica.suspects;
        suspects.died(shared.clock.now(), self.inputs(), is_second);
        (self.replica.on_death)(reason);
        let message = "the engine died; it is started again";
        let failure = Failure::new(ErrorCode::EngineFailed, message);
        self.end(replies, |inputs| End::Died(failure.clone(), inputs));
    }

    fn end(self, replies: Vec<Reply>, end: impl Fn(Vec<Tensor>) -> End) {
        for (reply, ticket) in replies.into_iter().zip(self.tickets) {
            // A caller that has gone needs no answer.
            let _ = reply.send(end(ticket.inputs));
        }
    }

    fn inputs(&self) -> impl Iterator<Item = &[Tensor]> {
        self.tickets.iter().map(|ticket| ticket.inputs.as_slice())
    }
}

/// A wake-up and a stop.
const SIGNALS_MAX: usize = 2;

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}
