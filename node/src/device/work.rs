//! What is brought to a device, and what comes back.

use paceline_core::Instant;
use paceline_core::batcher::DropReason;
use paceline_core::device::BatcherId;
use paceline_protocol::{Criticality, Failure, Reading, TenantId, Tensor};

/// A request on its way to a replica of this device.
pub struct Work {
    /// The replica's queue.
    pub batcher: BatcherId,
    /// One tensor for each input, in the signature's order.
    pub inputs: Vec<Tensor>,
    /// Rows of the inputs.
    pub rows: u32,
    /// Bytes of the inputs.
    pub bytes: u64,
    /// When the answer is worthless.
    pub deadline: Instant,
    /// How much it matters.
    pub criticality: Criticality,
    /// Who sends it.
    pub tenant: TenantId,
    /// Whether it was what a node or an engine died of, perhaps: it shares its batch with nobody.
    pub is_second: bool,
    /// How it is read, if its model reads texts.
    pub reading: Reading,
}

/// How a request ended at the device.
#[derive(Debug)]
pub enum End {
    /// It ran.
    Ran(Ran),
    /// It left without running; its inputs come back, so that they can be sent elsewhere.
    Dropped(DropReason, Vec<Tensor>),
    /// It is not taken and did not run: nobody can compute its inputs, or engines have died of
    /// them. It is not tried again.
    Refused(Failure),
    /// The engine failed while it ran; its inputs come back, so that they can be tried again.
    Failed(Failure, Vec<Tensor>),
    /// The engine died while it ran, by this request or another of its batch; its inputs come
    /// back.
    Died(Failure, Vec<Tensor>),
    /// It ran when its node left, and may run to its end for nobody.
    Left(Failure),
}

/// What came of a request that ran.
#[derive(Debug)]
pub struct Ran {
    /// One tensor for each output, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// Rows of the batch that it was part of.
    pub batch_rows: u32,
    /// Time from its arrival at the device to the start of its batch, in nanoseconds.
    pub queue_nanos: u64,
    /// Time that the engine took, in nanoseconds.
    pub run_nanos: u64,
}

/// How a queue is doing: what answers report to routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Rows that wait.
    pub queued_rows: u32,
    /// Learnt time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// Learnt time of a batch of one row, in nanoseconds.
    pub one_row_nanos: u64,
}
