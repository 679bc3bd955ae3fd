//! Multi-layer perceptrons: rows in, dense layers, a head, and perhaps a label.
//!
//! The layers are one candle operation of our own, [`dense::Dense`], instead of candle's matmul,
//! addition and activation. candle 0.11's matmul asks the operating system for the number of
//! cores *on every call* (it reads `/proc/cpuinfo`: 32 µs with two cores, more with each core),
//! which is many times what a small layer costs; it splits over a pool of threads of its own;
//! and its elementwise operations start spinning threads from 65,536 elements on. A node decides
//! itself which thread computes: one batch, one thread.

mod dense;
mod head;
mod layers;
mod plan;

use paceline_protocol::{AlignedBuffer, Dtype, Shape, Tensor};

use crate::batch::Batch;
use crate::engine::{LoadError, LoadedModel, MemoryUse, RunError};
use crate::family::Path;
use crate::folder::ModelDescription;

pub(crate) use dense::{Activation, Dense};
pub(crate) use head::{Head, arg_max};
use layers::Layers;
pub use plan::MlpError;
pub(crate) use plan::MlpPlan;

/// A loaded perceptron.
///
/// `[rows, in] f32` → `(x − mean) / scale`, if the weights hold both → for each layer
/// `x · Wᵀ + b`, the activation between layers → the head → `[rows, out] f32`, and with labels
/// `[rows, 1] BYTES`. Each row's sums are taken in one order, whatever the batch: an answer is
/// the same to the last bit alone and in company.
pub(crate) struct Mlp {
    description: ModelDescription,
    normalize: Option<Normalize>,
    layers: Layers,
    head: Head,
    labels: Option<Labels>,
    memory: MemoryUse,
}

/// `(x − mean) / scale`. It is not folded into the first layer: where the mean is large beside
/// the scale (300 K ± 2 K), folding loses five of float32's 24 bits.
struct Normalize {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

/// What a row is called.
struct Labels {
    names: Vec<String>,
    /// With a sigmoid: from where on the second label is given.
    threshold: Option<f32>,
}

impl Mlp {
    /// Copies the weights into the order in which they are multiplied, and looks at every value.
    ///
    /// # Errors
    /// [`MlpError::NotFinite`] and [`MlpError::ZeroScale`] name the tensor and the position.
    pub(crate) fn load(
        description: ModelDescription,
        plan: &MlpPlan,
        path: &Path,
    ) -> Result<Self, LoadError> {
        let weights = plan.read()?;
        Ok(Self {
            memory: plan.memory(description.rows_max, path.workspace()),
            description,
            normalize: weights
                .normalize
                .map(|(mean, scale)| Normalize { mean, scale }),
            layers: Layers::load(plan, weights.dense, path)?,
            head: plan.head,
            labels: plan
                .labels
                .clone()
                .map(|(names, threshold)| Labels { names, threshold }),
        })
    }

    /// The rows of all requests, normalized. Cost: one pass.
    fn gather(&self, batch: &Batch<'_>) -> Vec<f32> {
        let inputs = self.layers.inputs();
        let rows = batch.rows() as usize;
        let mut values = Vec::with_capacity(rows * inputs);
        for request in batch.requests() {
            let is_f32 = request[0].extend_f32(&mut values);
            assert!(is_f32, "the batch was checked against the signature");
        }
        if let Some(Normalize { mean, scale }) = &self.normalize {
            for row in values.chunks_exact_mut(inputs) {
                for ((value, mean), scale) in row.iter_mut().zip(mean).zip(scale) {
                    *value = (*value - mean) / scale;
                }
            }
        }
        values
    }

    fn label(&self, labels: &Labels, row: &[f32]) -> usize {
        match labels.threshold {
            Some(threshold) => usize::from(row[0] >= threshold),
            None => head::arg_max(row),
        }
    }

    /// One answer a request, sharing the bytes of one buffer.
    fn scatter(&self, batch: &Batch<'_>, values: &[f32], outputs: usize) -> Vec<Vec<Tensor>> {
        let mut buffer = AlignedBuffer::with_capacity(values.len() * 4);
        let (chunks, _) = buffer.resized(values.len() * 4).as_chunks_mut::<4>();
        for (chunk, value) in chunks.iter_mut().zip(values) {
            *chunk = value.to_le_bytes();
        }
        let shape = Shape::new(&[batch.rows(), outputs as u64]).expect("two small dimensions");
        let all = Tensor::new(Dtype::Fp32, shape, buffer.freeze()).expect("as many as the shape");
        let answer = |rows: std::ops::Range<u64>| {
            let own = &values[rows.start as usize * outputs..rows.end as usize * outputs];
            let mut tensors = Vec::with_capacity(2);
            tensors.push(all.slice_rows(rows));
            if let Some(labels) = &self.labels {
                let named: Vec<&str> = own
                    .chunks_exact(outputs)
                    .map(|row| labels.names[self.label(labels, row)].as_str())
                    .collect();
                tensors.push(Tensor::from_byte_strings(&named));
            }
            tensors
        };
        batch.row_ranges().map(|(_, rows)| answer(rows)).collect()
    }
}

impl LoadedModel for Mlp {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        batch.check(&self.description.signature, self.description.rows_max)?;
        let outputs = self.layers.outputs();
        let mut values = self.layers.run(self.gather(batch))?;
        self.head.apply(&mut values, outputs);
        Ok(self.scatter(batch, &values, outputs))
    }

    fn bytes(&self) -> MemoryUse {
        self.memory
    }
}

#[cfg(test)]
pub(crate) mod tests;
