//! What a perceptron's folder promises, checked before its weights are copied.

use bytes::Bytes;
use paceline_protocol::{Dim, Dtype, Signature, TensorSpec};
use safetensors::tensor::SafeTensors;

use super::{Activation, Head};
use crate::engine::MemoryUse;
use crate::family::{Family, Precision, Workspace};
use crate::folder::{MlpSection, RecogniseError, not_weights};
use crate::source::ModelSource;
use crate::weights::{self, WeightsError};

/// A perceptron that adds up: its widths, and where its weights are.
pub(crate) struct MlpPlan {
    file: Bytes,
    /// Inputs, hidden widths, outputs.
    pub(super) widths: Vec<usize>,
    normalizes: bool,
    pub(super) activation: Activation,
    pub(super) head: Head,
    pub(super) precision: Precision,
    /// Names, and a sigmoid's threshold.
    pub(super) labels: Option<(Vec<String>, Option<f32>)>,
}

/// The values of all tensors, as they stand in the file.
pub(super) struct Weights {
    pub(super) normalize: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) dense: Vec<DenseWeights>,
}

pub(super) struct DenseWeights {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Why a perceptron was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MlpError {
    /// The section is missing.
    #[error("model.toml: family = \"mlp\" needs a section [mlp] with weights, activation and head")]
    Section,
    /// The section belongs to another family.
    #[error("model.toml: the section [mlp] is for family = \"mlp\" only, this is {family}")]
    Unused {
        /// The declared family.
        family: Family,
    },
    /// The weights are not there.
    #[error("model.toml, mlp.weights: the folder has no file '{file}'")]
    Missing {
        /// The file.
        file: String,
    },
    /// The weights' file is not whole, or not safetensors.
    #[error("'{file}': {cause}")]
    Weights {
        /// The file.
        file: String,
        /// What is wrong.
        cause: WeightsError,
    },
    /// The signature is not a perceptron's.
    #[error("model.toml, {side}: {wanted}")]
    Signature {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// What is allowed.
        wanted: String,
    },
    /// Labels or threshold do not fit the head.
    #[error("model.toml, mlp.{key}: {wanted}, got {got}")]
    Labels {
        /// `labels` or `threshold`.
        key: &'static str,
        /// What is allowed.
        wanted: String,
        /// What is there.
        got: String,
    },
    /// A tensor is missing.
    #[error("the weights lack the tensor '{tensor}'")]
    TensorMissing {
        /// Its name.
        tensor: String,
    },
    /// A tensor that the family does not know.
    #[error(
        "the weights hold '{tensor}', which is not used; allowed: normalize.mean, \
         normalize.scale, and dense.N.weight, dense.N.bias with N from 0 without gaps"
    )]
    TensorUnknown {
        /// Its name, cut.
        tensor: String,
    },
    /// A tensor has another type or shape.
    #[error("'{tensor}' must be {wanted}, is {got}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// Type and shape that fit.
        wanted: String,
        /// Type and shape in the file.
        got: String,
    },
    /// A weight is NaN or infinite.
    #[error("'{tensor}' is not finite at element {element}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Position, row by row, from 0.
        element: usize,
    },
    /// A scale of zero divides by zero.
    #[error("'normalize.scale' is 0 at element {element}; a column that never varies has scale 1")]
    ZeroScale {
        /// Position from 0.
        element: usize,
    },
}

/// Most dense layers: past it, a deep network is of another family.
const LAYERS_MAX: usize = 64;

impl MlpPlan {
    pub(crate) fn new(
        signature: &Signature,
        section: Option<&MlpSection>,
        source: &ModelSource,
    ) -> Result<Self, RecogniseError> {
        let section = section.ok_or(MlpError::Section)?;
        let (inputs, outputs) = ends(signature, section.labels.is_some())?;
        check_head(section, outputs)?;
        let name = &section.weights;
        let missing = || MlpError::Missing { file: name.clone() };
        let file = source.file(name).ok_or_else(missing)?.clone();
        let tensors = weights::parse(&file).map_err(|cause| {
            let refused = || {
                MlpError::Weights {
                    file: name.clone(),
                    cause,
                }
                .into()
            };
            not_weights(name, &file).unwrap_or_else(refused)
        })?;
        let widths = widths(&tensors)?;
        let normalizes = check_names(&tensors, widths.len() - 1)?;
        if normalizes {
            for tensor in ["normalize.mean", "normalize.scale"] {
                check_tensor(&tensors, tensor, &[inputs])?;
            }
        }
        for (side, declared, found) in [
            ("inputs", inputs, widths[0]),
            ("outputs", outputs, widths[widths.len() - 1]),
        ] {
            if declared != found {
                let wanted = format!("the weights have {found} {side}, declared are {declared}");
                return Err(MlpError::Signature { side, wanted }.into());
            }
        }
        let threshold = (section.head == Head::Sigmoid).then(|| section.threshold.unwrap_or(0.5));
        Ok(Self {
            widths,
            normalizes,
            activation: section.activation,
            head: section.head,
            precision: section.precision,
            labels: section.labels.clone().map(|names| (names, threshold)),
            file,
        })
    }

