//! What a version takes and gives: names, types and shapes of its tensors.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::limits::{DIMS_MAX, NAME_BYTES_MAX, TENSORS_MAX};
use crate::shape::ShapePattern;

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name that clients use.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Accepted shapes; the first dimension counts rows and is `-1`.
    pub shape: ShapePattern,
}

/// Inputs and outputs of a version, each in the order in which engines see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What a request must hold.
    pub inputs: Vec<TensorSpec>,
    /// What an answer holds.
    pub outputs: Vec<TensorSpec>,
}

/// Why a signature was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No inputs, or no outputs, or too many.
    #[error("a model has 1 to {TENSORS_MAX} {side}, this one has {count}")]
    Count {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// How many it has.
        count: usize,
    },
    /// A tensor's name is empty, too long or holds a control character.
    #[error("{side}: a tensor's name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name {
        /// `inputs` or `outputs`.
        side: &'static str,
    },
    /// Two tensors of one side share a name.
    #[error("{side}: '{name}' is named twice")]
    Twice {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// The name.
        name: String,
    },
    /// A shape has no dimensions or too many.
    #[error("{side}: '{name}' has {rank} dimensions; allowed: 1 to {DIMS_MAX}")]
    Rank {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// The tensor.
        name: String,
        /// How many it has.
        rank: usize,
    },
}

impl Signature {
    /// Checks counts, names and ranks.
    ///
    /// # Errors
    /// [`SignatureError`] names the side and the tensor.
    pub fn check(&self) -> Result<(), SignatureError> {
        check_side("inputs", &self.inputs)?;
        check_side("outputs", &self.outputs)
    }

    /// Position of the input called `name`.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// Position of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }
}

fn check_side(side: &'static str, specs: &[TensorSpec]) -> Result<(), SignatureError> {
    if specs.is_empty() || specs.len() > TENSORS_MAX {
        return Err(SignatureError::Count {
            side,
            count: specs.len(),
        });
    }
    let mut seen = BTreeSet::new();
    for spec in specs {
        let name = &spec.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            return Err(SignatureError::Name { side });
        }
        if !seen.insert(name) {
            return Err(SignatureError::Twice {
                side,
                name: name.clone(),
            });
        }
        let rank = spec.shape.0.len();
        if rank == 0 || rank > DIMS_MAX {
            return Err(SignatureError::Rank {
                side,
                name: name.clone(),
                rank,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Dim;

    fn spec(name: &str) -> TensorSpec {
        let shape = ShapePattern(vec![Dim::Any, Dim::Exactly(4)]);
        TensorSpec {
            name: name.into(),
            dtype: Dtype::Fp32,
            shape,
        }
    }

    #[test]
    fn offences_name_the_side_and_the_tensor() {
        let good = Signature {
            inputs: vec![spec("a")],
            outputs: vec![spec("b")],
        };
        assert_eq!(good.check(), Ok(()));
        let none = Signature {
            inputs: vec![],
            ..good.clone()
        };
        assert_eq!(
            none.check(),
            Err(SignatureError::Count {
                side: "inputs",
                count: 0
            })
        );
        let twice = Signature {
            outputs: vec![spec("b"), spec("b")],
            ..good.clone()
        };
        assert_eq!(
            twice.check(),
            Err(SignatureError::Twice {
                side: "outputs",
                name: "b".into()
            })
        );
        let mut flat = good;
        flat.inputs[0].shape.0.clear();
        assert!(matches!(
            flat.check(),
            Err(SignatureError::Rank { rank: 0, .. })
        ));
    }
}
