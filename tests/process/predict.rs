//! Predictions as KServe's protocol v1 and TensorFlow Serving have them, and the list of models that
//! OpenAI's clients share with both.

use serde_json::{Value, json};

use crate::bad_input::{assert_refused, case};
use crate::http::{Answer, Request};
use crate::node::Node;
use crate::tensors::{HeldOut, assert_close, digits};

const TOLERANCE: f32 = 1e-5;

fn predict(model: &str, body: &Value) -> Answer {
    Node::shared().post(&format!("/v1/models/{model}:predict"), body.to_string())
}

fn scores(rows: &Value) -> Vec<Vec<f32>> {
    let rows = rows.as_array().expect("rows").iter();
    let row = |row: &Value| {
        let values = row.as_array().expect("values").iter();
        values
            .map(|value| value.as_f64().expect("a number") as f32)
            .collect()
    };
    rows.map(row).collect()
}

/// Rows and columns, named or not: the model says the same to all of them.
#[test]
fn held_out_digits_get_the_recorded_probabilities_in_every_form() {
    let held_out = HeldOut::of("digits");
    let values = &held_out.values[..8];
    let recorded = &held_out.recorded[..8];
    let named: Vec<_> = values.iter().map(|row| json!({"pixels": row})).collect();
    for body in [
        json!({"instances": values}),
        json!({"instances": named, "signature_name": "serving_default"}),
        json!({"inputs": values}),
    ] {
        let answer = predict("digits", &body).ok();
        let rows = answer["predictions"].as_array().expect("a row each").iter();
        let both: (Vec<Value>, Vec<Value>) = rows
            .map(|row| (row["probabilities"].clone(), row["label"][0].clone()))
            .unzip();
        assert_close(&scores(&Value::from(both.0)), recorded, TOLERANCE);
        assert_eq!(both.1, held_out.labels[..8]);
    }
    let answer = predict("digits", &json!({"inputs": {"pixels": values}})).ok();
    assert_close(
        &scores(&answer["outputs"]["probabilities"]),
        recorded,
        TOLERANCE,
    );
    assert_eq!(answer["outputs"]["label"][7], json!([held_out.labels[7]]));
    assert!(answer.get("predictions").is_none(), "{answer}");

    // With one output its name is left away.
    let rows = json!([[1.5, -2.0], [0.0, 1e30]]);
    let row_by_row = predict("identity", &json!({"instances": rows})).ok();
    assert_eq!(
        row_by_row,
        json!({"predictions": [[1.5, -2.0], [0.0, 1e30]]})
    );
    let columns = predict("identity", &json!({"inputs": {"INPUT0": rows}})).ok();
    assert_eq!(columns, json!({"outputs": [[1.5, -2.0], [0.0, 1e30]]}));
}

/// What was pinned is told as everywhere, and a version is named by its number.
#[test]
fn a_prediction_is_a_request_as_any_other() {
    let node = Node::shared();
    let body = json!({"instances": [[1.0, 2.0]]}).to_string();
    let request = Request::post("/v1/models/identity/versions/1:predict", body)
        .header("X-Request-Id", "trace-7");
    let answer = node.ask(&request);
    assert_eq!(answer.ok(), json!({"predictions": [[1.0, 2.0]]}));
    assert_eq!(answer.header("paceline-version"), Some("1"));
    assert!(answer.header("paceline-epoch").is_some());
    assert_eq!(answer.header("x-request-id"), Some("trace-7"));
    let megabyte: Vec<f32> = (0..120_000_u32).map(|n| n as f32 / 7.0).collect();
    let body = json!({"instances": [megabyte]}).to_string();
    assert!(body.len() > 1_000_000);
    let answer = node.post("/v1/models/identity:predict", body).ok();
    assert_eq!(scores(&answer["predictions"]), [megabyte]);
}

