//! What a device hears and what it wants done.

use paceline_protocol::TenantId;
use serde::{Deserialize, Serialize};

use crate::batcher::{self, DropReason};
use crate::request::{RequestMeta, Slot};

/// A batch that runs at a time on a device, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId(pub u16);

/// A replica's queue on a device. The driver chooses the number and may use it again after
/// [`Input::Detach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatcherId(pub u32);

/// What can happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// A replica is loaded and warm: it can be sent requests.
    Attach {
        /// The number of its queue.
        batcher: BatcherId,
        /// What the queue must know.
        options: batcher::Options,
    },
    /// A replica goes away. What waits for it is dropped as [`DropReason::Gone`].
    Detach {
        /// Its queue.
        batcher: BatcherId,
    },
    /// The node leaves: what waits, for whichever replica, is dropped as [`DropReason::Gone`],
    /// and the queues stay.
    Evict,
    /// The weights of tenants from now on; those that are not named weigh 1.
    SetWeights {
        /// Each with its tenant.
        weights: Vec<(TenantId, u32)>,
    },
    /// A request for a replica.
    Arrive {
        /// The replica's queue.
        batcher: BatcherId,
        /// The request.
        request: RequestMeta,
        /// Whether the task that brings it could run a batch itself.
        in_place: bool,
    },
    /// The caller of a request has gone.
    Cancel {
        /// Where the request was sent.
        batcher: BatcherId,
        /// The request.
        slot: Slot,
    },
    /// Reports the end of [`Effect::Wake`]: the lane's thread is awake.
    Begin {
        /// The lane.
        lane: LaneId,
    },
    /// Reports the end of [`Effect::Stage`]: the batch's inputs are gathered.
    Launch {
        /// The lane.
        lane: LaneId,
    },
    /// Reports the end of [`Effect::Run`].
    Finished {
        /// The lane.
        lane: LaneId,
        /// How long the engine took, in nanoseconds; `None` if it failed, since a failure says
        /// nothing about cost.
        nanos: Option<u64>,
        /// Whether the task that ran it could run another.
        in_place: bool,
    },
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// This request is part of the batch that the next [`Effect::Stage`] or [`Effect::Run`]
    /// names: take its payload.
    Join {
        /// The request.
        slot: Slot,
    },
    /// Wake the lane's thread; it answers with [`Input::Begin`].
    Wake {
        /// The lane.
        lane: LaneId,
    },
    /// The requests that joined are a batch: gather their inputs, then [`Input::Launch`].
    Stage {
        /// The lane.
        lane: LaneId,
    },
    /// Run the batch of this lane, without what was dropped since; then [`Input::Finished`].
    /// The replica may have been detached after its batch was staged: the batch runs even so.
    Run {
        /// The lane.
        lane: LaneId,
        /// The replica's queue, or a number that no queue has if it was detached.
        batcher: BatcherId,
        /// Rows in the batch.
        rows: u32,
    },
    /// This request leaves without running.
    Drop {
        /// The request.
        slot: Slot,
        /// Why.
        why: DropReason,
    },
}

const _: () = assert!(size_of::<Effect>() <= 64);
