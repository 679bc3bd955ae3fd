//! How a version is served, in the words of Triton's model configuration.

use paceline_protocol::{Dim, Dtype, Failure, Signature, TensorSpec, VersionNumber};

use super::Models;
use crate::router::VersionRoute;

/// A version's configuration: what is true of it here, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The model.
    pub name: String,
    /// The family that runs it.
    pub family: String,
    /// Rows that a batch has at most; 0 if requests cannot share one.
    pub max_batch_size: u32,
    /// What it takes.
    pub inputs: Vec<TensorConfiguration>,
    /// What it gives.
    pub outputs: Vec<TensorConfiguration>,
    /// Versions of the model that answer, by number.
    pub versions: Vec<VersionNumber>,
    /// Ready replicas of this version, in the whole cluster.
    pub instances: u32,
}

/// A tensor of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorConfiguration {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its sizes, without the rows if the model has batches; -1 is any.
    pub dims: Vec<i64>,
}

impl Models {
    /// The configuration of a version, or of the one that serves.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `VERSION_NOT_FOUND` or `MODEL_NOT_READY`, by name.
    pub fn configuration(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Configuration, Failure> {
        let routes = self.router.routes();
        let chosen = routes.resolve(model, version)?;
        let versions = routes.model(model)?.versions.keys().copied().collect();
        Ok(Configuration::of(chosen, versions))
    }
}

impl Configuration {
    fn of(version: &VersionRoute, versions: Vec<VersionNumber>) -> Self {
        let has_batches = has_batches(&version.signature);
        let tensors = |specs: &[TensorSpec]| {
            let tensors = specs.iter();
            let tensors = tensors.map(|spec| TensorConfiguration::of(spec, has_batches));
            tensors.collect()
        };
        Self {
            name: version.model.to_string(),
            family: version.family.clone(),
            max_batch_size: if has_batches { version.rows_max } else { 0 },
            inputs: tensors(&version.signature.inputs),
            outputs: tensors(&version.signature.outputs),
            versions,
            instances: u32::try_from(version.ready).unwrap_or(u32::MAX),
        }
    }
}

impl TensorConfiguration {
    fn of(spec: &TensorSpec, has_batches: bool) -> Self {
        let dims = spec.shape.0.iter().skip(usize::from(has_batches));
        Self {
            name: spec.name.clone(),
            dtype: spec.dtype,
            dims: dims.map(|dim| i64::from(*dim)).collect(),
        }
    }
}

/// Whether the first size of every tensor counts rows.
fn has_batches(signature: &Signature) -> bool {
    let mut specs = signature.inputs.iter().chain(&signature.outputs);
    specs.all(|spec| spec.shape.0.first() == Some(&Dim::Any))
}

#[cfg(test)]
mod tests {
    use paceline_protocol::ShapePattern;

    use super::*;

    #[test]
    fn rows_are_a_size_of_their_own_where_there_are_batches() {
        let spec = |dims: &[Dim]| TensorSpec {
            name: "x".into(),
            dtype: Dtype::Fp32,
            shape: ShapePattern(dims.to_vec()),
        };
        let rows = spec(&[Dim::Any, Dim::Exactly(64)]);
        let fixed = spec(&[Dim::Exactly(1), Dim::Any]);
        let signature = |output: &TensorSpec| Signature {
            inputs: vec![rows.clone()],
            outputs: vec![output.clone()],
        };
        assert!(has_batches(&signature(&rows)) && !has_batches(&signature(&fixed)));
        let dims = |spec, has_batches| TensorConfiguration::of(spec, has_batches).dims;
        assert_eq!(dims(&rows, true), [64]);
        assert_eq!(dims(&rows, false), [-1, 64]);
        assert_eq!(dims(&spec(&[Dim::Any]), true), [] as [i64; 0]);
    }
}
