//! A request as the machines see it: sizes and a deadline, never a tensor.

use paceline_protocol::{Criticality, TenantId};
use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// Names the payload of a request in its driver's slab. The generation makes a name that is
/// used again different from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Position in the slab.
    pub index: u32,
    /// How often the position has been used.
    pub generation: u32,
}

/// Requests whose rows may run in one batch share a bucket: all sizes but the number of rows
/// are equal. The driver hashes the shapes of a row into it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BucketId(pub u64);

/// What decisions need to know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMeta {
    /// Where its payload waits.
    pub slot: Slot,
    /// When its answer is worthless.
    pub deadline: Instant,
    /// Which requests it may share a batch with.
    pub bucket: BucketId,
    /// Who sent it: tenants share a device by their weights.
    pub tenant: TenantId,
    /// Bytes of its inputs.
    pub bytes: u64,
    /// Its rows, at least 1.
    pub rows: u32,
    /// Tokens of its inputs, where they have any.
    pub tokens: u32,
    /// How much it matters: who is served first, and who is refused first.
    pub criticality: Criticality,
    /// Whether its rows share their batch with nobody: they may be what made a node vanish.
    pub is_alone: bool,
}

// The hot path moves these by value; a cache line is what it may cost.
const _: () = assert!(size_of::<RequestMeta>() <= 64);
