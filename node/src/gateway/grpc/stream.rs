//! Requests on one stream, each with its answer: `ModelStreamInfer`.
//!
//! A request that fails says so in its answer, and the stream goes on; answers come in the order of
//! their requests, one for each, so that each is its request's final one. The stream has a task of
//! its own, so that requests are read while an answer waits to be taken, and each request one more, so
//! that they run meanwhile. The body owns them all: a call that is reset takes its requests along, and
//! the connection resets one of which nothing is taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use paceline_protocol::limits::STREAM_REQUESTS_MAX;
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Epoch, ErrorCode, Failure};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::body::{CallBody, Piece, Pieces};
use super::messages::Messages;
use super::status::{ACCEPT_ENCODING, CONTENT_TYPE, ENCODINGS, ended, ok};
use super::{metadata, status};
use crate::gateway::Doors;
use crate::gateway::body::{epoch_seen, sequence, unit};
use crate::gateway::infer::{Answered, Content, InferBody};
use crate::gateway::oip::{self, Message, Rendered};
use crate::gateway::server::caller;
use crate::telemetry::metrics::Protocol;
use crate::tenants::Caller;

/// What the headers of a stream say of all its requests.
struct Terms {
    doors: Arc<Doors>,
    caller: Caller,
    epoch_seen: Option<Epoch>,
    unit: Option<Unit>,
    sequence: Option<Unit>,
    /// When its caller waits no longer, if it says so.
    deadline: Option<Instant>,
}

/// A task that ends with this.
struct Running<T>(JoinHandle<T>);

/// The caller takes no more.
struct Gone;

/// Begins a stream.
///
/// # Errors
/// What the headers say cannot be.
pub(super) fn answer(
    doors: &Arc<Doors>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<CallBody>, Failure> {
    let budget = metadata::budget(headers)?;
    let terms = Terms {
        caller: caller(doors, headers)?,
        epoch_seen: epoch_seen(headers)?,
        unit: unit(headers)?,
        sequence: sequence(headers)?,
        deadline: budget.map(|budget| Instant::now() + budget),
        doors: doors.clone(),
    };
    let within = (doors.options.body_bytes_max, doors.bodies.clone());
    let messages = Messages::of(headers, body, within, MESSAGE_LIMIT)?;
    let (sender, pieces) = mpsc::channel(1);
    let task = tokio::spawn(run(Arc::new(terms), messages, sender).in_current_span());
    let mut response = Response::new(CallBody::Stream(Pieces::of(pieces, task.abort_handle())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(ACCEPT_ENCODING, ENCODINGS);
    Ok(response)
}

/// Reads requests and writes answers until both sides have ended.
async fn run(terms: Arc<Terms>, messages: Messages, pieces: mpsc::Sender<Piece>) {
    let (begun, under_way) = mpsc::channel(STREAM_REQUESTS_MAX);
    let reading = async { Ok::<_, Gone>(read(&terms, messages, begun).await) };
    let Ok((read, ())) = tokio::try_join!(reading, write(under_way, &pieces)) else {
        return;
    };
    let trailers = read.map_or_else(|failure| ended(&failure), |()| ok());
    // Nobody is there to hear it otherwise.
    let _gone = pieces.send(Piece::Trailers(trailers)).await;
}

/// Begins each request as it comes. No more are read while as many are under way as may be.
async fn read(
    terms: &Arc<Terms>,
    mut messages: Messages,
    begun: mpsc::Sender<Running<Rendered>>,
) -> Result<(), Failure> {
    let mut stopping = terms.doors.stopping.clone();
    let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    let mut stopped = std::pin::pin!(stopped);
    // The last place is that of the answer which is being written.
    while let Ok(place) = begun.reserve().await {
        let arrived = tokio::select! {
            arrived = messages.next() => arrived?,
            () = stopped.as_mut() => {
                return Err(Failure::new(ErrorCode::ShuttingDown, "the node stops"));
            }
        };
        let Some(arrived) = arrived else {
            return Ok(());
        };
        let request = request(terms.clone(), arrived).in_current_span();
        place.send(Running(tokio::spawn(request)));
    }
    // Whoever writes has ended, and this with it.
    Ok(())
}

/// Writes each answer when it and all before it are there.
async fn write(
    mut under_way: mpsc::Receiver<Running<Rendered>>,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Gone> {
    while let Some(mut running) = under_way.recv().await {
        let rendered = (&mut running.0).await.unwrap_or_else(|_panic| {
            let message = "the request's task ended without a word";
            oip::render_in_stream("", &Failure::new(ErrorCode::Internal, message))
        });
        let slices: VecDeque<Bytes> = std::iter::once(rendered.head)
            .chain(rendered.bodies)
            .collect();
        for mut slice in slices {
            while !slice.is_empty() {
                let piece = slice.split_to(slice.len().min(PIECE_BYTES_MAX));
                let sent = pieces.send(Piece::Data(piece)).await;
                sent.map_err(|_closed| Gone)?;
            }
        }
    }
    Ok(())
}

/// The answer to one request, whatever it is.
async fn request(terms: Arc<Terms>, arrived: Bytes) -> Rendered {
    let doors = &terms.doors;
    let refused = |failure: &Failure| doors.metrics.refused(Protocol::Grpc, failure.code);
    let mut message = match Message::read(&arrived) {
        Ok(message) => message,
        Err(failure) => {
            refused(&failure);
            return oip::render_in_stream(Message::id_in(&arrived), &failure);
        }
    };
    let id = message.id();
    let answered = async {
        doors
            .serving
            .tenants
            .check(terms.caller)
            .inspect_err(refused)?;
        message.in_stream();
        message.counted(&doors.bodies);
        if let Some(deadline) = terms.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(status::expired()).inspect_err(refused);
            }
            message.within(left);
        }
        let request = InferBody {
            model: message.model(),
            version: message.version(),
            content: Content::Message(&message),
            epoch_seen: terms.epoch_seen,
            caller: terms.caller,
            unit: terms.unit.clone(),
            sequence: terms.sequence.clone(),
        };
        doors.serving.infer(request).await
    };
    match answered.await {
        Ok(Answered { rendered, .. }) => rendered,
        Err(failure) => {
            let code = failure.code.name();
            tracing::debug!(code, message = %failure, "request on a stream refused");
            oip::render_in_stream(id, &failure)
        }
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What waits for the connection at once.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// How long one message may take once it has begun: the largest at ten megabits a second.
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);
