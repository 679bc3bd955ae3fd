//! What peers ask of this node about artifacts, and the answers.
//!
//! Questions at a time are bounded for each peer, bytes in memory for all of them together, and
//! everything has a deadline. A peer over its bound has its stream closed unread.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use paceline_protocol::limits::MANIFEST_BYTES_MAX;
use paceline_protocol::{Digest, NodeId};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::fetch::Fetcher;
use super::store::{ArtifactError, Artifacts};
use super::wire::{Answer, DIALECT, HAS_MAX, Request};
use crate::transport::{Incoming, Plane, Stream};

/// Answers peers' questions until the transport is closed. What a peer wants kept is fetched by
/// `fetcher`, from that peer.
pub async fn serve(fetcher: Fetcher) {
    let serving = Serving::new(fetcher.clone());
    while let Some(Incoming { peer, stream }) = fetcher.transport().accept(Plane::Blob).await {
        let Some(place) = serving.place(peer) else {
            tracing::debug!(%peer, "too many questions at a time");
            continue;
        };
        let serving = serving.clone();
        tokio::spawn(async move {
            if let Err(error) = serving.converse(peer, stream).await {
                tracing::debug!(%peer, %error, "a question about artifacts came to nothing");
            }
            drop(place);
        });
    }
}

#[derive(Clone)]
struct Serving {
    fetcher: Fetcher,
    /// Chunks and manifests in memory.
    buffers: Arc<Semaphore>,
    keeps: Arc<Semaphore>,
    asking: Asking,
    /// Threads at the disk. One that the disk does not answer keeps its place until it does.
    threads: Arc<Semaphore>,
}

/// How many questions each peer has open.
type Asking = Arc<Mutex<BTreeMap<NodeId, usize>>>;

/// A question's place among them, until it is dropped.
struct Place {
    asking: Asking,
    peer: NodeId,
}

impl Serving {
    fn new(fetcher: Fetcher) -> Self {
        Self {
            fetcher,
            buffers: Arc::new(Semaphore::new(BUFFERS_MAX)),
            keeps: Arc::new(Semaphore::new(KEEPS_MAX)),
            asking: Arc::default(),
            threads: Arc::new(Semaphore::new(THREADS_MAX)),
        }
    }

    fn place(&self, peer: NodeId) -> Option<Place> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let open = asking.entry(peer).or_default();
        if *open >= QUESTIONS_MAX {
            return None;
        }
        *open += 1;
        let asking = self.asking.clone();
        Some(Place { asking, peer })
    }

    async fn converse(&self, peer: NodeId, mut stream: Stream) -> io::Result<()> {
        let request = timeout(REQUEST_LIMIT, DIALECT.receive(&mut *stream.receive)).await??;
        match request {
            Request::Has { artifacts } => {
                let answer = self.has(artifacts).await;
                say(&mut stream, &answer).await
            }
            Request::Manifest { artifact } => {
                let read = move |artifacts: &Artifacts| manifest(artifacts, artifact);
                self.give(&mut stream, read).await
            }
            Request::Chunk { file, index } => {
                let read = move |artifacts: &Artifacts| Ok(artifacts.chunk(file, index)?);
                self.give(&mut stream, read).await
            }
            Request::Keep {
                artifact,
                budget_ms,
            } => {
                let limit = KEEP_LIMIT.min(Duration::from_millis(budget_ms));
                let answer = self.keep(peer, artifact, limit).await;
                say(&mut stream, &answer).await
            }
        }
    }

    async fn has(&self, artifacts: Vec<Digest>) -> Answer {
        if artifacts.len() > HAS_MAX {
            return Answer::failed(format!("at most {HAS_MAX} artifacts at a time"));
        }
        let held = self.disk(move |store| {
            artifacts
                .iter()
                .map(|digest| store.holds(*digest))
                .collect()
        });
        match held.await {
            Ok(held) => Answer::Has { held },
            Err(error) => Answer::failed(error),
        }
    }

    /// Answers with bytes from the disk, once there is room for them in memory.
    async fn give(
        &self,
        stream: &mut Stream,
        read: impl FnOnce(&Artifacts) -> Result<Option<Vec<u8>>, ArtifactError> + Send + 'static,
    ) -> io::Result<()> {
        let Ok(Ok(room)) = timeout(ROOM_LIMIT, self.buffers.clone().acquire_owned()).await else {
            return say(stream, &Answer::Busy).await;
        };
        let given = match self.disk(read).await {
            Ok(Some(bytes)) => {
                let count = bytes.len() as u32;
                let giving = async {
                    DIALECT
                        .send(&mut *stream.send, &Answer::Bytes { count })
                        .await?;
                    stream.send.write_all(&bytes).await?;
                    stream.send.finish();
                    io::Result::Ok(())
                };
                timeout(BYTES_LIMIT, giving).await?
            }
            Ok(None) => say(stream, &Answer::Missing).await,
            Err(error) => say(stream, &Answer::failed(error)).await,
        };
        drop(room);
        given
    }

    async fn keep(&self, peer: NodeId, artifact: Digest, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        let Ok(Ok(_place)) = timeout(limit, self.keeps.acquire()).await else {
            return Answer::Busy;
        };
        match self.fetcher.fetch(artifact, &[peer], deadline).await {
            Ok(()) => Answer::Kept,
            Err(error) => Answer::failed(error),
        }
    }

    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Artifacts) -> Result<T, ArtifactError> + Send + 'static,
    ) -> Result<T, ArtifactError> {
        let artifacts = self.fetcher.artifacts().clone();
        let (places, threads) = (self.threads.clone(), artifacts.threads());
        let working = async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let working = threads.blocking(move || {
                let done = work(&artifacts);
                drop(place);
                done
            });
            working.await.map_err(io::Error::other)?
        };
        // A thread cannot be ended, but who waits for it can be told.
        let done = timeout(DISK_LIMIT, working).await;
        done.unwrap_or_else(|late| Err(io::Error::from(late).into()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = asking.get_mut(&self.peer) {
            *open -= 1;
            if *open == 0 {
                asking.remove(&self.peer);
            }
        }
    }
}

