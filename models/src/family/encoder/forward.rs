//! The forward pass in candle's own operations: plain, the same on every device, and what the
//! kernels are held to.
//!
//! Nothing is padded. Dense layers and normalizations work on the tokens of all sequences, end to
//! end; attention takes sequences of one length side by side, as one product of as many
//! matrices. Factors of products are rounded to one type; all else is in 32 bits. Source: Vaswani
//! et al., *Attention Is All You Need* (2017), sections 3.1 to 3.3, with normalization behind
//! each half of a layer, as BERT has it.

use candle_core::{D, DType, Device, Result, Tensor};

use super::config::{Activation, Config};
use super::error::EncoderError;
use super::settings::Pooling;
use super::weights::{Linear, Norm, Reader, Tables};
use crate::engine::LoadError;
use crate::family::Affine;
use crate::family::affine::{failed, refused};
use crate::offload::Offload;

/// A loaded encoder, with its tables.
pub(super) struct Forward {
    tables: Vec<Tensor>,
    norm: Normalize,
    layers: Vec<Layer>,
    heads: usize,
    width: usize,
    activation: Activation,
    dtype: DType,
    /// Scores of attention that are in memory at a time.
    scores_max: usize,
}

/// Sequences of one length, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) rows: usize,
    /// Of each row.
    pub(super) tokens: usize,
}

struct Layer {
    qkv: Affine,
    output: Affine,
    attention_norm: Normalize,
    up: Affine,
    down: Affine,
    norm: Normalize,
}

struct Normalize {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

/// Where weights go, and as what.
#[derive(Clone, Copy)]
struct Place<'a> {
    offload: &'a dyn Offload,
    dtype: DType,
}

impl Forward {
    /// Reads the tables and the layers, one at a time.
    ///
    /// # Errors
    /// [`EncoderError::NotFinite`], or the offload's.
    pub(super) fn load(
        config: &Config,
        reader: &Reader<'_>,
        dtype: DType,
        offload: &dyn Offload,
    ) -> std::result::Result<Self, LoadError> {
        let place = Place { offload, dtype };
        let Tables {
            words,
            positions,
            segments,
            norm,
        } = reader.tables().map_err(EncoderError::into_load)?;
        let tables = [words, positions, segments];
        let tables = tables.into_iter().filter(|table| !table.is_empty());
        let layer = |number| {
            let layer = reader.layer(number).map_err(EncoderError::into_load)?;
            Layer::load(layer, config.epsilon, place)
        };
        Ok(Self {
            tables: tables
                .map(|table| place.table(table, config.width))
                .collect::<std::result::Result<_, _>>()?,
            norm: place.normalize(norm, config.epsilon)?,
            layers: (0..config.layers)
                .map(layer)
                .collect::<std::result::Result<_, _>>()?,
            heads: config.heads,
            width: config.width,
            activation: config.activation,
            dtype,
            scores_max: offload.pass_limits().scores,
        })
    }

    /// One vector a row, `[rows, width] f32`, of sequences that stand end to end in `groups`.
    /// `places` is `[tables · tokens] u32`: for each table in turn, a row of it for each token;
    /// tables that the architecture lacks are left out. Cost: `tokens · (4 · width² +
    /// 2 · width · inner) + 2 · tokens² · width` multiply-adds a layer for each row, and one
    /// pass over the weights.
    pub(super) fn pooled(
        &self,
        places: &Tensor,
        groups: &[Group],
        pooling: Pooling,
        normalize: bool,
    ) -> Result<Tensor> {
        let hidden = self.hidden(places, groups)?;
        let mut pooled = Vec::with_capacity(groups.len());
        let mut first = 0;
        for group in groups {
            let own = hidden.narrow(0, first, group.rows * group.tokens)?;
            let own = own.reshape((group.rows, group.tokens, self.width))?;
            pooled.push(match pooling {
                Pooling::Cls => own.narrow(1, 0, 1)?.reshape((group.rows, self.width))?,
                Pooling::Mean => own.mean(1)?,
            });
            first += group.rows * group.tokens;
        }
        let pooled = Tensor::cat(&pooled, 0)?;
        if !normalize {
            return Ok(pooled);
        }
        let length = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        pooled.broadcast_div(&length.maximum(f64::from(super::pooling::LENGTH_MIN))?)
    }

