//! The forward pass over kernels of our own: sequences of any lengths side by side, without
//! padding.
//!
//! Dense layers and normalizations work on the tokens of many sequences at once, so that weights
//! come from memory once for all of them; attention takes each sequence alone. A chunk of
//! sequences passes all layers before the next one begins, so what a layer leaves is still in the
//! cache when the next one reads it.
//!
//! A chunk may be divided among threads. Of many tokens each takes its own through everything but
//! the keys and values, which are those of all before any query is answered. Of few tokens each
//! would read all weights for little: then each computes some columns of every dense layer.
//!
//! The kernels add each number's products in one order, whatever stands beside it: an answer is the
//! same to the last bit alone and in company, and whoever computes it.

use std::sync::{Mutex, PoisonError};

use super::CHUNK_TOKENS;
use super::config::{Activation, Config};
use super::error::EncoderError;
use super::sequence::Row;
use super::weights::{self, Reader, Tables};
use crate::crew::{Crew, Team};
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
    /// What threads have computed of a dense layer, block by block.
    blocks: Vec<f32>,
    lengths: Vec<u32>,
    /// One for each part.
    scratch: Vec<Scratch>,
}

/// The same for one chunk, of its size.
struct Chunk<'a> {
    hidden: &'a mut [f32],
    qkv: &'a mut [f32],
    context: &'a mut [f32],
    inner: &'a mut [f32],
    blocks: &'a mut Vec<f32>,
    lengths: &'a [u32],
    scratch: &'a mut [Scratch],
}

