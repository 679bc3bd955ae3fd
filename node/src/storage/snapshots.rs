//! Snapshots on disk: one file each, named for the last entry in it, the last two are kept.
//!
//! ```text
//! snapshot-00000000000000004711.bin
//! ┌────────┬──────┬───────┬─────┐   header: see `storage::header`
//! │ header │ meta │ state │ crc │   crc: CRC32C of meta and state
//! └────────┴──────┴───────┴─────┘
//! ```
//! A snapshot is written under another name, synced, renamed, and the directory synced: what
//! has its name was whole. One that is damaged later is passed over for the one before it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::storage::disk::{self, Disk, DiskFile};
use crate::storage::header::{FileKind, Header, HeaderError, Owner};

/// The snapshots of one directory. All calls block for disk and size.
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    owner: Owner,
    bytes_max: u64,
    /// One save at a time: they share a temporary name.
    saving: Mutex<()>,
}

/// A snapshot that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Index of the last entry in it.
    pub index: u64,
    /// What its owner says of it.
    pub meta: Vec<u8>,
    /// The state.
    pub state: Vec<u8>,
}

/// What was found in a directory.
#[derive(Debug, Default)]
pub struct FoundSnapshots {
    /// The newest that is whole.
    pub newest: Option<StoredSnapshot>,
    /// Those that are newer and damaged, with the reason, newest first.
    pub damaged: Vec<SnapshotError>,
}

