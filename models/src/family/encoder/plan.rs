//! What an encoder's folder promises, checked before its weights are copied.

use bytes::Bytes;

use super::error::EncoderError;
use super::layout::Layout;
use super::outline::{Input, Outline};
use super::settings::POOLING_FILE;
use super::tokenizer::{TOKENIZER_BYTES_MAX, TextLimits, Texts};
use super::weights::Reader;
use super::{CHUNK_TOKENS, config};
use crate::engine::MemoryUse;
use crate::family::Workspace;
use crate::folder::{RecogniseError, not_weights, pickled};
use crate::source::{CONFIG, CONFIG_BYTES_MAX, ModelSource};
use crate::weights;

/// An encoder that adds up.
pub(crate) struct EncoderPlan {
    pub(super) outline: Outline,
    weights: Bytes,
    tokenizer: Option<Bytes>,
}

const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";

/// Largest file of weights, in bytes: XLM-R large has 2.2 GB in 32 bits.
const WEIGHTS_BYTES_MAX: u64 = 3 << 30;

/// Every file that is read of an encoder's folder, with the most bytes of it.
pub(crate) fn encoder_files() -> [(&'static str, u64); 7] {
    [
        (CONFIG, CONFIG_BYTES_MAX),
        ("modules.json", CONFIG_BYTES_MAX),
        (POOLING_FILE, CONFIG_BYTES_MAX),
        ("sentence_bert_config.json", CONFIG_BYTES_MAX),
        ("tokenizer_config.json", CONFIG_BYTES_MAX),
        (TOKENIZER, TOKENIZER_BYTES_MAX),
        (WEIGHTS, WEIGHTS_BYTES_MAX),
    ]
}

/// What a `config.json` says of its architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// One that is served.
    Served,
    /// One of Hugging Face's that is not.
    Other,
}

/// What a `config.json` says that it is of; `None` if it is none of Hugging Face's.
pub(crate) fn encoder_claim(config: &[u8]) -> Option<Claim> {
    let model_type = config::model_type(config)?;
    Some(match Layout::of(&model_type) {
        Some(_) => Claim::Served,
        None => Claim::Other,
    })
}

impl EncoderPlan {
    /// Checks the weights' header against the outline.
    ///
    /// # Errors
    /// [`RecogniseError`] names the file, field or tensor.
    pub(crate) fn new(outline: Outline, source: &ModelSource) -> Result<Self, RecogniseError> {
        let tokenizer = source.file(TOKENIZER);
        let Some(weights) = source.file(WEIGHTS) else {
            return Err(pickled(source).unwrap_or_else(|| {
                let needs = "holds the weights";
                EncoderError::Missing {
                    file: WEIGHTS,
                    needs,
                }
                .into()
            }));
        };
        let plan = Self {
            tokenizer: tokenizer.filter(|_| outline.input == Input::Text).cloned(),
            outline,
            weights: weights.clone(),
        };
        let tensors = weights::parse(&plan.weights).map_err(|cause| {
            let refused = || {
                EncoderError::Weights {
                    file: WEIGHTS,
                    cause,
                }
                .into()
            };
            not_weights(WEIGHTS, &plan.weights).unwrap_or_else(refused)
        })?;
        Reader::new(&plan.outline.config, tensors, plan.outline.classes())?;
        Ok(plan)
    }

    /// The checked tensors.
    pub(super) fn reader(&self) -> Reader<'_> {
        let tensors = weights::parse(&self.weights).expect("parsed when the plan was made");
        let outline = &self.outline;
        Reader::new(&outline.config, tensors, outline.classes())
            .expect("checked when the plan was made")
    }

    /// The tokenizer, where requests hold texts.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`].
    pub(super) fn texts(&self) -> Result<Option<Texts>, EncoderError> {
        let limits = TextLimits {
            tokens_max: self.outline.tokens_max,
            vocabulary: self.outline.config.vocabulary,
            pairs: self.outline.is_pairs(),
            lower_case: self.outline.lower_case,
        };
        let read = |file: &Bytes| Texts::read(file, &limits);
        self.tokenizer.as_ref().map(read).transpose()
    }

    /// Weights as they are held, with the tokenizer; a batch's activations: the tokens of all
    /// rows, what one pass of them needs in a layer, and the answers.
    pub(crate) fn memory(&self, rows_max: u32, workspace: Workspace) -> MemoryUse {
        let config = &self.outline.config;
        let [width, inner] = [config.width, config.inner].map(|size| size as u64);
        let classes = self.outline.classes().unwrap_or(0) as u64;
        // Kernels fill up a dense layer's outputs to whole vectors, or tiles.
        let dense = |inputs: u64, outputs: u64| (inputs + 1) * outputs.next_multiple_of(32);
        let tables = (config.vocabulary + config.positions + config.segments) as u64 * width;
        let attention = dense(width, 3 * width) + dense(width, width);
        let layer = attention + dense(width, inner) + dense(inner, width) + 4 * width;
        let head = match classes {
            0 => 0,
            _ => dense(width, width) + dense(width, classes),
        };
        let parameters = tables + config.layers as u64 * layer + head + 2 * width;
        let tokenizer = self.tokenizer.as_ref().map_or(0, Bytes::len) as u64;
        let tokens = self.outline.tokens_max as u64;
        let heads = config.heads as u64;
        // What a parameter takes, tokens of a pass, numbers beside the hidden ones, scores.
        let (size, pass, beside, scores) = match workspace {
            Workspace::Kernels => {
                let scores = (tokens * tokens * heads).min(SCORES_MAX.max(tokens * tokens));
                (4, tokens.max(CHUNK_TOKENS as u64), 0, 3 * scores)
            }
            Workspace::Passes(limits) => {
                let pass = (limits.tokens as u64).max(tokens);
                let pass = pass.min(tokens * u64::from(rows_max));
                let scores =
                    (pass * tokens * heads).min((limits.scores as u64).max(tokens * tokens));
                // Every operation has a result of its own; no more than these live at a time.
                let size = self.outline.precision.dtype().size_in_bytes() as u64;
                (size, pass, 8 * width + 3 * inner, 5 * scores)
            }
        };
        let row = 12 * tokens + 4 * (2 * width + 2 * classes);
        MemoryUse {
            weights_bytes: parameters * size + tokenizer * TOKENIZER_FACTOR,
            activations_bytes: u64::from(rows_max) * row
                + 4 * (pass * (9 * width + 2 * inner + beside) + scores),
        }
    }
}

/// Scores of attention that kernels have in memory at a time, in numbers: far more than one head
/// of a sequence in use has.
const SCORES_MAX: u64 = 1 << 22;

/// What a tokenizer takes in memory, beside what its file has.
const TOKENIZER_FACTOR: u64 = 8;
