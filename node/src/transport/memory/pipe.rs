//! One direction of a stream in memory: chunks, each with the moment at which it arrives.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use bytes::Bytes;
use paceline_protocol::NodeId;
use tokio::time::Instant;

use super::WINDOW_BYTES;

/// A node in one of its lives.
pub(super) type Life = (NodeId, u64);

pub(super) struct Pipe {
    pub(super) from: Life,
    pub(super) to: Life,
    chunks: VecDeque<(Instant, Bytes)>,
    buffered: usize,
    last_arrival: Option<Instant>,
    end: Option<(Instant, Ended)>,
    /// The reader has gone.
    stopped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a direction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All that was written is delivered.
    Finished,
    /// Nothing more is.
    Reset,
}

/// What a reader finds.
pub(super) enum Read {
    Bytes(Bytes),
    End,
    /// Nothing before this moment, unless something happens.
    Wait(Option<Instant>),
}

impl Pipe {
    pub(super) fn new(from: Life, to: Life) -> Self {
        Self {
            from,
            to,
            chunks: VecDeque::new(),
            buffered: 0,
            last_arrival: None,
            end: None,
            stopped: false,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn write(
        &mut self,
        arrival: Instant,
        bytes: &[u8],
        waker: &Waker,
    ) -> io::Result<Option<usize>> {
        if self.stopped || self.end.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(WINDOW_BYTES - self.buffered);
        if taken == 0 && !bytes.is_empty() {
            self.writer = Some(waker.clone());
            return Ok(None);
        }
        let arrival = self.in_order(arrival);
        let chunk = Bytes::copy_from_slice(&bytes[..taken]);
        self.chunks.push_back((arrival, chunk));
        self.buffered += taken;
        self.wake_reader();
        Ok(Some(taken))
    }

    /// Ends the direction; a reset may follow a finish, nothing follows a reset.
    pub(super) fn finish(&mut self, arrival: Instant, how: Ended) {
        let is_new = match self.end {
            None => true,
            Some((_, before)) => before == Ended::Finished && how == Ended::Reset,
        };
        if is_new {
            let arrival = self.in_order(arrival);
            self.end = Some((arrival, how));
            self.wake_all();
        }
    }

    pub(super) fn read(&mut self, now: Instant, limit: usize, waker: &Waker) -> io::Result<Read> {
        if matches!(self.end, Some((at, Ended::Reset)) if at <= now) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match (self.chunks.front_mut(), self.end) {
            (Some((at, chunk)), _) if *at <= now => {
                let bytes = chunk.split_to(limit.min(chunk.len()));
                if chunk.is_empty() {
                    self.chunks.pop_front();
                }
                self.buffered -= bytes.len();
                self.wake_writer();
                Ok(Read::Bytes(bytes))
            }
            (None, Some((at, _))) if at <= now => Ok(Read::End),
            (Some(&mut (at, _)), _) | (None, Some((at, _))) => {
                self.wait(waker);
                Ok(Read::Wait(Some(at)))
            }
            (None, None) => {
                self.wait(waker);
                Ok(Read::Wait(None))
            }
        }
    }

    /// Keeps the reader's waker until something happens.
    pub(super) fn wait(&mut self, waker: &Waker) {
        self.reader = Some(waker.clone());
    }

    /// When something was last under way; from now on, if nothing ever was.
    pub(super) fn last_arrival(&mut self, now: Instant) -> Instant {
        *self.last_arrival.get_or_insert(now)
    }

    /// The reader has gone. Says whether the writer has too.
    pub(super) fn stop(&mut self) -> bool {
        self.stopped = true;
        self.chunks.clear();
        self.buffered = 0;
        self.wake_writer();
        self.end.is_some()
    }

    pub(super) fn wake_all(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn in_order(&mut self, arrival: Instant) -> Instant {
        let arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
        self.last_arrival = Some(arrival);
        arrival
    }
}
