//! A request as it travels between a client and the nodes.

use paceline_core::router::InSequence;
use paceline_core::{BucketId, Instant};
use paceline_protocol::traffic::{self, Sequence};
use paceline_protocol::{Criticality, Epoch};

use crate::agenda::{NodeIndex, Process};
use crate::fact::RequestNumber;

/// A request as its client sends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) number: RequestNumber,
    /// The clients that it comes from.
    pub(crate) group: u16,
    pub(crate) model: u16,
    pub(crate) deadline: Instant,
    pub(crate) rows: u32,
    /// That go in, and that are asked for.
    pub(crate) tokens: u64,
    pub(crate) bytes: u64,
    pub(crate) bucket: BucketId,
    pub(crate) criticality: Criticality,
    /// Which of the scenario's tenants sends it, if one does.
    pub(crate) tenant: Option<u16>,
    /// Whether it must not run twice.
    pub(crate) is_once: bool,
    /// The sequence that it belongs to, if it does.
    pub(crate) sequence: Option<Sequence>,
    /// The node that its client has lost, and that may have run it.
    pub(crate) lost: Option<NodeIndex>,
    /// The highest epoch that the client has seen.
    pub(crate) seen: Epoch,
    /// The node that has sent it on, since it was behind that.
    pub(crate) via: Option<Process>,
}

impl Request {
    /// Its sequence as routers mind it.
    pub(crate) fn in_sequence(&self) -> Option<InSequence> {
        let sequence = self.sequence?;
        let rows = self.rows;
        Some(InSequence { sequence, rows })
    }

    /// Its bucket: that of its sequence, or its own.
    pub(crate) fn bucket_under(&self, salt: &str) -> u16 {
        match self.sequence {
            Some(sequence) => traffic::bucket(salt, &sequence.0.to_le_bytes()),
            None => traffic::bucket(salt, &self.number.0.to_le_bytes()),
        }
    }
}
