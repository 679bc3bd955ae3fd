//! Who this node is: its cluster and its id, written once, when it founds the cluster or has
//! joined it.

pub mod authority;
pub mod credentials;
pub mod files;
pub mod trust;

use std::io;
use std::sync::Arc;

use paceline_protocol::{NodeId, Subject};
use serde::{Deserialize, Serialize};

use crate::storage::disk::{Disk, read_file};

/// Which node of which cluster a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster's random identity.
    pub cluster: u128,
    /// The node's id in it.
    pub node: NodeId,
}

/// Why the identity cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory holds something else.
    #[error("directory '{place}' holds '{found}' and no {FILE}: it is neither empty nor a node's")]
    Foreign {
        /// The directory.
        place: String,
        /// Something that lies in it.
        found: String,
    },
    /// The file is not readable.
    #[error("'{place}/{FILE}' is damaged: {cause}")]
    Damaged {
        /// The directory.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// A node began to join from here and did not finish.
    #[error(
        "'{place}' holds the key of a node that has not joined yet: \
         repeat `paceline join SEED --token T --data-dir {place}`, or choose another directory"
    )]
    Unfinished {
        /// The directory.
        place: String,
    },
    /// The node was removed from its cluster.
    #[error(
        "'{place}' is of node {node}, which was removed from its cluster for good: delete the \
         directory, and let a new node join with `paceline join SEED --token T`"
    )]
    Removed {
        /// The directory.
        place: String,
        /// Who it was.
        node: NodeId,
    },
    /// The disk, or the system's entropy.
    #[error("'{place}' cannot be used: {cause}")]
    Io {
        /// The directory.
        place: String,
        /// What the operating system says.
        cause: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u16,
    cluster: String,
    node: NodeId,
}

impl Identity {
    /// Reads the identity, or founds a cluster if the directory is empty.
    ///
    /// # Errors
    /// The directory belongs to something else, is damaged, or cannot be used.
    pub(crate) fn load_or_found(disk: &Arc<dyn Disk>) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(disk)? {
            return Ok(identity);
        }
        let place = disk.place();
        let names = disk.list();
        let is_key = |name: &String| name == files::KEY;
        match names.map(|names| names.iter().any(is_key)) {
            Ok(true) => Err(IdentityError::Unfinished { place }),
            Ok(false) => Self::found(disk).map_err(|cause| IdentityError::Io { place, cause }),
            Err(cause) => Err(IdentityError::Io { place, cause }),
        }
    }

    /// Reads the identity; there is none in a directory that holds nothing foreign.
    ///
    /// # Errors
    /// The directory belongs to something else, is damaged, or cannot be used.
    pub(crate) fn load(disk: &Arc<dyn Disk>) -> Result<Option<Self>, IdentityError> {
        let place = disk.place();
        let io = |cause: io::Error| IdentityError::Io {
            place: place.clone(),
            cause,
        };
        match read_file(disk, FILE, FILE_BYTES_MAX) {
            Ok(bytes) => {
                let identity = Self::parse(&place, &bytes)?;
                match disk.list().map_err(io)?.iter().any(|name| name == REMOVED) {
                    true => Err(IdentityError::Removed {
                        place,
                        node: identity.node,
                    }),
                    false => Ok(Some(identity)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let ours = |name: &str| OURS.contains(&name) || files::OURS.contains(&name);
                let foreign = disk
                    .list()
                    .map_err(io)?
                    .into_iter()
                    .find(|name| !ours(name.strip_suffix(".new").unwrap_or(name)));
                match foreign {
                    Some(found) => Err(IdentityError::Foreign { place, found }),
                    None => Ok(None),
                }
            }
            Err(error) => Err(io(error)),
        }
    }

    fn parse(place: &str, bytes: &[u8]) -> Result<Self, IdentityError> {
        let damaged = |cause: String| IdentityError::Damaged {
            place: place.to_owned(),
            cause,
        };
        let stored: Stored =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if stored.format != FORMAT {
            return Err(damaged(format!(
                "format {}; this release reads {FORMAT}",
                stored.format
            )));
        }
        let cluster = u128::from_str_radix(&stored.cluster, 16)
            .map_err(|error| damaged(format!("cluster: {error}")))?;
        Ok(Self {
            cluster,
            node: stored.node,
        })
    }

    fn found(disk: &Arc<dyn Disk>) -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let identity = Self {
            cluster: u128::from_le_bytes(bytes),
            node: NodeId::FOUNDER,
        };
        identity.store(disk)?;
        Ok(identity)
    }

    /// Writes the identity: from now on the directory is this node's.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn store(&self, disk: &Arc<dyn Disk>) -> io::Result<()> {
        let stored = Stored {
            format: FORMAT,
            cluster: format!("{:032x}", self.cluster),
            node: self.node,
        };
        replace(disk, FILE, &serde_json::to_vec_pretty(&stored)?)
    }

    /// As the node's certificate names it.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            node: self.node,
            cluster: self.cluster,
        }
    }
}

/// Notes that the directory's node was removed: no node is started with it any more.
///
/// # Errors
/// What the disk says.
pub(crate) fn note_removal(disk: &Arc<dyn Disk>) -> io::Result<()> {
    replace(disk, REMOVED, b"")
}

/// Writes a small file whole: it is there as before or as wanted, never in between.
///
/// # Errors
/// What the disk says.
pub(crate) fn replace(disk: &Arc<dyn Disk>, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.new");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(&temporary)?;
    file.write_at(0, content)?;
    file.sync_data()?;
    disk.rename(&temporary, name)?;
    disk.sync_dir()
}

const FILE: &str = "identity.json";
/// What is there once the node was removed.
pub(crate) const REMOVED: &str = "removed";
const FORMAT: u16 = 1;
const FILE_BYTES_MAX: u64 = 4 << 10;
/// What a start that was interrupted may have left before the identity was written.
const OURS: [&str; 8] = [
    "LOCK",
    "lock",
    FILE,
    "addresses.json",
    "peers.json",
    crate::config::KEPT,
    // Written by whoever started the node.
    "log",
    "log.1",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryDisk;

    #[test]
    fn an_identity_is_founded_once_and_survives() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let founded = Identity::load_or_found(&disk).unwrap();
        assert_eq!(founded.node, NodeId::FOUNDER);
        assert_eq!(Identity::load_or_found(&disk).unwrap(), founded);
    }

    #[test]
    fn what_belongs_to_something_else_is_refused_by_name() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        disk.create("holiday.jpg").unwrap();
        let error = Identity::load_or_found(&disk).unwrap_err().to_string();
        assert!(error.contains("holiday.jpg"), "{error}");
    }

    #[test]
    fn the_directory_of_a_node_that_was_removed_starts_none() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        Identity::load_or_found(&disk).unwrap();
        note_removal(&disk).unwrap();
        let error = Identity::load_or_found(&disk).unwrap_err().to_string();
        assert!(
            error.contains("node 1, which was removed") && error.contains("paceline join"),
            "{error}"
        );
    }

    #[test]
    fn damage_is_named() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        Identity::load_or_found(&disk).unwrap();
        disk.open(FILE).unwrap().write_at(0, b"x").unwrap();
        let error = Identity::load_or_found(&disk).unwrap_err().to_string();
        assert!(error.contains("identity.json' is damaged"), "{error}");
    }
}
