//! Writes what is answered about texts.

use data_encoding::BASE64;
use paceline_protocol::{Dtype, ErrorCode, Failure, Tensor};

use super::TOKENS;
use super::info::info;
use super::request::{Asked, Texts};
use crate::gateway::oip::json::write;
use crate::gateway::oip::{AnswerView, Rendered};

/// Writes an answer in the form that its request had.
///
/// # Errors
/// `INTERNAL` where the model breaks its signature, `UNSUPPORTED` where a value is NaN or an infinity.
pub fn render(view: &AnswerView<'_>, texts: &Texts) -> Result<Rendered, Failure> {
    let head = match texts.asked {
        Asked::Info => info(view)?.to_string().into_bytes(),
        Asked::Tokenize => tokens(view)?,
        _ => numbers(view, texts)?,
    };
    Ok(Rendered {
        head: head.into(),
        bodies: Vec::new(),
        json_bytes: None,
    })
}

/// What the model has computed.
fn numbers(view: &AnswerView<'_>, texts: &Texts) -> Result<Vec<u8>, Failure> {
    let (mut values, mut tokens) = (Vec::new(), None);
    let mut rows = 0;
    for wanted in view.wanted {
        let tensor = &view.outputs[wanted.position];
        if view.signature.outputs[wanted.position].name == TOKENS {
            tokens = sum(tensor);
        } else if tensor.extend_f32(&mut values) {
            rows = tensor.rows() as usize;
        }
    }
    if rows == 0 {
        let message = "the model gave no numbers where its signature has some";
        return Err(Failure::new(ErrorCode::Internal, message));
    }
    let width = values.len() / rows;
    let mut vectors: Vec<&mut [f32]> = values.chunks_exact_mut(width.max(1)).collect();
    let mut head = Vec::with_capacity(rows * width * 12 + 256);
    match texts.asked {
        Asked::Rerank => ranks(&mut head, &vectors, texts)?,
        Asked::Predict => classes(&mut head, &vectors, (view, texts))?,
        Asked::Embed => {
            shape(&mut vectors, texts);
            head.push(b'[');
            for (position, vector) in vectors.iter().enumerate() {
                if position > 0 {
                    head.push(b',');
                }
                floats(&mut head, vector)?;
            }
            head.push(b']');
        }
        Asked::Embeddings => {
            shape(&mut vectors, texts);
            embeddings(&mut head, &vectors, texts.in_base64)?;
            write::string_member(&mut head, "model", view.model_name);
            write::key(&mut head, "usage");
            let tokens = tokens.unwrap_or(0);
            write::object(&mut head, |out| {
                write::count(out, "prompt_tokens", tokens);
                write::count(out, "total_tokens", tokens);
            });
            head.push(b'}');
        }
        Asked::Tokenize | Asked::Info => unreachable!("nothing of them is computed"),
    }
    Ok(head)
}

/// The lists of tokens that a replica has written.
fn tokens(view: &AnswerView<'_>) -> Result<Vec<u8>, Failure> {
    let lists = view.outputs.first();
    let lists = lists.filter(|tensor| tensor.dtype() == Dtype::Bytes);
    let lists = lists.ok_or_else(|| {
        let message = "a node has told no tokens";
        Failure::new(ErrorCode::Internal, message)
    })?;
    let mut head = Vec::with_capacity(lists.data().len() + 2);
    head.push(b'[');
    for (position, list) in lists.byte_strings().enumerate() {
        if position > 0 {
            head.push(b',');
        }
        head.extend_from_slice(list);
    }
    head.push(b']');
    Ok(head)
}

/// The scores of each text with the names of their classes, the best first.
fn classes(
    out: &mut Vec<u8>,
    scores: &[&mut [f32]],
    (view, texts): (&AnswerView<'_>, &Texts),
) -> Result<(), Failure> {
    let names = view.outputs.get(view.signature.outputs.len());
    let mut names = names.into_iter().flat_map(Tensor::byte_strings);
    if !texts.is_single {
        out.push(b'[');
    }
    for (position, scores) in scores.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        let mut told: Vec<(f32, &[u8])> = scores.iter().copied().zip(&mut names).collect();
        if told.len() < scores.len() {
            let message = "a node has told no names of classes";
            return Err(Failure::new(ErrorCode::Internal, message));
        }
        told.sort_by(|one, other| other.0.total_cmp(&one.0));
        out.push(b'[');
        for (position, (score, name)) in told.into_iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.push(b'{');
            write::key(out, "score");
            number(out, score)?;
            write::string_member(out, "label", &String::from_utf8_lossy(name));
            out.push(b'}');
        }
        out.push(b']');
    }
    if !texts.is_single {
        out.push(b']');
    }
    Ok(())
}

/// Of all rows; nothing where the output is not what its name says.
fn sum(tokens: &Tensor) -> Option<u64> {
    let (values, rest) = tokens.data().as_chunks::<4>();
    let values = values
        .iter()
        .map(|value| u64::from(u32::from_le_bytes(*value)));
    rest.is_empty().then(|| values.sum())
}

/// Cuts vectors to what is asked for. One that is cut has the length 1 again, as OpenAI's have.
fn shape(vectors: &mut [&mut [f32]], texts: &Texts) {
    for vector in vectors {
        let width = texts.dimensions.unwrap_or(vector.len()).min(vector.len());
        let is_cut = width < vector.len();
        let whole = std::mem::take(vector);
        *vector = &mut whole[..width];
        if is_cut || texts.normalize {
            let length = vector
                .iter()
                .map(|value| f64::from(*value).powi(2))
                .sum::<f64>();
            let scale = length.sqrt().max(LENGTH_MIN).recip();
            for value in vector.iter_mut() {
                *value = (f64::from(*value) * scale) as f32;
            }
        }
    }
}

/// All but the end of an object.
fn embeddings(out: &mut Vec<u8>, vectors: &[&mut [f32]], in_base64: bool) -> Result<(), Failure> {
    out.push(b'{');
    write::string_member(out, "object", "list");
    write::key(out, "data");
    out.push(b'[');
    for (position, vector) in vectors.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.push(b'{');
        write::string_member(out, "object", "embedding");
        write::count(out, "index", position as u64);
        write::key(out, "embedding");
        if in_base64 {
            let bytes: Vec<u8> = vector
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            write::string(out, &BASE64.encode(&bytes));
        } else {
            floats(out, vector)?;
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

fn floats(out: &mut Vec<u8>, vector: &[f32]) -> Result<(), Failure> {
    out.push(b'[');
    for (position, value) in vector.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        number(out, *value)?;
    }
    out.push(b']');
    Ok(())
}

/// The best first.
fn ranks(out: &mut Vec<u8>, scores: &[&mut [f32]], texts: &Texts) -> Result<(), Failure> {
    let score = |index: usize| scores[index].first().copied().unwrap_or(f32::NAN);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| score(*other).total_cmp(&score(*one)));
    out.push(b'[');
    for (position, index) in order.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.push(b'{');
        write::count(out, "index", index as u64);
        write::key(out, "score");
        number(out, score(index))?;
        if let Some(text) = texts.texts().get(index).filter(|_| texts.return_text) {
            write::string_member(out, "text", text);
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

fn number(out: &mut Vec<u8>, value: f32) -> Result<(), Failure> {
    match write::float(out, value) {
        true => Ok(()),
        false => {
            let message = "the model's answer holds NaN or an infinity, which has no form in JSON";
            Err(Failure::new(ErrorCode::Unsupported, message))
        }
    }
}

/// A vector of nothing stays one.
const LENGTH_MIN: f64 = 1e-12;
