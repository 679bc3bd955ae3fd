//! Reads what is asked about texts, and makes tensors of it.

use bytes::Bytes;
use paceline_protocol::limits::ROWS_MAX;
use paceline_protocol::{Dim, Dtype, ErrorCode, Failure, Shape, Signature, Tensor};

use super::{EMBEDDING, LOGIT, SCORE, TOKENS};
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
}

#[derive(Debug, PartialEq)]
pub(super) enum Inputs {
    Strings(Vec<String>),
    Tokens(Vec<Vec<i64>>),
}

impl Asked {
    /// The output that answers it.
    pub(in crate::gateway) const fn output(self) -> &'static str {
        match self {
            Self::Embeddings | Self::Embed => EMBEDDING,
            Self::Rerank => SCORE,
        }
    }

    const fn members(self) -> &'static [&'static str] {
        match self {
            Self::Embeddings => &["model", "input", "encoding_format", "dimensions"],
            Self::Embed => &["model", "inputs", "normalize", "dimensions"],
            Self::Rerank => &["model", "query", "texts", "raw_scores", "return_text"],
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
        let mut texts = Self {
            asked,
            model: None,
            inputs: Inputs::Strings(Vec::new()),
            query: None,
            in_base64: false,
            dimensions: None,
            normalize: asked == Asked::Embed,
            raw_scores: false,
            return_text: false,
        };
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
                    texts.inputs = Inputs::read(&mut reader)?;
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
            Asked::Embed => Some("inputs"),
        };
        match missing {
            None => Ok(texts),
            Some(member) => {
                let message = format!("the request has no '{member}'");
                Err(Failure::new(ErrorCode::InputMissing, message))
            }
        }
    }

    fn set(&mut self, member: &str, reader: &mut Reader<'_>) -> Result<(), Failure> {
        match member {
            "model" => self.model = Some(reader.string()?.into_owned()),
            "query" => self.query = Some(reader.string()?.into_owned()),
            "normalize" => self.normalize = reader.boolean()?,
            "raw_scores" => self.raw_scores = reader.boolean()?,
            "return_text" => self.return_text = reader.boolean()?,
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
                self.in_base64 = match &*format {
                    "base64" => true,
                    "float" => false,
                    other => {
                        let message = format!(
                            "'encoding_format' is {}; allowed: 'float' and 'base64'",
                            excerpt(other)
                        );
                        return Err(Failure::new(ErrorCode::ParameterInvalid, message));
                    }
                };
            }
            _ => reader.skip()?,
        }
        Ok(())
    }

    /// The model that it names.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
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
        let wanted = self.wanted(signature)?;
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

    fn wanted(&self, signature: &Signature) -> Result<Vec<WantedOutput>, Failure> {
        let output = match self.raw_scores {
            true => LOGIT,
            false => self.asked.output(),
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

impl Inputs {
    /// A text, several, the tokens of one, or those of several.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Failure> {
        const WHAT: &str = "a text, a list of texts, or lists of tokens";
        match reader.peek() {
            Some(b'"') => return Ok(Self::Strings(vec![reader.string()?.into_owned()])),
            Some(b'[') => {}
            _ => return Err(reader.expected(WHAT).into()),
        }
        let mut items = reader.array(WHAT)?;
        let (mut texts, mut rows) = (Vec::new(), Vec::new());
        let mut tokens = Vec::new();
        while items.next(reader)? {
            let kinds = [texts.is_empty(), rows.is_empty(), tokens.is_empty()];
            match (reader.peek(), kinds) {
                (Some(b'"'), [_, true, true]) => texts.push(reader.string()?.into_owned()),
                (Some(b'['), [true, _, true]) => rows.push(row(reader)?),
                (Some(b'-' | b'0'..=b'9'), [true, true, _]) => tokens.push(token(reader)?),
                _ => return Err(reader.expected(WHAT).into()),
            }
            if texts.len().max(rows.len()) as u64 > ROWS_MAX {
                let message = format!("there are more than {ROWS_MAX} texts in the request");
                return Err(Failure::new(ErrorCode::TooLarge, message));
            }
        }
        if !tokens.is_empty() {
            rows.push(tokens);
        }
        match (texts.is_empty(), rows.is_empty()) {
            (false, _) => Ok(Self::Strings(texts)),
            (_, false) => Ok(Self::Tokens(rows)),
            _ => {
                let message = "there is no text in the request: at least one is needed";
                Err(Failure::new(ErrorCode::InputShape, message))
            }
        }
    }
}

fn row(reader: &mut Reader<'_>) -> Result<Vec<i64>, Failure> {
    let mut items = reader.array("a list of tokens")?;
    let mut tokens = Vec::new();
    while items.next(reader)? {
        tokens.push(token(reader)?);
    }
    match tokens.is_empty() {
        true => {
            let message = "a list of tokens is empty: at least one is needed";
            Err(Failure::new(ErrorCode::InputShape, message))
        }
        false => Ok(tokens),
    }
}

fn token(reader: &mut Reader<'_>) -> Result<i64, Failure> {
    if !matches!(reader.peek(), Some(b'-' | b'0'..=b'9')) {
        return Err(reader.expected("a token's number").into());
    }
    let number = reader.number()?;
    number.to_i64().ok_or_else(|| {
        let message = format!("{} is no token: tokens are whole numbers", number.text());
        Failure::new(ErrorCode::InputValues, message)
    })
}

/// Rows as long as the longest, and a mask of what is theirs.
fn of_tokens(rows: &[Vec<i64>]) -> Result<Vec<Tensor>, Failure> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    // What many short rows take beside a long one.
    if rows.len().saturating_mul(longest) > PADDED_MAX {
        let message = format!(
            "{} lists of up to {longest} tokens: at most {PADDED_MAX} fit into a request",
            rows.len()
        );
        return Err(Failure::new(ErrorCode::TooLarge, message));
    }
    let shape = Shape::new(&[rows.len() as u64, longest as u64]);
    let shape = shape.expect("rows and columns are bounded above");
    let tensor = |value: fn(Option<&i64>) -> i64| {
        let mut data = Vec::with_capacity(rows.len() * longest * 8);
        for row in rows {
            for place in 0..longest {
                data.extend_from_slice(&value(row.get(place)).to_le_bytes());
            }
        }
        Tensor::new(Dtype::Int64, shape, Bytes::from(data)).expect("as many as the shape")
    };
    Ok(vec![
        tensor(|id| id.copied().unwrap_or(0)),
        tensor(|id| i64::from(id.is_some())),
    ])
}

/// Values of a request's tokens with what fills them up: 32 MiB.
const PADDED_MAX: usize = 4 << 20;
