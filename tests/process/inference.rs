//! Answers: the model card's figures out of HTTP, in every form that a request may have.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Connection, Request};
use crate::node::Node;
use crate::tensors::{
    HeldOut, assert_close, digits, figures, floats, from_bytes, identity, machine_failure, texts,
};

/// The recorded probabilities were computed by other software, in the same precision.
const TOLERANCE: f32 = 1e-5;

fn accuracy(labels: &[String], truth: &[String]) -> f64 {
    let right = labels
        .iter()
        .zip(truth)
        .filter(|(label, truth)| label == truth)
        .count();
    right as f64 / truth.len() as f64
}

/// Batches of many sizes through an ordinary HTTP client.
#[test]
fn held_out_digits_give_the_accuracy_of_the_model_card() {
    let node = Node::shared();
    let held_out = HeldOut::of("digits");
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let url = format!("http://{}/v2/models/digits/infer", node.http);
    let (mut probabilities, mut labels) = (Vec::new(), Vec::new());
    let mut sizes = [1, 7, 64, 128].into_iter().cycle();
    let mut rest = &held_out.values[..];
    while !rest.is_empty() {
        let size = sizes.next().unwrap().min(rest.len());
        let (batch, behind) = rest.split_at(size);
        rest = behind;
        let body = digits(batch).json().to_string();
        let mut answer = agent.post(&url).send(body).unwrap();
        let answer: Value =
            serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(answer["outputs"][0]["shape"], json!([size, 10]));
        probabilities.extend(floats(&answer, 0));
        labels.extend(texts(&answer, 1));
    }
    let figures = figures("digits");
    assert_eq!(
        labels.len() as u64,
        figures["rows"]["held_out"].as_u64().unwrap()
    );
    let published = figures["held_out"]["accuracy"].as_f64().unwrap();
    assert!((accuracy(&labels, &held_out.truth) - published).abs() < 1e-9);
    assert_eq!(labels, held_out.labels);
    assert_close(&probabilities, &held_out.recorded, TOLERANCE);
}

#[test]
fn held_out_machines_get_the_recorded_probabilities_in_binary() {
    let held_out = HeldOut::of("machine-failure");
    assert!(held_out.values.len() >= 200);
    let all = json!({"parameters": {"binary_data_output": true}});
    let answer = Node::shared().ask(&machine_failure(&held_out.values).binary_request(&all));
    let (json, binary) = answer.parts();
    let size = |output: usize| {
        let parameters = &json["outputs"][output]["parameters"];
        parameters["binary_data_size"].as_u64().unwrap() as usize
    };
    assert_eq!(size(0), held_out.values.len() * 4);
    assert_eq!(size(0) + size(1), binary.len());
    let (probabilities, mut labels) = binary.split_at(size(0));
    let probabilities: Vec<_> = from_bytes(probabilities)
        .chunks(1)
        .map(<[f32]>::to_vec)
        .collect();
    assert_close(&probabilities, &held_out.recorded, TOLERANCE);
    for wanted in &held_out.labels {
        let (length, rest) = labels.split_first_chunk::<4>().unwrap();
        let (label, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        assert_eq!(label, wanted.as_bytes());
        labels = rest;
    }
    assert!(labels.is_empty());
}

/// Requests of one row meet in batches: company must not change an answer.
#[test]
fn single_rows_from_eight_connections_get_the_same_answers() {
    let node = Node::shared();
    let held_out = HeldOut::of("digits");
    let ask = |offset: usize| {
        let mut connection = node.connect();
        let mut answered = 0;
        for row in (offset..held_out.values.len()).step_by(4) {
            let values = &held_out.values[row..=row];
            let answer = connection.ask(&digits(values).request()).ok();
            assert_close(
                &floats(&answer, 0),
                &held_out.recorded[row..=row],
                TOLERANCE,
            );
            assert_eq!(texts(&answer, 1), held_out.labels[row..=row]);
            answered += 1;
        }
        answered
    };
    let answered: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| scope.spawn(move || ask(thread % 4)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(answered, 2 * held_out.values.len());
}

#[test]
fn inputs_and_outputs_take_every_form() {
    let node = Node::shared();
    let values = vec![
        vec![1.5f32, -2.25, 3e-7],
        vec![0.0, f32::MIN_POSITIVE, 1e30],
    ];
    let rows = identity(&values);
    let json_answer = node.ask(&rows.request()).ok();
    assert_eq!(floats(&json_answer, 0), values);

    let binary_in = node.ask(&rows.binary_request(&json!({}))).ok();
    assert_eq!(
        binary_in["outputs"], json_answer["outputs"],
        "a binary input, a JSON output"
    );

    let wish = json!({"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": true}}]});
    let mut body = rows.json();
    body["outputs"] = wish["outputs"].clone();
    let binary_out = node.post(&rows.path(), body.to_string());
    assert_eq!(
        binary_out.parts().1,
        rows.bytes(),
        "a JSON input, a binary output"
    );
    let both = node.ask(&rows.binary_request(&wish));
    assert_eq!(both.parts().1, rows.bytes());

    let pixels = HeldOut::of("digits").values;
    let raw = Request::post("/v2/models/digits/infer", digits(&pixels[..3]).bytes())
        .header("Inference-Header-Content-Length", 0);
    let answer = node.ask(&raw);
    let (head, binary) = answer.parts();
    assert_eq!(
        head["outputs"][0]["shape"],
        json!([3, 10]),
        "rows follow from the length"
    );
    assert_eq!(head["outputs"][1]["parameters"]["binary_data_size"], 3 * 5);
    assert_eq!(binary.len(), 3 * 40 + 3 * 5);

    let mixed = json!({"outputs": [
        {"name": "label"},
        {"name": "probabilities", "parameters": {"binary_data": true}},
    ]});
    let answer = node.ask(&digits(&pixels[..3]).binary_request(&mixed));
    let (head, binary) = answer.parts();
    assert_eq!(head["outputs"][0]["data"].as_array().unwrap().len(), 3);
    assert_eq!(
        head["outputs"][1]["name"], "probabilities",
        "in the order asked for"
    );
    assert_eq!(from_bytes(binary).len(), 30);

    let classes = json!({"outputs": [
        {"name": "probabilities", "parameters": {"classification": 2}},
    ]});
    let answer = node
        .ask(&digits(&pixels[..1]).binary_request(&classes))
        .ok();
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 2]), "{answer}");
}

