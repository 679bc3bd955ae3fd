//! The way to peers, as openraft calls it: one stream for each request on `Plane::Raft`.
//!
//! Every call has a hard time limit, since the library has none: an answer that never comes
//! would freeze the replication to that peer. Pre-vote and leadership transfer are spelled
//! out; the library's defaults grant a vote that nobody gave, and claim to be unimplemented.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use paceline_protocol::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::type_config::{LogId, SnapshotBytes, TypeConfig};
use super::wire::{self, Answer, Ballot, Request};
use crate::transport::{OpenError, Plane, Transport};

/// Makes the ways to peers.
pub(super) struct Peers {
    pub(super) transport: Arc<dyn Transport>,
}

/// The way to one peer. Cheap to clone.
#[derive(Clone)]
pub(super) struct Peer {
    transport: Arc<dyn Transport>,
    target: NodeId,
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nothing was sent.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something may have arrived.
    #[error("node {target} gave no answer: {cause}")]
    Lost {
        /// Who was asked.
        target: NodeId,
        /// What happened to the stream.
        cause: io::Error,
    },
    /// It answered something else than was asked, or that it cannot.
    #[error("node {target} does not do it: {reason}")]
    Refused {
        /// Who was asked.
        target: NodeId,
        /// Why.
        reason: String,
    },
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer::new(self.transport.clone(), NodeId(target))
    }
}

impl Peer {
    pub(super) fn new(transport: Arc<dyn Transport>, target: NodeId) -> Self {
        Self { transport, target }
    }

    /// Asks one thing, and waits for the answer for at most `limit`.
    pub(super) async fn call(
        &self,
        request: &Request,
        limit: Duration,
    ) -> Result<Answer, CallError> {
        self.call_with(request, &[], limit).await
    }

    /// The same, with bytes behind the request.
    async fn call_with(
        &self,
        request: &Request,
        more: &[u8],
        limit: Duration,
    ) -> Result<Answer, CallError> {
        let deadline = Instant::now() + limit;
        let target = self.target;
        let lost = |cause| CallError::Lost { target, cause };
        let open_limit = limit.min(OPEN_MAX);
        let mut stream = self.transport.open(target, Plane::Raft, open_limit).await?;
        let exchange = async {
            wire::DIALECT.send(&mut *stream.send, request).await?;
            stream.send.write_all(more).await?;
            stream.send.finish();
            wire::DIALECT.receive(&mut *stream.receive).await
        };
        let late = |_| lost(io::ErrorKind::TimedOut.into());
        match timeout_at(deadline, exchange).await.map_err(late)? {
            Ok(Answer::Failed { reason }) => Err(CallError::Refused { target, reason }),
            Ok(answer) => Ok(answer),
            Err(cause) => Err(lost(cause)),
        }
    }

    /// The peer was asked and says nothing.
    pub(super) fn silent(&self) -> CallError {
        CallError::Lost {
            target: self.target,
            cause: io::ErrorKind::TimedOut.into(),
        }
    }

    fn unexpected(&self) -> CallError {
        CallError::Refused {
            target: self.target,
            reason: "an answer to another question".to_owned(),
        }
    }

    async fn vote_call(
        &self,
        request: Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(&request, option.hard_ttl()).await? {
            Answer::Vote {
                vote,
                granted,
                last,
            } => {
                let vote: VoteOf<TypeConfig> = vote.into();
                Ok(VoteResponse::new(vote, last.map(LogId::from), granted))
            }
            _ => Err(self.unexpected().into()),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::append(&request);
        match self.call(&request, option.hard_ttl()).await? {
            Answer::Append(answer) => Ok(answer.into()),
            _ => Err(self.unexpected().into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::Vote(Ballot::of(&request));
        self.vote_call(request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::PreVote(Ballot::of(&request));
        self.vote_call(request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotBytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let request = Request::Snapshot {
            vote: (&vote).into(),
            meta: (&snapshot.meta).into(),
            bytes: snapshot.snapshot.len() as u64,
        };
        let sending = self.call_with(&request, &snapshot.snapshot, SNAPSHOT_LIMIT);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = sending => answer,
        };
        match answer {
            Ok(Answer::Snapshot { vote }) => Ok(SnapshotResponse::new(vote.into())),
            Ok(_) => Err(streaming(&self.unexpected())),
            Err(error) => Err(streaming(&error)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::transfer(&request);
        match self.call(&request, option.hard_ttl()).await? {
            Answer::Transfer { accepted: true } => Ok(Ok(())),
            Answer::Transfer { accepted: false } => Err(CallError::Refused {
                target: self.target,
                reason: "it does not take leadership over".to_owned(),
            }
            .into()),
            _ => Err(self.unexpected().into()),
        }
    }

    /// A peer that comes back is found within two heartbeats; the transport spaces its dials.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE)))
    }
}

impl From<CallError> for RPCError<TypeConfig> {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Open(_) => Self::Unreachable(Unreachable::new(&error)),
            CallError::Lost { .. } | CallError::Refused { .. } => {
                Self::Network(NetworkError::new(&error))
            }
        }
    }
}

fn streaming(error: &CallError) -> StreamingError<TypeConfig> {
    match error {
        CallError::Open(_) => StreamingError::Unreachable(Unreachable::new(error)),
        CallError::Lost { .. } | CallError::Refused { .. } => {
            StreamingError::Network(NetworkError::new(error))
        }
    }
}

/// A handshake takes two round trips; who needs longer is asked again.
const OPEN_MAX: Duration = Duration::from_secs(1);
/// The largest snapshot over a line of 10 Mbit/s.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);
