//! The library's own conformance suite on both disks, and a node that is stopped, killed,
//! filled up and damaged.

use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use paceline_core::registry::Registry;
use paceline_protocol::registry::{
    Change, Command, NodeAddresses, NodeRecord, Outcome, Reply, SCHEMA,
};
use paceline_protocol::{Epoch, NodeId, OpId};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::type_config::TypeConfig;
use super::*;
use crate::storage::log::{Log, LogOptions, OpenError};
use crate::storage::snapshots::SnapshotStore;
use crate::storage::{Disk, HeaderError, LockError, MemoryDisk, Owner, RealDisk};
use crate::threads::Threads;
use crate::transport::memory::MemoryNetwork;

mod cluster;
mod encoding;
mod faults;

const OWNER: Owner = Owner {
    cluster: 0xc1,
    node: 1,
};

fn options() -> RaftOptions {
    let log = LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::default()
    };
    RaftOptions {
        snapshot_every_entries: 10_000,
        log,
        ..RaftOptions::default()
    }
}

async fn start_with(disk: &MemoryDisk, options: RaftOptions) -> Result<RaftHandle, StartError> {
    let disk = Arc::new(disk.clone());
    RaftNode::start(RaftStart {
        owner: OWNER,
        founds: true,
        disk,
        options,
        syncs: Histogram::new([]),
        transport: MemoryNetwork::new(1).join(NodeId(1)),
        threads: Threads::Own,
        guides: Vec::new(),
        authority_key: Arc::new(|| None),
    })
    .await
}

async fn start(disk: &MemoryDisk) -> RaftHandle {
    start_with(disk, options()).await.unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A command that changes the registry, different for each number.
fn command(number: u64) -> Command {
    let name = format!("name-{number}");
    let addresses = NodeAddresses::default();
    let record = NodeRecord {
        id: NodeId(1),
        name,
        zone: String::new(),
        addresses,
        devices: Vec::new(),
    };
    Command {
        schema: SCHEMA,
        op: OpId(u128::from(number)),
        stamped_ms: number,
        expected_revision: None,
        change: Change::RegisterNode(record),
    }
}

fn name_in(registry: &Registry) -> Option<String> {
    registry
        .nodes()
        .get(&NodeId(1))
        .map(|node| node.name.clone())
}

async fn write(raft: &RaftHandle, numbers: std::ops::Range<u64>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for number in numbers {
        outcomes.push(raft.write(command(number), soon()).await.unwrap());
    }
    outcomes
}

#[tokio::test]
async fn a_founder_writes_reads_and_tells() {
    let raft = start(&MemoryDisk::new()).await;
    let mut changes = raft.watch();
    let outcomes = write(&raft, 1..6).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.result == Ok(Reply::Done))
    );
    assert!(outcomes.is_sorted_by(|one, next| one.epoch < next.epoch));
    assert_eq!(
        name_in(&raft.state()).as_deref(),
        Some("name-5"),
        "the writer sees its write"
    );
    let read = raft.read_index(soon()).await.unwrap();
    assert!(read >= outcomes[4].epoch && raft.state().epoch() >= read);
    changes.changed().await.unwrap();
    assert_eq!(*changes.borrow_and_update(), raft.state());

    let repeated = raft.write(command(3), soon()).await.unwrap();
    assert_eq!(repeated, outcomes[2], "a repeat gets the first answer");
    let metrics = raft.metrics();
    assert_eq!((metrics.node, metrics.role), (NodeId(1), Role::Leader));
    assert_eq!(
        (metrics.leader, metrics.voters),
        (Some(NodeId(1)), vec![NodeId(1)])
    );
    assert!(metrics.term >= 1 && metrics.applied >= Some(5));

    assert_eq!(raft.shutdown().await, StopReason::Requested);
    assert_eq!(
        raft.write(command(9), soon()).await,
        Err(WriteError::ShuttingDown)
    );
    assert_eq!(raft.read_index(soon()).await, Err(ReadError::ShuttingDown));
    assert_eq!(
        name_in(&raft.state()).as_deref(),
        Some("name-5"),
        "still read after the end"
    );
}

