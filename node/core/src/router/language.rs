//! What a router is told, and what it answers.

use std::collections::BTreeMap;

use paceline_protocol::traffic::Sequence;
use paceline_protocol::{NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

use super::{Been, Condition, RouteId, Target};
use crate::device::BatcherId;
use crate::request::Slot;
use crate::time::Instant;

/// What a part of a request is of, if that belongs to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSequence {
    /// Which one.
    pub sequence: Sequence,
    /// Rows of the whole request: its parts go to one replica, though each is picked alone.
    pub rows: u32,
}

/// What can happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// The ready replicas of a version are now these. What was learnt of those that stay is
    /// kept. Off the hot path: costs O(n log n). Best told again after a change of conditions:
    /// of very many replicas, those that can be picked are considered first.
    SetTargets {
        /// The version.
        route: RouteId,
        /// Its ready replicas, in any order, none twice.
        targets: Vec<Target>,
    },
    /// What nodes' replicas are good for; those of other nodes are good. Off the hot path: costs
    /// O(routes).
    SetConditions {
        /// By node.
        conditions: BTreeMap<NodeId, Condition>,
    },
    /// A request wants a replica.
    Pick {
        /// The version.
        route: RouteId,
        /// The request.
        slot: Slot,
        /// Its rows.
        rows: u32,
        /// Bytes of its inputs.
        bytes: u64,
        /// Whether it may be the probe of a replica that has failed: it could run once more.
        may_probe: bool,
        /// What is to be minded if it was sent before; `None` for nearly all.
        again: Option<Box<Again>>,
        /// The sequence that it belongs to, if it does.
        sequence: Option<InSequence>,
    },
    /// A request that was dispatched has ended.
    Done {
        /// The version.
        route: RouteId,
        /// Where it was sent.
        replica: ReplicaId,
        /// Its rows.
        rows: u32,
        /// What is learnt from it.
        heard: Heard,
    },
}

/// What the end of a request says of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// It has answered.
    Answer(Report),
    /// It has failed, and not by the request's fault.
    Fault,
    /// Nothing: the request did not run, was at fault itself, or was not waited for.
    Nothing,
}

/// What is to be minded of a request that was sent before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Where it was.
    pub been: Been,
    /// Whether it may be what silenced a node: it goes to no other one that is silent.
    pub is_alone: bool,
}

/// What an answer says of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows that waited at the replica when it answered.
    pub queued_rows: u32,
    /// The replica's learnt time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// What one row's work does not explain of the time until the answer, in nanoseconds: what a
    /// batch costs before its first row and, from another node, the way in both directions and
    /// what the request waited at the replica.
    pub rest_nanos: u64,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Send the request there; its end must be reported with [`Input::Done`].
    Dispatch {
        /// The request.
        slot: Slot,
        /// The replica.
        replica: ReplicaId,
        /// The node that it is on.
        node: NodeId,
        /// Its queue, if it is on this node.
        local: Option<BatcherId>,
    },
    /// The version has no replica that could be picked.
    NoReplica {
        /// The request.
        slot: Slot,
    },
    /// A replica is left out, since it fails. For the log and its numbers: nothing is to be done.
    Ejected {
        /// The replica.
        replica: ReplicaId,
        /// The node that it is on.
        node: NodeId,
        /// When it is tried again.
        until: Instant,
    },
    /// A replica that was left out has answered, and is picked again.
    Back {
        /// The replica.
        replica: ReplicaId,
        /// The node that it is on.
        node: NodeId,
    },
}

const _: () = assert!(size_of::<Effect>() <= 64);
