//! The head for classes: two small dense layers over each text's first token.

use candle_core::{Device, Tensor as Array};

use super::layout::Layout;
use super::weights::{Classes, Linear};
use crate::family::{Activation, Dense};

/// `[rows, width] f32` → dense, activation → dense → `[rows, classes] f32`. The layers are those
/// of the perceptrons: one thread, and sums in one order whatever the number of rows.
pub(super) struct ClassHead {
    first: Stage,
    second: Stage,
}

struct Stage {
    weight: Array,
    bias: Array,
    dense: Dense,
}

impl ClassHead {
    pub(super) fn new(layout: Layout, classes: &Classes) -> candle_core::Result<Self> {
        let activation = if layout.classifier().relu {
            Activation::Relu
        } else {
            Activation::Tanh
        };
        Ok(Self {
            first: Stage::new(&classes.first, Some(activation))?,
            second: Stage::new(&classes.second, None)?,
        })
    }

    /// What the head says of each row.
    pub(super) fn logits(&self, pooled: Vec<f32>, width: usize) -> candle_core::Result<Vec<f32>> {
        let shape = (pooled.len() / width, width);
        let mut rows = Array::from_vec(pooled, shape, &Device::Cpu)?;
        for stage in [&self.first, &self.second] {
            rows = rows.apply_op3_no_bwd(&stage.weight, &stage.bias, &stage.dense)?;
        }
        rows.flatten_all()?.to_vec1()
    }
}

impl Stage {
    fn new(linear: &Linear, activation: Option<Activation>) -> candle_core::Result<Self> {
        let dense = Dense::new(linear.inputs, linear.outputs, activation);
        let array = |values: Vec<f32>| {
            let length = values.len();
            Array::from_vec(values, length, &Device::Cpu)
        };
        Ok(Self {
            weight: array(dense.packed(&linear.weight))?,
            bias: array(dense.padded(&linear.bias))?,
            dense,
        })
    }
}
