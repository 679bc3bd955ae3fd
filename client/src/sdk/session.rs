//! A connection with one node, and the requests that are in flight on it.
//!
//! Small requests share two long-lived streams, the lanes; larger ones have a stream of their
//! own, where one whose answer comes in parts also reads it. Any other answer finds its request by
//! number. While anything is in flight, an empty
//! datagram is sent every 100 ms, whose acknowledgement says that the node lives; otherwise one a
//! second is.

mod attempt;
mod lane;
mod streamed;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paceline_protocol::client::{CLOSED_ANSWERED, ClientDoor, Greeting, Welcome};
use paceline_protocol::frame::Frame;
use paceline_protocol::limits::BODY_BYTES_MAX;
use quinn::{Connection, ConnectionError, RecvStream, VarInt};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) use self::attempt::{Attempt, NotStarted, Outcome};
use self::lane::{Lane, Outgoing};
pub(crate) use self::streamed::{Heard, Streamed};
use super::frames::{FrameReader, read_greeting};
use super::silence::{Health, Silence};

/// A connection on which a node has said welcome.
pub(crate) struct Session {
    pub(crate) welcome: Welcome,
    pub(crate) address: String,
    connection: Connection,
    lanes: [Lane; LANES],
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Frame>>>,
    numbers: AtomicU64,
    health: watch::Sender<Health>,
    is_leaving: AtomicBool,
    permits: Arc<Semaphore>,
    permits_max: usize,
    started: Notify,
}

/// What a session tells its pool.
pub(crate) enum Notice {
    /// Whether requests should go here has changed.
    Changed,
    /// Where nodes are reached has changed.
    Nodes(Vec<ClientDoor>),
}

/// What a session runs on, before it runs.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) greetings: RecvStream,
    pub(crate) welcome: Welcome,
    pub(crate) address: String,
}

impl Session {
    /// A session, and the queues of its lanes, which [`run`] writes out.
    pub(crate) fn new(opened: Opened) -> (Arc<Self>, Running) {
        let permits_max = (opened.welcome.in_flight_max as usize).clamp(1, IN_FLIGHT_MAX);
        let (lanes, queues): (Vec<_>, Vec<_>) = std::iter::repeat_with(|| Lane::new(permits_max))
            .take(LANES)
            .unzip();
        let lanes = <[Lane; LANES]>::try_from(lanes);
        let session = Arc::new(Self {
            welcome: opened.welcome,
            address: opened.address,
            connection: opened.connection,
            lanes: lanes.unwrap_or_else(|_| unreachable!("as many as were taken")),
            waiting: Mutex::default(),
            numbers: AtomicU64::new(1),
            health: watch::Sender::new(Health::Well),
            is_leaving: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            started: Notify::new(),
        });
        let running = Running {
            queues,
            greetings: opened.greetings,
        };
        (session, running)
    }

    /// Whether new requests may go here.
    pub(crate) fn is_well(&self) -> bool {
        *self.health.borrow() == Health::Well
    }

    /// Whether the node wants new requests to go elsewhere.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Requests in flight here.
    pub(crate) fn in_flight(&self) -> usize {
        self.permits_max - self.permits.available_permits()
    }

    /// Waits until the node is suspect or lost.
    pub(crate) async fn suspected(&self) {
        let mut health = self.health.subscribe();
        // The sender lives as long as the session does.
        drop(health.wait_for(|health| *health != Health::Well).await);
    }

    /// Whether the node has closed the connection after it had answered all that it took.
    fn has_answered_all(&self) -> bool {
        match self.connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => {
                close.error_code == VarInt::from_u32(CLOSED_ANSWERED)
            }
            _ => false,
        }
    }

    /// Gives the connection up.
    pub(crate) fn close(&self) {
        self.connection.close(CLOSE_DONE, b"");
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Frame>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a frame to whoever waits for it; others have been given up.
    fn arrived(&self, frame: Frame) {
        let waiter = self.waiting().remove(&frame.number);
        if let Some(waiter) = waiter {
            drop(waiter.send(frame));
        }
    }
}

/// What a session's tasks need and nobody else.
pub(crate) struct Running {
    queues: Vec<mpsc::Receiver<Outgoing>>,
    greetings: RecvStream,
}

