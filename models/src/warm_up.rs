//! Running a loaded model before it serves: what it costs, and that it keeps its signature.

use std::time::{Duration, Instant};

use paceline_protocol::{Dim, Shape, Tensor, TensorSpec};

use crate::batch::Batch;
use crate::engine::{LoadedModel, RunError};

/// What a warm-up measured. Wall time on the calling thread, with which nobody shares a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// A batch of one row, in nanoseconds.
    pub one_row_ns: u64,
    /// A batch of `rows` rows, in nanoseconds.
    pub full_batch_ns: u64,
    /// Rows of the full batch: the model's `rows_max`.
    pub rows: u32,
    /// Tokens of the one row and of the full batch, where the model counts them.
    pub tokens: Option<[u32; 2]>,
}

/// Runs a sample of the model's, or else zeros (empty strings for BYTES, 1 for every open
/// dimension beside the rows), as one row and as a full batch, and checks each answer against the signature: how many tensors, their
/// types and shapes, as many rows as went in.
///
/// The first run of each size pays for cold caches and is not counted; of the others the median
/// is. Cost: six runs of each size; after a second has passed, no further one is begun.
///
/// # Errors
/// What the model's run answers, or [`RunError::Output`] where it breaks its signature.
pub fn warm_up(model: &dyn LoadedModel) -> Result<WarmUp, RunError> {
    let rows = model.description().rows_max;
    let (one_row, full) = (request(model, 1)?, request(model, rows)?);
    let tokens = |request: &[Tensor]| u32::try_from(model.tokens(request)?).ok();
    Ok(WarmUp {
        one_row_ns: measure(model, &one_row, 1)?,
        full_batch_ns: measure(model, &full, rows)?,
        rows,
        tokens: tokens(&one_row).zip(tokens(&full)).map(<[u32; 2]>::from),
    })
}

/// Runs of each size that are counted: enough for a median that one interruption cannot move.
const RUNS: usize = 5;
/// After this long no further run of a size is started: a slow model needs no fine clock.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request of so many rows, as it may be expected.
fn request(model: &dyn LoadedModel, rows: u32) -> Result<Vec<Tensor>, RunError> {
    let zeros = || {
        let inputs = model.description().signature.inputs.iter();
        inputs.map(|spec| zeros(spec, rows)).collect()
    };
    model.sample(rows).map_or_else(zeros, Ok)
}

fn measure(model: &dyn LoadedModel, request: &[Tensor], rows: u32) -> Result<u64, RunError> {
    let signature = &model.description().signature;
    let requests = [request];
    let batch = Batch::new(&requests);
    if let Some(told) = model.told_cost(u64::from(rows)) {
        check_answers(&model.run(&batch)?, &signature.outputs, rows)?;
        return Ok(u64::try_from(told.as_nanos()).unwrap_or(u64::MAX).max(1));
    }
    let began = Instant::now();
    let mut nanos = Vec::with_capacity(RUNS);
    for run in 0..=RUNS {
        let start = Instant::now();
        let answers = model.run(&batch)?;
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        check_answers(&answers, &signature.outputs, rows)?;
        if run > 0 {
            nanos.push(took);
        }
        if run > 0 && began.elapsed() > PATIENCE {
            break;
        }
    }
    nanos.sort_unstable();
    Ok(nanos[nanos.len() / 2].max(1))
}

fn zeros(spec: &TensorSpec, rows: u32) -> Result<Tensor, RunError> {
    let shape = shape(spec, rows)?;
    // Four zero bytes are an empty string of BYTES.
    let size = spec.dtype.element_bytes().unwrap_or(4);
    let data = vec![0; shape.elements() as usize * size];
    Tensor::new(spec.dtype, shape, data.into()).map_err(|_| too_large(spec, rows))
}

/// Of an input of so many rows, 1 for every open dimension beside them.
pub(crate) fn shape(spec: &TensorSpec, rows: u32) -> Result<Shape, RunError> {
    let inner = spec.shape.0.iter().skip(1).map(|dim| match dim {
        Dim::Any => 1,
        Dim::Exactly(size) => *size,
    });
    let dims: Vec<u64> = std::iter::once(u64::from(rows)).chain(inner).collect();
    let shape = Shape::new(&dims).map_err(|_| too_large(spec, rows))?;
    let size = spec.dtype.element_bytes().unwrap_or(4) as u64;
    let bytes = shape.elements().checked_mul(size);
    bytes
        .filter(|bytes| *bytes <= SAMPLE_BYTES_MAX)
        .map(|_| shape)
        .ok_or_else(|| too_large(spec, rows))
}

pub(crate) fn too_large(spec: &TensorSpec, rows: u32) -> RunError {
    RunError::Input {
        request: 0,
        input: spec.name.clone(),
        wanted: format!("{rows} rows that fit into memory"),
        got: format!("{} {}", spec.dtype, spec.shape),
    }
}

/// Largest input that a warm-up builds: no request may be larger.
const SAMPLE_BYTES_MAX: u64 = paceline_protocol::limits::BODY_BYTES_MAX as u64;

pub(crate) fn check_answers(
    answers: &[Vec<Tensor>],
    outputs: &[TensorSpec],
    rows: u32,
) -> Result<(), RunError> {
    let broken = |output: &str, wanted: String, got: String| {
        Err(RunError::Output {
            output: output.to_owned(),
            wanted,
            got,
        })
    };
    let [tensors] = answers else {
        return broken(
            "outputs",
            "one answer a request".into(),
            answers.len().to_string(),
        );
    };
    if tensors.len() != outputs.len() {
        return broken(
            "outputs",
            format!("{} tensors", outputs.len()),
            tensors.len().to_string(),
        );
    }
    for (tensor, spec) in tensors.iter().zip(outputs) {
        let fits = tensor.dtype() == spec.dtype && spec.shape.matches(tensor.shape());
        if !fits || tensor.rows() != u64::from(rows) {
            return broken(
                &spec.name,
                format!("{} {} of {rows} rows", spec.dtype, spec.shape),
                format!("{} {}", tensor.dtype(), tensor.shape()),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryUse;
    use crate::folder::ModelDescription;
    use crate::{Engine, ModelSource, StubEngine};

    struct Liar {
        description: ModelDescription,
        answer: Vec<Tensor>,
    }

    impl LoadedModel for Liar {
        fn description(&self) -> &ModelDescription {
            &self.description
        }
        fn run(&self, _: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
            Ok(vec![self.answer.clone()])
        }
        fn bytes(&self) -> MemoryUse {
            MemoryUse::default()
        }
    }

    #[test]
    fn a_model_that_breaks_its_signature_does_not_become_warm() {
        let source = ModelSource::from_files([(
            "model.toml".to_owned(),
            bytes::Bytes::from_static(crate::folder::tests::IDENTITY.as_bytes()),
        )]);
        let honest = StubEngine::default().load(&source).unwrap();
        let description = honest.description().clone();
        assert!(warm_up(&*honest).is_ok());
        let wrong = [
            vec![],
            vec![Tensor::from_byte_strings(&["x"])],
            vec![Tensor::from_f32(2, &[0.; 4])],
        ];
        for answer in wrong {
            let liar = Liar {
                description: description.clone(),
                answer,
            };
            assert!(matches!(warm_up(&liar), Err(RunError::Output { .. })));
        }
    }
}
