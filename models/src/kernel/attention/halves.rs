//! Attention whose factors are rounded to bfloat16: queries, keys, values and weights. Scores, what
//! makes them weights, and sums stay floats.

use pulp::Simd;

use super::super::bf16::{self, PackColumns, PackLeft, PackRows, Unit};
use super::super::level::Kernels;
use super::super::memory::Scratch;
use super::super::product::{Rows, Target};
use super::super::then::Then;
use super::{Head, divide, scale, weigh};

/// Queries whose scores are kept at a time: a block of what multiplies.
const QUERIES: usize = bf16::BLOCK_ROWS;

impl Head<'_> {
    #[inline(always)]
    pub(super) fn run_halves<S: Simd>(
        &mut self,
        simd: S,
        kernels: Kernels,
        unit: Unit,
        scratch: &mut Scratch,
    ) {
        let (queries, keys, values) = (self.queries, self.keys, self.values);
        let (size, length) = (self.size, keys.count);
        let padded = length.next_multiple_of(S::F32_LANES);
        let key_panels = scratch.half_keys.at_least(bf16::right_pairs(size, length));
        simd.vectorize(PackColumns {
            columns: keys,
            depth: size,
            scale: scale(size),
            right: key_panels,
        });
        let value_panels = scratch
            .half_values
            .at_least(bf16::right_pairs(length, size));
        simd.vectorize(PackRows {
            rows: values,
            columns: size,
            right: value_panels,
        });
        for first in (0..queries.count).step_by(QUERIES) {
            let count = QUERIES.min(queries.count - first);
            let scores = scratch.scores.at_least(count * padded);
            let left = scratch.left.at_least(bf16::left_pairs(count, size));
            simd.vectorize(PackLeft {
                rows: queries.from(first, count),
                depth: size,
                left,
            });
            let product = bf16::Product {
                unit,
                rows: count,
                depth: size,
                left,
                right: key_panels,
                bias: None,
                target: Target {
                    values: scores,
                    stride: padded,
                    columns: length,
                },
                then: Then::Nothing,
            };
            product.run(kernels);
            let mut sums = [0.0; QUERIES];
            for (scores, sum) in scores.chunks_exact_mut(padded).zip(&mut sums) {
                *sum = weigh(simd, scores, length);
            }
            let left = scratch.left.at_least(bf16::left_pairs(count, length));
            simd.vectorize(PackLeft {
                rows: Rows::strided(scores, padded, count),
                depth: length,
                left,
            });
            let output = &mut self.output[first * self.stride..];
            let product = bf16::Product {
                unit,
                rows: count,
                depth: length,
                left,
                right: value_panels,
                bias: None,
                target: Target {
                    values: output,
                    stride: self.stride,
                    columns: size,
                },
                then: Then::Nothing,
            };
            product.run(kernels);
            divide(simd, output, (self.stride, size), &sums[..count]);
        }
    }
}
