//! What it costs to make entries durable: the node's log beside bare `pwrite` and `fdatasync`.
//!
//! The bare loop writes the same bytes into a file of a segment's size that was filled and
//! synced before, from the thread that measures. The difference is what the log adds: checksums,
//! a change of thread there and back, and a new segment now and then.

mod alternate;
mod provenance;
mod spread;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use alternate::{Side, compare};
use anyhow::Context;
use criterion::{Criterion, Throughput};
use paceline_core::Random;
use paceline_node::storage::log::{Entry, Log, LogOptions, Mark, Write};
use paceline_node::storage::{Owner, RealDisk};
use provenance::SEED;
use tokio::runtime::Runtime;

/// The node's log, and who writes to it.
struct Node {
    log: Log,
    runtime: Runtime,
    next: u64,
    purged: u64,
    payload: Vec<u8>,
}

impl Node {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let disk = Arc::new(RealDisk::open(folder)?);
        let owner = Owner {
            cluster: 1,
            node: 1,
        };
        let (log, _) = Log::open(disk, owner, LogOptions::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut random = Random::stream(SEED, "log");
        let payload = (0..ENTRY_BYTES).map(|_| random.next_u64() as u8);
        Ok(Self {
            log,
            runtime,
            next: 1,
            purged: 0,
            payload: payload.collect(),
        })
    }

    fn entries(&mut self, count: u64) -> Vec<Entry> {
        let first = self.next;
        self.next += count;
        let indexes = first..self.next;
        indexes
            .map(|index| Entry {
                index,
                bytes: self.payload.clone(),
            })
            .collect()
    }

    /// Appends so many entries in one write, and waits until they are durable.
    fn append(&mut self, count: u64) {
        let entries = self.entries(count);
        let written = self.log.write(Write::Append(entries));
        self.runtime.block_on(written).expect(DISK_WORKS);
        self.purge();
    }

    /// Appends so many entries in a write each, all of which wait at once: the log's thread
    /// makes what has come together durable with one sync.
    fn append_at_once(&mut self, count: u64) {
        let (log, entries) = (self.log.clone(), self.entries(count));
        self.runtime.block_on(async {
            let mut waiting = tokio::task::JoinSet::new();
            for entry in entries {
                let log = log.clone();
                waiting.spawn(async move { log.write(Write::Append(vec![entry])).await });
            }
            for result in waiting.join_all().await {
                result.expect(DISK_WORKS);
            }
        });
        self.purge();
    }

    /// Forgets old entries, as a node does after each snapshot, so that the disk stays small.
    fn purge(&mut self) {
        let last = self.next - 1;
        if last - self.purged < PURGE_EVERY {
            return;
        }
        self.purged = last;
        let mark = Mark {
            index: last,
            bytes: Vec::new(),
        };
        let purged = self.log.write(Write::Purge(mark));
        self.runtime.block_on(purged).expect(DISK_WORKS);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.log.close();
    }
}

/// A file that is written from its beginning to its end, and again.
struct Bare {
    file: File,
    offset: u64,
    bytes: Vec<u8>,
}

impl Bare {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create_new(path)?;
        let bytes = LogOptions::default().segment_bytes as usize;
        file.write_all_at(&vec![0; bytes], 0)?;
        file.sync_all()?;
        Ok(Self {
            file,
            offset: 0,
            bytes: vec![0x5a; RECORD_BYTES * GROUP as usize],
        })
    }

    fn append(&mut self, count: u64) {
        let bytes = &self.bytes[..RECORD_BYTES * count as usize];
        if self.offset + bytes.len() as u64 > LogOptions::default().segment_bytes {
            self.offset = 0;
        }
        let written = self.file.write_all_at(bytes, self.offset);
        written
            .and_then(|()| self.file.sync_data())
            .expect(DISK_WORKS);
        self.offset += bytes.len() as u64;
    }
}

fn main() -> anyhow::Result<()> {
    provenance::print("log: append and fsync, entries of 256 bytes");
    // Beside the build's output, because a temporary folder may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("disk       {}\n", file_system(folder.path()));
    let mut node = Node::open(&folder.path().join("node")).context("the log does not open")?;
    let mut bare = Bare::create(&folder.path().join("bare")).context("no file to compare with")?;

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group.bench_function("node/1", |bencher| bencher.iter(|| node.append(1)));
    group.bench_function("bare/1", |bencher| bencher.iter(|| bare.append(1)));
    group.throughput(Throughput::Elements(GROUP));
    group.bench_function("node/64-in-one-write", |bencher| {
        bencher.iter(|| node.append(GROUP));
    });
    group.bench_function("node/64-waiting-at-once", |bencher| {
        bencher.iter(|| node.append_at_once(GROUP));
    });
    group.bench_function("bare/64", |bencher| bencher.iter(|| bare.append(GROUP)));
    group.finish();
    criterion.final_summary();
    if alternate::is_measuring() {
        let rounds = if std::env::args().any(|argument| argument == "--quick") {
            100
        } else {
            2_000
        };
        side_by_side(rounds, &mut node, &mut bare);
    }
    Ok(())
}

fn side_by_side(rounds: u64, node: &mut Node, bare: &mut Bare) {
    for (name, other, count) in [
        ("node, one entry", "pwrite and fdatasync", 1),
        (
            "node, 64 entries in one write",
            "pwrite of 64 and fdatasync",
            GROUP,
        ),
    ] {
        let ours = Side {
            name,
            work: |_| node.append(count),
        };
        let other = Side {
            name: other,
            work: |_| bare.append(count),
        };
        compare((rounds, 1), ours, other);
    }
    let ours = Side {
        name: "node, 64 writes waiting at once",
        work: |_| node.append_at_once(GROUP),
    };
    let other = Side {
        name: "pwrite of 64 and fdatasync",
        work: |_| bare.append(GROUP),
    };
    compare((rounds, 1), ours, other);
}

/// Device, mount point and type of the file system that holds `folder`.
fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' '));
    let mut best: Option<(usize, String)> = None;
    for mut line in fields {
        let (Some(device), Some(place), Some(kind)) = (line.next(), line.next(), line.next())
        else {
            continue;
        };
        let is_nearer = best
            .as_ref()
            .is_none_or(|(length, _)| place.len() >= *length);
        if folder.starts_with(place) && is_nearer {
            best = Some((place.len(), format!("{kind} on {device}")));
        }
    }
    best.map_or_else(|| "unknown".to_owned(), |(_, found)| found)
}

const ENTRY_BYTES: usize = 256;
/// Bytes that the log writes for one entry: 32 in front of it.
const RECORD_BYTES: usize = 32 + ENTRY_BYTES;
const GROUP: u64 = 64;
/// Entries after which a node would take a snapshot: about half a segment.
const PURGE_EVERY: u64 = 25_000;
/// Why a benchmark ends when a write fails: there is nothing left to measure.
const DISK_WORKS: &str = "the disk takes what is written";
