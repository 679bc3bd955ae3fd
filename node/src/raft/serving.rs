//! What peers ask of this node about consensus, and the answers.
//!
//! Runs on the raft thread. A peer speaks for itself only: an entry, a vote or a snapshot that
//! names another node as its author is refused. What a peer may ask at a time, and what that may
//! hold in memory, is bounded for each peer by itself: one that is ill takes nothing from the
//! others. Everything has a deadline.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use paceline_core::registry::Registry;
use paceline_protocol::NodeId;
use paceline_protocol::registry::Command;
use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::encoding::StoredEntry;
use super::members::{self, MembershipError};
use super::network::{CallError, Peer};
use super::node::AuthorityKey;
use super::type_config::{LogId, Raft, Snapshot, Vote};
use super::wire::{self, Answer, Ballot, Elsewhere, Forwarded, Request};
use crate::transport::message::exactly;
use crate::transport::{Incoming, Plane, Transport};

/// When this node heard from a leader last, or led with a quorum. Cheap to clone.
///
/// Who has been away for a while hears of the present before it knows it: what a leader says
/// counts once all is applied here that it had committed then.
#[derive(Clone)]
pub(super) struct LeaderHeard {
    applied: watch::Receiver<Arc<Registry>>,
    contact: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    at: Option<Instant>,
    /// What counts once the entry of this index is applied.
    due: Option<(Instant, u64)>,
}

pub(super) struct Serving {
    pub(super) raft: Raft,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) heard: LeaderHeard,
    pub(super) forwards: Arc<Semaphore>,
    pub(super) authority_key: AuthorityKey,
    /// Held while membership is changed.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
}

impl LeaderHeard {
    /// Nobody was heard yet; `applied` is the registry here.
    pub(super) fn new(applied: watch::Receiver<Arc<Registry>>) -> Self {
        let contact = Arc::default();
        Self { applied, contact }
    }

    /// A leader was heard that had committed so much.
    fn now(&self, committed: Option<u64>) {
        let mut heard = self.settled();
        heard
            .due
            .get_or_insert((Instant::now(), committed.unwrap_or(0)));
    }

    /// A quorum has answered this node, which leads, so long ago.
    pub(super) fn keep(&self, age: Option<Duration>) {
        let answered_at = age.and_then(|age| Instant::now().checked_sub(age));
        let mut heard = self.settled();
        heard.at = heard.at.max(answered_at);
    }

    /// How long ago; `None` if never.
    pub(super) fn age(&self) -> Option<Duration> {
        self.settled().at.map(|at| at.elapsed())
    }

    fn settled(&self) -> MutexGuard<'_, Heard> {
        let applied = self.applied.borrow().epoch().0;
        let mut heard = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, _)) = heard.due.filter(|(_, index)| *index <= applied) {
            heard.at = heard.at.max(Some(at));
            heard.due = None;
        }
        heard
    }
}

/// What one peer may hold of this node at a time.
struct Guest {
    places: Arc<Semaphore>,
    /// KiB of large messages.
    room: Semaphore,
}

/// Answers until the transport is closed. A peer over its bound has its stream closed unread.
pub(super) async fn serve(serving: Arc<Serving>) {
    let mut guests: BTreeMap<NodeId, Arc<Guest>> = BTreeMap::new();
    while let Some(incoming) = serving.transport.accept(Plane::Raft).await {
        let Incoming { peer, mut stream } = incoming;
        if !guests.contains_key(&peer) {
            guests.retain(|_, guest| Arc::strong_count(guest) > 1);
        }
        let guest = guests.entry(peer).or_default().clone();
        let Ok(place) = guest.places.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "too many requests at a time");
            continue;
        };
        let serving = serving.clone();
        tokio::spawn(async move {
            let exchange = async {
                let (request, _held) = guest.receive(&mut *stream.receive).await?;
                let answer = serving.answer((peer, &guest), request, &mut *stream.receive);
                wire::DIALECT
                    .send(&mut *stream.send, &answer.await?)
                    .await?;
                stream.send.finish();
                io::Result::Ok(())
            };
            match timeout(REQUEST_LIMIT, exchange).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a request was not understood"),
                Err(_late) => tracing::debug!(%peer, "a request took too long"),
            }
            drop(place);
        });
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            room: Semaphore::new(ROOM_BYTES.div_ceil(1024)),
        }
    }
}

