//! Starts consensus on its own thread, watches it, and ends it.
//!
//! Owns: the runtime of the `raft` thread, the library's core, the log. Hears from: its
//! handles, the log's failures. When it dies, the log is closed, the directory is given back,
//! and [`RaftHandle::stopped`] says why; nothing is restarted in the same process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::EmptyNode;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use paceline_core::registry::Registry;
use paceline_protocol::NodeId;
use paceline_protocol::limits::REGISTRY_SNAPSHOT_BYTES_MAX;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Mutex, Semaphore, oneshot, watch};

use super::error::{StartError, StopReason};
use super::handle::RaftHandle;
use super::log_store::LogStore;
use super::network::Peers;
use super::options::RaftOptions;
use super::serving::{self, LeaderHeard, Serving};
use super::state_machine::StateMachine;
use super::type_config::Raft;
use crate::storage::log::{AppendError, Drive, Log};
use crate::storage::snapshots::{FoundSnapshots, SnapshotStore};
use crate::storage::{Disk, Owner};
use crate::threads::Threads;
use crate::transport::Transport;

/// The key that signs nodes, in PEM, while this node has it.
pub type AuthorityKey = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What a node starts consensus with.
pub struct RaftStart {
    /// This node in its cluster. A directory that somebody else wrote is refused.
    pub owner: Owner,
    /// Whether an empty log founds a cluster of this one node. Otherwise it waits to be added.
    pub founds: bool,
    /// The directory of log and snapshots, used by nothing else.
    pub disk: Arc<dyn Disk>,
    /// Tuning.
    pub options: RaftOptions,
    /// Where the log's syncs are measured, in seconds.
    pub syncs: Histogram,
    /// The way to the other members.
    pub transport: Arc<dyn Transport>,
    /// Who runs consensus and its log.
    pub threads: Threads,
    /// Nodes that a node which is no member yet asks.
    pub guides: Vec<NodeId>,
    /// What a voter hands to other voters.
    pub authority_key: AuthorityKey,
}

/// Consensus on one node.
pub struct RaftNode;

impl RaftNode {
    /// Opens the directory, starts the `raft` thread, and returns when writes may be sent. A
    /// node that is the only voter stands for election at once; its state is what was
    /// committed, as far as its disk says, and all of its log when it leads.
    ///
    /// # Errors
    /// Options out of bounds, a directory that cannot be used, or a log and snapshots that do
    /// not add up. Nothing runs after an error.
    pub async fn start(start: RaftStart) -> Result<RaftHandle, StartError> {
        let (ready, started) = oneshot::channel();
        let place = start.disk.place();
        match start.threads {
            Threads::Own => drop(
                std::thread::Builder::new()
                    .name("raft".to_owned())
                    .spawn(move || run(start, ready))
                    .map_err(|cause| StartError::Thread { cause })?,
            ),
            Threads::Shared => drop(tokio::spawn(run_here(start, ready))),
        }
        let reason = "its thread panicked".to_owned();
        started
            .await
            .unwrap_or(Err(StartError::Refused { place, reason }))
    }
}

/// The `raft` thread.
fn run(start: RaftStart, ready: Ready) {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // One snapshot is written while another is read.
        .max_blocking_threads(2)
        .thread_name("raft-snapshot")
        .build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(cause) => {
            // Whoever started this may have gone.
            let _ = ready.send(Err(StartError::Thread { cause }));
            return;
        }
    };
    // Read before the library runs: it blocks, and nothing else is there to be blocked.
    let opened = Opened::open(&start);
    let log = opened.as_ref().ok().map(|opened| opened.log.clone());
    let (ended, has_ended) = watch::channel(None);
    let lived = runtime.block_on(live(start, opened, (ready, has_ended)));
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    if let Some(log) = log {
        log.close();
    }
    tell(lived, &ended);
}

/// The same as tasks of the present runtime.
async fn run_here(start: RaftStart, ready: Ready) {
    let opened = Opened::open(&start);
    let log = opened.as_ref().ok().map(|opened| opened.log.clone());
    let (ended, has_ended) = watch::channel(None);
    let lived = live(start, opened, (ready, has_ended)).await;
    if let Some(log) = log {
        log.end().await;
    }
    tell(lived, &ended);
}

