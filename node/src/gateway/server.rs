//! Doors: connections over HTTP/1.1, and which part of the node answers a request.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use paceline_protocol::{ErrorCode, Failure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::Instrument;

use super::Doors;
use super::body::{AnswerBody, EPOCH, JSON_BYTES, epoch_seen, read_inference};
use super::front::{Accepted, Accepting, Door};
use super::infer::{Answered, InferBody};
use super::oip::{self, ModelMetadata};
use super::path::Route;
use crate::telemetry::metrics::Protocol;

/// Limits of the doors.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// How long a request's header may take to arrive.
    pub header_timeout: Duration,
    /// Whether only requests made to a loopback address are answered.
    pub loopback_only: bool,
}

/// Accepts connections until its task ends. Running out of files slows it down and ends
/// nothing.
pub(super) async fn accept(listener: Arc<Accepting>, doors: Arc<Doors>, door: Door) {
    let places = Arc::new(Semaphore::new(doors.options.connections_max));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
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

async fn serve<S>(stream: S, doors: Arc<Doors>, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stopping = doors.stopping.clone();
    let header_timeout = doors.options.header_timeout;
    let service = service_fn(move |request| answer(doors.clone(), door, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let stop = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    // An error here is the client's: it went away, or spoke something else than HTTP.
    tokio::select! {
        result = connection.as_mut() => drop(result),
        () = stop => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

async fn answer(
    doors: Arc<Doors>,
    door: Door,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let id = request_id(request.headers());
    let span = tracing::debug_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = async {
        let path = request.uri().path().to_owned();
        match dispatch(&doors, door, request).await {
            Ok(response) => response,
            Err(failure) => {
                log_failure(&failure, &path, &id);
                failed(&failure)
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
    Ok(response)
}

/// What every answer says of the node that gives it.
fn about_the_node(doors: &Doors, headers: &mut HeaderMap) {
    if let Some(seconds) = doors.serving.contact.stale_seconds() {
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
        check_host(request.headers())?;
    }
    if door == Door::Metrics {
        return metrics(doors, request.uri().path());
    }
    let (parts, body) = request.into_parts();
    let route = Route::of(parts.uri.path());
    match route {
        Route::Operator => {
            let request = Request::from_parts(parts, axum::body::Body::new(body));
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
        _ if parts.method != route.method()
            && !(parts.method == hyper::Method::HEAD && route.method() == hyper::Method::GET) =>
        {
            return Ok(method_not_allowed(route));
        }
        _ => {}
    }
    match route {
        Route::Infer { model, version } => {
            let (headers, limit) = (&parts.headers, doors.options.body_bytes_max);
            let refused = |failure: &Failure| doors.metrics.refused(Protocol::Http, failure.code);
            if let Some(seen) = epoch_seen(headers).inspect_err(refused)? {
                let reached = doors.serving.reach(seen).await;
                reached.inspect_err(refused)?;
            }
            let read = read_inference(headers, body, limit).await;
            let (json_bytes, body) = read.inspect_err(refused)?;
            let request = InferBody {
                model,
                version,
                json_bytes,
                body,
            };
            doors.serving.infer(request).await.map(answered)
        }
        _ => about(doors, route),
    }
}

/// The answer to a method that a path does not take names the one that it does (RFC 9110,
/// section 15.5.6).
fn method_not_allowed(route: Route<'_>) -> Response<AnswerBody> {
    let method = route.method();
    let message = format!("this path takes {method}");
    let mut response = failed(&Failure::new(ErrorCode::MethodNotAllowed, message));
    let allowed = if method == hyper::Method::GET {
        HeaderValue::from_static("GET,HEAD")
    } else {
        HeaderValue::from_static("POST")
    };
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// What the protocol tells about the server and its models.
fn about(doors: &Doors, route: Route<'_>) -> Result<Response<AnswerBody>, Failure> {
    let routes = doors.serving.router.routes();
    let json = |status: StatusCode, body: Bytes| Ok(respond(status, JSON, body));
    match route {
        Route::Live => json(StatusCode::OK, oip::live(true)),
        Route::Ready => {
            let ready = doors.readiness.is_ready();
            json(ready_status(ready), oip::ready(ready))
        }
        Route::Server => json(
            StatusCode::OK,
            oip::server(env!("CARGO_PKG_VERSION"), &oip::EXTENSIONS),
        ),
        Route::Models => json(StatusCode::OK, oip::models(routes.names())),
        Route::Model { model, version } => {
            let known = routes.model(model)?;
            let chosen = routes.resolve(model, version)?;
            let serving: Vec<_> = known.versions.keys().copied().collect();
            let versions = match version {
                Some(_) => std::slice::from_ref(&chosen.version),
                None => &serving,
            };
            let metadata = ModelMetadata {
                name: model,
                versions,
                family: &chosen.family,
                signature: &chosen.signature,
            };
            json(StatusCode::OK, oip::model(&metadata))
        }
        Route::ModelReady { model, version } => {
            routes.model(model)?;
            let ready = match routes.resolve(model, version) {
                Ok(version) => version.ready > 0,
                Err(failure) if failure.code == ErrorCode::ModelNotReady => false,
                Err(failure) => return Err(failure),
            };
            json(ready_status(ready), oip::model_ready(model, ready))
        }
        Route::Infer { .. } | Route::Operator | Route::Unknown => {
            unreachable!("answered before")
        }
    }
}

fn metrics(doors: &Doors, path: &str) -> Result<Response<AnswerBody>, Failure> {
    if path != "/metrics" {
        let message = "this port answers GET /metrics only";
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    let text = Bytes::from(doors.metrics.render());
    Ok(respond(StatusCode::OK, PROMETHEUS_TEXT, text))
}

fn answered(answered: Answered) -> Response<AnswerBody> {
    let Answered {
        rendered,
        version,
        epoch,
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
    if let Some(bytes) = rendered.json_bytes {
        headers.insert(JSON_BYTES, HeaderValue::from(bytes));
    }
    response
}

/// A failure as HTTP says it: the one border where codes become statuses.
pub(super) fn failed(failure: &Failure) -> Response<AnswerBody> {
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

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::one(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn ready_status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Refuses what a foreign web page could have sent here: without keys, only requests made to
/// this machine's own address, from a page of its own, are answered.
fn check_host(headers: &HeaderMap) -> Result<(), Failure> {
    let refuse = |what: &str| {
        let message =
            format!("{what} is not a loopback address; nodes without keys answer no others");
        Failure::new(ErrorCode::HostRefused, message)
    };
    if let Some(host) = headers.get(header::HOST) {
        let host = host.to_str().unwrap_or_default();
        if !is_loopback(host) {
            return Err(refuse("the Host header"));
        }
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if !host.is_some_and(is_loopback) {
            return Err(refuse("the Origin header"));
        }
    }
    Ok(())
}

/// Whether `host[:port]` names this machine itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The client's request id if it is fit to be repeated, or one of ours.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        HeaderValue::from(NEXT.fetch_add(1, Ordering::Relaxed))
    })
}

fn log_failure(failure: &Failure, path: &str, id: &HeaderValue) {
    let (code, id) = (failure.code.name(), id.to_str().unwrap_or_default());
    let path: String = path.chars().take(256).collect();
    if failure.code.http_status() >= 500 && !failure.code.is_retryable() {
        tracing::warn!(request = id, %path, code, message = %failure, "request failed");
    } else {
        tracing::debug!(request = id, %path, code, message = %failure, "request refused");
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const VERSION: HeaderName = HeaderName::from_static("paceline-version");
const STALE: HeaderName = HeaderName::from_static("paceline-stale");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// Headers of one request: proxies add a dozen to a client's dozen.
const HEADERS_MAX: usize = 100;
/// Bytes of one request's header.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Pause when no connection can be accepted, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        });
        pairs.collect()
    }

    #[test]
    fn only_loopback_hosts_and_origins_are_answered() {
        let good = [
            "127.0.0.1:8000",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8000",
            "127.9.9.9",
        ];
        for host in good {
            assert!(check_host(&headers(&[("host", host)])).is_ok(), "{host}");
            let origin = format!("http://{host}");
            assert!(
                check_host(&headers(&[("origin", &origin)])).is_ok(),
                "{origin}"
            );
        }
        for host in [
            "example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:8000",
            "[::2]",
            "localhost.x",
            "",
        ] {
            assert!(check_host(&headers(&[("host", host)])).is_err(), "{host}");
        }
        for origin in [
            "null",
            "http://example.com",
            "file://x",
            "http://localhost.example.com",
        ] {
            assert!(
                check_host(&headers(&[("origin", origin)])).is_err(),
                "{origin}"
            );
        }
        assert!(check_host(&headers(&[])).is_ok(), "HTTP/1.0 needs no Host");
    }

    #[test]
    fn a_request_id_is_repeated_only_if_it_is_harmless() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")])), "abc-1");
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_ne!(request_id(&headers(&[("x-request-id", bad)])), bad);
        }
    }
}
