//! A dense layer in candle's operations, on any of its devices.

use candle_core::{DType, Device, Result, Tensor as Array};

use crate::engine::{LoadError, RunError};
use crate::offload::Offload;

/// `x · Wᵀ + b`: factors are rounded to one type, sums are kept in 32 bits where the device adds
/// them, and what comes out of the product is rounded once more where it is no f32.
pub(crate) struct Affine {
    /// `[inputs, outputs]`, a view of what is stored the other way round.
    weight: Array,
    /// `[outputs] f32`
    bias: Array,
}

impl Affine {
    /// Copies a weight `[outputs, inputs]` and a bias to where they are used.
    ///
    /// # Errors
    /// The offload's.
    pub(crate) fn load(
        weight: Vec<f32>,
        bias: Vec<f32>,
        dtype: DType,
        offload: &dyn Offload,
    ) -> std::result::Result<Self, LoadError> {
        let outputs = bias.len();
        let shape = (outputs, weight.len() / outputs);
        let weight = Array::from_vec(weight, shape, &Device::Cpu);
        let weight = weight.and_then(|weight| weight.to_dtype(dtype));
        let bias = Array::from_vec(bias, outputs, &Device::Cpu);
        let weight = offload.upload(weight.map_err(failed)?).map_err(refused)?;
        Ok(Self {
            weight: weight.t().map_err(failed)?,
            bias: offload.upload(bias.map_err(failed)?).map_err(refused)?,
        })
    }

    /// `[rows, inputs] f32` → `[rows, outputs] f32`. Cost: `rows · inputs · outputs`
    /// multiply-adds, and two roundings of what goes in and comes out.
    pub(crate) fn apply(&self, x: &Array) -> Result<Array> {
        let product = x.to_dtype(self.weight.dtype())?.matmul(&self.weight)?;
        product.to_dtype(DType::F32)?.broadcast_add(&self.bias)
    }
}

/// As loading says what candle said.
pub(crate) fn failed(error: candle_core::Error) -> LoadError {
    LoadError::Engine {
        message: error.to_string(),
    }
}

/// As loading says why nothing could be copied.
pub(crate) fn refused(error: RunError) -> LoadError {
    LoadError::Engine {
        message: error.to_string(),
    }
}
