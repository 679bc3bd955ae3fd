//! `config.json`: which architecture a folder holds, and how large it is.
//!
//! Keys and their meaning are those of Hugging Face's `transformers`: `BertConfig`,
//! `RobertaConfig`, `XLMRobertaConfig` and `DistilBertConfig`.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::document::Document;
use super::error::{EncoderError, shown};
use super::layout::Layout;
use crate::family::Head;
use crate::source::{CONFIG_BYTES_MAX, ModelSource};

/// Sizes and choices of an encoder, each within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) layout: Layout,
    /// What `config.json` calls it; the name of a model whose author gave it none.
    pub(super) name: String,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Of a token between layers.
    pub(super) width: usize,
    /// Of a token inside a layer's second half.
    pub(super) inner: usize,
    pub(super) vocabulary: usize,
    /// Rows of the table of positions.
    pub(super) positions: usize,
    /// Rows of the table of segments; 0 where there is none.
    pub(super) segments: usize,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    /// Where RoBERTa's positions count from.
    pub(super) pad: u32,
    /// Of a classifier.
    pub(super) classifier: Option<Classifier>,
}

/// The function between the two products of a layer's second half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// x · Φ(x), by the error function.
    Gelu,
    /// Its approximation by the hyperbolic tangent.
    GeluTanh,
    /// max(x, 0)
    Relu,
}

/// What a head for classes says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classifier {
    /// Names of the classes, in the order of the head's outputs.
    pub(super) labels: Vec<String>,
    /// How scores follow from them: a distribution where one class applies, a probability each
    /// where any number may, or as they are.
    pub(super) scores: Head,
}

/// Layers: the largest encoders in use (XLM-R XL and XXL) have 36 and 48.
const LAYERS: RangeInclusive<usize> = 1..=64;
/// Heads of attention: XLM-R XXL has 32.
const HEADS: RangeInclusive<usize> = 1..=64;
/// Width of a token: XLM-R XXL has 4,096.
const WIDTH: RangeInclusive<usize> = 1..=4096;
/// Width inside of a layer: four times the width, everywhere.
const INNER: RangeInclusive<usize> = 1..=16_384;
/// Tokens in a vocabulary: LaBSE has 501,153.
const VOCABULARY: RangeInclusive<usize> = 1..=1_000_000;
/// Positions: bge-m3 has 8,192, and the two that RoBERTa leaves unused.
const POSITIONS: RangeInclusive<usize> = 1..=8_194;
/// Segments: two texts are told apart.
const SEGMENTS: RangeInclusive<usize> = 1..=16;
/// Classes: large taxonomies have a few thousand.
const LABELS_MAX: usize = 10_000;
/// Name of a class, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// What a `config.json` of Hugging Face's says that it is; `None` if it is none.
pub(super) fn model_type(config: &[u8]) -> Option<String> {
    if config.len() as u64 > CONFIG_BYTES_MAX {
        return None;
    }
    let value: Value = serde_json::from_slice(config).ok()?;
    let architecture = || value.get("architectures")?.get(0)?.as_str();
    value
        .get("model_type")
        .and_then(Value::as_str)
        .or_else(architecture)
        .map(str::to_owned)
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`EncoderError`] names the field, its value and what is allowed.
    pub(super) fn read(source: &ModelSource) -> Result<Self, EncoderError> {
        let missing = EncoderError::Missing {
            file: "config.json",
            needs: "says which architecture the weights are of",
        };
        let json = Document::read(source, "config.json")?.ok_or(missing)?;
        let layout = layout(&json)?;
        let keys = layout.keys();
        let width = json.needed(keys.width, WIDTH)?;
        let heads = json.needed(keys.heads, HEADS)?;
        if !width.is_multiple_of(heads) {
            let value = json.field(keys.heads).expect("it was read");
            let allowed = format!("a divisor of {}, which is {width}", keys.width);
            return Err(json.refused(keys.heads, value, allowed));
        }
        check_variants(&json)?;
        Ok(Self {
            name: name(&json, layout),
            layers: json.needed(keys.layers, LAYERS)?,
            heads,
            width,
            inner: json.needed(keys.inner, INNER)?,
            vocabulary: json.needed("vocab_size", VOCABULARY)?,
            positions: json.needed("max_position_embeddings", POSITIONS)?,
            segments: match layout {
                Layout::DistilBert => 0,
                Layout::Bert => json.count("type_vocab_size", SEGMENTS)?.unwrap_or(2),
                // RobertaConfig inherits BERT's 2, but every checkpoint says 1.
                Layout::Roberta => json.count("type_vocab_size", SEGMENTS)?.unwrap_or(2),
            },
            epsilon: epsilon(&json, layout)?,
            activation: activation(&json, keys.activation)?,
            pad: pad(&json, layout)?,
            classifier: classifier(&json)?,
            layout,
        })
    }

    /// Tokens of the longest sequence that there are positions for.
    pub(super) fn tokens_max(&self) -> usize {
        match self.layout {
            Layout::Roberta => self.positions.saturating_sub(self.pad as usize + 1),
            Layout::Bert | Layout::DistilBert => self.positions,
        }
    }
}