impl Buffers {
    fn chunk(&mut self, config: &Config, team: Team) -> Chunk<'_> {
        let tokens = self.hidden.len() / config.width;
        if self.scratch.len() < team.parts() {
            self.scratch.resize_with(team.parts(), Scratch::new);
        }
        Chunk {
            hidden: &mut self.hidden,
            qkv: at_least(&mut self.qkv, tokens * 3 * config.width),
            context: at_least(&mut self.context, tokens * config.width),
            inner: at_least(&mut self.inner, tokens * config.inner),
            blocks: &mut self.blocks,
            lengths: &self.lengths,
            scratch: &mut self.scratch,
        }
    }
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
    /// row's number, and returns among how many threads it was divided, of `threads_max`.
    ///
    /// Cost: `tokens · (4 · width² + 2 · width · inner) + 2 · tokens² · width` multiply-adds a layer
    /// for each row, and one pass over the weights for each chunk.
    pub(super) fn run(
        &self,
        tables: &Tables,
        config: &Config,
        (rows, threads_max): (&[Row<'_>], usize),
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> usize {
        let mut buffers = self.lock().pop().unwrap_or_default();
        let (mut first, mut threads) = (0, 1);
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
            // Queries, keys and values: of the large stages the one with the least to do.
            let work = buffers.hidden.len() * 3 * config.width;
            let parts = self.crew.share((threads_max, work), |team| {
                self.pass(config, team, &mut buffers);
                team.parts()
            });
            threads = threads.max(parts);
            let mut hidden = &buffers.hidden[..];
            for (number, row) in chunk.iter().enumerate() {
                let own;
                (own, hidden) = hidden.split_at(row.tokens() * config.width);
                take(first + number, own);
            }
            first += chunk.len();
        }
        self.lock().push(buffers);
        threads
    }

    /// All layers over one chunk, in place.
    fn pass(&self, config: &Config, team: Team, buffers: &mut Buffers) {
        let tokens = buffers.hidden.len() / config.width;
        // Tokens of a part: whole tiles.
        let part = tokens.div_ceil(team.parts()).next_multiple_of(TILE);
        self.normalize(config, &mut buffers.hidden, &self.norm);
        for layer in &self.layers {
            let chunk = buffers.chunk(config, team);
            if team.parts() > 1 && part < PART_LEAST {
                self.layer_by_columns(config, (layer, part), team, chunk);
            } else {
                self.layer_by_tokens(config, (layer, part), team, chunk);
            }
        }
    }

    /// Each thread takes its tokens through all of the layer.
    fn layer_by_tokens(
        &self,
        config: &Config,
        (layer, part): (&Layer, usize),
        team: Team,
        chunk: Chunk<'_>,
    ) {
        let Chunk {
            hidden,
            qkv,
            context,
            inner,
            lengths,
            scratch,
            ..
        } = chunk;
        let parts = (hidden.chunks(part * config.width))
            .zip(qkv.chunks_mut(part * 3 * config.width))
            .zip(&mut *scratch);
        team.at_once(parts, |((hidden, qkv), scratch)| {
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
            .zip(scratch)
            .enumerate();
        team.at_once(parts, |(number, (((hidden, context), inner), scratch))| {
            let queries = number * part..number * part + context.len() / config.width;
            attention(self.kernels, sequences, queries, context, scratch);
            layer.output.run(context, hidden, Then::Add, scratch);
            self.normalize(config, hidden, &layer.attention_norm);
            layer.up.run(hidden, inner, self.activation, scratch);
            layer.down.run(inner, hidden, Then::Add, scratch);
            self.normalize(config, hidden, &layer.norm);
        });
    }

    /// Each thread computes some columns of each dense layer, of all tokens.
    fn layer_by_columns(
        &self,
        config: &Config,
        (layer, part): (&Layer, usize),
        team: Team,
        chunk: Chunk<'_>,
    ) {
        let Chunk {
            hidden,
            qkv,
            context,
            inner,
            blocks,
            lengths,
            scratch,
        } = chunk;
        by_columns(
            &layer.qkv,
            hidden,
            (qkv, Then::Nothing),
            team,
            (blocks, scratch),
        );
        let sequences = Sequences {
            qkv,
            lengths,
            heads: config.heads,
        };
        let parts = context.chunks_mut(part * config.width);
        let parts = parts.zip(&mut *scratch).enumerate();
        team.at_once(parts, |(number, (context, scratch))| {
            let queries = number * part..number * part + context.len() / config.width;
            attention(self.kernels, sequences, queries, context, scratch);
        });
        by_columns(
            &layer.output,
            context,
            (hidden, Then::Add),
            team,
            (blocks, scratch),
        );
        self.normalize(config, hidden, &layer.attention_norm);
        by_columns(
            &layer.up,
            hidden,
            (inner, self.activation),
            team,
            (blocks, scratch),
        );
        by_columns(
            &layer.down,
            inner,
            (hidden, Then::Add),
            team,
            (blocks, scratch),
        );
        self.normalize(config, hidden, &layer.norm);
    }

    fn normalize(&self, config: &Config, values: &mut [f32], norm: &weights::Norm) {
        let norm = Norm {
            weight: &norm.weight,
            bias: &norm.bias,
            eps: config.epsilon,
        };
        layer_norm(self.kernels, values, None, norm);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffers>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A dense layer whose blocks of columns are divided among a team. They are computed side by side in
/// `blocks`, and then copied to where they go.
fn by_columns(
    layer: &Linear,
    input: &[f32],
    (output, then): (&mut [f32], Then),
    team: Team,
    (blocks, scratch): (&mut Vec<f32>, &mut [Scratch]),
) {
    let (tokens, width) = (input.len() / layer.inputs(), layer.outputs());
    let blocks = at_least(blocks, output.len());
    let mut rest = &mut *blocks;
    let of_each: Vec<_> = layer.blocks().enumerate().collect();
    let mut of_each: Vec<_> = (of_each.into_iter())
        .map(|(number, columns)| {
            let own;
            (own, rest) = std::mem::take(&mut rest).split_at_mut(tokens * columns.len());
            (number, columns, own)
        })
        .collect();
    let each = of_each.len().div_ceil(team.parts());
    let before = &*output;
    let parts = of_each.chunks_mut(each).zip(scratch);
    team.at_once(parts, |(blocks, scratch)| {
        for (number, columns, own) in blocks {
            if then == Then::Add {
                let rows = before.chunks_exact(width);
                for (own, row) in own.chunks_exact_mut(columns.len()).zip(rows) {
                    own.copy_from_slice(&row[columns.clone()]);
                }
            }
            layer.run_block(*number, (input, own), then, scratch);
        }
    });
    for (_, columns, own) in of_each {
        let rows = output.chunks_exact_mut(width);
        for (row, own) in rows.zip(own.chunks_exact(columns.len())) {
            row[columns.clone()].copy_from_slice(own);
        }
    }
}

/// Rows of the largest tile.
const TILE: usize = 8;
/// Tokens of a part that are worth reading all weights for.
const PART_LEAST: usize = 32;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Level, Precision};

    #[test]
    fn columns_of_a_layer_are_the_same_whoever_computes_them() {
        let numbers = |count: usize, step: usize| -> Vec<f32> {
            let number = |i: usize| ((i * step) % 101) as f32 / 50.0 - 1.0;
            (0..count).map(number).collect()
        };
        let (tokens, inputs, outputs) = (5, 40, 300);
        let (weight, bias) = (numbers(inputs * outputs, 37), numbers(outputs, 11));
        let (input, before) = (numbers(tokens * inputs, 7), numbers(tokens * outputs, 3));
        for level in Level::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let kernels = Kernels::on(level, precision);
                let layer = Linear::new(kernels, &weight, &bias, inputs);
                for then in [Then::Nothing, Then::Gelu, Then::Add] {
                    let mut whole = before.clone();
                    layer.run(&input, &mut whole, then, &mut Scratch::new());
                    for threads in 1..6 {
                        let crew = Crew::eager(threads, || {});
                        let mut scratch: Vec<_> = (0..threads).map(|_| Scratch::new()).collect();
                        let (mut output, mut blocks) = (before.clone(), vec![f32::NAN; 9]);
                        crew.share((threads, usize::MAX), |team| {
                            let into = (&mut output[..], then);
                            by_columns(&layer, &input, into, team, (&mut blocks, &mut scratch));
                        });
                        assert_eq!(output, whole, "{kernels:?} {then:?} {threads}");
                    }
                }
            }
        }
    }
}
