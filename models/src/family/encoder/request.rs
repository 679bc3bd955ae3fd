//! From a request's tensors to sequences of tokens.

use paceline_protocol::Tensor;

use super::Encoder;
use super::outline::Input;
use super::sequence::Sequence;
use super::tokenizer::Kept;
use crate::batch::Batch;
use crate::engine::RunError;

/// Longest text that is cut into tokens, in bytes: eight times what the longest encoder in use
/// reads. Cutting takes about 200 bytes of memory for each byte of text.
const TEXT_BYTES_MAX: usize = 256 << 10;

impl Encoder {
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
    pub(super) fn check_length(&self, text: &str) -> Result<(), String> {
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
