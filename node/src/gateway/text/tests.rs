//! What is asked about texts, and what is answered.

use paceline_protocol::{
    Dim, Dtype, ErrorCode, Failure, LongText, Shape, ShapePattern, Signature, Tensor, TensorSpec,
    VersionNumber,
};
use serde_json::{Value, json};

use super::*;
use crate::gateway::oip::{AnswerView, ParseOptions, ParsedRequest};

fn spec((name, dtype, columns): (&str, Dtype, Dim)) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype,
        shape: ShapePattern(vec![Dim::Any, columns]),
    }
}

fn signature(inputs: &[(&str, Dtype, Dim)], outputs: &[(&str, Dtype, Dim)]) -> Signature {
    Signature {
        inputs: inputs.iter().map(|told| spec(*told)).collect(),
        outputs: outputs.iter().map(|told| spec(*told)).collect(),
    }
}

const ONE: Dim = Dim::Exactly(1);
const VECTOR: [(&str, Dtype, Dim); 2] = [
    ("embedding", Dtype::Fp32, Dim::Exactly(2)),
    ("tokens", Dtype::Uint32, ONE),
];

fn of_text() -> Signature {
    signature(&[("text", Dtype::Bytes, ONE)], &VECTOR)
}

fn of_tokens() -> Signature {
    let ids = ("input_ids", Dtype::Int64, Dim::Any);
    let mask = ("attention_mask", Dtype::Int64, Dim::Any);
    signature(&[ids, mask], &VECTOR)
}

fn of_pairs() -> Signature {
    let inputs = [("query", Dtype::Bytes, ONE), ("text", Dtype::Bytes, ONE)];
    let outputs = [("score", Dtype::Fp32, ONE), ("logit", Dtype::Fp32, ONE)];
    signature(&inputs, &outputs)
}

fn parse(asked: Asked, body: &Value, signature: &Signature) -> Result<ParsedRequest, Failure> {
    Texts::read(asked, body.to_string().as_bytes())?.parse(signature, ParseOptions::default())
}

/// The answer to a request whose model gives these outputs.
fn answer(
    asked: Asked,
    body: &Value,
    signature: &Signature,
    outputs: &[Tensor],
) -> Result<Value, Failure> {
    let texts = Texts::read(asked, body.to_string().as_bytes())?;
    let parsed = texts.parse(signature, ParseOptions::default())?;
    let view = AnswerView {
        model_name: "m",
        version: VersionNumber(1),
        id: None,
        parameters: &[],
        signature,
        outputs,
        wanted: &parsed.outputs,
    };
    let rendered = render(&view, &texts)?;
    Ok(serde_json::from_slice(&rendered.head).unwrap())
}

fn strings(tensor: &Tensor) -> Vec<&str> {
    let texts = tensor.byte_strings();
    texts
        .map(|text| std::str::from_utf8(text).unwrap())
        .collect()
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    let values = tensor.data().as_chunks::<8>().0.iter();
    values.map(|value| i64::from_le_bytes(*value)).collect()
}

fn counted(tokens: &[u32]) -> Tensor {
    let shape = Shape::new(&[tokens.len() as u64, 1]).unwrap();
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Tensor::new(Dtype::Uint32, shape, bytes.into()).unwrap()
}

#[test]
fn texts_are_read_in_each_of_their_forms() {
    let one = parse(
        Asked::Embeddings,
        &json!({"model": "m", "input": "a"}),
        &of_text(),
    )
    .unwrap();
    assert_eq!(strings(&one.inputs[0]), ["a"]);
    let several = json!({"inputs": ["a", "", "\u{e4}"], "truncate": true});
    let several = parse(Asked::Embed, &several, &of_text()).unwrap();
    assert_eq!(strings(&several.inputs[0]), ["a", "", "\u{e4}"]);
    assert_eq!(several.outputs.len(), 2);
    let pairs = json!({"query": "q", "texts": ["a", "b"], "raw_scores": true});
    let pairs = parse(Asked::Rerank, &pairs, &of_pairs()).unwrap();
    assert_eq!(strings(&pairs.inputs[0]), ["q", "q"]);
    assert_eq!(strings(&pairs.inputs[1]), ["a", "b"]);
    assert_eq!(pairs.outputs[0].position, 1, "raw scores are logits");
}

#[test]
fn tokens_become_a_matrix_and_a_mask() {
    let rows = json!({"model": "m", "input": [[7, 8, 9], [5]]});
    let rows = parse(Asked::Embeddings, &rows, &of_tokens()).unwrap();
    assert_eq!(integers(&rows.inputs[0]), [7, 8, 9, 5, 0, 0]);
    assert_eq!(integers(&rows.inputs[1]), [1, 1, 1, 1, 0, 0]);
    let one = parse(Asked::Embed, &json!({"inputs": [7, 8]}), &of_tokens()).unwrap();
    assert_eq!(one.inputs[0].shape().dims(), [1, 2]);
}

