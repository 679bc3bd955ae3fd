//! How an encoder's factors are rounded, as a push may choose it.

use serde::{Deserialize, Serialize};

/// How an encoder's factors shall be rounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecisionChoice {
    /// The precision.
    pub precision: Precision,
    /// Texts to compare both by; the node's own, if there are none.
    #[serde(default)]
    pub calibration: Vec<String>,
    /// Whether a choice stands that turns vectors by more than
    /// [`PRECISION_COSINE_LEAST_PPM`](crate::limits::PRECISION_COSINE_LEAST_PPM) allows.
    #[serde(default)]
    pub force: bool,
}

/// A precision, as `model.toml` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nothing is rounded.
    F32,
    /// Factors of products are rounded to bfloat16, where a machine multiplies these faster.
    Bf16,
}

/// What both precisions gave, on the node that was asked and on one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrecisionReport {
    /// The one that was chosen.
    pub precision: Precision,
    /// Texts that were computed.
    pub texts: u32,
    /// The least cosine between vectors of `f32` and of `bf16`, in millionths.
    pub cosine_min_ppm: i32,
    /// Their mean.
    pub cosine_mean_ppm: i32,
    /// Time of a text in `f32`, in nanoseconds.
    pub f32_text_ns: u64,
    /// The same in `bf16`.
    pub bf16_text_ns: u64,
    /// Whether that node rounds at all: one that does not multiply bfloat16 faster does not, and
    /// then its cosines say nothing of one that does.
    pub is_rounded: bool,
}
