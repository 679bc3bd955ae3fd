//! The bytes of a client's connection, and what is seen of it from outside of the protocol.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use paceline_core::patience;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A connection whose first bytes have been read already.
pub(super) struct Wire<S> {
    stream: S,
    head: Bytes,
    seen: Arc<Seen>,
}

/// What is seen of a connection: counts that cost no clock.
#[derive(Default)]
pub(super) struct Seen {
    begun: AtomicU64,
    open: AtomicU64,
    taken: AtomicU64,
    is_blocked: AtomicBool,
    is_reading: AtomicBool,
    /// Of the time since the last look: requests that have ended, and those of them whose client did not
    /// want the answer. Those that have only begun say nothing: a node that is behind has many.
    lately: AtomicU64,
    abandoned: AtomicU64,
    is_flood: AtomicBool,
    /// Whether it is HTTP/2.
    is_framed: AtomicBool,
}

/// A request that has begun and whose answer has not ended.
pub(super) struct Open {
    seen: Arc<Seen>,
    is_answered: bool,
    /// From when on its client may go without having given up anything.
    until: Option<Instant>,
}

impl<S> Wire<S> {
    /// Goes on behind `head`.
    pub(super) fn new(stream: S, head: Bytes, seen: Arc<Seen>) -> Self {
        Self { stream, head, seen }
    }
}

