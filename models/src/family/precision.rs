//! How exactly products are computed.

use candle_core::DType;
use serde::Deserialize;

use crate::kernel;

/// How factors of products are rounded. Sums are in 32 bits, and so is what stands between
/// products: normalizations, the exponentials of attention, activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Precision {
    /// To bfloat16, where the machine multiplies these faster.
    Bf16,
    /// To IEEE's half precision on a GPU. CPUs multiply these no faster: there it is `F32`.
    F16,
    /// Not at all.
    #[default]
    F32,
}

impl Precision {
    /// What factors are stored as where candle computes.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }
}

impl From<Precision> for kernel::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Bf16 => Self::Bf16,
            Precision::F16 | Precision::F32 => Self::F32,
        }
    }
}
