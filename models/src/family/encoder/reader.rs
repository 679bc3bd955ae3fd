//! From a request's tensors to sequences of tokens: all that is known of an encoder without its
//! weights.

use paceline_protocol::Tensor;

use super::error::EncoderError;
use super::outline::{Input, Outline};
use super::plan::EncoderPlan;
use super::sequence::{self, Row, RowLimits, Sequence};
use super::tokenizer::{Kept, Texts};
use crate::batch::Batch;
use crate::engine::{Prepared, RunError, TextFacts, Token};
use crate::folder::ModelDescription;

/// Reads requests for an encoder, wherever that computes: what
/// [`LoadedModel`](crate::LoadedModel)'s methods of these names do is done here.
pub struct TextReader {
    description: ModelDescription,
    outline: Outline,
    texts: Option<Texts>,
    limits: RowLimits,
}

/// Longest text that is cut into tokens, in bytes: eight times what the longest encoder in use
/// reads. Cutting takes about 200 bytes of memory for each byte of text.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// Tokens of a row of a sample: a sentence or two.
const SAMPLE_TOKENS: usize = 32;

impl TextReader {
    /// Reads the tokenizer, where requests hold texts.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`].
    pub(crate) fn new(
        description: ModelDescription,
        plan: &EncoderPlan,
    ) -> Result<Self, EncoderError> {
        let config = &plan.outline.config;
        Ok(Self {
            texts: plan.texts()?,
            limits: RowLimits {
                tokens_max: plan.outline.tokens_max,
                vocabulary: config.vocabulary,
                segments: config.segments.max(1),
            },
            outline: plan.outline.clone(),
            description,
        })
    }

