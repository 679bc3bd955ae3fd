//! Frames and greetings on QUIC streams.

use bytes::{Buf, Bytes};
use paceline_protocol::client::{GREETING_BYTES_MAX, Greeting, LENGTH_BYTES, message_length};
use paceline_protocol::frame::{Frame, FrameDecoder, FrameError};
use paceline_protocol::wire::WireError;
use quinn::{ReadError, ReadExactError, RecvStream, VarInt};

/// Why nothing more can be read from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// It broke.
    #[error("the stream broke: {0}")]
    Broken(#[from] ReadError),
    /// It ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Cut,
    /// It ended in the middle of a greeting.
    #[error("the stream ended too soon: {0}")]
    Short(#[from] ReadExactError),
    /// What it carries are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What it carries are not greetings.
    #[error(transparent)]
    Greeting(#[from] WireError),
}

/// A stream, read frame by frame.
pub(crate) struct FrameReader {
    receive: RecvStream,
    decoder: FrameDecoder,
    /// What has arrived and is not decoded yet.
    chunk: Bytes,
}

impl FrameReader {
    /// Reads frames with bodies of at most `body_bytes_max`.
    pub(crate) fn new(receive: RecvStream, body_bytes_max: usize) -> Self {
        Self {
            receive,
            decoder: FrameDecoder::new(body_bytes_max),
            chunk: Bytes::new(),
        }
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            let mut bytes = &self.chunk[..];
            let frame = self.decoder.feed(&mut bytes)?;
            let taken = self.chunk.len() - bytes.len();
            self.chunk.advance(taken);
            if frame.is_some() {
                return Ok(frame);
            }
            match self.receive.read_chunk(CHUNK_BYTES_MAX, true).await? {
                Some(chunk) => self.chunk = chunk.bytes,
                None if self.decoder.is_between_frames() => return Ok(None),
                None => return Err(StreamError::Cut),
            }
        }
    }

    /// Tells the peer that nothing more is read. Refused on a stream that has ended, where there
    /// is nothing to tell.
    pub(crate) fn stop(&mut self, code: VarInt) {
        drop(self.receive.stop(code));
    }
}

/// The next message of the first stream.
pub(crate) async fn read_greeting(receive: &mut RecvStream) -> Result<Greeting, StreamError> {
    let mut length = [0; LENGTH_BYTES];
    receive.read_exact(&mut length).await?;
    let mut message = vec![0; message_length(length, GREETING_BYTES_MAX)?];
    receive.read_exact(&mut message).await?;
    Ok(Greeting::decode(&message)?)
}

/// What is taken from a stream at a time.
const CHUNK_BYTES_MAX: usize = 256 << 10;
