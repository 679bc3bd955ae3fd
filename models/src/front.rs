//! What a node knows of a version without computing it: for engines in other processes, and for
//! doors on nodes that have no replica.

use paceline_protocol::Tensor;

use crate::engine::{LoadError, MemoryUse, Prepared, RunError, TextFacts, Token};
use crate::family::{EncoderError, Path, Reading};
use crate::folder::{ModelDescription, Plan, examine};
use crate::source::ModelSource;

/// A version recognised and checked, its tokenizer read, its weights not: everything of a
/// [`LoadedModel`](crate::LoadedModel) but computing.
pub struct Front {
    description: ModelDescription,
    memory: MemoryUse,
    /// Of models that read text.
    reading: Option<Reading>,
}

impl Front {
    /// Reads what comes before a version's weights. Cost: as [`recognise`](crate::recognise),
    /// and parsing a tokenizer: some 50 ms a megabyte.
    ///
    /// # Errors
    /// As loading the version, but for what only its weights show.
    pub fn read(source: &ModelSource) -> Result<Self, LoadError> {
        let (description, plan) = examine(source)?;
        let rows_max = description.rows_max;
        let path = &Path::default();
        let (memory, reading) = match plan {
            Plan::Identity => (MemoryUse::default(), None),
            Plan::Mlp(plan) => (plan.memory(rows_max, path), None),
            Plan::Encoder(plan) => {
                let reading = Reading::new(description.clone(), &plan);
                let reading = reading.map_err(EncoderError::into_load)?;
                (plan.memory(rows_max, path), Some(reading))
            }
        };
        Ok(Self {
            description,
            memory,
            reading,
        })
    }

    /// What the version is called, takes and gives.
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// What it occupies once it is loaded, as engines account it.
    pub fn memory(&self) -> MemoryUse {
        self.memory
    }

    /// As [`LoadedModel::prepare`](crate::LoadedModel::prepare).
    ///
    /// # Errors
    /// [`RunError::Input`] names the tensor and the row.
    pub fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        match &self.reading {
            Some(reading) => reading.prepare(inputs),
            None => Ok(Prepared {
                inputs: inputs.to_vec(),
                tokens: None,
                rows_cut: 0,
            }),
        }
    }

    /// As [`LoadedModel::prepare_ends`](crate::LoadedModel::prepare_ends).
    ///
    /// # Errors
    /// [`RunError::Input`] names the tensor and the row.
    pub fn prepare_ends(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        match &self.reading {
            Some(reading) => reading.prepare_ends(inputs),
            None => self.prepare(inputs),
        }
    }

    /// As [`LoadedModel::text_facts`](crate::LoadedModel::text_facts).
    pub fn text_facts(&self) -> Option<TextFacts> {
        Some(self.reading.as_ref()?.text_facts())
    }

    /// As [`LoadedModel::tokens`](crate::LoadedModel::tokens).
    pub fn tokens(&self, inputs: &[Tensor]) -> Option<u64> {
        self.reading.as_ref()?.tokens(inputs)
    }

    /// As [`LoadedModel::tokens_max`](crate::LoadedModel::tokens_max).
    pub fn tokens_max(&self) -> Option<u32> {
        self.reading.as_ref()?.tokens_max()
    }

    /// As [`LoadedModel::tokenize`](crate::LoadedModel::tokenize).
    pub fn tokenize(&self, text: &str) -> Option<Result<Vec<Token>, RunError>> {
        self.reading.as_ref()?.tokenize(text)
    }

    /// As [`LoadedModel::sample`](crate::LoadedModel::sample).
    pub fn sample(&self, rows: u32) -> Option<Vec<Tensor>> {
        Some(self.reading.as_ref()?.sample(rows))
    }
}
