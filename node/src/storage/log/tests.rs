//! The log's promises, held against a disk that breaks every one it may.
//!
//! `crash` draws histories from seeds; this file has the named cases. All step the writer
//! itself; the thread has its own tests at the end.

use std::sync::Arc;

use super::record::Record;
use super::segment::name;
use super::state::{Entry, Mark, Recovered, Write};
use super::writer::Writer;
use super::{AppendError, Log, LogOptions, OpenError};
use crate::storage::header::{Header, HeaderError};
use crate::storage::{Disk, LockError, MemoryDisk, Owner, RealDisk};

mod crash;
mod faults;

const OWNER: Owner = Owner {
    cluster: 0xc1,
    node: 1,
};
const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 4096,
    queue_writes_max: 16,
    group_bytes_max: 1 << 16,
};

fn open(disk: &MemoryDisk) -> Result<(Writer, Recovered), OpenError> {
    Writer::open(Arc::new(disk.clone()), OWNER, OPTIONS)
}

fn entry(index: u64) -> Entry {
    Entry {
        index,
        bytes: index.to_le_bytes().repeat(10),
    }
}

fn append(range: std::ops::Range<u64>) -> Write {
    Write::Append(range.map(entry).collect())
}

fn purge(index: u64) -> Write {
    Write::Purge(Mark {
        index,
        bytes: vec![1, 2, 3],
    })
}

fn write(writer: &mut Writer, write: Write) -> Result<(), AppendError> {
    writer.write(&[write]).remove(0)
}

fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}

/// A log of five segments, closed in order.
fn closed_log() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    write(&mut writer, Write::Vote(b"vote".to_vec())).unwrap();
    for index in 0..120 {
        write(&mut writer, append(index..index + 1)).unwrap();
    }
    write(&mut writer, Write::Committed(b"committed".to_vec())).unwrap();
    writer.close().unwrap();
    disk
}

#[test]
fn what_was_written_is_read_in_order() {
    let disk = closed_log();
    let segments = disk.list().unwrap();
    assert!(segments.len() >= 4, "{segments:?}");
    let (mut writer, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, (0..120).map(entry).collect::<Vec<_>>());
    assert_eq!(recovered.vote.as_deref(), Some(&b"vote"[..]));
    assert_eq!(recovered.committed.as_deref(), Some(&b"committed"[..]));
    assert_eq!((recovered.purged, recovered.cut_bytes), (None, 0));

    write(&mut writer, Write::Truncate(100)).unwrap();
    write(&mut writer, append(100..103)).unwrap();
    write(&mut writer, purge(90)).unwrap();
    drop(writer);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(indexes(&recovered), (91..103).collect::<Vec<_>>());
    assert_eq!(
        recovered.purged,
        Some(Mark {
            index: 90,
            bytes: vec![1, 2, 3]
        })
    );
    assert_eq!(
        recovered.vote.as_deref(),
        Some(&b"vote"[..]),
        "outlives its segment"
    );
}

#[test]
fn purging_removes_whole_segments_and_nothing_that_is_needed() {
    let disk = closed_log();
    let before = disk.list().unwrap().len();
    let (mut writer, _) = open(&disk).unwrap();
    write(&mut writer, purge(60)).unwrap();
    let after = disk.list().unwrap();
    assert!(
        after.len() < before && !after.contains(&name(1)),
        "{after:?}"
    );
    // Beyond the last entry, as after the installation of a snapshot.
    write(&mut writer, purge(500)).unwrap();
    assert_eq!(
        disk.list().unwrap().len(),
        1,
        "only the current segment is left"
    );
    assert!(matches!(
        write(&mut writer, append(400..401)),
        Err(AppendError::Purged {
            purged: 500,
            found: 400
        })
    ));
    write(&mut writer, append(501..503)).unwrap();
    drop(writer);
    assert_eq!(indexes(&open(&disk).unwrap().1), [501, 502]);
}