impl Guest {
    /// Reads a request, and holds room for it if it is large.
    async fn receive(
        &self,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> io::Result<(Request, Option<SemaphorePermit<'_>>)> {
        let length = timeout(READ_LIMIT, wire::DIALECT.length(from)).await??;
        let held = match length > LARGE_BYTES {
            true => Some(self.hold(length).await?),
            false => None,
        };
        let request = timeout(READ_LIMIT, wire::DIALECT.body(from, length)).await??;
        Ok((request, held))
    }

    async fn hold(&self, bytes: usize) -> io::Result<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes.div_ceil(1024)).map_err(io::Error::other)?;
        self.room.acquire_many(kib).await.map_err(io::Error::other)
    }
}

impl Serving {
    async fn answer(
        &self,
        (peer, guest): (NodeId, &Guest),
        request: Request,
        more: &mut (dyn AsyncRead + Send + Unpin),
    ) -> io::Result<Answer> {
        Ok(match request {
            Request::Append {
                vote,
                previous,
                entries,
                committed,
            } => {
                let entries = entries.into_iter().map(StoredEntry::restored);
                let request = AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: previous.map(LogId::from),
                    entries: entries
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(io::Error::other)?,
                    leader_commit: committed.map(LogId::from),
                };
                own(peer, wire::author(&request.vote))?;
                let committed = request.leader_commit.map(|id| id.index());
                let answer = self.raft.append_entries(request).await;
                if matches!(&answer, Ok(answer) if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)))
                {
                    self.heard.now(committed);
                }
                answer.map_or_else(Answer::failed, |answer| Answer::Append(answer.into()))
            }
            Request::Vote(ballot) => self.vote(peer, ballot, false).await?,
            Request::PreVote(ballot) => self.vote(peer, ballot, true).await?,
            Request::Transfer { from, to, last } => {
                let request = TransferLeaderRequest::new(from.into(), to, last.map(LogId::from));
                own(peer, wire::author(request.from_leader()))?;
                let answer = self.raft.handle_transfer_leader(request).await;
                answer.map_or_else(Answer::failed, |taken| Answer::Transfer {
                    accepted: taken.is_ok(),
                })
            }
            Request::Snapshot { vote, meta, bytes } => {
                let vote: Vote = vote.into();
                own(peer, wire::author(&vote))?;
                let _held = guest.hold(wire::snapshot_length(bytes)?).await?;
                let snapshot = Snapshot {
                    meta: meta.restored().map_err(io::Error::other)?,
                    snapshot: exactly(more, bytes).await?.into(),
                };
                let answer = self.raft.install_full_snapshot(vote, snapshot).await;
                answer.map_or_else(Answer::failed, |installed| Answer::Snapshot {
                    vote: (&installed.vote).into(),
                })
            }
            Request::Forward {
                command,
                budget_ms,
                relay,
            } => {
                let limit = Duration::from_millis(budget_ms).min(REQUEST_LIMIT);
                Answer::Forward(self.write(command, limit, relay).await)
            }
            Request::ReadIndex => self.read_index().await,
            Request::AuthorityKey => self.authority_key(peer),
            Request::Yield { to } => self.yield_leadership(to).await,
            Request::Relieve { voter } => self.relieve(NodeId(voter)).await,
        })
    }

    async fn vote(&self, peer: NodeId, ballot: Ballot, is_pre: bool) -> io::Result<Answer> {
        let request = ballot.restored();
        own(peer, wire::author(&request.vote))?;
        let answer = match is_pre {
            true => self.raft.pre_vote(request).await,
            false => self.raft.vote(request).await,
        };
        Ok(answer.map_or_else(Answer::failed, |answer| Answer::voted(&answer)))
    }

    async fn write(&self, command: Command, limit: Duration, relay: bool) -> Forwarded {
        let until = Instant::now() + limit;
        let Ok(_permit) = self.forwards.try_acquire() else {
            return Forwarded::Overloaded;
        };
        let writing = self.raft.client_write(command.clone());
        let leader = match timeout_at(until, writing).await {
            Ok(Ok(written)) => return Forwarded::Done(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                forward.leader_id
            }
            Ok(Err(_)) | Err(_) => return Forwarded::Unknown,
        };
        let elsewhere = Forwarded::Elsewhere(Elsewhere { leader });
        match leader.filter(|_| relay) {
            Some(leader) => self.relay(NodeId(leader), command, until).await,
            None => elsewhere,
        }
    }

    /// Once and no further: who is asked does not ask another.
    async fn relay(&self, leader: NodeId, command: Command, until: Instant) -> Forwarded {
        let limit = until.saturating_duration_since(Instant::now());
        let request = Request::Forward {
            command,
            budget_ms: limit.as_millis() as u64,
            relay: false,
        };
        let peer = Peer::new(self.transport.clone(), leader);
        match peer.call(&request, limit).await {
            Ok(Answer::Forward(forwarded)) => forwarded,
            Err(CallError::Open(_)) => Forwarded::Elsewhere(Elsewhere { leader: None }),
            Ok(_) | Err(_) => Forwarded::Unknown,
        }
    }

    /// Who has a vote may sign nodes; nobody else sees the key.
    fn authority_key(&self, peer: NodeId) -> Answer {
        let is_voter = self.raft.voter_ids().any(|voter| voter == peer.0);
        match (self.authority_key)().filter(|_| is_voter) {
            Some(key) => Answer::AuthorityKey(key),
            None => Answer::failed("there is no key for this node here"),
        }
    }

    async fn yield_leadership(&self, to: u64) -> Answer {
        let deadline = Instant::now() + YIELD_LIMIT;
        match members::transfer(&self.raft, NodeId(to), deadline).await {
            Ok(()) | Err(MembershipError::NotLeader) => Answer::Yielded,
            Err(error) => Answer::failed(error),
        }
    }

    async fn relieve(&self, voter: NodeId) -> Answer {
        let registry = self.heard.applied.borrow().clone();
        let way = (&self.raft, &*self.changing);
        let deadline = Instant::now() + RELIEF_LIMIT;
        match members::relieve(way, (&registry, voter), deadline).await {
            Ok(()) => Answer::Relieved,
            Err(error) => Answer::failed(error),
        }
    }

    async fn read_index(&self) -> Answer {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Answer::ReadIndex(Ok(read.index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                let leader = forward.leader_id;
                Answer::ReadIndex(Err(Elsewhere { leader }))
            }
            Err(error) => Answer::failed(error),
        }
    }
}

/// A peer speaks for itself only.
fn own(peer: NodeId, author: u64) -> io::Result<()> {
    if peer.0 == author {
        return Ok(());
    }
    let reason = format!("node {peer} speaks for node {author}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Requests of a peer at a time: its forwarded writes, and what consensus itself asks.
const REQUESTS_MAX: usize = 2_048;
/// From here on, room is held for a message before it is read.
const LARGE_BYTES: usize = 16 << 10;
/// Of a peer's large messages: the largest snapshot and the largest append.
const ROOM_BYTES: usize = wire::SNAPSHOT_BYTES_MAX + wire::MESSAGE_BYTES_MAX;
/// A request that was begun and does not go on; a snapshot behind it has the longer limit.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long a successor may take to lead: several elections.
const YIELD_LIMIT: Duration = Duration::from_secs(2);
/// How long a learner may take to have a vote: two entries, with room for a slow disk.
const RELIEF_LIMIT: Duration = Duration::from_secs(5);
/// A snapshot over a slow line; everything else has its own, shorter limit at the asker.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
