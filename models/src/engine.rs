//! The port through which a node computes: load a version, run batches on it.

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::Tensor;
use paceline_protocol::registry::DeviceKind;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::family::TextReader;
use crate::folder::{ModelDescription, RecogniseError};
use crate::source::ModelSource;

/// Loads versions onto one device of a node.
///
/// Production is [`CpuEngine`](crate::CpuEngine); tests and the comparison of simulation with
/// reality use [`StubEngine`](crate::StubEngine).
pub trait Engine: Send + Sync + 'static {
    /// What this engine computes on.
    fn device(&self) -> DeviceSpec;

    /// What its maker calls the device, for people.
    fn name(&self) -> &str {
        "CPU"
    }

    /// Recognises, checks and loads a version. Takes as long as reading its weights: call it
    /// off the serving path.
    ///
    /// # Errors
    /// [`LoadError`] says what is wrong with the version, or what the device lacks for it.
    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError>;
}

/// One loaded copy of a version. Dropping it gives its memory back.
pub trait LoadedModel: Send + Sync {
    /// What it is called, takes and gives.
    fn description(&self) -> &ModelDescription;

    /// What turns requests into tokens, of a model that computes with them; whether it does so here
    /// or elsewhere makes no difference to them.
    fn reader(&self) -> Option<&TextReader> {
        None
    }

    /// Turns a request into the form in which it is computed, once, and says what it costs. What
    /// comes back slices by rows like any request, and [`run`](Self::run) takes it as well as what
    /// was given here; only then it does again what was done here. Inputs that fit the signature and cannot be
    /// computed all the same (an id that no vocabulary has) are refused here, alone, rather than
    /// with all that shares their batch.
    ///
    /// Cost: for texts, cutting them into tokens, some 2 µs a token; otherwise nothing.
    ///
    /// # Errors
    /// [`RunError::Input`] names the tensor and the row.
    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        match self.reader() {
            Some(reader) => reader.prepare(inputs),
            None => Ok(Prepared {
                inputs: inputs.to_vec(),
                tokens: None,
                rows_cut: 0,
            }),
        }
    }

    /// The same, but a text that is too long loses its beginning.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    fn prepare_ends(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        match self.reader() {
            Some(reader) => reader.prepare_ends(inputs),
            None => self.prepare(inputs),
        }
    }

    /// What clients ask of a model that reads text; `None` of others.
    fn text_facts(&self) -> Option<TextFacts> {
        Some(self.reader()?.text_facts())
    }

    /// Tokens of a request, or of rows of one: what a batch of a model that reads text costs.
    /// `None` where tokens are not what is counted, or the inputs cannot be computed. Cost: one
    /// step a row for what was prepared, the preparation otherwise.
    fn tokens(&self, inputs: &[Tensor]) -> Option<u64> {
        self.reader()?.tokens(inputs)
    }

    /// Most tokens of a row, where tokens are counted. Longer texts are cut.
    fn tokens_max(&self) -> Option<u32> {
        self.reader()?.tokens_max()
    }

    /// Cuts a text into tokens, all of them; `None` where the model reads none.
    ///
    /// # Errors
    /// [`RunError::Input`] says what is wrong with the text.
    fn tokenize(&self, text: &str) -> Option<Result<Vec<Token>, RunError>> {
        self.reader()?.tokenize(text)
    }

    /// A request of `rows` rows as they may be expected, for measuring what a batch takes; `None`
    /// where zeros serve as well.
    fn sample(&self, rows: u32) -> Option<Vec<Tensor>> {
        Some(self.reader()?.sample(rows))
    }

    /// Computes a batch, and returns when that is done. May be called from several threads at once;
    /// each call stands alone.
    ///
    /// Answers stand in the order of `batch.requests()`, the tensors of each in the order of
    /// `signature.outputs`. A row's answer does not depend on which rows share its batch.
    ///
    /// # Errors
    /// [`RunError`] concerns the whole batch: none of its rows has an answer.
    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError>;

    /// The same for a batch that an engine may have died of before: where others would share its
    /// death, nothing runs beside it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn run_suspect(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        self.run(batch)
    }

    /// What it occupies, as the engine accounts it.
    fn bytes(&self) -> MemoryUse;

    /// Whether it computes elsewhere, so that whoever runs a batch waits, for how long nobody knows:
    /// such a batch is run on a lane's own thread, never by a task that others share.
    fn is_elsewhere(&self) -> bool {
        false
    }

    /// Has `tell` called once, with the reason, when what holds the model ends by itself, whether a
    /// batch runs or not. What is in this process never does.
    fn on_death(&self, tell: Box<dyn FnOnce(String) + Send>) {
        drop(tell);
    }

    /// What a batch of `rows` takes, if the engine says it instead of spending it: whoever runs
    /// the batch in invented time lets it pass there. `None`, as of every engine that computes:
    /// the time is measured.
    fn told_cost(&self, rows: u64) -> Option<Duration> {
        let _ = rows;
        None
    }
}

