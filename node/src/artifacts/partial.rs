//! Files that are being fetched: what of them is on disk already, and what is not.
//!
//! A partial file has each chunk at its final place. Its record of what is there are the
//! manifest's hashes: after a restart every chunk is hashed, and whatever is not what it should
//! be (never written, torn by a crash, damaged) is fetched again. Calls block.

use std::io;

use paceline_protocol::limits::ARTIFACT_CHUNK_BYTES;
use paceline_protocol::{Digest, ManifestFile};
use sha2::{Digest as _, Sha256};

use super::store::{ArtifactError, Artifacts};

impl Artifacts {
    /// Prepares to take a file in piece by piece, and says which chunks are wanted. Reads what
    /// an earlier attempt has left.
    pub(super) fn wanted(&self, file: &ManifestFile) -> io::Result<Vec<u32>> {
        let name = name(file.sha256);
        let partial = match self.disk.open(&name) {
            Ok(partial) => partial,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match self.disk.create(&name) {
                    // Another artifact with the same file is being fetched.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    created => drop(created?),
                }
                self.disk.sync_dir()?;
                return Ok((0..file.chunks.len() as u32).collect());
            }
            Err(error) => return Err(error),
        };
        let mut buffer = vec![0; ARTIFACT_CHUNK_BYTES];
        let mut wanted = Vec::new();
        for (index, hash) in (0..).zip(&file.chunks) {
            let length = chunk_bytes(file, index);
            let read = partial.read_at(offset(index), &mut buffer[..length])?;
            if blake3::hash(&buffer[..read]).as_bytes() != &hash.0 {
                wanted.push(index);
            }
        }
        Ok(wanted)
    }

    /// Puts a verified chunk at its place; `durable` also waits until all so far is on the medium.
    pub(super) fn put_chunk(
        &self,
        file: Digest,
        (index, bytes): (u32, &[u8]),
        durable: bool,
    ) -> io::Result<()> {
        let mut partial = match self.disk.open(&name(file)) {
            Err(_) if self.disk.open(&file.to_string()).is_ok() => return Ok(()),
            opened => opened?,
        };
        partial.write_at(offset(index), bytes)?;
        if durable {
            partial.sync_data()?;
        }
        Ok(())
    }

    /// Checks the whole and gives it its name, durably. What does not hash to its name is
    /// thrown away.
    pub(super) fn complete(&self, file: &ManifestFile) -> Result<(), ArtifactError> {
        match self.complete_alone(file) {
            // A fetch of another artifact with the same file was faster.
            Err(ArtifactError::Disk(error))
                if error.kind() == io::ErrorKind::NotFound && self.whole(file)? =>
            {
                Ok(self.disk.sync_dir()?)
            }
            other => other,
        }
    }

    fn complete_alone(&self, file: &ManifestFile) -> Result<(), ArtifactError> {
        let partial = name(file.sha256);
        let mut content = self.disk.open(&partial)?;
        content.set_len(file.bytes)?;
        let found = self.sha256(&partial)?;
        if found != file.sha256 {
            self.disk.remove(&partial)?;
            return Err(ArtifactError::Mismatch {
                wanted: file.sha256,
                found,
            });
        }
        content.sync_data()?;
        self.disk.rename(&partial, &file.sha256.to_string())?;
        Ok(self.disk.sync_dir()?)
    }

    /// Whether a file is here and whole. Reads all of it; a damaged one is set aside.
    pub(super) fn whole(&self, file: &ManifestFile) -> io::Result<bool> {
        let name = file.sha256.to_string();
        match self.sha256(&name) {
            Ok(found) if found == file.sha256 => Ok(true),
            Ok(_damaged) => {
                self.set_aside(&name)?;
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sha256(&self, name: &str) -> io::Result<Digest> {
        let file = self.disk.open(name)?;
        let mut buffer = vec![0; READ_BYTES];
        let (mut hasher, mut at) = (Sha256::new(), 0);
        loop {
            let read = file.read_at(at, &mut buffer)?;
            if read == 0 {
                return Ok(Digest(hasher.finalize().into()));
            }
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
    }
}

fn chunk_bytes(file: &ManifestFile, index: u32) -> usize {
    let behind = file.bytes.saturating_sub(offset(index));
    behind.min(ARTIFACT_CHUNK_BYTES as u64) as usize
}

fn offset(index: u32) -> u64 {
    u64::from(index) * ARTIFACT_CHUNK_BYTES as u64
}

fn name(file: Digest) -> String {
    format!("partial-{file}")
}

/// Hashing is limited by the processor from here on.
const READ_BYTES: usize = 1 << 20;
