//! What frames say.

use serde::{Deserialize, Serialize};

use crate::criticality::Criticality;
use crate::error::Failure;
use crate::id::{Epoch, ModelName, NodeId, ReplicaId, TenantId, VersionNumber};
use crate::label::VersionRef;
use crate::reading::Reading;
use crate::traffic::Unit;

/// What a frame says. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Run this request.
    Infer(Infer),
    /// The request ran; its outputs follow.
    Answer {
        /// The version that ran.
        version: VersionNumber,
        /// The epoch that the request was pinned at.
        epoch: Epoch,
        /// How the replica is doing.
        load: LoadReport,
        /// How long the request waited for its batch, in microseconds.
        waited_us: u32,
    },
    /// The request ended otherwise.
    Failed {
        /// How.
        failure: Failure,
        /// Whether any of it was executed.
        execution: Execution,
        /// How the replica is doing.
        load: LoadReport,
    },
    /// The replica is not here (any more), or its node has left: nothing was executed.
    Gone {
        /// The epoch of the node that says so.
        epoch: Epoch,
    },
    /// The caller has gone away.
    Cancel,
    /// A client's request; its inputs follow in the order of their names.
    ClientInfer(ClientInfer),
    /// A client's request ran; its outputs follow in the order of their names.
    ClientAnswer {
        /// The version that ran.
        version: VersionNumber,
        /// The epoch that the request was pinned at.
        epoch: Epoch,
        /// Names of the outputs.
        outputs: Vec<String>,
        /// For how many seconds the node has been without contact to a quorum, if it has none.
        stale_seconds: Option<u32>,
    },
    /// Rows of the answer to a client's request that wants it in parts, in the order of rows; their
    /// outputs follow in the order of their names.
    ClientPart {
        /// The request's row that the first of these answers.
        first_row: u64,
        /// The version that ran.
        version: VersionNumber,
        /// The epoch that the request was pinned at.
        epoch: Epoch,
        /// Names of the outputs.
        outputs: Vec<String>,
        /// For how many seconds the node has been without contact to a quorum, if it has none.
        stale_seconds: Option<u32>,
    },
    /// All parts were sent.
    ClientEnd {
        /// Rows that they answer together.
        rows: u64,
    },
    /// Run this request, but read it so.
    Read {
        /// How.
        reading: Reading,
        /// What is asked.
        infer: Infer,
    },
}

/// A request as a router sends it to a replica; its inputs follow in the signature's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infer {
    /// The model that the client addressed.
    pub model: ModelName,
    /// The version that the request is pinned to.
    pub version: VersionNumber,
    /// The replica that shall run it.
    pub replica: ReplicaId,
    /// The epoch of the decision.
    pub epoch: Epoch,
    /// What is left of the budget, in microseconds.
    pub budget_us: u64,
    /// Which execution this would be, from 1. A second one shares its batch with nobody: it
    /// may be what silenced the node of the first. 0 is a copy for a shadow, which nobody
    /// waits for, nor a node that stops.
    pub attempt: u8,
    /// How much it matters.
    pub criticality: Criticality,
    /// Who sends it.
    pub tenant: TenantId,
}

/// A request as a client makes it: by names, before anything is known about versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfer {
    /// The model.
    pub model: ModelName,
    /// The version, if it must be this one.
    pub version: Option<VersionRef>,
    /// What is left of the budget, in microseconds.
    pub budget_us: u64,
    /// Which attempt this is, from 1. A second one follows one whose node was lost, and is
    /// executed once at most.
    pub attempt: u8,
    /// The highest epoch that the client has seen.
    pub epoch_seen: Epoch,
    /// Whether it may be executed more than once.
    pub idempotent: bool,
    /// Names of the tensors that follow.
    pub inputs: Vec<String>,
    /// Outputs that are wanted; all of them if it names none.
    pub outputs: Vec<String>,
    /// The node that an attempt before this one was lost with: others may not have noticed yet
    /// that it is silent.
    pub lost: Option<NodeId>,
    /// How much it matters.
    pub criticality: Criticality,
    /// Who sends it. What a client says here is not believed: the node that has seen its key fills
    /// it in, for peers that it sends the request on to.
    pub tenant: TenantId,
    /// What it belongs to that shall always get the same version; if it says nothing, its sequence.
    pub unit: Option<Unit>,
    /// The sequence that it belongs to: its requests go to one replica, and none is executed twice.
    pub sequence: Option<Unit>,
    /// Whether its answer shall come in parts. Such a request has a stream of its own, and its
    /// budget is that of each part.
    pub in_parts: bool,
}

/// Whether a failed attempt may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Execution {
    /// Certainly not: it may be sent elsewhere for free.
    NotExecuted,
    /// It ran.
    Executed,
    /// Nobody can tell.
    Unknown,
}

/// How a replica is doing, carried by every answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Rows waiting in front of the next request.
    pub queued_rows: u32,
    /// Learnt time of one row, in nanoseconds.
    pub row_ns: u64,
}
