//! Bodies: read whole within a limit and a deadline, and sent without copying.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use paceline_protocol::limits::REQUEST_BUDGET_DEFAULT_MS;
use paceline_protocol::{ErrorCode, Failure};

/// Reads a body whole. A body that arrives in one piece is not copied.
///
/// # Errors
/// Over the limit, too slow, or cut off.
pub(super) async fn collect(body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_LIMIT, collect_within(body, limit)).await {
        Ok(collected) => collected,
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
            Err(Failure::new(ErrorCode::DeadlineExceeded, message))
        }
    }
}

async fn collect_within(mut body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large(announced, limit));
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Failure::new(
                ErrorCode::Cancelled,
                "the connection broke before the body was whole",
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let sum = first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len();
        if sum > limit {
            return Err(too_large(sum as u64, limit));
        }
        match &first {
            None => first = Some(data),
            Some(begun) => {
                if rest.is_empty() && rest.capacity() == 0 {
                    // What is announced was checked against the limit above.
                    rest.reserve((announced as usize).max(begun.len() + data.len()));
                    rest.extend_from_slice(begun);
                    first = Some(Bytes::new());
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() {
        first.unwrap_or_default()
    } else {
        rest.freeze()
    })
}

fn too_large(bytes: u64, limit: usize) -> Failure {
    let message = format!("the body has at least {bytes} bytes; at most {limit} are allowed");
    Failure::new(ErrorCode::TooLarge, message)
}

/// The body of an answer.
pub(super) enum AnswerBody {
    /// Slices to send one after another.
    Parts(VecDeque<Bytes>),
    /// An answer of the operator API.
    Operator(axum::body::Body),
}

impl AnswerBody {
    pub(super) fn one(bytes: Bytes) -> Self {
        Self::Parts(VecDeque::from([bytes]))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Parts(parts) => Poll::Ready(parts.pop_front().map(|part| Ok(Frame::data(part)))),
            Self::Operator(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Parts(parts) => parts.is_empty(),
            Self::Operator(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Parts(parts) => {
                SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum())
            }
            Self::Operator(body) => body.size_hint(),
        }
    }
}

/// How long a body may take to arrive: as long as a request may take that names no budget.
const BODY_LIMIT: Duration = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