/// Told the handle, or why there is none.
type Ready = oneshot::Sender<Result<RaftHandle, StartError>>;

/// From what was opened to the end.
async fn live(
    start: RaftStart,
    opened: Result<Opened, StartError>,
    (ready, has_ended): (Ready, watch::Receiver<Option<StopReason>>),
) -> Result<StopReason, (Ready, StartError)> {
    let running = match opened {
        Ok(opened) => Running::start(start, opened).await,
        Err(error) => Err(error),
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return Err((ready, error)),
    };
    let (stop, stopping) = watch::channel(false);
    let handle = RaftHandle::new(running.parts(stop, has_ended));
    // If nobody waits any more, the handle is dropped, and that is a request to stop.
    let _ = ready.send(Ok(handle));
    Ok(running.until_stopped(stopping).await)
}

/// Says how it ended, or why it did not begin: only now, so that the directory is free when
/// that is seen.
fn tell(lived: Result<StopReason, (Ready, StartError)>, ended: &watch::Sender<Option<StopReason>>) {
    match lived {
        Ok(reason) => {
            tracing::info!(%reason, "consensus has ended");
            ended.send_replace(Some(reason));
        }
        Err((ready, error)) => drop(ready.send(Err(error))),
    }
}

/// What was read from the directory.
struct Opened {
    log: Log,
    store: LogStore,
    state_machine: StateMachine,
}

impl Opened {
    fn open(start: &RaftStart) -> Result<Self, StartError> {
        start.options.config()?;
        let place = start.disk.place();
        let what = (start.owner, start.options.log);
        let drive = Drive {
            threads: start.threads,
            syncs: start.syncs.clone(),
        };
        let (log, recovered) = Log::open_driven(start.disk.clone(), what, drive)?;
        let opened = Self::read(start, log.clone(), recovered, &place);
        if opened.is_err() && start.threads == Threads::Own {
            log.close();
        }
        opened
    }

    fn read(
        start: &RaftStart,
        log: Log,
        recovered: crate::storage::log::Recovered,
        place: &str,
    ) -> Result<Self, StartError> {
        let encoding = |cause| StartError::Encoding {
            place: place.to_owned(),
            cause,
        };
        if recovered.cut_bytes > 0 {
            tracing::warn!(
                place,
                bytes = recovered.cut_bytes,
                "cut the log's torn tail"
            );
        }
        let store = LogStore::new(log.clone(), recovered).map_err(encoding)?;
        let snapshots = Arc::new(SnapshotStore::new(
            start.disk.clone(),
            start.owner,
            REGISTRY_SNAPSHOT_BYTES_MAX as u64,
        ));
        let found = snapshots.find()?;
        for damaged in &found.damaged {
            tracing::error!(error = %damaged, "a snapshot is passed over");
        }
        check_reach(place, store.purged(), &found)?;
        let state_machine =
            StateMachine::new(snapshots, found.newest.as_ref(), start.threads).map_err(encoding)?;
        Ok(Self {
            log,
            store,
            state_machine,
        })
    }
}

/// The snapshot must reach at least as far as entries were removed.
fn check_reach(place: &str, purged: Option<u64>, found: &FoundSnapshots) -> Result<(), StartError> {
    let reached = found.newest.as_ref().map(|snapshot| snapshot.index);
    if reached >= purged {
        return Ok(());
    }
    let damaged: Vec<String> = found.damaged.iter().map(ToString::to_string).collect();
    Err(StartError::SnapshotMissing {
        place: place.to_owned(),
        first_entry: purged.map_or(0, |index| index + 1),
        damaged: if damaged.is_empty() {
            "none".to_owned()
        } else {
            damaged.join("; ")
        },
    })
}

/// What a handle is made of.
pub(super) struct Parts {
    pub(super) node: NodeId,
    pub(super) raft: Raft,
    pub(super) state: watch::Receiver<Arc<Registry>>,
    pub(super) writes_in_flight_max: usize,
    pub(super) stop: watch::Sender<bool>,
    pub(super) has_ended: watch::Receiver<Option<StopReason>>,
    pub(super) failure: watch::Receiver<Option<AppendError>>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) heard: LeaderHeard,
    pub(super) guides: Vec<NodeId>,
    /// Held while membership is changed.
    pub(super) changing: Arc<Mutex<()>>,
}

