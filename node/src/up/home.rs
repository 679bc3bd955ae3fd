//! The directory of a local cluster: whose it is, who uses it, and what lies where.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline_core::up::Past;
use serde::{Deserialize, Serialize};

use crate::identity::{REMOVED, replace};
use crate::storage::disk::{DirectoryLock, Disk, read_file};
use crate::storage::{LockError, RealDisk};

/// A directory that belongs to this process and holds a local cluster.
pub(crate) struct Home {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    nodes: usize,
    _lock: DirectoryLock,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// It holds something else.
    #[error(
        "directory '{place}' holds '{found}' and no {MARK}: it is neither empty nor a local cluster's; \
         choose another one with --data-dir"
    )]
    Foreign { place: String, found: String },
    /// Another process has it.
    #[error(
        "directory '{place}' is in use by another `paceline up`; stop it, or choose another one with --data-dir"
    )]
    InUse { place: String },
    /// It has more nodes than are asked for.
    #[error(
        "directory '{place}' holds {has} nodes, and --nodes {wanted} would leave some of them dead; \
         allowed: {has} or more"
    )]
    Fewer {
        place: String,
        has: usize,
        wanted: usize,
    },
    /// Its mark cannot be read.
    #[error("'{place}/{MARK}' is damaged: {cause}")]
    Damaged { place: String, cause: String },
    /// The disk.
    #[error("directory '{place}' cannot be used: {cause}")]
    Io { place: String, cause: io::Error },
}

/// What makes a directory ours.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    format: u16,
    nodes: usize,
}

impl Home {
    /// Takes a directory for `nodes` nodes, or for as many as it has.
    ///
    /// # Errors
    /// It is somebody else's, in use, or holds more nodes.
    pub(crate) fn claim(path: &Path, nodes: Option<usize>) -> Result<Self, HomeError> {
        let place = path.display().to_string();
        let io = |cause| HomeError::Io {
            place: place.clone(),
            cause,
        };
        // Looked at before anything is written: a directory of somebody else stays as it is.
        if let Some(found) = foreign(path).map_err(io)? {
            return Err(HomeError::Foreign { place, found });
        }
        // Children have directories of their own to work in, so the path has to be whole.
        let path = std::path::absolute(path).map_err(io)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&path).map_err(io)?);
        let lock = disk.lock().map_err(|error| match error {
            LockError::InUse { .. } => HomeError::InUse {
                place: place.clone(),
            },
            LockError::Io { cause, .. } => io(cause),
        })?;
        let has = read_mark(&disk, &place)?;
        let nodes = match (nodes, has) {
            (Some(wanted), Some(has)) if wanted < has => {
                return Err(HomeError::Fewer { place, has, wanted });
            }
            (Some(wanted), _) => wanted,
            (None, has) => has.unwrap_or(NODES_DEFAULT),
        };
        if has != Some(nodes) {
            let mark = Mark {
                format: FORMAT,
                nodes,
            };
            let json = serde_json::to_vec_pretty(&mark).map_err(|error| io(error.into()))?;
            replace(&disk, MARK, &json).map_err(io)?;
        }
        Ok(Self {
            path,
            disk,
            nodes,
            _lock: lock,
        })
    }

    /// How many nodes it is for.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a node keeps its data.
    pub(crate) fn node(&self, node: usize) -> PathBuf {
        self.path.join(name(node))
    }

    /// What a node was before.
    pub(crate) fn past(&self, node: usize) -> Past {
        past(&self.node(node))
    }

    /// Writes a small file of its own, whole.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        replace(&self.disk, file, content)
    }
}

/// The name of a node, counted from 0.
pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

/// What the node with this directory was before.
pub(crate) fn past(data: &Path) -> Past {
    if data.join(REMOVED).exists() {
        Past::Removed
    } else if data.join("identity.json").exists() {
        Past::Member
    } else {
        Past::New
    }
}

/// Something that lies in a directory which is neither empty nor ours.
fn foreign(path: &Path) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(entries) => {
            for entry in entries {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    if names.iter().any(|name| name == MARK) {
        return Ok(None);
    }
    Ok(names
        .into_iter()
        .find(|name| !EARLY.contains(&name.as_str())))
}

fn read_mark(disk: &Arc<dyn Disk>, place: &str) -> Result<Option<usize>, HomeError> {
    let damaged = |cause: String| HomeError::Damaged {
        place: place.to_owned(),
        cause,
    };
    let bytes = match read_file(disk, MARK, MARK_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => {
            let place = place.to_owned();
            return Err(HomeError::Io { place, cause });
        }
    };
    let mark: Mark = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if mark.format != FORMAT {
        let format = mark.format;
        return Err(damaged(format!(
            "format {format}; this release reads {FORMAT}"
        )));
    }
    Ok(Some(mark.nodes.max(1)))
}

const MARK: &str = "up.json";
const FORMAT: u16 = 1;
const MARK_BYTES_MAX: u64 = 4 << 10;
/// What a start that was interrupted may have left before the mark was written.
const EARLY: [&str; 2] = ["LOCK", "up.json.new"];
/// Nodes of a new cluster: the fewest of which one may be lost.
const NODES_DEFAULT: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once_at_a_time_and_remembers_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster");
        let home = Home::claim(&path, Some(2)).unwrap();
        assert_eq!(home.node(1), path.join("n1"));
        let refused = Home::claim(&path, None).err().unwrap().to_string();
        let name = path.display().to_string();
        assert!(
            refused.contains(&name) && refused.contains("in use"),
            "{refused}"
        );
        drop(home);
        let home = Home::claim(&path, None).unwrap();
        assert_eq!(home.nodes(), 2);
        assert_eq!(home.past(0), Past::New);
        fs::create_dir(home.node(0)).unwrap();
        fs::write(home.node(0).join("identity.json"), "").unwrap();
        assert_eq!(home.past(0), Past::Member);
        fs::write(home.node(0).join(REMOVED), "").unwrap();
        assert_eq!(home.past(0), Past::Removed);
        drop(home);
        assert_eq!(Home::claim(&path, Some(5)).unwrap().nodes(), 5);
        let refused = Home::claim(&path, Some(3)).err().unwrap().to_string();
        assert!(refused.contains("holds 5 nodes"), "{refused}");
        let fresh = Home::claim(&folder.path().join("other"), None).unwrap();
        assert_eq!(fresh.nodes(), 3);
    }

    #[test]
    fn what_is_neither_empty_nor_ours_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("holidays")).unwrap();
        let refused = Home::claim(folder.path(), None).err().unwrap().to_string();
        assert!(refused.contains("'holidays'"), "{refused}");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing was written: {left:?}");
        fs::remove_dir(folder.path().join("holidays")).unwrap();
        fs::write(folder.path().join("LOCK"), "").unwrap();
        drop(Home::claim(folder.path(), None).unwrap());
        fs::write(folder.path().join(MARK), "{").unwrap();
        let refused = Home::claim(folder.path(), None).err().unwrap().to_string();
        assert!(refused.contains("damaged"), "{refused}");
    }
}
