//! The way to consensus: write, read, watch, stop.

mod attempt;
mod reading;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use paceline_core::registry::Registry;
use paceline_protocol::limits::REGISTRY_ENTRY_BYTES_MAX;
use paceline_protocol::registry::{Command, Outcome};
use paceline_protocol::{Epoch, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use self::attempt::{Attempt, LEADER_POLL, Waiting};
use self::relay::forwarding;
use super::encoding::command_bytes;
use super::error::{StopReason, WriteError};
use super::metrics::RaftMetrics;
use super::network::{CallError, Peer};
use super::node::Parts;
use super::type_config::{Raft, TypeConfig};
use super::wire::{Answer, Forwarded, Request};

/// Consensus on this node, for everybody in the process. Cheap to clone, usable from any
/// runtime. When the last clone is dropped, consensus stops.
#[derive(Clone)]
pub struct RaftHandle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    permits: Semaphore,
}

impl RaftHandle {
    pub(super) fn new(parts: Parts) -> Self {
        let permits = Semaphore::new(parts.writes_in_flight_max);
        Self {
            inner: Arc::new(Inner { parts, permits }),
        }
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.inner.parts.raft
    }

    pub(super) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.parts.changing
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.parts.node
    }

    /// Commits a command and applies it here. After that [`RaftHandle::state`] holds it, unless
    /// this node lags by more than two seconds.
    ///
    /// Another leader is sent the command, again and again under its op-id until the deadline;
    /// while nobody leads this waits, but not for longer than 1.5 s, and nothing is waited for
    /// once no quorum has been heard for two. If the future
    /// is dropped, the command may be done or not, as with [`WriteError::Unknown`]. Cost: one
    /// sync of the log here and on a majority, shared with all that is written meanwhile.
    ///
    /// # Errors
    /// As [`WriteError`] says; each variant tells whether something may have been done.
    pub async fn write(&self, command: Command, deadline: Instant) -> Result<Outcome, WriteError> {
        let limit = self.inner.parts.writes_in_flight_max;
        let Ok(_permit) = self.inner.permits.try_acquire() else {
            return Err(WriteError::Overloaded { limit });
        };
        let limit = REGISTRY_ENTRY_BYTES_MAX;
        match command_bytes(&command) {
            Ok(bytes) if bytes <= limit => {}
            Ok(bytes) => return Err(WriteError::TooLarge { bytes, limit }),
            Err(_) => {
                return Err(WriteError::TooLarge {
                    bytes: usize::MAX,
                    limit,
                });
            }
        }
        let mut waiting = Waiting::until(deadline);
        loop {
            if let Some(reason) = self.stop_reason() {
                return Err(match waiting.may_be_done {
                    true => WriteError::Unknown,
                    false => reason.into(),
                });
            }
            let tried_at = Instant::now();
            let (attempt, asked) = self.try_once(&command, deadline).await;
            if let Attempt::Leaderless = attempt {
                waiting.leaderless_since.get_or_insert(tried_at);
            }
            let attempt = match attempt {
                Attempt::Leaderless | Attempt::MayBeDone => {
                    waiting.may_be_done |= matches!(attempt, Attempt::MayBeDone);
                    Box::pin(self.relay(&command, asked, deadline)).await
                }
                attempt => attempt,
            };
            match attempt {
                Attempt::Done(outcome) => {
                    self.wait_applied(outcome.epoch, deadline).await;
                    return Ok(outcome);
                }
                Attempt::Failed(_) if waiting.may_be_done => return Err(WriteError::Unknown),
                Attempt::Failed(error) => return Err(error),
                Attempt::Leader(_) => waiting.leaderless_since = None,
                Attempt::Leaderless => {}
                Attempt::MayBeDone => waiting.may_be_done = true,
            }
            if self.has_lost_quorum() {
                return Err(waiting.without_quorum());
            }
            waiting.pause().await?;
        }
    }

    /// One try, here or where somebody leads, as long as there is a quorum; and who was asked.
    async fn try_once(&self, command: &Command, deadline: Instant) -> (Attempt, Option<NodeId>) {
        if self.has_lost_quorum() {
            return (Attempt::Leaderless, None);
        }
        let mut asked = None;
        let trying = async {
            match self.write_here(command, deadline).await {
                Attempt::Leader(leader) => {
                    asked = Some(leader);
                    self.forward(leader, command, deadline).await
                }
                attempt => attempt,
            }
        };
        let attempt = tokio::select! {
            biased;
            attempt = trying => attempt,
            () = self.lost_quorum() => Attempt::MayBeDone,
        };
        (attempt, asked)
    }

    /// Whether a quorum was there and has not been heard for long: nothing will be committed.
    fn has_lost_quorum(&self) -> bool {
        let age = self.quorum_age();
        age.is_some_and(|age| age >= QUORUM_SILENCE_MAX)
    }

    /// Waits until there is no quorum.
    async fn lost_quorum(&self) {
        while !self.has_lost_quorum() {
            sleep(QUORUM_POLL).await;
        }
    }

    async fn write_here(&self, command: &Command, deadline: Instant) -> Attempt {
        let writing = self.inner.parts.raft.client_write(command.clone());
        let until = deadline.min(Instant::now() + ATTEMPT_MAX);
        let writing = self.while_leading(writing);
        match timeout_at(until, writing).await.unwrap_or(None).ok_or(()) {
            Ok(Ok(written)) => Attempt::Done(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Attempt::of(forward.leader_id.filter(|leader| *leader != self.node().0))
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => Attempt::MayBeDone,
            Ok(Err(RaftError::Fatal(fatal))) => Attempt::Failed(self.stopped_while_writing(&fatal)),
        }
    }

    /// Sends the command to the node that leads, as far as is known.
    async fn forward(&self, leader: NodeId, command: &Command, deadline: Instant) -> Attempt {
        let (request, limit) = forwarding(command, deadline, false);
        self.attempt(self.ask_leader(leader, &request, limit).await)
    }

    fn attempt(&self, answer: Result<Answer, CallError>) -> Attempt {
        match answer {
            Ok(Answer::Forward(Forwarded::Done(outcome))) => Attempt::Done(outcome),
            Ok(Answer::Forward(Forwarded::Elsewhere(elsewhere))) => Attempt::of(elsewhere.leader),
            Ok(Answer::Forward(Forwarded::Overloaded)) => {
                let limit = self.inner.parts.writes_in_flight_max;
                Attempt::Failed(WriteError::Overloaded { limit })
            }
            Err(CallError::Open(_)) => Attempt::Leaderless,
            Ok(_) | Err(_) => Attempt::MayBeDone,
        }
    }

    /// Asks the leader, and gives up once it no longer leads: one that died says nothing.
    async fn ask_leader(
        &self,
        leader: NodeId,
        request: &Request,
        limit: Duration,
    ) -> Result<Answer, CallError> {
        let peer = self.peer(leader);
        let deposed = async {
            let leads = || {
                let metrics = self.inner.parts.raft.metrics();
                metrics.borrow_watched().current_leader == Some(leader.0)
            };
            while leads() {
                sleep(LEADER_POLL).await;
            }
        };
        tokio::select! {
            biased;
            answer = peer.call(request, limit) => answer,
            () = deposed => Err(peer.silent()),
        }
    }

    /// Drops `work` when this node leads and does no longer: what it has handed to a leader that
    /// has yielded is answered late, or not at all.
    async fn while_leading<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let leads =
            || self.inner.parts.raft.metrics().borrow_watched().state == ServerState::Leader;
        let deposed = async {
            if !leads() {
                std::future::pending::<()>().await;
            }
            while leads() {
                sleep(LEADER_POLL).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = deposed => None,
        }
    }

    /// Waits a moment until this node has applied what was committed elsewhere.
    async fn wait_applied(&self, epoch: Epoch, deadline: Instant) {
        let mut states = self.inner.parts.state.clone();
        let until = deadline.min(Instant::now() + APPLIED_MAX);
        // A node that lags behind says so in its answers' epochs.
        let _ = timeout_at(until, states.wait_for(|state| state.epoch() >= epoch)).await;
    }

    /// The key that signs nodes, as another voter has it; `None` if it does not give it.
    pub async fn authority_key(&self, from: NodeId, limit: Duration) -> Option<String> {
        match self.peer(from).call(&Request::AuthorityKey, limit).await {
            Ok(Answer::AuthorityKey(key)) => Some(key),
            Ok(_) | Err(_) => None,
        }
    }

    /// The way to a peer, for what is asked of it alone.
    pub(super) fn peer(&self, node: NodeId) -> Peer {
        Peer::new(self.inner.parts.transport.clone(), node)
    }

    /// How long ago a quorum was known to stand behind a leader: on the leader, since a
    /// majority answered it; elsewhere, since the leader was heard. `None` if never.
    pub fn quorum_age(&self) -> Option<Duration> {
        let parts = &self.inner.parts;
        let metrics = parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return parts.heard.age();
        }
        let membership = metrics.membership_config.membership();
        if membership.voter_ids().eq([self.node().0]) {
            // It is the quorum, and has nobody to hear from.
            return Some(Duration::ZERO);
        }
        let acked = metrics.last_quorum_acked.as_ref();
        // Kept, so that a leader which yields, or has just been elected, is not without contact
        // until it has heard its successor, or its followers.
        parts.heard.keep(acked.map(|at| (**at).elapsed()));
        parts.heard.age()
    }

    /// Whether a quorum was known to stand behind a leader a moment ago.
    pub fn has_quorum(&self) -> bool {
        self.quorum_age().is_some_and(|age| age < QUORUM_AGE_MAX)
    }

    /// The registry as applied here: never waits, may lag behind the leader.
    pub fn state(&self) -> Arc<Registry> {
        self.inner.parts.state.borrow().clone()
    }

    /// The registry as applied here, whenever it changes. States between two looks are
    /// skipped.
    pub fn watch(&self) -> watch::Receiver<Arc<Registry>> {
        self.inner.parts.state.clone()
    }

    /// What consensus does at the moment.
    pub fn metrics(&self) -> RaftMetrics {
        RaftMetrics::of(&self.inner.parts.raft.metrics().borrow_watched())
    }

    /// Stops consensus, closes the log and gives the directory back; returns when that is done.
    pub async fn shutdown(&self) -> StopReason {
        self.inner.parts.stop.send_replace(true);
        self.stopped().await
    }

    /// Waits until consensus has ended here, and says why. If the reason
    /// [is fatal](StopReason::is_fatal), the process must end: nothing more will be
    /// acknowledged.
    pub async fn stopped(&self) -> StopReason {
        let mut ended = self.inner.parts.has_ended.clone();
        match ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone())
        {
            Some(reason) => reason,
            None => StopReason::Defect {
                reason: "the raft thread panicked".to_owned(),
            },
        }
    }

    fn stop_reason(&self) -> Option<StopReason> {
        let parts = &self.inner.parts;
        let is_stopping = *parts.stop.borrow();
        let ended = parts.has_ended.borrow().clone();
        ended.or(is_stopping.then_some(StopReason::Requested))
    }

    /// The command was handed over, and consensus ended before it was answered.
    fn stopped_while_writing(&self, fatal: &Fatal<TypeConfig>) -> WriteError {
        let failure = self
            .inner
            .parts
            .failure
            .borrow()
            .as_ref()
            .map(ToString::to_string);
        match (failure, fatal) {
            (Some(reason), _) => WriteError::StorageFailed { reason },
            (None, Fatal::StorageError(error)) => WriteError::StorageFailed {
                reason: error.to_string(),
            },
            (None, Fatal::Stopped | Fatal::Panicked) => WriteError::Unknown,
        }
    }
}

impl From<StopReason> for WriteError {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Requested => Self::ShuttingDown,
            other => Self::StorageFailed {
                reason: other.to_string(),
            },
        }
    }
}

/// How often it is looked whether there is still a quorum.
const QUORUM_POLL: Duration = Duration::from_millis(50);
/// One try: what takes longer has lost its leader, and is asked for anew.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Several elections: whoever writes is told within two seconds of the loss that nothing can be
/// written, and a read that nothing can be confirmed.
const QUORUM_SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// How long this node may lag behind a write that it has passed on.
const APPLIED_MAX: Duration = Duration::from_secs(2);
/// A quorum that was not heard for so long is not counted on: several elections fit.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(2);
