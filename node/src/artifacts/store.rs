//! Files of artifacts on this node's disk, named by what they hash to.
//!
//! A file lies under its SHA-256, a manifest under its digest with `.manifest` behind it; both
//! are immutable, written to a temporary name, synced, then renamed. Whatever is read is hashed
//! again: damage is found before it is used, and the damaged file is set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use paceline_models::ModelSource;
use paceline_protocol::limits::{ARTIFACT_CHUNK_BYTES, MANIFEST_BYTES_MAX};
use paceline_protocol::{Digest, ErrorCode, Failure, Manifest, ManifestError, ManifestFile};
use sha2::{Digest as _, Sha256};

use crate::storage::disk::{Disk, DiskFile, read_file};
use crate::threads::Threads;

/// The store. Cheap to clone. Calls block: they come from threads that may.
#[derive(Clone)]
pub struct Artifacts {
    pub(super) disk: Arc<dyn Disk>,
    uploads: Arc<AtomicU64>,
    threads: Threads,
}

/// A file on its way in. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    artifacts: Artifacts,
    temporary: String,
    file: Option<Box<dyn DiskFile>>,
    hasher: Sha256,
    bytes: u64,
}

/// Why an artifact cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The manifest is not one.
    #[error("the manifest is not valid: {0}")]
    Manifest(#[from] ManifestError),
    /// Files that are not here.
    #[error("{count} of the artifact's files are not on this node, the first is {first}")]
    Missing {
        /// The first of them.
        first: Digest,
        /// How many.
        count: usize,
    },
    /// Bytes that do not hash to their name.
    #[error("the bytes hash to {found}, not to {wanted}")]
    Mismatch {
        /// What they were said to be.
        wanted: Digest,
        /// What they are.
        found: Digest,
    },
    /// A file that was whole once and is no longer.
    #[error("'{path}' of artifact {digest} is damaged on disk and was set aside; push it again")]
    Damaged {
        /// The artifact.
        digest: Digest,
        /// The file within it.
        path: String,
    },
    /// A stored file has another size than its manifest says.
    #[error("'{path}' has {found} bytes, the manifest says {wanted}")]
    Size {
        /// The file.
        path: String,
        /// What the manifest says.
        wanted: u64,
        /// What is stored.
        found: u64,
    },
    /// The disk.
    #[error("the disk does not take or give it: {0}")]
    Disk(#[from] io::Error),
}

impl Artifacts {
    /// The store on `disk`. Leftovers of uploads that a crash interrupted are removed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        for name in disk.list()? {
            if name.starts_with(TEMPORARY) {
                disk.remove(&name)?;
            }
        }
        Ok(Self {
            disk,
            uploads: Arc::default(),
            threads: Threads::default(),
        })
    }

    /// The same store, whose callers block on these threads.
    pub fn on(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// The threads that its calls may block.
    pub(crate) fn threads(&self) -> Threads {
        self.threads
    }

    /// Those of `wanted` that are not here.
    ///
    /// # Errors
    /// What the disk says.
    pub fn missing(&self, wanted: &[Digest]) -> io::Result<Vec<Digest>> {
        let names: BTreeSet<String> = self.disk.list()?.into_iter().collect();
        Ok(wanted
            .iter()
            .filter(|digest| !names.contains(&digest.to_string()))
            .copied()
            .collect())
    }

    /// Begins to take a file in.
    ///
    /// # Errors
    /// What the disk says.
    pub fn upload(&self) -> io::Result<Upload> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY}{number}");
        let file = Some(self.disk.create(&temporary)?);
        let hasher = Sha256::new();
        Ok(Upload {
            artifacts: self.clone(),
            temporary,
            file,
            hasher,
            bytes: 0,
        })
    }

    /// Takes a manifest in, whose files are here already, and returns its digest.
    ///
    /// # Errors
    /// The manifest is not valid, or files are missing or of another size.
    pub fn store(&self, manifest: &Manifest) -> Result<Digest, ArtifactError> {
        manifest.check()?;
        let wanted: Vec<Digest> = manifest.files.iter().map(|file| file.sha256).collect();
        let missing = self.missing(&wanted)?;
        if let Some(first) = missing.first() {
            return Err(ArtifactError::Missing {
                first: *first,
                count: missing.len(),
            });
        }
        for file in &manifest.files {
            let found = self.disk.open(&file.sha256.to_string())?.bytes()?;
            if found != file.bytes {
                let path = file.path.clone();
                return Err(ArtifactError::Size {
                    path,
                    wanted: file.bytes,
                    found,
                });
            }
        }
        let digest = manifest.digest();
        let name = manifest_name(digest);
        if self.disk.open(&name).is_ok() {
            // Whoever renamed it may not have come to this yet, and the caller will rely on it.
            self.disk.sync_dir()?;
            return Ok(digest);
        }
        let json = serde_json::to_vec(manifest).map_err(io::Error::other)?;
        let mut upload = self.upload()?;
        upload.write(&json)?;
        upload.persist(&name)?;
        Ok(digest)
    }

    /// Stores an artifact that lies in memory: what the binary brings along.
    ///
    /// # Errors
    /// As [`Artifacts::store`].
    pub fn store_files(&self, files: &[(&str, &[u8])]) -> Result<Digest, ArtifactError> {
        let mut manifest = Manifest {
            files: Vec::with_capacity(files.len()),
        };
        for (path, bytes) in files {
            let sha256 = Digest(Sha256::digest(bytes).into());
            let chunks = bytes.chunks(ARTIFACT_CHUNK_BYTES);
            let chunks = chunks
                .map(|chunk| Digest(blake3::hash(chunk).into()))
                .collect();
            let (path, length) = ((*path).to_owned(), bytes.len() as u64);
            manifest.files.push(paceline_protocol::ManifestFile {
                path,
                bytes: length,
                sha256,
                chunks,
            });
            if !self.missing(&[sha256])?.is_empty() {
                let mut upload = self.upload()?;
                upload.write(bytes)?;
                upload.finish(sha256)?;
            }
        }
        manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.store(&manifest)
    }

    /// Whether an artifact is here with all its files, by their names and without reading them.
    pub(super) fn holds(&self, digest: Digest) -> Result<bool, ArtifactError> {
        let manifest = match self.manifest(digest) {
            Err(ArtifactError::Missing { .. } | ArtifactError::Damaged { .. }) => return Ok(false),
            other => other?,
        };
        let files: Vec<Digest> = manifest.files.iter().map(|file| file.sha256).collect();
        Ok(self.missing(&files)?.is_empty())
    }

    /// Reads a chunk of a file; `None` if there is no such file or chunk.
    pub(super) fn chunk(&self, file: Digest, index: u32) -> io::Result<Option<Vec<u8>>> {
        let content = match self.disk.open(&file.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let offset = u64::from(index) * ARTIFACT_CHUNK_BYTES as u64;
        let behind = content.bytes()?.saturating_sub(offset);
        let mut chunk = vec![0; behind.min(ARTIFACT_CHUNK_BYTES as u64) as usize];
        let read = content.read_at(offset, &mut chunk)?;
        chunk.truncate(read);
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Checks every byte of an artifact, and holds in memory what loading it needs: a file that
    /// no model reads, or that is too long to be read, passes in pieces.
    ///
    /// # Errors
    /// It is not here, or damaged.
    pub fn source(&self, digest: Digest) -> Result<ModelSource, ArtifactError> {
        let manifest = self.manifest(digest)?;
        let files: BTreeMap<_, _> = manifest
            .files
            .iter()
            .map(|file| (file.path.as_str(), file))
            .collect();
        let lengths = files.values().map(|file| (file.path.clone(), file.bytes));
        let mut checked = BTreeSet::new();
        let source = ModelSource::select(&lengths.collect(), |path, bytes| {
            checked.insert(path.to_owned());
            self.checked(digest, files[path], bytes)
        })?;
        for file in &manifest.files {
            if !checked.contains(&file.path) {
                self.checked(digest, file, 0)?;
            }
        }
        Ok(source)
    }

    /// The first `bytes` of a file, all of which is read and checked.
    fn checked(
        &self,
        digest: Digest,
        file: &ManifestFile,
        bytes: u64,
    ) -> Result<Bytes, ArtifactError> {
        let name = file.sha256.to_string();
        let content = self.disk.open(&name)?;
        let mut kept = Vec::with_capacity(bytes as usize);
        let mut piece = vec![0; ARTIFACT_CHUNK_BYTES.min(file.bytes as usize + 1)];
        let (mut hasher, mut offset) = (Sha256::new(), 0);
        loop {
            let read = content.read_at(offset, &mut piece)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            let left = (bytes as usize).saturating_sub(kept.len());
            kept.extend_from_slice(&piece[..read.min(left)]);
            offset += read as u64;
        }
        if <[u8; 32]>::from(hasher.finalize()) != file.sha256.0 {
            self.set_aside(&name)?;
            return Err(ArtifactError::Damaged {
                digest,
                path: file.path.clone(),
            });
        }
        Ok(kept.into())
    }

    /// An artifact's manifest. Its files need not be here.
    pub(crate) fn manifest(&self, digest: Digest) -> Result<Manifest, ArtifactError> {
        let name = manifest_name(digest);
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ArtifactError::Missing {
                first: digest,
                count: 1,
            },
            _ => ArtifactError::Disk(error),
        };
        let json = read_file(&self.disk, &name, MANIFEST_BYTES_MAX as u64).map_err(missing)?;
        let manifest: Option<Manifest> = serde_json::from_slice(&json).ok();
        match manifest.filter(|manifest| manifest.digest() == digest) {
            Some(manifest) => Ok(manifest),
            None => {
                self.set_aside(&name)?;
                Err(ArtifactError::Damaged {
                    digest,
                    path: "manifest".to_owned(),
                })
            }
        }
    }

    /// Keeps a damaged file for whoever wants to know why, out of the way of a new upload.
    pub(super) fn set_aside(&self, name: &str) -> io::Result<()> {
        tracing::error!(name, "a stored file is damaged; it is set aside");
        self.disk.rename(name, &format!("{name}.damaged"))?;
        self.disk.sync_dir()
    }
}