impl Seen {
    /// A request begins.
    ///
    /// Whoever waits no longer than the request's own deadline, `until`, does not send it for nothing.
    pub(super) fn begin(self: &Arc<Self>, until: Option<Instant>) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        // What was given up and has not ended yet is memory, too.
        if open >= OPEN_MAX {
            self.is_flood.store(true, Ordering::Relaxed);
        }
        self.is_reading.store(false, Ordering::Relaxed);
        Open {
            seen: self.clone(),
            is_answered: false,
            until,
        }
    }

    /// Whether a request has begun.
    pub(super) fn is_used(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// What there is to see. What is counted since the last look begins anew.
    pub(super) fn look(&self) -> patience::Seen {
        self.lately.store(0, Ordering::Relaxed);
        self.abandoned.store(0, Ordering::Relaxed);
        patience::Seen {
            begun: self.begun.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            is_blocked: self.is_blocked.load(Ordering::Relaxed),
            is_reading: self.is_reading.load(Ordering::Relaxed),
            is_framed: self.is_framed.load(Ordering::Relaxed),
        }
    }

    /// It is HTTP/2.
    pub(super) fn has_frames(&self) {
        self.is_framed.store(true, Ordering::Relaxed);
    }

    fn read(&self) -> io::Result<()> {
        if self.open.load(Ordering::Relaxed) == 0 {
            self.is_reading.store(true, Ordering::Relaxed);
        }
        if self.is_flood.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn wrote<T>(&self, written: Poll<T>) -> Poll<T> {
        self.is_blocked
            .store(written.is_pending(), Ordering::Relaxed);
        if written.is_ready() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        written
    }
}

impl Open {
    /// Its answer was handed over whole.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let seen = &self.seen;
        seen.open.fetch_sub(1, Ordering::Relaxed);
        let lately = seen.lately.fetch_add(1, Ordering::Relaxed) + 1;
        let is_late = |until| Instant::now() + EARLY >= until;
        if !self.is_answered && !self.until.is_some_and(is_late) {
            let abandoned = seen.abandoned.fetch_add(1, Ordering::Relaxed) + 1;
            if abandoned > ABANDONED_MAX && abandoned > lately / 2 {
                seen.is_flood.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let length = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head.split_to(length));
            return Poll::Ready(self.seen.read());
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.seen.read()?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.seen.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.seen.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_pending() {
            self.seen.is_blocked.store(true, Ordering::Relaxed);
        } else if self.seen.is_blocked.swap(false, Ordering::Relaxed) {
            // TLS keeps back what the socket does not take, and says so here only.
            self.seen.taken.fetch_add(1, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.seen.wrote(closed)
    }
}

/// Requests of one connection, between two looks, that their client may begin and give up again if
/// they are most of what it asks: a client whose deadlines all pass at once has as many streams as
/// it may, some times over; who resets as fast as it can has a hundred thousand a second
/// (CVE-2023-44487).
const ABANDONED_MAX: u64 = 2_000;
/// Requests of one connection that have begun and not ended: twice what a client of gRPC may have
/// under way, since those that it has given up end a moment later.
const OPEN_MAX: u64 = 2_048;
/// How much sooner than its deadline a client may stop waiting: its clock began when it sent.
const EARLY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_only_gives_up_is_a_flood_and_one_that_often_does_is_none() {
        let gives_up = |each: u64| {
            let seen = Arc::new(Seen::default());
            for number in 0..20_000 {
                let mut open = seen.begin(None);
                if number % each != 0 {
                    open.answered();
                }
            }
            assert_eq!(seen.look().open, 0);
            seen.read().is_err()
        };
        assert!(gives_up(1));
        assert!(!gives_up(3));
    }

    #[test]
    fn a_flood_is_noticed_by_a_node_that_is_far_behind() {
        let seen = Arc::new(Seen::default());
        let begun: Vec<Open> = (0..2_040).map(|_| seen.begin(None)).collect();
        (0..2_001).for_each(|_| drop(seen.begin(None)));
        assert!(seen.read().is_err(), "all that have ended were given up");
        drop(begun);
    }

    #[test]
    fn what_does_not_end_is_bounded() {
        let seen = Arc::new(Seen::default());
        let mut begun: Vec<Open> = (0..OPEN_MAX).map(|_| seen.begin(None)).collect();
        assert!(seen.read().is_ok());
        begun.push(seen.begin(None));
        assert!(seen.read().is_err());
    }

    #[test]
    fn who_waits_no_longer_than_its_own_deadline_has_given_up_nothing() {
        let is_flood = |left: Duration| {
            let seen = Arc::new(Seen::default());
            let until = Instant::now() + left;
            (0..20_000).for_each(|_| drop(seen.begin(Some(until))));
            seen.read().is_err()
        };
        assert!(!is_flood(Duration::ZERO), "its time has come");
        assert!(!is_flood(EARLY), "by its own clock");
        assert!(is_flood(Duration::from_secs(60)));
    }

    /// A stream that keeps back what it cannot send, as TLS does, and goes on when it is flushed.
    struct Keeps {
        waits: u32,
    }

    impl AsyncWrite for Keeps {
        fn poll_write(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            match self.waits.checked_sub(1) {
                None => Poll::Ready(Ok(())),
                Some(left) => {
                    self.waits = left;
                    Poll::Pending
                }
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_flush_that_had_to_wait_is_no_stall_once_it_is_done() {
        let seen = Arc::new(Seen::default());
        let keeps = Keeps { waits: 2 };
        let mut wire = Wire::new(keeps, Bytes::new(), seen.clone());
        let mut wire = Pin::new(&mut wire);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(wire.as_mut().poll_write(&mut context, b"all").is_ready());
        let before = seen.look().taken;
        for _ in 0..2 {
            assert!(wire.as_mut().poll_flush(&mut context).is_pending());
            let look = seen.look();
            assert!(look.is_blocked && look.taken == before);
        }
        assert!(wire.as_mut().poll_flush(&mut context).is_ready());
        let look = seen.look();
        assert!(!look.is_blocked && look.taken > before, "{look:?}");
        // Others that follow at once say nothing more.
        assert!(wire.as_mut().poll_flush(&mut context).is_ready());
        assert_eq!(seen.look().taken, look.taken);
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_a_full_peer_is_seen() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, theirs) = tokio::io::duplex(8);
        let seen = Arc::new(Seen::default());
        let mut wire = Wire::new(ours, Bytes::from_static(b"abc"), seen.clone());
        let (mut from, mut to) = tokio::io::split(theirs);
        to.write_all(b"def").await.unwrap();
        let mut bytes = [0; 6];
        wire.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"abcdef");
        assert!(seen.look().is_reading);
        let writing = wire.write_all(&[0; 20]);
        let limit = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(limit, writing).await.is_err());
        assert!(seen.look().is_blocked);
        from.read_exact(&mut [0; 8]).await.unwrap();
        wire.write_all(&[0; 8]).await.unwrap();
        assert!(!seen.look().is_blocked);
        drop(to);
    }
}