/// Runs a session until its connection is gone; then all that waits on it is told.
pub(crate) async fn run(
    session: Arc<Session>,
    running: Running,
    pace: (Duration, Duration),
    notices: mpsc::Sender<Notice>,
) {
    let mut tasks = JoinSet::new();
    for queue in running.queues {
        tasks.spawn(lane::run(session.clone(), queue));
    }
    tasks.spawn(large_answers(session.clone()));
    tasks.spawn(greetings(
        session.clone(),
        running.greetings,
        notices.clone(),
    ));
    tasks.spawn(watch_over(session.clone(), pace, notices.clone()));
    // None of them ends as long as the connection lives and makes sense.
    tasks.join_next().await;
    session.close();
    // What has arrived is read to its end: answers among it count.
    let reading = async { while tasks.join_next().await.is_some() {} };
    drop(timeout(LAST_READS, reading).await);
    tasks.shutdown().await;
    session.permits.close();
    session.waiting().clear();
    session.health.send_replace(Health::Lost);
    drop(notices.send(Notice::Changed).await);
}

/// Answers that are too large for a lane, each on a stream of its own.
async fn large_answers(session: Arc<Session>) {
    let mut readers = JoinSet::new();
    while let Ok(receive) = session.connection.accept_uni().await {
        let session = session.clone();
        let mut reader = FrameReader::new(receive, BODY_BYTES_MAX);
        readers.spawn(async move {
            if let Ok(Some(frame)) = reader.next().await {
                session.arrived(frame);
            }
        });
        while readers.try_join_next().is_some() {}
    }
}

async fn greetings(session: Arc<Session>, mut receive: RecvStream, notices: mpsc::Sender<Notice>) {
    while let Ok(greeting) = read_greeting(&mut receive).await {
        let notice = match greeting {
            Greeting::GoAway | Greeting::Stay => {
                let is_leaving = matches!(greeting, Greeting::GoAway);
                session.is_leaving.store(is_leaving, Ordering::Relaxed);
                Notice::Changed
            }
            Greeting::Nodes(nodes) => Notice::Nodes(nodes),
            Greeting::Welcome(_) | Greeting::Refused(_) => break,
        };
        if notices.send(notice).await.is_err() {
            break;
        }
    }
}

/// Listens for the node's life signs: closely while an answer is due, and now and then while none
/// is, so that what is sent next does not go to a node that was killed meanwhile.
async fn watch_over(
    session: Arc<Session>,
    limits: (Duration, Duration),
    notices: mpsc::Sender<Notice>,
) {
    loop {
        let silent = match session.in_flight() {
            0 => session.falls_silent_idle().await,
            _ => None,
        };
        if silent.is_some() {
            session.health.send_replace(Health::Suspect);
            if notices.send(Notice::Changed).await.is_err() {
                return;
            }
        }
        let mut silence = silent.unwrap_or_else(|| Silence::new(Instant::now(), session.heard()));
        let mut looks = 0u32;
        while session.in_flight() > 0 || !session.is_well() {
            if looks.is_multiple_of(LOOKS_PER_SIGN) {
                session.give_sign();
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(LOOK_PACE).await;
            let now = (Instant::now(), session.heard());
            let health = silence.look(now, LOOK_PACE, limits);
            if health == Health::Lost {
                return;
            }
            if session.health.send_replace(health) != health
                && notices.send(Notice::Changed).await.is_err()
            {
                return;
            }
        }
    }
}

impl Session {
    /// A number that rises with every packet of the node.
    fn heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Sends something that the node acknowledges. What cannot be sent now is made up for by the
    /// next one.
    fn give_sign(&self) {
        drop(self.connection.send_datagram(Bytes::new()));
    }

    /// Waits for the next request; or until the node has not acknowledged two signs in a row, and
    /// says since when it is silent then.
    async fn falls_silent_idle(&self) -> Option<Silence> {
        let mut silence = Silence::new(Instant::now(), self.heard());
        loop {
            self.give_sign();
            if timeout(IDLE_PACE, self.started.notified()).await.is_ok() {
                return None;
            }
            let now = (Instant::now(), self.heard());
            let limits = (IDLE_SILENCE, Duration::MAX);
            if silence.look(now, IDLE_PACE, limits) != Health::Well {
                return Some(silence);
            }
        }
    }
}

/// Two, so that a lost packet holds up only half of the small requests.
const LANES: usize = 2;
/// A node may allow fewer.
const IN_FLIGHT_MAX: usize = 4_096;
const LOOK_PACE: Duration = Duration::from_millis(50);
/// A sign every 100 ms.
const LOOKS_PER_SIGN: u32 = 2;
/// A sign a second costs a connection that nobody uses two small packets.
const IDLE_PACE: Duration = Duration::from_secs(1);
/// Two signs without an acknowledgement, however late the looks are.
const IDLE_SILENCE: Duration = Duration::from_millis(1_500);
/// What was received before a connection was lost is read in less.
const LAST_READS: Duration = Duration::from_millis(50);
const CLOSE_DONE: VarInt = VarInt::from_u32(0);
