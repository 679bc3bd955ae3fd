//! A node that is killed, whose disk fails, fills up, or rots.

use prometheus_client::metrics::histogram::Histogram;

use super::*;

/// Writes one after the other until the node is gone, and returns what was acknowledged.
async fn write_until_gone(raft: RaftHandle, from: u64) -> Vec<(u64, Outcome)> {
    let mut acknowledged = Vec::new();
    for number in from.. {
        match raft.write(command(number), soon()).await {
            Ok(outcome) => acknowledged.push((number, outcome)),
            Err(error) => {
                let is_gone = matches!(
                    error,
                    WriteError::StorageFailed { .. } | WriteError::Unknown
                );
                assert!(is_gone, "{error:?}");
                break;
            }
        }
    }
    acknowledged
}

#[tokio::test]
async fn a_killed_node_keeps_every_acknowledged_write() {
    let mut kept = 0;
    for seed in 0..12 {
        let disk = MemoryDisk::new();
        let options = RaftOptions {
            snapshot_every_entries: 25,
            ..options()
        };
        let raft = start_with(&disk, options.clone()).await.unwrap();
        write(&raft, 1..10).await;
        disk.cut_power_after(40 + seed * 53);
        let writers =
            [100, 10_000, 20_000].map(|from| tokio::spawn(write_until_gone(raft.clone(), from)));
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        let reason = raft.stopped().await;
        assert!(reason.is_fatal(), "seed {seed}: {reason}");

        let raft = start_with(&disk.crash(seed), options).await.unwrap();
        raft.read_index(soon()).await.unwrap();
        let found = raft.state();
        assert!(
            found.epoch()
                > acknowledged
                    .iter()
                    .map(|(_, outcome)| outcome.epoch)
                    .max()
                    .unwrap()
        );
        for (number, outcome) in &acknowledged {
            let repeated = raft.write(command(*number), soon()).await.unwrap();
            assert_eq!(repeated, *outcome, "seed {seed}: write {number} was lost");
        }
        kept += acknowledged.len();
        raft.shutdown().await;
    }
    assert!(kept > 300, "{kept}");
}

