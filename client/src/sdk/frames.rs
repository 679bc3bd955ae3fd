//! Frames and greetings on QUIC streams.

use bytes::Bytes;
use paceline_protocol::AlignedBuffer;
use paceline_protocol::client::{GREETING_BYTES_MAX, Greeting, LENGTH_BYTES, message_length};
use paceline_protocol::frame::{Frame, FrameError, PRELUDE_BYTES, Prelude};
use paceline_protocol::wire::WireError;
use quinn::{ReadExactError, RecvStream};

/// Why nothing more can be read from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It ended, or broke, in the middle.
    #[error("the stream broke: {0}")]
    Stream(#[from] ReadExactError),
    /// What it carries are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What it carries are not greetings.
    #[error(transparent)]
    Greeting(#[from] WireError),
}

/// The next frame; `None` at the end of the stream.
pub(crate) async fn read_frame(
    receive: &mut RecvStream,
    body_bytes_max: usize,
) -> Result<Option<Frame>, ReadError> {
    let mut head = [0; PRELUDE_BYTES];
    match receive.read_exact(&mut head).await {
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        read => read?,
    }
    let prelude = Prelude::parse(&head, body_bytes_max)?;
    let mut header = vec![0; prelude.header_span];
    receive.read_exact(&mut header).await?;
    let body = read_body(receive, prelude.body_bytes).await?;
    Ok(Some(Frame::decode(&header[..prelude.header_bytes], &body)?))
}

async fn read_body(receive: &mut RecvStream, bytes: usize) -> Result<Bytes, ReadExactError> {
    let mut body = AlignedBuffer::with_capacity(bytes);
    while body.len() < bytes {
        let missing = bytes - body.len();
        let chunk = receive.read_chunk(missing, true).await;
        match chunk.map_err(ReadExactError::ReadError)? {
            Some(chunk) => body.extend(&chunk.bytes),
            None => return Err(ReadExactError::FinishedEarly(body.len())),
        }
    }
    Ok(body.freeze())
}

/// The next message of the first stream.
pub(crate) async fn read_greeting(receive: &mut RecvStream) -> Result<Greeting, ReadError> {
    let mut length = [0; LENGTH_BYTES];
    receive.read_exact(&mut length).await?;
    let mut message = vec![0; message_length(length, GREETING_BYTES_MAX)?];
    receive.read_exact(&mut message).await?;
    Ok(Greeting::decode(&message)?)
}
