//! Opens a log: reads its segments in order, checks that nothing durable is damaged, cuts a
//! torn tail.

mod reading;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use self::reading::{Damage, Reading, SegmentFile};
use super::LogOptions;
use super::error::OpenError;
use super::record::{Record, RecordKind};
use super::scan::{Scan, Tail, scan};
use super::segment::{NewSegment, Segment, TEMPORARY_NAME, name, sequence_of, write_zeros};
use super::state::{Entry, Kept, Recovered, Replay};
use crate::storage::disk::Disk;
use crate::storage::header::{FileKind, Header, Owner};

/// A log as it was found.
pub(super) struct Opened {
    pub(super) current: Segment,
    /// The segments before it, oldest first.
    pub(super) older: Vec<OlderSegment>,
    /// The largest index of an entry in the current segment.
    pub(super) last_index: Option<u64>,
    pub(super) kept: Kept,
    pub(super) recovered: Recovered,
}

/// A segment that is no longer written.
#[derive(Clone, Copy, Debug)]
pub(super) struct OlderSegment {
    pub(super) sequence: u64,
    /// The largest index of an entry in it that is not removed.
    pub(super) last_index: Option<u64>,
}

/// Opens the log of `owner`, or begins it if the directory holds none.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    owner: Owner,
    options: LogOptions,
) -> Result<Opened, OpenError> {
    let reading = Reading { disk, owner };
    let names = disk
        .list()
        .map_err(|cause| reading.failed("list", "", cause))?;
    if names.iter().any(|name| name == TEMPORARY_NAME) {
        disk.remove(TEMPORARY_NAME)
            .map_err(|cause| reading.failed("remove", TEMPORARY_NAME, cause))?;
    }
    let sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
    match (sequences.first(), sequences.last()) {
        (Some(first), Some(last)) => {
            if let Some(gone) = (*first..=*last).find(|wanted| !sequences.contains(wanted)) {
                return Err(OpenError::Missing {
                    place: disk.place(),
                    file: name(gone),
                });
            }
            reading.segments(&sequences)
        }
        _ => reading.begin(options),
    }
}

/// Who wrote the log in this directory, if there is one.
pub(super) fn owner(disk: &Arc<dyn Disk>) -> Result<Option<Owner>, OpenError> {
    let reading = Reading {
        disk,
        owner: Owner {
            cluster: 0,
            node: 0,
        },
    };
    let names = disk
        .list()
        .map_err(|cause| reading.failed("list", "", cause))?;
    let Some(sequence) = names.iter().find_map(|name| sequence_of(name)) else {
        return Ok(None);
    };
    let file = name(sequence);
    Header::decode(&reading.start(&file)?, FileKind::Segment)
        .map(|header| Some(header.owner))
        .map_err(|cause| OpenError::Header {
            place: disk.place(),
            file,
            cause,
        })
}

/// What the segments so far amount to.
#[derive(Default)]
struct Walked {
    replay: Replay,
    older: Vec<OlderSegment>,
    expected_base: Option<u64>,
}

