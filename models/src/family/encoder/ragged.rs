//! The forward pass over kernels of our own: sequences of any lengths side by side, without
//! padding.
//!
//! Dense layers and normalizations work on the tokens of many sequences at once, so that weights
//! come from memory once for all of them; attention takes each sequence alone. A chunk of
//! sequences passes all layers before the next one begins, so what a layer leaves is still in the
//! cache when the next one reads it. Of a chunk, its tokens may be divided among threads, whichever
//! sequences they are of: keys and values of all are written before any query is answered. The kernels add each number's products in one order,
//! whatever stands beside it: an answer is the same to the last bit alone and in company, and
//! whoever computes it.

use std::sync::{Mutex, PoisonError};

use super::CHUNK_TOKENS;
use super::config::{Activation, Config};
use super::error::EncoderError;
use super::sequence::Row;
use super::weights::{self, Reader, Tables};
use crate::crew::{Crew, TOKENS_LEAST, at_once};
use crate::engine::LoadError;
use crate::kernel::{Kernels, Linear, Norm, Scratch, Sequences, Then, attention, layer_norm};

/// A loaded encoder without its tables.
pub(super) struct Ragged {
    kernels: Kernels,
    crew: Crew,
    norm: weights::Norm,
    layers: Vec<Layer>,
    activation: Then,
    /// What calls that are under way do not use.
    spare: Mutex<Vec<Buffers>>,
}

struct Layer {
    /// Queries, keys and values.
    qkv: Linear,
    output: Linear,
    attention_norm: weights::Norm,
    up: Linear,
    down: Linear,
    norm: weights::Norm,
}

/// What a call writes into, kept for the next one: none of it is read before it was written.
#[derive(Default)]
struct Buffers {
    hidden: Vec<f32>,
    qkv: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
    lengths: Vec<u32>,
    /// One for each part.
    scratch: Vec<Scratch>,
}

impl Ragged {
    /// Reads the layers, one at a time, and packs them.
    ///
    /// # Errors
    /// [`EncoderError::NotFinite`].
    pub(super) fn load(
        config: &Config,
        reader: &Reader<'_>,
        norm: &weights::Norm,
        (kernels, crew): (Kernels, Crew),
    ) -> Result<Self, LoadError> {
        let packed = |linear: &weights::Linear| {
            Linear::new(kernels, &linear.weight, &linear.bias, linear.inputs)
        };
        let layer = |number| {
            let layer = reader.layer(number).map_err(EncoderError::into_load)?;
            Ok(Layer {
                qkv: packed(&layer.qkv),
                output: packed(&layer.output),
                attention_norm: layer.attention_norm,
                up: packed(&layer.up),
                down: packed(&layer.down),
                norm: layer.norm,
            })
        };
        Ok(Self {
            kernels,
            crew,
            norm: norm.clone(),
            layers: (0..config.layers)
                .map(layer)
                .collect::<Result<_, LoadError>>()?,
            activation: match config.activation {
                Activation::Gelu => Then::Gelu,
                Activation::GeluTanh => Then::GeluTanh,
                Activation::Relu => Then::Relu,
            },
            spare: Mutex::default(),
        })
    }

    /// Gives the last layer's vectors of each row, `[tokens, width] f32`, to `take`, with the
    /// row's number, and returns among how many threads it was divided. Cost: `tokens · (4 · width² + 2 · width · inner) + 2 · tokens² · width`
    /// multiply-adds a layer for each row, and one pass over the weights for each chunk.
    pub(super) fn run(
        &self,
        tables: &Tables,
        config: &Config,
        rows: &[Row<'_>],
        take: &mut (dyn FnMut(usize, &[f32]) + Send),
    ) -> usize {
        let tokens = rows.iter().map(|row| row.tokens()).sum::<usize>();
        // The lesser of the two stages of a layer.
        let work = 3 * config.width * config.width;
        let tokens = tokens.min(CHUNK_TOKENS);
        let crew = &self.crew;
        crew.share((tokens, work), |parts| {
            self.run_in_parts(tables, config, (rows, parts), take);
            parts
        })
    }

    fn run_in_parts(
        &self,
        tables: &Tables,
        config: &Config,
        (rows, parts): (&[Row<'_>], usize),
        take: &mut (dyn FnMut(usize, &[f32]) + Send),
    ) {
        let mut buffers = self.lock().pop().unwrap_or_default();
        let mut first = 0;
        while first < rows.len() {
            let chunk = &rows[first..first + chunk_of(&rows[first..])];
            buffers.hidden.clear();
            buffers.lengths.clear();
            for row in chunk {
                tables.extend(config, *row, &mut buffers.hidden);
                buffers
                    .lengths
                    .push(u32::try_from(row.tokens()).expect("some thousand"));
            }
            self.pass(config, parts, &mut buffers);
            let mut hidden = &buffers.hidden[..];
            for (number, row) in chunk.iter().enumerate() {
                let own;
                (own, hidden) = hidden.split_at(row.tokens() * config.width);
                take(first + number, own);
            }
            first += chunk.len();
        }
        self.lock().push(buffers);
    }

    /// All layers over one chunk, in place and in so many parts at most.
    fn pass(&self, config: &Config, parts: usize, buffers: &mut Buffers) {
        let Buffers {
            hidden,
            qkv,
            context,
            inner,
            lengths,
            scratch,
        } = buffers;
        let tokens = hidden.len() / config.width;
        let qkv = at_least(qkv, tokens * 3 * config.width);
        let context = at_least(context, tokens * config.width);
        let inner = at_least(inner, tokens * config.inner);
        let normalize = |values: &mut [f32], norm: &weights::Norm| {
            let norm = Norm {
                weight: &norm.weight,
                bias: &norm.bias,
                eps: config.epsilon,
            };
            layer_norm(self.kernels, values, None, norm);
        };
        normalize(hidden, &self.norm);
        // Tokens of a part: whole tiles.
        let part = tokens.div_ceil(parts).next_multiple_of(TOKENS_LEAST);
        scratch.resize_with(tokens.div_ceil(part), Scratch::new);
        for layer in &self.layers {
            let parts = (hidden.chunks(part * config.width))
                .zip(qkv.chunks_mut(part * 3 * config.width))
                .zip(&mut *scratch);
            at_once(parts, |((hidden, qkv), scratch)| {
                layer.qkv.run(hidden, qkv, Then::Nothing, scratch);
            });
            let sequences = Sequences {
                qkv,
                lengths,
                heads: config.heads,
            };
            let parts = (hidden.chunks_mut(part * config.width))
                .zip(context.chunks_mut(part * config.width))
                .zip(inner.chunks_mut(part * config.inner))
                .zip(&mut *scratch)
                .enumerate();
            at_once(parts, |(number, (((hidden, context), inner), scratch))| {
                let first = number * part;
                let queries = first..first + context.len() / config.width;
                attention(self.kernels, sequences, queries, context, scratch);
                layer.output.run(context, hidden, Then::Add, scratch);
                normalize(hidden, &layer.attention_norm);
                layer.up.run(hidden, inner, self.activation, scratch);
                layer.down.run(inner, hidden, Then::Add, scratch);
                normalize(hidden, &layer.norm);
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffers>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many of the rows pass together: at least one.
fn chunk_of(rows: &[Row<'_>]) -> usize {
    let mut tokens = 0;
    let fits = |row: &&Row<'_>| {
        tokens += row.tokens();
        tokens <= CHUNK_TOKENS
    };
    rows.iter().take_while(fits).count().max(1)
}

/// The first `length` numbers of a buffer, which hold anything.
fn at_least(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}