#[tokio::test]
async fn a_failed_sync_ends_the_node_and_acknowledges_nothing_more() {
    let disk = MemoryDisk::new();
    let raft = start(&disk).await;
    write(&raft, 1..10).await;
    disk.fail_sync(1);
    let failed = raft.write(command(10), soon()).await;
    assert!(
        matches!(
            failed,
            Err(WriteError::StorageFailed { .. } | WriteError::Unknown)
        ),
        "{failed:?}"
    );
    let reason = raft.stopped().await;
    assert!(
        reason.is_fatal() && reason.to_string().contains("sync failed"),
        "{reason}"
    );
    let refused = raft.write(command(11), soon()).await;
    assert!(
        matches!(refused, Err(WriteError::StorageFailed { .. })),
        "{refused:?}"
    );
    assert_eq!(
        name_in(&raft.state()).as_deref(),
        Some("name-9"),
        "what is known is still read"
    );

    let raft = start(&disk.crash(5)).await;
    raft.read_index(soon()).await.unwrap();
    assert_eq!(name_in(&raft.state()).as_deref(), Some("name-9"));
    raft.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_stops_writes_not_the_process_and_a_restart_with_room_goes_on() {
    let disk = MemoryDisk::new();
    let raft = start(&disk).await;
    disk.limit_bytes(Some(64 << 10));
    let acknowledged = write_until_gone(raft.clone(), 1).await;
    let reason = raft.stopped().await;
    assert!(
        matches!(&reason, StopReason::DiskFull { .. }) && !reason.is_fatal(),
        "{reason}"
    );
    let last = format!("name-{}", acknowledged.last().unwrap().0);
    assert_eq!(name_in(&raft.state()).as_deref(), Some(last.as_str()));

    disk.limit_bytes(None);
    let raft = start(&disk).await;
    raft.read_index(soon()).await.unwrap();
    assert_eq!(name_in(&raft.state()).as_deref(), Some(last.as_str()));
    write(&raft, 5000..5100).await;
    raft.shutdown().await;
}

/// A node with two snapshots and a purged log.
async fn with_snapshots() -> (MemoryDisk, Arc<Registry>, Vec<String>) {
    let disk = MemoryDisk::new();
    let options = RaftOptions {
        snapshot_every_entries: 20,
        ..options()
    };
    let raft = start_with(&disk, options).await.unwrap();
    for round in 0..10 {
        write(&raft, 1 + round * 20..21 + round * 20).await;
        let deadline = soon();
        while raft.metrics().snapshot < Some(round * 20) {
            assert!(
                Instant::now() < deadline,
                "no snapshot: {:?}",
                raft.metrics()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    while raft.metrics().purged < Some(100) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let state = raft.state();
    raft.shutdown().await;
    let names = disk.list().unwrap();
    let snapshots: Vec<String> = names
        .into_iter()
        .filter(|name| name.starts_with("snapshot-"))
        .collect();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    (disk, state, snapshots)
}

async fn assert_same(disk: &MemoryDisk, state: &Registry) {
    let raft = start(disk).await;
    raft.read_index(soon()).await.unwrap();
    assert_eq!(raft.state().nodes(), state.nodes());
    let repeated = raft.write(command(200), soon()).await.unwrap();
    assert!(repeated.epoch <= state.epoch());
    raft.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_and_the_entries_behind_it_are_the_state() {
    let (disk, state, _) = with_snapshots().await;
    assert_same(&disk, &state).await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_replaced_by_the_one_before() {
    let (disk, state, snapshots) = with_snapshots().await;
    disk.flip_bit(&snapshots[1], 200, 1);
    assert_same(&disk, &state).await;
}

#[tokio::test]
async fn without_an_intact_snapshot_a_purged_log_is_refused() {
    let (disk, _, snapshots) = with_snapshots().await;
    for snapshot in &snapshots {
        disk.flip_bit(snapshot, 200, 1);
    }
    let refused = start_with(&disk, options()).await.err().unwrap();
    assert!(matches!(
        &refused,
        StartError::SnapshotMissing {
            first_entry: 100..,
            ..
        }
    ));
    for snapshot in &snapshots {
        assert!(refused.to_string().contains(snapshot), "{refused}");
        disk.remove(snapshot).unwrap();
    }
    let refused = start_with(&disk, options()).await.err().unwrap();
    assert!(refused.to_string().contains("Damaged: none"), "{refused}");
    disk.lock()
        .map(drop)
        .expect("a node that did not start holds nothing");
}

#[tokio::test]
async fn another_nodes_directory_is_refused() {
    let disk = MemoryDisk::new();
    start(&disk).await.shutdown().await;
    let owner = Owner { node: 2, ..OWNER };
    let start = RaftStart {
        owner,
        founds: true,
        disk: Arc::new(disk),
        options: options(),
        syncs: Histogram::new([]),
        transport: MemoryNetwork::new(1).join(NodeId(1)),
        threads: Threads::Own,
        guides: Vec::new(),
        authority_key: Arc::new(|| None),
    };
    assert!(matches!(
        RaftNode::start(start).await.err(),
        Some(StartError::Log(OpenError::Header {
            cause: HeaderError::WrongNode {
                found: 1,
                expected: 2
            },
            ..
        }))
    ));
}

#[tokio::test]
async fn a_rotten_log_is_refused_with_file_and_offset() {
    let disk = MemoryDisk::new();
    let raft = start(&disk).await;
    write(&raft, 1..50).await;
    raft.shutdown().await;
    let segment = disk.list().unwrap().remove(0);
    disk.flip_bit(&segment, 1000, 2);
    let refused = start_with(&disk, options()).await.err().unwrap();
    assert!(matches!(
        &refused,
        StartError::Log(OpenError::Corrupt { file, .. }) if *file == segment
    ));
    disk.flip_bit(&segment, 1000, 2);
    start(&disk).await.shutdown().await;
}