#[test]
fn an_entry_that_is_there_is_replaced_with_all_behind_it() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    write(&mut writer, append(0..40)).unwrap();
    let other = Entry {
        index: 10,
        bytes: b"other".to_vec(),
    };
    write(&mut writer, Write::Append(vec![other.clone()])).unwrap();
    assert!(matches!(
        write(&mut writer, append(12..13)),
        Err(AppendError::Gap {
            expected: 11,
            found: 12
        })
    ));
    drop(writer);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len(), 11);
    assert_eq!(recovered.entries.back(), Some(&other));
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_the_log_goes_on() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    let huge = Entry {
        index: 0,
        bytes: vec![0; 4096],
    };
    assert!(matches!(
        write(&mut writer, Write::Append(vec![huge])),
        Err(AppendError::TooLarge { .. })
    ));
    write(&mut writer, append(0..1)).unwrap();
    assert!(Record::bytes(0) < 64);
}

#[test]
fn one_sync_serves_a_group_and_committed_alone_needs_none() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    let before = disk.syncs();
    writer.write(&[append(0..3), Write::Vote(vec![1]), append(3..6)]);
    assert_eq!(disk.syncs(), before + 1);
    write(&mut writer, Write::Committed(vec![5])).unwrap();
    assert_eq!(disk.syncs(), before + 1);
}

#[tokio::test]
async fn the_thread_answers_in_order_and_gives_the_directory_back() {
    let home = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(home.path()).unwrap());
    let (log, _) = Log::open(disk.clone(), OWNER, LogOptions::default()).unwrap();
    assert!(matches!(
        Log::open(disk.clone(), OWNER, LogOptions::default()),
        Err(OpenError::Lock(LockError::InUse { .. }))
    ));
    let (sender, mut order) = tokio::sync::mpsc::channel(1000);
    for index in 0..500 {
        let sender = sender.clone();
        let done = Box::new(move |result: Result<(), AppendError>| {
            result.unwrap();
            sender.try_send(index).unwrap();
        });
        log.submit(append(index..index + 1), done).await;
    }
    log.write(Write::Vote(vec![9])).await.unwrap();
    for index in 0..500 {
        assert_eq!(order.try_recv().unwrap(), index);
    }
    let closing = log.clone();
    tokio::task::spawn_blocking(move || closing.close())
        .await
        .unwrap();
    assert!(matches!(
        log.write(Write::Truncate(0)).await,
        Err(AppendError::Closed)
    ));
    let (_, recovered) = Log::open(disk, OWNER, LogOptions::default()).unwrap();
    assert_eq!(
        (recovered.entries.len(), recovered.vote),
        (500, Some(vec![9]))
    );
}

#[tokio::test]
async fn the_thread_reports_a_failed_sync() {
    let disk = MemoryDisk::new();
    let (log, _) = Log::open(Arc::new(disk.clone()), OWNER, OPTIONS).unwrap();
    log.write(append(0..1)).await.unwrap();
    assert!(log.failure().borrow().is_none());
    disk.fail_sync(1);
    assert!(matches!(
        log.write(append(1..2)).await,
        Err(AppendError::Poisoned { .. })
    ));
    assert!(matches!(
        &*log.failure().borrow(),
        Some(AppendError::Poisoned { .. })
    ));
    assert!(matches!(
        log.write(append(1..2)).await,
        Err(AppendError::Poisoned { .. })
    ));
}

/// Prints what an acknowledged append costs on this disk: `cargo test -p paceline-node
/// append_latency -- --nocapture`.
#[tokio::test]
async fn append_latency_is_printed() {
    let home = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(home.path()).unwrap());
    let (log, _) = Log::open(disk, OWNER, LogOptions::default()).unwrap();
    let mut costs = Vec::new();
    for index in 0..400 {
        let entry = Entry {
            index,
            bytes: vec![7; 256],
        };
        let started = std::time::Instant::now();
        log.write(Write::Append(vec![entry])).await.unwrap();
        costs.push(started.elapsed());
    }
    costs.sort();
    let [p50, p95, p99] = [200, 380, 396].map(|rank| costs[rank].as_secs_f64() * 1e3);
    println!("append of 256 bytes, synced: p50 {p50:.3} ms, p95 {p95:.3} ms, p99 {p99:.3} ms");
}
