//! Encoders: texts in; embeddings, classes or scores of pairs out.
//!
//! ```text
//!   text ── Texts ──► Sequence ── pack ──► one tensor that slices by rows      once a request
//!                                             │
//!        Tables ── Network ── pooling ── head ▼                                once a batch
//! ```
//!
//! The folders are Hugging Face's, of BERT, RoBERTa, XLM-R and DistilBERT, with what
//! sentence-transformers writes beside them. A batch carries no padding: sequences have the
//! lengths that they have, and an answer does not depend on what shares its batch, to the last
//! bit.

mod answer;
mod census;
mod classes;
mod config;
mod document;
mod error;
mod forward;
mod layout;
mod network;
mod outline;
mod plan;
mod pooling;
mod ragged;
mod request;
mod sequence;
mod settings;
mod staged;
mod tables;
mod tokenizer;
mod weights;

use paceline_protocol::Tensor;

use crate::batch::Batch;
use crate::engine::{LoadError, LoadedModel, MemoryUse, Prepared, RunError, Token};
use crate::family::{Path, affine};
use crate::folder::ModelDescription;

use classes::ClassHead;
pub use error::EncoderError;
use network::Network;
use outline::Task;
pub(crate) use outline::{EncoderSection, Outline};
pub(crate) use plan::{Claim, EncoderPlan, encoder_claim, encoder_files};
use sequence::{RowLimits, Sequence};
use tokenizer::Texts;

/// Tokens that pass a layer together, unless a single sequence has more: enough for the products
/// to run at full speed, few enough for a layer's numbers to stay in the second cache. (Of 64 to
/// 1,024, 256 was the fastest for the widths of MiniLM.)
const CHUNK_TOKENS: usize = 256;

/// A loaded encoder.
pub(crate) struct Encoder {
    description: ModelDescription,
    outline: Outline,
    texts: Option<Texts>,
    network: Network,
    /// Over the first token, for classes and pairs.
    head: Option<ClassHead>,
    limits: RowLimits,
    memory: MemoryUse,
}

impl Encoder {
    /// Reads every weight that is used, layer by layer, and the tokenizer.
    ///
    /// # Errors
    /// [`EncoderError`] names the tensor that is not finite, or what is wrong with the tokenizer.
    pub(crate) fn load(
        description: ModelDescription,
        plan: &EncoderPlan,
        path: &Path,
    ) -> Result<Self, LoadError> {
        let config = &plan.outline.config;
        let texts = plan.texts().map_err(EncoderError::into_load)?;
        let reader = plan.reader();
        let network = Network::load(&plan.outline, &reader, path)?;
        let head = match plan.outline.classes() {
            None => None,
            Some(classes) => {
                let classes = reader.classes(classes).map_err(EncoderError::into_load)?;
                Some(ClassHead::new(config.layout, &classes).map_err(affine::failed)?)
            }
        };
        Ok(Self {
            limits: RowLimits {
                tokens_max: plan.outline.tokens_max,
                vocabulary: config.vocabulary,
                segments: config.segments.max(1),
            },
            memory: plan.memory(description.rows_max, path),
            outline: plan.outline.clone(),
            description,
            texts,
            network,
            head,
        })
    }

    /// One vector for each row of prepared requests: `[rows, width] f32`.
    fn pooled(&self, requests: &[Tensor], rows: usize) -> Result<Vec<f32>, RunError> {
        let mut checked = Vec::with_capacity(rows);
        for (request, tensor) in requests.iter().enumerate() {
            for row in sequence::unpack(tensor) {
                self.limits.check(row).map_err(|got| RunError::Input {
                    request,
                    input: self.description.signature.inputs[0].name.clone(),
                    wanted: self.limits.told(),
                    got,
                })?;
                checked.push(row);
            }
        }
        let how = match self.outline.task {
            Task::Embedding { pooling, normalize } => (pooling, normalize),
            Task::Classification(_) | Task::Rerank { .. } => (settings::Pooling::Cls, false),
        };
        self.network.pooled(&self.outline, &checked, how)
    }
}

impl LoadedModel for Encoder {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        if sequence::is_packed(inputs) {
            let tokens = self.tokens(inputs);
            return Ok(Prepared {
                inputs: inputs.to_vec(),
                tokens,
                rows_cut: 0,
            });
        }
        let sequences = self.sequences(0, inputs)?;
        Ok(Prepared {
            tokens: Some(sequences.iter().map(|row| row.ids.len() as u64).sum()),
            rows_cut: sequences.iter().filter(|row| row.is_cut).count() as u64,
            inputs: vec![sequence::pack(&sequences)],
        })
    }

    fn tokens(&self, inputs: &[Tensor]) -> Option<u64> {
        if sequence::is_packed(inputs) {
            return Some(
                sequence::unpack(&inputs[0])
                    .map(|row| row.tokens() as u64)
                    .sum(),
            );
        }
        let sequences = self.sequences(0, inputs).ok()?;
        Some(sequences.iter().map(|row| row.ids.len() as u64).sum())
    }

    fn tokens_max(&self) -> Option<u32> {
        u32::try_from(self.outline.tokens_max).ok()
    }

    fn tokenize(&self, text: &str) -> Option<Result<Vec<Token>, RunError>> {
        let texts = self.texts.as_ref()?;
        let refused = |got| RunError::Input {
            request: 0,
            input: "text".into(),
            wanted: "a text".into(),
            got,
        };
        Some(
            self.check_length(text)
                .and_then(|()| texts.tokens(text))
                .map_err(refused),
        )
    }

    fn sample(&self, rows: u32) -> Option<Vec<Tensor>> {
        let tokens = self.outline.tokens_max.min(SAMPLE_TOKENS) as u32;
        let vocabulary = self.outline.config.vocabulary as u32;
        let row = |row: u32| Sequence {
            ids: (0..tokens)
                .map(|token| (row * 7 + token * 31 + 1) % vocabulary)
                .collect(),
            ..Sequence::default()
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        Some(vec![sequence::pack(&rows)])
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let rows_max = self.description.rows_max;
        let rows = batch.rows();
        if rows == 0 || rows > u64::from(rows_max) {
            return Err(RunError::Rows { rows, rows_max });
        }
        let mut requests = Vec::with_capacity(batch.requests().len());
        for (request, inputs) in batch.requests().iter().enumerate() {
            requests.push(match inputs {
                [packed] if sequence::is_packed(inputs) => packed.clone(),
                inputs => sequence::pack(&self.sequences(request, inputs)?),
            });
        }
        let pooled = self.pooled(&requests, rows as usize)?;
        let rows = requests.iter().flat_map(sequence::unpack);
        let tokens: Vec<u32> = rows.map(|row| row.tokens() as u32).collect();
        self.answers(batch, pooled, &tokens)
    }

    fn bytes(&self) -> MemoryUse {
        self.memory
    }
}

/// Tokens of a row of a sample: a sentence or two.
const SAMPLE_TOKENS: usize = 32;

#[cfg(test)]
mod tests;
