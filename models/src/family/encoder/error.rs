//! Why an encoder was refused.

use crate::weights::WeightsError;

/// Why an encoder's folder was refused. Whatever it quotes is cut to a length that can be shown.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncoderError {
    /// A file is not there.
    #[error("the folder has no file '{file}', which {needs}")]
    Missing {
        /// The file.
        file: &'static str,
        /// What it is needed for.
        needs: &'static str,
    },
    /// A file is not JSON.
    #[error("'{file}' is not JSON as it should be: {reason}")]
    Json {
        /// The file.
        file: &'static str,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A field is not there.
    #[error("{file} has no {field}; it must be {allowed}")]
    FieldMissing {
        /// The file.
        file: &'static str,
        /// The field.
        field: &'static str,
        /// What it may be.
        allowed: String,
    },
    /// A field has a value that is not served.
    #[error("{file}, {field} is {value}; allowed: {allowed}")]
    Field {
        /// The file.
        file: &'static str,
        /// The field.
        field: String,
        /// Its value, cut.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// Another architecture of Hugging Face's.
    #[error(
        "'config.json' is recognised as a Hugging Face model of the type '{model_type}', which \
         this build does not serve; served: {served}"
    )]
    ModelType {
        /// What it says, cut.
        model_type: String,
        /// What is served.
        served: &'static str,
    },
    /// Tensors are declared, although they follow from the folder.
    #[error("model.toml, {side}: an encoder's follow from its folder; leave them out")]
    Signature {
        /// `inputs` or `outputs`.
        side: &'static str,
    },
    /// The section belongs to another family.
    #[error("model.toml: the section [encoder] is for family = \"encoder\" only, this is {family}")]
    Unused {
        /// The declared family.
        family: crate::family::Family,
    },
    /// The weights' file is not whole, or not safetensors.
    #[error("'{file}': {cause}")]
    Weights {
        /// The file.
        file: &'static str,
        /// What is wrong.
        cause: WeightsError,
    },
    /// A tensor is missing.
    #[error("the weights lack the tensor '{tensor}'")]
    TensorMissing {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another type or shape.
    #[error("'{tensor}' must be {wanted}, is {got}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// Types and shape that fit.
        wanted: String,
        /// Type and shape in the file.
        got: String,
    },
    /// There are more layers than `config.json` speaks of.
    #[error("the weights hold '{tensor}', but config.json speaks of {layers} layers")]
    LayerBeyond {
        /// Its name, cut.
        tensor: String,
        /// How many there should be.
        layers: usize,
    },
    /// A weight is NaN or infinite.
    #[error("'{tensor}' is not finite at element {element}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Position, row by row, from 0.
        element: usize,
    },
    /// The tokenizer cannot be used.
    #[error("'tokenizer.json' cannot be used: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
}

/// At most this many characters of what a file holds stand in a message.
const SHOWN_CHARS_MAX: usize = 120;

/// A part of a file as it may stand in a message.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect()
}

impl EncoderError {
    /// As the loading of a version says it.
    pub(crate) fn into_load(self) -> crate::engine::LoadError {
        crate::folder::RecogniseError::from(self).into()
    }
}
