//! `model.toml` as text: its keys, and nothing about what they mean together.

use paceline_protocol::TensorSpec;
use serde::Deserialize;

use crate::family::{Activation, EncoderSection, Family, Head, Precision};
use crate::folder::RecogniseError;

/// Every key of a `model.toml`. Unknown ones are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) family: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) license: Option<String>,
    #[serde(default)]
    pub(crate) finite_inputs: Option<bool>,
    /// Not of an encoder, whose folder says them.
    #[serde(default)]
    pub(crate) inputs: Vec<TensorSpec>,
    #[serde(default)]
    pub(crate) outputs: Vec<TensorSpec>,
    #[serde(default)]
    pub(crate) batching: Batching,
    #[serde(default)]
    pub(crate) mlp: Option<MlpSection>,
    #[serde(default)]
    pub(crate) encoder: Option<EncoderSection>,
}

/// `[batching]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Batching {
    /// Largest batch, in rows.
    pub(crate) rows_max: u32,
}

impl Default for Batching {
    /// 64 rows: past it, small models gain little from being larger, and all wait longer.
    fn default() -> Self {
        Self { rows_max: 64 }
    }
}

/// `[mlp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MlpSection {
    pub(crate) weights: String,
    pub(crate) activation: Activation,
    pub(crate) head: Head,
    #[serde(default)]
    pub(crate) labels: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) threshold: Option<f32>,
    #[serde(default)]
    pub(crate) precision: Precision,
}

/// The one key that decides which others are known.
#[derive(Deserialize)]
struct Claim {
    family: String,
}

impl Declaration {
    /// Parses the text. A family that is not served is told before any of its keys are.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, RecogniseError> {
        let text = std::str::from_utf8(text).map_err(|error| RecogniseError::Declaration {
            line: line_of(text, error.valid_up_to()),
            message: "not UTF-8".into(),
        })?;
        let refused = |error: toml::de::Error| RecogniseError::Declaration {
            line: line_of(text.as_bytes(), error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        };
        let claim: Claim = toml::from_str(text).map_err(refused)?;
        if Family::named(&claim.family).is_none() {
            let family = claim.family.chars().take(64).collect();
            return Err(RecogniseError::Family { family });
        }
        toml::from_str(text).map_err(refused)
    }
}

fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
