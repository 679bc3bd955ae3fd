//! One request, one answer: `ModelInfer`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use paceline_protocol::Failure;
use paceline_protocol::limits::{REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS};
use tokio::time::{Instant, timeout};

use super::body::CallBody;
use super::messages::Messages;
use super::metadata;
use super::status::{CONTENT_TYPE, expired, ok};
use crate::gateway::Doors;
use crate::gateway::body::EPOCH;
use crate::gateway::infer::{Answered, Content};
use crate::gateway::oip::Message;
use crate::gateway::sender::Sender;
use crate::gateway::server::{STALE, VERSION};
use crate::telemetry::metrics::Protocol;

/// Answers a request. Dropping the future cancels what has not started: HTTP/2 does that when the
/// caller resets the call.
///
/// # Errors
/// Exactly one [`Failure`], by the request's deadline.
pub(super) async fn answer(
    doors: &Doors,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<CallBody>, Failure> {
    let arrived = Instant::now();
    let refused = |failure: &Failure| doors.metrics.refused(Protocol::Grpc, failure.code);
    let sender = Sender::of(doors, headers).inspect_err(refused)?;
    let budget = metadata::budget(headers).inspect_err(refused)?;
    let read = read(doors, headers, body, budget).await;
    let body = read.inspect_err(refused)?;
    let mut message = Message::read(&body).inspect_err(refused)?;
    message.counted(&doors.bodies);
    if let Some(budget) = budget {
        let left = budget.saturating_sub(arrived.elapsed());
        if left.is_zero() {
            return Err(expired()).inspect_err(refused);
        }
        message.within(left);
    }
    let content = Content::Message(&message);
    let request = sender.asks(message.model(), message.version(), content);
    doors.serving.infer(request).await.map(answered)
}

/// The request's message, as long as the caller waits for the whole.
async fn read(
    doors: &Doors,
    headers: &HeaderMap,
    body: Incoming,
    budget: Option<Duration>,
) -> Result<Bytes, Failure> {
    let within = (doors.options.body_bytes_max, doors.bodies.clone());
    let usual = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
    let limit = budget.unwrap_or(usual);
    let limit = limit.min(Duration::from_millis(REQUEST_BUDGET_MAX_MS));
    let messages = Messages::of(headers, body, within, limit)?;
    match timeout(limit, messages.only()).await {
        Ok(read) => read,
        Err(_late) => Err(expired()),
    }
}

fn answered(answered: Answered) -> Response<CallBody> {
    let Answered {
        rendered,
        version,
        epoch,
        stale_seconds,
    } = answered;
    let mut slices = VecDeque::with_capacity(1 + rendered.bodies.len());
    slices.push_back(rendered.head);
    slices.extend(rendered.bodies);
    let mut response = Response::new(CallBody::Message {
        slices,
        trailers: Some(ok()),
    });
    let headers = response.headers_mut();
    headers.reserve(5);
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(VERSION, HeaderValue::from(version.0));
    headers.insert(EPOCH, HeaderValue::from(epoch.0));
    if let Some(seconds) = stale_seconds {
        headers.insert(STALE, HeaderValue::from(seconds));
    }
    response
}
