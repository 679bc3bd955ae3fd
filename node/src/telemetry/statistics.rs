//! Whole numbers of a version on this node: what came of requests at its doors, and of batches on
//! its devices. Prometheus' histograms cannot be read back; these are for protocols that ask.
//!
//! They live as long as the version is addressed or loaded here: one that is unloaded begins anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use paceline_core::Instant;
use paceline_protocol::VersionNumber;

use super::metrics::{Stage, Took};

/// One version's numbers. Doors count with a few relaxed additions a request; devices lock once a
/// batch, which only another lane of the same version or a reader can hold up.
#[derive(Debug, Default)]
pub struct Statistics {
    succeeded: Tally,
    failed: Tally,
    stage_nanos: [AtomicU64; 4],
    batches: Mutex<Tallies>,
}

/// How often, and how long together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// Nanoseconds together.
    pub nanos: u64,
}

/// Batches of a version that its engine has run here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// By their rows, of those sizes that there were, in order.
    pub by_rows: Vec<(u32, Total)>,
    /// Rows of all of them.
    pub rows: u64,
    /// All of them.
    pub count: u64,
    /// When the last of them ended.
    pub last_at: Option<Instant>,
}

/// The same while it grows: an entry for each size, of which a batch can have 65,536.
#[derive(Debug, Default)]
struct Tallies {
    by_rows: BTreeMap<u32, Total>,
    rows: u64,
    count: u64,
    last_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Statistics {
    /// Requests that were answered, from their last byte to their answer.
    pub fn succeeded(&self) -> Total {
        self.succeeded.total()
    }

    /// Requests that ended otherwise.
    pub fn failed(&self) -> Total {
        self.failed.total()
    }

    /// Nanoseconds of a stage, over all requests that were answered and their parts.
    pub fn stage_nanos(&self, stage: Stage) -> u64 {
        self.stage_nanos[stage as usize].load(Ordering::Relaxed)
    }

    /// Batches that ran here. Cost: a device whose batch ends meanwhile waits for the list, which is
    /// written in one allocation.
    pub fn batches(&self) -> Batches {
        let tallies = self.lock();
        let by_rows = tallies.by_rows.iter();
        Batches {
            by_rows: by_rows.map(|(rows, total)| (*rows, *total)).collect(),
            rows: tallies.rows,
            count: tallies.count,
            last_at: tallies.last_at,
        }
    }

    /// Counts a batch that was answered.
    pub fn ran(&self, rows: u32, nanos: u64, started: Instant) {
        let mut batches = self.lock();
        let total = batches.by_rows.entry(rows).or_default();
        total.count += 1;
        total.nanos += nanos;
        batches.rows += u64::from(rows);
        batches.count += 1;
        batches.last_at = batches.last_at.max(Some(started.plus_nanos(nanos)));
    }

    /// Counts a request that was answered.
    pub(super) fn succeed(&self, took: Took) {
        self.succeeded.add(took.nanos);
        for (sum, nanos) in self.stage_nanos.iter().zip(took.stages) {
            sum.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Counts a request that ended otherwise.
    pub(super) fn fail(&self, nanos: u64) {
        self.failed.add(nanos);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tallies> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn add(&self, nanos: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn total(&self) -> Total {
        Total {
            count: self.count.load(Ordering::Relaxed),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

/// Where doors and devices find the numbers of a version. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(Arc<Mutex<Kept>>);

type Kept = BTreeMap<(String, VersionNumber), Weak<Statistics>>;

impl Book {
    /// The numbers of a version, from zero if nobody holds any.
    pub(super) fn of(&self, model: &str, version: VersionNumber) -> Arc<Statistics> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (model.to_owned(), version);
        if let Some(known) = kept.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        kept.retain(|_, statistics| statistics.strong_count() > 0);
        let new = Arc::new(Statistics::default());
        kept.insert(key, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_counted_by_all_who_hold_it_and_anew_when_nobody_has() {
        let book = Book::default();
        let version = VersionNumber(1);
        let (door, device) = (book.of("m", version), book.of("m", version));
        door.succeed(Took {
            nanos: 5,
            stages: [0, 2, 0, 1],
        });
        door.fail(7);
        device.ran(4, 10, Instant::ZERO.plus_nanos(9));
        device.ran(4, 10, Instant::ZERO);
        device.ran(1, 6, Instant::ZERO);
        let total = |count, nanos| Total { count, nanos };
        assert_eq!(device.succeeded(), total(1, 5));
        assert_eq!(device.failed(), total(1, 7));
        assert_eq!(device.stage_nanos(Stage::Queue), 2);
        assert_eq!(device.stage_nanos(Stage::Run), 0);
        let batches = door.batches();
        assert_eq!(batches.last_at, Some(Instant::ZERO.plus_nanos(19)));
        assert_eq!((batches.rows, batches.count), (9, 3));
        assert_eq!(batches.by_rows, [(1, total(1, 6)), (4, total(2, 20))]);
        assert_eq!(book.of("m", VersionNumber(2)).succeeded(), Total::default());

        drop(door);
        assert_eq!(book.of("m", version).succeeded(), total(1, 5));
        drop(device);
        assert_eq!(book.of("m", version).succeeded(), Total::default());
        assert_eq!(book.0.lock().unwrap().len(), 1, "others are forgotten");
    }
}