    /// Reads and checks every value.
    pub(super) fn read(&self) -> Result<Weights, RecogniseError> {
        let tensors = weights::parse(&self.file).expect("parsed when the plan was made");
        let normalize = if self.normalizes {
            let scale = values(&tensors, "normalize.scale")?;
            if let Some(element) = scale.iter().position(|value| *value == 0.0) {
                return Err(MlpError::ZeroScale { element }.into());
            }
            Some((values(&tensors, "normalize.mean")?, scale))
        } else {
            None
        };
        let layer = |layer: usize| -> Result<DenseWeights, MlpError> {
            Ok(DenseWeights {
                weight: values(&tensors, &format!("dense.{layer}.weight"))?,
                bias: values(&tensors, &format!("dense.{layer}.bias"))?,
            })
        };
        let dense = (0..self.widths.len() - 1)
            .map(layer)
            .collect::<Result<_, _>>()?;
        Ok(Weights { normalize, dense })
    }

    /// Weights as the file has them; a batch's activations: the two neighbouring arrays that
    /// are largest together, and the answer. Elsewhere each operation has a result of its own:
    /// factors that were rounded, the product, what was added to it.
    pub(crate) fn memory(&self, rows_max: u32, workspace: Workspace) -> MemoryUse {
        let pairs = self.widths.windows(2).map(|pair| pair[0] + pair[1]);
        let outputs = self.widths[self.widths.len() - 1];
        let results = match workspace {
            Workspace::Kernels => 1,
            Workspace::Passes(_) => 3,
        };
        let columns = results * pairs.max().unwrap_or(0) + 2 * outputs;
        MemoryUse {
            weights_bytes: self.file.len() as u64,
            activations_bytes: u64::from(rows_max).saturating_mul(columns as u64 * 4),
        }
    }
}

/// Columns of the input and of the numeric output.
fn ends(signature: &Signature, labelled: bool) -> Result<(usize, usize), MlpError> {
    let columns = |spec: &TensorSpec| match (spec.dtype, &spec.shape.0[..]) {
        (Dtype::Fp32, [Dim::Any, Dim::Exactly(columns @ 1..)]) => usize::try_from(*columns).ok(),
        _ => None,
    };
    let refused = |side, wanted: &str| MlpError::Signature {
        side,
        wanted: wanted.to_owned(),
    };
    let input = match &signature.inputs[..] {
        [input] => columns(input),
        _ => None,
    };
    let input =
        input.ok_or_else(|| refused("inputs", "an mlp has one input, FP32 [-1, columns]"))?;
    let output = match &signature.outputs[..] {
        [output] if !labelled => columns(output),
        [output, label]
            if labelled
                && label.dtype == Dtype::Bytes
                && label.shape.0 == [Dim::Any, Dim::Exactly(1)] =>
        {
            columns(output)
        }
        _ => None,
    };
    let wanted = if labelled {
        "an mlp with labels has two outputs, FP32 [-1, columns] and then BYTES [-1, 1]"
    } else {
        "an mlp without labels has one output, FP32 [-1, columns]"
    };
    Ok((input, output.ok_or_else(|| refused("outputs", wanted))?))
}

