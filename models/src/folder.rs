//! What a folder holds, told by its content: never by extensions, and without running any of it.

mod declaration;
mod foreign;

use paceline_protocol::{ModelName, NameError, Signature, SignatureError};

pub(crate) use declaration::{Declaration, MlpSection};

use crate::family::{
    Claim, EncoderError, EncoderPlan, Family, MlpError, MlpPlan, Outline, check_identity,
    encoder_claim, encoder_files,
};
use crate::source::{DECLARATION, FILE_BYTES_MAX, ModelSource, Oversized};

/// What is known of a version once its folder has been recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDescription {
    /// The name that its author gave it; it may be published under another.
    pub name: ModelName,
    /// The family that loads it.
    pub family: Family,
    /// What it does, in its author's words.
    pub summary: Option<String>,
    /// The licence of its weights.
    pub license: Option<String>,
    /// What it takes and gives.
    pub signature: Signature,
    /// Largest batch, in rows.
    pub rows_max: u32,
    /// Whether NaN and infinities are refused at the door.
    pub finite_inputs: bool,
}

/// Why a folder holds no model that this build serves.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RecogniseError {
    /// Nothing is there.
    #[error("the folder holds no files; a model is a model.toml and the weights that it names")]
    Empty,
    /// Files, but nothing that says what they are.
    #[error(
        "nothing in the folder is recognised as a model ({files}); a model.toml must say what it holds"
    )]
    Unrecognised {
        /// The first few names.
        files: String,
    },
    /// A file is longer than any of its kind in use.
    #[error("'{file}' has {bytes} bytes; at most {allowed} are read")]
    TooLarge {
        /// The file.
        file: String,
        /// What it has.
        bytes: u64,
        /// What it may have.
        allowed: u64,
    },
    /// Another system's format.
    #[error(
        "'{file}' is recognised as {format}, which this build does not serve yet; served: {}",
        Family::SERVED
    )]
    Foreign {
        /// The file that gave it away.
        file: String,
        /// The format.
        format: &'static str,
    },
    /// Weights without a word on what they compute.
    #[error("'{file}' holds weights (safetensors), but no model.toml says what they compute")]
    Undescribed {
        /// The file.
        file: String,
    },
    /// A format that can run code when it is read.
    #[error(
        "'{file}' is recognised as {format}, which can run code when it is read and is never \
         loaded; save the weights as safetensors"
    )]
    Pickle {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
    },
    /// model.toml breaks its own rules.
    #[error("model.toml, line {line}: {message}")]
    Declaration {
        /// From 1.
        line: usize,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// A family that this build does not know.
    #[error(
        "family = \"{family}\" is not served by this build; served: {}",
        Family::SERVED
    )]
    Family {
        /// What was asked for.
        family: String,
    },
    /// The name is not a model's name.
    #[error("model.toml, name: {0}")]
    Name(#[from] NameError),
    /// Inputs and outputs contradict themselves.
    #[error("model.toml: {0}")]
    Signature(#[from] SignatureError),
    /// A first dimension that does not count rows.
    #[error("model.toml, {side}: the first dimension of '{name}' counts rows and must be -1")]
    Rows {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// The tensor.
        name: String,
    },
    /// The largest batch is out of bounds.
    #[error("model.toml, batching.rows_max is {rows_max}; allowed: 1 to {ROWS_LIMIT}")]
    RowsMax {
        /// What was asked for.
        rows_max: u32,
    },
    /// Outputs of an identity that are not its inputs.
    #[error(
        "model.toml: an identity has an output for each input, of the same datatype and shape: {offence}"
    )]
    Identity {
        /// Where they differ.
        offence: String,
    },
    /// A multi-layer perceptron that does not add up.
    #[error(transparent)]
    Mlp(#[from] MlpError),
    /// An encoder that does not add up.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

/// Most rows of a batch: as many as one request may have.
const ROWS_LIMIT: u32 = paceline_protocol::limits::ROWS_MAX as u32;
/// Largest batch of a folder without `model.toml`.
const ROWS_MAX_UNSAID: u32 = 64;

/// Describes what a folder holds and checks that it is whole: the declaration, the weights'
/// header, and that both agree. Values of weights, and a tokenizer, are looked at when an engine
/// loads them.
///
/// Cost: parses `model.toml` (at most 256 KiB), an encoder's `config.json` and settings (at most
/// 1 MiB each) and the header of the weights (at most 16 MiB).
///
/// # Errors
/// [`RecogniseError`] names the file or key, and what is allowed.
pub fn recognise(source: &ModelSource) -> Result<ModelDescription, RecogniseError> {
    examine(source).map(|(description, _)| description)
}

/// What a family needs to load what was recognised.
pub(crate) enum Plan {
    Identity,
    Mlp(MlpPlan),
    Encoder(Box<EncoderPlan>),
}

/// What is known of a version without its weights, beside its description.
pub(crate) enum Declared {
    Identity,
    Mlp(Option<MlpSection>),
    Encoder(Box<Outline>),
}

pub(crate) fn examine(source: &ModelSource) -> Result<(ModelDescription, Plan), RecogniseError> {
    let (description, declared) = describe(source)?;
    let plan = match declared {
        Declared::Identity => {
            check_identity(&description.signature)?;
            Plan::Identity
        }
        Declared::Mlp(section) => Plan::Mlp(MlpPlan::new(
            &description.signature,
            section.as_ref(),
            source,
        )?),
        Declared::Encoder(outline) => Plan::Encoder(Box::new(EncoderPlan::new(*outline, source)?)),
    };
    Ok((description, plan))
}

/// What `model.toml`, or an encoder's own files, say, checked as far as it goes without weights.
pub(crate) fn describe(
    source: &ModelSource,
) -> Result<(ModelDescription, Declared), RecogniseError> {
    if let Some(Oversized {
        file,
        bytes,
        allowed,
    }) = source.oversized()
    {
        return Err(RecogniseError::TooLarge {
            file,
            bytes,
            allowed,
        });
    }
    if let Some(text) = source.file(DECLARATION) {
        return declared(Declaration::parse(text)?, source);
    }
    if !foreign::is_hugging_face(source) {
        return Err(foreign::undeclared(source));
    }
    let outline = Outline::read(source, None)?;
    let description = ModelDescription {
        name: ModelName::new(outline.name().to_owned())?,
        family: Family::Encoder,
        summary: None,
        license: None,
        signature: outline.signature(),
        rows_max: ROWS_MAX_UNSAID,
        finite_inputs: false,
    };
    Ok((description, Declared::Encoder(Box::new(outline))))
}

fn declared(
    declaration: Declaration,
    source: &ModelSource,
) -> Result<(ModelDescription, Declared), RecogniseError> {
    let family = Family::named(&declaration.family).ok_or_else(|| RecogniseError::Family {
        family: declaration.family.chars().take(64).collect(),
    })?;
    if family != Family::Mlp && declaration.mlp.is_some() {
        return Err(MlpError::Unused { family }.into());
    }
    if family != Family::Encoder && declaration.encoder.is_some() {
        return Err(EncoderError::Unused { family }.into());
    }
    let stated = Signature {
        inputs: declaration.inputs,
        outputs: declaration.outputs,
    };
    let (signature, declared) = match family {
        Family::Identity => (stated, Declared::Identity),
        Family::Mlp => (stated, Declared::Mlp(declaration.mlp)),
        Family::Encoder => {
            for (side, specs) in [("inputs", &stated.inputs), ("outputs", &stated.outputs)] {
                if !specs.is_empty() {
                    return Err(EncoderError::Signature { side }.into());
                }
            }
            let outline = Outline::read(source, declaration.encoder.as_ref())?;
            (outline.signature(), Declared::Encoder(Box::new(outline)))
        }
    };
    signature.check()?;
    check_rows("inputs", &signature.inputs)?;
    check_rows("outputs", &signature.outputs)?;
    let rows_max = declaration.batching.rows_max;
    if rows_max == 0 || rows_max > ROWS_LIMIT {
        return Err(RecogniseError::RowsMax { rows_max });
    }
    let description = ModelDescription {
        name: ModelName::new(declaration.name)?,
        family,
        summary: declaration.description,
        license: declaration.license,
        signature,
        rows_max,
        finite_inputs: declaration.finite_inputs.unwrap_or(family == Family::Mlp),
    };
    Ok((description, declared))
}

/// The files that a `model.toml` speaks of, with the most bytes that are read of each; none if
/// it cannot be understood.
pub(crate) fn declared_files(text: &[u8]) -> Vec<(String, u64)> {
    let Ok(declaration) = Declaration::parse(text) else {
        return Vec::new();
    };
    if Family::named(&declaration.family) == Some(Family::Encoder) {
        return encoders_files();
    }
    let weights = declaration.mlp.map(|mlp| (mlp.weights, FILE_BYTES_MAX));
    weights.into_iter().collect()
}

/// The files that are read of a folder with this `config.json`: those of an encoder, if it is one
/// that is served.
pub(crate) fn undeclared_files(config: &[u8]) -> Vec<(String, u64)> {
    match encoder_claim(config) {
        Some(Claim::Served) => encoders_files(),
        Some(Claim::Other) | None => Vec::new(),
    }
}

fn encoders_files() -> Vec<(String, u64)> {
    let files = encoder_files();
    files.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
}

/// A file that can run code when it is read, if the folder holds one.
pub(crate) fn pickled(source: &ModelSource) -> Option<RecogniseError> {
    foreign::pickled(source)
}

/// Says what a file that should be weights is instead, if that can be told.
pub(crate) fn not_weights(file: &str, content: &[u8]) -> Option<RecogniseError> {
    foreign::identify(file, content)
}

fn check_rows(
    side: &'static str,
    specs: &[paceline_protocol::TensorSpec],
) -> Result<(), RecogniseError> {
    match specs
        .iter()
        .find(|spec| spec.shape.0.first() != Some(&paceline_protocol::Dim::Any))
    {
        Some(spec) => Err(RecogniseError::Rows {
            side,
            name: spec.name.clone(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
