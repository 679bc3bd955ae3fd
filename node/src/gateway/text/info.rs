//! What TEI's `/info` tells, as far as it is true here.

use paceline_protocol::limits::ROWS_MAX;
use paceline_protocol::{ErrorCode, Failure};
use serde_json::{Map, Value, json};

use crate::gateway::oip::AnswerView;

/// What a replica says of its model, in TEI's words: what TEI's clients look for, and nothing that
/// would have to be made up.
///
/// # Errors
/// `INTERNAL` where the replica's node says something else.
pub(super) fn info(view: &AnswerView<'_>) -> Result<Value, Failure> {
    let told = view.outputs.first().and_then(|tensor| {
        let facts = tensor.byte_strings().next()?;
        serde_json::from_slice::<Map<String, Value>>(facts).ok()
    });
    let facts = told.ok_or_else(|| {
        let message = "a node has told nothing of its model";
        Failure::new(ErrorCode::Internal, message)
    })?;
    let fact = |name: &str| facts.get(name).cloned().unwrap_or(Value::Null);
    let outputs = &view.signature.outputs;
    let gives = |name: &str| outputs.iter().any(|spec| spec.name == name);
    let kind = match (fact("pooling"), gives(super::SCORE)) {
        (Value::Null, is_pairs) => {
            let names = fact("classes");
            let names = names.as_array().map_or(&[][..], Vec::as_slice);
            let by_id: Map<String, Value> = numbered(names)
                .map(|(id, name)| (id.to_string(), name.clone()))
                .collect();
            let by_name: Map<String, Value> = numbered(names)
                .map(|(id, name)| (name.as_str().unwrap_or_default().to_owned(), id.into()))
                .collect();
            let key = if is_pairs { "reranker" } else { "classifier" };
            json!({key: {"id2label": by_id, "label2id": by_name}})
        }
        (pooling, _) => json!({"embedding": {"pooling": pooling}}),
    };
    let dtype = match fact("precision").as_str() {
        Some("bf16") => "bfloat16",
        Some("f16") => "float16",
        _ => "float32",
    };
    Ok(json!({
        "model_id": view.model_name,
        "model_sha": null,
        "model_dtype": dtype,
        "model_type": kind,
        "model_version": view.version.0.to_string(),
        "max_input_length": fact("tokens_max"),
        "max_batch_tokens": fact("batch_tokens_max"),
        "max_client_batch_size": ROWS_MAX,
        "auto_truncate": false,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

fn numbered(names: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    names.iter().enumerate()
}
