//! Bodies: read whole within a limit and at a pace, and sent without copying.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName};
use paceline_protocol::limits::REQUEST_BUDGET_MAX_MS;
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Epoch, ErrorCode, Failure};

use super::Doors;
use super::bodies::{Buffer, Place};
use super::coding::Coding;
use super::pace::{Broken, Paced};
use super::server::Events;

/// The length of its JSON and the body of an inference request, decompressed.
///
/// # Errors
/// A header that cannot be, and whatever keeps the body from being read whole.
pub(super) async fn read_inference(
    doors: &Doors,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Option<usize>, Bytes), Failure> {
    let json_bytes = json_bytes(headers)?;
    let coding = Coding::of_body(headers)?;
    let limit = doors.options.body_bytes_max;
    let body = collect(body, limit, doors.bodies.place()).await?;
    let body = match coding {
        None => body,
        Some(coding) => coding.inflate(body, limit, &doors.bodies).await?,
    };
    Ok((json_bytes, body))
}

/// Reads a body whole. A body that arrives in one piece is not copied.
///
/// # Errors
/// Over the limit, too slow, cut off, or there is no room for it.
async fn collect(body: Incoming, limit: usize, place: Place) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_LIMIT, collect_within(body, limit, place)).await {
        Ok(collected) => collected,
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
            Err(Failure::new(ErrorCode::DeadlineExceeded, message))
        }
    }
}

async fn collect_within(body: Incoming, limit: usize, mut place: Place) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large(announced, limit));
    }
    let mut body = Paced::new(body);
    let mut first: Option<Bytes> = None;
    let mut rest: Option<Buffer> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Broken::told)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let has = rest.as_ref().map(|rest| rest.len());
        let has = has.or(first.as_ref().map(Bytes::len)).unwrap_or(0);
        let sum = has + data.len();
        if sum > limit {
            return Err(too_large(sum as u64, limit));
        }
        let Some(begun) = &first else {
            // Not counted: it is what the connection has read, and no more than that.
            first = Some(data);
            continue;
        };
        place.grow(sum)?;
        if rest.is_none() {
            // What is announced was checked against the limit above.
            let mut buffer = place.buffer((announced as usize).max(sum));
            buffer.extend_from_slice(begun);
            rest = Some(buffer);
            // The connection reads into its own memory again.
            first = Some(Bytes::new());
        }
        if let Some(rest) = &mut rest {
            rest.extend_from_slice(&data);
        }
    }
    Ok(match rest {
        None => first.unwrap_or_default(),
        Some(rest) => place.hold(rest),
    })
}

/// The highest epoch that the client has seen, if it says one.
pub(super) fn epoch_seen(headers: &HeaderMap) -> Result<Option<Epoch>, Failure> {
    let Some(value) = headers.get(EPOCH) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(|seen| Some(Epoch(seen))).ok_or_else(|| {
        let message = "paceline-epoch must be a number: the one that an answer carried";
        Failure::new(ErrorCode::ParameterInvalid, message)
    })
}

/// What the request belongs to that shall always get the same version, if it says so.
pub(super) fn unit(headers: &HeaderMap) -> Result<Option<Unit>, Failure> {
    named(headers, &UNIT)
}

/// The sequence that the request belongs to, if it says so.
pub(super) fn sequence(headers: &HeaderMap) -> Result<Option<Unit>, Failure> {
    named(headers, &SEQUENCE)
}

fn named(headers: &HeaderMap, header: &HeaderName) -> Result<Option<Unit>, Failure> {
    let Some(value) = headers.get(header) else {
        return Ok(None);
    };
    let invalid = |error: String| {
        let message = format!("{header}: {error}");
        Failure::new(ErrorCode::ParameterInvalid, message)
    };
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| invalid("it is not UTF-8".to_owned()))?;
    let unit = Unit::new(text).map_err(|error| invalid(error.to_string()))?;
    Ok(Some(unit))
}

fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Failure> {
    let Some(value) = headers.get(JSON_BYTES) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| {
        let message = "Inference-Header-Content-Length must be a number of bytes";
        Failure::new(ErrorCode::BinaryInvalid, message)
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
    /// A streamed answer.
    Events(Events),
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
            Self::Events(events) => events.poll_slice(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Parts(parts) => parts.is_empty(),
            Self::Operator(body) => body.is_end_stream(),
            Self::Events(events) => events.is_complete(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Parts(parts) => {
                SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum())
            }
            Self::Operator(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Says how many bytes of a body are JSON; the rest are binary tensors.
pub(super) const EPOCH: HeaderName = HeaderName::from_static("paceline-epoch");
const UNIT: HeaderName = HeaderName::from_static("paceline-unit");
const SEQUENCE: HeaderName = HeaderName::from_static("paceline-sequence");
pub(super) const JSON_BYTES: HeaderName =
    HeaderName::from_static("inference-header-content-length");
/// How long a body may take to arrive, at whatever pace: as long as any request may take.
const BODY_LIMIT: Duration = Duration::from_millis(REQUEST_BUDGET_MAX_MS);