#[test]
fn nested_data_and_null_members_are_taken() {
    let body = r#"{"id":null,"extra":{"a":[1,{"b":null}]},"inputs":[{"data":[[1,2],[3,4]],
        "datatype":"FP32","shape":[2,2],"name":"INPUT0","parameters":null}],"outputs":[]}"#;
    let answer = Node::shared().post("/v2/models/identity/infer", body).ok();
    assert_eq!(floats(&answer, 0), [[1.0, 2.0], [3.0, 4.0]]);
    assert!(answer.get("id").is_none());
}

#[test]
fn answers_say_who_gave_them_and_to_which_request() {
    let node = Node::shared();
    let values = [vec![1.0, 2.0]];
    for id in ["seven", "", "with \"quotes\" and \u{e4}\u{1f600}"] {
        let mut body = identity(&values).json();
        body["id"] = json!(id);
        let request = Request::post("/v2/models/identity/versions/1/infer", body.to_string())
            .header("X-Request-Id", "trace-00af");
        let answer = node.ask(&request);
        assert_eq!(answer.ok()["id"], id);
        assert_eq!(answer.json()["model_name"], "identity");
        assert_eq!(answer.json()["model_version"], "1");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-request-id"), Some("trace-00af"));
        assert_eq!(answer.header("paceline-version"), Some("1"));
        let epoch: u64 = answer.header("paceline-epoch").unwrap().parse().unwrap();
        let status = node.get("/v2/paceline/status").ok();
        assert!(epoch > 0 && epoch <= status["epoch"].as_u64().unwrap());
    }
    let unnamed = node.ask(&identity(&values).request());
    assert!(
        !unnamed.header("x-request-id").unwrap().is_empty(),
        "the node gives one"
    );
}

#[test]
fn what_is_larger_than_a_batch_is_put_together_in_order() {
    let node = Node::shared();
    let values: Vec<_> = (0..5_000)
        .map(|row| vec![row as f32, -(row as f32)])
        .collect();
    let rows = identity(&values);
    let all = json!({"parameters": {"binary_data_output": true}});
    let answer = node.ask(&rows.binary_request(&all));
    assert_eq!(answer.parts().0["outputs"][0]["shape"], json!([5_000, 2]));
    assert_eq!(answer.parts().1, rows.bytes());

    let held_out = HeldOut::of("digits");
    let order: Vec<_> = (0..1_000).map(|row| row % held_out.values.len()).collect();
    let values: Vec<_> = order
        .iter()
        .map(|row| held_out.values[*row].clone())
        .collect();
    let recorded: Vec<_> = order
        .iter()
        .map(|row| held_out.recorded[*row].clone())
        .collect();
    let labels: Vec<_> = order
        .iter()
        .map(|row| held_out.labels[*row].clone())
        .collect();
    let answer = node.ask(&digits(&values).request()).ok();
    assert_close(&floats(&answer, 0), &recorded, TOLERANCE);
    assert_eq!(texts(&answer, 1), labels);
}

#[test]
fn one_connection_carries_many_requests_and_a_pipeline() {
    let node = Node::shared();
    let mut connection = node.connect();
    for number in 0..300 {
        let values = [vec![number as f32]];
        let answer = connection.ask(&identity(&values).request()).ok();
        assert_eq!(floats(&answer, 0), values);
    }
    let numbers = 0..50;
    let pipeline = numbers
        .clone()
        .flat_map(|n| identity(&[vec![n as f32]]).request().bytes());
    connection.write(&pipeline.collect::<Vec<u8>>()).unwrap();
    for number in numbers {
        let answer = connection.read("POST").unwrap().ok();
        assert_eq!(
            floats(&answer, 0),
            [[number as f32]],
            "answers come in order"
        );
    }
}

#[test]
fn clients_that_leave_harm_nobody() {
    let node = Node::shared();
    let values: Vec<_> = HeldOut::of("digits").values;
    let whole = digits(&values).request().bytes();
    for client in 0..60 {
        let mut connection = Connection::open(node.http);
        // Within the header, within the body, and before the answer is read.
        let cut = [20, whole.len() / 2, whole.len()][client % 3];
        connection.write(&whole[..cut]).unwrap();
    }
    let answer = node.ask(&digits(&values[..2]).request()).ok();
    assert_eq!(texts(&answer, 1).len(), 2);
}
