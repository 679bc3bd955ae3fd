//! One connection of a client: which protocol it speaks, its requests, and its end.
//!
//! A client says what it speaks with its first bytes (RFC 9113, section 3.3), or has agreed on it
//! under TLS. They are read once, so HTTP/1.1 pays nothing for HTTP/2 beside it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use paceline_core::patience::{Options, Patience, Verdict};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::outgoing::{Outgoing, Streams};
use super::wire::{Seen, Wire};
use super::{Doors, STALL, answer};
use crate::gateway::PROTOCOLS;
use crate::gateway::front::Door;
use crate::gateway::grpc;
use crate::gateway::guests::Counted;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
}

/// What a connection is served with.
struct Guest {
    doors: Arc<Doors>,
    door: Door,
    seen: Arc<Seen>,
}

/// What one connection of HTTP/2 may have under way.
#[derive(Clone, Copy)]
struct Room {
    streams_max: u32,
    /// What a client may send of one body before it is read.
    stream_window_bytes: u32,
    /// The same of all bodies of a connection.
    connection_window_bytes: u32,
    /// Whether answers say when they were given.
    has_date: bool,
    /// Streams that a client may open and reset before they are looked at; above it, it is told
    /// ENHANCE_YOUR_CALM (CVE-2023-44487).
    resets_pending_max: usize,
    /// Streams that may end for a client's errors in the protocol, for the same reason, in all. What
    /// still comes for a call that was refused early is one, too.
    errors_reset_max: usize,
}

/// Serves a connection until it ends.
pub(super) async fn serve<S>(stream: S, doors: Arc<Doors>, door: Door)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match doors.tls.clone().filter(|_| door != Door::Metrics) {
        None => converse(stream, None, doors, door).await,
        Some(tls) => {
            let mut stopping = doors.stopping.clone();
            let shaken = tokio::select! {
                biased;
                shaken = tls.accept(stream) => shaken,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            match shaken {
                Ok(stream) => {
                    let agreed = stream.get_ref().1.alpn_protocol();
                    let spoken = agreed.filter(|agreed| *agreed == PROTOCOLS[0]);
                    let spoken = spoken.map(|_| Spoken::Http2);
                    Box::pin(converse(stream, spoken, doors, door)).await;
                }
                // The client's: it speaks no TLS, or does not trust the certificate.
                Err(error) => tracing::debug!(%error, "a client's TLS handshake failed"),
            }
        }
    }
}

/// Serves a client that has agreed on what it speaks, or says it with its first bytes.
async fn converse<S>(mut stream: S, agreed: Option<Spoken>, doors: Arc<Doors>, door: Door)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let gauges = doors.metrics.gauges.clone();
    let _counted = (door == Door::Http).then(|| Counted::new(&gauges.http_connections));
    let mut stopping = doors.stopping.clone();
    let stop = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    let hearing = async {
        match agreed {
            Some(spoken) => Some((spoken, Bytes::new())),
            None => hear(&mut stream).await,
        }
    };
    let heard = tokio::select! {
        biased;
        heard = timeout(doors.options.header_timeout, hearing) => heard,
        // Nothing was asked.
        () = stop => return,
    };
    // Who says nothing, or not in time, is not told.
    let Ok(Some((spoken, head))) = heard else {
        return;
    };
    let seen = Arc::new(Seen::default());
    let wire = TokioIo::new(Wire::new(stream, head, seen.clone()));
    let guest = Guest { doors, door, seen };
    match (spoken, door) {
        (Spoken::Http2, Door::Grpc) => guest.speak_http2(wire, grpc::answer).await,
        (Spoken::Http2, _) => guest.speak_http2(wire, answer).await,
        // gRPC has no other form: whoever speaks HTTP/1.1 there would not read an answer.
        (Spoken::Http1, Door::Grpc) => {}
        (Spoken::Http1, _) => guest.speak_http1(wire).await,
    }
}

/// The first bytes, and what they are the beginning of; nothing if there are none.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(Spoken, Bytes)> {
    // Room for a whole small request: it is not read twice.
    let mut head = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        let length = head.len().min(PREFACE.len());
        if head[..length] != PREFACE[..length] {
            return Some((Spoken::Http1, head.freeze()));
        }
        if length == PREFACE.len() {
            return Some((Spoken::Http2, head.freeze()));
        }
    }
}

