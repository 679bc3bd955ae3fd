//! What nodes say to each other about consensus: requests and answers of `Plane::Raft`.
//!
//! One request and one answer a stream: a little-endian `u32` length, then a `u16` schema
//! number and the value as `paceline_protocol::wire` writes it. Layouts of our own, as on disk.
//! A snapshot's bytes follow its request on the same stream.

use std::io;

use openraft::alias::VoteOf;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use paceline_protocol::limits::{REGISTRY_ENTRY_BYTES_MAX, REGISTRY_SNAPSHOT_BYTES_MAX};
use paceline_protocol::registry::{Command, Outcome};
use serde::{Deserialize, Serialize};

use super::encoding::{StoredEntry, StoredLogId, StoredMeta, StoredVote};
use super::type_config::{LogId, TypeConfig, Vote};
use crate::transport::message::Dialect;

/// What a node asks of a peer. Variants are only ever appended.
#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append {
        vote: StoredVote,
        previous: Option<StoredLogId>,
        entries: Vec<StoredEntry>,
        committed: Option<StoredLogId>,
    },
    Vote(Ballot),
    PreVote(Ballot),
    Transfer {
        from: StoredVote,
        to: u64,
        last: Option<StoredLogId>,
    },
    /// So many bytes of a snapshot follow.
    Snapshot {
        vote: StoredVote,
        meta: StoredMeta,
        bytes: u64,
    },
    /// Write this, if you lead, within so many milliseconds; if you only know who leads and
    /// shall relay it, have it written there.
    Forward {
        command: Command,
        budget_ms: u64,
        relay: bool,
    },
    /// What was committed up to now, if you lead.
    ReadIndex,
    /// The key that signs nodes, for a voter.
    AuthorityKey,
    /// Let this voter lead, if you do.
    Yield {
        to: u64,
    },
    /// Give this one's vote to a learner, if you lead and one can take it.
    Relieve {
        voter: u64,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Ballot {
    vote: StoredVote,
    last: Option<StoredLogId>,
    transfer: bool,
}

/// What the peer answers. Variants are only ever appended.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Append(Appended),
    Vote {
        vote: StoredVote,
        granted: bool,
        last: Option<StoredLogId>,
    },
    /// Whether leadership may be taken over.
    Transfer {
        accepted: bool,
    },
    Snapshot {
        vote: StoredVote,
    },
    Forward(Forwarded),
    ReadIndex(Result<u64, Elsewhere>),
    /// The peer could not do it.
    Failed {
        reason: String,
    },
    /// In PEM.
    AuthorityKey(String),
    /// The peer no longer leads, or never did.
    Yielded,
    /// A learner has the vote, or there is none that could.
    Relieved,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Appended {
    Success,
    Partial(Option<StoredLogId>),
    Conflict,
    HigherVote(StoredVote),
}

/// What became of a forwarded command.
#[derive(Serialize, Deserialize)]
pub(super) enum Forwarded {
    /// It was applied.
    Done(Outcome),
    /// Nothing was done: the peer does not lead.
    Elsewhere(Elsewhere),
    /// Nothing was done: the peer works on as many writes as it takes.
    Overloaded,
    /// It may be done or not.
    Unknown,
}

/// The peer does not lead; perhaps it knows who does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) leader: Option<u64>,
}

impl Request {
    pub(super) fn append(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self::Append {
            vote: (&request.vote).into(),
            previous: request.prev_log_id.as_ref().map(StoredLogId::from),
            entries: request.entries.iter().map(StoredEntry::from).collect(),
            committed: request.leader_commit.as_ref().map(StoredLogId::from),
        }
    }

    pub(super) fn transfer(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self::Transfer {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(StoredLogId::from),
        }
    }
}

