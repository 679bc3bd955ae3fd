//! The gRPC door: connections over HTTP/2, and which part of the node answers a call.
//!
//! ```text
//!   connection ──▶ answer ──▶ ModelInfer, ModelStreamInfer ──▶ Serving
//!    (hyper)          └─────▶ Routes (tonic) ──▶ Inference, Health         everything else
//! ```
//!
//! Inference does without a codec: tensors stay slices of the body that has arrived, and an answer is
//! a small head with the tensors' own bytes behind it. Every status comes from the one table of
//! codes. Source: gRPC, doc/PROTOCOL-HTTP2.md.

mod body;
mod calls;
mod decompress;
mod health;
mod infer;
mod messages;
mod metadata;
mod models;
pub(in crate::gateway) mod proto;
mod settings;
mod status;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use paceline_protocol::limits::{REPOSITORY_LOAD_MAX_MS, REQUEST_BUDGET_DEFAULT_MS};
use paceline_protocol::{ErrorCode, Failure};
use tower::ServiceExt;
use tracing::Instrument;

use self::body::CallBody;
pub use self::calls::{CallParts, Calls};
use super::Doors;
use super::front::Door;
use super::server::{REQUEST_ID, STALE, VERSION, caller, check_host, log_failure, request_id};
use crate::telemetry::metrics::Protocol;

/// How long a call's client waits, if it says so and says it well.
pub(super) fn budget(headers: &HeaderMap) -> Option<Duration> {
    metadata::budget(headers).ok().flatten()
}

/// Answers one call.
pub(super) async fn answer(
    doors: Arc<Doors>,
    _door: Door,
    request: Request<Incoming>,
) -> Response<CallBody> {
    let id = request_id(request.headers());
    let span = tracing::debug_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = async {
        let path = request.uri().path().to_owned();
        match dispatch(&doors, request).await {
            Ok(response) => response,
            Err(failure) => {
                log_failure(&failure, &path, &id);
                status::failed(&failure)
            }
        }
    }
    .instrument(span)
    .await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // A model's answer says how old what it was pinned to is, not what is known by now.
    if !headers.contains_key(VERSION)
        && let Some(seconds) = doors.serving.contact.stale_seconds()
    {
        headers.insert(STALE, HeaderValue::from(seconds));
    }
    response
}

async fn dispatch(
    doors: &Arc<Doors>,
    mut request: Request<Incoming>,
) -> Result<Response<CallBody>, Failure> {
    if doors.options.loopback_only {
        check_host(request.uri().authority(), request.headers())?;
    }
    if request.method() != Method::POST || !is_grpc(request.headers()) {
        return Ok(no_call());
    }
    match request.uri().path() {
        MODEL_INFER => {
            let (parts, body) = request.into_parts();
            infer::answer(doors, &parts.headers, body).await
        }
        MODEL_STREAM_INFER => {
            let (parts, body) = request.into_parts();
            let begun = stream::answer(doors, &parts.headers, body);
            begun.inspect_err(|failure| doors.metrics.refused(Protocol::Grpc, failure.code))
        }
        path => {
            // Who watches the node needs no key.
            if !OPEN.contains(&path) && !path.starts_with(HEALTH) {
                let caller = caller(doors, request.headers())?;
                request.extensions_mut().insert(caller);
            }
            route(doors, request).await
        }
    }
}

/// Has the router answer, within the call's budget.
async fn route(doors: &Doors, request: Request<Incoming>) -> Result<Response<CallBody>, Failure> {
    let budget = metadata::budget(request.headers())?;
    let path = request.uri().path().to_owned();
    let limit = match path.as_str() {
        // Its own limit is told with more words.
        LOAD => REPOSITORY_LOAD_MAX_MS + REQUEST_BUDGET_DEFAULT_MS,
        _ => REQUEST_BUDGET_DEFAULT_MS,
    };
    let limit = Duration::from_millis(limit);
    let limit = budget.map_or(limit, |budget| budget.min(limit));
    let answered = doors.calls.routes().oneshot(request);
    let Ok(answered) = tokio::time::timeout(limit, answered).await else {
        let message = "the call's budget ran out before its answer was there";
        return Err(Failure::new(ErrorCode::DeadlineExceeded, message));
    };
    // The router's error type has no values: it always answers.
    let answered = answered.unwrap_or_else(|never| match never {});
    // Its own answer to what nothing answers has no sentence.
    if status::is_bare(answered.headers()) {
        let path: String = path.chars().take(128).collect();
        let message = format!("there is no call '{path}' here; docs/grpc.md lists those that are");
        return Err(Failure::new(ErrorCode::MethodNotAllowed, message));
    }
    Ok(answered.map(CallBody::Routed))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(CONTENT_TYPE.as_bytes()))
}

/// What whoever does not speak gRPC is told, as the protocol has it.
fn no_call() -> Response<CallBody> {
    let mut response = Response::new(CallBody::Empty);
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const OPEN: [&str; 2] = [
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];
const HEALTH: &str = "/grpc.health.v1.Health/";
const CONTENT_TYPE: &str = "application/grpc";
