//! A request at a device, as its caller holds it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use paceline_core::Slot;
use paceline_core::batcher::DropReason;
use paceline_core::device::BatcherId;
use paceline_protocol::Failure;
use tokio::sync::oneshot;

use super::reading::{Read, Reading, is_short};
use super::{End, Handle, Work};

/// Resolves to the request's end. Dropped before that, it cancels the request: rows that have
/// not started are not computed.
pub struct Submission {
    handle: Handle,
    batcher: BatcherId,
    stage: Stage,
}

enum Stage {
    /// Its texts are cut into tokens elsewhere; then it waits at the device.
    Reads(Reading),
    /// It waits at the device, or runs.
    Waits(oneshot::Receiver<End>, Slot),
    /// It was refused, and nobody has been told.
    Refused(Failure),
    Ended,
}

impl Submission {
    /// A request that is on its way from now on.
    pub(super) fn of(handle: Handle, work: Work) -> Self {
        let batcher = work.batcher;
        let stage = match handle.shared.readers.of(batcher) {
            None => Stage::waits(&handle, work, Read::default()),
            Some(model) if is_short(&work.inputs) => match Read::by(model, &work.inputs) {
                Ok(read) => Stage::waits(&handle, work, read),
                Err(failure) => Stage::Refused(failure),
            },
            Some(model) => Stage::Reads(handle.shared.readers.elsewhere(model, work)),
        };
        Self {
            handle,
            batcher,
            stage,
        }
    }

    /// The end, if it has come already: a request that ran in place never waits.
    pub fn try_end(&mut self) -> Option<End> {
        let end = match &mut self.stage {
            Stage::Waits(receiver, _) => receiver.try_recv().ok()?,
            Stage::Refused(failure) => End::Refused(failure.clone()),
            Stage::Reads(_) | Stage::Ended => return None,
        };
        self.stage = Stage::Ended;
        Some(end)
    }
}

impl Future for Submission {
    type Output = End;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        // Nobody told its end: it belonged to a device that was torn down.
        let gone = || End::Dropped(DropReason::Gone, Vec::new());
        loop {
            let end = match &mut self.stage {
                Stage::Reads(reading) => match std::task::ready!(reading.as_mut().poll(context)) {
                    Some((work, Ok(read))) => {
                        self.stage = Stage::waits(&self.handle, work, read);
                        continue;
                    }
                    Some((_, Err(failure))) => End::Refused(failure),
                    None => gone(),
                },
                Stage::Waits(receiver, _) => {
                    let told = std::task::ready!(Pin::new(receiver).poll(context));
                    told.unwrap_or_else(|_| gone())
                }
                Stage::Refused(failure) => End::Refused(failure.clone()),
                Stage::Ended => gone(),
            };
            self.stage = Stage::Ended;
            return Poll::Ready(end);
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

impl Stage {
    fn waits(handle: &Handle, work: Work, read: Read) -> Self {
        let (receiver, slot) = handle.enqueue(work, read);
        Self::Waits(receiver, slot)
    }
}