    pub(crate) fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// As [`LoadedModel::prepare`](crate::LoadedModel::prepare).
    pub(crate) fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        if sequence::is_packed(inputs) {
            return Ok(Prepared {
                inputs: inputs.to_vec(),
                tokens: self.tokens(inputs),
                rows_cut: 0,
            });
        }
        Ok(prepared(&self.sequences(0, inputs, Kept::Start)?))
    }

    /// As [`LoadedModel::prepare_ends`](crate::LoadedModel::prepare_ends).
    pub(crate) fn prepare_ends(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        match sequence::is_packed(inputs) {
            true => self.prepare(inputs),
            false => Ok(prepared(&self.sequences(0, inputs, Kept::End)?)),
        }
    }

    /// As [`LoadedModel::text_facts`](crate::LoadedModel::text_facts).
    pub(crate) fn text_facts(&self) -> TextFacts {
        self.outline.facts()
    }

    /// As [`LoadedModel::tokens`](crate::LoadedModel::tokens).
    pub(crate) fn tokens(&self, inputs: &[Tensor]) -> Option<u64> {
        if sequence::is_packed(inputs) {
            let rows = sequence::unpack(&inputs[0]);
            return Some(rows.map(|row| row.tokens() as u64).sum());
        }
        let sequences = self.sequences(0, inputs, Kept::Start).ok()?;
        Some(sequences.iter().map(|row| row.ids.len() as u64).sum())
    }

    /// As [`LoadedModel::tokens_max`](crate::LoadedModel::tokens_max).
    pub(crate) fn tokens_max(&self) -> Option<u32> {
        u32::try_from(self.outline.tokens_max).ok()
    }

    /// As [`LoadedModel::tokenize`](crate::LoadedModel::tokenize).
    pub(crate) fn tokenize(&self, text: &str) -> Option<Result<Vec<Token>, RunError>> {
        let texts = self.texts.as_ref()?;
        let refused = |got| RunError::Input {
            request: 0,
            input: "text".into(),
            wanted: "a text".into(),
            got,
        };
        let fits = self.check_length(text);
        Some(fits.and_then(|()| texts.tokens(text)).map_err(refused))
    }

    /// As [`LoadedModel::sample`](crate::LoadedModel::sample).
    pub(crate) fn sample(&self, rows: u32) -> Vec<Tensor> {
        let tokens = self.outline.tokens_max.min(SAMPLE_TOKENS) as u32;
        let vocabulary = self.outline.config.vocabulary as u32;
        let row = |row: u32| Sequence {
            ids: (0..tokens)
                .map(|token| (row * 7 + token * 31 + 1) % vocabulary)
                .collect(),
            ..Sequence::default()
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        vec![sequence::pack(&rows)]
    }

    /// Checks a row of a prepared request.
    ///
    /// # Errors
    /// [`RunError::Input`] says what is wrong with it.
    pub(super) fn check_packed(&self, request: usize, row: Row<'_>) -> Result<(), RunError> {
        self.limits.check(row).map_err(|got| RunError::Input {
            request,
            input: self.description.signature.inputs[0].name.clone(),
            wanted: self.limits.told(),
            got,
        })
    }

    /// The rows of a request that fits the signature; of a text that is too long, what is kept.
    ///
    /// # Errors
    /// [`RunError::Input`] names the tensor, the row and what is wrong with it.
    pub(super) fn sequences(
        &self,
        request: usize,
        inputs: &[Tensor],
        kept: Kept,
    ) -> Result<Vec<Sequence>, RunError> {
        let single = [inputs];
        Batch::new(&single)
            .check(&self.description.signature, u32::MAX)
            .map_err(|error| at_request(error, request))?;
        match self.outline.input {
            Input::Text => self.of_texts(request, inputs, kept),
            Input::Tokens => self.of_tokens(request, inputs),
        }
    }

    /// Whether a text is short enough to be cut.
    fn check_length(&self, text: &str) -> Result<(), String> {
        match text.len() {
            bytes if bytes > TEXT_BYTES_MAX => Err(format!("{bytes} bytes")),
            _ => Ok(()),
        }
    }

    fn of_texts(
        &self,
        request: usize,
        inputs: &[Tensor],
        kept: Kept,
    ) -> Result<Vec<Sequence>, RunError> {
        let texts = self
            .texts
            .as_ref()
            .expect("the plan reads a tokenizer for texts");
        let mut columns: Vec<_> = inputs.iter().map(Tensor::byte_strings).collect();
        let rows = inputs[0].rows();
        let mut sequences = Vec::with_capacity(rows as usize);
        for row in 0..rows {
            let refused = |column: usize, got: String| RunError::Input {
                request,
                input: self.description.signature.inputs[column].name.clone(),
                wanted: format!("texts in UTF-8 of at most {TEXT_BYTES_MAX} bytes"),
                got: format!("row {row}: {got}"),
            };
            let mut read = |column: usize| {
                let bytes = columns[column].next().unwrap_or_default();
                let text = std::str::from_utf8(bytes)
                    .map_err(|error| refused(column, error.to_string()))?;
                let fits = self.check_length(text).map_err(|got| refused(column, got));
                fits.map(|()| text)
            };
            let first = read(0)?;
            let second = match inputs.len() {
                1 => None,
                _ => Some(read(1)?),
            };
            let mut sequence = texts
                .encode((first, second), kept)
                .map_err(|got| refused(0, got))?;
            if !self.outline.config.layout.tells_texts_apart() {
                sequence.segments.clear();
            }
            self.check_row(request, row, &sequence)?;
            sequences.push(sequence);
        }
        Ok(sequences)
    }

    fn of_tokens(&self, request: usize, inputs: &[Tensor]) -> Result<Vec<Sequence>, RunError> {
        let rows = inputs[0].rows() as usize;
        let columns = inputs[0].shape().row_elements() as usize;
        let mut sequences = Vec::with_capacity(rows);
        for row in 0..rows {
            let refused = |tensor: usize, wanted: &str, got: String| RunError::Input {
                request,
                input: self.description.signature.inputs[tensor].name.clone(),
                wanted: wanted.to_owned(),
                got: format!("row {row}: {got}"),
            };
            if let Some(other) = inputs
                .iter()
                .find(|other| other.shape() != inputs[0].shape())
            {
                let wanted = format!("the shape of input_ids, {}", inputs[0].shape());
                return Err(refused(1, &wanted, other.shape().to_string()));
            }
            let numbers = |tensor: usize| {
                let (all, _) = inputs[tensor].data().as_chunks::<8>();
                all[row * columns..][..columns]
                    .iter()
                    .map(|chunk| i64::from_le_bytes(*chunk))
            };
            let tokens = numbers(1).take_while(|mask| *mask == 1).count();
            if let Some(mask) = numbers(1).skip(tokens).find(|mask| *mask != 0) {
                let wanted = "ones, then zeros";
                return Err(refused(1, wanted, format!("{mask} behind {tokens} ones")));
            }
            // What does not fit 32 bits is beyond every vocabulary and every table.
            let narrow = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
            let sequence = Sequence {
                ids: numbers(0).take(tokens).map(narrow).collect(),
                segments: match inputs.len() {
                    3 => numbers(2).take(tokens).map(narrow).collect(),
                    _ => Vec::new(),
                },
                is_cut: false,
            };
            self.check_row(request, row as u64, &sequence)?;
            sequences.push(sequence);
        }
        Ok(sequences)
    }

    fn check_row(&self, request: usize, row: u64, sequence: &Sequence) -> Result<(), RunError> {
        self.limits
            .check_sequence(sequence)
            .map_err(|got| RunError::Input {
                request,
                input: self.description.signature.inputs[0].name.clone(),
                wanted: self.limits.told(),
                got: format!("row {row}: {got}"),
            })
    }
}

fn prepared(sequences: &[Sequence]) -> Prepared {
    Prepared {
        tokens: Some(sequences.iter().map(|row| row.ids.len() as u64).sum()),
        rows_cut: sequences.iter().filter(|row| row.is_cut).count() as u64,
        inputs: vec![sequence::pack(sequences)],
    }
}

/// The same, of a request that stands elsewhere in its batch.
fn at_request(error: RunError, request: usize) -> RunError {
    match error {
        RunError::Input {
            input, wanted, got, ..
        } => RunError::Input {
            request,
            input,
            wanted,
            got,
        },
        other => other,
    }
}
