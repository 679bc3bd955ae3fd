//! Frames out of a stream of bytes, in whatever pieces they come.

use crate::buffer::AlignedBuffer;

use super::{Frame, FrameError, PRELUDE_BYTES, Prelude};

/// Puts frames together. It holds at most one frame that is not complete, and takes memory for
/// what has arrived, not for what was announced.
#[derive(Debug)]
pub struct FrameDecoder {
    body_bytes_max: usize,
    head: Vec<u8>,
    prelude: Option<Prelude>,
    body: Option<AlignedBuffer>,
}

impl FrameDecoder {
    /// A decoder of frames whose bodies have at most so many bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            head: Vec::new(),
            prelude: None,
            body: None,
        }
    }

    /// Takes bytes off the front of `bytes`, up to the end of a frame. `None` means that all of
    /// them were taken and the frame needs more. Cost: one copy of the body, into memory that
    /// its tensors share.
    ///
    /// # Errors
    /// What arrives is no frame, or over a limit; the stream is of no use any more.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let prelude = match self.prelude {
            Some(prelude) => prelude,
            None => {
                take(&mut self.head, bytes, PRELUDE_BYTES);
                let Some(first) = self.head.first_chunk::<PRELUDE_BYTES>() else {
                    return Ok(None);
                };
                *self
                    .prelude
                    .insert(Prelude::parse(first, self.body_bytes_max)?)
            }
        };
        let head_bytes = PRELUDE_BYTES + prelude.header_span;
        take(&mut self.head, bytes, head_bytes);
        if self.head.len() < head_bytes {
            return Ok(None);
        }
        let capacity = prelude.body_bytes.min(BODY_BYTES_AT_ONCE);
        let body = self
            .body
            .get_or_insert_with(|| AlignedBuffer::with_capacity(capacity));
        let wanted = prelude.body_bytes - body.len();
        let (now, later) = bytes.split_at(wanted.min(bytes.len()));
        body.extend(now);
        *bytes = later;
        if body.len() < prelude.body_bytes {
            return Ok(None);
        }
        let body = self.body.take().map(AlignedBuffer::freeze);
        let header = PRELUDE_BYTES..PRELUDE_BYTES + prelude.header_bytes;
        let frame = Frame::decode(&self.head[header], &body.unwrap_or_default())?;
        self.head.clear();
        self.prelude = None;
        Ok(Some(frame))
    }

    /// Whether the stream may end here: between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.head.is_empty()
    }
}

fn take(into: &mut Vec<u8>, from: &mut &[u8], until: usize) {
    let wanted = until.saturating_sub(into.len());
    let (now, later) = from.split_at(wanted.min(from.len()));
    into.extend_from_slice(now);
    *from = later;
}

/// A body is given so much room before any of it has come; a longer one grows as it comes.
const BODY_BYTES_AT_ONCE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::dtype::Dtype;
    use crate::frame::Message;
    use crate::id::Epoch;
    use crate::shape::Shape;
    use crate::tensor::Tensor;

    fn frame(number: u64, floats: usize) -> Frame {
        let data = Bytes::from(vec![number as u8; floats * 4]);
        let shape = Shape::new(&[1, floats as u64]).unwrap();
        Frame {
            number,
            message: Message::Gone { epoch: Epoch(7) },
            tensors: vec![Tensor::new(Dtype::Fp32, shape, data).unwrap()],
        }
    }

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        frames
            .iter()
            .flat_map(|frame| frame.encode().unwrap().concat())
            .collect()
    }

    #[test]
    fn frames_come_out_whatever_the_pieces() {
        let frames: Vec<Frame> = (0..6).map(|n| frame(n, 1 + 37 * n as usize)).collect();
        let bytes = bytes_of(&frames);
        for size in [1, 7, 16, 64, 100, bytes.len()] {
            let mut decoder = FrameDecoder::new(1 << 20);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                let mut rest = piece;
                while let Some(frame) = decoder.feed(&mut rest).unwrap() {
                    found.push(frame);
                }
                assert!(rest.is_empty());
            }
            assert_eq!(found, frames, "in pieces of {size}");
            assert!(decoder.is_between_frames());
        }
    }

    #[test]
    fn announced_lengths_are_checked_before_memory_is_taken() {
        let good = bytes_of(&[frame(1, 16)]);
        let mut decoder = FrameDecoder::new(16);
        assert!(matches!(
            decoder.feed(&mut &*good),
            Err(FrameError::BodyTooLarge { limit: 16, .. })
        ));
        let mut huge = good.clone();
        huge[8..16].copy_from_slice(&(1u64 << 62).to_le_bytes());
        let mut decoder = FrameDecoder::new(usize::MAX >> 8);
        assert!(decoder.feed(&mut &*huge).is_err());
        let mut decoder = FrameDecoder::new(1 << 20);
        assert!(matches!(
            decoder.feed(&mut &[b'x'; 64][..]),
            Err(FrameError::Magic { .. })
        ));
    }
}
