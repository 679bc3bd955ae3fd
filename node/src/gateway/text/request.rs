//! Reads what is asked about texts, and makes tensors of it.

use paceline_protocol::{
    Asks, Dim, Dtype, ErrorCode, Failure, LongText, Reading, Signature, Tensor,
};

use super::inputs::{Inputs, of_tokens};
use super::{EMBEDDING, LOGIT, LOGITS, SCORE, SCORES, TOKENS};
use crate::gateway::oip::json::{Keys, Reader};
use crate::gateway::oip::{
    ParseOptions, ParsedRequest, RequestParameters, WantedOutput, check_inputs, excerpt, listed,
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Vectors, as OpenAI has it.
    Embeddings,
    /// Vectors, as TEI has it.
    Embed,
    /// How well texts answer a query, as TEI has it.
    Rerank,
    /// Scores of classes, as TEI has it.
    Predict,
    /// Tokens of texts, as TEI has it.
    Tokenize,
    /// What a model is, as TEI has it.
    Info,
}

/// A request that has been read, and not yet held against a signature.
#[derive(Debug)]
pub struct Texts {
    pub(super) asked: Asked,
    model: Option<String>,
    pub(super) inputs: Inputs,
    query: Option<String>,
    /// Whether vectors are asked for in base64.
    pub(super) in_base64: bool,
    /// So many of a vector's first values are asked for.
    pub(super) dimensions: Option<usize>,
    /// Whether vectors shall have the length 1.
    pub(super) normalize: bool,
    raw_scores: bool,
    pub(super) return_text: bool,
    /// Whether a text that is too long is cut, and not refused.
    truncate: bool,
    /// Whether such a text loses its beginning.
    keeps_end: bool,
    /// Whether tokens are wanted that stand for nothing in the text.
    special: bool,
    /// Whether a single text is asked about, and answered without a list around it.
    pub(super) is_single: bool,
}

impl Asked {
    /// The output that answers it.
    pub(in crate::gateway) const fn output(self) -> &'static str {
        match self {
            Self::Embeddings | Self::Embed => EMBEDDING,
            Self::Rerank => SCORE,
            Self::Predict => SCORES,
            Self::Tokenize | Self::Info => TOKENS,
        }
    }

    const fn members(self) -> &'static [&'static str] {
        match self {
            // OpenAI knows no `truncate`; its clients can send it all the same.
            Self::Embeddings => &[
                "model",
                "input",
                "encoding_format",
                "dimensions",
                "truncate",
            ],
            Self::Embed => &[
                "model",
                "inputs",
                "normalize",
                "dimensions",
                "truncate",
                "truncation_direction",
            ],
            Self::Rerank => &[
                "model",
                "query",
                "texts",
                "raw_scores",
                "return_text",
                "truncate",
                "truncation_direction",
            ],
            Self::Predict => &[
                "model",
                "inputs",
                "raw_scores",
                "truncate",
                "truncation_direction",
            ],
            Self::Tokenize => &["model", "inputs", "add_special_tokens"],
            Self::Info => &["model"],
        }
    }
}

impl Texts {
    /// Reads a body. Cost: one pass, and a copy of the texts.
    ///
    /// # Errors
    /// `JSON_INVALID`, `PARAMETER_INVALID`, `INPUT_MISSING`, `INPUT_SHAPE` or `TOO_LARGE`.
    pub fn read(asked: Asked, body: &[u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(body);
        let mut keys = Keys::new(asked.members());
        let mut texts = Self::none(asked, None);
        let mut has_inputs = false;
        let mut members = reader.object("the request object")?;
        while let Some(key) = members.next(&mut reader)? {
            let twice = |key: std::borrow::Cow<'_, str>| {
                let message = format!("the key {} stands twice in the request", excerpt(&key));
                Failure::new(ErrorCode::JsonInvalid, message)
            };
            match keys.note(key).map_err(twice)? {
                None => reader.skip()?,
                Some("input" | "inputs" | "texts") => {
                    (texts.inputs, texts.is_single) = match asked {
                        Asked::Predict => Inputs::read_sequences(&mut reader)?,
                        _ => (Inputs::read(&mut reader)?, false),
                    };
                    has_inputs = true;
                }
                Some(_) if reader.null()? => {}
                Some(member) => texts.set(member, &mut reader)?,
            }
        }
        reader.end()?;
        let missing = match asked {
            _ if has_inputs && (asked != Asked::Rerank || texts.query.is_some()) => None,
            Asked::Rerank if has_inputs => Some("query"),
            Asked::Rerank => Some("texts"),
            Asked::Embeddings => Some("input"),
            Asked::Embed | Asked::Predict | Asked::Tokenize | Asked::Info => Some("inputs"),
        };
        match missing {
            None => Ok(texts),
            Some(member) => {
                let message = format!("the request has no '{member}'");
                Err(Failure::new(ErrorCode::InputMissing, message))
            }
        }
    }

