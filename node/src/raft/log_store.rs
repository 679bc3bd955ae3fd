//! openraft's log storage over [`Log`]: entries since the last purge in memory, every change
//! on disk before it is acknowledged.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::encoding::{
    EncodingError, decode_entry, decode_position, decode_vote, encode_entry, encode_position,
    encode_vote,
};
use super::type_config::{Entry, LogId, TypeConfig, Vote};
use crate::storage::log::{self, AppendError, Log, Mark, Recovered, Write};

/// The log as openraft uses it. Clones are the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Log,
    held: Arc<Mutex<Held>>,
}

/// What is read without the disk.
#[derive(Default)]
struct Held {
    /// Without holes, behind `purged`.
    entries: VecDeque<Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl LogStore {
    /// Takes an open log and what was found in it.
    pub(crate) fn new(log: Log, recovered: Recovered) -> Result<Self, EncodingError> {
        let Recovered {
            entries,
            vote,
            committed,
            purged,
            ..
        } = recovered;
        let purged = purged
            .map(|mark| decode_position(&mark.bytes))
            .transpose()?;
        let committed = committed.map(|bytes| decode_position(&bytes)).transpose()?;
        let held = Held {
            entries: entries
                .iter()
                .map(|entry| decode_entry(&entry.bytes))
                .collect::<Result<_, _>>()?,
            vote: vote.map(|bytes| decode_vote(&bytes)).transpose()?,
            committed: committed.flatten(),
            purged: purged.flatten(),
        };
        Ok(Self {
            log,
            held: Arc::new(Mutex::new(held)),
        })
    }

    /// Index of the last entry that was purged.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.held().purged.map(|id| id.index)
    }

    /// Whether nothing was ever written here.
    pub(crate) fn is_pristine(&self) -> bool {
        let held = self.held();
        held.entries.is_empty() && held.vote.is_none() && held.purged.is_none()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held; if it did, the state is still a consistent one.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    /// Removes the entries from `from` on.
    fn truncate(&mut self, from: u64) {
        if let Some(first) = self.first_index() {
            self.entries.truncate(from.saturating_sub(first) as usize);
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let held = self.held();
        let Some(first) = held.first_index() else {
            return Ok(Vec::new());
        };
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let skipped = start.saturating_sub(first);
        let taken = end.saturating_sub(first.max(start));
        Ok(held
            .entries
            .iter()
            .skip(skipped as usize)
            .take(taken as usize)
            .cloned()
            .collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.held().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let held = self.held();
        let last_purged_log_id = held.purged;
        let last_log_id = held
            .entries
            .back()
            .map(|entry| entry.log_id)
            .or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = encode_vote(vote).map_err(io::Error::other)?;
        self.log.write(Write::Vote(bytes)).await.map_err(as_io)?;
        self.held().vote = Some(*vote);
        Ok(())
    }

    /// Durable with the next entry: after a loss of power the registry may come back older, and
    /// no older leader answers for it, since leadership is not restored without an election.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let bytes = encode_position(committed.as_ref()).map_err(io::Error::other)?;
        self.log
            .submit(Write::Committed(bytes), Box::new(report))
            .await;
        self.held().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.held().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut held = self.held();
            for entry in entries {
                let index = entry.log_id.index;
                let bytes = encode_entry(&entry).map_err(io::Error::other)?;
                records.push(log::Entry { index, bytes });
                held.truncate(index);
                held.entries.push_back(entry);
            }
        }
        let done = |result: Result<(), AppendError>| callback.io_completed(result.map_err(as_io));
        self.log
            .submit(Write::Append(records), Box::new(done))
            .await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.held().truncate(from);
        self.log.write(Write::Truncate(from)).await.map_err(as_io)
    }

    /// Does not wait for the disk: a purge that is lost is asked for again.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let bytes = encode_position(Some(&upto)).map_err(io::Error::other)?;
        {
            let mut held = self.held();
            while held.first_index().is_some_and(|first| first <= upto.index) {
                held.entries.pop_front();
            }
            held.purged = Some(upto);
        }
        let mark = Mark {
            index: upto.index,
            bytes,
        };
        self.log.submit(Write::Purge(mark), Box::new(report)).await;
        Ok(())
    }
}

fn report(result: Result<(), AppendError>) {
    if let Err(error) = result {
        // The write that matters next fails too and stops consensus.
        tracing::warn!(%error, "a position of the log was not written");
    }
}

fn as_io(error: AppendError) -> io::Error {
    let kind = match &error {
        AppendError::Full { .. } => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