#[test]
fn what_cannot_be_answered_is_refused_by_name() {
    use Asked::{Embed, Embeddings, Rerank};
    use ErrorCode as E;
    let cases = [
        (
            Embeddings,
            json!({"model": "m"}),
            E::InputMissing,
            "'input'",
        ),
        (Rerank, json!({"texts": ["a"]}), E::InputMissing, "'query'"),
        (Rerank, json!({"query": "a"}), E::InputMissing, "'texts'"),
        (Embed, json!({"inputs": []}), E::InputShape, "at least one"),
        (Embed, json!({"inputs": [[]]}), E::InputShape, "empty"),
        (
            Embed,
            json!({"inputs": ["a", 1]}),
            E::JsonInvalid,
            "lists of tokens",
        ),
        (
            Embed,
            json!({"inputs": [1, [2]]}),
            E::JsonInvalid,
            "lists of tokens",
        ),
        (Embed, json!({"inputs": 7}), E::JsonInvalid, "a text"),
        (Embed, json!({"inputs": [1.5]}), E::InputValues, "1.5"),
        (Embed, json!({"inputs": [1]}), E::Unsupported, "input_ids"),
        (
            Rerank,
            json!({"query": "q", "texts": "a"}),
            E::Unsupported,
            "'query'",
        ),
        (
            Embed,
            json!({"inputs": "a", "dimensions": 3}),
            E::ParameterInvalid,
            "have 2",
        ),
        (
            Embed,
            json!({"inputs": "a", "dimensions": 0}),
            E::ParameterInvalid,
            "1 and more",
        ),
        (
            Embeddings,
            json!({"input": "a", "encoding_format": "hex"}),
            E::ParameterInvalid,
            "'float' and 'base64'",
        ),
    ];
    for (asked, body, code, words) in cases {
        let failure = parse(asked, &body, &of_text()).unwrap_err();
        assert_eq!(failure.code, code, "{body}: {failure}");
        assert!(failure.message.contains(words), "{body}: {failure}");
    }
    let twice = Texts::read(Embed, br#"{"inputs":"a","inputs":"b"}"#).unwrap_err();
    assert!(twice.message.contains("twice"), "{twice}");
    let many = json!({"inputs": vec![vec![1; 5_000]; 1_000]});
    let many = parse(Embed, &many, &of_tokens()).unwrap_err();
    assert_eq!(many.code, E::TooLarge);
}

#[test]
fn openai_gets_objects_with_floats_or_base64() {
    let outputs = [Tensor::from_f32(2, &[0.6, 0.8, 1.0, 0.0]), counted(&[3, 4])];
    let body = json!({"model": "m", "input": ["a", "b"]});
    let read = answer(Asked::Embeddings, &body, &of_text(), &outputs).unwrap();
    let vector = |index: u64, values: Value| json!({"object": "embedding", "index": index, "embedding": values});
    let expected = json!({
        "object": "list",
        "data": [vector(0, json!([0.6, 0.8])), vector(1, json!([1.0, 0.0]))],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    });
    assert_eq!(read, expected);
    let body =
        json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 1});
    let read = answer(Asked::Embeddings, &body, &of_text(), &outputs).unwrap();
    // What is cut has the length 1 again: 1.0 in four bytes.
    assert_eq!(read["data"][0]["embedding"], "AACAPw==");
}

#[test]
fn tei_gets_bare_vectors_and_ranks() {
    let outputs = [Tensor::from_f32(2, &[3.0, 4.0]), counted(&[3])];
    let body = json!({"inputs": "a"});
    let read = answer(Asked::Embed, &body, &of_text(), &outputs).unwrap();
    assert_eq!(read, json!([[0.6, 0.8]]));
    let body = json!({"inputs": "a", "normalize": false});
    let read = answer(Asked::Embed, &body, &of_text(), &outputs).unwrap();
    assert_eq!(read, json!([[3.0, 4.0]]));
    let scores = [
        Tensor::from_f32(1, &[0.25, 0.75]),
        Tensor::from_f32(1, &[-1.0, 1.0]),
    ];
    let body = json!({"query": "q", "texts": ["a", "b"], "return_text": true});
    let read = answer(Asked::Rerank, &body, &of_pairs(), &scores).unwrap();
    let expected = json!([
        {"index": 1, "score": 0.75, "text": "b"},
        {"index": 0, "score": 0.25, "text": "a"},
    ]);
    assert_eq!(read, expected);
    let nan = [Tensor::from_f32(2, &[f32::NAN, 0.0]), counted(&[1])];
    let failure = answer(Asked::Embed, &json!({"inputs": "a"}), &of_text(), &nan).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unsupported);
}

