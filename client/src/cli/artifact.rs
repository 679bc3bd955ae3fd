//! From a folder to an artifact's manifest: which files count, and what their bytes hash to.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use paceline_protocol::limits::{
    ARTIFACT_CHUNK_BYTES, ARTIFACT_FILE_BYTES_MAX, ARTIFACT_FILES_MAX, MANIFEST_BYTES_MAX,
};
use paceline_protocol::{Digest, Manifest, ManifestError, ManifestFile};
use sha2::{Digest as _, Sha256};

use super::progress::{Progress, Totals};

/// What a folder holds: an artifact to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// Sorted by name, as a manifest is.
    pub(crate) files: Vec<FolderFile>,
    /// Files and folders left out because their names begin with a dot.
    pub(crate) hidden: usize,
}

/// One file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderFile {
    /// Its path inside the folder, with `/` between parts.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length in bytes when the folder was read.
    pub(crate) bytes: u64,
}

/// Why a folder is no artifact. Each names the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    #[error("{} is not a folder; give a model's folder, or the model.toml in it", path.display())]
    NotFolder { path: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{} is a link to {}, outside of the model's folder; copy the file in",
        path.display(), target.display()
    )]
    LinkOutside { path: PathBuf, target: PathBuf },
    #[error("{} is a link to a folder; only links to files are followed", path.display())]
    LinkToFolder { path: PathBuf },
    #[error("{} is neither a file nor a folder", path.display())]
    NeitherFileNorFolder { path: PathBuf },
    #[error("the name of {} is not text", path.display())]
    Name { path: PathBuf },
    #[error("{} has no files; hidden ones are left out ({hidden} here)", path.display())]
    Empty { path: PathBuf, hidden: usize },
    #[error("{} has more than {ARTIFACT_FILES_MAX} files", path.display())]
    TooManyFiles { path: PathBuf },
    #[error("{} has {bytes} bytes; a file has at most {ARTIFACT_FILE_BYTES_MAX}", path.display())]
    FileTooLarge { path: PathBuf, bytes: u64 },
    #[error("{} changed while it was read: it had {wanted} bytes, then {found}", path.display())]
    Changed {
        path: PathBuf,
        wanted: u64,
        found: u64,
    },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the manifest has {bytes} bytes; at most {MANIFEST_BYTES_MAX} are allowed")]
    ManifestTooLarge { bytes: usize },
}

impl Folder {
    /// Reads the folder at `path`, or the one that the `model.toml` at `path` is in.
    ///
    /// # Errors
    /// [`ArtifactError`]: nothing there, nothing in it, too much in it, links that leave it,
    /// and what is neither file nor folder.
    pub(crate) fn read(path: &Path) -> Result<Self, ArtifactError> {
        let is_model_toml = path.file_name().is_some_and(|name| name == "model.toml");
        let folder = match path.parent() {
            Some(parent) if is_model_toml && !path.is_dir() => parent,
            _ => path,
        };
        // The parent of a bare file name is the empty path.
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        if !metadata(folder)?.is_dir() {
            let path = path.to_owned();
            return Err(ArtifactError::NotFolder { path });
        }
        let root = fs::canonicalize(folder).map_err(|e| unreadable(folder, e))?;
        let mut read = Self {
            files: Vec::new(),
            hidden: 0,
        };
        read.collect(&root, folder, "")?;
        if read.files.is_empty() {
            let (path, hidden) = (folder.to_owned(), read.hidden);
            return Err(ArtifactError::Empty { path, hidden });
        }
        // By the whole name: "a-b" stands before "a/b", which reading folder by folder misses.
        read.files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(read)
    }