#[tokio::test]
async fn a_restarted_node_has_the_same_registry_and_goes_on() {
    let disk = MemoryDisk::new();
    let mut next = 1;
    let mut term = 0;
    for _ in 0..4 {
        let raft = start(&disk).await;
        write(&raft, next..next + 50).await;
        next += 50;
        let before = raft.state();
        let metrics = raft.metrics();
        assert!(metrics.term > term, "each start is a new term");
        raft.shutdown().await;

        // What is committed is there before anything new is.
        let again = start(&disk).await;
        let after = again.state();
        assert_eq!(after.nodes(), before.nodes());
        let read = again.read_index(soon()).await.unwrap();
        assert!(read > before.epoch());
        let repeated = again.write(command(next - 1), soon()).await.unwrap();
        assert!(
            repeated.epoch <= before.epoch(),
            "op-ids are remembered across restarts"
        );
        term = again.metrics().term;
        again.shutdown().await;
    }
}

#[tokio::test]
async fn real_disk_keeps_the_registry_too() {
    let home = tempfile::tempdir().unwrap();
    let start = || {
        let disk = Arc::new(RealDisk::open(home.path().join("raft")).unwrap());
        let options = RaftOptions {
            snapshot_every_entries: 20,
            ..options()
        };
        RaftNode::start(RaftStart {
            owner: OWNER,
            founds: true,
            disk,
            options,
            syncs: Histogram::new([]),
            transport: MemoryNetwork::new(1).join(NodeId(1)),
            threads: Threads::Own,
            guides: Vec::new(),
            authority_key: Arc::new(|| None),
        })
    };
    let raft = start().await.unwrap();
    write(&raft, 1..100).await;
    let before = raft.state();
    let refused = start().await.err().unwrap();
    assert!(matches!(
        &refused,
        StartError::Log(OpenError::Lock(LockError::InUse { directory }))
            if directory.ends_with("raft")
    ));
    raft.shutdown().await;
    let raft = start().await.unwrap();
    raft.read_index(soon()).await.unwrap();
    assert_eq!(raft.state().nodes(), before.nodes());
    raft.shutdown().await;
}

