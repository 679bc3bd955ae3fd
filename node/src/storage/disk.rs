//! The port `Disk`: one flat directory of files, as small as log, snapshots and blobs need it.
//!
//! Calls block; they come from threads that may (the log's own, the snapshot builder's).
//! Nothing is durable before [`DiskFile::sync_data`], and no name is before
//! [`Disk::sync_dir`]: whoever forgets that is found by the in-memory twin, which drops and
//! tears what was not synced.

use std::any::Any;
use std::io;
use std::sync::Arc;

/// One directory of files.
pub trait Disk: Send + Sync + 'static {
    /// Where this is, for messages.
    fn place(&self) -> String;

    /// Takes the directory for this process until the guard is dropped or the process ends.
    ///
    /// # Errors
    /// [`LockError::InUse`] if somebody else has it.
    fn lock(&self) -> Result<DirectoryLock, LockError>;

    /// Creates an empty file. Its name is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `AlreadyExists` if there is one of that name, else what the operating system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none, else what the operating system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// The names of all files, sorted.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file and replaces what has the new name. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable: creations, renames and removals up to now.
    ///
    /// # Errors
    /// What the operating system says. What was not durable before may be so or not.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at `offset`, and grows the file if need be.
    ///
    /// # Errors
    /// `StorageFull` if there is no room, else what the operating system says. Any part of
    /// `bytes` may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buffer` from `offset` and returns how many bytes there were before the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Cuts the file, or grows it with zeros that need not have room on disk.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes content and length durable (`fdatasync`).
    ///
    /// # Errors
    /// After an error nothing is known of what was written since the last success, and a
    /// second call may succeed without having written it: never use the file again.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// Reads a whole file, of at most `limit` bytes.
///
/// # Errors
/// `InvalidData` if it is longer, else what the operating system says.
pub fn read_file(disk: &Arc<dyn Disk>, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let bytes = file.bytes()?;
    if bytes > limit {
        let message = format!("{name} has {bytes} bytes, at most {limit} are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut content = vec![0; bytes as usize];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    Ok(content)
}

/// Holds a directory for this process.
pub struct DirectoryLock {
    _guard: Box<dyn Any + Send + Sync>,
}

impl DirectoryLock {
    /// A lock that is given back when `guard` is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self {
            _guard: Box::new(guard),
        }
    }
}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("directory '{directory}' is in use by another node; stop it or choose another one")]
    InUse {
        /// Which.
        directory: String,
    },
    /// The lock file could not be used.
    #[error("directory '{directory}' cannot be locked: {cause}")]
    Io {
        /// Which.
        directory: String,
        /// What the operating system says.
        cause: io::Error,
    },
}