    /// How much there is.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            files: self.files.len(),
            bytes: self.files.iter().map(|file| file.bytes).sum(),
        }
    }

    /// Hashes every file: SHA-256 of the whole, BLAKE3 of each chunk. Reads each byte once and
    /// holds one chunk in memory.
    ///
    /// # Errors
    /// [`ArtifactError`]: a file that cannot be read or that has changed its size, a name that
    /// no artifact may have.
    pub(crate) fn manifest(&self, progress: &mut Progress) -> Result<Manifest, ArtifactError> {
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            files.push(file.hash(progress)?);
            progress.file_done(&file.name, file.bytes);
        }
        let manifest = Manifest { files };
        manifest.check()?;
        let bytes = manifest.canonical().len();
        if bytes > MANIFEST_BYTES_MAX {
            return Err(ArtifactError::ManifestTooLarge { bytes });
        }
        Ok(manifest)
    }

    /// Adds what is in `folder`. The depth is bounded by the system's own limit on paths, since
    /// links to folders are not followed.
    fn collect(&mut self, root: &Path, folder: &Path, prefix: &str) -> Result<(), ArtifactError> {
        for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
            let entry = entry.map_err(|e| unreadable(folder, e))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|e| unreadable(&path, e))?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(ArtifactError::Name { path });
            };
            if name.starts_with('.') {
                self.hidden += 1;
                continue;
            }
            let name = format!("{prefix}{name}");
            if kind.is_dir() {
                self.collect(root, &path, &format!("{name}/"))?;
                continue;
            }
            if kind.is_symlink() {
                check_link(root, &path)?;
            }
            self.add(name, path)?;
        }
        Ok(())
    }

    fn add(&mut self, name: String, path: PathBuf) -> Result<(), ArtifactError> {
        let metadata = metadata(&path)?;
        let bytes = metadata.len();
        if !metadata.is_file() {
            return Err(ArtifactError::NeitherFileNorFolder { path });
        }
        if bytes > ARTIFACT_FILE_BYTES_MAX {
            return Err(ArtifactError::FileTooLarge { path, bytes });
        }
        if self.files.len() == ARTIFACT_FILES_MAX {
            let path = path.parent().unwrap_or(&path).to_owned();
            return Err(ArtifactError::TooManyFiles { path });
        }
        self.files.push(FolderFile { name, path, bytes });
        Ok(())
    }
}

impl FolderFile {
    fn hash(&self, progress: &mut Progress) -> Result<ManifestFile, ArtifactError> {
        let file = File::open(&self.path).map_err(|e| unreadable(&self.path, e))?;
        // One byte more than there was shows a file that has grown, without following it.
        let mut rest = file.take(self.bytes + 1);
        let mut whole = Sha256::new();
        let mut chunks = Vec::new();
        let mut chunk = Vec::new();
        let mut found = 0;
        loop {
            chunk.clear();
            let read = (&mut rest)
                .take(ARTIFACT_CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)
                .map_err(|e| unreadable(&self.path, e))?;
            if read == 0 {
                break;
            }
            found += read as u64;
            whole.update(&chunk);
            chunks.push(Digest(blake3::hash(&chunk).into()));
            progress.at(found);
        }
        if found != self.bytes {
            return Err(ArtifactError::Changed {
                path: self.path.clone(),
                wanted: self.bytes,
                found,
            });
        }
        Ok(ManifestFile {
            path: self.name.clone(),
            bytes: self.bytes,
            sha256: Digest(whole.finalize().into()),
            chunks,
        })
    }
}