fn manifest(artifacts: &Artifacts, artifact: Digest) -> Result<Option<Vec<u8>>, ArtifactError> {
    let manifest = match artifacts.manifest(artifact) {
        Err(ArtifactError::Missing { .. } | ArtifactError::Damaged { .. }) => return Ok(None),
        other => other?,
    };
    let json = serde_json::to_vec(&manifest).map_err(io::Error::other)?;
    if json.len() > MANIFEST_BYTES_MAX {
        let reason = format!("a manifest of {} bytes does not travel", json.len());
        return Err(io::Error::other(reason).into());
    }
    Ok(Some(json))
}

/// Says the whole of a short answer.
async fn say(stream: &mut Stream, answer: &Answer) -> io::Result<()> {
    timeout(REQUEST_LIMIT, DIALECT.send(&mut *stream.send, answer)).await??;
    stream.send.finish();
    Ok(())
}

/// Questions that a peer may have open: eight chunks, and the rest for short ones.
const QUESTIONS_MAX: usize = 32;
/// 64 MiB of chunks, or four times as much in the rare case that all are the largest manifests.
const BUFFERS_MAX: usize = 16;
/// As many as chunks that are read, and as many again for short questions.
const THREADS_MAX: usize = 2 * BUFFERS_MAX;
/// Artifacts that are fetched at a time because peers want them kept.
const KEEPS_MAX: usize = 4;
/// A question is at most a few kilobytes.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long bytes may wait for room; then the asker goes to somebody else.
const ROOM_LIMIT: Duration = Duration::from_secs(5);
/// For a manifest of 16 MiB, or the whole list of what is held.
const DISK_LIMIT: Duration = Duration::from_secs(20);
/// For 16 MiB over a line of 10 Mbit/s.
const BYTES_LIMIT: Duration = Duration::from_secs(20);
/// The longest fetch that a peer can cause, whatever it asks for.
const KEEP_LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::runtime::Handle;
    use tokio::task::{JoinSet, yield_now};

    use super::*;
    use crate::storage::MemoryDisk;
    use crate::transport::memory::MemoryNetwork;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_a_few_threads_and_everybody_is_told() {
        let store = Artifacts::open(Arc::new(MemoryDisk::new())).unwrap();
        let transport = MemoryNetwork::new(1).join(NodeId(1));
        let serving = Serving::new(Fetcher::new(store, transport));
        let (gate, hanging) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut asking = JoinSet::new();
        for _ in 0..THREADS_MAX + 8 {
            let (serving, gate, hanging) = (serving.clone(), gate.clone(), hanging.clone());
            let work = move |_: &Artifacts| {
                hanging.fetch_add(1, Ordering::Relaxed);
                drop(Handle::current().block_on(gate.acquire()));
                Ok(())
            };
            asking.spawn(async move { serving.disk(work).await });
        }
        // Time stands still while threads are at work.
        while hanging.load(Ordering::Relaxed) < THREADS_MAX {
            yield_now().await;
        }
        tokio::time::advance(DISK_LIMIT + Duration::from_secs(1)).await;
        while let Some(told) = asking.join_next().await {
            let late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
            assert!(matches!(told.unwrap(), Err(ArtifactError::Disk(error)) if late(&error)));
        }
        assert_eq!(hanging.load(Ordering::Relaxed), THREADS_MAX);
        gate.add_permits(THREADS_MAX);
        assert!(serving.disk(|_| Ok(())).await.is_ok(), "it answers again");
    }
}
