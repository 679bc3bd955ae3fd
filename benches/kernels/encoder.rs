//! The layers of a text encoder with random weights, as the encoder family runs them: without the
//! table of words before and the mean after, which take next to no time.

use paceline_models::kernel::{
    Kernels, Linear, Norm, Scratch, Sequences, Then, attention, layer_norm,
};

/// Numbers of a token.
pub(crate) const WIDTH: usize = 384;
/// Numbers between the two products of a layer's second half.
pub(crate) const INNER: usize = 1_536;
/// Heads of attention.
pub(crate) const HEADS: usize = 12;
const LAYERS: usize = 6;

/// Tokens of a sentence, and sentences.
pub(crate) const SHAPES: [(usize, usize); 10] = [
    (16, 1),
    (16, 8),
    (32, 1),
    (32, 8),
    (64, 1),
    (64, 8),
    (128, 1),
    (128, 8),
    (256, 1),
    (256, 8),
];

/// Tokens that go through all layers together: what one layer writes is in the cache for the next.
const TOKENS_TOGETHER: usize = 256;

pub(crate) struct Encoder {
    kernels: Kernels,
    layers: Vec<Layer>,
    ones: Vec<f32>,
    zeros: Vec<f32>,
    values: Vec<f32>,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    inner: Vec<f32>,
    scratch: Scratch,
}

struct Layer {
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

impl Encoder {
    pub(crate) fn new(kernels: Kernels) -> Self {
        let linear = |inputs: usize, outputs: usize, seed: usize| {
            let mut weight = noise(inputs * outputs, seed as u64);
            let scale = 1.0 / (inputs as f32).sqrt();
            weight.iter_mut().for_each(|w| *w *= scale);
            Linear::new(kernels, &weight, &noise(outputs, seed as u64), inputs)
        };
        let layers = (0..LAYERS).map(|layer| Layer {
            qkv: linear(WIDTH, 3 * WIDTH, 4 * layer),
            out: linear(WIDTH, WIDTH, 4 * layer + 1),
            up: linear(WIDTH, INNER, 4 * layer + 2),
            down: linear(INNER, WIDTH, 4 * layer + 3),
        });
        Self {
            kernels,
            layers: layers.collect(),
            ones: vec![1.0; WIDTH],
            zeros: vec![0.0; WIDTH],
            values: noise(2_048 * WIDTH, 77),
            qkv: vec![0.0; TOKENS_TOGETHER * 3 * WIDTH],
            mixed: vec![0.0; TOKENS_TOGETHER * WIDTH],
            inner: vec![0.0; TOKENS_TOGETHER * INNER],
            scratch: Scratch::new(),
        }
    }

    /// Bytes of all weights.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self.layers.iter();
        layers
            .map(|l| l.qkv.bytes() + l.out.bytes() + l.up.bytes() + l.down.bytes())
            .sum()
    }

    /// `batch` sentences of `tokens` tokens each.
    pub(crate) fn run(&mut self, tokens: usize, batch: usize) {
        let together = (TOKENS_TOGETHER / tokens).clamp(1, batch);
        for first in (0..batch).step_by(together) {
            let count = together.min(batch - first);
            self.run_together(first * tokens, tokens, count);
        }
    }

    fn run_together(&mut self, first: usize, tokens: usize, batch: usize) {
        let rows = tokens * batch;
        let values = &mut self.values[first * WIDTH..][..rows * WIDTH];
        let qkv = &mut self.qkv[..rows * 3 * WIDTH];
        let mixed = &mut self.mixed[..rows * WIDTH];
        let inner = &mut self.inner[..rows * INNER];
        let scratch = &mut self.scratch;
        let lengths = vec![tokens as u32; batch];
        let norm = Norm {
            weight: &self.ones,
            bias: &self.zeros,
            eps: 1e-12,
        };
        for layer in &self.layers {
            layer.qkv.run(values, qkv, Then::Nothing, scratch);
            let sequences = Sequences {
                qkv,
                lengths: &lengths,
                heads: HEADS,
            };
            attention(self.kernels, sequences, 0..rows, mixed, scratch);
            layer.out.run(mixed, values, Then::Add, scratch);
            layer_norm(self.kernels, values, None, norm);
            layer.up.run(values, inner, Then::Gelu, scratch);
            layer.down.run(inner, values, Then::Add, scratch);
            layer_norm(self.kernels, values, None, norm);
        }
    }
}

/// Numbers in -1..1 that look random: a linear congruential generator.
pub(crate) fn noise(count: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
