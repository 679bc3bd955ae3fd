//! The asking side: which lane, or a stream of its own, and how a request ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use paceline_protocol::NodeId;
use paceline_protocol::frame::{Frame, FrameError};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::lane::{Asked, LATE, LOST, Lane, is_answer};
use super::reading::Frames;
use super::writing::Writer;
use super::{LANE_BYTES_MAX, Lost, PERMITS};
use crate::transport::{OpenError, Plane, Stream, Transport};

/// The way to replicas on other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Arc<dyn Transport>,
    /// Lanes outlive the request that opened them, and its runtime.
    runtime: Handle,
    body_bytes_max: usize,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

struct Peer {
    node: NodeId,
    permits: Arc<Semaphore>,
    next_number: AtomicU64,
    places: [Place; LANES],
}

/// Where a lane is, or will be.
#[derive(Default)]
struct Place {
    lane: ArcSwapOption<Lane>,
    opening: AsyncMutex<()>,
}

impl Peers {
    /// Asks over `transport`; bodies of requests and answers are at most `body_bytes_max`.
    /// Called within the runtime that shall drive the lanes.
    pub fn new(transport: Arc<dyn Transport>, body_bytes_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                transport,
                runtime: Handle::current(),
                body_bytes_max,
                peers: Mutex::default(),
            }),
        }
    }

    /// Has `node` serve a request, and returns what it says: an answer, a failure, or that the
    /// replica is gone. The request's number is given here. Dropping the future cancels.
    ///
    /// # Errors
    /// [`Lost`] says why there is no answer, and whether it can have been executed; at the latest
    /// at the deadline.
    pub async fn ask(&self, node: NodeId, frame: Frame, deadline: Instant) -> Result<Frame, Lost> {
        let peer = self.peer(node);
        let permit = peer.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Lost::Full { peer: node })?;
        let number = peer.next_number.fetch_add(1, Ordering::Relaxed);
        let parts = self.encode(Frame { number, ..frame });
        let parts = parts.map_err(|error| Lost::not_sent(node, error))?;
        let bytes = parts.iter().map(Bytes::len).sum::<usize>();
        if bytes > LANE_BYTES_MAX {
            return self.alone(&peer, &parts, deadline).await;
        }
        let mut request = (parts, permit);
        for _ in 0..LANES_TRIED {
            let lane = self.lane(&peer, number, deadline).await?;
            match lane.ask(number, request.0, request.1) {
                Ok(asked) => return Asked::answer(asked, deadline).await,
                // It ended since it was looked at.
                Err(back) => request = back,
            }
        }
        Err(Lost::not_sent(node, LOST))
    }

    fn encode(&self, frame: Frame) -> Result<Vec<Bytes>, FrameError> {
        let limit = self.shared.body_bytes_max;
        let bytes = frame.tensors.iter().map(|tensor| tensor.data().len());
        let bytes = bytes.sum::<usize>();
        if bytes > limit {
            let bytes = bytes as u64;
            return Err(FrameError::BodyTooLarge { bytes, limit });
        }
        frame.encode()
    }

    /// One request on a stream of its own. While the answer is awaited the stream stays open
    /// in both directions, so that dropping it resets it, which cancels.
    async fn alone(&self, peer: &Peer, parts: &[Bytes], deadline: Instant) -> Result<Frame, Lost> {
        let node = peer.node;
        let Stream { send, receive } = self.open(peer, deadline).await?;
        let mut writer = Writer::new(send);
        let writing = async {
            writer.write(parts).await?;
            writer.flush().await
        };
        // Not written whole is not executed: the peer serves whole frames only.
        match timeout_at(deadline, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(_lost)) => return Err(Lost::not_sent(node, LOST)),
            Err(_late) => return Err(Lost::not_sent(node, LATE)),
        }
        let mut frames = Frames::new(receive, self.shared.body_bytes_max);
        let answer = match timeout_at(deadline, frames.next(None)).await {
            Ok(Ok(Some((answer, _)))) if is_answer(&answer.message) => answer,
            Ok(Ok(_)) => return Err(Lost::Silent { peer: node }),
            Ok(Err(error)) => {
                tracing::debug!(peer = %node, %error, "an answer was lost");
                return Err(Lost::Silent { peer: node });
            }
            Err(_late) => return Err(Lost::Late { peer: node }),
        };
        writer.send.finish();
        Ok(answer)
    }

    /// An open lane for a request, opened if there is none. One at a time opens it.
    async fn lane(&self, peer: &Peer, number: u64, deadline: Instant) -> Result<Arc<Lane>, Lost> {
        let place = &peer.places[number as usize % LANES];
        let current = || place.lane.load_full().filter(|lane| lane.is_open());
        if let Some(lane) = current() {
            return Ok(lane);
        }
        let opening = timeout_at(deadline, place.opening.lock()).await;
        let _opening = opening.map_err(|_late| Lost::not_sent(peer.node, LATE))?;
        if let Some(lane) = current() {
            return Ok(lane);
        }
        let stream = self.open(peer, deadline).await?;
        let lane = Lane::new(peer.node);
        let run = lane.clone().run(stream, self.shared.body_bytes_max);
        self.shared.runtime.spawn(run);
        place.lane.store(Some(lane.clone()));
        Ok(lane)
    }

    async fn open(&self, peer: &Peer, deadline: Instant) -> Result<Stream, Lost> {
        let left = deadline.saturating_duration_since(Instant::now());
        let transport = &self.shared.transport;
        let limit = left.min(OPEN_LIMIT);
        let opened = transport.open(peer.node, Plane::Infer, limit).await;
        opened.map_err(|error| {
            if matches!(error, OpenError::Unknown { .. }) {
                // Nodes that were removed are not kept.
                self.shared.peers().remove(&peer.node);
            }
            Lost::not_sent(peer.node, error)
        })
    }

    fn peer(&self, node: NodeId) -> Arc<Peer> {
        let mut peers = self.shared.peers();
        let peer = peers.entry(node).or_insert_with(|| {
            Arc::new(Peer {
                node,
                permits: Arc::new(Semaphore::new(PERMITS)),
                next_number: AtomicU64::new(1),
                places: Default::default(),
            })
        });
        peer.clone()
    }
}

impl Shared {
    fn peers(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for peer in self.peers().values() {
            let lanes = peer.places.iter().filter_map(|place| place.lane.swap(None));
            lanes.for_each(|lane| lane.fail());
        }
    }
}

/// Lanes to a peer. More of them pack fewer requests into a packet (four were 3 to 4 times
/// slower than one at 64 in flight); the second one goes on while the first waits for a
/// packet that was lost.
const LANES: usize = 2;
/// A lane that ends between being found and being used is rare; twice in a row is a peer that
/// ends them.
const LANES_TRIED: usize = 3;
/// The longest that a request waits for a stream: the patience before another node is tried.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
