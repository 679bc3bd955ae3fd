//! The forward pass as candle's own operations: slow, plain, and what the kernels are held to.
//!
//! Sequences pass one by one, so nothing is padded and no row can know of another. Products are
//! candle's, which splits large ones over a pool of threads of its own: whoever wants one thread
//! sets `RAYON_NUM_THREADS=1`. Source: Vaswani et al., *Attention Is All You Need* (2017),
//! sections 3.1 to 3.3, with normalization behind each half of a layer, as BERT has it.

use candle_core::{D, Device, Result, Tensor};

use super::config::{Activation, Config};
use super::error::EncoderError;
use super::weights::{Linear, Norm, Reader};
use crate::engine::LoadError;

/// A loaded encoder without its tables.
pub(super) struct Reference {
    norm: Normalize,
    layers: Vec<Layer>,
    heads: usize,
    width: usize,
    activation: Activation,
}

struct Layer {
    qkv: Affine,
    output: Affine,
    attention_norm: Normalize,
    up: Affine,
    down: Affine,
    norm: Normalize,
}

/// `x · Wᵀ + b`
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

struct Normalize {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

/// Scores of attention that are in memory at a time, in numbers: heads of long sequences are
/// taken in groups.
pub(super) const SCORES_MAX: usize = 1 << 22;

impl Reference {
    /// Reads the layers; `norm` is that of the tables.
    pub(super) fn load(
        config: &Config,
        reader: &Reader<'_>,
        norm: &Norm,
    ) -> std::result::Result<Self, LoadError> {
        let failed = |error: candle_core::Error| LoadError::Engine {
            message: error.to_string(),
        };
        let layer = |number| -> std::result::Result<Layer, LoadError> {
            let parts = reader.layer(number).map_err(EncoderError::into_load)?;
            let layer = || {
                Ok(Layer {
                    qkv: Affine::new(parts.qkv)?,
                    output: Affine::new(parts.output)?,
                    attention_norm: Normalize::new(&parts.attention_norm, config.epsilon)?,
                    up: Affine::new(parts.up)?,
                    down: Affine::new(parts.down)?,
                    norm: Normalize::new(&parts.norm, config.epsilon)?,
                })
            };
            layer().map_err(failed)
        };
        Ok(Self {
            norm: Normalize::new(norm, config.epsilon).map_err(failed)?,
            layers: (0..config.layers)
                .map(layer)
                .collect::<std::result::Result<_, _>>()?,
            heads: config.heads,
            width: config.width,
            activation: config.activation,
        })
    }

    /// The last layer's vectors of one sequence: `[tokens, width] f32`, from the sums of its
    /// tables. Cost: `tokens · (4 · width² + 2 · width · inner) + 2 · tokens² · width`
    /// multiply-adds a layer.
    pub(super) fn hidden(&self, sums: Vec<f32>) -> Result<Vec<f32>> {
        let tokens = sums.len() / self.width;
        let sums = Tensor::from_vec(sums, (tokens, self.width), &Device::Cpu)?;
        let mut x = self.norm.apply(&sums)?;
        for layer in &self.layers {
            let context = self.attend(&layer.qkv.apply(&x)?, tokens)?;
            x = layer
                .attention_norm
                .apply(&(&x + layer.output.apply(&context)?)?)?;
            let inner = layer.up.apply(&x)?;
            let inner = match self.activation {
                Activation::Gelu => inner.gelu_erf()?,
                Activation::GeluTanh => inner.gelu()?,
                Activation::Relu => inner.relu()?,
            };
            x = layer.norm.apply(&(&x + layer.down.apply(&inner)?)?)?;
        }
        x.flatten_all()?.to_vec1()
    }

    /// `[tokens, 3 · width]` → softmax(q · kᵀ / √d) · v for each head → `[tokens, width]`.
    fn attend(&self, qkv: &Tensor, tokens: usize) -> Result<Tensor> {
        let size = self.width / self.heads;
        let heads = |part: usize| {
            qkv.narrow(1, part * self.width, self.width)?
                .reshape((tokens, self.heads, size))?
                .transpose(0, 1)?
                .contiguous()
        };
        let query = (heads(0)? / (size as f64).sqrt())?;
        let (key, value) = (heads(1)?.transpose(1, 2)?, heads(2)?);
        let group = (SCORES_MAX / (tokens * tokens)).clamp(1, self.heads);
        let mut groups = Vec::with_capacity(self.heads.div_ceil(group));
        for first in (0..self.heads).step_by(group) {
            let count = group.min(self.heads - first);
            let scores = query
                .narrow(0, first, count)?
                .matmul(&key.narrow(0, first, count)?)?;
            let scores = scores
                .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
                .exp()?;
            let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
            groups.push(weights.matmul(&value.narrow(0, first, count)?)?);
        }
        Tensor::cat(&groups, 0)?
            .transpose(0, 1)?
            .reshape((tokens, self.width))
    }
}

impl Affine {
    fn new(linear: Linear) -> Result<Self> {
        let shape = (linear.outputs, linear.inputs);
        Ok(Self {
            weight: Tensor::from_vec(linear.weight, shape, &Device::Cpu)?.t()?,
            bias: Tensor::from_vec(linear.bias, linear.outputs, &Device::Cpu)?,
        })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Normalize {
    fn new(norm: &Norm, epsilon: f32) -> Result<Self> {
        Ok(Self {
            weight: Tensor::new(&norm.weight[..], &Device::Cpu)?,
            bias: Tensor::new(&norm.bias[..], &Device::Cpu)?,
            epsilon: f64::from(epsilon),
        })
    }

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
