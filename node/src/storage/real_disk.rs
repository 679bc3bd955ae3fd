//! The port [`Disk`] on a directory of the operating system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::disk::{DirectoryLock, Disk, DiskFile, LockError};

/// A directory of the operating system. Cheap to clone; clones share the directory.
#[derive(Clone, Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// Uses `directory`, and creates it, readable by its owner only, if it is missing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        if !directory.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)?;
            // The new name must outlive a power loss, or all below it is lost with it.
            if let Some(parent) = directory.parent().filter(|parent| parent.is_dir()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { directory })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str) -> PathBuf {
        assert!(
            !name.contains(['/', '\0']),
            "a file's name has no path: {name:?}"
        );
        self.directory.join(name)
    }
}

impl Disk for RealDisk {
    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn lock(&self) -> Result<DirectoryLock, LockError> {
        let directory = self.place();
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(LOCK_FILE));
        let file = match opened {
            Ok(file) => file,
            Err(cause) => return Err(LockError::Io { directory, cause }),
        };
        match file.try_lock() {
            Ok(()) => Ok(DirectoryLock::new(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse { directory }),
            Err(TryLockError::Error(cause)) => Err(LockError::Io { directory, cause }),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // A name that is not text is not one of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Stays in the directory for ever: removing it would let two processes lock two files.
const LOCK_FILE: &str = "LOCK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_and_the_refusal_names_it() {
        let home = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(home.path().join("node-1")).unwrap();
        let held = disk.lock().unwrap();
        let refused = RealDisk::open(disk.directory())
            .unwrap()
            .lock()
            .err()
            .unwrap();
        assert!(matches!(&refused, LockError::InUse { directory } if *directory == disk.place()));
        assert!(
            refused.to_string().contains("in use by another node"),
            "{refused}"
        );
        drop(held);
        disk.lock().unwrap();
    }

    #[test]
    fn what_is_written_is_read_and_renames_replace() {
        let home = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(home.path()).unwrap();
        let mut file = disk.create("a").unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.bytes().unwrap(), 6);
        disk.create("b").unwrap();
        assert_eq!(
            disk.create("b").err().unwrap().kind(),
            io::ErrorKind::AlreadyExists
        );
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        let mut buffer = [1; 8];
        assert_eq!(disk.open("b").unwrap().read_at(0, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer, b"\0\0\0xyz\x01\x01");
        disk.remove("b").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
