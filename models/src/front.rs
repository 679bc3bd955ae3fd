//! What a node knows of a version without computing it: for engines in other processes, and for
//! doors on nodes that have no replica.

use crate::backend::Backend;
use crate::engine::{LoadError, MemoryUse};
use crate::family::{EncoderError, TextReader};
use crate::folder::{ModelDescription, Plan, examine};
use crate::source::ModelSource;

/// A version recognised and checked, its tokenizer read, its weights not: everything of a
/// [`LoadedModel`](crate::LoadedModel) but computing.
pub struct Front {
    description: ModelDescription,
    memory: MemoryUse,
    /// Of models that read text.
    reader: Option<TextReader>,
}

impl Front {
    /// Reads what comes before a version's weights, for what computes it. Cost: as
    /// [`recognise`](crate::recognise), and parsing a tokenizer: some 50 ms a megabyte.
    ///
    /// # Errors
    /// As loading the version, but for what only its weights show.
    pub fn read(source: &ModelSource, backend: Backend) -> Result<Self, LoadError> {
        let (description, plan) = examine(source)?;
        let rows_max = description.rows_max;
        let workspace = backend.workspace();
        let (memory, reader) = match plan {
            Plan::Identity => (MemoryUse::default(), None),
            Plan::Mlp(plan) => (plan.memory(rows_max, workspace), None),
            Plan::Encoder(plan) => {
                let reader = TextReader::new(description.clone(), &plan);
                let reader = reader.map_err(EncoderError::into_load)?;
                (plan.memory(rows_max, workspace), Some(reader))
            }
        };
        Ok(Self {
            description,
            memory,
            reader,
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

    /// As [`LoadedModel::reader`](crate::LoadedModel::reader).
    pub fn reader(&self) -> Option<&TextReader> {
        self.reader.as_ref()
    }
}
