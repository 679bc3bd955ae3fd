//! Rows of values as requests carry them, and the held-out rows that the model cards speak of.

use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::node::example;

/// Rows for a model with one FP32 input of two dimensions.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) model: &'static str,
    pub(crate) input: &'static str,
    pub(crate) values: &'a [Vec<f32>],
}

/// Rows that a model has never seen, with what it said about them when it was trained.
pub(crate) struct HeldOut {
    pub(crate) values: Vec<Vec<f32>>,
    /// The truth.
    pub(crate) truth: Vec<String>,
    /// What the trained model gave, computed by other software.
    pub(crate) recorded: Vec<Vec<f32>>,
    /// And its label.
    pub(crate) labels: Vec<String>,
}

impl HeldOut {
    pub(crate) fn of(model: &str) -> Self {
        let (values, truth) = table(model, "held_out.csv");
        let (recorded, labels) = table(model, "held_out_probabilities.csv");
        assert_eq!(values.len(), recorded.len());
        Self {
            values,
            truth,
            recorded,
            labels,
        }
    }
}

/// A model's published figures.
pub(crate) fn figures(model: &str) -> Value {
    let text = std::fs::read_to_string(example(model).join("figures.json")).expect("figures");
    serde_json::from_str(&text).expect("figures are JSON")
}

pub(crate) fn digits(values: &[Vec<f32>]) -> Rows<'_> {
    let (model, input) = ("digits", "pixels");
    Rows {
        model,
        input,
        values,
    }
}

pub(crate) fn machine_failure(values: &[Vec<f32>]) -> Rows<'_> {
    let (model, input) = ("machine-failure", "features");
    Rows {
        model,
        input,
        values,
    }
}

pub(crate) fn identity(values: &[Vec<f32>]) -> Rows<'_> {
    let (model, input) = ("identity", "INPUT0");
    Rows {
        model,
        input,
        values,
    }
}

impl Rows<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.values.len(), self.values[0].len()]
    }

    pub(crate) fn path(&self) -> String {
        format!("/v2/models/{}/infer", self.model)
    }

    /// The body with its values as JSON.
    pub(crate) fn json(&self) -> Value {
        let (shape, data) = (self.shape(), self.values.concat());
        let input = json!({"name": self.input, "shape": shape, "datatype": "FP32", "data": data});
        json!({ "inputs": [input] })
    }

    pub(crate) fn request(&self) -> Request {
        Request::post(self.path(), self.json().to_string())
    }

    /// Values little-endian and row-major.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.values
            .concat()
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect()
    }

    /// JSON that announces so many bytes of values, and the values behind it.
    pub(crate) fn binary_request(&self, more: &Value) -> Request {
        let bytes = self.bytes();
        let mut head = self.json();
        let input = head["inputs"][0].as_object_mut().expect("an input");
        input.remove("data");
        input.insert(
            "parameters".into(),
            json!({"binary_data_size": bytes.len()}),
        );
        for (key, value) in more.as_object().expect("an object of more members") {
            head[key] = value.clone();
        }
        let mut body = head.to_string().into_bytes();
        let length = body.len();
        body.extend(bytes);
        Request::post(self.path(), body).header("Inference-Header-Content-Length", length)
    }
}

/// The values of an output, by position, row by row.
pub(crate) fn floats(answer: &Value, output: usize) -> Vec<Vec<f32>> {
    let output = &answer["outputs"][output];
    let data = output["data"].as_array().expect("data");
    let data: Vec<f32> = data
        .iter()
        .map(|value| value.as_f64().expect("a number") as f32)
        .collect();
    let columns = output["shape"][1].as_u64().expect("two dimensions") as usize;
    data.chunks(columns).map(<[f32]>::to_vec).collect()
}

/// The texts of an output.
pub(crate) fn texts(answer: &Value, output: usize) -> Vec<String> {
    let data = answer["outputs"][output]["data"].as_array().expect("data");
    data.iter()
        .map(|value| value.as_str().expect("a text").to_owned())
        .collect()
}

pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "whole values");
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

/// Asserts that two lists of rows are the same within `tolerance`.
pub(crate) fn assert_close(found: &[Vec<f32>], wanted: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), wanted.len());
    for (row, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.len(), wanted.len(), "row {row}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(
                (found - wanted).abs() <= tolerance,
                "row {row}: {found} for {wanted}"
            );
        }
    }
}

/// An inference answer's version header.
pub(crate) fn version_of(answer: &Answer) -> u32 {
    let text = answer
        .header("paceline-version")
        .expect("an answer names its version");
    text.parse().expect("a number")
}

/// Rows of numbers and the text behind them.
fn table(model: &str, file: &str) -> (Vec<Vec<f32>>, Vec<String>) {
    let text = std::fs::read_to_string(example(model).join(file)).expect("the file is there");
    let mut numbers = Vec::new();
    let mut last = Vec::new();
    for line in text.lines().skip(1) {
        let (row, label) = line.rsplit_once(',').expect("a label behind the numbers");
        numbers.push(
            row.split(',')
                .map(|value| value.parse().expect("a number"))
                .collect(),
        );
        last.push(label.to_owned());
    }
    (numbers, last)
}
