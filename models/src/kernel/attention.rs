//! Attention of sequences of different lengths, each over itself (Vaswani et al., 2017, section 3.2).
//!
//! For one head of one sequence its keys and values are laid out in panels; then a few queries at a
//! time are multiplied with all keys, their scores become weights, and these are multiplied with all
//! values. Scores of a few queries are all that is ever written down.
//!
//! Weights are powers of two of `score · log₂ e` less the row's largest: heads of trained models have
//! scores beyond 100, so the largest cannot be left out.

mod halves;

use std::f32::consts::LOG2_E;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::bf16::Unit;
use super::curve;
use super::level::Kernels;
use super::memory::Scratch;
use super::panels;
use super::product::{Product, Rows, Target};
use super::then::Then;

/// Sequences one after the other, without anything between them.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// `[tokens, 3 · width]`: of each token the query, the key and the value, of all heads each.
    pub qkv: &'a [f32],
    /// Tokens of each sequence; together all tokens.
    pub lengths: &'a [u32],
    /// Heads that the width is divided among.
    pub heads: usize,
}

/// `softmax(Q · Kᵀ / √size) · V` for every head of every sequence, of the tokens `queries` alone, to
/// `output [queries, width]`.
///
/// Cost: `4 · length · width` operations a query, and as much scratch as the keys and values of
/// one head take, and 8 rows of scores.
///
/// # Panics
/// If lengths do not fit together, or the width is not that of whole heads.
pub fn attention(
    kernels: Kernels,
    sequences: Sequences<'_>,
    queries: Range<usize>,
    output: &mut [f32],
    scratch: &mut Scratch,
) {
    let with = (kernels, Unit::of(kernels));
    run(with, sequences, queries, output, scratch);
}

/// With what multiplies bfloat16, if anything does.
fn run(
    (kernels, unit): (Kernels, Option<Unit>),
    sequences: Sequences<'_>,
    queries: Range<usize>,
    output: &mut [f32],
    scratch: &mut Scratch,
) {
    let Sequences {
        qkv,
        lengths,
        heads,
    } = sequences;
    let tokens = lengths.iter().map(|length| *length as usize).sum::<usize>();
    assert!(queries.end <= tokens, "queries are tokens");
    if queries.is_empty() {
        assert!(output.is_empty(), "there are no queries");
        return;
    }
    let width = output.len() / queries.len();
    assert_eq!(
        output.len(),
        queries.len() * width,
        "output [queries, width]"
    );
    assert_eq!(qkv.len(), 3 * tokens * width, "qkv [tokens, 3 * width]");
    assert!(
        heads > 0 && width >= heads && width.is_multiple_of(heads),
        "width of whole heads"
    );
    kernels.dispatch(Run {
        halves: unit.map(|unit| (kernels, unit)),
        sequences,
        queries,
        width,
        output,
        scratch,
    });
}

struct Run<'a> {
    halves: Option<(Kernels, Unit)>,
    sequences: Sequences<'a>,
    queries: Range<usize>,
    width: usize,
    output: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.width;
        let size = width / self.sequences.heads;
        let (mut qkv, mut output) = (self.sequences.qkv, self.output);
        let mut begin = 0;
        for length in self.sequences.lengths {
            let length = *length as usize;
            // Of the queries, those of this sequence.
            let [first, last] = [self.queries.start, self.queries.end]
                .map(|query| query.clamp(begin, begin + length) - begin);
            begin += length;
            let (these, those);
            (these, qkv) = qkv.split_at(length * 3 * width);
            (those, output) = output.split_at_mut((last - first) * width);
            if first == last {
                continue;
            }
            for column in (0..width).step_by(size) {
                let part =
                    |kind: usize| Rows::strided(&these[kind * width + column..], 3 * width, length);
                let mut head = Head {
                    queries: part(0).from(first, last - first),
                    keys: part(1),
                    values: part(2),
                    size,
                    output: &mut those[column..],
                    stride: width,
                };
                match self.halves {
                    None => head.run(simd, self.scratch),
                    Some((kernels, unit)) => head.run_halves(simd, kernels, unit, self.scratch),
                }
            }
        }
    }
}

