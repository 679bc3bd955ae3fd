//! Doors: connections over HTTP/1.1 and HTTP/2, and which part of the node answers a request.

mod about;
mod connection;
mod events;
mod host;
mod managed;
mod openapi;
mod outgoing;
mod respond;
mod texts;
mod v1;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Version};
use paceline_protocol::limits::STREAM_STALL_MS;
use paceline_protocol::tenant::ApiKey;
use paceline_protocol::{ErrorCode, Failure};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::Instrument;

use self::about::about;
pub(super) use self::about::{is_ready, versions};
use self::connection::serve;
pub(super) use self::events::Events;
use self::events::{EventRequest, answer_in_events, wants_events};
pub(super) use self::host::check_host;
pub(super) use self::outgoing::TakenBack;
pub(super) use self::respond::failed;
pub(super) use self::respond::{STALE, VERSION};
use self::respond::{answered, respond};
use super::Doors;
use super::body::{AnswerBody, read_inference};
use super::coding::{Coding, compressed};
use super::front::{Accepted, Accepting, Door};
use super::infer::Content;
use super::pace::Paced;
use super::path::{Route, Target, V1, Verb};
use super::predict::Predict;
use super::sender::Sender;
use crate::telemetry::metrics::Protocol;
use crate::tenants::Caller;

/// Limits of the doors.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// Largest body, in bytes, once it is decompressed.
    pub body_bytes_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// How long a request's header may take to arrive.
    pub header_timeout: Duration,
    /// How long a connection may have nothing to do.
    pub idle_timeout: Duration,
    /// Whether only requests made to a loopback address are answered.
    pub loopback_only: bool,
}

