//! A request and its answer, as routers and workers see them.

use bytes::Bytes;

use crate::id::{Epoch, ModelName, VersionNumber};
use crate::tensor::Tensor;

/// A checked inference request: tensors stand in the order of the version's signature.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest {
    /// The model that the client addressed.
    pub model: ModelName,
    /// The version that it was pinned to when it was admitted.
    pub version: VersionNumber,
    /// The epoch of that decision.
    pub epoch: Epoch,
    /// One tensor for each input of the signature, in its order.
    pub inputs: Vec<Tensor>,
    /// What is left of the budget, in microseconds; never an absolute time, since clocks differ.
    pub budget_us: u64,
}

/// The successful end of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// One tensor for each output of the signature, in its order.
    pub outputs: Vec<Tensor>,
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch that the request was pinned at.
    pub epoch: Epoch,
}

impl InferRequest {
    /// Rows of the request: the first dimension of its first input.
    pub fn rows(&self) -> u64 {
        self.inputs.first().map_or(0, Tensor::rows)
    }

    /// Bytes of all inputs.
    pub fn bytes(&self) -> u64 {
        self.inputs
            .iter()
            .map(|tensor| tensor.data().len() as u64)
            .sum()
    }
}

impl Answer {
    /// The outputs' bytes, in order, sharing their memory.
    pub fn bodies(&self) -> impl Iterator<Item = &Bytes> {
        self.outputs.iter().map(Tensor::data)
    }
}
