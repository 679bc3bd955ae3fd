//! A dense layer: product, bias and what follows it, in one pass over the weights.

use pulp::{Simd, WithSimd};

use super::bf16::{self, Pair, Unit};
use super::level::Kernels;
use super::memory::{Aligned, Scratch};
use super::panels;
use super::product::{Product, Rows, Target};
use super::then::Then;

/// `[rows, inputs] f32` → `[rows, outputs] f32`: `x · Wᵀ + b`, with weights packed for one level.
///
/// Cost of a run: `2 · rows · inputs · outputs` operations, and one pass over the weights for as many
/// rows as fit into half of the second cache (341 at 384 inputs).
#[derive(Debug)]
pub struct Linear {
    kernels: Kernels,
    inputs: usize,
    outputs: usize,
    weight: Weight,
    /// Filled up with zeros to what a panel of weights is filled up to.
    bias: Aligned<f32>,
}

/// Packed weights.
#[derive(Debug)]
enum Weight {
    Floats(Aligned<f32>),
    Halves(Unit, Aligned<Pair>),
}

impl Linear {
    /// Packs a weight `[outputs, inputs]`, as PyTorch keeps it, and a bias `[outputs]`.
    ///
    /// # Panics
    /// If a length is not what the other numbers say, or there are no inputs or no outputs.
    pub fn new(kernels: Kernels, weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        Self::with(kernels, Unit::of(kernels), (weight, bias), inputs)
    }

    fn with(
        kernels: Kernels,
        unit: Option<Unit>,
        (weight, bias): (&[f32], &[f32]),
        inputs: usize,
    ) -> Self {
        let outputs = bias.len();
        assert!(inputs > 0 && outputs > 0, "a layer has inputs and outputs");
        assert_eq!(weight.len(), outputs * inputs, "weight [outputs, inputs]");
        let rows = Rows::new(weight, inputs);
        let (weight, padded) = match unit {
            Some(unit) => {
                let mut packed = Aligned::zeroed(bf16::right_pairs(inputs, outputs));
                kernels.dispatch(bf16::PackColumns {
                    columns: rows,
                    depth: inputs,
                    scale: 1.0,
                    right: packed.values_mut(),
                });
                (Weight::Halves(unit, packed), bf16::padded(outputs))
            }
            None => {
                let padded = outputs.next_multiple_of(kernels.lanes());
                let mut packed = Aligned::zeroed(padded * inputs);
                kernels.dispatch(Pack {
                    weight: rows,
                    inputs,
                    packed: packed.values_mut(),
                });
                (Weight::Floats(packed), padded)
            }
        };
        let mut padded = Aligned::zeroed(padded);
        padded.values_mut()[..outputs].copy_from_slice(bias);
        Self {
            kernels,
            inputs,
            outputs,
            weight,
            bias: padded,
        }
    }

    /// Numbers in a row that comes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers in a row that goes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> u64 {
        let weight = match &self.weight {
            Weight::Floats(packed) => packed.bytes(),
            Weight::Halves(_, packed) => packed.bytes(),
        };
        weight + self.bias.bytes()
    }

    /// `input [rows, inputs]` → `output [rows, outputs]`, for any number of rows.
    ///
    /// # Panics
    /// If the lengths are not those of whole rows, and as many of them on either side.
    pub fn run(&self, input: &[f32], output: &mut [f32], then: Then, scratch: &mut Scratch) {
        assert!(
            input.len().is_multiple_of(self.inputs),
            "input [rows, inputs]"
        );
        let rows = Rows::new(input, self.inputs);
        assert_eq!(
            output.len(),
            rows.count * self.outputs,
            "output [rows, outputs]"
        );
        let target = Target {
            values: output,
            stride: self.outputs,
            columns: self.outputs,
        };
        match &self.weight {
            Weight::Floats(packed) => {
                self.kernels.dispatch(Product {
                    rows,
                    depth: self.inputs,
                    panels: packed.values(),
                    bias: Some(self.bias.values()),
                    target,
                    then,
                });
            }
            Weight::Halves(unit, packed) => {
                let left = bf16::left_pairs(rows.count, self.inputs);
                let left = scratch.left.at_least(left);
                self.kernels.dispatch(bf16::PackLeft {
                    rows,
                    depth: self.inputs,
                    left,
                });
                let product = bf16::Product {
                    unit: *unit,
                    rows: rows.count,
                    depth: self.inputs,
                    left,
                    right: packed.values(),
                    bias: Some(self.bias.values()),
                    target,
                    then,
                };
                product.run(self.kernels);
            }
        }
    }
}

struct Pack<'a> {
    weight: Rows<'a>,
    inputs: usize,
    packed: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        panels::pack_columns::<S>(self.weight, self.inputs, 1.0, self.packed);
    }
}

#[cfg(test)]
mod tests;