    /// A request that says nothing but what is asked, and of which model.
    pub fn none(asked: Asked, model: Option<String>) -> Self {
        Self {
            asked,
            model,
            inputs: Inputs::Strings(Vec::new()),
            query: None,
            in_base64: false,
            dimensions: None,
            normalize: asked == Asked::Embed,
            raw_scores: false,
            return_text: false,
            truncate: false,
            keeps_end: false,
            special: true,
            is_single: false,
        }
    }

    fn set(&mut self, member: &str, reader: &mut Reader<'_>) -> Result<(), Failure> {
        match member {
            "model" => self.model = Some(reader.string()?.into_owned()),
            "query" => self.query = Some(reader.string()?.into_owned()),
            "normalize" => self.normalize = reader.boolean()?,
            "raw_scores" => self.raw_scores = reader.boolean()?,
            "return_text" => self.return_text = reader.boolean()?,
            "truncate" => self.truncate = reader.boolean()?,
            "add_special_tokens" => self.special = reader.boolean()?,
            "truncation_direction" => {
                let direction = reader.string()?;
                self.keeps_end = one_of("truncation_direction", &direction, ["Right", "Left"])?;
            }
            "dimensions" => {
                let number = reader.number()?;
                let dimensions = number
                    .to_u64()
                    .filter(|number| (1..=1 << 20).contains(number));
                let Some(dimensions) = dimensions else {
                    let message = format!("'dimensions' is {}; allowed: 1 and more", number.text());
                    return Err(Failure::new(ErrorCode::ParameterInvalid, message));
                };
                self.dimensions = Some(dimensions as usize);
            }
            "encoding_format" => {
                let format = reader.string()?;
                self.in_base64 = one_of("encoding_format", &format, ["float", "base64"])?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    }

    /// The model that it names.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// How it is read where it is computed.
    pub fn reading(&self) -> Reading {
        let long = match (self.truncate, self.keeps_end) {
            (false, _) => LongText::IsRefused,
            (true, false) => LongText::KeepsStart,
            (true, true) => LongText::KeepsEnd,
        };
        let asks = match self.asked {
            Asked::Embeddings | Asked::Embed | Asked::Rerank => Asks::Outputs,
            Asked::Predict => Asks::OutputsAndClasses,
            Asked::Tokenize => Asks::Tokens {
                special: self.special,
            },
            Asked::Info => Asks::Facts,
        };
        Reading { long, asks }
    }

    /// The texts, where they are none of tokens.
    pub(super) fn texts(&self) -> &[String] {
        match &self.inputs {
            Inputs::Strings(texts) => texts,
            Inputs::Tokens(_) => &[],
        }
    }

    /// The tensors, by a signature.
    ///
    /// # Errors
    /// `UNSUPPORTED` where the model is not one for what is asked, and `PARAMETER_INVALID`.
    pub fn parse(
        &self,
        signature: &Signature,
        options: ParseOptions,
    ) -> Result<ParsedRequest, Failure> {
        let wanted = match self.reading().asks.is_computed() {
            true => self.wanted(signature)?,
            false => return self.parse_uncomputed(signature),
        };
        let names: Vec<&str> = signature.inputs.iter().map(|spec| &*spec.name).collect();
        let inputs = match (&self.inputs, &names[..], &self.query) {
            (Inputs::Strings(texts), ["text"], None) => vec![Tensor::from_byte_strings(texts)],
            (Inputs::Strings(texts), ["query", "text"], Some(query)) => {
                let queries = vec![query.as_str(); texts.len()];
                vec![
                    Tensor::from_byte_strings(&queries),
                    Tensor::from_byte_strings(texts),
                ]
            }
            (Inputs::Tokens(rows), ["input_ids", "attention_mask"], None) => of_tokens(rows)?,
            _ => return Err(self.unfit(signature)),
        };
        check_inputs(&inputs, signature, options)?;
        Ok(ParsedRequest {
            id: None,
            inputs,
            outputs: wanted,
            parameters: RequestParameters::default(),
        })
    }

    /// Texts of which nothing is computed: a model that takes pairs reads each alone.
    fn parse_uncomputed(&self, signature: &Signature) -> Result<ParsedRequest, Failure> {
        let inputs = match (self.asked, &self.inputs) {
            (Asked::Info, _) => Vec::new(),
            (_, Inputs::Strings(texts)) if reads_texts(signature) => {
                vec![Tensor::from_byte_strings(texts)]
            }
            _ => return Err(self.unfit(signature)),
        };
        Ok(ParsedRequest {
            id: None,
            inputs,
            outputs: Vec::new(),
            parameters: RequestParameters::default(),
        })
    }

    fn wanted(&self, signature: &Signature) -> Result<Vec<WantedOutput>, Failure> {
        let output = match (self.raw_scores, self.asked) {
            (false, asked) => asked.output(),
            (true, Asked::Predict) => LOGITS,
            (true, _) => LOGIT,
        };
        let position = |name: &str| signature.outputs.iter().position(|spec| spec.name == name);
        let found = position(output).ok_or_else(|| self.unfit(signature))?;
        let spec = &signature.outputs[found];
        if let (Some(asked), Some(Dim::Exactly(width))) = (self.dimensions, spec.shape.0.last())
            && asked as u64 > *width
        {
            let message = format!("'dimensions' is {asked}; this model's vectors have {width}");
            return Err(Failure::new(ErrorCode::ParameterInvalid, message));
        }
        let wanted = |position| WantedOutput {
            position,
            binary: false,
            classes: None,
        };
        let both = [Some(found), position(TOKENS)];
        Ok(both.into_iter().flatten().map(wanted).collect())
    }

    /// The model is not one for what is asked.
    fn unfit(&self, signature: &Signature) -> Failure {
        let needs = match (self.asked, &self.inputs) {
            (Asked::Rerank, _) => "takes 'query' and 'text', and gives 'score'",
            (Asked::Predict, _) => "takes 'text', and gives 'scores'",
            (Asked::Tokenize | Asked::Info, _) => "takes 'text'",
            (_, Inputs::Strings(_)) => "takes 'text', and gives 'embedding'",
            (_, Inputs::Tokens(_)) => {
                "takes 'input_ids' and 'attention_mask' (input = \"tokens\" in its model.toml), and \
                 gives 'embedding'"
            }
        };
        let message = format!(
            "this is asked of a model that {needs}; this one takes {} and gives {}",
            listed(&signature.inputs),
            listed(&signature.outputs)
        );
        Failure::new(ErrorCode::Unsupported, message)
    }
}

/// Whether a model takes texts.
pub(in crate::gateway) fn reads_texts(signature: &Signature) -> bool {
    let mut inputs = signature.inputs.iter();
    inputs.any(|spec| spec.name == "text" && spec.dtype == Dtype::Bytes)
}

/// Whether a model gives an output of this name.
pub(in crate::gateway) fn gives(signature: &Signature, output: &str) -> bool {
    signature.outputs.iter().any(|spec| spec.name == output)
}

/// Whether a member says the second of two words, or the first.
fn one_of(member: &str, said: &str, [first, second]: [&str; 2]) -> Result<bool, Failure> {
    if said == first || said == second {
        return Ok(said == second);
    }
    let message = format!(
        "'{member}' is {}; allowed: '{first}' and '{second}'",
        excerpt(said)
    );
    Err(Failure::new(ErrorCode::ParameterInvalid, message))
}
