//! Texts as they stand in a request, or their tokens.

use bytes::Bytes;
use paceline_protocol::limits::ROWS_MAX;
use paceline_protocol::{Dtype, ErrorCode, Failure, Shape, Tensor};

use crate::gateway::oip::json::Reader;

/// What a request is about.
#[derive(Debug, PartialEq)]
pub(super) enum Inputs {
    Strings(Vec<String>),
    Tokens(Vec<Vec<i64>>),
}

impl Inputs {
    /// A text, a list of it alone, or a list of such lists; and whether it is a single one. TEI has
    /// lists of two texts, too, which are pairs.
    pub(super) fn read_sequences(reader: &mut Reader<'_>) -> Result<(Self, bool), Failure> {
        const WHAT: &str = "a text, or a list of lists of one text";
        if reader.peek() == Some(b'"') {
            let text = reader.string()?.into_owned();
            return Ok((Self::Strings(vec![text]), true));
        }
        let mut items = reader.array(WHAT)?;
        let (mut texts, mut is_single) = (Vec::new(), false);
        while items.next(reader)? {
            match (reader.peek(), is_single) {
                (Some(b'"'), false) if texts.is_empty() => {
                    is_single = true;
                    texts.push(reader.string()?.into_owned());
                }
                (Some(b'['), false) => texts.push(only_text(reader)?),
                (Some(b'"'), true) => return Err(pairs()),
                _ => return Err(reader.expected(WHAT).into()),
            }
            if texts.len() as u64 > ROWS_MAX {
                return Err(too_many());
            }
        }
        match texts.is_empty() {
            false => Ok((Self::Strings(texts), is_single)),
            true => Err(no_text()),
        }
    }

    /// A text, several, the tokens of one, or those of several.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Failure> {
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
                return Err(too_many());
            }
        }
        if !tokens.is_empty() {
            rows.push(tokens);
        }
        match (texts.is_empty(), rows.is_empty()) {
            (false, _) => Ok(Self::Strings(texts)),
            (_, false) => Ok(Self::Tokens(rows)),
            _ => Err(no_text()),
        }
    }
}

/// A list of one text.
fn only_text(reader: &mut Reader<'_>) -> Result<String, Failure> {
    let mut items = reader.array("a list of one text")?;
    let mut text = None;
    while items.next(reader)? {
        if text.is_some() {
            return Err(pairs());
        }
        text = Some(reader.string()?.into_owned());
    }
    text.ok_or_else(no_text)
}

fn pairs() -> Failure {
    let message = "classes of pairs of texts are not served: a list holds one text";
    Failure::new(ErrorCode::Unsupported, message)
}

fn no_text() -> Failure {
    let message = "there is no text in the request: at least one is needed";
    Failure::new(ErrorCode::InputShape, message)
}

fn too_many() -> Failure {
    let message = format!("there are more than {ROWS_MAX} texts in the request");
    Failure::new(ErrorCode::TooLarge, message)
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
pub(super) fn of_tokens(rows: &[Vec<i64>]) -> Result<Vec<Tensor>, Failure> {
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