/// A request in the form in which a model computes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// As many rows as before. Their number and types may differ from the signature's.
    pub inputs: Vec<Tensor>,
    /// Tokens of all rows, where tokens are counted.
    pub tokens: Option<u64>,
    /// Rows whose text was longer than the model reads, and was cut.
    pub rows_cut: u64,
}

/// What clients ask of a model that reads text, or tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFacts {
    /// Most tokens of a row.
    pub tokens_max: u32,
    /// How factors of its products are rounded: `f32` or `bf16`.
    pub precision: &'static str,
    /// How the vector of a text is made of its tokens': `mean` or `cls`; nothing of other tasks.
    pub pooling: Option<&'static str>,
    /// Names of its classes, in the order of its scores; none of other tasks.
    pub classes: Vec<String>,
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// As the vocabulary writes it.
    pub text: String,
    /// Whether it was added, and stands for nothing in the text.
    pub is_special: bool,
    /// Its first byte in the text.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

/// A device as its engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// What it is.
    pub kind: DeviceKind,
    /// Batches that it runs at a time, each on a thread of its own.
    pub threads: usize,
    /// Memory for weights and activations, in bytes.
    pub memory_bytes: u64,
}

/// What a loaded version occupies: counted from shapes, never guessed from the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights, resident while it is loaded.
    pub weights_bytes: u64,
    /// The most that one running batch of `rows_max` rows needs beside them.
    pub activations_bytes: u64,
}

impl MemoryUse {
    /// With `threads` batches running at once. Saturates.
    pub fn total_bytes(&self, threads: usize) -> u64 {
        self.activations_bytes
            .saturating_mul(threads as u64)
            .saturating_add(self.weights_bytes)
    }
}

/// Why a version was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder holds no model that this build serves.
    #[error(transparent)]
    Recognise(#[from] RecogniseError),
    /// The device has no room.
    #[error("the model needs {needed} bytes; {left} of the device's {device} bytes are free")]
    Memory {
        /// What the version needs with every thread of the device running it.
        needed: u64,
        /// What other versions have left.
        left: u64,
        /// What the device has.
        device: u64,
    },
    /// The engine itself failed.
    #[error("the engine failed to load the model: {message}")]
    Engine {
        /// What it said.
        message: String,
    },
}

/// Why a batch has no answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RunError {
    /// More rows than the version was loaded for, or none.
    #[error("a batch of {rows} rows; this model takes 1 to {rows_max}")]
    Rows {
        /// In the batch.
        rows: u64,
        /// Allowed.
        rows_max: u32,
    },
    /// A request does not fit the signature, which its gateway should have seen.
    #[error("request {request} of the batch: {input} must be {wanted}, got {got}")]
    Input {
        /// Position in the batch.
        request: usize,
        /// Name of the tensor, or `inputs`.
        input: String,
        /// What the signature says.
        wanted: String,
        /// What was given.
        got: String,
    },
    /// The model broke its own signature.
    #[error("output {output} must be {wanted}, got {got}")]
    Output {
        /// Name of the tensor, or `outputs`.
        output: String,
        /// What the signature says.
        wanted: String,
        /// What came.
        got: String,
    },
    /// The computation itself failed.
    #[error("the engine failed: {message}")]
    Engine {
        /// What it said.
        message: String,
    },
    /// What computes it has gone before any of the batch ran.
    #[error("the engine has gone")]
    Gone,
    /// What computed it has died. Whether by this batch, nobody can tell; the model is not loaded
    /// any more.
    #[error("the engine died: {message}")]
    Died {
        /// How.
        message: String,
    },
    /// The device computes nothing more in this process, which should end: only a new one gets
    /// it back.
    #[error("the device is lost to this process: {message}")]
    DeviceLost {
        /// What it said first.
        message: String,
    },
}

impl From<candle_core::Error> for RunError {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine {
            message: error.to_string(),
        }
    }
}
