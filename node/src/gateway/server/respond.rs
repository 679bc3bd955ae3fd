//! Answers as HTTP says them: one border where outcomes become statuses and headers.

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure};

use crate::gateway::body::{AnswerBody, EPOCH, JSON_BYTES};
use crate::gateway::infer::Answered;
use crate::gateway::oip;

/// The answer of a model.
pub(super) fn answered(answered: Answered) -> Response<AnswerBody> {
    let Answered {
        rendered,
        version,
        epoch,
        stale_seconds,
    } = answered;
    let content_type = if rendered.json_bytes.is_some() {
        OCTETS
    } else {
        JSON
    };
    let mut parts = std::collections::VecDeque::with_capacity(1 + rendered.bodies.len());
    parts.push_back(rendered.head);
    parts.extend(rendered.bodies);
    let mut response = Response::new(AnswerBody::Parts(parts));
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(VERSION, HeaderValue::from(version.0));
    headers.insert(EPOCH, HeaderValue::from(epoch.0));
    if let Some(seconds) = stale_seconds {
        headers.insert(STALE, HeaderValue::from(seconds));
    }
    if let Some(bytes) = rendered.json_bytes {
        headers.insert(JSON_BYTES, HeaderValue::from(bytes));
    }
    response
}

/// A failure.
pub(in crate::gateway) fn failed(failure: &Failure) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(failure.code.http_status())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, JSON, oip::render_failure(failure));
    let headers = response.headers_mut();
    if let Some(wait_ms) = failure.retry_after_ms {
        // The header counts whole seconds; rounding up never invites a retry too early.
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(wait_ms.div_ceil(1_000).max(1)),
        );
    }
    if failure.code == ErrorCode::TooLarge {
        // What is left of the body would be taken for the next request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same answer with another body.
pub(super) fn with_body(response: Response<AnswerBody>, body: Bytes) -> Response<AnswerBody> {
    response.map(|_| AnswerBody::one(body))
}

/// An answer of one piece.
pub(super) fn respond(
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::one(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// The version that answered.
pub(in crate::gateway) const VERSION: HeaderName = HeaderName::from_static("paceline-version");
/// For how many seconds there was no contact to a quorum.
pub(in crate::gateway) const STALE: HeaderName = HeaderName::from_static("paceline-stale");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
