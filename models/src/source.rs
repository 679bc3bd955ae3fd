//! The files of a version, before anything in them is believed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use paceline_protocol::limits::{
    ARTIFACT_FILES_MAX, ARTIFACT_PATH_BYTES_MAX, MODEL_TOML_BYTES_MAX,
};

use crate::folder::{declared_files, undeclared_files};

/// The files of one version, held in memory. Only `model.toml` and the files that it names are
/// read, or those of an encoder where `config.json` is Hugging Face's; of other files the first bytes,
/// so that what lies there can be named.
#[derive(Clone, Debug, Default)]
pub struct ModelSource {
    files: BTreeMap<String, Bytes>,
    /// First bytes of files that were not read whole.
    glimpses: BTreeMap<String, Bytes>,
    /// A file that is needed and too long to be read.
    oversized: Option<Oversized>,
}

/// A file that is longer than any of its kind in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Oversized {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) allowed: u64,
}

/// Why a folder was not read. Files are named relative to it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system refused.
    #[error("cannot read '{file}': {source}")]
    Io {
        /// The file; `.` is the folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A name that is not a plain path inside the folder.
    #[error("'{file}' is not a plain relative path inside the model's folder")]
    Name {
        /// The name, escaped and cut.
        file: String,
    },
    /// A link leads out of the folder.
    #[error("'{file}' leads out of the model's folder")]
    Outside {
        /// The file.
        file: String,
    },
    /// Something other than a file: a folder, a device, a pipe.
    #[error("'{file}' is not a regular file")]
    Irregular {
        /// The file.
        file: String,
    },
    /// A file is too large.
    #[error("'{file}' has more than {allowed} bytes, which is the most that is read")]
    TooLarge {
        /// The file.
        file: String,
        /// Most bytes.
        allowed: u64,
    },
    /// Too many files.
    #[error("the folder has more than {ARTIFACT_FILES_MAX} entries")]
    TooMany,
}

impl ModelSource {
    /// Reads a folder.
    ///
    /// Links may point elsewhere inside the folder; where a file really lies is asked after it
    /// was opened, so that nobody can exchange it in between. Cost: reads what
    /// `model.toml` names, or what encoders have: at most 3 GiB a file.
    ///
    /// # Errors
    /// [`SourceError`] names the file. A `model.toml` that cannot be understood is no error
    /// here: [`recognise`](crate::recognise) says what is wrong with it.
    pub fn from_dir(folder: &Path) -> Result<Self, SourceError> {
        let io = |source| SourceError::Io {
            file: ".".into(),
            source,
        };
        let root = fs::canonicalize(folder).map_err(io)?;
        let entries = list(&root)?;
        let mut source = Self::default();
        let first = FIRST
            .iter()
            .find(|(name, _)| entries.iter().any(|entry| entry == name));
        if let Some((name, bytes_max)) = first {
            let content = read(&root, name, *bytes_max)?;
            source.files.insert((*name).to_owned(), content);
        }
        for (name, bytes_max) in source.wanted() {
            match read(&root, &name, bytes_max) {
                Ok(content) => source.files.insert(name, content),
                // Named but absent: recognition says it better, with what named it.
                Err(SourceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error),
            };
        }
        if source.file(DECLARATION).is_none() {
            for name in entries {
                let is_read = source.files.contains_key(&name);
                if let Some(head) = glimpse(&root, &name).filter(|_| !is_read) {
                    source.glimpses.insert(name, head);
                }
            }
        }
        Ok(source)
    }

    /// Reads those of a version's files that are needed, wherever they lie: `files` are all
    /// their names and lengths, `read` gives the first bytes of one, as many as it is asked for.
    /// A file that is longer than any of its kind is not read, and recognition says so.
    ///
    /// # Errors
    /// Whatever `read` says.
    pub fn select<E>(
        files: &BTreeMap<String, u64>,
        mut read: impl FnMut(&str, u64) -> Result<Bytes, E>,
    ) -> Result<Self, E> {
        let mut source = Self::default();
        let first = FIRST.iter().find(|(name, _)| files.contains_key(*name));
        let first = first.map(|(name, bytes_max)| ((*name).to_owned(), *bytes_max));
        source.take(first, files, &mut read)?;
        source.take(source.wanted(), files, &mut read)?;
        if source.file(DECLARATION).is_none() && source.oversized.is_none() {
            for (name, bytes) in files {
                if !source.files.contains_key(name) {
                    let head = read(name, (*bytes).min(GLIMPSE_BYTES as u64))?;
                    source.glimpses.insert(name.clone(), head);
                }
            }
        }
        Ok(source)
    }

