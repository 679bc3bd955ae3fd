//! One fetch: who has it, what is missing, and the pieces from several peers at a time.
//!
//! A peer that breaks off, lies or no longer has it is not asked again in this fetch, and the
//! piece is asked of another one. The fetch fails when nobody is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paceline_protocol::{Digest, Manifest, ManifestFile, NodeId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::super::ask::{AskError, Peers};
use super::super::store::{ArtifactError, Artifacts};
use super::{FetchError, Shared};

pub(super) struct Run {
    artifacts: Artifacts,
    peers: Peers,
    chunks: Arc<Semaphore>,
    artifact: Digest,
    deadline: Instant,
    sources: Mutex<Sources>,
}

/// Who can be asked.
#[derive(Default)]
struct Sources {
    /// Those that say they have it.
    known: BTreeMap<NodeId, Source>,
    /// Those that have not answered yet, for when none of the others is left.
    unheard: BTreeMap<NodeId, Source>,
    /// Why the last one is not among them any more.
    reason: String,
}

/// Someone who can be asked.
#[derive(Clone, Copy)]
struct Source {
    /// Questions that it is answering.
    busy: u32,
    /// Its place in the order in which sources are best asked.
    rank: usize,
}

/// A file that is not whole yet.
struct Unfinished {
    file: ManifestFile,
    left: AtomicU32,
}

/// What is still to be asked for.
type Queue = Mutex<VecDeque<(Arc<Unfinished>, u32)>>;

impl Run {
    pub(super) fn new(
        shared: &Shared,
        (artifact, deadline): (Digest, Instant),
        peers: &[NodeId],
    ) -> Self {
        let sources = Sources {
            known: BTreeMap::new(),
            unheard: peers
                .iter()
                .enumerate()
                .map(|(rank, peer)| (*peer, Source { busy: 0, rank }))
                .collect(),
            reason: "there is none to ask".to_owned(),
        };
        Self {
            artifacts: shared.artifacts.clone(),
            peers: shared.peers.clone(),
            chunks: shared.chunks.clone(),
            artifact,
            deadline,
            sources: Mutex::new(sources),
        }
    }

    pub(super) async fn run(self) -> Result<(), FetchError> {
        let artifact = self.artifact;
        let local = self.disk(move |artifacts| match artifacts.manifest(artifact) {
            Err(ArtifactError::Missing { .. } | ArtifactError::Damaged { .. }) => Ok(None),
            other => other.map(Some),
        });
        let local = local.await?;
        let asked = local.is_none();
        let manifest = match local {
            Some(manifest) => manifest,
            None => {
                self.find_sources().await?;
                self.manifest().await?
            }
        };
        let missing = self.missing_files(&manifest).await?;
        if !missing.is_empty() {
            if !asked {
                self.find_sources().await?;
            }
            self.fetch_files(missing).await?;
        }
        // Only now does the artifact exist here; this also makes names durable.
        self.artifacts_store(manifest).await
    }

    async fn artifacts_store(&self, manifest: Manifest) -> Result<(), FetchError> {
        self.disk(move |artifacts| artifacts.store(&manifest).map(drop))
            .await
    }

    /// Finds out who has it whole: once one says so, the others are waited for no longer than a
    /// moment, since some may be gone.
    async fn find_sources(&self) -> Result<(), FetchError> {
        let (artifact, deadline) = (self.artifact, self.deadline);
        let candidates: Vec<NodeId> = self.sources().unheard.keys().copied().collect();
        let mut asking = JoinSet::new();
        for peer in candidates {
            let peers = self.peers.clone();
            asking.spawn(async move { (peer, peers.has(peer, artifact, deadline).await) });
        }
        let mut until = deadline;
        while let Ok(Some(answered)) = timeout_at(until, asking.join_next()).await {
            match answered {
                Ok((peer, Ok(true))) => {
                    let mut sources = self.sources();
                    if sources.known.is_empty() {
                        until = deadline.min(Instant::now() + OTHERS_LIMIT);
                    }
                    let found = sources.unheard.remove(&peer);
                    sources.known.extend(found.map(|source| (peer, source)));
                }
                Ok((peer, Ok(false))) => self.drop_source(&AskError::Missing { peer }, peer),
                Ok((peer, Err(error))) => self.drop_source(&error, peer),
                Err(error) => {
                    let reason = error.to_string();
                    return Err(FetchError::Disk { reason });
                }
            }
        }
        Ok(())
    }

    async fn manifest(&self) -> Result<Manifest, FetchError> {
        loop {
            let peer = self.choose()?;
            let asked = self.peers.manifest(peer, self.artifact, self.deadline);
            let answered = asked.await;
            if let Some(manifest) = self.judge(peer, answered).await {
                return Ok(manifest);
            }
        }
    }

    /// The files that are not here, or not whole, each once.
    async fn missing_files(&self, manifest: &Manifest) -> Result<Vec<ManifestFile>, FetchError> {
        let mut seen = BTreeSet::new();
        let mut missing = Vec::new();
        for file in &manifest.files {
            if !seen.insert(file.sha256) {
                continue;
            }
            let candidate = file.clone();
            let whole = self.disk(move |artifacts| Ok(artifacts.whole(&candidate)?));
            if !whole.await? {
                missing.push(file.clone());
            }
        }
        Ok(missing)
    }

