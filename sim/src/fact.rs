//! What is recorded of a run: the one stream that invariants and measurements are made from.

use paceline_core::{BucketId, Instant};
use paceline_protocol::registry::{Command, Outcome};
use paceline_protocol::traffic::Sequence;
use paceline_protocol::{Epoch, ReplicaId, VersionNumber};

use crate::agenda::{NodeIndex, Process};

/// A request, in order of arrival from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestNumber(pub(crate) u32);

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// It ran, and its answer came in time.
    Answered,
    /// The node had no permit left.
    Overloaded,
    /// Its tenant had sent as many as it may.
    Limited,
    /// The replica's queue was full.
    QueueFull,
    /// Its deadline passed.
    Expired,
    /// It could not be finished by its deadline any more.
    Late,
    /// Its client went away.
    Cancelled,
    /// The model had no ready replica.
    NotReady,
    /// Its client had seen more than any node that could be asked.
    Stale,
    /// Its replicas went away more often than it may be sent again.
    Gone,
    /// The engine failed.
    Failed,
    /// A node fell silent that may have run it.
    Unreachable,
    /// Two nodes fell silent that may have run it.
    Poison,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Fact<'a> {
    /// A client sent a request. Numbers have no gaps.
    Submitted {
        request: RequestNumber,
        deadline: Instant,
        /// Whether it must not run twice.
        is_once: bool,
        /// Who sent it: a client keeps the highest epoch that an answer has named.
        client: u16,
    },
    /// A client went away.
    HungUp { request: RequestNumber },
    /// A node let a request in.
    Admitted {
        request: RequestNumber,
        process: Process,
        /// Whether its client has lost another node that may have run it.
        is_second: bool,
        /// The node that has sent it on, if one has.
        via: Option<Process>,
    },
    /// A node tells a client that nothing of its request ran.
    Disclaimed {
        request: RequestNumber,
        process: Process,
    },
    /// A client was told how its request ended, decided at this epoch.
    Ended {
        request: RequestNumber,
        end: End,
        epoch: Epoch,
    },
    /// A node let go of a request that it had admitted.
    Left {
        request: RequestNumber,
        process: Process,
        via: Option<Process>,
    },
    /// A request comes to a node that knows of a canary with so many ten-thousandths of requests.
    Split {
        model: u16,
        /// The entry that began the canary.
        since: Epoch,
        weight: u16,
        is_canary: bool,
    },
    /// What became of a copy for a shadow. Copies are in no batch of these facts: no client has sent
    /// them.
    Copied(CopyEnd),
    /// A request of a sequence is sent to a replica.
    Sequenced {
        sequence: Sequence,
        replica: ReplicaId,
    },
    /// A request whose replica went away unexecuted was sent to another one.
    SentAgain,
    /// A request whose node fell silent was sent to another one.
    FailedOver,
    /// A router leaves a replica out, since it fails.
    Ejected,
    /// A machine named a request that its node does not hold (any more).
    Stray { node: NodeIndex },
    /// A queue after a request came to it.
    Queued(Queue),
    /// A node takes a dispatch.
    Taken { node: NodeIndex },
    /// A node has drained, since this epoch: it takes nothing more.
    Closed { node: NodeIndex, since: Epoch },
    /// A node takes dispatches again.
    Opened { node: NodeIndex },
    /// A batch begins to run.
    Ran(Batch<'a>),
    /// An event has been dealt with.
    Settled { process: Process, holds: Holdings },
    /// A process has ended; what it held is gone.
    Died { process: Process },
    /// The registry took a command.
    Applied {
        epoch: Epoch,
        command: &'a Command,
        outcome: &'a Outcome,
    },
    /// A process begins to load a replica.
    Loading {
        process: Process,
        replica: ReplicaId,
    },
    /// The engine of a replica has died, or could not be loaded.
    Failed {
        process: Process,
        replica: ReplicaId,
    },
    /// A replica will not be loaded again.
    GivenUp {
        process: Process,
        replica: ReplicaId,
    },
    /// A process has heard that a replica was taken away from it.
    Unloaded {
        process: Process,
        replica: ReplicaId,
    },
    /// A replica has become ready on a process.
    Loaded {
        process: Process,
        replica: ReplicaId,
    },
    /// A node has applied the log up to here.
    Followed { node: NodeIndex, index: u64 },
}

/// What becomes of a copy: it is sent, then answered or failed, or it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyEnd {
    Sent,
    Answered,
    Failed,
    Dropped,
}

/// A queue of a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) rows: u64,
    pub(crate) requests: usize,
    /// What the queue itself says that it may hold.
    pub(crate) rows_max: u64,
}

/// A batch as the engine sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    /// The model and version of the replica that runs it.
    pub(crate) version: (u16, VersionNumber),
    pub(crate) members: &'a [Member],
    /// Rows, as the device counts them.
    pub(crate) rows: u32,
    pub(crate) rows_max: u32,
    /// 0 is any number.
    pub(crate) tokens_max: u32,
    /// How long it will take.
    pub(crate) nanos: u64,
}

/// A request in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) request: RequestNumber,
    /// The node that it came to.
    pub(crate) door: Process,
    /// When its answer is worthless.
    pub(crate) deadline: Instant,
    /// Whether its caller still waits for it.
    pub(crate) is_wanted: bool,
    /// The model and version that the request is pinned to.
    pub(crate) version: (u16, VersionNumber),
    pub(crate) bucket: BucketId,
    pub(crate) rows: u32,
    pub(crate) tokens: u32,
    pub(crate) is_alone: bool,
}

/// What a node holds between two events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    /// Requests that admission counts.
    pub(crate) in_flight: u32,
    pub(crate) permits: u32,
    /// Dispatches that it has taken and not ended.
    pub(crate) served: usize,
    /// Requests in the queues of all replicas.
    pub(crate) queued: usize,
    /// Requests in batches that are staged or run.
    pub(crate) in_lanes: usize,
    /// Failovers that are under way.
    pub(crate) failovers: u32,
    /// Whether a lane of its device has nothing to do, and none is about to look for something.
    pub(crate) is_idle: bool,
    /// Rows that its router counts as under way, when the node has no request in flight.
    pub(crate) forgotten_rows: u64,
}
