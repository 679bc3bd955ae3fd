//! What a batcher hears and what it wants done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Policy;
use crate::cost::CostFit;
use crate::request::{RequestMeta, Slot};

/// What a batcher must know of its replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Largest batch, in rows. A single request may be larger and then runs alone.
    pub rows_max: u32,
    /// Most tokens in a batch, likewise. 0 says that tokens are not counted; otherwise they are what
    /// costs, and `cost` is learnt of them instead of rows.
    pub tokens_max: u32,
    /// When batches are formed, and of which requests.
    pub policy: Policy,
    /// What batches cost, as the warm-up measured it.
    pub cost: CostFit,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A request wants to run.
    Arrive(RequestMeta),
    /// The caller of a waiting request has gone.
    Cancel(Slot),
    /// A lane is free: form a batch.
    Form,
    /// A batch has run.
    Ran {
        /// Its rows.
        rows: u32,
        /// Its tokens, where they are counted.
        tokens: u32,
        /// How long it took, in nanoseconds.
        nanos: u64,
    },
    /// The replica or its node goes away: everything that waits is dropped.
    Close,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This request is part of the batch being formed.
    Join(RequestMeta),
    /// This request leaves without running.
    Drop {
        /// Which one.
        slot: Slot,
        /// Why.
        why: DropReason,
    },
}

/// Why a request leaves without running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// Its deadline has passed.
    Expired,
    /// It could not be finished by its deadline any more, and others wait that can be.
    Late,
    /// Its caller has gone.
    Cancelled,
    /// The queue holds all that can be finished in time, or by this request's deadline.
    QueueFull {
        /// When there will be room, at the pace at which rows leave now.
        retry_after: Duration,
    },
    /// The replica is gone; nothing was executed.
    Gone,
}

const _: () = assert!(size_of::<Effect>() <= 64);