/// What lies outside of the folder is not what the caller named.
fn check_link(root: &Path, path: &Path) -> Result<(), ArtifactError> {
    let target = fs::canonicalize(path).map_err(|e| unreadable(path, e))?;
    let path = path.to_owned();
    if !target.starts_with(root) {
        return Err(ArtifactError::LinkOutside { path, target });
    }
    if target.is_dir() {
        return Err(ArtifactError::LinkToFolder { path });
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<fs::Metadata, ArtifactError> {
    fs::metadata(path).map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, source: io::Error) -> ArtifactError {
    let path = path.to_owned();
    ArtifactError::Unreadable { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::Talk;
    use std::os::unix::fs::symlink;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn manifest(folder: &Folder) -> Result<Manifest, ArtifactError> {
        let talk = Talk::new(Box::new(io::sink()), false);
        folder.manifest(&mut Progress::reading(talk, folder.totals()))
    }

    #[test]
    fn a_manifest_is_sorted_hashed_and_checked() {
        let two_chunks = vec![7; ARTIFACT_CHUNK_BYTES + 1];
        let at = folder(&[
            ("model.toml", b"abc"),
            ("weights/a", &two_chunks),
            ("weights-b", b""),
            (".git/config", b"secret"),
            (".env", b"secret"),
        ]);
        for path in [at.path().to_owned(), at.path().join("model.toml")] {
            let read = Folder::read(&path).unwrap();
            assert_eq!(read.hidden, 2, "the hidden folder counts once");
            let manifest = manifest(&read).unwrap();
            assert_eq!(manifest.check(), Ok(()));
            let names: Vec<&str> = manifest.files.iter().map(|f| f.path.as_str()).collect();
            assert_eq!(names, ["model.toml", "weights-b", "weights/a"]);
            // SHA-256 of "abc": FIPS 180-2, appendix B.1.
            assert_eq!(
                manifest.files[0].sha256.to_string(),
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            );
            assert_eq!(manifest.files[1].chunks, []);
            let last = &manifest.files[2];
            assert_eq!(last.bytes, two_chunks.len() as u64);
            let chunk = |range: &[u8]| Digest(blake3::hash(range).into());
            assert_eq!(
                last.chunks,
                [chunk(&two_chunks[..ARTIFACT_CHUNK_BYTES]), chunk(&[7])]
            );
        }
    }

    #[test]
    fn links_are_followed_inside_the_folder_only() {
        let outside = folder(&[("secret", b"s")]);
        let at = folder(&[("blobs/x", b"weights")]);
        symlink("blobs/x", at.path().join("model.bin")).unwrap();
        let read = Folder::read(at.path()).unwrap();
        let files = manifest(&read).unwrap().files;
        assert_eq!(files[0].sha256, files[1].sha256);
        assert_eq!(files[1].path, "model.bin");

        let link = at.path().join("leak");
        symlink(outside.path().join("secret"), &link).unwrap();
        let refused = Folder::read(at.path()).unwrap_err();
        assert!(
            matches!(refused, ArtifactError::LinkOutside { .. }),
            "{refused}"
        );
        fs::remove_file(&link).unwrap();

        symlink(at.path(), &link).unwrap();
        let refused = Folder::read(at.path()).unwrap_err();
        assert!(
            matches!(refused, ArtifactError::LinkToFolder { .. }),
            "{refused}"
        );
        fs::remove_file(&link).unwrap();

        symlink("nothing", &link).unwrap();
        let refused = Folder::read(at.path()).unwrap_err();
        assert!(refused.to_string().contains("leak"), "{refused}");
    }

    #[test]
    fn what_is_no_artifact_is_refused_by_name() {
        let empty = folder(&[(".hidden", b"x")]);
        let refused = Folder::read(empty.path()).unwrap_err();
        assert!(
            matches!(refused, ArtifactError::Empty { hidden: 1, .. }),
            "{refused}"
        );

        let at = folder(&[("weights.bin", b"x"), ("50%", b"x")]);
        let refused = Folder::read(&at.path().join("weights.bin")).unwrap_err();
        assert!(refused.to_string().contains("is not a folder"), "{refused}");
        let refused = Folder::read(&at.path().join("absent")).unwrap_err();
        assert!(refused.to_string().contains("absent"), "{refused}");
        let refused = manifest(&Folder::read(at.path()).unwrap()).unwrap_err();
        assert!(matches!(refused, ArtifactError::Manifest(_)), "{refused}");

        let at = folder(&[]);
        let _door = std::os::unix::net::UnixListener::bind(at.path().join("socket")).unwrap();
        let refused = Folder::read(at.path()).unwrap_err();
        assert!(refused.to_string().contains("neither a file"), "{refused}");
    }

    #[test]
    fn a_file_that_changes_its_size_under_way_is_noticed() {
        for (content, wanted) in [(&b"1234"[..], 4), (&b"123456"[..], 6)] {
            let at = folder(&[("weights", b"12345")]);
            let read = Folder::read(at.path()).unwrap();
            fs::write(at.path().join("weights"), content).unwrap();
            match manifest(&read) {
                Err(ArtifactError::Changed {
                    wanted: 5, found, ..
                }) => assert_eq!(found, wanted),
                other => panic!("{other:?}"),
            }
        }
    }
}
