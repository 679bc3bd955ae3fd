//! What rounding does to an encoder: how far its answers turn, and how much faster they come.
//!
//! The same texts are computed in `f32` and in `bf16` by the engine that asks, on one thread, and the
//! vectors of each text are compared by their cosine. So the figures are of this machine: one that
//! does not multiply bfloat16 faster rounds nothing, and says so.

use std::time::{Duration, Instant};

use bytes::Bytes;
use paceline_protocol::{Dtype, Signature, Tensor};
use toml::{Table, Value};

use crate::batch::Batch;
use crate::engine::{Engine, LoadError, LoadedModel, RunError};
use crate::family::Family;
use crate::folder::{RecogniseError, recognise};
use crate::kernel::rounds_bf16;
use crate::source::ModelSource;

/// How factors of an encoder's products are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderPrecision {
    /// Not at all.
    F32,
    /// To bfloat16, where the machine multiplies these faster.
    Bf16,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionFigures {
    /// Texts, or pairs of texts.
    pub texts: u32,
    /// The least cosine between a text's vector in `f32` and in `bf16`.
    pub cosine_min: f64,
    /// Their mean.
    pub cosine_mean: f64,
    /// Time of a text in `f32`, in nanoseconds of one thread.
    pub f32_text_ns: u64,
    /// The same in `bf16`.
    pub bf16_text_ns: u64,
    /// Whether this machine rounds at all.
    pub is_rounded: bool,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum PrecisionError {
    /// It is not recognised.
    #[error(transparent)]
    Recognise(#[from] RecogniseError),
    /// It has no precision to choose.
    #[error("a model of family '{family}' has no precision to choose: encoders have")]
    Family {
        /// Its own.
        family: &'static str,
    },
    /// Its `model.toml` is one only in part.
    #[error("model.toml: {0}")]
    Declaration(String),
    /// It reads tokens.
    #[error("precisions are compared by texts, and this model reads tokens")]
    Tokens,
    /// There are none, or for pairs less than two.
    #[error("{texts} texts to compare by; at least {least} are needed")]
    Texts {
        /// How many there are.
        texts: usize,
        /// How many are needed.
        least: usize,
    },
    /// It does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It does not run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl EncoderPrecision {
    /// As `model.toml` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Short texts of our own, one a line, of several kinds and languages: what precisions are compared
/// by unless somebody has better ones.
pub fn calibration_texts() -> Vec<String> {
    let texts = include_str!("precision/calibration.txt").lines();
    texts.map(str::to_owned).collect()
}

/// The `model.toml` of an encoder that says its precision: what the folder's own says, without its
/// comments, or a new one.
///
/// # Errors
/// [`PrecisionError`], where it is no encoder.
pub fn declared(
    source: &ModelSource,
    precision: EncoderPrecision,
) -> Result<Bytes, PrecisionError> {
    let description = recognise(source)?;
    if description.family != Family::Encoder {
        let family = description.family.name();
        return Err(PrecisionError::Family { family });
    }
    let wrong = |error: &dyn std::fmt::Display| PrecisionError::Declaration(error.to_string());
    let mut table = match source.file(MODEL) {
        Some(content) => {
            let text = std::str::from_utf8(content).map_err(|error| wrong(&error))?;
            text.parse::<Table>().map_err(|error| wrong(&error))?
        }
        None => Table::from_iter([
            ("name".to_owned(), description.name.as_str().into()),
            ("family".to_owned(), Family::Encoder.name().into()),
        ]),
    };
    let section = table.entry("encoder").or_insert(Value::Table(Table::new()));
    let section = section.as_table_mut();
    let section = section.ok_or_else(|| wrong(&"'encoder' is no table"))?;
    section.insert("precision".to_owned(), precision.name().into());
    let text = toml::to_string_pretty(&table).map_err(|error| wrong(&error))?;
    Ok(text.into())
}

/// Computes the texts in both precisions. Takes two loads and a few runs of all texts: some
/// seconds, or minutes of a large model.
///
/// # Errors
/// [`PrecisionError`] says what is wrong with the version or the texts.
pub fn compare_precisions(
    engine: &dyn Engine,
    source: &ModelSource,
    texts: &[String],
) -> Result<PrecisionFigures, PrecisionError> {
    let computed = |precision| -> Result<Computed, PrecisionError> {
        let toml = declared(source, precision)?;
        let others = source.files().filter(|(name, _)| *name != MODEL);
        let files = others.map(|(name, content)| (name.to_owned(), content.clone()));
        let files = files.chain([(MODEL.to_owned(), toml)]);
        let model = engine.load(&ModelSource::from_files(files))?;
        compute(&*model, texts)
    };
    let (exact, rounded) = (
        computed(EncoderPrecision::F32)?,
        computed(EncoderPrecision::Bf16)?,
    );
    let cosines: Vec<f64> = match exact.width {
        // A single score has no direction: all of them together have.
        1 => vec![cosine(&exact.vectors, &rounded.vectors)],
        width => {
            let exact = exact.vectors.chunks_exact(width);
            let both = exact.zip(rounded.vectors.chunks_exact(width));
            both.map(|(exact, rounded)| cosine(exact, rounded))
                .collect()
        }
    };
    let rows = (exact.vectors.len() / exact.width.max(1)).max(1);
    Ok(PrecisionFigures {
        texts: rows as u32,
        cosine_min: cosines.iter().copied().fold(1.0, f64::min),
        cosine_mean: cosines.iter().sum::<f64>() / cosines.len().max(1) as f64,
        f32_text_ns: exact.nanos / rows as u64,
        bf16_text_ns: rounded.nanos / rows as u64,
        is_rounded: rounds_bf16(),
    })
}

struct Computed {
    /// One after another.
    vectors: Vec<f32>,
    width: usize,
    /// Of all texts, the median of some rounds.
    nanos: u64,
}

fn compute(model: &dyn LoadedModel, texts: &[String]) -> Result<Computed, PrecisionError> {
    let signature = &model.description().signature;
    let rows = requests(signature, texts)?;
    let mut batches = Vec::new();
    for rows in rows.chunks(model.description().rows_max as usize) {
        let prepared = rows.iter().map(|row| Ok(model.prepare(row)?.inputs));
        batches.push(prepared.collect::<Result<Vec<_>, RunError>>()?);
    }
    let place = vector_output(signature).ok_or(PrecisionError::Tokens)?;
    let began = Instant::now();
    let (mut vectors, mut nanos) = (Vec::new(), Vec::with_capacity(ROUNDS));
    for round in 0..=ROUNDS {
        let start = Instant::now();
        let mut answers = Vec::with_capacity(rows.len());
        for batch in &batches {
            let requests: Vec<&[Tensor]> = batch.iter().map(Vec::as_slice).collect();
            answers.extend(model.run(&Batch::new(&requests))?);
        }
        // The first round pays for cold caches, and is not counted.
        if round > 0 {
            nanos.push(start.elapsed().as_nanos() as u64);
        }
        if round > 0 && began.elapsed() > PATIENCE || round == ROUNDS {
            for answer in &answers {
                answer[place].extend_f32(&mut vectors);
            }
            break;
        }
    }
    nanos.sort_unstable();
    Ok(Computed {
        width: vectors.len() / rows.len(),
        vectors,
        nanos: nanos[nanos.len() / 2],
    })
}

/// One request for each text; for pairs, each text with the next one.
fn requests(signature: &Signature, texts: &[String]) -> Result<Vec<Vec<Tensor>>, PrecisionError> {
    let names: Vec<&str> = signature.inputs.iter().map(|spec| &*spec.name).collect();
    let least = match names[..] {
        ["text"] => 1,
        ["query", "text"] => 2,
        _ => return Err(PrecisionError::Tokens),
    };
    if texts.len() < least {
        let texts = texts.len();
        return Err(PrecisionError::Texts { texts, least });
    }
    let column = |text: &String| Tensor::from_byte_strings(&[text]);
    let rows = texts.windows(least);
    Ok(rows.map(|row| row.iter().map(column).collect()).collect())
}

/// Which output is compared: vectors, or what scores are made of.
fn vector_output(signature: &Signature) -> Option<usize> {
    let mut outputs = signature.outputs.iter();
    outputs.position(|spec| {
        let is_vector = matches!(&*spec.name, "embedding" | "logits" | "logit");
        is_vector && spec.dtype == Dtype::Fp32
    })
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        let both = one.iter().zip(other);
        both.map(|(one, other)| f64::from(*one) * f64::from(*other))
            .sum()
    };
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    match lengths > 0.0 {
        true => dot(one, other) / lengths,
        // Nothing has turned.
        false => 1.0,
    }
}

const MODEL: &str = "model.toml";
/// Rounds that are counted.
const ROUNDS: usize = 3;
/// After this long no further round is begun.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
