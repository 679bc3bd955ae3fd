//! A request at a device, as its caller holds it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use paceline_core::Slot;
use paceline_core::batcher::DropReason;
use paceline_core::device::BatcherId;
use paceline_protocol::{Failure, Tensor};
use tokio::sync::oneshot;

use super::reading::{Elsewhere, Outcome, Read, is_short};
use super::told::{for_rows, no_tokenizer};
use super::{End, Handle, Ran, Work};

/// Resolves to the request's end. Dropped before that, it cancels the request: rows that have
/// not started are not computed.
pub struct Submission {
    handle: Handle,
    batcher: BatcherId,
    /// Names of classes that are told with its outputs.
    classes: Option<Vec<String>>,
    stage: Stage,
}

enum Stage {
    /// It is read elsewhere; then it waits at the device.
    Reads(Elsewhere),
    /// It waits at the device, or runs.
    Waits(oneshot::Receiver<End>, Slot),
    /// It ended when it was read, and nobody has been told.
    Has(End),
    Ended,
}

impl Submission {
    /// A request that is on its way from now on.
    pub(super) fn of(handle: Handle, work: Work) -> Self {
        let batcher = work.batcher;
        let mut submission = Self {
            handle,
            batcher,
            classes: None,
            stage: Stage::Ended,
        };
        let readers = &submission.handle.shared.readers;
        match readers.of(batcher) {
            None if work.reading.asks.is_computed() => submission.wait(work, Read::default()),
            // Nobody reads here: the replica has gone, or its model reads nothing.
            None => {
                let state = submission.handle.shared.lock();
                let is_here = state.machine.batcher(batcher).is_some();
                drop(state);
                submission.stage = Stage::Has(match is_here {
                    true => End::Refused(no_tokenizer()),
                    false => End::Dropped(DropReason::Gone, work.inputs),
                });
            }
            Some(reader) if is_short(&work.inputs) => {
                let outcome = reader.read(&work.inputs, work.reading);
                submission.read(work, outcome);
            }
            Some(reader) => submission.stage = Stage::Reads(readers.elsewhere(reader, work)),
        }
        submission
    }

    /// The end, if it has come already: a request that ran in place never waits.
    pub fn try_end(&mut self) -> Option<End> {
        match &mut self.stage {
            Stage::Waits(receiver, _) => {
                let end = receiver.try_recv().ok()?;
                self.stage = Stage::Ended;
                Some(self.named(end))
            }
            Stage::Has(_) => self.has(),
            Stage::Reads(_) | Stage::Ended => None,
        }
    }

    /// Its texts have been read.
    fn read(&mut self, work: Work, outcome: Result<Outcome, Failure>) {
        match outcome {
            Ok(Outcome::Waits(mut read)) => {
                self.classes = read.classes.take();
                self.wait(work, read);
            }
            Ok(Outcome::Told(outputs)) => {
                self.stage = Stage::Has(End::Ran(Ran {
                    outputs,
                    batch_rows: 0,
                    queue_nanos: 0,
                    run_nanos: 0,
                }));
            }
            Err(failure) => self.stage = Stage::Has(End::Refused(failure)),
        }
    }

    fn wait(&mut self, work: Work, read: Read) {
        let (receiver, slot) = self.handle.enqueue(work, read);
        self.stage = Stage::Waits(receiver, slot);
    }

    /// What came of reading it, if that was all.
    fn has(&mut self) -> Option<End> {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Has(end) => Some(end),
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// With the names of classes, if those are wanted.
    fn named(&mut self, end: End) -> End {
        match (self.classes.take(), end) {
            (Some(names), End::Ran(mut ran)) => {
                let rows = ran.outputs.first().map_or(0, Tensor::rows);
                ran.outputs.extend(for_rows(&names, rows));
                End::Ran(ran)
            }
            (_, end) => end,
        }
    }
}

impl Future for Submission {
    type Output = End;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        // Nobody told its end: it belonged to a device that was torn down.
        let gone = || End::Dropped(DropReason::Gone, Vec::new());
        loop {
            match &mut self.stage {
                Stage::Reads(reading) => match ready!(reading.as_mut().poll(context)) {
                    Some((work, outcome)) => self.read(work, outcome),
                    None => self.stage = Stage::Ended,
                },
                Stage::Waits(receiver, _) => {
                    let told = ready!(Pin::new(receiver).poll(context));
                    self.stage = Stage::Ended;
                    return Poll::Ready(self.named(told.unwrap_or_else(|_| gone())));
                }
                Stage::Has(_) | Stage::Ended => {
                    return Poll::Ready(self.has().unwrap_or_else(gone));
                }
            }
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        // What is read elsewhere ends there, and comes to no device.
        if let Stage::Waits(_, slot) = self.stage {
            self.handle.cancel(self.batcher, slot);
        }
    }
}