impl Guest {
    async fn speak_http1<S>(self, wire: TokioIo<Wire<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { doors, door, seen } = &self;
        let service = service_fn(move |request| {
            let open = seen.begin(None);
            let answering = answer(doors.clone(), *door, request);
            async move { Ok::<_, NoError>(Outgoing::answer(answering.await, open)) }
        });
        let connection = http1::Builder::new()
            // `attend` looks after it, with one timer for the connection instead of one for each
            // request.
            .header_read_timeout(None)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(wire, service);
        let connection = pin!(connection);
        let stop = turns(doors.stopping.clone());
        let leave = http1::Connection::graceful_shutdown;
        self.attend(connection, leave, stop).await;
    }

    async fn speak_http2<S, A, F, B>(self, wire: TokioIo<Wire<S>>, answer: A)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        A: Fn(Arc<Doors>, Door, Request<Incoming>) -> F + Copy + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (doors, door, seen) = (self.doors.clone(), self.door, self.seen.clone());
        seen.has_frames();
        let service = service_fn(move |request| {
            let open = seen.begin(until(door, request.headers()));
            // It is some 12 KiB, and what holds it is moved four times.
            let answering = Box::pin(answer(doors.clone(), door, request));
            async move { Ok::<_, NoError>(Outgoing::answer(answering.await, open)) }
        });
        let room = match door {
            Door::Grpc => CALLS,
            Door::Http | Door::Metrics => REQUESTS,
        };
        let connection = http2::Builder::new(Streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(room.streams_max)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .initial_stream_window_size(room.stream_window_bytes)
            .initial_connection_window_size(room.connection_window_bytes)
            .max_frame_size(FRAME_BYTES_MAX)
            .auto_date_header(room.has_date)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(room.resets_pending_max)
            .max_local_error_reset_streams(room.errors_reset_max)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(wire, service);
        let connection = pin!(connection);
        // What is said in HTTP/1.1 with the next answer is said here at once: GOAWAY.
        let (stopping, leaving) = (&self.doors.stopping, self.doors.readiness.leaving());
        let goes = async {
            tokio::select! {
                () = turns(stopping.clone()) => {}
                () = self.leaves(leaving) => {}
            }
        };
        let leave = http2::Connection::graceful_shutdown;
        self.attend(connection, leave, goes).await;
    }

    /// Ends when the node leaves and the connection has brought it a request: a client that comes
    /// nevertheless gets its answer before it is sent elsewhere.
    async fn leaves(&self, leaving: tokio::sync::watch::Receiver<bool>) {
        turns(leaving).await;
        while !self.seen.is_used() {
            tokio::time::sleep(GOAWAY_PAUSE).await;
        }
    }

    /// Runs a connection to its end. When `asked` ends it is asked to leave: it finishes what is
    /// under way. An error is the client's: it went away, or spoke something else than HTTP.
    async fn attend<C, E>(
        &self,
        mut connection: Pin<&mut C>,
        leave: impl Fn(Pin<&mut C>),
        asked: impl Future<Output = ()>,
    ) where
        C: Future<Output = Result<(), E>>,
    {
        let clock = self.doors.serving.clock;
        let options = self.doors.options.patience();
        let mut patience = Patience::new(options, clock.now());
        let first = Instant::now() + options.every();
        let mut looks = interval_at(first, options.every());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = pin!(asked);
        let mut is_leaving = false;
        let mut was_idle = false;
        loop {
            tokio::select! {
                biased;
                // First, so that a request which has arrived is seen.
                result = connection.as_mut() => return drop(result),
                () = &mut asked, if !is_leaving => {
                    is_leaving = true;
                    leave(connection.as_mut());
                }
                _ = looks.tick() => match patience.look(clock.now(), self.seen.look()) {
                    Verdict::Stays => {}
                    // Whoever does not leave at the next look is not listening.
                    Verdict::Idle if was_idle => return,
                    Verdict::Idle => {
                        was_idle = true;
                        leave(connection.as_mut());
                    }
                    Verdict::Ends(reason) => {
                        tracing::debug!(?reason, "a client's connection stood still");
                        return;
                    }
                }
            }
        }
    }
}

