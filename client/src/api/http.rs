//! One HTTP exchange with a node: bounded in time and size, and every end of it typed.

use std::io::{self, Read};
use std::time::Duration;

use paceline_protocol::limits::BODY_BYTES_MAX;
use paceline_protocol::operator::ErrorBody;
use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Method, Request, header};
use ureq::{Agent, Body, BodyReader, SendBody};

use super::Belonging;
use super::{ApiError, Authority, NodeAddress};

/// Reaching a node takes one round trip, or a few when packets are lost; past this it is away.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A limit of zero would mean none; anything this short has run out already.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Most of an answer that is no JSON which a message quotes, in characters.
const EXCERPT_CHARS: usize = 200;
const ANYTHING: &str = "*/*";
const EVENT_STREAM: &str = "text/event-stream";

/// The door of one node.
#[derive(Debug)]
pub(crate) struct Door {
    agent: Agent,
    address: NodeAddress,
    /// `Authorization`, if the caller says who they are.
    authorization: Option<String>,
}

/// What to send.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) body: Payload<'a>,
}

/// The body of a call.
pub(crate) enum Payload<'a> {
    None,
    Json(&'a [u8]),
    /// A request to a model, and what it belongs to.
    Inference(&'a [u8], &'a Belonging),
    /// Exactly so many bytes from a reader.
    Bytes {
        reader: &'a mut dyn Read,
        length: u64,
    },
}