#[test]
fn one_list_of_models_suits_all_who_ask() {
    let node = Node::shared();
    let names = json!(["digits", "identity", "machine-failure"]);
    let list = node.get("/v1/models").ok();
    assert_eq!((&list["object"], &list["models"]), (&json!("list"), &names));
    let ids: Vec<_> = list["data"]
        .as_array()
        .expect("cards")
        .iter()
        .map(|card| card["id"].clone())
        .collect();
    assert_eq!(json!(ids), names);
    assert_eq!(list["data"][0]["owned_by"], "default");
    assert!(
        list["data"][0]["created"].as_u64() > Some(1_600_000_000),
        "{list}"
    );
    assert_eq!(node.get("/openai/v1/models").ok(), list);

    let model = node.get("/v1/models/digits").ok();
    assert_eq!(
        (&model["name"], &model["ready"], &model["object"]),
        (&json!("digits"), &json!(true), &json!("model"))
    );
    let fine = json!({"error_code": "OK", "error_message": ""});
    let status = json!([{"version": "1", "state": "AVAILABLE", "status": fine}]);
    assert_eq!(model["model_version_status"], status);
    assert_eq!(node.get("/openai/v1/models/digits").ok(), model);
    let version = node.get("/v1/models/digits/versions/1").ok();
    assert_eq!(version, json!({"model_version_status": status}));

    let metadata = node.get("/v1/models/digits/metadata").ok();
    assert_eq!(metadata["model_spec"]["version"], "1");
    let default = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(default["inputs"]["pixels"]["dtype"], "DT_FLOAT");
    assert_eq!(default["outputs"]["label"]["dtype"], "DT_STRING");
    let dims = json!([{"size": "-1", "name": ""}, {"size": "64", "name": ""}]);
    assert_eq!(default["inputs"]["pixels"]["tensor_shape"]["dim"], dims);
    assert_eq!(
        node.get("/v1/models/digits/versions/1/metadata").ok(),
        metadata
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table, a row a case")]
fn what_cannot_be_predicted_is_refused_with_a_sentence() {
    let node = Node::shared();
    let row = digits(&HeldOut::of("digits").values[..1]).json()["inputs"][0]["data"].clone();
    let good = json!({"instances": [row]}).to_string();
    let post = |path: &str, body: &str| Request::post(path, body);
    let predict = "/v1/models/digits:predict";
    let (json, shape, values) = (
        (400, "JSON_INVALID"),
        (400, "INPUT_SHAPE"),
        (400, "INPUT_VALUES"),
    );
    let unsupported = (501, "UNSUPPORTED");
    let deep = format!("{{\"instances\":{}1{}}}", "[".repeat(60), "]".repeat(60));
    let cases = [
        case(post(predict, ""), json, &["request object"]),
        case(post(predict, "{}"), json, &["'instances'", "'inputs'"]),
        case(
            post(predict, r#"{"instances":[[1]],"inputs":[[1]]}"#),
            json,
            &["exactly one"],
        ),
        case(post(predict, r#"{"instances":7}"#), json, &["list of rows"]),
        case(
            post(predict, r#"{"instances":[]}"#),
            shape,
            &["at least one row"],
        ),
        case(
            post(predict, r#"{"instances":[[1,2,3]]}"#),
            shape,
            &["'pixels'", "[-1,64]"],
        ),
        case(
            post(predict, r#"{"instances":[[1],[1,2]]}"#),
            values,
            &["'pixels'", "has 2 items"],
        ),
        case(
            post(predict, r#"{"instances":[["x"]]}"#),
            values,
            &["a string", "FP32"],
        ),
        case(post(predict, r#"{"instances":[[NaN]]}"#), json, &["NaN"]),
        case(
            post(predict, r#"{"instances":[[1e39]]}"#),
            values,
            &["1e39", "FP32"],
        ),
        case(post(predict, &deep), json, &["deeper than 32"]),
        case(
            post(predict, r#"{"instances":[{"x":[1]}]}"#),
            (400, "INPUT_UNKNOWN"),
            &["'x'", "'pixels'"],
        ),
        case(
            post(predict, r#"{"inputs":{}}"#),
            (400, "INPUT_MISSING"),
            &["'pixels'"],
        ),
        case(
            post(predict, r#"{"instances":[[1]],"signature_name":"s"}"#),
            (400, "PARAMETER_INVALID"),
            &["'s'", "serving_default"],
        ),
        case(
            post("/v1/models/nope:predict", &good),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            post("/v1/models/digits/versions/7:predict", &good),
            (404, "VERSION_NOT_FOUND"),
            &["\"7\""],
        ),
        case(
            post("/v1/models/digits/labels/none:predict", &good),
            (404, "VERSION_NOT_FOUND"),
            &["none"],
        ),
        case(
            post("/v1/models/digits:classify", "{}"),
            unsupported,
            &[":predict", ":classify"],
        ),
        case(
            post("/v1/models/digits:regress", "{}"),
            unsupported,
            &[":regress"],
        ),
        case(
            post("/v1/models/digits:explain", "{}"),
            unsupported,
            &[":explain"],
        ),
        case(
            post("/v1/models/digits:guess", "{}"),
            (404, "NOT_FOUND"),
            &["path"],
        ),
        case(
            Request::get(predict),
            (405, "METHOD_NOT_ALLOWED"),
            &["POST"],
        ),
        case(
            post("/v1/models", "{}"),
            (405, "METHOD_NOT_ALLOWED"),
            &["GET"],
        ),
        case(
            Request::get("/v1/models/nope"),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            Request::get("/v1/models/digits/versions/7"),
            (404, "VERSION_NOT_FOUND"),
            &["\"7\""],
        ),
        case(
            Request::get("/v1/models/nope/metadata"),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
    ];
    for case in cases {
        assert_refused(node, &case, &node.ask(&case.request));
    }
}
