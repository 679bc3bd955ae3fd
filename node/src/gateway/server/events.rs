//! Answers as server-sent events (WHATWG HTML, section 9.2): one for each part, and one at the end.
//!
//! The request runs in a task of its own, so that a client which reads nothing is noticed; the body
//! owns the task, so that a client which goes takes its request along. Between the two there is one
//! slice of one part: the client's pace is the request's.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderValue};
use paceline_protocol::limits::STREAM_STALL_MS;
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Epoch, ErrorCode, Failure, VersionNumber};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::Instrument;

use super::respond::{STALE, VERSION};
use crate::gateway::Doors;
use crate::gateway::body::{AnswerBody, EPOCH};
use crate::gateway::infer::{Content, Disconnected, EventPart, InferBody, Moved, Taker};
use crate::gateway::oip;
use crate::tenants::Caller;
use crate::transport::Boxed;

/// A request that is to be answered in events, on its own.
pub(super) struct EventRequest {
    pub(super) model: String,
    pub(super) version: Option<String>,
    pub(super) json_bytes: Option<usize>,
    pub(super) body: Bytes,
    pub(super) epoch_seen: Option<Epoch>,
    pub(super) caller: Caller,
    pub(super) unit: Option<Unit>,
    pub(super) sequence: Option<Unit>,
}

/// The body of an answer in events. Dropping it cancels the request.
pub(in crate::gateway) struct Events {
    slices: mpsc::Receiver<Slice>,
    is_complete: bool,
    _request: Request,
}

/// The task of a request, which ends with this.
struct Request(AbortHandle);

/// A piece of the body.
struct Slice {
    bytes: Bytes,
    is_last: bool,
}

/// What is known before the first byte.
struct Head {
    version: VersionNumber,
    epoch: Epoch,
    stale_seconds: Option<u64>,
}

/// Where the parts of one request go.
struct Outlet {
    head: Option<oneshot::Sender<Result<Head, Failure>>>,
    slices: mpsc::Sender<Slice>,
    /// What is left of the part.
    rest: VecDeque<Bytes>,
    parts: u64,
}

/// Whether a client wants its answer in events.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    let accepted = accepted.iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(EVENT_STREAM)
    })
}

/// Answers a request in events. What fails before the first part is a status as ever.
pub(super) async fn answer_in_events(
    doors: &Doors,
    request: EventRequest,
) -> Result<Response<AnswerBody>, Failure> {
    let (head, begun) = oneshot::channel();
    let (sender, slices) = mpsc::channel(1);
    let serving = doors.serving.clone();
    let running = async move {
        let mut outlet = Outlet {
            head: Some(head),
            slices: sender,
            rest: VecDeque::new(),
            parts: 0,
        };
        let body = InferBody {
            model: &request.model,
            version: request.version.as_deref(),
            content: Content::Json {
                json_bytes: request.json_bytes,
                body: request.body,
            },
            epoch_seen: request.epoch_seen,
            caller: request.caller,
            unit: request.unit,
            sequence: request.sequence,
        };
        let ended = serving.stream_events(body, &mut outlet).await;
        outlet.end(ended).await;
    };
    let task = tokio::spawn(running.in_current_span());
    let events = Events {
        slices,
        is_complete: false,
        _request: Request(task.abort_handle()),
    };
    let head = begun.await.unwrap_or_else(|_dropped| {
        let message = "the request's task ended without a word";
        Err(Failure::new(ErrorCode::Internal, message))
    })?;
    let mut response = Response::new(AnswerBody::Events(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VERSION, HeaderValue::from(head.version.0));
    headers.insert(EPOCH, HeaderValue::from(head.epoch.0));
    if let Some(seconds) = head.stale_seconds {
        headers.insert(STALE, HeaderValue::from(seconds));
    }
    Ok(response)
}

impl Taker<EventPart> for Outlet {
    fn begin(&mut self, part: EventPart) -> Result<(), Failure> {
        if let Some(head) = self.head.take() {
            let EventPart {
                version,
                epoch,
                stale_seconds,
                ..
            } = part;
            // A client that has gone is noticed where nothing is taken.
            let _ = head.send(Ok(Head {
                version,
                epoch,
                stale_seconds,
            }));
        }
        self.parts += 1;
        let mut json = part.json;
        self.rest.push_back(Bytes::from_static(b"data: "));
        while json.len() > SLICE_BYTES {
            self.rest.push_back(json.split_to(SLICE_BYTES));
        }
        self.rest.push_back(json);
        self.rest.push_back(Bytes::from_static(b"\n\n"));
        Ok(())
    }

    fn moved(&mut self) -> Boxed<'_, Result<Moved, Disconnected>> {
        Box::pin(async move {
            // The one before was taken once there is room for the next.
            let place = self.slices.reserve().await.map_err(|_gone| Disconnected)?;
            match self.rest.pop_front() {
                Some(bytes) => {
                    let is_last = false;
                    place.send(Slice { bytes, is_last });
                    Ok(Moved::Some)
                }
                None => Ok(Moved::All),
            }
        })
    }
}