/// Accepts connections until its task ends. Running out of files slows it down and ends
/// nothing.
pub(super) async fn accept(listener: Arc<Accepting>, doors: Arc<Doors>, door: Door) {
    let places = Arc::new(Semaphore::new(doors.options.connections_max));
    let mut stopping = doors.stopping.clone();
    let stop = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    let mut stop = std::pin::pin!(stop);
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            // Who comes later is not let in: those inside could not all leave otherwise.
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let doors = doors.clone();
                let guest = doors.guests.enter();
                tokio::spawn(async move {
                    match accepted {
                        Accepted::Socket(stream) => serve(stream, doors, door).await,
                        Accepted::Memory(stream) => serve(stream, doors, door).await,
                    }
                    drop((place, guest));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(doors: Arc<Doors>, door: Door, request: Request<Incoming>) -> Response<AnswerBody> {
    let id = request_id(request.headers());
    let (version, wanted) = (request.version(), Coding::wanted(request.headers()));
    let is_head = request.method() == hyper::Method::HEAD;
    let span = tracing::debug_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = async {
        let path = request.uri().path().to_owned();
        match dispatch(&doors, door, request).await {
            Ok(response) => compressed(response, wanted, &doors.bodies).await,
            Err(failure) => {
                log_failure(&failure, &path, &id);
                match Route::of(&path) {
                    Route::Text(asked) => texts::failed_at(asked, &failure),
                    _ => failed(&failure),
                }
            }
        }
    }
    .instrument(span)
    .await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if door == Door::Http {
        about_the_node(&doors, headers);
    }
    if is_head {
        // hyper leaves the body away over HTTP/1.1 only.
        if let Some(length) = response.body().size_hint().exact() {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = AnswerBody::one(Bytes::new());
    }
    let headers = response.headers_mut();
    if version == Version::HTTP_2 {
        // Its connections are asked to end by GOAWAY.
        headers.remove(header::CONNECTION);
    }
    response
}

/// What every answer says of the node that gives it.
fn about_the_node(doors: &Doors, headers: &mut HeaderMap) {
    // A model's answer says how old what it was pinned to is, not what is known by now.
    if !headers.contains_key(VERSION)
        && let Some(seconds) = doors.serving.contact.stale_seconds()
    {
        headers.insert(STALE, HeaderValue::from(seconds));
    }
    if doors.readiness.is_leaving() {
        // The client's next connection is another node's; this request has its answer.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

async fn dispatch(
    doors: &Doors,
    door: Door,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Failure> {
    if doors.options.loopback_only {
        check_host(request.uri().authority(), request.headers())?;
    }
    if door == Door::Metrics {
        return metrics(doors, request.uri().path());
    }
    let (mut parts, body) = request.into_parts();
    let route = Route::of(parts.uri.path());
    match route {
        Route::Operator => {
            parts.extensions.insert(caller(doors, &parts.headers)?);
            if Coding::of_body(&parts.headers)?.is_some() {
                let message = "the operator API takes no compressed bodies";
                return Err(Failure::new(ErrorCode::Unsupported, message));
            }
            let body = axum::body::Body::new(Paced::new(body));
            let request = Request::from_parts(parts, body);
            // The router's error type has no values: it always answers.
            let response = doors.operator.clone().oneshot(request).await;
            return Ok(response
                .unwrap_or_else(|never| match never {})
                .map(AnswerBody::Operator));
        }
        Route::Unknown => {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "nothing answers under this path",
            ));
        }
        _ if !route.methods().include(&parts.method) => return Ok(method_not_allowed(route)),
        // Who watches the node needs no key.
        Route::Live | Route::Ready => return about(doors, route),
        Route::Infer(target) => {
            return infer(doors, (target, Wants::Infer), (&parts.headers, body)).await;
        }
        Route::V1(V1::Verb(target, Verb::Predict)) => {
            return infer(doors, (target, Wants::Predict), (&parts.headers, body)).await;
        }
        Route::Text(asked) => {
            // Boxed, so that requests of other kinds are not larger for it.
            return Box::pin(texts::answer(doors, asked, (&parts, body))).await;
        }
        _ => {}
    }
    let caller = caller(doors, &parts.headers)?;
    match route {
        Route::Repository(asked) => {
            // Boxed, so that what a write of the registry keeps is not kept by every request.
            let heard = (&parts.headers, body);
            Box::pin(managed::repository(doors, asked, caller, heard)).await
        }
        Route::SharedMemory(asked) => managed::shared_memory(asked),
        Route::V1(asked) => v1::about(doors, asked),
        Route::Trace(model) => managed::trace(doors, (&parts.method, model)),
        Route::Logging => managed::logging(&parts.method),
        _ => about(doors, route),
    }
}

/// How a request for an inference is written.
#[derive(Clone, Copy)]
enum Wants {
    /// As the Open Inference Protocol has it.
    Infer,
    /// As TensorFlow Serving and KServe's protocol v1 have it.
    Predict,
}

async fn infer(
    doors: &Doors,
    (Target { model, version }, wants): (Target<'_>, Wants),
    (headers, body): (&HeaderMap, Incoming),
) -> Result<Response<AnswerBody>, Failure> {
    let refused = |failure: &Failure| doors.metrics.refused(Protocol::Http, failure.code);
    let sender = Sender::of(doors, headers).inspect_err(refused)?;
    let read = read_inference(doors, headers, body).await;
    let (json_bytes, body) = read.inspect_err(refused)?;
    let outline;
    let content = match wants {
        Wants::Predict => {
            outline = Predict::read(&body).inspect_err(refused)?;
            Content::Predict(&outline)
        }
        Wants::Infer => Content::Json {
            json_bytes,
            body: body.clone(),
        },
    };
    if matches!(wants, Wants::Infer) && wants_events(headers) {
        let request = EventRequest {
            model: model.to_owned(),
            version: version.map(str::to_owned),
            json_bytes,
            body,
            epoch_seen: sender.epoch_seen,
            caller: sender.caller,
            unit: sender.unit,
            sequence: sender.sequence,
        };
        return answer_in_events(doors, request).await;
    }
    let request = sender.asks(model, version, content);
    doors.serving.infer(request).await.map(answered)
}

/// Who sends a request. A bearer token that is not ours says nothing: clients of other protocols
/// always send one.
pub(super) fn caller(doors: &Doors, headers: &HeaderMap) -> Result<Caller, Failure> {
    let shown = headers.get(header::AUTHORIZATION);
    let token = shown.and_then(|value| value.to_str().ok()?.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let ours = token.map(|(_, token)| token.trim());
    let ours = ours.filter(|token| token.starts_with(ApiKey::PREFIX));
    let key = ours.map(str::parse::<ApiKey>).transpose();
    let key = key.map_err(|error| Failure::new(ErrorCode::Unauthenticated, error.to_string()))?;
    doors.serving.tenants.caller(key.as_ref())
}

/// The answer to a method that a path does not take names the one that it does (RFC 9110,
/// section 15.5.6).
fn method_not_allowed(route: Route<'_>) -> Response<AnswerBody> {
    let methods = route.methods();
    let message = format!("this path takes {}", methods.name());
    let mut response = failed(&Failure::new(ErrorCode::MethodNotAllowed, message));
    let allowed = HeaderValue::from_static(methods.allow());
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

fn metrics(doors: &Doors, path: &str) -> Result<Response<AnswerBody>, Failure> {
    if path != "/metrics" {
        let message = "this port answers GET /metrics only";
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    let text = Bytes::from(doors.metrics.render());
    Ok(respond(hyper::StatusCode::OK, PROMETHEUS_TEXT, text))
}

/// The client's request id if it is fit to be repeated, or one of ours.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
    });
    let mut id = given.cloned().unwrap_or_else(|| {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        HeaderValue::from(NEXT.fetch_add(1, Ordering::Relaxed))
    });
    // HTTP/2 would remember every one of them (RFC 7541, section 7.1.3), and compare the next with
    // each that it remembers.
    id.set_sensitive(true);
    id
}

pub(super) fn log_failure(failure: &Failure, path: &str, id: &HeaderValue) {
    let (code, id) = (failure.code.name(), id.to_str().unwrap_or_default());
    let path: String = path.chars().take(256).collect();
    if failure.code.http_status() >= 500 && !failure.code.is_retryable() {
        tracing::warn!(request = id, %path, code, message = %failure, "request failed");
    } else {
        tracing::debug!(request = id, %path, code, message = %failure, "request refused");
    }
}

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// How long a connection may stand still in the middle of something.
const STALL: Duration = Duration::from_millis(STREAM_STALL_MS);
/// Pause when no connection can be accepted, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_repeated_only_if_it_is_harmless() {
        let given = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::try_from(id).unwrap());
            headers
        };
        assert_eq!(request_id(&given("abc-1")), "abc-1");
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_ne!(request_id(&given(bad)), bad);
        }
    }
}
