//! Where families send arrays when something other than the calling thread computes them.
//!
//! A family says what is computed in candle's operations, which are the same on every device;
//! an offload says where. What runs on a GPU is so, operation by operation, what tests run on the
//! CPU.

use std::fmt;

use candle_core::{Device, Result, Tensor as Array};

use crate::engine::RunError;

/// A place where arrays are computed.
pub(crate) trait Offload: Send + Sync + fmt::Debug {
    /// Copies an array of main memory there, where it stays until it is dropped.
    ///
    /// # Errors
    /// No memory is left there, or the device is lost.
    fn upload(&self, array: Array) -> std::result::Result<Array, RunError>;

    /// Copies `work.input` there, computes, and copies the outcome back. Returns when that is
    /// done; may be called from several threads at once.
    ///
    /// # Errors
    /// The computation's, or that the device is lost.
    fn run(&self, work: Work) -> std::result::Result<Vec<f32>, RunError>;

    /// How much is computed at a time.
    fn pass_limits(&self) -> PassLimits;
}

/// A batch, or a part of one, as a device computes it.
pub(crate) struct Work {
    /// What it is computed from.
    pub(crate) input: Input,
    /// Numbers of the outcome.
    pub(crate) outputs: usize,
    /// From the input, `[length]`, to the outcome, f32 of any shape. Only starts the operations:
    /// reads no number back.
    pub(crate) compute: Compute,
}

/// What a device does with an input.
pub(crate) type Compute = Box<dyn FnOnce(Array) -> Result<Array> + Send>;

/// Numbers that cross to a device.
pub(crate) enum Input {
    /// Rows of tables.
    U32(Vec<u32>),
    /// Rows of numbers.
    F32(Vec<f32>),
}

/// How much a device takes at a time: what bounds the memory of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PassLimits {
    /// Tokens that pass together, unless a single sequence has more.
    pub(crate) tokens: usize,
    /// Scores of attention that are in memory at a time, unless those of a single head of a
    /// single sequence are more.
    pub(crate) scores: usize,
}

impl PassLimits {
    /// On a GPU. A pass of 32,768 tokens keeps an H100 busy for milliseconds, and a batch of 256
    /// texts of 128 tokens passes at once; 2²⁶ scores are 256 MiB, five times.
    pub(crate) const GPU: Self = Self {
        tokens: 1 << 15,
        scores: 1 << 26,
    };
}

/// candle's operations on the calling thread: the reference that kernels and devices are held to.
/// candle splits large products over threads of its own unless `RAYON_NUM_THREADS` is 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) limits: PassLimits,
}

impl Host {
    /// Each sequence passes alone, so that no row can know of another.
    pub(crate) const REFERENCE: Self = Self {
        limits: PassLimits {
            tokens: 1,
            scores: 1 << 22,
        },
    };

    /// Sequences pass together, as they do on a device.
    #[cfg(test)]
    pub(crate) fn with_limits(limits: PassLimits) -> Self {
        Self { limits }
    }
}

impl Offload for Host {
    fn upload(&self, array: Array) -> std::result::Result<Array, RunError> {
        Ok(array)
    }

    fn run(&self, work: Work) -> std::result::Result<Vec<f32>, RunError> {
        let input = work.input.into_array()?;
        let outcome = (work.compute)(input)?.flatten_all()?.to_vec1()?;
        assert_eq!(outcome.len(), work.outputs, "as the family said");
        Ok(outcome)
    }

    fn pass_limits(&self) -> PassLimits {
        self.limits
    }
}

impl Input {
    fn into_array(self) -> Result<Array> {
        match self {
            Self::U32(values) => vector(values),
            Self::F32(values) => vector(values),
        }
    }
}

fn vector<T: candle_core::WithDType>(values: Vec<T>) -> Result<Array> {
    let length = values.len();
    Array::from_vec(values, length, &Device::Cpu)
}