    /// The last layer's vectors: `[tokens, width] f32`.
    fn hidden(&self, places: &Tensor, groups: &[Group]) -> Result<Tensor> {
        let tokens = groups.iter().map(|group| group.rows * group.tokens).sum();
        let mut sums = None;
        for (number, table) in self.tables.iter().enumerate() {
            let rows = table.index_select(&places.narrow(0, number * tokens, tokens)?, 0)?;
            let rows = rows.to_dtype(DType::F32)?;
            sums = Some(match sums {
                None => rows,
                Some(sums) => (sums + rows)?,
            });
        }
        let sums = sums.expect("every architecture has words and positions");
        let mut x = self.norm.apply(&sums)?;
        for layer in &self.layers {
            let context = self.attend(&layer.qkv.apply(&x)?, groups)?;
            let around = (&x + layer.output.apply(&context)?)?;
            x = layer.attention_norm.apply(&around)?;
            let inner = layer.up.apply(&x)?;
            let inner = match self.activation {
                Activation::Gelu => inner.gelu_erf()?,
                Activation::GeluTanh => inner.gelu()?,
                Activation::Relu => inner.relu()?,
            };
            x = layer.norm.apply(&(&x + layer.down.apply(&inner)?)?)?;
        }
        Ok(x)
    }

    /// `[tokens, 3 · width] f32` → `[tokens, width] f32`, each sequence among itself.
    fn attend(&self, qkv: &Tensor, groups: &[Group]) -> Result<Tensor> {
        let size = self.width / self.heads;
        // Roots of 1/√d on either side keep products of halves away from their largest number.
        let scale = (size as f64).powf(-0.25);
        let query_and_key = (qkv.narrow(1, 0, 2 * self.width)? * scale)?;
        let query_and_key = query_and_key.to_dtype(self.dtype)?;
        let value = qkv.narrow(1, 2 * self.width, self.width)?;
        let value = value.to_dtype(self.dtype)?;
        let mut contexts = Vec::with_capacity(groups.len());
        let mut first = 0;
        for group in groups {
            let tokens = group.rows * group.tokens;
            let heads = |of: &Tensor, part: usize| {
                of.narrow(0, first, tokens)?
                    .narrow(1, part * self.width, self.width)?
                    .reshape((group.rows, group.tokens, self.heads, size))?
                    .transpose(1, 2)?
                    .reshape((group.rows * self.heads, group.tokens, size))
            };
            let context = self.attend_alike(
                &heads(&query_and_key, 0)?,
                &heads(&query_and_key, 1)?.transpose(1, 2)?,
                &heads(&value, 0)?,
            )?;
            let context = context
                .reshape((group.rows, self.heads, group.tokens, size))?
                .transpose(1, 2)?
                .reshape((tokens, self.width))?;
            contexts.push(context);
            first += tokens;
        }
        Tensor::cat(&contexts, 0)
    }

    /// softmax(q · k) · v of `[heads, tokens, size]`, `[heads, size, tokens]` and
    /// `[heads, tokens, size]`, in groups of heads whose scores fit in memory: `f32`.
    fn attend_alike(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let (heads, tokens, _) = query.dims3()?;
        let group = (self.scores_max / (tokens * tokens)).clamp(1, heads);
        let mut parts = Vec::with_capacity(heads.div_ceil(group));
        for first in (0..heads).step_by(group) {
            let count = group.min(heads - first);
            let scores = query
                .narrow(0, first, count)?
                .matmul(&key.narrow(0, first, count)?)?
                .to_dtype(DType::F32)?;
            let scores = scores
                .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
                .exp()?;
            let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
            let weights = weights.to_dtype(self.dtype)?;
            parts.push(weights.matmul(&value.narrow(0, first, count)?)?);
        }
        Tensor::cat(&parts, 0)?.to_dtype(DType::F32)
    }
}

impl Layer {
    fn load(
        layer: super::weights::Layer,
        epsilon: f32,
        place: Place<'_>,
    ) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            qkv: place.affine(layer.qkv)?,
            output: place.affine(layer.output)?,
            attention_norm: place.normalize(layer.attention_norm, epsilon)?,
            up: place.affine(layer.up)?,
            down: place.affine(layer.down)?,
            norm: place.normalize(layer.norm, epsilon)?,
        })
    }
}

impl Place<'_> {
    fn affine(self, linear: Linear) -> std::result::Result<Affine, LoadError> {
        Affine::load(linear.weight, linear.bias, self.dtype, self.offload)
    }

    fn table(self, values: Vec<f32>, width: usize) -> std::result::Result<Tensor, LoadError> {
        let shape = (values.len() / width, width);
        let table = Tensor::from_vec(values, shape, &Device::Cpu);
        let table = table.and_then(|table| table.to_dtype(self.dtype));
        self.offload.upload(table.map_err(failed)?).map_err(refused)
    }

    /// Of normalizations, which stay in 32 bits.
    fn normalize(self, norm: Norm, epsilon: f32) -> std::result::Result<Normalize, LoadError> {
        let upload = |values: Vec<f32>| {
            let vector = Tensor::new(&values[..], &Device::Cpu).map_err(failed)?;
            self.offload.upload(vector).map_err(refused)
        };
        Ok(Normalize {
            weight: upload(norm.weight)?,
            bias: upload(norm.bias)?,
            epsilon: f64::from(epsilon),
        })
    }
}

impl Normalize {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (variance + self.epsilon)?.sqrt()?;
        centred
            .broadcast_div(&scale)?
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)
    }
}
