//! What processes say to each other, and clients to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::failover::{self, Attempt};
use paceline_core::placement::ReplicaState;
use paceline_core::router::Report;
use paceline_core::{BucketId, Instant, Slot};
use paceline_protocol::registry::Command;
use paceline_protocol::report::CanaryReport;
use paceline_protocol::tenant::Demand;
use paceline_protocol::{Criticality, Epoch, NodeId, OpId, ReplicaId, TenantId, VersionNumber};

use crate::agenda::Process;
use crate::fact::RequestNumber;
use crate::world::{Request, Word};

/// A message between two processes.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client sends a request, or a node that is behind what its client has seen sends it on.
    Request(Request),
    /// What became of one that was sent on.
    Relayed(Word),
    /// The client of one that was sent on has gone.
    HangUp(Request),
    /// A router has picked a replica here for a request.
    Dispatch(Dispatch),
    /// The request of a dispatch is not wanted any more.
    Cancel(Flight),
    /// What became of a dispatch.
    Landed(Flight, Landing),
    /// What a peer's replicas are like now.
    Told(Process, Arc<Told>),
    /// What a node has answered while a canary is under way.
    Counted(NodeId, Box<CanaryReport>),
    /// The leader is asked to have a command written.
    Propose(Process, Box<Command>),
    /// What became of a command that this process has proposed.
    Outcome(OpId, bool),
    /// The log is committed up to here.
    Committed(u64),
}

/// One attempt of a request, as the process knows it that the request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) from: Process,
    pub(crate) slot: Slot,
    pub(crate) attempt: Attempt,
    /// Whether it is a copy for a shadow, with a slot among those.
    pub(crate) is_copy: bool,
}

/// A request on its way to a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispatch {
    pub(crate) flight: Flight,
    pub(crate) request: RequestNumber,
    pub(crate) replica: ReplicaId,
    pub(crate) version: (u16, VersionNumber),
    pub(crate) deadline: Instant,
    pub(crate) rows: u32,
    pub(crate) tokens: u64,
    pub(crate) bytes: u64,
    pub(crate) bucket: BucketId,
    pub(crate) criticality: Criticality,
    pub(crate) tenant: TenantId,
    pub(crate) is_alone: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Landing {
    /// It ran, after it had waited so many nanoseconds for its batch.
    Answered(Report, u64),
    /// It did not, or failed.
    Missed(failover::End),
    /// Its replica is gone, says a node that has applied this.
    Gone(Epoch),
}

/// What a node says of itself, as far as peers decide by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Rises with what the node says.
    pub(crate) number: u64,
    pub(crate) replicas: BTreeMap<ReplicaId, ReplicaState>,
    /// What tenants with limits asked of it in its last second.
    pub(crate) demands: Vec<(TenantId, Demand)>,
}
