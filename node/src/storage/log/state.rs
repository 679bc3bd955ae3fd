//! What a log says, apart from how it is stored: the meaning of its records in order.

use std::collections::VecDeque;

use super::record::{Record, RecordKind};
use crate::planted::Bug;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index; entries follow each other without holes.
    pub index: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A position in the log and what its owner says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The index of an entry.
    pub index: u64,
    /// For example its term.
    pub bytes: Vec<u8>,
}

/// One intended change of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Adds entries. The first may have an index that is there: it and all behind it are
    /// replaced.
    Append(Vec<Entry>),
    /// Replaces the vote.
    Vote(Vec<u8>),
    /// Replaces the committed position. It is acknowledged when written and durable with the
    /// next other write: losing it costs nothing but work.
    Committed(Vec<u8>),
    /// Removes the entries from this index on.
    Truncate(u64),
    /// Removes the entries up to this mark and their segments. Later entries follow it.
    Purge(Mark),
}

impl Write {
    pub(super) fn needs_sync(&self) -> bool {
        match self {
            Self::Committed(_) => false,
            Self::Vote(_) => !Bug::VoteNotSynced.is_planted(),
            Self::Append(_) | Self::Truncate(_) | Self::Purge(_) => true,
        }
    }
}

/// What was in a log when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The entries, without holes, behind `purged`.
    pub entries: VecDeque<Entry>,
    /// The vote.
    pub vote: Option<Vec<u8>>,
    /// The committed position.
    pub committed: Option<Vec<u8>>,
    /// Up to where entries were removed.
    pub purged: Option<Mark>,
    /// How many bytes of a torn tail were found and cut.
    pub cut_bytes: u64,
}

/// All that a log says except its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) vote: Option<Vec<u8>>,
    pub(super) committed: Option<Vec<u8>>,
    pub(super) purged: Option<Mark>,
    /// The index behind the last entry, if there was one: the next may not be larger.
    pub(super) next: Option<u64>,
}

/// Why an entry cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    Gap { expected: u64 },
    Purged { purged: u64 },
}

impl Kept {
    /// Whether an entry of this index may come now.
    pub(super) fn check(&self, index: u64) -> Result<(), Misplaced> {
        match (&self.purged, self.next) {
            (Some(mark), _) if index <= mark.index => Err(Misplaced::Purged { purged: mark.index }),
            (_, Some(expected)) if index > expected => Err(Misplaced::Gap { expected }),
            _ => Ok(()),
        }
    }

    pub(super) fn truncate(&mut self, from: u64) {
        self.next = self.next.map(|next| next.min(from));
    }

    pub(super) fn purge(&mut self, mark: Mark) {
        self.next = Some(self.next.unwrap_or(0).max(mark.index + 1));
        self.purged = Some(mark);
    }

    /// The payload of a checkpoint: `next` (all ones for none), then vote, committed and
    /// purged, each as its length (all ones for none) and its bytes; the index of purged
    /// stands in the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.next.unwrap_or(u64::MAX).to_le_bytes().to_vec();
        let purged = self.purged.as_ref().map(|mark| &mark.bytes);
        for part in [self.vote.as_ref(), self.committed.as_ref(), purged] {
            let length = part.map_or(u32::MAX, |part| part.len() as u32);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(part.map_or(&[], |part| part.as_slice()));
        }
        out
    }

    pub(super) fn decode(record: &Record<'_>) -> Option<Self> {
        let (next, mut rest) = record.payload.split_first_chunk::<8>()?;
        let next = u64::from_le_bytes(*next);
        let mut part = || -> Option<Option<Vec<u8>>> {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            rest = behind;
            let length = u32::from_le_bytes(*length);
            if length == u32::MAX {
                return Some(None);
            }
            let (bytes, behind) = rest.split_at_checked(length as usize)?;
            rest = behind;
            Some(Some(bytes.to_vec()))
        };
        let (vote, committed, purged) = (part()?, part()?, part()?);
        let purged = purged.map(|bytes| Mark {
            index: record.index,
            bytes,
        });
        let next = (next != u64::MAX).then_some(next);
        Some(Self {
            vote,
            committed,
            purged,
            next,
        })
    }
}

/// Replays records in order.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) kept: Kept,
    pub(super) entries: VecDeque<Entry>,
}

impl Replay {
    /// Takes one record.
    ///
    /// # Errors
    /// Says why it cannot follow those before it.
    pub(super) fn take(&mut self, record: &Record<'_>) -> Result<(), String> {
        let bytes = record.payload.to_vec();
        match record.kind {
            RecordKind::Entry => {
                return self.entry(Entry {
                    index: record.index,
                    bytes,
                });
            }
            RecordKind::Vote => self.kept.vote = Some(bytes),
            RecordKind::Committed => self.kept.committed = Some(bytes),
            RecordKind::Truncate => self.truncate(record.index),
            RecordKind::Purge => self.purge(Mark {
                index: record.index,
                bytes,
            }),
            RecordKind::Checkpoint => {
                let kept = Kept::decode(record).ok_or("a checkpoint that cannot be read")?;
                if let Some(mark) = kept.purged.clone() {
                    self.purge(mark);
                }
                self.kept = kept;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), String> {
        self.kept
            .check(entry.index)
            .map_err(|misplaced| match misplaced {
                Misplaced::Gap { expected } => {
                    format!("entry {} where {expected} is next", entry.index)
                }
                Misplaced::Purged { purged } => {
                    format!("entry {} where {purged} was purged", entry.index)
                }
            })?;
        self.truncate(entry.index);
        self.kept.next = Some(entry.index + 1);
        self.entries.push_back(entry);
        Ok(())
    }

    fn truncate(&mut self, from: u64) {
        self.kept.truncate(from);
        while self.entries.back().is_some_and(|entry| entry.index >= from) {
            self.entries.pop_back();
        }
    }

    fn purge(&mut self, mark: Mark) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= mark.index)
        {
            self.entries.pop_front();
        }
        self.kept.purge(mark);
    }
}
