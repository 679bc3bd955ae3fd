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
mod reader;
mod sequence;
mod settings;
mod staged;
mod tables;
mod tokenizer;
mod weights;

use paceline_protocol::Tensor;

use crate::batch::Batch;
use crate::engine::{LoadError, LoadedModel, MemoryUse, RunError};
use crate::family::{Path, affine};
use crate::folder::ModelDescription;

use classes::ClassHead;
pub use error::EncoderError;
use network::Network;
use outline::Task;
pub(crate) use outline::{EncoderSection, Outline};
pub(crate) use plan::{Claim, EncoderPlan, encoder_claim, encoder_files};
pub use reader::TextReader;
use tokenizer::Kept;

/// Tokens that pass a layer together, unless a single sequence has more: enough for the products
/// to run at full speed, few enough for a layer's numbers to stay in the second cache. (Of 64 to
/// 1,024, 256 was the fastest for the widths of MiniLM.)
const CHUNK_TOKENS: usize = 256;

/// A loaded encoder.
pub(crate) struct Encoder {
    reader: TextReader,
    outline: Outline,
    network: Network,
    /// Over the first token, for classes and pairs.
    head: Option<ClassHead>,
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
        let memory = plan.memory(description.rows_max, path.workspace());
        let text_reader = TextReader::new(description, plan).map_err(EncoderError::into_load)?;
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
            reader: text_reader,
            outline: plan.outline.clone(),
            network,
            head,
            memory,
        })
    }

    /// One vector for each row of prepared requests, `[rows, width] f32`, and among how many threads
    /// they were divided.
    fn pooled(
        &self,
        requests: &[Tensor],
        (rows, threads_max): (usize, u32),
    ) -> Result<(Vec<f32>, usize), RunError> {
        let mut checked = Vec::with_capacity(rows);
        for (request, tensor) in requests.iter().enumerate() {
            for row in sequence::unpack(tensor) {
                self.reader.check_packed(request, row)?;
                checked.push(row);
            }
        }
        let how = match self.outline.task {
            Task::Embedding { pooling, normalize } => (pooling, normalize),
            Task::Classification(_) | Task::Rerank { .. } => (settings::Pooling::Cls, false),
        };
        let rows = (&checked[..], threads_max as usize);
        self.network.pooled(&self.outline, rows, how)
    }
}

impl LoadedModel for Encoder {
    fn description(&self) -> &ModelDescription {
        self.reader.description()
    }

    fn reader(&self) -> Option<&TextReader> {
        Some(&self.reader)
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let rows_max = self.description().rows_max;
        let rows = batch.rows();
        if rows == 0 || rows > u64::from(rows_max) {
            return Err(RunError::Rows { rows, rows_max });
        }
        let mut requests = Vec::with_capacity(batch.requests().len());
        for (request, inputs) in batch.requests().iter().enumerate() {
            requests.push(match inputs {
                [packed] if sequence::is_packed(inputs) => packed.clone(),
                inputs => sequence::pack(&self.reader.sequences(request, inputs, Kept::Start)?),
            });
        }
        let rows_of = (rows as usize, batch.threads_max());
        let (pooled, threads) = self.pooled(&requests, rows_of)?;
        batch.divide(threads as u32);
        let rows = requests.iter().flat_map(sequence::unpack);
        let tokens: Vec<u32> = rows.map(|row| row.tokens() as u32).collect();
        self.answers(batch, pooled, &tokens)
    }

    fn bytes(&self) -> MemoryUse {
        self.memory
    }
}

#[cfg(test)]
mod tests;
