//! The port [`Disk`] in memory: what a disk may do to a program, on purpose and from a seed.
//!
//! Content and names exist twice, as cached and as durable. Syncing carries one to the other;
//! [`MemoryDisk::crash`] keeps the durable one and, of what was not synced, any mixture of
//! sectors and a prefix of the changes of names, as a real disk and a journaling file system
//! do. Faults are set on a running disk: no more room, a failing or a lying sync, a failing
//! write, a flipped bit.

mod machine;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::machine::{Chance, Faults, FileState, Machine, NameChange, Pending, due, fault};
use super::disk::{DirectoryLock, Disk, DiskFile, LockError};

/// A disk in memory. Clones are the same disk as seen since the same boot; after
/// [`MemoryDisk::crash`] they and their files fail, and only its result goes on.
#[derive(Clone)]
pub struct MemoryDisk {
    machine: Arc<Mutex<Machine>>,
    boot: u64,
}

impl MemoryDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self {
            machine: Arc::default(),
            boot: 0,
        }
    }

    /// Takes the power away and gives it back. What was synced is there; what was not may be
    /// there sector by sector, as `seed` decides. Faults end, the lock is free.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut machine = self.locked();
        machine.boot += 1;
        machine.taken = false;
        machine.faults = Faults::default();
        machine.lose_what_is_not_durable(&mut Chance(seed));
        Self {
            machine: self.machine.clone(),
            boot: machine.boot,
        }
    }

    /// Lets all files together grow to `bytes`, and no further.
    pub fn limit_bytes(&self, bytes: Option<usize>) {
        self.locked().faults.bytes_max = bytes;
    }

    /// Lets the `count`-th sync from now (1 is the next) fail once with an I/O error. As file
    /// systems do, it then counts what it did not write as written.
    pub fn fail_sync(&self, count: u64) {
        self.locked().faults.fail_sync = Some(count);
    }

    /// Lets the `count`-th write from now (1 is the next) fail once, having written half.
    pub fn fail_write(&self, count: u64) {
        self.locked().faults.fail_write = Some(count);
    }

    /// From now on syncs of files claim success and do nothing.
    pub fn lose_syncs(&self, lose: bool) {
        self.locked().faults.lose_syncs = lose;
    }

    /// Flips one bit of a file, in the cache and on the medium.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip_bit(&self, name: &str, byte: usize, bit: u8) {
        let mut machine = self.locked();
        let id = machine.names[name];
        let file = machine.files.get_mut(&id).expect("every name has a file");
        file.cached[byte] ^= 1 << bit;
        if let Some(durable) = file.durable.get_mut(byte) {
            *durable ^= 1 << bit;
        }
    }

    /// Takes the power away after `count` more operations, in the middle of whatever runs then.
    /// Everything fails until [`MemoryDisk::crash`] gives it back.
    pub fn cut_power_after(&self, count: u64) {
        self.locked().faults.cut_power = Some(count + 1);
    }

    /// Replaces a file's content, cached and durable.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut machine = self.locked();
        let id = machine
            .names
            .get(name)
            .copied()
            .unwrap_or_else(|| machine.create(name));
        machine.durable_names = machine.names.clone();
        machine.name_changes.clear();
        let file = FileState {
            cached: content.to_vec(),
            durable: content.to_vec(),
            pending: Vec::new(),
        };
        machine.files.insert(id, file);
    }

    /// A file's content as programs see it, if there is such a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let machine = self.locked();
        let id = machine.names.get(name)?;
        machine.files.get(id).map(|file| file.cached.clone())
    }

    /// How many syncs were asked for since the beginning.
    pub fn syncs(&self) -> u64 {
        self.locked().syncs
    }

    fn locked(&self) -> MutexGuard<'_, Machine> {
        // A panicking test must not hide its message behind a poisoned lock.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let mut machine = self.locked();
        if due(&mut machine.faults.cut_power) {
            machine.boot += 1;
        }
        if machine.boot == self.boot {
            Ok(machine)
        } else {
            Err(fault("the power was lost"))
        }
    }

    fn file(&self, id: u64) -> Box<dyn DiskFile> {
        Box::new(MemoryFile {
            disk: self.clone(),
            id,
        })
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk for MemoryDisk {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> Result<DirectoryLock, LockError> {
        let mut machine = self.running().map_err(|cause| LockError::Io {
            directory: self.place(),
            cause,
        })?;
        if machine.taken {
            return Err(LockError::InUse {
                directory: self.place(),
            });
        }
        machine.taken = true;
        Ok(DirectoryLock::new(Taken { disk: self.clone() }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.running()?;
        if machine.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = machine.create(name);
        Ok(self.file(id))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let machine = self.running()?;
        let id = *machine.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(id))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.running()?.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let change = NameChange::Renamed {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.running()?.rename_or_remove(change, from)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let change = NameChange::Removed {
            name: name.to_owned(),
        };
        self.running()?.rename_or_remove(change, name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut machine = self.running()?;
        machine.count_sync()?;
        machine.durable_names = machine.names.clone();
        machine.name_changes.clear();
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    id: u64,
}

impl DiskFile for MemoryFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut machine = self.disk.running()?;
        machine.write(self.id, offset as usize, bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let machine = self.disk.running()?;
        let content = machine.files[&self.id]
            .cached
            .get(offset as usize..)
            .unwrap_or_default();
        let read = content.len().min(buffer.len());
        buffer[..read].copy_from_slice(&content[..read]);
        Ok(read)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.running()?.files[&self.id].cached.len() as u64)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.disk
            .running()?
            .file(self.id)
            .change(Pending::SetLen(bytes as usize));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut machine = self.disk.running()?;
        let counted = machine.count_sync();
        let lost = machine.faults.lose_syncs;
        let file = machine.file(self.id);
        if counted.is_err() {
            // The pages are marked clean all the same: a second sync will find nothing to do.
            file.pending.clear();
        } else if !lost {
            for pending in std::mem::take(&mut file.pending) {
                pending.reach(&mut file.durable, 1000, &mut Chance(0));
            }
        }
        counted
    }
}

/// Gives the directory back when dropped.
struct Taken {
    disk: MemoryDisk,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Ok(mut machine) = self.disk.running() {
            machine.taken = false;
        }
    }
}

#[cfg(test)]
mod tests;