#[test]
fn long_texts_are_refused_unless_they_may_be_cut() {
    let reading = |asked, body: Value| {
        let texts = Texts::read(asked, body.to_string().as_bytes()).unwrap();
        texts.reading().long
    };
    let of = |said: &str| -> Value { serde_json::from_str(said).unwrap() };
    assert_eq!(
        reading(Asked::Embed, of(r#"{"inputs":"a"}"#)),
        LongText::IsRefused
    );
    let openai = of(r#"{"input":"a"}"#);
    assert_eq!(reading(Asked::Embeddings, openai), LongText::IsRefused);
    let cut = of(r#"{"inputs":"a","truncate":true,"truncation_direction":null}"#);
    assert_eq!(reading(Asked::Embed, cut), LongText::KeepsStart);
    let left = of(r#"{"inputs":"a","truncate":true,"truncation_direction":"Left"}"#);
    assert_eq!(reading(Asked::Predict, left), LongText::KeepsEnd);
    let wrong = Texts::read(
        Asked::Embed,
        br#"{"inputs":"a","truncation_direction":"left"}"#,
    );
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.code, ErrorCode::ParameterInvalid);
    assert!(wrong.message.contains("'Right' and 'Left'"), "{wrong}");
}

#[test]
fn tei_gets_classes_with_their_names_the_best_first() {
    let signature = signature(
        &[("text", Dtype::Bytes, ONE)],
        &[
            ("scores", Dtype::Fp32, Dim::Exactly(2)),
            ("logits", Dtype::Fp32, Dim::Exactly(2)),
            ("label", Dtype::Bytes, ONE),
        ],
    );
    let names = Tensor::from_byte_strings(&["no", "yes", "no", "yes"]);
    let shape = Shape::new(&[2, 2]).unwrap();
    let outputs = [
        Tensor::from_f32(2, &[0.25, 0.75, 1.0, 0.0]),
        Tensor::from_f32(2, &[-1.0, 1.0, 4.0, -4.0]),
        Tensor::from_byte_strings(&["yes", "no"]),
        Tensor::new(Dtype::Bytes, shape, names.data().clone()).unwrap(),
    ];
    let one = |score, label: &str| json!({"score": score, "label": label});
    let several = json!({"inputs": [["a"], ["b"]]});
    let read = answer(Asked::Predict, &several, &signature, &outputs).unwrap();
    let first = json!([one(0.75, "yes"), one(0.25, "no")]);
    assert_eq!(read, json!([first, [one(1.0, "no"), one(0.0, "yes")]]));
    let rows: Vec<_> = outputs
        .iter()
        .map(|tensor| tensor.slice_rows(0..1))
        .collect();
    for single in [json!("a"), json!(["a"])] {
        let body = json!({"inputs": single, "raw_scores": true});
        let read = answer(Asked::Predict, &body, &signature, &rows).unwrap();
        assert_eq!(read, json!([one(1.0, "yes"), one(-1.0, "no")]));
    }
    for pair in [json!(["a", "b"]), json!([["a", "b"]])] {
        let refused = Texts::read(
            Asked::Predict,
            json!({"inputs": pair}).to_string().as_bytes(),
        );
        assert_eq!(refused.unwrap_err().code, ErrorCode::Unsupported);
    }
}

#[test]
fn tokens_and_facts_are_passed_on_as_they_are_told() {
    let lists = [Tensor::from_byte_strings(&[r#"[{"id":7}]"#, "[]"])];
    let body = json!({"inputs": ["a", ""], "add_special_tokens": false});
    let read = answer(Asked::Tokenize, &body, &of_pairs(), &lists).unwrap();
    assert_eq!(read, json!([[{"id": 7}], []]));
    let unfit = answer(Asked::Tokenize, &body, &of_tokens(), &lists).unwrap_err();
    assert_eq!(unfit.code, ErrorCode::Unsupported);
    let facts = r#"{"tokens_max":24,"batch_tokens_max":2048,"precision":"f32","pooling":"mean","classes":[]}"#;
    let texts = Texts::none(Asked::Info, None);
    let told = [Tensor::from_byte_strings(&[facts])];
    let view = AnswerView {
        model_name: "m",
        version: VersionNumber(3),
        id: None,
        parameters: &[],
        signature: &of_text(),
        outputs: &told,
        wanted: &[],
    };
    let read: Value = serde_json::from_slice(&render(&view, &texts).unwrap().head).unwrap();
    assert_eq!(
        (&read["model_id"], &read["max_input_length"]),
        (&json!("m"), &json!(24))
    );
    assert_eq!(
        read["model_type"],
        json!({"embedding": {"pooling": "mean"}})
    );
}

#[test]
fn failures_have_the_form_of_their_protocol() {
    let read = |asked, code| -> (u16, Value) {
        let failure = Failure::new(code, "no");
        let body = render_failure(asked, &failure);
        (
            status(asked, &failure),
            serde_json::from_slice(&body).unwrap(),
        )
    };
    let (code, body) = read(Asked::Embeddings, ErrorCode::ModelNotFound);
    assert_eq!(code, 404);
    let error = json!({"message": "no", "type": "invalid_request_error", "param": null, "code": "model_not_found"});
    assert_eq!(body, json!({ "error": error }));
    let (code, body) = read(Asked::Embed, ErrorCode::InputValues);
    let kind = &body["error_type"];
    assert_eq!((code, kind), (422, &json!("Validation")));
    let (code, body) = read(Asked::Rerank, ErrorCode::QueueFull);
    assert_eq!((code, &body["error_type"]), (429, &json!("Overloaded")));
}