impl Ballot {
    pub(super) fn of(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: (&request.vote).into(),
            last: request.last_log_id.as_ref().map(StoredLogId::from),
            transfer: request.leadership_transfer,
        }
    }

    pub(super) fn restored(self) -> VoteRequest<TypeConfig> {
        let mut request = VoteRequest::new(self.vote.into(), self.last.map(LogId::from));
        request.leadership_transfer = self.transfer;
        request
    }
}

impl Answer {
    pub(super) fn voted(answer: &VoteResponse<TypeConfig>) -> Self {
        Self::Vote {
            vote: (&answer.vote).into(),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(StoredLogId::from),
        }
    }

    pub(super) fn failed(reason: impl ToString) -> Self {
        Self::Failed {
            reason: reason.to_string(),
        }
    }
}

impl From<AppendEntriesResponse<TypeConfig>> for Appended {
    fn from(answer: AppendEntriesResponse<TypeConfig>) -> Self {
        match answer {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(last) => {
                Self::Partial(last.as_ref().map(StoredLogId::from))
            }
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote((&vote).into()),
        }
    }
}

impl From<Appended> for AppendEntriesResponse<TypeConfig> {
    fn from(answer: Appended) -> Self {
        match answer {
            Appended::Success => Self::Success,
            Appended::Partial(last) => Self::PartialSuccess(last.map(LogId::from)),
            Appended::Conflict => Self::Conflict,
            Appended::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

/// Who stands behind a vote: what a peer says of itself must be its own.
pub(super) fn author(vote: &VoteOf<TypeConfig>) -> u64 {
    let Vote { leader_id, .. } = vote;
    leader_id.node_id
}

/// The length of a snapshot behind its request, within what is read.
pub(super) fn snapshot_length(length: u64) -> io::Result<usize> {
    let known = usize::try_from(length).ok();
    known
        .filter(|length| *length <= SNAPSHOT_BYTES_MAX)
        .ok_or_else(|| {
            let reason =
                format!("a snapshot of {length} bytes; at most {SNAPSHOT_BYTES_MAX} are read");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })
}

pub(super) const DIALECT: Dialect = Dialect {
    what: "consensus",
    schema: 1,
    bytes_max: MESSAGE_BYTES_MAX,
};
/// Entries of one append: few enough that the largest ones fit into a message.
pub(super) const APPEND_ENTRIES_MAX: u64 = 64;
/// An append of the largest entries, with room for what stands around them.
pub(super) const MESSAGE_BYTES_MAX: usize =
    APPEND_ENTRIES_MAX as usize * (REGISTRY_ENTRY_BYTES_MAX + 128);

/// The schema number stands before the encoded registry.
pub(super) const SNAPSHOT_BYTES_MAX: usize = REGISTRY_SNAPSHOT_BYTES_MAX + 2;

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Request> {
        DIALECT.receive(&mut &*bytes).await
    }

    #[tokio::test]
    async fn hostile_bytes_are_refused_before_anything_is_taken() {
        let mut good = Vec::new();
        DIALECT.send(&mut good, &Request::ReadIndex).await.unwrap();
        assert!(matches!(read(&good).await, Ok(Request::ReadIndex)));
        let with_length = |length: u32| {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            bytes
        };
        for length in [0, 1, u32::MAX, MESSAGE_BYTES_MAX as u32 + 1] {
            let refused = read(&with_length(length)).await.map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        // A length that is allowed and not delivered.
        assert!(read(&with_length(MESSAGE_BYTES_MAX as u32)).await.is_err());
        let mut later = good.clone();
        later[4] = 9;
        let refused = read(&later).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("schema 9"), "{refused}");
        let mut chance = paceline_core::Random::from_seed(5);
        for _ in 0..20_000 {
            let length = chance.below(64) as usize;
            let mut bytes = (length as u32 + 2).to_le_bytes().to_vec();
            bytes.extend_from_slice(&DIALECT.schema.to_le_bytes());
            bytes.extend((0..length).map(|_| chance.next_u64() as u8));
            // Whatever it says, it ends in a value or an error.
            let _ = read(&bytes).await;
        }
    }
}
