//! Text to tokens, as the model's own `tokenizer.json` cuts it.
//!
//! The library is Hugging Face's `tokenizers`, so that ids are those that the model was trained
//! with. What the file says about truncation and padding is not followed: padding is never
//! wanted, because batches carry none, and the length follows from the model's settings.
//! (`tokenizer.json` of all-MiniLM-L6-v2, for one, pads every text to 128 tokens, and cuts it there.)

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{
    Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use super::census;
use super::error::{EncoderError, shown};
use super::sequence::Sequence;
use crate::engine::Token;

/// A model's tokenizer, with its own limits. Encoding takes `&self`: many threads may.
pub(super) struct Texts {
    tokenizer: Tokenizer,
    lower_case: bool,
    tokens_max: usize,
    /// Special tokens around a text, and around a pair.
    added: [usize; 2],
}

/// What a model's folder and settings say about its texts.
pub(super) struct TextLimits {
    /// Longest sequence, special tokens included.
    pub(super) tokens_max: usize,
    /// Ids are below this.
    pub(super) vocabulary: usize,
    /// Whether two texts make a sequence.
    pub(super) pairs: bool,
    pub(super) lower_case: bool,
}

/// What is kept of a text that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Start,
    End,
}

/// Largest `tokenizer.json`, in bytes: those of XLM-R, with 250,000 tokens, have 17 MB.
pub(super) const TOKENIZER_BYTES_MAX: u64 = 32 << 20;
/// Most values in it. XLM-R's has 750,000; while it is parsed, each may take 100 bytes.
const VALUES_MAX: usize = 3_000_000;

impl Texts {
    /// Reads a `tokenizer.json`. Cost: parses it twice, the first time to see how much memory the
    /// second will take.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`] says what is wrong with it.
    pub(super) fn read(file: &[u8], limits: &TextLimits) -> Result<Self, EncoderError> {
        let refused = |reason: &str| EncoderError::Tokenizer {
            reason: shown(reason),
        };
        census::check(file, VALUES_MAX).map_err(|error| refused(&error.to_string()))?;
        let read = guarded(|| Tokenizer::from_bytes(file));
        let mut tokenizer = read.map_err(|reason| refused(&reason))?;
        let largest = tokenizer.get_vocab(true).into_values().max();
        if largest.is_none_or(|id| id as usize >= limits.vocabulary) {
            let ids = largest.map_or("no tokens".to_owned(), |id| format!("ids up to {id}"));
            let vocabulary = limits.vocabulary;
            return Err(refused(&format!(
                "it has {ids}, config.json has vocab_size {vocabulary}"
            )));
        }
        let added = |pair| {
            let processor = tokenizer.get_post_processor();
            processor.map_or(0, |processor| processor.added_tokens(pair))
        };
        let added = [added(false), added(true)];
        let most = limits.tokens_max;
        if added[usize::from(limits.pairs)] >= most {
            let added = added[usize::from(limits.pairs)];
            return Err(refused(&format!(
                "it adds {added} tokens to each text of at most {most}"
            )));
        }
        tokenizer.with_padding(None);
        let uncut = tokenizer.with_truncation(None);
        uncut.map_err(|error| refused(&error.to_string()))?;
        let texts = Self {
            tokenizer,
            lower_case: limits.lower_case,
            tokens_max: limits.tokens_max,
            added,
        };
        // What a template names and the file lacks is found when it is used for the first time.
        let pair = limits.pairs.then_some(PROBE);
        texts
            .encode((PROBE, pair), Kept::Start)
            .map_err(|reason| refused(&reason))?;
        texts.tokens(PROBE).map_err(|reason| refused(&reason))?;
        Ok(texts)
    }

    /// The tokens of a text, or of a pair of texts, cut to the model's length; a pair is cut
    /// where it is longer. Cost: some 2 µs a token.
    ///
    /// # Errors
    /// What the tokenizer says of a text that it cannot cut.
    pub(super) fn encode(
        &self,
        texts: (&str, Option<&str>),
        kept: Kept,
    ) -> Result<Sequence, String> {
        guarded(|| self.encoding(texts, kept))
    }

    /// Every token of a text, uncut. `start` and `end` are bytes of the text.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<Token>, String> {
        let encoding = guarded(|| self.tokenizer.encode(self.cased(text), true));
        encoding.map(|encoding| tokens_of(&encoding))
    }

    fn encoding(
        &self,
        (text, pair): (&str, Option<&str>),
        kept: Kept,
    ) -> tokenizers::Result<Sequence> {
        // Without special tokens: they are added to what is left after the cut.
        let plain = |text| self.tokenizer.encode_fast(self.cased(text), false);
        let (first, second) = (plain(text)?, pair.map(plain).transpose()?);
        let content = first.len() + second.as_ref().map_or(0, Encoding::len);
        let content_max = self.tokens_max - self.added[usize::from(pair.is_some())];
        let truncation = TruncationParams {
            max_length: content_max,
            strategy: TruncationStrategy::LongestFirst,
            direction: match kept {
                Kept::Start => TruncationDirection::Right,
                Kept::End => TruncationDirection::Left,
            },
            ..TruncationParams::default()
        };
        let (mut first, mut second) = truncate_encodings(first, second, &truncation)?;
        // What was cut off is kept by the library, and would be worked on with the rest.
        for encoding in std::iter::once(&mut first).chain(&mut second) {
            encoding.take_overflowing();
        }
        let encoding = match self.tokenizer.get_post_processor() {
            Some(processor) => processor.process(first, second, true)?,
            None => {
                let both = std::iter::once(first).chain(second).collect();
                Encoding::merge(<dyn PostProcessor>::default_process(both, true)?, false)
            }
        };
        Ok(Sequence {
            ids: encoding.get_ids().to_vec(),
            segments: encoding.get_type_ids().to_vec(),
            is_cut: content > content_max,
        })
    }

    fn cased<'a>(&self, text: &'a str) -> tokenizers::InputSequence<'a> {
        match self.lower_case {
            true => text.to_lowercase().into(),
            false => text.into(),
        }
    }
}

/// A text that every tokenizer can cut.
const PROBE: &str = "Is this a text, or 1?";

/// The library asserts what files of its own writing always hold: what it panics about is the
/// file's fault, and is told like any other.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(shown(&error.to_string())),
        Err(_) => Err("it contradicts itself".to_owned()),
    }
}

fn tokens_of(encoding: &Encoding) -> Vec<Token> {
    let texts = encoding.get_tokens().iter();
    let special = encoding.get_special_tokens_mask();
    let places = encoding.get_offsets();
    encoding
        .get_ids()
        .iter()
        .zip(texts)
        .zip(special.iter().zip(places))
        .map(|((id, text), (special, place))| Token {
            id: *id,
            text: text.clone(),
            is_special: *special == 1,
            start: place.0,
            end: place.1,
        })
        .collect()
}