    /// Reads what is wanted, is there, and has not been read.
    fn take<E>(
        &mut self,
        wanted: impl IntoIterator<Item = (String, u64)>,
        files: &BTreeMap<String, u64>,
        read: &mut impl FnMut(&str, u64) -> Result<Bytes, E>,
    ) -> Result<(), E> {
        for (file, allowed) in wanted {
            match files.get(&file).filter(|_| !self.files.contains_key(&file)) {
                Some(bytes) if *bytes > allowed => {
                    self.oversized = Some(Oversized {
                        file,
                        bytes: *bytes,
                        allowed,
                    });
                }
                Some(bytes) => {
                    let content = read(&file, *bytes)?;
                    self.files.insert(file, content);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What is read beside the file that says what the folder holds.
    fn wanted(&self) -> Vec<(String, u64)> {
        match (self.file(DECLARATION), self.file(CONFIG)) {
            (Some(text), _) => declared_files(text),
            (None, Some(config)) => undeclared_files(config),
            (None, None) => Vec::new(),
        }
    }

    /// Takes files that are in memory already, such as a verified artifact or an embedded
    /// example. Of two with one name the last counts.
    pub fn from_files(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        Self {
            files: files.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The content of a file that was read.
    pub fn file(&self, name: &str) -> Option<&Bytes> {
        self.files.get(name)
    }

    /// Names and contents of the files that were read, sorted by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.files
            .iter()
            .map(|(name, content)| (name.as_str(), content))
    }

    /// A file that is needed and too long, whether it was read or not.
    pub(crate) fn oversized(&self) -> Option<Oversized> {
        let first = FIRST.map(|(name, bytes_max)| (name.to_owned(), bytes_max));
        let mut limits = first.into_iter().chain(self.wanted());
        let read = limits.find_map(|(file, allowed)| {
            let bytes = self.file(&file)?.len() as u64;
            (bytes > allowed).then_some(Oversized {
                file,
                bytes,
                allowed,
            })
        });
        self.oversized.clone().or(read)
    }

    /// Every file that is known of, with its first bytes, sorted by name.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .chain(&self.glimpses)
            .map(|(name, content)| (name.as_str(), &content[..content.len().min(GLIMPSE_BYTES)]))
    }
}

/// The file that says what a folder holds.
pub(crate) const DECLARATION: &str = "model.toml";
/// The file in which Hugging Face says it.
pub(crate) const CONFIG: &str = "config.json";
/// Largest of Hugging Face's JSON files that are read, in bytes, but for the tokenizer: those in
/// use have 1 to 50 KiB, also with thousands of labels or added tokens.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The files that say what a folder holds; the first that is there counts.
const FIRST: [(&str, u64); 2] = [
    (DECLARATION, MODEL_TOML_BYTES_MAX as u64),
    (CONFIG, CONFIG_BYTES_MAX),
];
/// Largest file that is held in memory: 256 million float32 parameters. Families with more will
/// map their files rather than hold them.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;
/// Enough of a file to see what it is: Hugging Face's `config.json` tells within this.
const GLIMPSE_BYTES: usize = 4 << 10;

fn list(root: &Path) -> Result<Vec<String>, SourceError> {
    let io = |source| SourceError::Io {
        file: ".".into(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if names.len() == ARTIFACT_FILES_MAX {
            return Err(SourceError::TooMany);
        }
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn glimpse(root: &Path, name: &str) -> Option<Bytes> {
    let mut head = Vec::new();
    open(root, name)
        .ok()?
        .take(GLIMPSE_BYTES as u64)
        .read_to_end(&mut head)
        .ok()?;
    Some(head.into())
}

fn read(root: &Path, name: &str, allowed: u64) -> Result<Bytes, SourceError> {
    let io = |source| SourceError::Io {
        file: name.to_owned(),
        source,
    };
    let file = open(root, name)?;
    let stated = file.metadata().map_err(io)?.len();
    let too_large = || SourceError::TooLarge {
        file: name.to_owned(),
        allowed,
    };
    if stated > allowed {
        return Err(too_large());
    }
    let mut content = Vec::with_capacity(stated as usize);
    // One byte more than allowed, so that a file that grows meanwhile is seen.
    file.take(allowed + 1)
        .read_to_end(&mut content)
        .map_err(io)?;
    if content.len() as u64 > allowed {
        return Err(too_large());
    }
    Ok(content.into())
}

fn open(root: &Path, name: &str) -> Result<File, SourceError> {
    if !is_plain(name) {
        let file = name
            .chars()
            .take(64)
            .flat_map(char::escape_default)
            .collect();
        return Err(SourceError::Name { file });
    }
    let io = |source| SourceError::Io {
        file: name.to_owned(),
        source,
    };
    let path = root.join(name);
    // Before opening, because opening a pipe waits for its writer.
    if !fs::metadata(&path).map_err(io)?.is_file() {
        return Err(SourceError::Irregular {
            file: name.to_owned(),
        });
    }
    let file = File::open(&path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(SourceError::Irregular {
            file: name.to_owned(),
        });
    }
    if !lies_at(&file, &path).map_err(io)?.starts_with(root) {
        return Err(SourceError::Outside {
            file: name.to_owned(),
        });
    }
    Ok(file)
}

/// Where an open file really is. Linux tells it of the open file itself; elsewhere the path is
/// resolved once more.
fn lies_at(file: &File, path: &Path) -> io::Result<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        if let Ok(real) = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
            return Ok(real);
        }
    }
    let _ = file;
    fs::canonicalize(path)
}

/// Relative, one spelling, nothing that another system would read differently.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= ARTIFACT_PATH_BYTES_MAX
        && !name.contains(|c: char| c.is_control() || matches!(c, '\\' | ':' | '%'))
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::{DIGITS_LIKE, IDENTITY};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn only_what_model_toml_names_is_read() {
        let files = [
            ("model.toml", DIGITS_LIKE),
            ("model.safetensors", "w"),
            ("secret.txt", "s"),
        ];
        let source = ModelSource::from_dir(folder(&files).path()).unwrap();
        let names: Vec<_> = source.files().map(|(name, _)| name).collect();
        assert_eq!(names, ["model.safetensors", "model.toml"]);
        assert_eq!(source.heads().count(), 2);
    }

    #[test]
    fn without_model_toml_files_are_glimpsed() {
        let long = "x".repeat(10_000);
        let source = ModelSource::from_dir(folder(&[("a.bin", &long)]).path()).unwrap();
        assert!(source.file("a.bin").is_none());
        assert_eq!(
            source
                .heads()
                .map(|(_, head)| head.len())
                .collect::<Vec<_>>(),
            [4096]
        );
        let empty = folder(&[]);
        assert_eq!(
            ModelSource::from_dir(empty.path()).unwrap().heads().count(),
            0
        );
        let missing = ModelSource::from_dir(&empty.path().join("no"));
        assert!(matches!(missing, Err(SourceError::Io { .. })));
    }

    #[test]
    fn hostile_names_are_refused_before_anything_is_opened() {
        for name in [
            "../w",
            "/etc/passwd",
            "a/../../w",
            "a//w",
            "./w",
            "",
            "a\\\\w",
            "%2e/w",
            "a:w",
        ] {
            let toml = DIGITS_LIKE.replace("model.safetensors", name);
            let error = ModelSource::from_dir(folder(&[("model.toml", &toml)]).path());
            assert!(
                matches!(error, Err(SourceError::Name { .. })),
                "{name}: {error:?}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_must_stay_inside() {
        use std::os::unix::fs::symlink;
        let outside = folder(&[("w", "stolen")]);
        let inside = folder(&[("model.toml", DIGITS_LIKE), ("real", "w")]);
        let link = inside.path().join("model.safetensors");
        symlink("real", &link).unwrap();
        let source = ModelSource::from_dir(inside.path()).unwrap();
        assert_eq!(source.file("model.safetensors").unwrap(), "w");
        fs::remove_file(&link).unwrap();

        symlink(outside.path().join("w"), &link).unwrap();
        let error = ModelSource::from_dir(inside.path()).unwrap_err();
        assert!(matches!(&error, SourceError::Outside { .. }), "{error}");
        let told = error.to_string();
        assert!(!told.contains(&*outside.path().to_string_lossy()), "{told}");

        // The link is a parent of the file.
        let toml = DIGITS_LIKE.replace("model.safetensors", "sub/w");
        fs::write(inside.path().join("model.toml"), toml).unwrap();
        symlink(outside.path(), inside.path().join("sub")).unwrap();
        let error = ModelSource::from_dir(inside.path());
        assert!(
            matches!(error, Err(SourceError::Outside { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn folders_and_giants_are_refused() {
        let toml = DIGITS_LIKE.replace("model.safetensors", "sub");
        let folder = folder(&[("model.toml", &toml)]);
        fs::create_dir(folder.path().join("sub")).unwrap();
        let error = ModelSource::from_dir(folder.path());
        assert!(
            matches!(error, Err(SourceError::Irregular { .. })),
            "{error:?}"
        );

        let weights = File::create(folder.path().join("huge")).unwrap();
        weights.set_len(FILE_BYTES_MAX + 1).unwrap(); // sparse: occupies nothing
        let toml = DIGITS_LIKE.replace("model.safetensors", "huge");
        fs::write(folder.path().join("model.toml"), toml).unwrap();
        let error = ModelSource::from_dir(folder.path());
        assert!(
            matches!(error, Err(SourceError::TooLarge { .. })),
            "{error:?}"
        );

        let toml = format!("{IDENTITY}#{}", "x".repeat(MODEL_TOML_BYTES_MAX));
        fs::write(folder.path().join("model.toml"), toml).unwrap();
        let error = ModelSource::from_dir(folder.path());
        assert!(
            matches!(error, Err(SourceError::TooLarge { .. })),
            "{error:?}"
        );
    }
}
