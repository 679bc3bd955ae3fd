//! How long a connection may take to say that it speaks HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection whose reads fail once its client has been silent for too long at the start. What
/// follows is HTTP/2's own to watch, by pings.
pub(super) struct Patient<S> {
    stream: S,
    /// Until the preface is there.
    limit: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit: Some(Box::pin(sleep(limit))),
            read: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.limit.is_none() {
            return polled;
        }
        self.read += buffer.filled().len() - before;
        if self.read >= PREFACE_BYTES {
            self.limit = None;
        }
        if polled.is_pending()
            && let Some(limit) = &mut self.limit
            && limit.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// `PRI * HTTP/2.0 …` (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_left_and_whoever_has_spoken_may_think() {
        let limit = Duration::from_secs(10);
        let (mut client, stream) = tokio::io::duplex(64);
        let mut patient = Patient::new(stream, limit);
        client.write_all(&[1; PREFACE_BYTES - 1]).await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(patient.read(&mut buffer).await.unwrap(), PREFACE_BYTES - 1);
        let silent = patient.read(&mut buffer).await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);

        let (mut client, stream) = tokio::io::duplex(64);
        let mut patient = Patient::new(stream, limit);
        client.write_all(&[1; PREFACE_BYTES]).await.unwrap();
        assert_eq!(patient.read(&mut buffer).await.unwrap(), PREFACE_BYTES);
        let long = tokio::time::timeout(limit * 10, patient.read(&mut buffer)).await;
        assert!(long.is_err(), "it waits");
    }
}
