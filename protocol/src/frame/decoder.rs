//! A machine that turns the bytes of a stream into frames, however they are cut.
//!
//! It knows no stream: whoever reads one feeds it. Lengths are checked before anything is
//! allocated for them, and memory follows what has arrived, not what was promised: a peer that
//! announces a gigabyte and sends nothing costs 64 KiB.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, BytesMut};

use super::{Frame, FrameError, PRELUDE_BYTES, Prelude};
use crate::buffer::AlignedBuffer;
use crate::limits::{BODY_BYTES_MAX, FRAME_HEADER_BYTES_MAX};

/// Collects the bytes of one stream. After an error the stream has no more frames: where the
/// next one would begin is not known.
#[derive(Debug)]
pub struct FrameDecoder {
    body_bytes_max: usize,
    /// Prelude and header, as far as they have come, of a frame that came in pieces.
    head: Vec<u8>,
    body: Option<Body>,
}

/// A body that is being collected; the header lies complete in `head`.
#[derive(Debug)]
struct Body {
    prelude: Prelude,
    buffer: AlignedBuffer,
    room: usize,
}

impl FrameDecoder {
    /// A decoder for a stream whose frames have bodies of at most `body_bytes_max`.
    ///
    /// # Panics
    /// If the limit is over [`BODY_BYTES_MAX`].
    pub fn new(body_bytes_max: usize) -> Self {
        assert!(body_bytes_max <= BODY_BYTES_MAX, "over the limit of limits");
        Self {
            body_bytes_max,
            head: Vec::new(),
            body: None,
        }
    }

    /// Takes bytes off the front of `bytes`, as many as are wanted for one frame. `None` means
    /// that all were taken and the frame is not complete. The tensors of a frame are aligned.
    ///
    /// Cost: a frame that lies whole in `bytes` is copied once, its body; one in pieces is
    /// collected, and copied once more in part while its buffer grows.
    ///
    /// # Errors
    /// [`FrameError`]: what comes on this stream is not to be understood any more.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.body.is_none() {
            if self.head.is_empty()
                && let Some(frame) = self.whole(bytes)?
            {
                return Ok(Some(frame));
            }
            let Some(prelude) = self.collect_head(bytes)? else {
                return Ok(None);
            };
            self.body = Some(Body::new(prelude));
        }
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        while body.missing() > 0 && !bytes.is_empty() {
            body.grow();
            let taken = body.free().min(bytes.len());
            body.buffer.extend(&bytes[..taken]);
            bytes.advance(taken);
        }
        if body.missing() > 0 {
            return Ok(None);
        }
        self.complete().map(Some)
    }

    /// How many bytes of the body that is being collected have not come yet: 0 between frames
    /// and within a header.
    pub fn missing(&self) -> usize {
        self.body.as_ref().map_or(0, Body::missing)
    }

    /// Room for some of the bytes that are [`missing`](Self::missing), to read a stream into
    /// without another copy. Once bytes were put there, [`feed`](Self::feed) says, also of no
    /// further bytes, whether the frame is complete.
    pub fn room(&mut self) -> Option<Limit<&mut BytesMut>> {
        let body = self.body.as_mut().filter(|body| body.missing() > 0)?;
        body.grow();
        let free = body.free();
        Some(body.buffer.bytes_mut().limit(free))
    }

    /// Whether no frame has begun: a stream that ends here has lost nothing.
    pub fn is_between_frames(&self) -> bool {
        self.head.is_empty()
    }

    /// A frame that lies whole at the front of `bytes`, without collecting it.
    fn whole(&self, bytes: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let Some((first, rest)) = bytes.split_first_chunk::<PRELUDE_BYTES>() else {
            return Ok(None);
        };
        let prelude = Prelude::parse(first, self.body_bytes_max)?;
        let Some((head, rest)) = rest.split_at_checked(prelude.header_span) else {
            return Ok(None);
        };
        let Some((body, rest)) = rest.split_at_checked(prelude.body_bytes) else {
            return Ok(None);
        };
        let body = AlignedBuffer::copied(body);
        let frame = Frame::decode(&head[..prelude.header_bytes], &body)?;
        *bytes = rest;
        Ok(Some(frame))
    }

    fn collect_head(&mut self, bytes: &mut &[u8]) -> Result<Option<Prelude>, FrameError> {
        if !self.take_head(bytes, PRELUDE_BYTES) {
            return Ok(None);
        }
        let first = self.head.first_chunk().expect("as many bytes were taken");
        let prelude = Prelude::parse(first, self.body_bytes_max)?;
        let is_whole = self.take_head(bytes, PRELUDE_BYTES + prelude.header_span);
        Ok(is_whole.then_some(prelude))
    }

    /// Moves bytes into the head until it has `wanted`; whether it does.
    fn take_head(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let taken = wanted.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..taken]);
        bytes.advance(taken);
        self.head.len() >= wanted
    }

    fn complete(&mut self) -> Result<Frame, FrameError> {
        let Body {
            prelude, buffer, ..
        } = self.body.take().expect("the caller has looked at it");
        let header = &self.head[PRELUDE_BYTES..PRELUDE_BYTES + prelude.header_bytes];
        let frame = Frame::decode(header, &buffer.freeze());
        self.head.clear();
        self.head.shrink_to(HEAD_BYTES_KEPT);
        frame
    }
}

impl Body {
    fn new(prelude: Prelude) -> Self {
        let room = prelude.body_bytes.min(ROOM_BYTES_FIRST);
        Self {
            prelude,
            buffer: AlignedBuffer::with_capacity(room),
            room,
        }
    }

    fn missing(&self) -> usize {
        self.prelude.body_bytes - self.buffer.len()
    }

    /// Bytes that fit the buffer as it is.
    fn free(&self) -> usize {
        self.room - self.buffer.len()
    }

    /// Makes room once the buffer is full. Growing by a factor of 16 copies less than 7 % of
    /// the bytes a second time.
    fn grow(&mut self) {
        if self.free() > 0 || self.missing() == 0 {
            return;
        }
        self.room = (self.room * GROWTH).min(self.prelude.body_bytes);
        let mut larger = AlignedBuffer::with_capacity(self.room);
        larger.extend(self.buffer.filled());
        self.buffer = larger;
    }
}

/// What is allocated for a body of which nothing has come yet: most bodies fit whole.
const ROOM_BYTES_FIRST: usize = 64 << 10;
/// How many times what has arrived may be allocated.
const GROWTH: usize = 16;
/// Memory for a head that is kept from frame to frame; names and shapes rarely take more.
const HEAD_BYTES_KEPT: usize = 1 << 10;
const _: () = assert!(HEAD_BYTES_KEPT <= FRAME_HEADER_BYTES_MAX);

#[cfg(test)]
mod tests;
