//! The two ends of a stream in memory, as tokio reads and writes them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::network::Network;
use super::pipe::{Ended, Read};
use crate::transport::{Incoming, SendHalf};

/// What the peer gets to accept, once something has been sent.
pub(super) type Announcement = (mpsc::Sender<Incoming>, Incoming);

pub(super) struct Sending {
    network: Arc<Network>,
    pipe: u64,
    announcement: Option<Announcement>,
    ended: bool,
}

pub(super) struct Receiving {
    network: Arc<Network>,
    pipe: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Sending {
    pub(super) fn new(
        network: Arc<Network>,
        pipe: u64,
        announcement: Option<Announcement>,
    ) -> Self {
        Self {
            network,
            pipe,
            announcement,
            ended: false,
        }
    }

    fn announce(&mut self) {
        if let Some((door, incoming)) = self.announcement.take() {
            // A door that is full or gone refuses the stream: its ends are dropped.
            let _ = door.try_send(incoming);
        }
    }
}

impl AsyncWrite for Sending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.network.write(self.pipe, bytes, context.waker())?;
        self.announce();
        written.map_or(Poll::Pending, |taken| Poll::Ready(Ok(taken)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl SendHalf for Sending {
    fn finish(&mut self) {
        self.ended = true;
        self.network.end(self.pipe, Ended::Finished);
        self.announce();
    }

    fn reset(&mut self) {
        self.ended = true;
        self.network.end(self.pipe, Ended::Reset);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.ended {
            self.reset();
        }
    }
}

impl Receiving {
    pub(super) fn new(network: Arc<Network>, pipe: u64) -> Self {
        Self {
            network,
            pipe,
            sleep: None,
        }
    }

    /// Whether the moment has come; else the task is woken then.
    fn poll_until(&mut self, at: Instant, context: &mut Context<'_>) -> bool {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Receiving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let limit = buffer.remaining();
            match self.network.read(self.pipe, limit, context.waker())? {
                Read::Bytes(bytes) => {
                    buffer.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Read::End => return Poll::Ready(Ok(())),
                Read::Wait(None) => return Poll::Pending,
                Read::Wait(Some(at)) => {
                    if !self.poll_until(at, context) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.network.stop(self.pipe);
    }
}
