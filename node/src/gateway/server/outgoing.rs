//! Answers on their way out, and streams of HTTP/2 whose peer takes nothing of them.
//!
//! Over HTTP/1.1 the socket says that a peer takes nothing. Over HTTP/2 a stream has a window of its
//! own: an answer goes in slices, and a stream that waits for room for its next one, for as long as
//! a connection may stand still, is reset. The others of its connection go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

use super::STALL;
use super::wire::Open;

tokio::task_local! {
    /// The stream of HTTP/2 that a task serves.
    static SENDING: Arc<Sending>;
}

/// The body of an answer that has begun.
pub(super) struct Outgoing<B: Body> {
    body: B,
    /// Gone if nobody waits for it.
    open: Option<Open>,
    sliced: Option<Sliced>,
}

/// Marks the answer to a request that its client has taken back before it was whole.
#[derive(Clone, Copy)]
pub(in crate::gateway) struct TakenBack;

/// What is left of a piece, and whose it is.
struct Sliced {
    rest: Bytes,
    sending: Arc<Sending>,
}

/// What is seen of a stream.
#[derive(Default)]
struct Sending {
    given: AtomicU64,
    /// Whether the last slice that was given waits for room.
    is_blocked: AtomicBool,
}

/// Runs the streams of a connection.
#[derive(Clone, Copy)]
pub(super) struct Streams;

/// A stream that has been blocked since a moment.
#[derive(Default)]
struct Stall {
    given: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Body> Outgoing<B> {
    /// An answer, whose request is open as long as its body is there.
    pub(super) fn answer(response: Response<B>, open: Open) -> Response<Self> {
        // An answer that is headers alone says nothing of whether it could be sent.
        let is_taken_back = response.extensions().get::<TakenBack>().is_some();
        let open = Some(open).filter(|_| !is_taken_back);
        response.map(|body| Self::new(body, open))
    }

    fn new(body: B, open: Option<Open>) -> Self {
        let sending = SENDING.try_with(Arc::clone).ok();
        let sliced = sending.map(|sending| Sliced {
            rest: Bytes::new(),
            sending,
        });
        Self { body, open, sliced }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, sliced, .. } = &mut *self;
        match sliced {
            None => Pin::new(body).poll_frame(context),
            Some(sliced) => sliced.poll_slice(Pin::new(body), context),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_given = |sliced: &Sliced| sliced.rest.is_empty();
        self.sliced.as_ref().is_none_or(is_given) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.sliced.as_ref().map_or(0, |sliced| sliced.rest.len());
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(bytes) => SizeHint::with_exact(bytes + rest as u64),
            None => hint,
        }
    }
}

impl<B: Body> Drop for Outgoing<B> {
    fn drop(&mut self) {
        let is_given = |sliced: &Sliced| sliced.rest.is_empty();
        if self.sliced.as_ref().is_none_or(is_given) && self.body.is_end_stream() {
            self.open.iter_mut().for_each(Open::answered);
        }
    }
}

impl Sliced {
    fn poll_slice<B: Body<Data = Bytes>>(
        &mut self,
        body: Pin<&mut B>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.sending.is_blocked.store(false, Ordering::Relaxed);
        if self.rest.is_empty() {
            match ready!(body.poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(SLICE_BYTES);
        let slice = self.rest.split_to(length);
        self.sending.given.fetch_add(1, Ordering::Relaxed);
        self.sending.is_blocked.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    /// A stream is polled once where it is accepted, and has a task of its own only if it does not
    /// end by that. Most requests are there whole, and are answered at once: a task would cost them more
    /// than their answer. Those that are given up as soon as they have begun end here, too, instead of
    /// waiting in a queue that a scheduler may prefer others to.
    fn execute(&self, stream: F) {
        let sending = Arc::new(Sending::default());
        let seen = sending.clone();
        let mut task = Box::pin(SENDING.scope(sending, async move {
            let mut stream = pin!(stream);
            let mut stall = Stall::default();
            // Dropping a stream resets it.
            std::future::poll_fn(|context| match stream.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => stall.poll(&seen, context),
            })
            .await;
        }));
        // Nobody is woken: a task polls it anew.
        let mut context = Context::from_waker(Waker::noop());
        let polled = AssertUnwindSafe(|| task.as_mut().poll(&mut context));
        // One that panics ends alone, as it would in a task.
        if let Ok(Poll::Pending) = catch_unwind(polled) {
            tokio::spawn(task);
        }
    }
}

impl Stall {
    /// Ends when no slice was taken for too long.
    fn poll(&mut self, seen: &Sending, context: &mut Context<'_>) -> Poll<()> {
        if !seen.is_blocked.load(Ordering::Relaxed) {
            self.timer = None;
            return Poll::Pending;
        }
        let given = seen.given.load(Ordering::Relaxed);
        let until = || Instant::now() + STALL;
        match &mut self.timer {
            None => self.timer = Some(Box::pin(sleep_until(until()))),
            Some(timer) if given != self.given => timer.as_mut().reset(until()),
            Some(_) => {}
        }
        self.given = given;
        self.timer
            .as_mut()
            .map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
    }
}

/// What a stream gives at a time: what it holds of an answer beyond its window, and small enough
/// that a slow client shows that it still reads.
const SLICE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_ends_at_once_needs_no_task_and_a_panic_ends_alone() {
        // There is no runtime here: a task would be a panic of its own.
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        Streams.execute(async move { seen.store(true, Ordering::Relaxed) });
        assert!(ended.load(Ordering::Relaxed));
        Streams.execute(async { panic!("a fault in one stream") });
    }

    #[tokio::test]
    async fn what_waits_goes_on_in_a_task() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        Streams.execute(async move {
            let told: Result<u32, _> = heard.await;
            end.send(told).expect("the test waits");
        });
        told.send(7).expect("the stream waits");
        assert_eq!(ended.await.expect("it ends"), Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_nothing_is_taken_and_not_while_it_computes() {
        let seen = Sending::default();
        let mut stall = Stall::default();
        let mut poll = async |seen: &Sending, after: Duration| {
            let polled = std::future::poll_fn(|context| stall.poll(seen, context));
            tokio::time::timeout(after, polled).await.is_ok()
        };
        let long = 10 * STALL;
        assert!(!poll(&seen, long).await, "it computes");
        seen.is_blocked.store(true, Ordering::Relaxed);
        for given in 1..10 {
            seen.given.store(given, Ordering::Relaxed);
            assert!(!poll(&seen, STALL * 3 / 4).await, "it is taken slowly");
        }
        assert!(poll(&seen, STALL / 2).await, "nothing more was taken");
    }
}
