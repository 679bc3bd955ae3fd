//! The body of an answer: frames of a message, and the status in trailers behind them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderMap;
use tonic::Status;

/// The body of an answer.
pub(super) enum CallBody {
    /// Nothing: the status, if there is one, stands in the headers.
    Empty,
    /// A framed message in slices, sent one after another, then trailers.
    Message {
        slices: VecDeque<Bytes>,
        trailers: Option<HeaderMap>,
    },
    /// An answer of the router.
    Routed(tonic::body::Body),
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Message { slices, trailers } => {
                let slice = slices.pop_front().map(Frame::data);
                let frame = slice.or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Message { slices, trailers } => slices.is_empty() && trailers.is_none(),
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // No length is announced: trailers follow.
            Self::Message { .. } => SizeHint::default(),
            Self::Routed(body) => body.size_hint(),
        }
    }
}
