//! The types that openraft is used with.

use openraft::EmptyNode;
use paceline_protocol::registry::{Command, Outcome};

openraft::declare_raft_types!(
    /// Commands of the registry. Members carry no address: where a node is reached is the
    /// transport's knowledge, and changing it must not touch membership.
    pub(crate) TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = EmptyNode,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Members = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembers = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// The bytes of a snapshot, shared between its readers.
pub(crate) type SnapshotBytes = bytes::Bytes;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotBytes>;
pub(crate) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;
