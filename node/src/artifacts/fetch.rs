//! Makes artifacts whole on this node's disk, from the peers that have them.

mod run;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use paceline_protocol::{Digest, ErrorCode, Failure, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use self::run::Run;
use super::ask::Peers;
use super::store::{ArtifactError, Artifacts};
use crate::transport::Transport;

/// Fetches artifacts, each once at a time. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    artifacts: Artifacts,
    peers: Peers,
    /// What all fetches together may have under way, so that memory is bounded.
    chunks: Arc<Semaphore>,
    running: Mutex<BTreeMap<Digest, Outcome>>,
}

type Outcome = watch::Receiver<Option<Result<(), FetchError>>>;

/// Why an artifact is not whole here. What was fetched of it is kept, and not fetched again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No peer that was asked gives it.
    #[error("no other node gives artifact {artifact}: {reason}")]
    Nowhere {
        /// Which.
        artifact: Digest,
        /// What the last one said.
        reason: String,
    },
    /// There was not enough time.
    #[error("artifact {artifact} could not be fetched in time")]
    Late {
        /// Which.
        artifact: Digest,
    },
    /// Its pieces are what its manifest says, the whole is not: it was never whole anywhere.
    #[error("artifact {artifact} contradicts itself: {reason}")]
    Contradictory {
        /// Which.
        artifact: Digest,
        /// What does not fit.
        reason: String,
    },
    /// The disk.
    #[error("the disk does not take or give it: {reason}")]
    Disk {
        /// What it says.
        reason: String,
    },
}

impl Fetcher {
    /// A fetcher into `artifacts`, from peers on `transport`.
    pub fn new(artifacts: Artifacts, transport: Arc<dyn Transport>) -> Self {
        let shared = Shared {
            artifacts,
            peers: Peers { transport },
            chunks: Arc::new(Semaphore::new(CHUNKS_MAX)),
            running: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns once the artifact is here, whole and durable: every byte has been hashed since
    /// the call. Asks `peers` for what is missing or damaged. A fetch of the same artifact that
    /// runs already is joined; if it fails, this one is tried as well. Cost: reads what is
    /// here; callers that only want to load try that first.
    ///
    /// # Errors
    /// [`FetchError`], at the latest at `deadline`.
    pub async fn fetch(
        &self,
        artifact: Digest,
        peers: &[NodeId],
        deadline: Instant,
    ) -> Result<(), FetchError> {
        loop {
            let (mut outcome, own) = self.join_or_start(artifact, peers, deadline);
            let ended = timeout_at(deadline, outcome.wait_for(Option::is_some)).await;
            let ended = ended.map_err(|_late| FetchError::Late { artifact })?;
            match ended.as_deref() {
                Ok(Some(Ok(()))) => return Ok(()),
                Ok(Some(Err(error))) if own => return Err(error.clone()),
                Err(_) if own => {
                    let reason = "the fetch ended without a word".to_owned();
                    return Err(FetchError::Disk { reason });
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Returns once the artifact is here: at once if all of its files are, by their names; else
    /// as [`Fetcher::fetch`]. Cost: looks at names only.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub async fn ensure(
        &self,
        artifact: Digest,
        peers: &[NodeId],
        deadline: Instant,
    ) -> Result<(), FetchError> {
        let artifacts = self.shared.artifacts.clone();
        let threads = artifacts.threads();
        let looking = threads.blocking(move || artifacts.holds(artifact));
        // What cannot be read is no copy: it is fetched, and hashed on the way.
        if let Ok(Ok(true)) = looking.await {
            return Ok(());
        }
        self.fetch(artifact, peers, deadline).await
    }

    pub(super) fn artifacts(&self) -> &Artifacts {
        &self.shared.artifacts
    }

    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        &self.shared.peers.transport
    }

    /// The fetch that runs, or a new one; and whether it is new.
    fn join_or_start(
        &self,
        artifact: Digest,
        peers: &[NodeId],
        deadline: Instant,
    ) -> (Outcome, bool) {
        let mut running = self.shared.locked();
        let vacant = match running.entry(artifact) {
            Entry::Occupied(entry) => return (entry.get().clone(), false),
            Entry::Vacant(vacant) => vacant,
        };
        let (ended, outcome) = watch::channel(None);
        vacant.insert(outcome.clone());
        let own = self.shared.peers.transport.node();
        let others = peers.iter().filter(|peer| **peer != own);
        let run = Run::new(
            &self.shared,
            (artifact, deadline),
            &others.copied().collect::<Vec<_>>(),
        );
        let listed = Listed {
            shared: self.shared.clone(),
            artifact,
        };
        tokio::spawn(async move {
            let result = timeout_at(deadline, run.run()).await;
            // Off the list first: who sees the end may start the next one.
            drop(listed);
            let late = Err(FetchError::Late { artifact });
            ended.send_replace(Some(result.unwrap_or(late)));
        });
        (outcome, true)
    }
}

impl Shared {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Outcome>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands in the list of what runs until it is dropped, also by a panic.
struct Listed {
    shared: Arc<Shared>,
    artifact: Digest,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.locked().remove(&self.artifact);
    }
}

impl FetchError {
    fn of(artifact: Digest, error: &ArtifactError) -> Self {
        let reason = error.to_string();
        match error {
            ArtifactError::Mismatch { .. }
            | ArtifactError::Manifest(_)
            | ArtifactError::Size { .. } => Self::Contradictory { artifact, reason },
            ArtifactError::Missing { .. }
            | ArtifactError::Damaged { .. }
            | ArtifactError::Disk(_) => Self::Disk { reason },
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let code = match &error {
            FetchError::Nowhere { .. } | FetchError::Late { .. } => ErrorCode::ArtifactMissing,
            FetchError::Contradictory { .. } => ErrorCode::ArtifactInvalid,
            FetchError::Disk { .. } => ErrorCode::StorageFailed,
        };
        Self::new(code, error.to_string())
    }
}

/// 32 MiB: enough for a line of 10 Gbit/s at 25 ms.
const CHUNKS_MAX: usize = 8;
