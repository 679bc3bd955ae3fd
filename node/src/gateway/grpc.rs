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
mod patience;
pub(in crate::gateway) mod proto;
mod status;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use paceline_protocol::limits::{REPOSITORY_LOAD_MAX_MS, REQUEST_BUDGET_DEFAULT_MS};
use paceline_protocol::{ErrorCode, Failure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tower::ServiceExt;
use tracing::Instrument;

use self::body::CallBody;
pub use self::calls::{CallParts, Calls};
use self::patience::Patient;
use super::Doors;
use super::server::{REQUEST_ID, STALE, VERSION, caller, check_host, log_failure, request_id};
use crate::telemetry::metrics::Protocol;

/// Answers the calls of one connection until it ends, or until this node sends it elsewhere.
pub(super) async fn serve<S>(stream: S, doors: Arc<Doors>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut stopping, mut leaving) = (doors.stopping.clone(), doors.readiness.leaving());
    let called = Arc::new(Notify::new());
    let patient = Patient::new(stream, doors.options.header_timeout);
    let service = {
        let called = called.clone();
        service_fn(move |request| {
            called.notify_one();
            answer(doors.clone(), request)
        })
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_LIMIT)
        .serve_connection(TokioIo::new(patient), service);
    let mut connection = std::pin::pin!(connection);
    let sent_away = async {
        tokio::select! {
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {}
            () = async {
                drop(leaving.wait_for(|leaving| *leaving).await);
                // A client that has just come has asked nothing yet, and would only come again.
                called.notified().await;
            } => {}
        }
    };
    // An error here is the client's: it went away, or spoke something else than HTTP/2.
    tokio::select! {
        biased;
        // First, so that a call which has arrived is seen.
        result = connection.as_mut() => drop(result),
        () = sent_away => {
            // GOAWAY: what is under way is answered, what follows belongs to another node.
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

async fn answer(
    doors: Arc<Doors>,
    request: Request<Incoming>,
) -> Result<Response<CallBody>, Infallible> {
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
    Ok(response)
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
/// What a call may send before it is read: the largest image or text in use fits, so that it needs
/// no round trip in between.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all calls of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Calls of one connection at a time: clients wait for a place before they send more.
const STREAMS_MAX: u32 = 1_024;
/// Headers of one call: gRPC's own implementations take 8 KiB unless they are told otherwise.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Calls that a client may have reset before they are looked at: one that resets more sends them
/// for nothing else (CVE-2023-44487), and its connection is closed.
const RESETS_MAX: usize = 64;
/// Bytes of an answer that wait for the connection.
const SEND_BYTES_MAX: usize = 1 << 20;
/// How often a connection is asked whether it lives, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_LIMIT: Duration = Duration::from_secs(20);
