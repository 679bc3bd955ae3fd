//! What entries, vote, positions, membership and snapshots look like on disk and on the wire.
//!
//! Layouts of our own, never the library's: a little-endian `u16` schema number, then the value
//! as `paceline_protocol::wire` writes it. A schema that this release does not know is refused.

use std::collections::BTreeSet;

use openraft::{EmptyNode, EntryPayload};
use paceline_core::registry::Registry;
use paceline_protocol::limits::{REGISTRY_ENTRY_BYTES_MAX, REGISTRY_SNAPSHOT_BYTES_MAX};
use paceline_protocol::registry::Command;
use paceline_protocol::wire::{self, WireError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::type_config::{Entry, LogId, Members, SnapshotMeta, StoredMembers, Vote};

/// Why something could not be written to disk or read from it.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// The value is malformed or over its limit.
    #[error("{what}: {cause}")]
    Wire {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        cause: WireError,
    },
    /// Another release wrote it.
    #[error(
        "{what} has schema {found}, this release reads {supported}; start the release that wrote it"
    )]
    Schema {
        /// What it is.
        what: &'static str,
        /// Its schema number.
        found: u16,
        /// The one that is known.
        supported: u16,
    },
    /// There is no schema number.
    #[error("{what} is empty")]
    Empty {
        /// What it should be.
        what: &'static str,
    },
    /// A membership that cannot be.
    #[error("membership: {reason}")]
    Membership {
        /// What is wrong.
        reason: String,
    },
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, EncodingError> {
    encode(ENTRY, &StoredEntry::from(entry))
}

pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry, EncodingError> {
    decode::<StoredEntry>(ENTRY, bytes)?.restored()
}

