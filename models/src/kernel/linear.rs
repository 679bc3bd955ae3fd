//! A dense layer: product, bias and what follows it, in one pass over the weights.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::bf16::{self, Pair, Unit};
use super::level::Kernels;
use super::memory::{Aligned, Scratch};
use super::panels;
use super::product::{Product, ROWS_BYTES, Rows, Target};
use super::then::Then;

/// `[rows, inputs] f32` → `[rows, outputs] f32`: `x · Wᵀ + b`, with weights packed for one level.
///
/// What goes out is divided into blocks of some columns, each with its own weights, so that
/// threads can compute one each.
///
/// Cost of a run: `2 · rows · inputs · outputs` operations, and one pass over the weights for as many
/// rows as fit into half of the second cache (384 at 384 inputs).
#[derive(Debug)]
pub struct Linear {
    kernels: Kernels,
    inputs: usize,
    outputs: usize,
    blocks: Vec<Block>,
}

/// The weights of some columns of what goes out.
#[derive(Debug)]
struct Block {
    columns: Range<usize>,
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

/// Rows that come in, as the weights want them.
#[derive(Clone, Copy)]
struct Input<'a> {
    rows: Rows<'a>,
    /// Rounded to bfloat16, where the weights are.
    left: &'a [Pair],
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
        let step = if unit.is_some() { HALVES } else { FLOATS };
        let block = |first: usize| {
            let columns = first..outputs.min(first + step);
            let weight = &weight[first * inputs..columns.end * inputs];
            let bias = &bias[columns.clone()];
            let (weight, bias) = pack((kernels, unit), (weight, bias), inputs);
            Block {
                columns,
                weight,
                bias,
            }
        };
        Self {
            kernels,
            inputs,
            outputs,
            blocks: (0..outputs).step_by(step).map(block).collect(),
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

    /// The columns of each block of what goes out.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        self.blocks.iter().map(|block| block.columns.clone())
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> u64 {
        let bytes = |block: &Block| {
            let weight = match &block.weight {
                Weight::Floats(packed) => packed.bytes(),
                Weight::Halves(_, packed) => packed.bytes(),
            };
            weight + block.bias.bytes()
        };
        self.blocks.iter().map(bytes).sum()
    }

    /// `input [rows, inputs]` → `output [rows, outputs]`, for any number of rows.
    ///
    /// # Panics
    /// If the lengths are not those of whole rows, and as many of them on either side.
    pub fn run(&self, input: &[f32], output: &mut [f32], then: Then, scratch: &mut Scratch) {
        self.check(input, output, self.outputs);
        // All blocks take some rows before the next ones come.
        let rows = rows_together(self.inputs);
        let inputs = input.chunks(rows * self.inputs);
        for (input, output) in inputs.zip(output.chunks_mut(rows * self.outputs)) {
            let input = self.input(input, scratch);
            for block in &self.blocks {
                let target = Target {
                    values: &mut output[block.columns.start..],
                    stride: self.outputs,
                    columns: block.columns.len(),
                };
                block.run(self.kernels, input, self.inputs, (target, then));
            }
        }
    }

    /// One block: `input [rows, inputs]` → `output [rows, columns]`.
    ///
    /// # Panics
    /// As [`run`](Self::run), and if there is no such block.
    pub fn run_block(
        &self,
        block: usize,
        (input, output): (&[f32], &mut [f32]),
        then: Then,
        scratch: &mut Scratch,
    ) {
        let block = &self.blocks[block];
        let columns = block.columns.len();
        self.check(input, output, columns);
        let input = self.input(input, scratch);
        let target = Target {
            values: output,
            stride: columns,
            columns,
        };
        block.run(self.kernels, input, self.inputs, (target, then));
    }

    fn check(&self, input: &[f32], output: &[f32], columns: usize) {
        let rows = input.len() / self.inputs;
        assert_eq!(input.len(), rows * self.inputs, "input [rows, inputs]");
        assert_eq!(output.len(), rows * columns, "output [rows, outputs]");
    }

    fn input<'a>(&self, input: &'a [f32], scratch: &'a mut Scratch) -> Input<'a> {
        let rows = Rows::new(input, self.inputs);
        let left = match self.blocks[0].weight {
            Weight::Floats(_) => &[],
            Weight::Halves(..) => {
                let left = bf16::left_pairs(rows.count, self.inputs);
                let left = scratch.left.at_least(left);
                self.kernels.dispatch(bf16::PackLeft {
                    rows,
                    depth: self.inputs,
                    left: &mut *left,
                });
                &*left
            }
        };
        Input { rows, left }
    }
}

impl Block {
    fn run(
        &self,
        kernels: Kernels,
        input: Input<'_>,
        depth: usize,
        (target, then): (Target<'_>, Then),
    ) {
        let bias = Some(self.bias.values());
        match &self.weight {
            Weight::Floats(packed) => kernels.dispatch(Product {
                rows: input.rows,
                depth,
                panels: packed.values(),
                bias,
                target,
                then,
            }),
            Weight::Halves(unit, packed) => {
                let product = bf16::Product {
                    unit: *unit,
                    rows: input.rows.count,
                    depth,
                    left: input.left,
                    right: packed.values(),
                    bias,
                    target,
                    then,
                };
                product.run(kernels);
            }
        }
    }
}

/// Columns of a block: whole panels of every level, and in bfloat16 of every unit.
const FLOATS: usize = 96;
const HALVES: usize = 128;

/// Rows that pass over all blocks together.
fn rows_together(inputs: usize) -> usize {
    let rows = ROWS_BYTES / size_of::<f32>() / inputs;
    // Whole tiles of every level.
    rows.max(1).next_multiple_of(96)
}

fn pack(
    (kernels, unit): (Kernels, Option<Unit>),
    (weight, bias): (&[f32], &[f32]),
    inputs: usize,
) -> (Weight, Aligned<f32>) {
    let outputs = bias.len();
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
    (weight, padded)
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