fn layout(json: &Document) -> Result<Layout, EncoderError> {
    let named = json.text("model_type")?;
    named.and_then(Layout::of).ok_or_else(|| {
        let architecture = || json.field("architectures")?.get(0)?.as_str();
        EncoderError::ModelType {
            model_type: shown(named.or_else(architecture).unwrap_or("none")),
            served: Layout::SERVED,
        }
    })
}

/// Refuses what changes the computation and is not computed.
fn check_variants(json: &Document) -> Result<(), EncoderError> {
    for field in ["is_decoder", "add_cross_attention"] {
        if json.flag(field)? == Some(true) {
            let value = json.field(field).expect("it was read");
            return Err(json.refused(field, value, "false: encoders look both ways"));
        }
    }
    match json.text("position_embedding_type")? {
        None | Some("absolute") => Ok(()),
        Some(_) => {
            let field = "position_embedding_type";
            let value = json.field(field).expect("it was read");
            Err(json.refused(field, value, "\"absolute\""))
        }
    }
}

/// The last part of what the author called it, where that is a model's name.
fn name(json: &Document, layout: Layout) -> String {
    let path = json.field("_name_or_path").and_then(Value::as_str);
    path.and_then(|path| path.rsplit('/').find(|part| !part.is_empty()))
        .map(str::to_lowercase)
        .filter(|name| paceline_protocol::ModelName::new(name.clone()).is_ok())
        .unwrap_or_else(|| layout.name().to_owned())
}

fn epsilon(json: &Document, layout: Layout) -> Result<f32, EncoderError> {
    let value = json.field("layer_norm_eps");
    let Some(value) = value.filter(|_| layout != Layout::DistilBert) else {
        return Ok(1e-12); // the default of all four, and the only one of DistilBERT
    };
    match value.as_f64().filter(|value| (0.0..=0.01).contains(value)) {
        Some(epsilon) => Ok(epsilon as f32),
        None => Err(json.refused("layer_norm_eps", value, "0 to 0.01")),
    }
}

fn activation(json: &Document, field: &'static str) -> Result<Activation, EncoderError> {
    match json.text(field)? {
        None | Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some(_) => {
            let value = json.field(field).expect("it was read");
            let allowed = "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\" or \"relu\"";
            Err(json.refused(field, value, allowed))
        }
    }
}

fn pad(json: &Document, layout: Layout) -> Result<u32, EncoderError> {
    let default = usize::from(layout == Layout::Roberta);
    let pad = json.count("pad_token_id", 0..=VOCABULARY.end() - 1)?;
    Ok(u32::try_from(pad.unwrap_or(default)).expect("at most a million"))
}

/// What a head for classes says; `None` for other heads, whose tensors are not used.
fn classifier(json: &Document) -> Result<Option<Classifier>, EncoderError> {
    let architectures = json.field("architectures").and_then(Value::as_array);
    let mut names = architectures
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    if !names.any(|name| name.ends_with("ForSequenceClassification")) {
        return Ok(None);
    }
    let labels = labels(json)?;
    let problem = json.text("problem_type")?;
    let scores = match problem {
        Some("regression") => Head::None,
        Some("multi_label_classification") => Head::Sigmoid,
        None | Some("single_label_classification") if labels.len() == 1 => single_score(json),
        None | Some("single_label_classification") => Head::Softmax,
        Some(_) => {
            let value = json.field("problem_type").expect("it was read");
            let allowed = "\"regression\", \"single_label_classification\" or \
                           \"multi_label_classification\"";
            return Err(json.refused("problem_type", value, allowed));
        }
    };
    Ok(Some(Classifier { labels, scores }))
}

/// sentence-transformers gives one score as a probability, unless the model says that it is
/// given as it is; older versions wrote that under another key.
fn single_score(json: &Document) -> Head {
    let newer = json
        .field("sentence_transformers")
        .and_then(|section| section.get("activation_fn"));
    let older = json.field("sbert_ce_default_activation_function");
    match newer.or(older).and_then(Value::as_str) {
        Some(name) if name.ends_with(".Identity") => Head::None,
        _ => Head::Sigmoid,
    }
}

fn labels(json: &Document) -> Result<Vec<String>, EncoderError> {
    let Some(value) = json.field("id2label") else {
        let count = json.count("num_labels", 1..=LABELS_MAX)?.unwrap_or(2);
        return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
    };
    let allowed = || {
        format!(
            "an object with a name of at most {LABEL_BYTES_MAX} bytes for each number from 0 \
             without gaps, 1 to {LABELS_MAX}"
        )
    };
    let refused = || json.refused("id2label", value, allowed());
    let map = value.as_object().ok_or_else(refused)?;
    if map.is_empty() || map.len() > LABELS_MAX {
        return Err(refused());
    }
    let label = |id: usize| {
        let label = map.get(&id.to_string())?.as_str()?;
        (label.len() <= LABEL_BYTES_MAX).then(|| label.to_owned())
    };
    (0..map.len())
        .map(|id| label(id).ok_or_else(refused))
        .collect()
}