    async fn fetch_files(&self, files: Vec<ManifestFile>) -> Result<(), FetchError> {
        let mut queue = VecDeque::new();
        for file in files {
            let of = file.clone();
            let wanted = self.disk(move |artifacts| Ok(artifacts.wanted(&of)?));
            let wanted = wanted.await?;
            let unfinished = Arc::new(Unfinished {
                left: AtomicU32::new(wanted.len() as u32),
                file,
            });
            if wanted.is_empty() {
                self.complete(&unfinished).await?;
            }
            queue.extend(wanted.into_iter().map(|index| (unfinished.clone(), index)));
        }
        let queue = Queue::new(queue);
        let workers = std::array::from_fn::<_, STREAMS, _>(|_| self.work(&queue));
        let [one, two, three, four] = workers;
        // The first error ends the others too.
        tokio::try_join!(one, two, three, four).map(drop)
    }

    /// Takes one piece after the other until there are no more.
    async fn work(&self, queue: &Queue) -> Result<(), FetchError> {
        loop {
            let next = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((unfinished, index)) = next else {
                return Ok(());
            };
            let place = self.chunks.acquire().await;
            let bytes = self.chunk(&unfinished.file, index).await?;
            let sha256 = unfinished.file.sha256;
            // Others write beside this one, so it is about so many, not exactly.
            let durable = unfinished.left.load(Ordering::Acquire) % CHUNKS_A_SYNC == 0;
            let put =
                self.disk(move |disk| Ok(disk.put_chunk(sha256, (index, &bytes), durable)?));
            put.await?;
            drop(place);
            if unfinished.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.complete(&unfinished).await?;
            }
        }
    }

    async fn chunk(&self, file: &ManifestFile, index: u32) -> Result<Vec<u8>, FetchError> {
        let hash = file.chunks[index as usize];
        loop {
            let peer = self.choose()?;
            let wanted = (file.sha256, index, hash);
            let answered = self.peers.chunk(peer, wanted, self.deadline).await;
            if let Some(bytes) = self.judge(peer, answered).await {
                return Ok(bytes);
            }
        }
    }

    async fn complete(&self, unfinished: &Unfinished) -> Result<(), FetchError> {
        let file = unfinished.file.clone();
        self.disk(move |artifacts| artifacts.complete(&file)).await
    }

    /// The source with the least to do, and of those the first in the order.
    fn choose(&self) -> Result<NodeId, FetchError> {
        let mut sources = self.sources();
        if sources.known.is_empty() {
            sources.known = std::mem::take(&mut sources.unheard);
        }
        let cost = |source: &Source| (source.busy, source.rank);
        let least = sources
            .known
            .iter_mut()
            .min_by_key(|(_, source)| cost(source));
        if let Some((peer, source)) = least {
            source.busy += 1;
            return Ok(*peer);
        }
        Err(FetchError::Nowhere {
            artifact: self.artifact,
            reason: sources.reason.clone(),
        })
    }

    /// What `peer` gave, if it did; otherwise it is no source any more, unless it is only busy.
    async fn judge<T>(&self, peer: NodeId, answered: Result<T, AskError>) -> Option<T> {
        if let Some(source) = self.sources().known.get_mut(&peer) {
            source.busy -= 1;
        }
        match answered {
            Ok(given) => return Some(given),
            Err(AskError::Busy { .. }) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => self.drop_source(&error, peer),
        }
        None
    }

    fn drop_source(&self, error: &AskError, peer: NodeId) {
        let artifact = self.artifact;
        if matches!(error, AskError::Lied { .. }) {
            tracing::warn!(%peer, %artifact, %error, "a peer's bytes are not what they should be");
        } else {
            tracing::debug!(%peer, %artifact, %error, "a peer does not give an artifact");
        }
        let mut sources = self.sources();
        sources.known.remove(&peer);
        sources.unheard.remove(&peer);
        sources.reason = error.to_string();
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work on the disk, on a thread that may block.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Artifacts) -> Result<T, ArtifactError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let artifacts = self.artifacts.clone();
        let working = artifacts.threads().blocking(move || work(&artifacts));
        let artifact = self.artifact;
        // A thread cannot be ended, but who waits for it can be told.
        let done = timeout_at(self.deadline, working)
            .await
            .map_err(|_late| FetchError::Late { artifact })?;
        let done = done.map_err(|error| FetchError::Disk {
            reason: error.to_string(),
        })?;
        done.map_err(|error| FetchError::of(self.artifact, &error))
    }
}

/// Pieces that one fetch asks for at a time: two peers twice, so that neither waits for the disk.
const STREAMS: usize = 4;
/// Written between two syncs of a partial file: what a crash may cost, 32 MiB.
const CHUNKS_A_SYNC: u32 = 8;
/// Sources that answer later than this after the first are not waited for: a round trip.
const OTHERS_LIMIT: Duration = Duration::from_millis(100);
/// How long a peer with too much to do is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
