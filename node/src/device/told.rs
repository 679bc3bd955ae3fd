//! What a model that reads texts tells without computing anything.

use paceline_models::{LoadedModel, TextFacts};
use paceline_protocol::{Dtype, ErrorCode, Failure, Shape, Tensor};
use serde_json::{Value, json};

use super::reading::{Reader, refusal};

/// What the model is: BYTES `[1, 1]`, an object in JSON.
///
/// # Errors
/// `UNSUPPORTED` where it says nothing of itself.
pub(super) fn facts(reader: &Reader) -> Result<Tensor, Failure> {
    let TextFacts {
        tokens_max,
        precision,
        pooling,
        classes,
    } = facts_of(&*reader.model)?;
    let told = json!({
        "tokens_max": tokens_max,
        "batch_tokens_max": reader.batch_tokens_max,
        "precision": precision,
        "pooling": pooling,
        "classes": classes,
    });
    Ok(Tensor::from_byte_strings(&[told.to_string()]))
}

/// The tokens of each text, uncut: BYTES `[rows, 1]`, of each row a list in JSON.
///
/// # Errors
/// `UNSUPPORTED` where the model reads no texts but tokens, `INPUT_VALUES` where it cannot cut one.
pub(super) fn tokens(
    model: &dyn LoadedModel,
    inputs: &[Tensor],
    special: bool,
) -> Result<Tensor, Failure> {
    let texts = inputs.first().filter(|it| it.dtype() == Dtype::Bytes);
    let rows = texts.map_or(0, Tensor::rows) as usize;
    let mut lists = Vec::with_capacity(rows);
    for (row, text) in texts.into_iter().flat_map(Tensor::byte_strings).enumerate() {
        let text = std::str::from_utf8(text).map_err(|error| {
            let message = format!("row {row} of the texts is not UTF-8: {error}");
            Failure::new(ErrorCode::InputValues, message)
        })?;
        let tokens = model.tokenize(text).ok_or_else(no_tokenizer)?;
        let tokens = tokens.map_err(|error| refusal(&error))?;
        let told = tokens.iter().filter(|token| special || !token.is_special);
        let list: Vec<Value> = told
            .map(|token| match token.is_special {
                true => json!({"id": token.id, "text": token.text, "special": true,
                    "start": null, "stop": null}),
                false => {
                    let part = text.as_bytes().get(token.start..token.end);
                    let part = String::from_utf8_lossy(part.unwrap_or_default());
                    json!({"id": token.id, "text": part, "special": false,
                        "start": token.start, "stop": token.end})
                }
            })
            .collect();
        lists.push(Value::Array(list).to_string());
    }
    Ok(Tensor::from_byte_strings(&lists))
}

/// Names of the model's classes.
///
/// # Errors
/// `UNSUPPORTED` where it has none.
pub(super) fn names(model: &dyn LoadedModel) -> Result<Vec<String>, Failure> {
    let classes = facts_of(model)?.classes;
    match classes.is_empty() {
        false => Ok(classes),
        true => Err(Failure::new(
            ErrorCode::Unsupported,
            "this model has no names of classes",
        )),
    }
}

/// The names again for each of so many rows: BYTES `[rows, classes]`.
pub(super) fn for_rows(names: &[String], rows: u64) -> Option<Tensor> {
    let all: Vec<&String> = (0..rows).flat_map(|_| names).collect();
    let column = Tensor::from_byte_strings(&all);
    let shape = Shape::new(&[rows, names.len() as u64]).ok()?;
    Tensor::new(Dtype::Bytes, shape, column.data().clone()).ok()
}

/// What is told of a model that reads no texts.
pub(super) fn no_tokenizer() -> Failure {
    let message = "this model reads no texts: it has no tokenizer";
    Failure::new(ErrorCode::Unsupported, message)
}

fn facts_of(model: &dyn LoadedModel) -> Result<TextFacts, Failure> {
    model.text_facts().ok_or_else(no_tokenizer)
}