impl Upload {
    /// Appends bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().expect("open until it is finished");
        file.write_at(self.bytes, bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Checks what was written and gives it its name.
    ///
    /// # Errors
    /// The bytes do not hash to `digest`; then nothing is kept.
    pub fn finish(mut self, digest: Digest) -> Result<(), ArtifactError> {
        let found = Digest(std::mem::take(&mut self.hasher).finalize().into());
        if found != digest {
            return Err(ArtifactError::Mismatch {
                wanted: digest,
                found,
            });
        }
        self.persist(&digest.to_string())?;
        Ok(())
    }

    fn persist(mut self, name: &str) -> io::Result<()> {
        let mut file = self.file.take().expect("open until it is finished");
        file.sync_data()?;
        let disk = &self.artifacts.disk;
        disk.rename(&self.temporary, name)?;
        disk.sync_dir()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed now is removed at the next start.
            let _ = self.artifacts.disk.remove(&self.temporary);
        }
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        let code = match &error {
            ArtifactError::Manifest(_) | ArtifactError::Size { .. } => ErrorCode::ArtifactInvalid,
            ArtifactError::Missing { .. } => ErrorCode::ArtifactMissing,
            ArtifactError::Mismatch { .. } => ErrorCode::DigestMismatch,
            ArtifactError::Damaged { .. } | ArtifactError::Disk(_) => ErrorCode::StorageFailed,
        };
        Self::new(code, error.to_string())
    }
}

