//! Texts are cut into tokens once, before they wait: then batches are formed of what rows cost, and
//! what cannot be computed is refused alone.
//!
//! A model that reads none costs its requests one look at a number. Cutting takes some 2 µs a token,
//! so it never happens under the device's lock. Short texts are cut in the task that brings them:
//! another thread would cost them 10 to 20 µs, and what they take is no more than such a task may
//! spend on batches of others. Longer ones are cut on blocking threads, as many at a time as the
//! device has lanes, while their task goes on serving others. What was given stays as it was: it
//! is what another node is sent if this one cannot serve it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use paceline_core::device::BatcherId;
use paceline_models::{LoadedModel, RunError};
use paceline_protocol::{Asks, Dtype, ErrorCode, Failure, LongText, Reading, Tensor};
use tokio::sync::Semaphore;

use super::Work;
use super::told::{facts, names, tokens};
use crate::threads::Threads;

/// The models on a device that read texts.
pub(super) struct Readers {
    threads: Threads,
    /// Requests whose texts are cut on blocking threads.
    places: Arc<Semaphore>,
    /// How many of the models there are: most devices have none, and look no further.
    count: AtomicUsize,
    /// By queue.
    readers: RwLock<Vec<Option<Reader>>>,
}

/// A model that reads texts.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) model: Arc<dyn LoadedModel>,
    /// Most tokens in a batch of its queue.
    pub(super) batch_tokens_max: u32,
}

/// A request in the form in which it is computed.
#[derive(Default)]
pub(super) struct Read {
    /// Nothing where it is computed as it came.
    pub(super) packed: Option<Vec<Tensor>>,
    pub(super) tokens: u32,
    /// Names of classes that are told with its outputs.
    pub(super) classes: Option<Vec<String>>,
    /// Who has read it, and nobody else can compute it.
    by: Option<Arc<dyn LoadedModel>>,
}

/// What comes of reading a request.
pub(super) enum Outcome {
    /// It waits to be computed.
    Waits(Read),
    /// It is answered: nothing needs to be computed.
    Told(Vec<Tensor>),
}

/// A request whose texts are cut elsewhere.
pub(super) type Elsewhere =
    Pin<Box<dyn Future<Output = Option<(Work, Result<Outcome, Failure>)>> + Send>>;

impl Readers {
    /// For a device with so many lanes.
    pub(super) fn new(lanes: u16, threads: Threads) -> Self {
        Self {
            threads,
            places: Arc::new(Semaphore::new(usize::from(lanes.max(1)))),
            count: AtomicUsize::new(0),
            readers: RwLock::default(),
        }
    }

    /// A queue has a model from now on, or none.
    pub(super) fn set(&self, batcher: BatcherId, reader: Option<Reader>) {
        let reader = reader.filter(|reader| reader.model.tokens_max().is_some());
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        let index = batcher.0 as usize;
        if index >= readers.len() {
            readers.resize(index + 1, None);
        }
        readers[index] = reader;
        let count = readers.iter().flatten().count();
        self.count.store(count, Ordering::Release);
    }

    /// The model of a queue, if it reads texts.
    pub(super) fn of(&self, batcher: BatcherId) -> Option<Reader> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.get(batcher.0 as usize)?.clone()
    }

    /// Reads a request on a blocking thread, when it is its turn. Whoever drops this gives the
    /// turn up. `None` if the node stops meanwhile.
    pub(super) fn elsewhere(&self, reader: Reader, work: Work) -> Elsewhere {
        let (threads, places) = (self.threads, self.places.clone());
        Box::pin(async move {
            let place = places.acquire_owned().await.ok()?;
            let reading = threads.blocking(move || {
                let _place = place;
                let outcome = reader.read(&work.inputs, work.reading);
                (work, outcome)
            });
            reading.await.ok()
        })
    }
}