/// One head of one sequence.
struct Head<'a> {
    /// Perhaps of some of its tokens.
    queries: Rows<'a>,
    keys: Rows<'a>,
    values: Rows<'a>,
    /// Numbers in each of them.
    size: usize,
    output: &'a mut [f32],
    stride: usize,
}

/// Queries whose scores are kept at a time: as many as a tile has rows.
const QUERIES: usize = 8;

impl Head<'_> {
    #[inline(always)]
    fn run<S: Simd>(&mut self, simd: S, scratch: &mut Scratch) {
        let (queries, keys, values) = (self.queries, self.keys, self.values);
        let (size, length) = (self.size, keys.count);
        let padded = length.next_multiple_of(S::F32_LANES);
        let key_panels = scratch.keys.at_least(panels::floats::<S>(size, length));
        panels::pack_columns::<S>(keys, size, scale(size), key_panels);
        let value_panels = scratch.values.at_least(panels::floats::<S>(length, size));
        panels::pack_rows::<S>(values, size, value_panels);
        for first in (0..queries.count).step_by(QUERIES) {
            let count = QUERIES.min(queries.count - first);
            let scores = scratch.scores.at_least(count * padded);
            simd.vectorize(Product {
                rows: queries.from(first, count),
                depth: size,
                panels: key_panels,
                bias: None,
                target: Target {
                    values: scores,
                    stride: padded,
                    columns: padded,
                },
                then: Then::Nothing,
            });
            let mut sums = [0.0; QUERIES];
            for (scores, sum) in scores.chunks_exact_mut(padded).zip(&mut sums) {
                *sum = weigh(simd, scores, length);
            }
            let output = &mut self.output[first * self.stride..];
            simd.vectorize(Product {
                rows: Rows::strided(scores, padded, count),
                depth: length,
                panels: value_panels,
                bias: None,
                target: Target {
                    values: output,
                    stride: self.stride,
                    columns: size,
                },
                then: Then::Nothing,
            });
            divide(simd, output, (self.stride, size), &sums[..count]);
        }
    }
}

/// What products of queries and keys are multiplied by, to be exponents of 2.
fn scale(size: usize) -> f32 {
    LOG2_E / (size as f32).sqrt()
}

/// Replaces a row of scores by weights, of which the largest is 1, and returns their sum.
#[inline(always)]
fn weigh<S: Simd>(simd: S, scores: &mut [f32], length: usize) -> f32 {
    // Keys that only fill up the last vector weigh next to nothing: 2⁻¹²⁶ beside at least one 1.
    scores[length..].fill(f32::NEG_INFINITY);
    let scores = S::as_mut_simd_f32s(scores).0;
    let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
    for score in scores.iter() {
        largest = simd.max_f32s(largest, *score);
    }
    let largest = simd.splat_f32s(simd.reduce_max_f32s(largest));
    let mut sum = simd.splat_f32s(0.0);
    for score in scores {
        *score = curve::exp2(simd, simd.sub_f32s(*score, largest));
        sum = simd.add_f32s(sum, *score);
    }
    simd.reduce_sum_f32s(sum)
}

/// Divides `size` numbers of each row by the sum of its weights.
#[inline(always)]
fn divide<S: Simd>(simd: S, rows: &mut [f32], (stride, size): (usize, usize), sums: &[f32]) {
    for (row, sum) in rows.chunks_mut(stride).zip(sums) {
        let scale = 1.0 / sum;
        let (whole, rest) = S::as_mut_simd_f32s(&mut row[..size]);
        for x in whole {
            *x = simd.mul_f32s(*x, simd.splat_f32s(scale));
        }
        for x in rest {
            *x *= scale;
        }
    }
}

#[cfg(test)]
mod tests;
