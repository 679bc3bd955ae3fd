//! The identity: for measuring the path of a request without a model's cost, and for first steps.

use paceline_protocol::{Signature, Tensor};

use crate::batch::Batch;
use crate::engine::{LoadedModel, MemoryUse, RunError};
use crate::folder::{ModelDescription, RecogniseError};

/// Answers each input as the output at the same position. The bytes are shared, never copied,
/// whatever their type.
pub(crate) struct Identity {
    description: ModelDescription,
}

impl Identity {
    pub(crate) fn new(description: ModelDescription) -> Self {
        Self { description }
    }
}

impl LoadedModel for Identity {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        batch.check(&self.description.signature, self.description.rows_max)?;
        Ok(batch
            .requests()
            .iter()
            .map(|inputs| inputs.to_vec())
            .collect())
    }

    /// Nothing: its answers are its callers' own bytes.
    fn bytes(&self) -> MemoryUse {
        MemoryUse::default()
    }
}

/// Whether each output is declared as the input at its position is.
pub(crate) fn check_identity(signature: &Signature) -> Result<(), RecogniseError> {
    let refused = |offence| Err(RecogniseError::Identity { offence });
    let (inputs, outputs) = (&signature.inputs, &signature.outputs);
    if inputs.len() != outputs.len() {
        return refused(format!(
            "{} inputs, {} outputs",
            inputs.len(),
            outputs.len()
        ));
    }
    for (input, output) in inputs.iter().zip(outputs) {
        if (input.dtype, &input.shape) != (output.dtype, &output.shape) {
            return refused(format!(
                "'{}' is {} {}, '{}' is {} {}",
                input.name, input.dtype, input.shape, output.name, output.dtype, output.shape
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::{IDENTITY, only_toml};
    use crate::{CpuEngine, Engine, warm_up};

    #[test]
    fn bytes_are_shared_and_widths_may_differ_in_a_batch() {
        let model = CpuEngine::new(1).load(&only_toml(IDENTITY)).unwrap();
        let (narrow, wide) = (
            [Tensor::from_f32(1, &[1., 2.])],
            [Tensor::from_f32(3, &[f32::NAN; 9])],
        );
        let requests = [&narrow[..], &wide[..]];
        let answers = model.run(&Batch::new(&requests)).unwrap();
        for (answer, request) in answers.iter().zip(requests) {
            assert_eq!(
                answer[0].data().as_ptr(),
                request[0].data().as_ptr(),
                "copied"
            );
            assert_eq!(answer[0], request[0]);
        }
        assert_eq!(model.bytes().total_bytes(8), 0);
        assert!(warm_up(&*model).unwrap().full_batch_ns > 0);
    }

    #[test]
    fn every_datatype_passes() {
        for dtype in paceline_protocol::Dtype::ALL {
            let toml = IDENTITY.replace("FP32", dtype.name());
            let model = CpuEngine::new(1).load(&only_toml(&toml)).unwrap();
            assert!(warm_up(&*model).is_ok(), "{dtype}");
        }
    }
}
