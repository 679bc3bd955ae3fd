//! Frames off a stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use paceline_protocol::frame::{Frame, FrameDecoder, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The receiving half of a stream, as frames.
pub(super) struct Frames {
    receive: Box<dyn AsyncRead + Send + Sync + Unpin>,
    decoder: FrameDecoder,
    buffer: BytesMut,
    chunk: usize,
    held: Option<OwnedSemaphorePermit>,
}

/// Why a stream has no more frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Lost(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ends within a frame")]
    Cut,
    #[error("a frame that has no place on this stream")]
    Unexpected,
}

impl Frames {
    pub(super) fn new(
        receive: Box<dyn AsyncRead + Send + Sync + Unpin>,
        body_bytes_max: usize,
    ) -> Self {
        Self {
            receive,
            decoder: FrameDecoder::new(body_bytes_max),
            buffer: BytesMut::new(),
            chunk: CHUNK_BYTES_MIN,
            held: None,
        }
    }

    /// The next frame; `None` if the stream ends before one. Before a large body is read, so
    /// many KiB are taken from `budget`; they come with the frame, to be kept as long as it is.
    pub(super) async fn next(
        &mut self,
        budget: Option<&Arc<Semaphore>>,
    ) -> Result<Option<(Frame, Option<OwnedSemaphorePermit>)>, ReadError> {
        loop {
            let mut bytes = &self.buffer[..];
            let frame = self.decoder.feed(&mut bytes)?;
            let taken = self.buffer.len() - bytes.len();
            self.buffer.advance(taken);
            if let Some(frame) = frame {
                return Ok(Some((frame, self.held.take())));
            }
            if self.read(budget).await? == 0 {
                let is_whole = self.decoder.is_between_frames();
                return if is_whole {
                    Ok(None)
                } else {
                    Err(ReadError::Cut)
                };
            }
        }
    }

    async fn read(&mut self, budget: Option<&Arc<Semaphore>>) -> io::Result<usize> {
        let missing = self.decoder.missing();
        if missing > LARGE_BYTES
            && self.held.is_none()
            && let Some(budget) = budget
        {
            let kib = u32::try_from(missing.div_ceil(1024)).map_err(io::Error::other)?;
            let held = budget.clone().acquire_many_owned(kib).await;
            self.held = Some(held.map_err(io::Error::other)?);
        }
        match self.decoder.room().filter(|_| missing > LARGE_BYTES) {
            // A body that was begun holds memory: it goes on, or it ends.
            Some(mut room) => timeout(STALL_LIMIT, self.receive.read_buf(&mut room)).await?,
            None => {
                self.buffer.reserve(self.chunk);
                let read = self.receive.read_buf(&mut self.buffer).await?;
                if read >= self.chunk {
                    self.chunk = CHUNK_BYTES_MAX;
                }
                Ok(read)
            }
        }
    }
}

/// From here on, bytes of a body are read straight into their place, and counted.
const LARGE_BYTES: usize = 16 << 10;
/// How long a body that was begun may make no progress.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// What a stream that says nothing costs.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// What is read at a time from a stream that says much.
const CHUNK_BYTES_MAX: usize = 64 << 10;
