//! Questions to one peer about artifacts, each with a stream and a deadline of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::limits::{ARTIFACT_CHUNK_BYTES, MANIFEST_BYTES_MAX};
use paceline_protocol::{Digest, Manifest, NodeId};
use tokio::time::{Instant, timeout_at};

use super::wire::{Answer, DIALECT, Request};
use crate::transport::message::exactly;
use crate::transport::{OpenError, Plane, Transport};

/// The way to peers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Peers {
    pub(super) transport: Arc<dyn Transport>,
}

/// Why a peer did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("node {peer} broke off: {reason}")]
    Lost { peer: NodeId, reason: String },
    #[error("node {peer} does not have it")]
    Missing { peer: NodeId },
    #[error("node {peer} has too much to do")]
    Busy { peer: NodeId },
    #[error("node {peer} sent {what} that is not what was asked for")]
    Lied { peer: NodeId, what: &'static str },
    #[error("node {peer} refuses: {reason}")]
    Refused { peer: NodeId, reason: String },
}

impl Peers {
    /// Whether the artifact is whole at `peer`.
    pub(super) async fn has(
        &self,
        peer: NodeId,
        artifact: Digest,
        deadline: Instant,
    ) -> Result<bool, AskError> {
        let artifacts = vec![artifact];
        let (answer, _) = self.ask(peer, Request::Has { artifacts }, deadline).await?;
        match answer {
            Answer::Has { held } if held.len() == 1 => Ok(held[0]),
            other => Err(unexpected(peer, other)),
        }
    }

    /// An artifact's manifest, checked against its digest.
    pub(super) async fn manifest(
        &self,
        peer: NodeId,
        artifact: Digest,
        deadline: Instant,
    ) -> Result<Manifest, AskError> {
        let json = self.bytes(peer, Request::Manifest { artifact }, deadline);
        let manifest: Option<Manifest> = serde_json::from_slice(&json.await?).ok();
        let what = "a manifest";
        manifest
            .filter(|manifest| manifest.check().is_ok() && manifest.digest() == artifact)
            .ok_or(AskError::Lied { peer, what })
    }

    /// A piece of a file, checked against its BLAKE3.
    pub(super) async fn chunk(
        &self,
        peer: NodeId,
        (file, index, hash): (Digest, u32, Digest),
        deadline: Instant,
    ) -> Result<Vec<u8>, AskError> {
        let bytes = self
            .bytes(peer, Request::Chunk { file, index }, deadline)
            .await?;
        if *blake3::hash(&bytes).as_bytes() == hash.0 {
            Ok(bytes)
        } else {
            let what = "a chunk";
            Err(AskError::Lied { peer, what })
        }
    }

    /// Lets `peer` make the artifact durable on its own disk.
    pub(super) async fn keep(
        &self,
        peer: NodeId,
        artifact: Digest,
        deadline: Instant,
    ) -> Result<(), AskError> {
        let budget = deadline.saturating_duration_since(Instant::now());
        let budget_ms = u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Keep {
            artifact,
            budget_ms,
        };
        match self.ask(peer, request, deadline).await?.0 {
            Answer::Kept => Ok(()),
            other => Err(unexpected(peer, other)),
        }
    }

    async fn bytes(
        &self,
        peer: NodeId,
        request: Request,
        deadline: Instant,
    ) -> Result<Vec<u8>, AskError> {
        match self.ask(peer, request, deadline).await? {
            (Answer::Bytes { .. }, bytes) => Ok(bytes),
            (other, _) => Err(unexpected(peer, other)),
        }
    }

    /// One question. No single one waits longer than its kind ever takes, however far the
    /// deadline of the whole is: a peer that has stopped must not hold a fetch up.
    async fn ask(
        &self,
        peer: NodeId,
        request: Request,
        deadline: Instant,
    ) -> Result<(Answer, Vec<u8>), AskError> {
        let (limit, bytes_max) = match request {
            Request::Has { .. } => (SHORT_LIMIT, 0),
            Request::Manifest { .. } => (BYTES_LIMIT, MANIFEST_BYTES_MAX),
            Request::Chunk { .. } => (BYTES_LIMIT, ARTIFACT_CHUNK_BYTES),
            Request::Keep { .. } => (Duration::MAX, 0),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = limit.min(left);
        let until = Instant::now() + limit;
        let opening = self
            .transport
            .open(peer, Plane::Blob, limit.min(SHORT_LIMIT));
        let mut stream = opening.await?;
        let exchange = async {
            DIALECT.send(&mut *stream.send, &request).await?;
            stream.send.finish();
            let answer: Answer = DIALECT.receive(&mut *stream.receive).await?;
            let bytes = match answer {
                Answer::Bytes { count } if count as usize > bytes_max => {
                    let reason = format!("{count} bytes announced, at most {bytes_max} are read");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
                Answer::Bytes { count } => exactly(&mut *stream.receive, u64::from(count)).await?,
                _ => Vec::new(),
            };
            Ok((answer, bytes))
        };
        let lost = |reason: String| AskError::Lost { peer, reason };
        match timeout_at(until, exchange).await {
            Ok(answered) => answered.map_err(|error| lost(error.to_string())),
            Err(_late) => Err(lost("it did not answer in time".to_owned())),
        }
    }
}

fn unexpected(peer: NodeId, answer: Answer) -> AskError {
    match answer {
        Answer::Missing => AskError::Missing { peer },
        Answer::Busy => AskError::Busy { peer },
        Answer::Failed { reason } => AskError::Refused { peer, reason },
        Answer::Has { .. } | Answer::Bytes { .. } | Answer::Kept => AskError::Lied {
            peer,
            what: "an answer",
        },
    }
}

/// For a connection, or an answer that takes no work.
const SHORT_LIMIT: Duration = Duration::from_secs(5);
/// For 16 MiB over a line of 10 Mbit/s, and some waiting for the disk.
const BYTES_LIMIT: Duration = Duration::from_secs(20);
