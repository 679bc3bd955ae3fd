//! Writes groups of changes to the log: encode, write, one sync, and only then success.
//!
//! Synchronous and without threads: [`super::thread`] drives it, tests step it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;

use super::LogOptions;
use super::error::{AppendError, OpenError};
use super::record::{Record, RecordKind};
use super::recovery::{self, OlderSegment, below, lower_from};
use super::segment::{self, NewSegment, Segment, name, write_zeros};
use super::state::{Entry, Kept, Mark, Misplaced, Recovered, Write};
use crate::storage::disk::{DirectoryLock, Disk};
use crate::storage::header::{Header, Owner};

/// The writing end of a log.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    owner: Owner,
    options: LogOptions,
    current: Segment,
    older: Vec<OlderSegment>,
    /// The largest index of an entry in the current segment.
    last_index: Option<u64>,
    kept: Kept,
    /// Encoded records that are not yet written; they belong at `current.position`.
    staged: Vec<u8>,
    /// Log offset below which all is durable.
    durable: u64,
    /// Whether the disk holds room for one more segment.
    reserve: Reserve,
    /// Where syncs are measured.
    syncs: Histogram,
    poisoned: Option<String>,
    _lock: DirectoryLock,
}

/// Room for the segment after the current one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserve {
    /// It shall be made when there is time.
    Wanted,
    /// It is there.
    Kept,
    /// The disk has none to give; asked again when a segment has been begun without it.
    Refused,
}