impl Outlet {
    /// The stream has ended: says how, unless nobody listens.
    async fn end(mut self, ended: Result<u64, Failure>) {
        let (failure, rows) = match ended {
            Ok(rows) => (None, rows),
            Err(failure) => (Some(failure), 0),
        };
        if let (Some(head), Some(failure)) = (self.head.take(), &failure) {
            let _ = head.send(Err(failure.clone()));
            return;
        }
        let event = match &failure {
            None => {
                let parts = self.parts;
                format!("event: end\ndata: {{\"rows\":{rows},\"parts\":{parts}}}\n\n").into_bytes()
            }
            Some(failure) => {
                tracing::debug!(code = failure.code.name(), message = %failure, "stream failed");
                [
                    &b"event: error\ndata: "[..],
                    &oip::render_failure(failure),
                    b"\n\n",
                ]
                .concat()
            }
        };
        // A part that was begun stands in front of it.
        self.rest.push_back(event.into());
        let said = async {
            while let Some(bytes) = self.rest.pop_front() {
                let is_last = self.rest.is_empty();
                let sent = self.slices.send(Slice { bytes, is_last }).await;
                sent.map_err(|_gone| Disconnected)?;
            }
            Ok::<(), Disconnected>(())
        };
        // Who does not take it in that time sees the connection break.
        drop(timeout(STALL, said).await);
    }
}

impl Events {
    /// The next piece. A body that ends before its last one breaks its connection, so that nobody
    /// takes it for whole.
    pub(in crate::gateway) fn poll_slice(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_complete {
            return Poll::Ready(None);
        }
        let slice = self.slices.poll_recv(context);
        slice.map(|slice| match slice {
            Some(Slice { bytes, is_last }) => {
                self.is_complete = is_last;
                Some(Ok(Frame::data(bytes)))
            }
            None => Some(Err(axum::Error::new(Disconnected))),
        })
    }

    /// Whether all has been taken.
    pub(in crate::gateway) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const EVENT_STREAM: &str = "text/event-stream";
/// A piece that a connection takes at a time: what shows that a slow client still reads.
const SLICE_BYTES: usize = 64 << 10;
const STALL: Duration = Duration::from_millis(STREAM_STALL_MS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sent_to_who_names_them() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::try_from(accept).expect("it is a header's value");
            headers.insert(header::ACCEPT, value);
            wants_events(&headers)
        };
        for accept in [
            "text/event-stream",
            "application/json;q=0.2, Text/Event-Stream;q=1",
        ] {
            assert!(wants(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "text/event-streams", ""] {
            assert!(!wants(accept), "{accept}");
        }
        assert!(!wants_events(&HeaderMap::new()));
    }
}
