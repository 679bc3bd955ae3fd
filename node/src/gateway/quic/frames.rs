//! Reading what clients send, within limits and within time.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::AlignedBuffer;
use paceline_protocol::client::{HELLO_BYTES_MAX, Hello, LENGTH_BYTES, message_length};
use paceline_protocol::frame::{Frame, FrameError, PRELUDE_BYTES, Prelude};
use paceline_protocol::wire::WireError;
use quinn::{ReadError, ReadExactError, RecvStream};
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

/// A frame, its body's size, and the permit that a large body holds.
pub(super) struct Received {
    pub(super) frame: Frame,
    pub(super) body_bytes: usize,
    pub(super) held: Option<OwnedSemaphorePermit>,
}

/// How frames are read.
pub(super) struct Reading {
    /// Largest body, in bytes.
    pub(super) body_bytes_max: usize,
    /// How long a begun frame may stand still.
    pub(super) stall_limit: Duration,
    /// Large bodies of this connection; those beyond wait in the client.
    pub(super) large: std::sync::Arc<Semaphore>,
}

impl Reading {
    /// The next frame; `None` at the end of the stream. Waits for a frame to begin for as long
    /// as the connection lasts.
    pub(super) async fn next(
        &self,
        receive: &mut RecvStream,
    ) -> Result<Option<Received>, Unreadable> {
        let mut head = [0; PRELUDE_BYTES];
        let begun = match receive.read(&mut head).await.map_err(broken)? {
            None => return Ok(None),
            Some(begun) => begun,
        };
        self.soon(receive.read_exact(&mut head[begun..])).await?;
        let prelude = Prelude::parse(&head, self.body_bytes_max)?;
        let mut header = vec![0; prelude.header_span];
        self.soon(receive.read_exact(&mut header)).await?;
        let held = if prelude.body_bytes > LARGE_BYTES {
            // Other requests of this client hold the others, and end by their deadlines.
            let permit = self.large.clone().acquire_owned().await;
            Some(permit.map_err(|_closed| Unreadable::Broken)?)
        } else {
            None
        };
        let body = self.body(receive, prelude.body_bytes).await?;
        let frame = Frame::decode(&header[..prelude.header_bytes], &body)?;
        Ok(Some(Received {
            frame,
            body_bytes: prelude.body_bytes,
            held,
        }))
    }

    async fn body(&self, receive: &mut RecvStream, bytes: usize) -> Result<Bytes, Unreadable> {
        // Memory that nothing has been written to is only an address.
        let mut body = AlignedBuffer::with_capacity(bytes);
        while body.len() < bytes {
            let missing = bytes - body.len();
            let chunk = self.soon(receive.read_chunk(missing, true)).await?;
            body.extend(&chunk.ok_or(Unreadable::Broken)?.bytes);
        }
        Ok(body.freeze())
    }

    async fn soon<T, E: Into<StreamGone>>(
        &self,
        reading: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Unreadable> {
        match timeout(self.stall_limit, reading).await {
            Ok(read) => read.map_err(|error| {
                let StreamGone = error.into();
                Unreadable::Broken
            }),
            Err(_late) => Err(Unreadable::Stalled),
        }
    }
}

/// The first message of a connection.
pub(super) async fn read_hello(receive: &mut RecvStream) -> Result<Hello, Unreadable> {
    let mut length = [0; LENGTH_BYTES];
    receive.read_exact(&mut length).await.map_err(broken)?;
    let mut message = vec![0; message_length(length, HELLO_BYTES_MAX)?];
    receive.read_exact(&mut message).await.map_err(broken)?;
    Ok(Hello::decode(&message)?)
}

/// A stream that was reset, cut, or lost with its connection: for the reader, all the same.
struct StreamGone;

impl From<ReadError> for StreamGone {
    fn from(_error: ReadError) -> Self {
        Self
    }
}

impl From<ReadExactError> for StreamGone {
    fn from(_error: ReadExactError) -> Self {
        Self
    }
}

fn broken(error: impl Into<StreamGone>) -> Unreadable {
    let StreamGone = error.into();
    Unreadable::Broken
}

/// Bodies above it are counted: 1 MiB.
const LARGE_BYTES: usize = 1 << 20;
