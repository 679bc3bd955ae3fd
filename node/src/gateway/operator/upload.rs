//! Takes a file in: the body streams to where blocking is allowed, and is written and hashed there.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use paceline_protocol::limits::ARTIFACT_FILE_BYTES_MAX;
use paceline_protocol::{Digest, ErrorCode, Failure};
use tokio::sync::mpsc;

use crate::artifacts::{ArtifactError, Artifacts};

/// Receives a whole file. Memory: a few chunks, however large the file.
pub(super) async fn receive(
    artifacts: &Artifacts,
    digest: Digest,
    mut body: Body,
) -> Result<(), Failure> {
    let (chunks, mut inbox) = mpsc::channel::<Bytes>(CHUNKS_WAITING_MAX);
    let artifacts = artifacts.clone();
    let writing = artifacts.threads().blocking_task(async move {
        let mut upload = artifacts.upload().map_err(ArtifactError::Disk)?;
        while let Some(chunk) = inbox.recv().await {
            // An empty chunk says that the body was whole; without it, it was cut off.
            if chunk.is_empty() {
                return Ok(upload.finish(digest)?);
            }
            upload.write(&chunk).map_err(ArtifactError::Disk)?;
        }
        Err(Failure::new(
            ErrorCode::Cancelled,
            "the connection broke before the file was whole",
        ))
    });
    let mut bytes = 0u64;
    while let Ok(Some(frame)) = tokio::time::timeout(CHUNK_LIMIT, body.frame()).await {
        let Ok(frame) = frame else { break };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        bytes += data.len() as u64;
        if bytes > ARTIFACT_FILE_BYTES_MAX {
            let message = format!("a file has at most {ARTIFACT_FILE_BYTES_MAX} bytes");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
        // The writer ends early only with an error, which is what is answered below.
        if !data.is_empty() && chunks.send(data).await.is_err() {
            break;
        }
    }
    if body.is_end_stream() {
        let _ = chunks.send(Bytes::new()).await;
    }
    drop(chunks);
    writing.await.unwrap_or_else(|_| {
        Err(Failure::new(
            ErrorCode::Internal,
            "the thread that writes the file ended",
        ))
    })
}

/// Chunks between the connection and the disk: a slow disk slows the sender down.
const CHUNKS_WAITING_MAX: usize = 16;
/// How long a client may take between two chunks.
const CHUNK_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);
