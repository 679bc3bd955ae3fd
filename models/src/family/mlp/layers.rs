//! The dense layers of a perceptron, by one of two ways.

use std::sync::Arc;

use candle_core::{Device, Tensor as Array};

use super::dense::{Activation, Dense};
use super::plan::{DenseWeights, MlpPlan};
use crate::engine::{LoadError, RunError};
use crate::family::affine::failed;
use crate::family::{Affine, Path};
use crate::offload::{Input, Offload, Work};

/// Loaded layers.
pub(super) struct Layers {
    inputs: usize,
    outputs: usize,
    place: Place,
}

enum Place {
    /// On the calling thread.
    Kernels(Vec<Layer>),
    /// Elsewhere.
    Offload {
        offload: Arc<dyn Offload>,
        layers: Arc<Vec<Affine>>,
        activation: Activation,
    },
}

struct Layer {
    weight: Array,
    bias: Array,
    dense: Dense,
}

impl Layers {
    /// Brings the weights into the order in which they are multiplied.
    ///
    /// # Errors
    /// What an offload lacks.
    pub(super) fn load(
        plan: &MlpPlan,
        weights: Vec<DenseWeights>,
        path: &Path,
    ) -> Result<Self, LoadError> {
        let place = match path {
            Path::Kernels { .. } => Place::Kernels(packed(plan, weights)?),
            Path::Offload(offload) => {
                let dtype = plan.precision.dtype();
                let layer =
                    |layer: DenseWeights| Affine::load(layer.weight, layer.bias, dtype, &**offload);
                let layers: Result<Vec<_>, _> = weights.into_iter().map(layer).collect();
                Place::Offload {
                    offload: offload.clone(),
                    layers: Arc::new(layers?),
                    activation: plan.activation,
                }
            }
        };
        Ok(Self {
            inputs: plan.widths[0],
            outputs: plan.widths[plan.widths.len() - 1],
            place,
        })
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[rows, inputs] f32` → `[rows, outputs] f32`, without the head.
    ///
    /// # Errors
    /// The computation itself.
    pub(super) fn run(&self, values: Vec<f32>) -> Result<Vec<f32>, RunError> {
        let (rows, inputs) = (values.len() / self.inputs, self.inputs);
        match &self.place {
            Place::Kernels(layers) => {
                let mut array = Array::from_vec(values, (rows, inputs), &Device::Cpu)?;
                for layer in layers {
                    array = array.apply_op3_no_bwd(&layer.weight, &layer.bias, &layer.dense)?;
                }
                Ok(array.flatten_all()?.to_vec1()?)
            }
            Place::Offload {
                offload,
                layers,
                activation,
            } => {
                let (layers, activation) = (layers.clone(), *activation);
                offload.run(Work {
                    input: Input::F32(values),
                    outputs: rows * self.outputs,
                    compute: Box::new(move |values| {
                        pass(&layers, activation, values.reshape((rows, inputs))?)
                    }),
                })
            }
        }
    }
}

fn packed(plan: &MlpPlan, weights: Vec<DenseWeights>) -> Result<Vec<Layer>, LoadError> {
    let last = weights.len() - 1;
    let layer = |(position, values): (usize, DenseWeights)| {
        let [inputs, outputs] = [plan.widths[position], plan.widths[position + 1]];
        let activation = (position < last).then_some(plan.activation);
        let dense = Dense::new(inputs, outputs, activation);
        let array = |values: Vec<f32>| {
            let length = values.len();
            Array::from_vec(values, length, &Device::Cpu).map_err(failed)
        };
        Ok(Layer {
            weight: array(dense.packed(&values.weight))?,
            bias: array(dense.padded(&values.bias))?,
            dense,
        })
    };
    weights.into_iter().enumerate().map(layer).collect()
}

/// All layers, in candle's operations.
fn pass(layers: &[Affine], activation: Activation, mut x: Array) -> candle_core::Result<Array> {
    for (position, layer) in layers.iter().enumerate() {
        x = layer.apply(&x)?;
        if position + 1 < layers.len() {
            x = match activation {
                Activation::Relu => x.relu()?,
                Activation::Gelu => x.gelu_erf()?,
                Activation::Tanh => x.tanh()?,
            };
        }
    }
    Ok(x)
}
