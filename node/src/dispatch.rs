//! Requests and answers between nodes, on `Plane::Infer`.
//!
//! What has at most [`LANE_BYTES_MAX`] travels on a lane: one of a few streams to each peer that
//! stay open, on which frames of many requests follow each other under their numbers. What is
//! larger has a stream of its own, so that it stands in nobody's way. A caller that goes away
//! cancels: by a frame on a lane, by a reset of its own stream.
//!
//! Who waits for an answer that can no longer come is told at once, and told whether the
//! request can have been executed: that decides whether it may be tried elsewhere.

mod lane;
mod own;
mod serving;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use paceline_protocol::NodeId;
use paceline_protocol::frame::Frame;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::lane::Lane;
pub use self::serving::{Handler, serve};
use crate::transport::{OpenError, Plane, Transport};

/// The way to workers on other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    body_bytes_max: usize,
    numbers: AtomicU64,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

struct Peer {
    node: NodeId,
    permits: Semaphore,
    lanes: [tokio::sync::Mutex<Option<Lane>>; LANES],
}

/// A request that was sent to another node has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It was certainly not executed.
    #[error("node {peer} did not get it: {reason}")]
    NotSent {
        /// Where it should have gone.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// So many requests are under way to the peer already; not executed.
    #[error("{PERMITS} requests are under way to node {peer} already")]
    Full {
        /// Where it should have gone.
        peer: NodeId,
    },
    /// It may have been executed, and its answer will not come.
    #[error("node {peer} fell silent: {reason}")]
    Silent {
        /// Where it went.
        peer: NodeId,
        /// What is known.
        reason: String,
    },
    /// The deadline has passed; it may have been executed.
    #[error("node {peer} did not answer in time")]
    Late {
        /// Where it went.
        peer: NodeId,
    },
}

impl Peers {
    /// Ways over `transport`; answers have at most `body_bytes_max` bytes of tensors.
    pub fn new(transport: Arc<dyn Transport>, body_bytes_max: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport,
                body_bytes_max,
                numbers: AtomicU64::new(1),
                peers: Mutex::default(),
            }),
        }
    }

    /// Sends a request and waits for its answer, until `deadline`. The frame's number is
    /// chosen here. Dropping the future cancels the request.
    ///
    /// # Errors
    /// [`Lost`] says why there is no answer, and whether it can have been executed.
    pub async fn ask(
        &self,
        peer: NodeId,
        mut frame: Frame,
        deadline: Instant,
    ) -> Result<Frame, Lost> {
        frame.number = self.inner.numbers.fetch_add(1, Ordering::Relaxed);
        let number = frame.number;
        let parts = frame.encode().map_err(|error| Lost::NotSent {
            peer,
            reason: error.to_string(),
        })?;
        let to = self.peer(peer);
        let Ok(_permit) = to.permits.try_acquire() else {
            return Err(Lost::Full { peer });
        };
        let bytes: usize = parts.iter().map(bytes::Bytes::len).sum();
        let late = |_| Lost::Late { peer };
        if bytes <= LANE_BYTES_MAX {
            let lane = timeout_at(deadline, self.lane(&to, number));
            let lane = lane.await.map_err(late)??;
            let answer = timeout_at(deadline, lane.ask(number, parts));
            return answer.await.map_err(late)?;
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        let opened = self.inner.transport.open(peer, Plane::Infer, limit);
        let stream = opened.await.map_err(|error| not_sent(peer, &error))?;
        let answer = own::ask(stream, &parts, (peer, self.inner.body_bytes_max));
        timeout_at(deadline, answer).await.map_err(late)?
    }

    fn peer(&self, node: NodeId) -> Arc<Peer> {
        let peers = self.inner.peers.lock();
        let mut peers = peers.unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Peer {
                node,
                permits: Semaphore::new(PERMITS),
                lanes: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            })
        };
        peers.entry(node).or_insert_with(new).clone()
    }

    /// The lane of a request, opened if there is none that works.
    async fn lane(&self, peer: &Peer, number: u64) -> Result<Lane, Lost> {
        let mut lane = peer.lanes[number as usize % LANES].lock().await;
        if let Some(lane) = lane.as_ref().filter(|lane| lane.works()) {
            return Ok(lane.clone());
        }
        let inner = &self.inner;
        let opened = inner.transport.open(peer.node, Plane::Infer, OPEN_LIMIT);
        let stream = opened.await.map_err(|error| not_sent(peer.node, &error))?;
        let opened = Lane::start(peer.node, stream, inner.body_bytes_max);
        Ok(lane.insert(opened).clone())
    }
}

fn not_sent(peer: NodeId, error: &OpenError) -> Lost {
    Lost::NotSent {
        peer,
        reason: error.to_string(),
    }
}

/// The first byte of a stream says what it is.
const KIND_LANE: u8 = b'L';
const KIND_OWN: u8 = b'O';
/// The largest request that waits behind others on a lane.
pub const LANE_BYTES_MAX: usize = 16 << 10;
/// Lanes to each peer: one would put every answer behind every other's lost packet.
const LANES: usize = 2;
/// Requests to one peer at a time.
pub const PERMITS: usize = 1_024;
/// A peer that takes longer is tried again by the next request.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
