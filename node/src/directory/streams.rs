//! The twin of the directory: each node tells each peer over one stream of `Plane::Mesh`.
//!
//! A stream carries words in one direction, from who opened it. When it breaks, its reader
//! makes the peer unknown, and its writer opens another one after a pause that grows and is
//! drawn from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paceline_core::Random;
use paceline_protocol::NodeId;
use paceline_protocol::limits::NODE_REPORT_BYTES_MAX;
use paceline_protocol::report::{NodeReport, Told};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::{Board, Directory, EVERY, Publication, Publisher, Reports};
use crate::transport::message::exactly;
use crate::transport::{Incoming, Plane, Stream, Transport};

/// A directory over streams.
pub struct StreamDirectory {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    transport: Arc<dyn Transport>,
    board: Board,
    publisher: Publisher,
    seed: u64,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

/// What runs for one peer.
#[derive(Default)]
struct Peer {
    telling: Option<JoinHandle<()>>,
    /// Only the newest stream of a peer is listened to.
    listening: Option<AbortHandle>,
}

impl StreamDirectory {
    /// A directory without peers. `seed` decides pauses and is this node's mark: no two lives
    /// of a node have the same. Runs on the runtime that it is called on.
    pub fn start(transport: Arc<dyn Transport>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            transport,
            board: Board::default(),
            publisher: Publisher::new(seed),
            seed,
            peers: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(shared.clone())).abort_handle();
        Self { shared, accepting }
    }
}

impl Directory for StreamDirectory {
    fn publish(&self, report: NodeReport) {
        self.shared.publisher.publish(report);
    }

    fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.shared.board.watch()
    }

    fn set_peers(&self, mut named: BTreeSet<NodeId>) {
        let shared = &self.shared;
        named.remove(&shared.transport.node());
        let mut peers = shared.locked();
        peers.retain(|peer, _| named.contains(peer));
        for peer in &named {
            peers.entry(*peer).or_insert_with(|| {
                let publication = shared.publisher.subscribe();
                let random = Random::stream(shared.seed, &format!("mesh {peer}"));
                let way = Way {
                    transport: shared.transport.clone(),
                    peer: *peer,
                };
                Peer {
                    telling: Some(tokio::spawn(way.tell(publication, random))),
                    listening: None,
                }
            });
        }
        drop(peers);
        shared.board.keep(&named);
    }

    fn close(&self) {
        self.accepting.abort();
        self.shared.locked().clear();
    }
}

impl Drop for StreamDirectory {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(telling) = self.telling.take() {
            telling.abort();
        }
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what peers open until the transport is closed.
async fn accept(shared: Arc<Shared>) {
    while let Some(Incoming { peer, stream }) = shared.transport.accept(Plane::Mesh).await {
        let mut peers = shared.locked();
        // Who is no peer yet opens it again when its first one is closed.
        let Some(known) = peers.get_mut(&peer) else {
            continue;
        };
        let listening = tokio::spawn(listen(shared.clone(), peer, stream));
        if let Some(before) = known.listening.replace(listening.abort_handle()) {
            before.abort();
        }
    }
}

/// Writes down what a peer says of itself, until it says no more.
async fn listen(shared: Arc<Shared>, peer: NodeId, mut stream: Stream) {
    loop {
        match hear(&mut stream).await {
            Ok(told) if told.node() == peer => {
                // A report comes whole on each stream, and with its stream it goes.
                shared.board.hear(&told);
            }
            Ok(told) => {
                let claimed = told.node();
                tracing::warn!(%peer, %claimed, "a peer speaks for another node");
                break;
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "a peer has stopped talking");
                break;
            }
        }
    }
    // Under the lock, so that no newer stream is opened meanwhile; if one is there, it is right.
    let peers = shared.locked();
    let newest = peers.get(&peer).and_then(|known| known.listening.as_ref());
    if newest.is_some_and(|newest| Some(newest.id()) == tokio::task::try_id()) {
        shared.board.forget(peer);
    }
}

async fn hear(stream: &mut Stream) -> io::Result<Told> {
    use tokio::io::AsyncReadExt;
    let next = async {
        let length = stream.receive.read_u32_le().await? as usize;
        if length > NODE_REPORT_BYTES_MAX {
            let reason = format!("a report of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        exactly(&mut *stream.receive, length as u64).await
    };
    let bytes = timeout(SILENCE_MAX, next).await??;
    Told::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The way to one peer.
struct Way {
    transport: Arc<dyn Transport>,
    peer: NodeId,
}

impl Way {
    /// Tells the peer everything, over one stream after the other.
    async fn tell(self, publication: Publication, mut random: Random) {
        let mut pause = PAUSE_MIN;
        loop {
            let opened = self
                .transport
                .open(self.peer, Plane::Mesh, OPEN_LIMIT)
                .await;
            if let Ok(mut stream) = opened {
                let mut publication = publication.anew();
                loop {
                    let Some(told) = publication.next().await else {
                        return;
                    };
                    if let Err(error) = say(&mut stream, &told).await {
                        tracing::debug!(peer = %self.peer, %error, "a peer does not listen");
                        break;
                    }
                    pause = PAUSE_MIN;
                }
            }
            // Half to whole: nodes that lost each other together do not come back together.
            let micros = pause.as_micros() as u64 / 2;
            tokio::time::sleep(Duration::from_micros(micros + random.below(micros))).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}

async fn say(stream: &mut Stream, told: &Told) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let bytes = told.encode().map_err(io::Error::other)?;
    let saying = async {
        stream
            .send
            .write_all(&(bytes.len() as u32).to_le_bytes())
            .await?;
        stream.send.write_all(&bytes).await?;
        stream.send.flush().await
    };
    timeout(SILENCE_MAX, saying).await?
}

/// For a connection, and everything that it takes.
const OPEN_LIMIT: Duration = Duration::from_secs(2);
/// A peer that says nothing for so long has lost the stream, whatever the transport thinks.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(
    SILENCE_MAX.as_millis() > 2 * EVERY.as_millis(),
    "one word may be late"
);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