impl Writer {
    /// Takes the directory and opens the log in it, or begins one.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        owner: Owner,
        options: LogOptions,
    ) -> Result<(Self, Recovered), OpenError> {
        let lock = disk.lock()?;
        let opened = recovery::open(&disk, owner, options)?;
        let writer = Self {
            disk,
            owner,
            options,
            durable: opened.current.end(),
            current: opened.current,
            older: opened.older,
            last_index: opened.last_index,
            kept: opened.kept,
            staged: Vec::new(),
            reserve: Reserve::Wanted,
            syncs: Histogram::new([]),
            poisoned: None,
            _lock: lock,
        };
        Ok((writer, opened.recovered))
    }

    /// The same writer, which measures each sync in seconds.
    pub(super) fn measured(self, syncs: Histogram) -> Self {
        Self { syncs, ..self }
    }

    /// Sees to it that the disk has room for one more segment, as far as it has any. Called
    /// when nobody waits: filling 16 MiB takes tens of milliseconds.
    pub(super) fn keep_reserve(&mut self) {
        if self.reserve != Reserve::Wanted || self.poisoned.is_some() {
            return;
        }
        self.reserve = match segment::reserve(&self.disk, self.options.segment_bytes) {
            Ok(()) => Reserve::Kept,
            Err(error) => {
                let place = self.disk.place();
                tracing::warn!(place, %error, "no room can be kept for the log's next segment");
                Reserve::Refused
            }
        };
    }

    /// Writes a group in order and makes it durable. Each change that is reported as done is
    /// on the medium; after the first that is not, none of the rest is done either.
    ///
    /// A change that failed may still be found after a restart, as one whose acknowledgement
    /// was lost.
    pub(super) fn write(&mut self, group: &[Write]) -> Vec<Result<(), AppendError>> {
        let mut done = 0;
        let outcome = self.write_all(group, &mut done);
        if outcome.is_err() {
            self.staged.clear();
            for write in &group[done..] {
                self.give_up(write);
            }
        }
        let mut results = vec![Ok(()); done];
        if let Err(error) = outcome {
            results.resize(group.len(), Err(error));
        }
        results
    }

    /// Writes a last checkpoint, so that damage to any record before it will be noticed.
    pub(super) fn close(mut self) -> Result<(), AppendError> {
        self.usable()?;
        self.sync()?;
        let payload = self.kept.encode();
        if Record::bytes(payload.len()) as u64 <= self.current.room() {
            self.stage_checkpoint(&payload);
            self.flush()?;
        }
        self.sync()
    }

    /// `done` counts the changes that are durable, or written if they need no sync.
    fn write_all(&mut self, group: &[Write], done: &mut usize) -> Result<(), AppendError> {
        self.usable()?;
        for (before, write) in group.iter().enumerate() {
            let durable_before = self.durable;
            let staged = self.stage(write);
            if self.durable > durable_before {
                // A new segment was begun, and all that came before was synced for it.
                *done = before;
            }
            staged?;
        }
        self.flush()?;
        if group[*done..].iter().any(Write::needs_sync) {
            self.sync()?;
        }
        *done = group.len();
        self.remove_purged_segments()
    }

    fn stage(&mut self, write: &Write) -> Result<(), AppendError> {
        match write {
            Write::Append(entries) => {
                for entry in entries {
                    self.stage_entry(entry)?;
                }
                return Ok(());
            }
            Write::Vote(bytes) => {
                self.stage_record(RecordKind::Vote, 0, bytes)?;
                self.kept.vote = Some(bytes.clone());
            }
            Write::Committed(bytes) => {
                self.stage_record(RecordKind::Committed, 0, bytes)?;
                self.kept.committed = Some(bytes.clone());
            }
            Write::Truncate(from) => {
                self.stage_record(RecordKind::Truncate, *from, &[])?;
                self.kept.truncate(*from);
                self.last_index = below(self.last_index, *from);
                lower_from(&mut self.older, *from);
            }
            Write::Purge(Mark { index, bytes }) => {
                self.stage_record(RecordKind::Purge, *index, bytes)?;
                self.kept.purge(Mark {
                    index: *index,
                    bytes: bytes.clone(),
                });
            }
        }
        Ok(())
    }

    fn stage_entry(&mut self, entry: &Entry) -> Result<(), AppendError> {
        let found = entry.index;
        self.kept
            .check(found)
            .map_err(|misplaced| match misplaced {
                Misplaced::Gap { expected } => AppendError::Gap { expected, found },
                Misplaced::Purged { purged } => AppendError::Purged { purged, found },
            })?;
        self.stage_record(RecordKind::Entry, found, &entry.bytes)?;
        self.kept.next = Some(found + 1);
        self.last_index = Some(found);
        lower_from(&mut self.older, found);
        Ok(())
    }

    fn stage_record(
        &mut self,
        kind: RecordKind,
        index: u64,
        payload: &[u8],
    ) -> Result<(), AppendError> {
        let bytes = Record::bytes(payload.len()) as u64;
        if bytes > self.current.room() - self.staged.len() as u64 {
            let limit = self.record_bytes_max();
            if bytes > limit {
                let (bytes, limit) = (bytes as usize, limit as usize);
                return Err(AppendError::TooLarge { bytes, limit });
            }
            self.rotate()?;
        }
        let offset = self.current.end() + self.staged.len() as u64;
        let record = Record {
            kind,
            index,
            durable: self.durable,
            payload,
        };
        record.encode(offset, &mut self.staged);
        Ok(())
    }

    fn stage_checkpoint(&mut self, payload: &[u8]) {
        let index = self.kept.purged.as_ref().map_or(0, |mark| mark.index);
        let record = Record {
            kind: RecordKind::Checkpoint,
            index,
            durable: self.durable,
            payload,
        };
        let offset = self.current.end() + self.staged.len() as u64;
        record.encode(offset, &mut self.staged);
    }

    /// What fits into an empty segment.
    fn record_bytes_max(&self) -> u64 {
        let taken = Header::BYTES + Record::bytes(self.kept.encode().len());
        self.options.segment_bytes.saturating_sub(taken as u64)
    }

    /// Makes all durable that was staged, and begins a new segment.
    fn rotate(&mut self) -> Result<(), AppendError> {
        self.flush()?;
        self.sync()?;
        let base = self.current.end();
        let index = self.kept.purged.as_ref().map_or(0, |mark| mark.index);
        let payload = self.kept.encode();
        let record = Record {
            kind: RecordKind::Checkpoint,
            index,
            durable: base,
            payload: &payload,
        };
        let mut checkpoint = Vec::new();
        record.encode(base + Header::BYTES as u64, &mut checkpoint);
        let size = self.options.segment_bytes;
        let sequence = self.current.sequence + 1;
        let new = NewSegment {
            owner: self.owner,
            sequence,
            base,
            size,
            checkpoint,
        };
        let created = match std::mem::replace(&mut self.reserve, Reserve::Wanted) {
            Reserve::Kept => Segment::create_from_reserve(&self.disk, new),
            Reserve::Wanted | Reserve::Refused => Segment::create(&self.disk, new),
        };
        let next = created.map_err(|cause| self.failed(size, "a new segment", cause))?;
        let last = std::mem::replace(&mut self.current, next);
        let last_index = self.last_index.take();
        self.older.push(OlderSegment {
            sequence: last.sequence,
            last_index,
        });
        self.durable = self.current.end();
        Ok(())
    }

    /// Writes what is staged.
    fn flush(&mut self) -> Result<(), AppendError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let position = self.current.position;
        let bytes = self.staged.len() as u64;
        if let Err(cause) = self.current.file.write_at(position, &self.staged) {
            // Part of it may stand there and must never be taken for what is written next.
            let wiped = write_zeros(self.current.file.as_mut(), position, position + bytes);
            let cause = wiped.err().unwrap_or(cause);
            return Err(self.failed(bytes, "a write", cause));
        }
        self.current.position += bytes;
        self.staged.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        let end = self.current.end();
        if self.durable < end {
            let started = Instant::now();
            if let Err(cause) = self.current.file.sync_data() {
                return Err(self.poison(format!("a sync failed: {cause}")));
            }
            self.syncs.observe(started.elapsed().as_secs_f64());
            self.durable = end;
        }
        Ok(())
    }

    /// Removes the segments that hold nothing above the purged mark, oldest first: what is left
    /// is always a run without holes.
    fn remove_purged_segments(&mut self) -> Result<(), AppendError> {
        let Some(purged) = self.kept.purged.as_ref().map(|mark| mark.index) else {
            return Ok(());
        };
        while let Some(oldest) = self.older.first()
            && oldest.last_index.is_none_or(|last| last <= purged)
        {
            let removed = self.disk.remove(&name(oldest.sequence));
            if let Err(cause) = removed.and_then(|()| self.disk.sync_dir()) {
                return Err(self.poison(format!("a segment could not be removed: {cause}")));
            }
            self.older.remove(0);
        }
        Ok(())
    }

    /// A change that failed is not counted on: an entry behind it would leave a hole.
    fn give_up(&mut self, write: &Write) {
        if let Write::Append(entries) = write
            && let Some(first) = entries.first()
        {
            let purged = self.kept.purged.as_ref().map_or(0, |mark| mark.index + 1);
            self.kept.truncate(first.index.max(purged));
        }
    }

    fn usable(&self) -> Result<(), AppendError> {
        match &self.poisoned {
            Some(cause) => {
                let (place, cause) = (self.disk.place(), cause.clone());
                Err(AppendError::Poisoned { place, cause })
            }
            None => Ok(()),
        }
    }

    fn failed(&mut self, bytes: u64, what: &str, cause: io::Error) -> AppendError {
        if cause.kind() == io::ErrorKind::StorageFull {
            return AppendError::Full {
                place: self.disk.place(),
                bytes,
                cause: Arc::new(cause),
            };
        }
        self.poison(format!("{what} failed: {cause}"))
    }

    fn poison(&mut self, cause: String) -> AppendError {
        let cause = self.poisoned.get_or_insert(cause).clone();
        AppendError::Poisoned {
            place: self.disk.place(),
            cause,
        }
    }
}