fn manifest_name(digest: Digest) -> String {
    format!("{digest}.manifest")
}

const TEMPORARY: &str = "incoming-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryDisk;

    fn store() -> (MemoryDisk, Artifacts) {
        let disk = MemoryDisk::new();
        let artifacts = Artifacts::open(Arc::new(disk.clone())).unwrap();
        (disk, artifacts)
    }

    const FILES: [(&str, &[u8]); 2] = [("model.toml", b"name = \"m\""), ("a.bin", b"weights")];

    #[test]
    fn what_was_stored_is_read_back_and_stored_once() {
        let (disk, artifacts) = store();
        let digest = artifacts.store_files(&FILES).unwrap();
        let names = disk.list().unwrap();
        assert_eq!(artifacts.store_files(&FILES).unwrap(), digest);
        assert_eq!(disk.list().unwrap(), names);
        assert!(artifacts.source(digest).is_ok());
    }

    #[test]
    fn bytes_that_do_not_match_their_name_leave_nothing_behind() {
        let (disk, artifacts) = store();
        let mut upload = artifacts.upload().unwrap();
        upload.write(b"something").unwrap();
        let error = upload.finish(Digest([0; 32])).unwrap_err();
        assert!(matches!(error, ArtifactError::Mismatch { .. }), "{error}");
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn a_manifest_without_its_files_is_refused() {
        let (_, artifacts) = store();
        let chunks = vec![Digest([2; 32])];
        let file = paceline_protocol::ManifestFile {
            path: "a".into(),
            bytes: 1,
            sha256: Digest([1; 32]),
            chunks,
        };
        let error = artifacts
            .store(&Manifest { files: vec![file] })
            .unwrap_err();
        assert!(
            matches!(error, ArtifactError::Missing { count: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn damage_is_found_and_set_aside() {
        let (disk, artifacts) = store();
        let digest = artifacts.store_files(&FILES).unwrap();
        let name = Digest(Sha256::digest(b"weights").into()).to_string();
        disk.open(&name).unwrap().write_at(0, b"W").unwrap();
        match artifacts.source(digest) {
            Err(ArtifactError::Damaged { path, .. }) => assert_eq!(path, "a.bin"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("damage was served"),
        }
        assert!(artifacts.store_files(&FILES).is_ok(), "a new push mends it");
        assert!(artifacts.source(digest).is_ok());
    }

    #[test]
    fn damage_is_found_in_what_no_model_reads() {
        let (disk, artifacts) = store();
        let picture = vec![7; ARTIFACT_CHUNK_BYTES + 5];
        let toml = b"name = \"i\"\nfamily = \"identity\"\ninputs = []\noutputs = []\n";
        let files = [("model.toml", &toml[..]), ("picture.png", &picture)];
        let digest = artifacts.store_files(&files).unwrap();
        let source = artifacts.source(digest).unwrap();
        let read: Vec<_> = source.files().map(|(name, _)| name).collect();
        assert_eq!(read, ["model.toml"], "the picture is not held");
        let name = Digest(Sha256::digest(&picture).into()).to_string();
        let last = ARTIFACT_CHUNK_BYTES as u64 + 4;
        disk.open(&name).unwrap().write_at(last, b"8").unwrap();
        assert!(matches!(
            artifacts.source(digest),
            Err(ArtifactError::Damaged { path, .. }) if path == "picture.png"
        ));
    }

    #[test]
    fn an_interrupted_upload_is_cleaned_up_at_the_next_start() {
        let (disk, artifacts) = store();
        let mut upload = artifacts.upload().unwrap();
        upload.write(b"half").unwrap();
        std::mem::forget(upload);
        assert_eq!(disk.list().unwrap().len(), 1);
        Artifacts::open(Arc::new(disk.clone())).unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
