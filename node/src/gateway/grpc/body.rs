//! The body of an answer: frames of a message, and the status in trailers behind them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderMap;
use paceline_protocol::{ErrorCode, Failure};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::Status;

use super::status::ended;

/// The body of an answer.
pub(in crate::gateway) enum CallBody {
    /// Nothing: the status, if there is one, stands in the headers.
    Empty,
    /// A framed message in slices, sent one after another, then trailers.
    Message {
        slices: VecDeque<Bytes>,
        trailers: Option<HeaderMap>,
    },
    /// Messages one after another.
    Stream(Pieces),
    /// An answer of the router.
    Routed(tonic::body::Body),
}

/// A piece of a stream.
pub(in crate::gateway) enum Piece {
    Data(Bytes),
    /// Its end.
    Trailers(HeaderMap),
}

/// The pieces of a stream, and the task that gives them, which ends with this.
pub(in crate::gateway) struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    is_over: bool,
    task: AbortHandle,
}

impl Pieces {
    pub(super) fn of(pieces: mpsc::Receiver<Piece>, task: AbortHandle) -> Self {
        Self {
            pieces,
            is_over: false,
            task,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Piece::Data(data)) => Some(Frame::data(data)),
            Some(Piece::Trailers(trailers)) => {
                self.is_over = true;
                Some(Frame::trailers(trailers))
            }
            // The task has panicked: whoever still listens shall not take it for a good end.
            None => {
                self.is_over = true;
                let message = "the stream's task ended without a word";
                let failure = Failure::new(ErrorCode::Internal, message);
                Some(Frame::trailers(ended(&failure)))
            }
        })
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.task.abort();
    }
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
            Self::Stream(pieces) => pieces.poll(context).map(|piece| piece.map(Ok)),
            Self::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Message { slices, trailers } => slices.is_empty() && trailers.is_none(),
            Self::Stream(pieces) => pieces.is_over,
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // No length is announced: trailers follow.
            Self::Message { .. } | Self::Stream(_) => SizeHint::default(),
            Self::Routed(body) => body.size_hint(),
        }
    }
}
