//! An artifact's manifest: which files, how large, and what their bytes hash to.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::limits::{
    ARTIFACT_CHUNK_BYTES, ARTIFACT_FILE_BYTES_MAX, ARTIFACT_FILES_MAX, ARTIFACT_PATH_BYTES_MAX,
};

/// The files of an artifact, sorted by path. Its digest names the artifact everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Sorted by path, no path twice.
    pub files: Vec<ManifestFile>,
}

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Relative path with `/` between parts.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole file.
    pub sha256: Digest,
    /// BLAKE3 of each chunk of [`ARTIFACT_CHUNK_BYTES`], so that a fetch can be resumed and a
    /// damaged chunk found. An empty file has none.
    pub chunks: Vec<Digest>,
}

/// Why a manifest was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No files, or too many.
    #[error("an artifact has 1 to {ARTIFACT_FILES_MAX} files, this one has {count}")]
    Count {
        /// How many.
        count: usize,
    },
    /// A path that could leave the artifact's folder or be read in two ways.
    #[error("the path '{path}' is not allowed: {offence}")]
    Path {
        /// The path, escaped and cut.
        path: String,
        /// What is wrong with it.
        offence: &'static str,
    },
    /// Files are not sorted, or a path stands twice.
    #[error("files must be sorted by path without repeats; '{path}' is out of order")]
    Order {
        /// The offending path.
        path: String,
    },
    /// A file is too large.
    #[error("'{path}' has {bytes} bytes; at most {ARTIFACT_FILE_BYTES_MAX} are allowed")]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// The number of chunk hashes does not fit the size.
    #[error("'{path}' of {bytes} bytes has {chunks} chunk hashes, {wanted} are needed")]
    Chunks {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
        /// Hashes given.
        chunks: usize,
        /// Hashes needed.
        wanted: u64,
    },
}

impl Manifest {
    /// Checks counts, paths, order and sizes.
    ///
    /// # Errors
    /// [`ManifestError`] names the file.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.files.is_empty() || self.files.len() > ARTIFACT_FILES_MAX {
            return Err(ManifestError::Count {
                count: self.files.len(),
            });
        }
        for (position, file) in self.files.iter().enumerate() {
            check_path(&file.path)?;
            if position > 0 && self.files[position - 1].path >= file.path {
                return Err(ManifestError::Order {
                    path: file.path.clone(),
                });
            }
            if file.bytes > ARTIFACT_FILE_BYTES_MAX {
                return Err(ManifestError::FileTooLarge {
                    path: file.path.clone(),
                    bytes: file.bytes,
                });
            }
            let wanted = file.bytes.div_ceil(ARTIFACT_CHUNK_BYTES as u64);
            if file.chunks.len() as u64 != wanted {
                return Err(ManifestError::Chunks {
                    path: file.path.clone(),
                    bytes: file.bytes,
                    chunks: file.chunks.len(),
                    wanted,
                });
            }
        }
        Ok(())
    }

    /// The canonical text that the digest is taken of: a first line with the format's number,
    /// then for each file its SHA-256, size and path, then a line for each chunk.
    pub fn canonical(&self) -> String {
        let mut text = String::from("paceline-manifest 1\n");
        for file in &self.files {
            text.push_str(&format!("{} {} {}\n", file.sha256, file.bytes, file.path));
            for chunk in &file.chunks {
                text.push_str(&format!(" {chunk}\n"));
            }
        }
        text
    }

    /// SHA-256 of [`Manifest::canonical`].
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.canonical().as_bytes()).into())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Refuses every path that is not a plain relative one in exactly one spelling.
fn check_path(path: &str) -> Result<(), ManifestError> {
    let offence = if path.is_empty() || path.len() > ARTIFACT_PATH_BYTES_MAX {
        "a path has 1 to 512 bytes"
    } else if !path.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        "only printable ASCII is allowed"
    } else if path.contains(['\\', ':', '%']) {
        "backslash, colon and percent sign are not allowed"
    } else if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        "empty, '.' and '..' parts are not allowed"
    } else if path
        .split('/')
        .any(|part| part.starts_with(' ') || part.ends_with([' ', '.']))
    {
        "a part must not begin or end with a space, nor end with a dot"
    } else {
        return Ok(());
    };
    let path = path
        .chars()
        .take(64)
        .flat_map(char::escape_default)
        .collect();
    Err(ManifestError::Path { path, offence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ManifestFile {
        let chunks = vec![Digest([2; 32])];
        ManifestFile {
            path: path.into(),
            bytes: 5,
            sha256: Digest([1; 32]),
            chunks,
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        let hostile = [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/",
            "a\\b",
            "C:x",
            "%2e%2e/x",
            "a\0b",
            "a\nb",
            "\u{2025}/x",
            "a./b",
            " a",
            &"x".repeat(513),
        ];
        for path in hostile {
            let manifest = Manifest {
                files: vec![file(path)],
            };
            assert!(
                matches!(manifest.check(), Err(ManifestError::Path { .. })),
                "{path:?}"
            );
        }
        let good = Manifest {
            files: vec![file("1/model.safetensors"), file("model.toml")],
        };
        assert_eq!(good.check(), Ok(()));
    }

    #[test]
    fn order_and_chunks_are_checked() {
        let unsorted = Manifest {
            files: vec![file("b"), file("a")],
        };
        assert_eq!(
            unsorted.check(),
            Err(ManifestError::Order { path: "a".into() })
        );
        let twice = Manifest {
            files: vec![file("a"), file("a")],
        };
        assert!(twice.check().is_err());
        let mut bare = file("a");
        bare.chunks.clear();
        assert!(matches!(
            Manifest { files: vec![bare] }.check(),
            Err(ManifestError::Chunks { wanted: 1, .. })
        ));
    }

    #[test]
    fn the_digest_is_pinned_by_an_example() {
        let manifest = Manifest {
            files: vec![file("model.toml")],
        };
        assert_eq!(
            manifest.canonical(),
            format!(
                "paceline-manifest 1\n{} 5 model.toml\n {}\n",
                "01".repeat(32),
                "02".repeat(32)
            )
        );
        let other = Manifest {
            files: vec![file("model.tomm")],
        };
        assert_ne!(manifest.digest(), other.digest());
    }
}
