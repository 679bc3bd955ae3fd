//! The nodes that a client is connected with: who is asked next, and who is dialled meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use paceline_protocol::client::ClientDoor;
use paceline_protocol::{Epoch, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout_at};

use super::dialling::Dialler;
use super::known::Known;
use super::options::ClientOptions;
use super::session::{self, Notice, Opened, Session};

/// Sessions and addresses. Shared by the client's clones and its background task.
pub(crate) struct Pool {
    pub(crate) options: ClientOptions,
    dialler: Dialler,
    state: Mutex<State>,
    /// Counts changes of anything that [`Pool::pick`] looks at.
    changed: watch::Sender<u64>,
    is_closed: watch::Sender<bool>,
}

struct State {
    known: Known,
    sessions: Vec<Arc<Session>>,
    /// The cluster of the first node that was reached; others are not ours.
    cluster: Option<u128>,
    /// The highest epoch that any answer had.
    epoch: Epoch,
    turn: usize,
}

impl Pool {
    /// A pool that knows its seeds, and nobody yet.
    pub(crate) fn new(options: ClientOptions, dialler: Dialler, seeds: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            options,
            dialler,
            state: Mutex::new(State {
                known: Known::new(seeds),
                sessions: Vec::new(),
                cluster: None,
                epoch: Epoch::default(),
                turn: 0,
            }),
            changed: watch::Sender::new(0),
            is_closed: watch::Sender::new(false),
        })
    }

    /// A session for a new attempt, as soon as there is one: not `avoided`, on another node than
    /// its if there is a choice; not suspect; not leaving, if there is a choice; then the one
    /// with the least in flight.
    pub(crate) async fn pick(&self, avoided: Option<&Arc<Session>>) -> Arc<Session> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(session) = self.state().pick(avoided) {
                return session;
            }
            // The sender lives as long as the pool does.
            drop(changed.changed().await);
        }
    }

    /// A session on another node than `avoided`'s, if there is one now.
    pub(crate) fn pick_elsewhere(&self, avoided: &Arc<Session>) -> Option<Arc<Session>> {
        let session = self.state().pick(Some(avoided))?;
        (session.welcome.node != avoided.welcome.node).then_some(session)
    }

    /// Waits for the first session.
    pub(crate) async fn first(&self) -> Result<(), String> {
        let limit = tokio::time::Instant::now() + self.options.connect_timeout;
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.state();
                if !state.sessions.is_empty() {
                    return Ok(());
                }
                if state.known.all_failed() {
                    return Err(state.known.reasons());
                }
            }
            if timeout_at(limit, changed.changed()).await.is_err() {
                return Err(self.state().known.reasons());
            }
        }
    }

    /// The highest epoch seen.
    pub(crate) fn epoch(&self) -> Epoch {
        self.state().epoch
    }

    /// Takes note of an epoch; lower ones than those seen change nothing.
    pub(crate) fn saw(&self, epoch: Epoch) {
        let mut state = self.state();
        state.epoch = state.epoch.max(epoch);
    }

    /// What was said at addresses that failed.
    pub(crate) fn reasons(&self) -> String {
        self.state().known.reasons()
    }

    /// Nodes that are connected.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.state().nodes()
    }

    /// Ends everything: what is in flight is lost.
    pub(crate) fn close(&self) {
        self.is_closed.send_replace(true);
        self.dialler.close();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_changed(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// A connection that is kept, unless its node is connected already or is a stranger.
    fn opened(&self, opened: Opened) -> Option<(Arc<Session>, session::Running)> {
        let (node, address) = (opened.welcome.node, opened.address.clone());
        let mut state = self.state();
        let cluster = *state.cluster.get_or_insert(opened.welcome.cluster);
        if cluster != opened.welcome.cluster {
            let reason = "a node of another cluster answers there".to_owned();
            state
                .known
                .failed(&address, reason, (Instant::now(), u8::MAX));
            return None;
        }
        state.known.learn(&opened.welcome.nodes);
        state.epoch = state.epoch.max(opened.welcome.epoch);
        let is_used = !state.nodes().contains(&node);
        state.known.reached(&address, node, is_used);
        if !is_used {
            return None;
        }
        let (session, running) = Session::new(opened);
        state.sessions.push(session.clone());
        Some((session, running))
    }

    fn learn(&self, doors: &[ClientDoor]) {
        self.state().known.learn(doors);
    }

    fn lost(&self, session: &Arc<Session>) {
        let mut state = self.state();
        state.sessions.retain(|other| !Arc::ptr_eq(other, session));
        state.known.lost(&session.address);
    }
}

impl State {
    fn pick(&mut self, avoided: Option<&Arc<Session>>) -> Option<Arc<Session>> {
        let avoided_node = avoided.map(|session| session.welcome.node);
        self.turn = self.turn.wrapping_add(1);
        let (turn, count) = (self.turn, self.sessions.len());
        let usable = self.sessions.iter().enumerate().filter(|(_, session)| {
            session.is_well() && !avoided.is_some_and(|avoided| Arc::ptr_eq(avoided, session))
        });
        let best = usable.min_by_key(|(place, session)| {
            let is_same_node = avoided_node == Some(session.welcome.node);
            let order = (place + turn) % count;
            (
                is_same_node,
                session.is_leaving(),
                session.in_flight(),
                order,
            )
        });
        best.map(|(_, session)| session.clone())
    }

    fn nodes(&self) -> Vec<NodeId> {
        let nodes = self.sessions.iter().map(|session| session.welcome.node);
        nodes.collect()
    }

    /// Dials that should be under way and are not.
    fn dials_missing(&self, wanted: usize) -> usize {
        let good = |session: &&Arc<Session>| session.is_well() && !session.is_leaving();
        let good = self.sessions.iter().filter(good).count();
        wanted.saturating_sub(good + self.known.dialling())
    }
}

/// Keeps the pool connected until it is closed.
pub(crate) async fn keep(pool: Arc<Pool>) {
    let (notices, mut told) = mpsc::channel(NOTICES_WAITING_MAX);
    let mut is_closed = pool.is_closed.subscribe();
    let wanted = pool.options.connections.clamp(1, CONNECTIONS_MAX);
    loop {
        let retry = {
            let mut state = pool.state();
            let connected = state.nodes();
            for _ in 0..state.dials_missing(wanted) {
                let Some(address) = state.known.next(Instant::now(), &connected) else {
                    break;
                };
                tokio::spawn(dial(pool.clone(), address, notices.clone()));
            }
            let is_short = state.dials_missing(wanted) > 0;
            is_short.then(|| state.known.next_retry()).flatten()
        };
        let retry = retry.map_or_else(
            || Instant::now() + LOOK_AROUND,
            |retry| retry.max(Instant::now() + PAUSE_MIN),
        );
        tokio::select! {
            biased;
            _ = is_closed.wait_for(|is_closed| *is_closed) => return,
            notice = told.recv() => {
                if let Some(Notice::Nodes(doors)) = notice {
                    pool.learn(&doors);
                }
            }
            () = sleep_until(retry.into()) => {}
        }
        pool.has_changed();
    }
}

/// Dials an address and runs the session that comes of it to its end.
async fn dial(pool: Arc<Pool>, address: String, notices: mpsc::Sender<Notice>) {
    match pool.dialler.dial(&address).await {
        Ok(opened) => {
            let connection = opened.connection.clone();
            match pool.opened(opened) {
                Some((session, running)) => {
                    drop(notices.send(Notice::Changed).await);
                    let pace = (pool.options.suspect_after, pool.options.lost_after);
                    session::run(session.clone(), running, pace, notices.clone()).await;
                    pool.lost(&session);
                }
                None => connection.close(CLOSE_UNNEEDED, b""),
            }
        }
        Err(reason) => {
            tracing::debug!(%address, reason, "a node was not reached");
            let now = (Instant::now(), jitter());
            pool.state().known.failed(&address, reason, now);
        }
    }
    drop(notices.send(Notice::Changed).await);
}

/// Chance that spreads clients over time. Where the system has none, all wait the longest.
fn jitter() -> u8 {
    getrandom::u32().map_or(u8::MAX, |random| random.to_le_bytes()[0])
}

/// What sessions may tell before they wait.
const NOTICES_WAITING_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 64;
/// How often an undisturbed pool looks whether it could be better connected.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// So that an address whose time has come while its node is connected is no busy loop.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const CLOSE_UNNEEDED: quinn::VarInt = quinn::VarInt::from_u32(0);