pub(crate) fn encode_vote(vote: &Vote) -> Result<Vec<u8>, EncodingError> {
    encode(VOTE, &StoredVote::from(vote))
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, EncodingError> {
    Ok(decode::<StoredVote>(VOTE, bytes)?.into())
}

pub(crate) fn encode_position(position: Option<&LogId>) -> Result<Vec<u8>, EncodingError> {
    encode(POSITION, &position.map(StoredLogId::from))
}

pub(crate) fn decode_position(bytes: &[u8]) -> Result<Option<LogId>, EncodingError> {
    Ok(decode::<Option<StoredLogId>>(POSITION, bytes)?.map(LogId::from))
}

pub(crate) fn encode_meta(meta: &SnapshotMeta) -> Result<Vec<u8>, EncodingError> {
    encode(META, &StoredMeta::from(meta))
}

pub(crate) fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, EncodingError> {
    decode::<StoredMeta>(META, bytes)?.restored()
}

pub(crate) fn encode_registry(registry: &Registry) -> Result<Vec<u8>, EncodingError> {
    encode(REGISTRY, registry)
}

pub(crate) fn decode_registry(bytes: &[u8]) -> Result<Registry, EncodingError> {
    decode(REGISTRY, bytes)
}

/// Bytes of a command alone, before anything is done with it.
pub(crate) fn command_bytes(command: &Command) -> Result<usize, EncodingError> {
    let what = ENTRY.what;
    let encoded = wire::encode(command).map_err(|cause| EncodingError::Wire { what, cause })?;
    Ok(encoded.len())
}

/// One kind of value on disk.
#[derive(Clone, Copy)]
struct Layout {
    what: &'static str,
    schema: u16,
    bytes_max: usize,
}

// Entries may exceed their command by log id and schema number.
const ENTRY: Layout = Layout {
    what: "log entry",
    schema: 3,
    bytes_max: REGISTRY_ENTRY_BYTES_MAX + 64,
};
const VOTE: Layout = Layout {
    what: "vote",
    schema: 1,
    bytes_max: 64,
};
const POSITION: Layout = Layout {
    what: "log position",
    schema: 1,
    bytes_max: 64,
};
// 64 members take ten bytes each at most, in three lists.
const META: Layout = Layout {
    what: "snapshot meta",
    schema: 1,
    bytes_max: 4096,
};
const REGISTRY: Layout = Layout {
    what: "registry",
    schema: 4,
    bytes_max: REGISTRY_SNAPSHOT_BYTES_MAX,
};

fn encode<T: Serialize>(layout: Layout, value: &T) -> Result<Vec<u8>, EncodingError> {
    let Layout {
        what,
        schema,
        bytes_max,
    } = layout;
    let encoded = wire::encode(value).map_err(|cause| EncodingError::Wire { what, cause })?;
    if encoded.len() > bytes_max {
        let cause = WireError::TooLarge {
            bytes: encoded.len(),
            limit: bytes_max,
        };
        return Err(EncodingError::Wire { what, cause });
    }
    let mut bytes = schema.to_le_bytes().to_vec();
    bytes.extend_from_slice(&encoded);
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(layout: Layout, bytes: &[u8]) -> Result<T, EncodingError> {
    let Layout {
        what,
        schema: supported,
        bytes_max,
    } = layout;
    let Some((schema, value)) = bytes.split_first_chunk::<2>() else {
        return Err(EncodingError::Empty { what });
    };
    let found = u16::from_le_bytes(*schema);
    if found != supported {
        return Err(EncodingError::Schema {
            what,
            found,
            supported,
        });
    }
    wire::decode(value, bytes_max).map_err(|cause| EncodingError::Wire { what, cause })
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct StoredLogId {
    term: u64,
    leader: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredEntry {
    log_id: StoredLogId,
    payload: StoredPayload,
}

#[derive(Serialize, Deserialize)]
pub(super) enum StoredPayload {
    Blank,
    Command(Box<Command>),
    Membership(StoredMembership),
}

/// Sets of voters (two while they change) and all members, voters or not.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredMembership {
    voters: Vec<BTreeSet<u64>>,
    members: BTreeSet<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredVote {
    term: u64,
    node: u64,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredMeta {
    last: Option<StoredLogId>,
    members_at: Option<StoredLogId>,
    members: StoredMembership,
}

impl From<&LogId> for StoredLogId {
    fn from(id: &LogId) -> Self {
        Self {
            term: id.leader_id.term,
            leader: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<StoredLogId> for LogId {
    fn from(stored: StoredLogId) -> Self {
        let StoredLogId {
            term,
            leader: node_id,
            index,
        } = stored;
        let leader_id = openraft::impls::leader_id_adv::LeaderId { term, node_id };
        Self { leader_id, index }
    }
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        let Vote {
            leader_id,
            committed,
        } = *vote;
        Self {
            term: leader_id.term,
            node: leader_id.node_id,
            committed,
        }
    }
}

impl From<StoredVote> for Vote {
    fn from(stored: StoredVote) -> Self {
        let StoredVote {
            term,
            node,
            committed,
        } = stored;
        if committed {
            Self::new_committed(term, node)
        } else {
            Self::new(term, node)
        }
    }
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => StoredPayload::Blank,
            EntryPayload::Normal(command) => StoredPayload::Command(Box::new(command.clone())),
            EntryPayload::Membership(members) => StoredPayload::Membership(members.into()),
        };
        Self {
            log_id: (&entry.log_id).into(),
            payload,
        }
    }
}

impl StoredEntry {
    pub(super) fn restored(self) -> Result<Entry, EncodingError> {
        let payload = match self.payload {
            StoredPayload::Blank => EntryPayload::Blank,
            StoredPayload::Command(command) => EntryPayload::Normal(*command),
            StoredPayload::Membership(members) => EntryPayload::Membership(members.restored()?),
        };
        Ok(Entry {
            log_id: self.log_id.into(),
            payload,
        })
    }
}

impl From<&SnapshotMeta> for StoredMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        let members_at = meta.last_membership.log_id();
        Self {
            last: meta.last_log_id.as_ref().map(StoredLogId::from),
            members_at: members_at.as_ref().map(StoredLogId::from),
            members: meta.last_membership.membership().into(),
        }
    }
}

impl StoredMeta {
    pub(super) fn restored(self) -> Result<SnapshotMeta, EncodingError> {
        let members_at = self.members_at.map(LogId::from);
        let last_membership = StoredMembers::new(members_at, self.members.restored()?);
        Ok(SnapshotMeta {
            last_log_id: self.last.map(LogId::from),
            last_membership,
        })
    }
}

impl From<&Members> for StoredMembership {
    fn from(members: &Members) -> Self {
        Self {
            voters: members.get_joint_config().clone(),
            members: members.nodes().map(|(id, _)| *id).collect(),
        }
    }
}

impl StoredMembership {
    fn restored(self) -> Result<Members, EncodingError> {
        if self.voters.is_empty() {
            return Ok(Members::default());
        }
        let nodes = self.members.into_iter().map(|id| (id, EmptyNode::new()));
        Members::new(
            self.voters,
            nodes.collect::<std::collections::BTreeMap<_, _>>(),
        )
        .map_err(|error| EncodingError::Membership {
            reason: error.to_string(),
        })
    }
}