/// A success.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Door {
    pub(crate) fn new(
        address: NodeAddress,
        api_key: Option<&str>,
        authority: Option<&Authority>,
    ) -> Self {
        let config = Agent::config_builder()
            // A node is asked directly: a proxy of the environment would not know loopback.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A connection kept idle may be closed by the node just as it is used again, which
            // looks like an answer lost; opening one costs little beside a command.
            .max_idle_connections(0)
            .tls_config(Authority::tls(authority))
            .user_agent(concat!("paceline/", env!("CARGO_PKG_VERSION")));
        Self {
            agent: config.build().new_agent(),
            address,
            authorization: api_key.map(|key| format!("Bearer {key}")),
        }
    }

    pub(crate) fn address(&self) -> &NodeAddress {
        &self.address
    }

    /// Sends `call` and reads the whole answer, all within `limit`.
    pub(crate) fn exchange(&self, call: Call<'_>, limit: Duration) -> Result<Answer, ApiError> {
        let path = call.path;
        let sent = self.send(call, ANYTHING, limit);
        let mut response = sent.map_err(|e| self.lost(path, e))?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(BODY_BYTES_MAX as u64)
            .read_to_vec()
            .map_err(|e| self.lost(path, e))?;
        let headers = response.into_parts().0.headers;
        match status {
            200..=299 => Ok(Answer { headers, body }),
            300..=399 => Err(self.malformed(path, format!("a redirection, status {status}"))),
            _ => Err(refusal(status, &headers, &body)),
        }
    }

    /// Sends `call` and asks for events, which are then read from the body; `limit` is that of all.
    pub(crate) fn events(
        &self,
        call: Call<'_>,
        limit: Duration,
    ) -> Result<(HeaderMap, BodyReader<'static>), ApiError> {
        let path = call.path;
        let mut response = self
            .send(call, EVENT_STREAM, limit)
            .map_err(|e| self.lost(path, e))?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = response.body_mut().read_to_vec();
            let body = body.map_err(|e| self.lost(path, e))?;
            return Err(refusal(status, &response.into_parts().0.headers, &body));
        }
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE);
        if kind.is_none_or(|kind| kind != EVENT_STREAM) {
            return Err(self.malformed(path, "an answer that is no stream of events".to_owned()));
        }
        Ok((parts.headers, body.into_reader()))
    }

    /// Reads the JSON of an answer.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        path: &str,
        answer: &Answer,
    ) -> Result<T, ApiError> {
        serde_json::from_slice(&answer.body).map_err(|e| self.malformed(path, e.to_string()))
    }

    fn send(
        &self,
        call: Call<'_>,
        accept: &str,
        limit: Duration,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let limit = limit.max(TIMEOUT_MIN);
        let mut request = Request::builder()
            .method(call.method)
            .header(header::ACCEPT, accept)
            .uri(self.address.url(call.path));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        match call.body {
            Payload::None => self.run(request.body(())?, limit),
            Payload::Json(bytes) => {
                request = request
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::CONTENT_LENGTH, bytes.len());
                self.run(request.body(bytes)?, limit)
            }
            Payload::Inference(bytes, belonging) => {
                request = request
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::CONTENT_LENGTH, bytes.len());
                let named = [
                    ("paceline-unit", &belonging.unit),
                    ("paceline-sequence", &belonging.sequence),
                ];
                for (name, value) in named {
                    if let Some(value) = value {
                        request = request.header(name, value.as_bytes());
                    }
                }
                self.run(request.body(bytes)?, limit)
            }
            Payload::Bytes { reader, length } => {
                request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, length);
                self.run(request.body(SendBody::from_reader(reader))?, limit)
            }
        }
    }

    fn run<S: ureq::AsSendBody>(
        &self,
        request: Request<S>,
        limit: Duration,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(limit))
            .timeout_connect(Some(limit.min(CONNECT_MAX)))
            .build();
        self.agent.run(request)
    }

    pub(crate) fn malformed(&self, path: &str, reason: String) -> ApiError {
        ApiError::Malformed {
            address: self.address.clone(),
            path: path.to_owned(),
            reason,
        }
    }

    /// Tells what was never sent from what may have arrived.
    fn lost(&self, path: &str, error: ureq::Error) -> ApiError {
        let address = self.address.clone();
        let unreachable = |reason: &str| ApiError::Unreachable {
            address: address.clone(),
            reason: reason.to_owned(),
        };
        match error {
            ureq::Error::HostNotFound => unreachable("the host is not known"),
            ureq::Error::ConnectionFailed => unreachable("no connection"),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                unreachable("it did not respond in time")
            }
            ureq::Error::Io(e) if never_sent(&e) => unreachable(&plain(&e)),
            // No request leaves before hands were shaken.
            ureq::Error::Io(e) if of_tls(&e).is_some() => {
                let reason = of_tls(&e).map(ToString::to_string).unwrap_or_default();
                unreachable(&format!("TLS: {reason}"))
            }
            ureq::Error::Rustls(e) => unreachable(&format!("TLS: {e}")),
            ureq::Error::Tls(reason) => unreachable(&format!("TLS: {reason}")),
            ureq::Error::Timeout(_) => ApiError::NoAnswer {
                address,
                reason: "the time was over".to_owned(),
            },
            ureq::Error::Io(e) => ApiError::NoAnswer {
                address,
                reason: plain(&e),
            },
            other => self.malformed(path, other.to_string()),
        }
    }
}

fn never_sent(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let connecting = matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable
    );
    connecting || error.to_string().starts_with(LOOKUP_FAILED)
}

/// What a handshake failed at; an alert of the other side comes later, too.
fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    (!matches!(inner, rustls::Error::AlertReceived(_))).then_some(inner)
}

/// How the standard library opens the sentence about a name that has no address. It gives such
/// errors no kind of their own; a test holds that the sentence is still this one.
const LOOKUP_FAILED: &str = "failed to lookup address information";

/// The system's sentence without its number, which helps nobody.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let sentence = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

fn refusal(status: u16, headers: &HeaderMap, body: &[u8]) -> ApiError {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
        error: excerpt(status, body),
        code: String::new(),
    });
    ApiError::Refused {
        status,
        code: body.code,
        message: body.error,
        retry_after: seconds.map(Duration::from_secs),
    }
}

/// What to say when something between here and the node answered in its own words.
fn excerpt(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        format!("status {status} without a reason")
    } else {
        let cut: String = words.chars().take(EXCERPT_CHARS).collect();
        format!("status {status}: {cut}")
    }
}
