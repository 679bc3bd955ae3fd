//! A dense layer: product, bias and what follows it, in one pass over the weights.

use pulp::{Simd, WithSimd, bytemuck};

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
    weight: Aligned,
    /// Filled up with zeros to whole vectors.
    bias: Aligned,
}

impl Linear {
    /// Packs a weight `[outputs, inputs]`, as PyTorch keeps it, and a bias `[outputs]`.
    ///
    /// # Panics
    /// If a length is not what the other numbers say, or there are no inputs or no outputs.
    pub fn new(kernels: Kernels, weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        let outputs = bias.len();
        assert!(inputs > 0 && outputs > 0, "a layer has inputs and outputs");
        assert_eq!(weight.len(), outputs * inputs, "weight [outputs, inputs]");
        let lanes = kernels.lanes();
        let padded = outputs.next_multiple_of(lanes);
        let mut layer = Self {
            kernels,
            inputs,
            outputs,
            weight: Aligned::zeroed(padded * inputs),
            bias: Aligned::zeroed(padded),
        };
        layer.bias.values_mut()[..outputs].copy_from_slice(bias);
        kernels.dispatch(Pack {
            weight: Rows::new(weight, inputs),
            inputs,
            packed: layer.weight.values_mut(),
        });
        layer
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
        self.weight.bytes() + self.bias.bytes()
    }

    /// `input [rows, inputs]` → `output [rows, outputs]`, for any number of rows.
    ///
    /// # Panics
    /// If the lengths are not those of whole rows, and as many of them on either side.
    pub fn run(&self, input: &[f32], output: &mut [f32], then: Then, _scratch: &mut Scratch) {
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
        let product = Product {
            rows,
            depth: self.inputs,
            panels: self.weight.values(),
            bias: Some(self.bias.values()),
            target: Target {
                values: output,
                stride: self.outputs,
                columns: self.outputs,
                adds: then == Then::Add,
            },
        };
        self.kernels.dispatch(Run { product, then });
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