#[tokio::test]
async fn a_node_that_founds_nothing_waits_and_says_so() {
    let disk = Arc::new(MemoryDisk::new());
    let options = RaftOptions {
        writes_in_flight_max: 1,
        ..options()
    };
    let start = RaftStart {
        owner: OWNER,
        founds: false,
        disk,
        options,
        syncs: Histogram::new([]),
        transport: MemoryNetwork::new(1).join(NodeId(1)),
        threads: Threads::Own,
        guides: Vec::new(),
        authority_key: Arc::new(|| None),
    };
    let raft = RaftNode::start(start).await.unwrap();
    let shortly = Instant::now() + Duration::from_millis(200);
    let waiting = tokio::spawn({
        let raft = raft.clone();
        async move { raft.write(command(1), shortly).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = raft.write(command(2), soon()).await;
    assert_eq!(refused, Err(WriteError::Overloaded { limit: 1 }));
    assert_eq!(raft.read_index(shortly).await, Err(ReadError::NoQuorum));
    // On a busy machine the deadline may pass while the library is being asked: then nobody can
    // say that nothing was done.
    let ended = waiting.await.unwrap();
    assert!(
        matches!(ended, Err(WriteError::NoQuorum | WriteError::Unknown)),
        "{ended:?}"
    );
    assert_eq!(raft.metrics().role, Role::Learner);
    assert_eq!(raft.state().epoch(), Epoch(0));
    raft.shutdown().await;
}

#[tokio::test]
async fn a_command_over_the_limit_is_refused_before_it_is_written() {
    let raft = start(&MemoryDisk::new()).await;
    let mut large = command(1);
    if let Change::RegisterNode(record) = &mut large.change {
        record.name = "x".repeat(300 << 10);
    }
    let refused = raft.write(large, soon()).await;
    assert!(
        matches!(
            refused,
            Err(WriteError::TooLarge {
                limit: 0x4_0000,
                ..
            })
        ),
        "{refused:?}"
    );
    write(&raft, 2..3).await;
    raft.shutdown().await;
}

#[tokio::test]
async fn many_writers_share_syncs() {
    let disk = MemoryDisk::new();
    let raft = start(&disk).await;
    write(&raft, 1..2).await;
    let before = disk.syncs();
    let writers = (0..64).map(|writer| {
        let raft = raft.clone();
        tokio::spawn(async move { write(&raft, 100 + writer * 10..110 + writer * 10).await })
    });
    let mut epochs = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        epochs.extend(
            writer
                .await
                .unwrap()
                .into_iter()
                .map(|outcome| outcome.epoch),
        );
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 640, "each has its own epoch");
    let syncs = disk.syncs() - before;
    assert!(syncs < 640, "{syncs} syncs for 640 writes");
    raft.shutdown().await;
}

#[tokio::test]
async fn options_out_of_bounds_are_refused_by_key() {
    let refused = |options: RaftOptions| async move {
        match start_with(&MemoryDisk::new(), options).await.err() {
            Some(StartError::Options(error)) => error.key,
            other => panic!("{other:?}"),
        }
    };
    let base = options();
    let cases = [
        (
            RaftOptions {
                heartbeat_ms: 60,
                ..base.clone()
            },
            "heartbeat_ms",
        ),
        (
            RaftOptions {
                election_max_ms: 200,
                ..base.clone()
            },
            "election_max_ms",
        ),
        (
            RaftOptions {
                snapshot_every_entries: 0,
                ..base.clone()
            },
            "snapshot_every_entries",
        ),
        (
            RaftOptions {
                writes_in_flight_max: 0,
                ..base
            },
            "writes_in_flight_max",
        ),
    ];
    for (options, key) in cases {
        assert_eq!(refused(options).await, key);
    }
}

#[tokio::test]
async fn the_last_handle_that_goes_stops_consensus() {
    let disk = MemoryDisk::new();
    drop(start(&disk).await);
    let deadline = Instant::now() + Duration::from_secs(10);
    while disk.lock().is_err() {
        assert!(
            Instant::now() < deadline,
            "the directory was never given back"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Builds stores for the library's suite.
struct OnDisk {
    is_real: bool,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Option<tempfile::TempDir>> for OnDisk {
    async fn build(
        &self,
    ) -> Result<(Option<tempfile::TempDir>, LogStore, StateMachine), StorageError<TypeConfig>> {
        let home = self.is_real.then(|| tempfile::tempdir().unwrap());
        let disk: Arc<dyn Disk> = match &home {
            Some(home) => Arc::new(RealDisk::open(home.path()).unwrap()),
            None => Arc::new(MemoryDisk::new()),
        };
        let (log, recovered) = Log::open(disk.clone(), OWNER, options().log).unwrap();
        let store = LogStore::new(log, recovered).unwrap();
        let snapshots = Arc::new(SnapshotStore::new(disk, OWNER, 1 << 20));
        Ok((
            home,
            store,
            StateMachine::new(snapshots, None, Threads::Own).unwrap(),
        ))
    }
}

#[tokio::test]
async fn the_librarys_storage_suite_passes_in_memory() {
    Suite::test_all(OnDisk { is_real: false }).await.unwrap();
}

#[tokio::test]
async fn the_librarys_storage_suite_passes_on_a_real_disk() {
    Suite::test_all(OnDisk { is_real: true }).await.unwrap();
}

/// Prints what a registry write costs on this disk: `cargo test -p paceline-node
/// write_latency -- --nocapture`.
#[tokio::test]
async fn write_latency_is_printed() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(home.path()).unwrap());
    let options = RaftOptions::default();
    let start = RaftStart {
        owner: OWNER,
        founds: true,
        disk,
        options,
        syncs: Histogram::new([]),
        transport: MemoryNetwork::new(1).join(NodeId(1)),
        threads: Threads::Own,
        guides: Vec::new(),
        authority_key: Arc::new(|| None),
    };
    let raft = RaftNode::start(start).await.unwrap();
    write(&raft, 1..20).await;
    let mut costs = Vec::new();
    for number in 100..400 {
        let started = std::time::Instant::now();
        raft.write(command(number), soon()).await.unwrap();
        costs.push(started.elapsed());
    }
    costs.sort();
    let [p50, p95, p99] = [150, 285, 297].map(|rank| costs[rank].as_secs_f64() * 1e3);
    println!("registry write, one writer: p50 {p50:.3} ms, p95 {p95:.3} ms, p99 {p99:.3} ms");
    raft.shutdown().await;
}
