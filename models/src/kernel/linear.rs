//! A dense layer: product, bias and what follows it, in one pass over the weights.

use pulp::{Simd, WithSimd, bytemuck};

use super::bf16::{self, Pair, Unit};
use super::curve;
use super::level::Kernels;
use super::memory::{Aligned, Scratch};
use super::panels;
use super::product::{Finish, Product, Rows, Target};

/// What a layer does with `x · Wᵀ + b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Writes it.
    Nothing,
    /// Writes its GELU, by the error function.
    Gelu,
    /// Writes its GELU, by the tanh approximation.
    GeluTanh,
    /// Writes max(x, 0).
    Relu,
    /// Writes its hyperbolic tangent.
    Tanh,
    /// Adds it to what the output holds: a residual connection.
    Add,
}

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
                bf16::pack_columns(rows, inputs, 1.0, packed.values_mut());
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
            adds: then == Then::Add,
        };
        match &self.weight {
            Weight::Floats(packed) => {
                let product = Product {
                    rows,
                    depth: self.inputs,
                    panels: packed.values(),
                    bias: Some(self.bias.values()),
                    target,
                };
                self.kernels.dispatch(Run { product, then });
            }
            Weight::Halves(unit, packed) => {
                let left = bf16::left_pairs(rows.count, self.inputs);
                let left = scratch.left.at_least(left);
                self.kernels.dispatch(bf16::PackLeft {
                    rows,
                    depth: self.inputs,
                    left,
                });
                let mut product = bf16::Product {
                    unit: *unit,
                    rows: rows.count,
                    depth: self.inputs,
                    left,
                    right: packed.values(),
                    bias: Some(self.bias.values()),
                    target,
                };
                product.run(self.kernels, then);
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

struct Run<'a> {
    product: Product<'a>,
    then: Then,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.product.run(simd, self.then);
    }
}

impl Finish for Then {
    #[inline(always)]
    fn finish<S: Simd>(self, simd: S, part: &mut [f32]) {
        match self {
            Self::Nothing | Self::Add => {}
            Self::Gelu => each(simd, part, |simd, x| curve::gelu(simd, x)),
            Self::GeluTanh => each(simd, part, |simd, x| curve::gelu_tanh(simd, x)),
            Self::Relu => each(simd, part, |simd, x| curve::relu(simd, x)),
            Self::Tanh => each(simd, part, |simd, x| curve::tanh(simd, x)),
        }
    }
}

/// Replaces each number of a part of a row by what `curve` makes of it.
#[inline(always)]
fn each<S: Simd>(simd: S, part: &mut [f32], curve: impl Fn(S, S::f32s) -> S::f32s) {
    let (whole, rest) = S::as_mut_simd_f32s(part);
    for x in whole {
        *x = curve(simd, *x);
    }
    if !rest.is_empty() {
        let mut last = [simd.splat_f32s(0.0)];
        let lanes = bytemuck::cast_slice_mut::<_, f32>(&mut last);
        lanes[..rest.len()].copy_from_slice(rest);
        let last = [curve(simd, last[0])];
        let lanes = bytemuck::cast_slice::<_, f32>(&last);
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}

#[cfg(test)]
mod tests;
