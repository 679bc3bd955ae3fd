//! Reading what clients send, within limits and within time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use paceline_protocol::client::{HELLO_BYTES_MAX, Hello, LENGTH_BYTES, message_length};
use paceline_protocol::frame::{Frame, FrameDecoder, FrameError};
use paceline_protocol::wire::WireError;
use quinn::RecvStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Why nothing more is read from a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It is gone, or ended in the middle.
    #[error("the stream broke")]
    Broken,
    /// The rest of what was begun does not come.
    #[error("a frame was begun and not finished in time")]
    Stalled,
    /// It carries something else than frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It carries something else than a hello.
    #[error(transparent)]
    Hello(#[from] WireError),
}

/// A frame, and the permit that a large body holds.
pub(super) struct Received {
    pub(super) frame: Frame,
    pub(super) held: Option<OwnedSemaphorePermit>,
}

/// How the frames of a connection are read.
pub(super) struct Reading {
    /// Largest body, in bytes.
    pub(super) body_bytes_max: usize,
    /// How long a begun frame may stand still.
    pub(super) stall_limit: Duration,
    /// Large bodies of this connection; those beyond wait in the client.
    pub(super) large: Arc<Semaphore>,
}

/// A stream, read frame by frame.
pub(super) struct FrameReader {
    receive: RecvStream,
    decoder: FrameDecoder,
    /// What has arrived and is not decoded yet.
    chunk: Bytes,
}

impl FrameReader {
    pub(super) fn new(receive: RecvStream, body_bytes_max: usize) -> Self {
        Self {
            receive,
            decoder: FrameDecoder::new(body_bytes_max),
            chunk: Bytes::new(),
        }
    }

    /// The next frame; `None` at the end of the stream. Waits for a frame to begin for as long
    /// as the connection lasts; what has begun has to go on.
    pub(super) async fn next(&mut self, how: &Reading) -> Result<Option<Received>, Unreadable> {
        let mut held = None;
        loop {
            let mut bytes = &self.chunk[..];
            let frame = self.decoder.feed(&mut bytes)?;
            let taken = self.chunk.len() - bytes.len();
            self.chunk.advance(taken);
            if let Some(frame) = frame {
                return Ok(Some(Received { frame, held }));
            }
            if held.is_none() && self.decoder.missing() > LARGE_BYTES {
                // Other requests of this client hold the others, and end by their deadlines.
                let permit = how.large.clone().acquire_owned().await;
                held = Some(permit.map_err(|_closed| Unreadable::Broken)?);
            }
            match self.chunk(how.stall_limit).await? {
                Some(chunk) => self.chunk = chunk,
                None if self.decoder.is_between_frames() => return Ok(None),
                None => return Err(Unreadable::Broken),
            }
        }
    }

    async fn chunk(&mut self, stall_limit: Duration) -> Result<Option<Bytes>, Unreadable> {
        let is_begun = !self.decoder.is_between_frames();
        let reading = self.receive.read_chunk(CHUNK_BYTES_MAX, true);
        let chunk = if is_begun {
            let read = timeout(stall_limit, reading).await;
            read.map_err(|_late| Unreadable::Stalled)?
        } else {
            reading.await
        };
        let chunk = chunk.map_err(|_gone| Unreadable::Broken)?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

/// The first message of a connection.
pub(super) async fn read_hello(receive: &mut RecvStream) -> Result<Hello, Unreadable> {
    let mut length = [0; LENGTH_BYTES];
    receive
        .read_exact(&mut length)
        .await
        .map_err(|_gone| Unreadable::Broken)?;
    let mut message = vec![0; message_length(length, HELLO_BYTES_MAX)?];
    receive
        .read_exact(&mut message)
        .await
        .map_err(|_gone| Unreadable::Broken)?;
    Ok(Hello::decode(&message)?)
}

/// Bodies above it are counted: 1 MiB.
const LARGE_BYTES: usize = 1 << 20;
/// What is taken from a stream at a time.
const CHUNK_BYTES_MAX: usize = 256 << 10;
