//! What a folder says beside its architecture: how tokens become one vector, whether that is
//! normalized, and how long a text may be.
//!
//! The files are those of sentence-transformers (`modules.json`, `1_Pooling/config.json`,
//! `sentence_bert_config.json`) and the tokenizer's own (`tokenizer_config.json`). What
//! `tokenizer.json` says about truncation and padding is *not* among them: it is a left-over of
//! whoever wrote that file last.

use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::error::{EncoderError, shown};
use crate::source::ModelSource;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's.
    Cls,
}

impl Pooling {
    /// As `model.toml` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
        }
    }
}

/// What the files beside `config.json` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
    /// Longest text in tokens, special ones included, as far as anything says it.
    pub(super) tokens_max: Option<usize>,
    /// Whether texts are written in lower case before they are cut into tokens.
    pub(super) lower_case: bool,
}

/// The one folder in which sentence-transformers writes how to pool.
const POOLING_FOLDER: &str = "1_Pooling";
/// Its file.
pub(super) const POOLING_FILE: &str = "1_Pooling/config.json";

impl Settings {
    /// Reads them. Without `modules.json` a folder is pooled as sentence-transformers pools it
    /// then: the mean, not normalized.
    ///
    /// # Errors
    /// [`EncoderError`] names the file and the field.
    pub(super) fn read(source: &ModelSource) -> Result<Self, EncoderError> {
        let normalize = modules(source)?;
        let pooling = pooling(source)?;
        let sentence = Document::read(source, "sentence_bert_config.json")?;
        let tokenizer = Document::read(source, "tokenizer_config.json")?;
        let stated = match &sentence {
            Some(json) => json.count("max_seq_length", 1..=usize::MAX)?,
            None => None,
        };
        let lower_case = match &sentence {
            Some(json) => json.flag("do_lower_case")?.unwrap_or(false),
            None => false,
        };
        let tokens_max = match (stated, &tokenizer) {
            (None, Some(json)) => model_max_length(json)?,
            (stated, _) => stated,
        };
        Ok(Self {
            pooling,
            normalize,
            tokens_max,
            lower_case,
        })
    }
}

/// Looks at every module; says whether the last normalizes.
fn modules(source: &ModelSource) -> Result<bool, EncoderError> {
    let Some(json) = Document::read(source, "modules.json")? else {
        return Ok(false);
    };
    let allowed = "a Transformer, then a Pooling in '1_Pooling', then perhaps a Normalize";
    let refused = |value: &Value| json.refused("modules", value, allowed);
    let modules = json
        .value()
        .as_array()
        .ok_or_else(|| refused(json.value()))?;
    let mut kinds = Vec::new();
    for module in modules {
        let text = |key| module.get(key).and_then(Value::as_str);
        let kind = text("type").ok_or_else(|| refused(module))?;
        let kind = kind.rsplit('.').next().unwrap_or(kind);
        if kind == "Pooling" && text("path") != Some(POOLING_FOLDER) {
            let path = module.get("path").unwrap_or(&Value::Null);
            return Err(json.refused("path of Pooling", path, format!("\"{POOLING_FOLDER}\"")));
        }
        kinds.push(kind);
    }
    match kinds[..] {
        ["Transformer"] | ["Transformer", "Pooling"] => Ok(false),
        ["Transformer", "Pooling", "Normalize"] => Ok(true),
        _ => Err(EncoderError::Field {
            file: "modules.json",
            field: "modules".to_owned(),
            value: shown(&kinds.join(", ")),
            allowed: allowed.to_owned(),
        }),
    }
}

fn pooling(source: &ModelSource) -> Result<Pooling, EncoderError> {
    let Some(json) = Document::read(source, POOLING_FILE)? else {
        return Ok(Pooling::Mean);
    };
    let allowed = "exactly one of pooling_mode_mean_tokens and pooling_mode_cls_token";
    let mut chosen = None;
    for (field, value) in json.value().as_object().into_iter().flatten() {
        let is_mode = field.starts_with("pooling_mode_") && value.as_bool() == Some(true);
        if !is_mode {
            continue;
        }
        let pooling = match field.as_str() {
            "pooling_mode_mean_tokens" => Pooling::Mean,
            "pooling_mode_cls_token" => Pooling::Cls,
            _ => return Err(json.refused(&shown(field), value, allowed)),
        };
        if chosen.replace(pooling).is_some() {
            return Err(json.refused(&shown(field), value, allowed));
        }
    }
    chosen.ok_or_else(|| json.refused("pooling_mode", &Value::Null, allowed))
}

/// Where a tokenizer has no limit, its file says 10³⁰.
fn model_max_length(json: &Document) -> Result<Option<usize>, EncoderError> {
    let Some(value) = json.field("model_max_length") else {
        return Ok(None);
    };
    match value.as_f64().filter(|length| *length >= 1.0) {
        Some(length) if length > NO_LIMIT => Ok(None),
        Some(length) => Ok(Some(length as usize)),
        None => Err(json.refused("model_max_length", value, "a number from 1 on")),
    }
}

/// A length beyond this is no length.
const NO_LIMIT: f64 = 1e9;