/// Whether labels and threshold fit the head.
fn check_head(section: &MlpSection, outputs: usize) -> Result<(), MlpError> {
    let refused = |key, wanted: String, got: String| Err(MlpError::Labels { key, wanted, got });
    let labels = section.labels.as_ref().map(Vec::len);
    match (section.head, labels) {
        (Head::None, Some(count)) => {
            let wanted = "labels need the head softmax or sigmoid".to_owned();
            return refused("labels", wanted, format!("{count} labels and none"));
        }
        (Head::Softmax, Some(count)) if count != outputs => {
            let wanted = format!("softmax has a label for each of its {outputs} outputs");
            return refused("labels", wanted, count.to_string());
        }
        (Head::Sigmoid, Some(count)) if (count, outputs) != (2, 1) => {
            let wanted = "sigmoid has one output and two labels, below and from the threshold on";
            return refused(
                "labels",
                wanted.to_owned(),
                format!("{count} for {outputs} outputs"),
            );
        }
        _ => {}
    }
    match section.threshold {
        Some(threshold) if section.head != Head::Sigmoid || labels.is_none() => {
            let wanted = "only sigmoid with labels has one".to_owned();
            refused("threshold", wanted, threshold.to_string())
        }
        Some(threshold) if !(0.0..=1.0).contains(&threshold) => {
            refused("threshold", "from 0 to 1".to_owned(), threshold.to_string())
        }
        _ => Ok(()),
    }
}

/// Widths along `dense.0`, `dense.1`, …, each layer taking what the one before gives.
fn widths(tensors: &SafeTensors<'_>) -> Result<Vec<usize>, MlpError> {
    let mut widths = Vec::new();
    for layer in 0..LAYERS_MAX {
        let name = format!("dense.{layer}.weight");
        let Ok(weight) = tensors.tensor(&name) else {
            break;
        };
        let (inputs, outputs) = match (weight.shape(), widths.last()) {
            ([outputs, inputs], before)
                if *outputs > 0 && *inputs > 0 && before.is_none_or(|before| before == inputs) =>
            {
                (*inputs, *outputs)
            }
            (shape, before) => {
                let inputs = before.map_or("inputs".to_owned(), usize::to_string);
                return Err(MlpError::Tensor {
                    tensor: name,
                    wanted: format!("F32 [outputs, {inputs}], both at least 1"),
                    got: format!("{:?} {shape:?}", weight.dtype()),
                });
            }
        };
        check_tensor(tensors, &name, &[outputs, inputs])?;
        check_tensor(tensors, &format!("dense.{layer}.bias"), &[outputs])?;
        if layer == 0 {
            widths.push(inputs);
        }
        widths.push(outputs);
    }
    if widths.is_empty() {
        return Err(MlpError::TensorMissing {
            tensor: "dense.0.weight".into(),
        });
    }
    Ok(widths)
}

/// Refuses every tensor that no layer uses; says whether inputs are normalized.
fn check_names(tensors: &SafeTensors<'_>, layers: usize) -> Result<bool, MlpError> {
    let known = |name: &str| match name
        .strip_prefix("dense.")
        .and_then(|rest| rest.split_once('.'))
    {
        // The spelling must be the canonical one: `dense.00.weight` is not `dense.0.weight`.
        Some((number, "weight" | "bias")) => number
            .parse()
            .is_ok_and(|n: usize| n < layers && n.to_string() == number),
        _ => matches!(name, "normalize.mean" | "normalize.scale"),
    };
    let mut names = tensors.names();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(MlpError::TensorUnknown {
            tensor: name.chars().take(64).collect(),
        });
    }
    Ok(names.iter().any(|name| name.starts_with("normalize.")))
}

fn check_tensor(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<(), MlpError> {
    let Ok(tensor) = tensors.tensor(name) else {
        return Err(MlpError::TensorMissing {
            tensor: name.into(),
        });
    };
    if tensor.dtype() != safetensors::Dtype::F32 || tensor.shape() != shape {
        return Err(MlpError::Tensor {
            tensor: name.into(),
            wanted: format!("F32 {shape:?}"),
            got: format!("{:?} {:?}", tensor.dtype(), tensor.shape()),
        });
    }
    Ok(())
}

fn values(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, MlpError> {
    let tensor = tensors.tensor(name).ok();
    let values = tensor.and_then(|tensor| weights::f32_values(&tensor));
    let values = values.ok_or_else(|| MlpError::TensorMissing {
        tensor: name.into(),
    })?;
    match values.iter().position(|value| !value.is_finite()) {
        Some(element) => Err(MlpError::NotFinite {
            tensor: name.into(),
            element,
        }),
        None => Ok(values),
    }
}
