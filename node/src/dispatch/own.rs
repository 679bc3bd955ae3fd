//! A request with a stream of its own, as the asking side has it.

use bytes::Bytes;
use paceline_protocol::NodeId;
use paceline_protocol::frame::{Frame, FrameDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lane::READ_BYTES;
use super::{KIND_OWN, Lost};
use crate::transport::Stream;

/// Sends a request and waits for its answer. The sending half stays open until then: dropped
/// before, it is reset, and that cancels.
pub(super) async fn ask(
    mut stream: Stream,
    parts: &[Bytes],
    (peer, body_bytes_max): (NodeId, usize),
) -> Result<Frame, Lost> {
    let silent = |reason: String| Lost::Silent { peer, reason };
    let sending = async {
        stream.send.write_all(&[KIND_OWN]).await?;
        for part in parts {
            stream.send.write_all(part).await?;
        }
        stream.send.flush().await
    };
    // A request that is not whole is not executed.
    sending.await.map_err(|error| Lost::NotSent {
        peer,
        reason: error.to_string(),
    })?;
    let mut decoder = FrameDecoder::new(body_bytes_max);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = stream.receive.read(&mut buffer).await;
        let read = read.map_err(|error| silent(error.to_string()))?;
        if read == 0 {
            return Err(silent("it closed the stream".to_owned()));
        }
        let fed = decoder.feed(&mut &buffer[..read]);
        if let Some(frame) = fed.map_err(|error| silent(error.to_string()))? {
            stream.send.finish();
            return Ok(frame);
        }
    }
}