impl Reader {
    /// Reads a request. Cost: some 2 µs a token.
    ///
    /// # Errors
    /// `INPUT_VALUES` where the model cannot compute it, or shall not cut it; `UNSUPPORTED` where
    /// it has not what is asked for.
    pub(super) fn read(&self, inputs: &[Tensor], reading: Reading) -> Result<Outcome, Failure> {
        let told = catch_unwind(AssertUnwindSafe(|| self.read_unguarded(inputs, reading)));
        told.unwrap_or_else(|_panic| {
            // The panic hook has told the log.
            let message = "reading the request's texts panicked";
            Err(Failure::new(ErrorCode::EngineFailed, message))
        })
    }

    fn read_unguarded(&self, inputs: &[Tensor], reading: Reading) -> Result<Outcome, Failure> {
        let model = &self.model;
        let classes = match reading.asks {
            Asks::Facts => return Ok(Outcome::Told(vec![facts(self)?])),
            Asks::Tokens { special } => {
                return Ok(Outcome::Told(vec![tokens(&**model, inputs, special)?]));
            }
            Asks::Outputs => None,
            Asks::OutputsAndClasses => Some(names(&**model)?),
        };
        let prepared = match reading.long {
            LongText::KeepsStart | LongText::IsRefused => model.prepare(inputs),
            LongText::KeepsEnd => model.prepare_ends(inputs),
        };
        let prepared = prepared.map_err(|error| refusal(&error))?;
        if reading.long == LongText::IsRefused && prepared.rows_cut > 0 {
            let rows = inputs.first().map_or(0, Tensor::rows);
            let message = format!(
                "{} of {rows} texts are longer than the {} tokens that the model reads; with \
                 'truncate' such a text is cut",
                prepared.rows_cut,
                model.tokens_max().unwrap_or(0)
            );
            return Err(Failure::new(ErrorCode::InputValues, message));
        }
        Ok(Outcome::Waits(Read {
            tokens: u32::try_from(prepared.tokens.unwrap_or(0)).unwrap_or(u32::MAX),
            packed: Some(prepared.inputs),
            classes,
            by: Some(model.clone()),
        }))
    }
}

impl Read {
    /// Whether a model computes what was read: tokens of one vocabulary mean something else in
    /// another.
    pub(super) fn is_for(&self, model: &Arc<dyn LoadedModel>) -> bool {
        let same =
            |by: &Arc<dyn LoadedModel>| std::ptr::addr_eq(Arc::as_ptr(by), Arc::as_ptr(model));
        self.by.as_ref().is_none_or(same)
    }
}

/// Whether a request is read quickly enough for the task that brings it.
pub(super) fn is_short(inputs: &[Tensor]) -> bool {
    let nanos = inputs.iter().map(|tensor| {
        let nanos_a_byte = match tensor.dtype() {
            Dtype::Bytes => TEXT_BYTE_NANOS,
            // Tokens are checked and copied.
            _ => 1,
        };
        tensor.data().len() as u64 * nanos_a_byte
    });
    nanos.sum::<u64>() <= READ_HERE_NANOS_MAX
}

/// What is told of inputs that a model refuses.
pub(super) fn refusal(error: &RunError) -> Failure {
    let (code, message) = match error {
        RunError::Input {
            input, wanted, got, ..
        } => {
            let message = format!("input '{input}' must be {wanted}, got {got}");
            (ErrorCode::InputValues, message)
        }
        RunError::Rows { .. }
        | RunError::Output { .. }
        | RunError::Engine { .. }
        | RunError::Gone
        | RunError::DeviceLost { .. }
        | RunError::Died { .. } => (ErrorCode::EngineFailed, error.to_string()),
    };
    Failure::new(code, message)
}

/// 2 µs a token of four or five bytes.
const TEXT_BYTE_NANOS: u64 = 450;
/// As long as a task may run batches of others in place (four of 50 µs): some 100 tokens.
const READ_HERE_NANOS_MAX: u64 = 200_000;

#[cfg(test)]
mod tests;
