//! A request at a device, as its caller holds it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use paceline_core::Slot;
use paceline_core::batcher::DropReason;
use paceline_core::device::BatcherId;
use tokio::sync::oneshot;

use super::{End, Handle};

/// Resolves to the request's end. Dropped before that, it cancels the request: rows that have
/// not started are not computed.
pub struct Submission {
    handle: Handle,
    receiver: oneshot::Receiver<End>,
    batcher: BatcherId,
    slot: Slot,
    ended: bool,
}

impl Submission {
    pub(super) fn new(
        handle: Handle,
        receiver: oneshot::Receiver<End>,
        batcher: BatcherId,
        slot: Slot,
    ) -> Self {
        Self {
            handle,
            receiver,
            batcher,
            slot,
            ended: false,
        }
    }

    /// The end, if it has come already: a request that ran in place never waits.
    pub fn try_end(&mut self) -> Option<End> {
        let end = self.receiver.try_recv().ok()?;
        self.ended = true;
        Some(end)
    }
}

impl Future for Submission {
    type Output = End;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        Pin::new(&mut self.receiver).poll(context).map(|end| {
            self.ended = true;
            // A sender that vanished without a word belonged to a device that was torn down.
            end.unwrap_or_else(|_| End::Dropped(DropReason::Gone, Vec::new()))
        })
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.cancel(self.batcher, self.slot);
        }
    }
}
