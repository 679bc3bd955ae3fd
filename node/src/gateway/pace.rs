//! The pace of a body: who sends it too slowly is not waited for.
//!
//! Only the time counts in which the node waits: a disk that is slow to take an upload is not its
//! client's fault.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use paceline_protocol::limits::STREAM_STALL_MS;
use paceline_protocol::{ErrorCode, Failure};
use tokio::time::{Instant, Sleep, sleep_until};

/// A body that breaks when it comes too slowly.
pub(super) struct Paced<B = Incoming> {
    body: B,
    /// Bytes since the wait was counted anew.
    bytes: usize,
    /// For how long they were waited for.
    waited: Duration,
    /// Pieces of it that held nothing.
    empty: u32,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// Why a body is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// It came too slowly.
    #[error("the body came too slowly: {} KiB or its end are wanted every {} s", PACE_BYTES >> 10, WAIT_MAX.as_secs())]
    Late,
    /// It came in frames that hold nothing.
    #[error("the body came in more than {EMPTY_MAX} empty pieces")]
    Empty,
    /// The connection ended.
    #[error("the connection broke before the body was whole")]
    Cut,
}

impl<B> Paced<B> {
    /// A body that has just begun.
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            bytes: 0,
            waited: Duration::ZERO,
            empty: 0,
            waiting: None,
        }
    }

    fn came(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.bytes += bytes;
        if self.bytes >= PACE_BYTES {
            self.bytes = 0;
            self.waited = Duration::ZERO;
        }
    }
}

impl Broken {
    /// As the client is told.
    pub(super) fn told(self) -> Failure {
        let code = match self {
            Self::Late => ErrorCode::DeadlineExceeded,
            Self::Empty => ErrorCode::BinaryInvalid,
            Self::Cut => ErrorCode::Cancelled,
        };
        Failure::new(code, self.to_string())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                let data = frame
                    .as_ref()
                    .and_then(|frame| frame.as_ref().ok()?.data_ref());
                let bytes = data.map_or(0, Bytes::len);
                self.came(bytes);
                self.empty += u32::from(data.is_some() && bytes == 0);
                if self.empty > EMPTY_MAX {
                    return Poll::Ready(Some(Err(Broken::Empty)));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|_| Broken::Cut)))
            }
            Poll::Pending => {
                let left = WAIT_MAX.saturating_sub(self.waited);
                let (_, timer) = self.waiting.get_or_insert_with(|| {
                    let now = Instant::now();
                    (now, Box::pin(sleep_until(now + left)))
                });
                let late = timer.as_mut().poll(context);
                late.map(|()| Some(Err(Broken::Late)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is waited for, and for how long at most: 6.5 KB/s are a modem's pace, and to hold a
/// connection costs that at least.
const PACE_BYTES: usize = 64 << 10;
/// Frames of HTTP/2 that hold nothing cost their sender nine bytes and the node a task's turn; a
/// client sends one at most, at the end (CVE-2019-9518).
const EMPTY_MAX: u32 = 100;
/// As long as a connection may stand still in the middle of anything else.
const WAIT_MAX: Duration = Duration::from_millis(STREAM_STALL_MS);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;

    use super::*;

    /// A body of so many bytes each time.
    struct Slow {
        every: Duration,
        bytes: usize,
        next: Pin<Box<Sleep>>,
    }

    fn slow(every: Duration, bytes: usize) -> Paced<Slow> {
        let next = Box::pin(tokio::time::sleep(every));
        Paced::new(Slow { every, bytes, next })
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            std::task::ready!(self.next.as_mut().poll(context));
            let next = Instant::now() + self.every;
            self.next.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(vec![0; self.bytes].into()))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_a_byte_now_and_then_is_late_and_whoever_is_merely_slow_is_not() {
        let begun = Instant::now();
        let mut trickle = slow(Duration::from_millis(900), 1);
        let broken = loop {
            if let Some(Err(broken)) = trickle.frame().await {
                break broken;
            }
        };
        assert_eq!(broken, Broken::Late);
        assert_eq!(begun.elapsed().as_secs(), WAIT_MAX.as_secs());
        let mut modem = slow(Duration::from_secs(1), 7_000);
        let mut busy = slow(Duration::from_secs(1), 1_000);
        for _ in 0..100 {
            modem.frame().await.unwrap().unwrap();
        }
        for _ in 0..9 {
            busy.frame().await.unwrap().unwrap();
            // It was the node that did not ask.
            tokio::time::sleep(WAIT_MAX).await;
        }
    }
}