impl super::HttpOptions {
    fn patience(&self) -> Options {
        Options {
            header: self.header_timeout,
            idle: self.idle_timeout,
            stall: STALL,
        }
    }
}

/// When a call's client stops waiting by its own word. A request of HTTP has none.
fn until(door: Door, headers: &HeaderMap) -> Option<Instant> {
    let headers = Some(headers).filter(|_| door == Door::Grpc);
    let budget = headers.and_then(grpc::budget)?;
    Some(Instant::now() + budget)
}

/// Ends when what is watched is true.
async fn turns(mut watched: tokio::sync::watch::Receiver<bool>) {
    if watched.wait_for(|is_true| *is_true).await.is_err() {
        // Whoever could say it has gone.
        std::future::pending().await
    }
}

type NoError = std::convert::Infallible;

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read at first: the header and body of a small request.
const FIRST_READ_BYTES: usize = 4 << 10;
/// Headers of one request: proxies add a dozen to a client's dozen.
const HEADERS_MAX: usize = 100;
/// Bytes of one request's header.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Four batches of 64 at a time: more would let one connection have what 256 of HTTP/1.1 have. Of a
/// body an image of 224×224×3 floats comes in two round trips, and four large ones do not hold up
/// each other.
const REQUESTS: Room = Room {
    streams_max: 256,
    stream_window_bytes: 1 << 20,
    connection_window_bytes: 4 << 20,
    has_date: true,
    resets_pending_max: 20,
    errors_reset_max: 256,
};
/// A client of gRPC has one connection for all that it does, and may give up all of it at once:
/// deadlines end in resets.
const CALLS: Room = Room {
    streams_max: 1_024,
    stream_window_bytes: 1 << 20,
    connection_window_bytes: 4 << 20,
    // No client of gRPC reads it, and a header costs more than a field of a message.
    has_date: false,
    resets_pending_max: 1_024,
    errors_reset_max: 64 << 10,
};
/// What a client may send in one frame, if it likes: a frame is read at once, and an image of 600 KB
/// in ten pieces in place of 37. Not more than a body has to bring in a while, since what is seen of
/// a body are its frames.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// What is kept of one answer until its stream has room: four slices.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// A peer that is lost while nothing is under way is noticed by pings: as often as a NAT forgets at
/// the earliest.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// What a ping may take: as long as a connection may stand still.
const PING_TIMEOUT: Duration = STALL;
/// How often a node that leaves looks whether a new connection has been used.
const GOAWAY_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_a_time_of_their_own_and_requests_have_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(until(Door::Grpc, &headers), None);
        headers.insert("grpc-timeout", "10S".parse().unwrap());
        let left = until(Door::Grpc, &headers).map(|until| until - Instant::now());
        assert!(left.is_some_and(|left| left.as_secs() >= 8), "{left:?}");
        assert_eq!(until(Door::Http, &headers), None);
    }

    async fn heard(parts: &[&[u8]]) -> Option<(Spoken, Bytes)> {
        use tokio::io::AsyncWriteExt;
        let (mut ours, mut theirs) = tokio::io::duplex(7);
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let writing = tokio::spawn(async move {
            for part in parts {
                // Who has heard enough reads no more.
                if ours.write_all(&part).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let heard = hear(&mut theirs).await;
        drop(theirs);
        writing.await.expect("it does not panic");
        heard
    }

    #[tokio::test]
    async fn the_first_bytes_say_what_is_spoken_in_whatever_pieces_they_come() {
        let (spoken, head) = heard(&[b"GET /v2 HTTP/1.1\r\n"]).await.unwrap();
        assert_eq!(spoken, Spoken::Http1);
        assert!(b"GET /v2 HTTP/1.1\r\n".starts_with(&head) && !head.is_empty());
        // A method that begins like the preface.
        let (spoken, _) = heard(&[b"PR", b"OPFIND"]).await.unwrap();
        assert_eq!(spoken, Spoken::Http1);
        let (front, back) = PREFACE.split_at(5);
        let (spoken, head) = heard(&[front, back, b"more"]).await.unwrap();
        assert_eq!(spoken, Spoken::Http2);
        assert!(head.starts_with(PREFACE));
        assert_eq!(heard(&[front]).await, None, "it was cut off");
        assert_eq!(heard(&[]).await, None);
    }
}