impl Reading<'_> {
    fn begin(&self, options: LogOptions) -> Result<Opened, OpenError> {
        let kept = Kept::default();
        let payload = kept.encode();
        let mut checkpoint = Vec::new();
        let record = Record {
            kind: RecordKind::Checkpoint,
            index: 0,
            durable: 0,
            payload: &payload,
        };
        record.encode(Header::BYTES as u64, &mut checkpoint);
        let size = options.segment_bytes;
        let new = NewSegment {
            owner: self.owner,
            sequence: 1,
            base: 0,
            size,
            checkpoint,
        };
        let current = Segment::create(self.disk, new).map_err(|cause| match cause.kind() {
            io::ErrorKind::StorageFull => OpenError::Full {
                place: self.disk.place(),
                bytes: size,
            },
            _ => self.failed("create", &name(1), cause),
        })?;
        let recovered = Recovered::default();
        Ok(Opened {
            current,
            older: Vec::new(),
            last_index: None,
            kept,
            recovered,
        })
    }

    fn segments(&self, sequences: &[u64]) -> Result<Opened, OpenError> {
        let mut walked = Walked::default();
        let mut rest = sequences;
        while let [sequence, behind @ ..] = rest {
            rest = behind;
            let file = self.load(*sequence)?;
            let scanned = scan(&file.content, file.header.first);
            self.check(&file, &scanned, walked.expected_base)?;
            let last_index = self.replay(&file, &scanned, &mut walked.replay)?;
            lower(&mut walked.older, &scanned);
            if rest.is_empty() {
                let is_torn = scanned.tail == Tail::Torn;
                let cut_bytes = if is_torn {
                    file.header.size - scanned.end
                } else {
                    0
                };
                let current = self.reopen(&file, scanned.end, is_torn)?;
                let recovered = Recovered {
                    cut_bytes,
                    ..Recovered::default()
                };
                let (older, kept) = (walked.older, walked.replay.kept);
                let opened = Opened {
                    current,
                    older,
                    last_index,
                    kept,
                    recovered,
                };
                return self.finish(opened, walked.replay.entries);
            }
            walked.older.push(OlderSegment {
                sequence: *sequence,
                last_index,
            });
            // The next segment was begun where this one ended, after all of it was durable.
            let next = name(sequence + 1);
            let durable = self.header(&next, &self.start(&next)?, sequence + 1)?.first;
            let damage = Damage::at(&file.header, scanned.end, durable);
            if scanned.tail != Tail::Clean || durable != damage.offset {
                return Err(self.corrupt(&file.name, damage));
            }
            walked.expected_base = Some(durable);
        }
        Err(OpenError::Missing {
            place: self.disk.place(),
            file: name(1),
        })
    }

    fn finish(&self, mut opened: Opened, entries: VecDeque<Entry>) -> Result<Opened, OpenError> {
        let kept = &opened.kept;
        let first_sequence = opened
            .older
            .first()
            .map_or(opened.current.sequence, |segment| segment.sequence);
        let is_whole = match (&kept.purged, entries.front()) {
            (Some(purged), Some(first)) => first.index == purged.index + 1,
            (Some(_), None) => true,
            // Without a purge no segment was ever removed.
            (None, _) => first_sequence == 1,
        };
        if !is_whole {
            let file = name(first_sequence.saturating_sub(1));
            return Err(OpenError::Missing {
                place: self.disk.place(),
                file,
            });
        }
        opened.recovered = Recovered {
            entries,
            vote: kept.vote.clone(),
            committed: kept.committed.clone(),
            purged: kept.purged.clone(),
            cut_bytes: opened.recovered.cut_bytes,
        };
        Ok(opened)
    }

    /// Refuses what was durable and is damaged.
    fn check(
        &self,
        file: &SegmentFile,
        scanned: &Scan<'_>,
        expected_base: Option<u64>,
    ) -> Result<(), OpenError> {
        let damage = |durable| Damage::at(&file.header, scanned.end, durable);
        if let Tail::Corrupt { durable } = scanned.tail {
            return Err(self.corrupt(&file.name, damage(durable)));
        }
        // The checkpoint was durable before the segment had its name.
        let first = scanned.records.first();
        if !first.is_some_and(|(_, record)| record.kind == RecordKind::Checkpoint) {
            return Err(self.corrupt(&file.name, damage(file.header.first + file.header.size)));
        }
        if expected_base.is_some_and(|expected| expected != file.header.first) {
            let reason = "the segment begins at another log offset".to_owned();
            return Err(self.contradicts(&file.name, 0, reason));
        }
        Ok(())
    }

    /// Takes the records of a segment and returns the largest index of an entry in it.
    fn replay(
        &self,
        file: &SegmentFile,
        scanned: &Scan<'_>,
        replay: &mut Replay,
    ) -> Result<Option<u64>, OpenError> {
        let mut last_index = None;
        for (position, record) in &scanned.records {
            replay
                .take(record)
                .map_err(|why| self.contradicts(&file.name, *position, why))?;
            match record.kind {
                RecordKind::Entry => last_index = Some(record.index),
                RecordKind::Truncate => last_index = below(last_index, record.index),
                _ => {}
            }
        }
        Ok(last_index)
    }

    /// Opens the last segment for writing, cuts its torn tail, and makes durable what was read:
    /// it may have been in the cache only.
    fn reopen(&self, file: &SegmentFile, end: u64, is_torn: bool) -> Result<Segment, OpenError> {
        let Header {
            number: sequence,
            first: base,
            size,
            ..
        } = file.header;
        let failed = |action, cause| self.failed(action, &file.name, cause);
        let mut opened = self
            .disk
            .open(&file.name)
            .map_err(|cause| failed("open", cause))?;
        if is_torn {
            write_zeros(opened.as_mut(), end, size)
                .map_err(|cause| failed("cut the tail of", cause))?;
        }
        opened.sync_data().map_err(|cause| failed("sync", cause))?;
        Ok(Segment {
            file: opened,
            sequence,
            base,
            size,
            position: end,
        })
    }
}

/// What this segment's truncations and replacements leave of those before it.
fn lower(older: &mut [OlderSegment], scanned: &Scan<'_>) {
    for (_, record) in &scanned.records {
        if matches!(record.kind, RecordKind::Entry | RecordKind::Truncate) {
            lower_from(older, record.index);
        }
    }
}

/// Entries from `from` on are no longer in older segments.
pub(super) fn lower_from(older: &mut [OlderSegment], from: u64) {
    // From the newest: once one holds only smaller indexes, so do those before it.
    for segment in older.iter_mut().rev() {
        segment.last_index = below(segment.last_index, from);
    }
}

/// The largest index that may be left when entries from `from` on are removed.
pub(super) fn below(last_index: Option<u64>, from: u64) -> Option<u64> {
    last_index
        .zip(from.checked_sub(1))
        .map(|(last, before)| last.min(before))
}
