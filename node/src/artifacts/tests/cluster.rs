//! Nodes with disks and a network in memory, and a count of what each asks of whom.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use paceline_protocol::{Digest, ManifestFile, NodeId};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::super::wire::{Answer, DIALECT, Request};
use super::super::{Artifacts, Fetcher, serve};
use crate::storage::MemoryDisk;
use crate::transport::memory::{MemoryNetwork, MemoryTransport};
use crate::transport::{Boxed, Incoming, OpenError, Plane, Stream, Transport};

pub(super) struct Cluster {
    network: MemoryNetwork,
    ids: Vec<NodeId>,
    /// Every life of every node; the last one of an id is what runs.
    peers: Mutex<Vec<(NodeId, &'static Peer)>>,
}

/// One life of a node.
pub(super) struct Peer {
    disk: MemoryDisk,
    store: Artifacts,
    fetcher: Fetcher,
    transport: Arc<Counting>,
}

impl Cluster {
    pub(super) fn new(ids: &[NodeId]) -> Self {
        let cluster = Self {
            network: MemoryNetwork::new(1),
            ids: ids.to_vec(),
            peers: Mutex::default(),
        };
        for id in ids {
            cluster.start(*id, MemoryDisk::new());
        }
        cluster
    }

    pub(super) fn node(&self, id: NodeId) -> &'static Peer {
        let peers = self.peers.lock().unwrap();
        peers.iter().rev().find(|(of, _)| *of == id).unwrap().1
    }

    /// Starts a node again; with a seed, after a loss of power.
    pub(super) fn restart(&self, id: NodeId, power: Option<u64>) -> &'static Peer {
        let disk = self.node(id).disk.clone();
        self.start(id, power.map_or(disk.clone(), |seed| disk.crash(seed)))
    }

    fn start(&self, id: NodeId, disk: MemoryDisk) -> &'static Peer {
        let transport = Arc::new(Counting {
            inner: self.join(id),
            network: self.network.clone(),
            asked: Mutex::default(),
            crash: Mutex::default(),
            open: Arc::default(),
        });
        let store = Artifacts::open(Arc::new(disk.clone())).unwrap();
        let fetcher = Fetcher::new(store.clone(), transport.clone());
        tokio::spawn(serve(fetcher.clone()));
        // A test's few nodes may live as long as the test.
        let peer = Box::leak(Box::new(Peer {
            disk,
            store,
            fetcher,
            transport,
        }));
        self.peers.lock().unwrap().push((id, peer));
        peer
    }

    fn join(&self, id: NodeId) -> Arc<MemoryTransport> {
        let transport = self.network.join(id);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        transport.set_peers((1..=9).map(|peer| (NodeId(peer), nowhere)).collect());
        transport
    }
}

impl Peer {
    /// Stores an artifact of so many chunks, always the same one.
    pub(super) fn fill(&self, chunks: usize) -> Digest {
        let bytes = chunks * paceline_protocol::limits::ARTIFACT_CHUNK_BYTES - 1_000;
        let mut weights = vec![0; bytes];
        for (index, place) in weights.iter_mut().enumerate() {
            // No two chunks are the same.
            *place = (index ^ (index >> 8) ^ (index >> 22)) as u8;
        }
        self.store.store_files(&[("weights", &weights)]).unwrap()
    }

    pub(super) fn file(&self, artifact: Digest) -> ManifestFile {
        self.store.manifest(artifact).unwrap().files.remove(0)
    }

    pub(super) fn store(&self) -> &Artifacts {
        &self.store
    }

    pub(super) fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    pub(super) fn fetcher(&self) -> Fetcher {
        self.fetcher.clone()
    }

    pub(super) fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// How many questions it has asked of `peer`.
    pub(super) fn asked(&self, peer: NodeId) -> usize {
        let asked = self.transport.asked.lock().unwrap();
        asked.get(&peer).copied().unwrap_or_default()
    }

    /// The most questions that it had open at a time.
    pub(super) fn peak(&self) -> usize {
        self.transport.open.1.load(Ordering::SeqCst)
    }

