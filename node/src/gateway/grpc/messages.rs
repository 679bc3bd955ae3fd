//! Messages of a call, as they arrive: one in a single piece is not copied.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use paceline_protocol::{ErrorCode, Failure};
use tokio::time::timeout;

use super::decompress::decompress;
use super::metadata::{Encoding, encoding};
use super::status::expired;
use crate::gateway::bodies::{Bodies, Place};
use crate::gateway::oip::FRAME_BYTES;

/// The messages of one call.
pub(super) struct Messages {
    body: Incoming,
    encoding: Encoding,
    /// What has arrived and was not read.
    pending: Bytes,
    limit: usize,
    bodies: Bodies,
    /// How long a message may take once it has begun.
    patience: Duration,
}

impl Messages {
    /// The messages of a call, each of at most `limit` bytes and within `patience` once it has begun.
    ///
    /// # Errors
    /// They are compressed as this node does not take it.
    pub(super) fn of(
        headers: &HeaderMap,
        body: Incoming,
        (limit, bodies): (usize, Bodies),
        patience: Duration,
    ) -> Result<Self, Failure> {
        Ok(Self {
            body,
            encoding: encoding(headers)?,
            pending: Bytes::new(),
            limit,
            bodies,
            patience,
        })
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    /// There are none or several, or as [`Messages::next`].
    pub(super) async fn only(mut self) -> Result<Bytes, Failure> {
        let invalid = |message| Failure::new(ErrorCode::MessageInvalid, message);
        let Some(message) = self.next().await? else {
            return Err(invalid("the call has no message; allowed: one"));
        };
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(invalid("the call has more than one message; allowed: one")),
        }
    }

    /// The next message, which keeps its room for as long as there is a slice of it; `None` when the
    /// caller has sent all.
    ///
    /// # Errors
    /// It is over the limit, cut off, wrongly compressed, or there is no room for it.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while self.pending.len() < FRAME_BYTES {
            match self.more().await? {
                Some(data) if self.pending.is_empty() => self.pending = data,
                Some(data) => self.pending = [&self.pending[..], &data[..]].concat().into(),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(cut_off()),
            }
        }
        let is_compressed = match self.pending.get_u8() {
            0 => false,
            1 => true,
            flag => {
                let message = format!("a message begins with {flag}; allowed: 0 or 1");
                return Err(Failure::new(ErrorCode::MessageInvalid, message));
            }
        };
        let length = self.pending.get_u32() as usize;
        if length > self.limit {
            let message = format!(
                "a message has {length} bytes; at most {} are allowed",
                self.limit
            );
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
        let mut place = self.bodies.place();
        let whole = timeout(self.patience, self.whole(length, &mut place)).await;
        let mut message = whole.map_err(|_late| expired())??;
        if is_compressed {
            message = decompress(message, self.encoding, (self.limit, &mut place)).await?;
        }
        Ok(Some(match place.is_empty() {
            true => message,
            false => place.hold(message),
        }))
    }

    /// So many bytes. Memory is taken for what arrives, not for what is announced; what came in one
    /// piece, a frame of HTTP/2 at most, stays where it is and is not counted.
    async fn whole(&mut self, length: usize, place: &mut Place) -> Result<Bytes, Failure> {
        if self.pending.len() >= length {
            return Ok(self.pending.split_to(length));
        }
        let mut piece = std::mem::take(&mut self.pending);
        let mut whole = place.buffer(length.min(START_BYTES).max(piece.len()));
        loop {
            let rest = length - whole.len();
            let taken = piece.split_to(piece.len().min(rest));
            place.grow(whole.len() + taken.len())?;
            if whole.capacity() - whole.len() < taken.len() {
                let sensible = (whole.len() * 4).max(taken.len());
                whole.reserve(sensible.min(rest));
            }
            whole.extend_from_slice(&taken);
            if whole.len() == length {
                self.pending = piece;
                return Ok(Bytes::from_owner(whole));
            }
            piece = self.more().await?.ok_or_else(cut_off)?;
        }
    }

    /// Bytes that have arrived; `None` at the end.
    async fn more(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.body.is_end_stream()
            && let Some(frame) = self.body.frame().await
        {
            let frame = frame.map_err(|_| taken_back())?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        // A body ends without an error, too, when its call is cancelled.
        match self.body.is_end_stream() {
            true => Ok(None),
            false => Err(taken_back()),
        }
    }
}

fn taken_back() -> Failure {
    let message = "the call was broken off before its message was whole";
    Failure::new(ErrorCode::Cancelled, message)
}

fn cut_off() -> Failure {
    let message = "the call ends inside a message";
    Failure::new(ErrorCode::MessageInvalid, message)
}

/// Memory for a message of several pieces at the start: an image of 224 x 224 pixels fits.
const START_BYTES: usize = 1 << 20;