struct Running {
    node: NodeId,
    raft: Raft,
    log: Log,
    state: watch::Receiver<Arc<Registry>>,
    writes_in_flight_max: usize,
    transport: Arc<dyn Transport>,
    heard: LeaderHeard,
    guides: Vec<NodeId>,
    changing: Arc<Mutex<()>>,
}

impl Running {
    async fn start(start: RaftStart, opened: Opened) -> Result<Self, StartError> {
        let place = start.disk.place();
        let refused = |reason: String| StartError::Refused {
            place: place.clone(),
            reason,
        };
        let Opened {
            log,
            store,
            state_machine,
        } = opened;
        let node = start.owner.node;
        let state = state_machine.watch();
        let founds = start.founds && store.is_pristine();
        let config = Arc::new(start.options.config()?);
        let transport = start.transport;
        let peers = Peers {
            transport: transport.clone(),
        };
        let raft = Raft::new(node, config, peers, store, state_machine)
            .await
            .map_err(|fatal| refused(fatal.to_string()))?;
        if founds {
            let members = BTreeMap::from([(node, EmptyNode::new())]);
            raft.initialize(members)
                .await
                .map_err(|error| refused(error.to_string()))?;
        } else if raft.voter_ids().eq([node]) {
            // Nobody else can lead, so there is nothing to wait for.
            raft.trigger()
                .elect(false)
                .await
                .map_err(|fatal| refused(fatal.to_string()))?;
        }
        let writes_in_flight_max = start.options.writes_in_flight_max;
        let heard = LeaderHeard::new(state.clone());
        let changing = Arc::<Mutex<()>>::default();
        let serving = Serving {
            raft: raft.clone(),
            transport: transport.clone(),
            heard: heard.clone(),
            forwards: Arc::new(Semaphore::new(writes_in_flight_max)),
            authority_key: start.authority_key,
            changing: changing.clone(),
        };
        tokio::spawn(serving::serve(Arc::new(serving)));
        Ok(Self {
            node: NodeId(node),
            raft,
            log,
            state,
            writes_in_flight_max,
            transport,
            heard,
            guides: start.guides,
            changing,
        })
    }

    fn parts(
        &self,
        stop: watch::Sender<bool>,
        has_ended: watch::Receiver<Option<StopReason>>,
    ) -> Parts {
        Parts {
            node: self.node,
            raft: self.raft.clone(),
            state: self.state.clone(),
            writes_in_flight_max: self.writes_in_flight_max,
            stop,
            has_ended,
            failure: self.log.failure(),
            transport: self.transport.clone(),
            heard: self.heard.clone(),
            guides: self.guides.clone(),
            changing: self.changing.clone(),
        }
    }

    /// Waits until it is asked to stop or cannot go on, and stops the library.
    async fn until_stopped(self, mut stopping: watch::Receiver<bool>) -> StopReason {
        let mut failure = self.log.failure();
        let wait = self.raft.wait(None);
        let reason = tokio::select! {
            biased;
            // An error means that all handles are gone, which is a request to stop.
            _ = stopping.wait_for(|stop| *stop) => StopReason::Requested,
            Ok(failed) = failure.wait_for(Option::is_some) => StopReason::of(failed.as_ref()),
            _ = wait.metrics(|metrics| metrics.running_state.is_err(), "ended") => self.ended(),
        };
        if tokio::time::timeout(SHUTDOWN_MAX, self.raft.shutdown())
            .await
            .is_err()
        {
            tracing::error!("consensus did not end in time and is abandoned");
        }
        reason
    }

    /// Why the library ended by itself.
    fn ended(&self) -> StopReason {
        if let Some(failed) = self.log.failure().borrow().as_ref() {
            return StopReason::of(Some(failed));
        }
        match &self.raft.metrics().borrow_watched().running_state {
            Err(Fatal::StorageError(error)) => StopReason::StorageFailed {
                reason: error.to_string(),
            },
            Err(fatal) => StopReason::Defect {
                reason: fatal.to_string(),
            },
            Ok(()) => StopReason::Defect {
                reason: "its core is gone".to_owned(),
            },
        }
    }
}

/// What the library and its tasks get to end: they wait for at most one sync and one snapshot.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