    /// Lets `peer` lose its power when it is asked for the `count`-th time.
    pub(super) fn crash_after(&self, peer: NodeId, count: usize) {
        *self.transport.crash.lock().unwrap() = Some((peer, count));
    }
}

/// Counts streams.
struct Counting {
    inner: Arc<MemoryTransport>,
    network: MemoryNetwork,
    asked: Mutex<BTreeMap<NodeId, usize>>,
    crash: Mutex<Option<(NodeId, usize)>>,
    open: Arc<(AtomicUsize, AtomicUsize)>,
}

impl Transport for Counting {
    fn node(&self) -> NodeId {
        self.inner.node()
    }

    fn open(
        &self,
        peer: NodeId,
        plane: Plane,
        limit: Duration,
    ) -> Boxed<'_, Result<Stream, OpenError>> {
        Box::pin(async move {
            let asked = {
                let mut asked = self.asked.lock().unwrap();
                let asked = asked.entry(peer).or_default();
                *asked += 1;
                *asked
            };
            if *self.crash.lock().unwrap() == Some((peer, asked)) {
                self.network.crash(peer);
            }
            let mut stream = self.inner.open(peer, plane, limit).await?;
            let now = self.open.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.open.1.fetch_max(now, Ordering::SeqCst);
            let inner = std::mem::replace(&mut stream.receive, Box::new(tokio::io::empty()));
            let open = self.open.clone();
            stream.receive = Box::new(Counted { inner, open });
            Ok(stream)
        })
    }

    fn accept(&self, plane: Plane) -> Boxed<'_, Option<Incoming>> {
        self.inner.accept(plane)
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        self.inner.set_peers(peers);
    }

    fn heard(&self, peer: NodeId) -> u64 {
        self.inner.heard(peer)
    }

    fn disconnect(&self, peer: NodeId) {
        self.inner.disconnect(peer);
    }

    fn close(&self) {
        self.inner.close();
    }

    fn closed(&self) -> Boxed<'_, ()> {
        self.inner.closed()
    }
}

struct Counted {
    inner: Box<dyn AsyncRead + Send + Sync + Unpin>,
    open: Arc<(AtomicUsize, AtomicUsize)>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.inner).poll_read(context, buffer)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A node that says it has everything, and gives chunks in which one bit is wrong.
pub(super) struct Liar {
    told: Arc<AtomicUsize>,
}

impl Liar {
    pub(super) fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}

/// Puts a liar at `id` of a network; it knows what is in `truth`.
pub(super) fn lie(cluster: &Cluster, id: NodeId, truth: &Artifacts) -> Liar {
    assert!(
        !cluster.ids.contains(&id),
        "there is an honest node at {id}"
    );
    let transport = cluster.join(id);
    let (truth, told) = (truth.clone(), Arc::new(AtomicUsize::new(0)));
    let liar = Liar { told: told.clone() };
    tokio::spawn(async move {
        while let Some(Incoming { mut stream, .. }) = transport.accept(Plane::Blob).await {
            let request = DIALECT.receive(&mut *stream.receive).await.unwrap();
            let bytes = match request {
                Request::Has { artifacts } => {
                    let held = vec![true; artifacts.len()];
                    let answer = Answer::Has { held };
                    DIALECT.send(&mut *stream.send, &answer).await.unwrap();
                    stream.send.finish();
                    continue;
                }
                Request::Manifest { artifact } => {
                    serde_json::to_vec(&truth.manifest(artifact).unwrap()).unwrap()
                }
                Request::Chunk { file, index } => {
                    told.fetch_add(1, Ordering::SeqCst);
                    let mut bytes = truth.chunk(file, index).unwrap().unwrap();
                    bytes[9] ^= 4;
                    bytes
                }
                Request::Keep { .. } => continue,
            };
            let count = bytes.len() as u32;
            // Who has found out goes away in the middle.
            let _ = DIALECT
                .send(&mut *stream.send, &Answer::Bytes { count })
                .await;
            let _ = stream.send.write_all(&bytes).await;
            stream.send.finish();
        }
    });
    liar
}