/// Why a snapshot could not be saved or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No room; what was there is kept.
    #[error("{place}: no room for '{file}' of {bytes} bytes; the snapshots before it are kept")]
    Full {
        /// The directory.
        place: String,
        /// The snapshot.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// The disk failed.
    #[error("{place}: cannot {action} '{file}': {cause}")]
    Io {
        /// The directory.
        place: String,
        /// What was tried.
        action: &'static str,
        /// The snapshot.
        file: String,
        /// What the operating system says.
        cause: io::Error,
    },
    /// The header is not of this node.
    #[error("{place}: '{file}' cannot be used: {cause}")]
    Header {
        /// The directory.
        place: String,
        /// The snapshot.
        file: String,
        /// Why.
        cause: HeaderError,
    },
    /// The content is not what was written.
    #[error("{place}: '{file}' is damaged: {reason}")]
    Damaged {
        /// The directory.
        place: String,
        /// The snapshot.
        file: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl SnapshotStore {
    /// The snapshots of `owner` in a directory, each of at most `bytes_max` bytes.
    pub fn new(disk: Arc<dyn Disk>, owner: Owner, bytes_max: u64) -> Self {
        Self {
            disk,
            owner,
            bytes_max,
            saving: Mutex::new(()),
        }
    }

    /// Saves a snapshot and removes all but the last two. When this returns it is durable.
    ///
    /// # Errors
    /// No room or a failing disk; the snapshots before it are kept.
    pub fn save(&self, snapshot: &StoredSnapshot) -> Result<(), SnapshotError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let file = name(snapshot.index);
        let bytes = (Header::BYTES + snapshot.meta.len() + snapshot.state.len() + 4) as u64;
        self.write(snapshot).map_err(|cause| match cause.kind() {
            io::ErrorKind::StorageFull => SnapshotError::Full {
                place: self.disk.place(),
                file: file.clone(),
                bytes,
            },
            _ => self.failed("write", &file, cause),
        })?;
        self.remove_all_but_two()
            .map_err(|cause| self.failed("remove those before", &file, cause))
    }

    /// Reads the newest snapshot that is whole, passing over damaged ones.
    ///
    /// # Errors
    /// The directory cannot be read, or a snapshot belongs to another cluster or node.
    pub fn find(&self) -> Result<FoundSnapshots, SnapshotError> {
        let indexes = self
            .indexes()
            .map_err(|cause| self.failed("list", "", cause))?;
        let mut found = FoundSnapshots::default();
        for index in indexes.into_iter().rev() {
            match self.read(index) {
                Ok(snapshot) => {
                    found.newest = Some(snapshot);
                    break;
                }
                Err(
                    error @ SnapshotError::Header {
                        cause: HeaderError::WrongCluster { .. } | HeaderError::WrongNode { .. },
                        ..
                    },
                ) => return Err(error),
                Err(error) => found.damaged.push(error),
            }
        }
        Ok(found)
    }

    /// Reads one snapshot.
    ///
    /// # Errors
    /// It is missing, damaged or somebody else's.
    pub fn read(&self, index: u64) -> Result<StoredSnapshot, SnapshotError> {
        let file = name(index);
        let limit = self.bytes_max + (Header::BYTES + 4) as u64;
        let mut content = disk::read_file(&self.disk, &file, limit)
            .map_err(|cause| self.failed("read", &file, cause))?;
        let header = Header::decode(&content, FileKind::Snapshot).and_then(|header| {
            header.check_owner(self.owner)?;
            Ok(header)
        });
        let header = header.map_err(|cause| {
            let (place, file) = (self.disk.place(), file.clone());
            SnapshotError::Header { place, file, cause }
        })?;
        let damaged = |reason| {
            let (place, file) = (self.disk.place(), file.clone());
            Err(SnapshotError::Damaged {
                place,
                file,
                reason,
            })
        };
        if header.number != index {
            return damaged("it is another snapshot");
        }
        let end = Header::BYTES as u64 + header.size;
        if header.first > header.size || content.len() as u64 != end + 4 {
            return damaged("its length does not match its header");
        }
        let crc = content.split_off(end as usize);
        let body = content.split_off(Header::BYTES);
        if crc != crc32c::crc32c(&body).to_le_bytes() {
            return damaged("its checksum does not match");
        }
        let mut meta = body;
        let state = meta.split_off(header.first as usize);
        Ok(StoredSnapshot { index, meta, state })
    }

    fn write(&self, snapshot: &StoredSnapshot) -> io::Result<()> {
        match self.disk.remove(TEMPORARY_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.disk.create(TEMPORARY_NAME)?;
        if let Err(error) = self.fill(file.as_mut(), snapshot) {
            // What stays would only take room; the next save removes it too.
            let _ = self.disk.remove(TEMPORARY_NAME);
            return Err(error);
        }
        self.disk.rename(TEMPORARY_NAME, &name(snapshot.index))?;
        self.disk.sync_dir()
    }

    fn fill(&self, file: &mut dyn DiskFile, snapshot: &StoredSnapshot) -> io::Result<()> {
        let StoredSnapshot { index, meta, state } = snapshot;
        let header = Header {
            kind: FileKind::Snapshot,
            owner: self.owner,
            number: *index,
            first: meta.len() as u64,
            size: (meta.len() + state.len()) as u64,
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(meta), state);
        let mut at = 0;
        for part in [&header.encode()[..], meta, state, &crc.to_le_bytes()] {
            file.write_at(at, part)?;
            at += part.len() as u64;
        }
        file.sync_data()
    }

    fn remove_all_but_two(&self) -> io::Result<()> {
        let indexes = self.indexes()?;
        let superfluous = &indexes[..indexes.len().saturating_sub(2)];
        for index in superfluous {
            self.disk.remove(&name(*index))?;
        }
        if superfluous.is_empty() {
            Ok(())
        } else {
            self.disk.sync_dir()
        }
    }

    fn indexes(&self) -> io::Result<Vec<u64>> {
        let mut indexes: Vec<u64> = self
            .disk
            .list()?
            .iter()
            .filter_map(|name| index_of(name))
            .collect();
        indexes.sort_unstable();
        Ok(indexes)
    }

    fn failed(&self, action: &'static str, file: &str, cause: io::Error) -> SnapshotError {
        SnapshotError::Io {
            place: self.disk.place(),
            action,
            file: file.to_owned(),
            cause,
        }
    }
}

fn name(index: u64) -> String {
    format!("snapshot-{index:020}.bin")
}

fn index_of(name: &str) -> Option<u64> {
    let index = name
        .strip_prefix("snapshot-")?
        .strip_suffix(".bin")?
        .parse()
        .ok()?;
    (self::name(index) == name).then_some(index)
}

const TEMPORARY_NAME: &str = "snapshot.new";

#[cfg(test)]
mod tests;
