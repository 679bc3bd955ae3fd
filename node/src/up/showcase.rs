//! What `up --demo` shows: real requests to each node, their answers, and what to try next.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::ask::{AskError, Asker};
use super::home::name;

/// A node as it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) node: usize,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) pid: u32,
}

impl Shown {
    /// Where clients reach it.
    pub(crate) fn urls(&self) -> String {
        let http = self.http;
        let grpc = self.grpc.map(|grpc| format!(" (gRPC {grpc})"));
        format!("http://{http}{}", grpc.unwrap_or_default())
    }
}

/// Asks each node for each model of the demo; the text to print, or the first question that
/// was not answered as it should be.
pub(crate) fn show(asker: &Asker, nodes: &[Shown], context: &Path) -> Result<String, String> {
    let mut text = String::from("\nAsked each node over HTTP:\n");
    for shown in nodes {
        for question in QUESTIONS {
            let asked = Instant::now();
            let said = question.ask(asker, shown.http).map_err(|reason| {
                let (node, model) = (name(shown.node), question.model);
                format!("{node} did not answer for {model}: {reason}")
            })?;
            let milliseconds = asked.elapsed().as_secs_f64() * 1e3;
            let (node, model) = (name(shown.node), question.model);
            writeln!(
                text,
                "  {node}  {model:<15}  {said}  ({milliseconds:.1} ms)"
            )
            .expect("text grows");
        }
    }
    text.push_str(&next(nodes, context));
    Ok(text)
}

/// The next three commands.
fn next(nodes: &[Shown], context: &Path) -> String {
    let context = context.display();
    let mut text = format!("\nTry, with export PACELINE_CONTEXT={context}\n");
    text.push_str("  paceline infer machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216\n");
    match nodes {
        [_, .., last] => {
            let (node, pid) = (name(last.node), last.pid);
            let lost = format!("  kill -9 {pid}; paceline nodes    # {node} dies and comes back\n");
            text.push_str(&lost);
        }
        _ => text.push_str("  paceline status\n"),
    }
    text.push_str("  paceline bench machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216\n");
    text
}

/// One question, and what its answer means.
struct Question {
    model: &'static str,
    input: &'static str,
    shape: [usize; 2],
    values: &'static [f32],
    read: fn(&[Value]) -> Option<String>,
}

impl Question {
    fn ask(&self, asker: &Asker, node: SocketAddr) -> Result<String, String> {
        let body = json!({ "inputs": [{
            "name": self.input, "datatype": "FP32", "shape": self.shape, "data": self.values,
        }]});
        let path = format!("/v2/models/{}/infer", self.model);
        let answer: Result<Value, AskError> = asker.post(node, &path, &body);
        let answer = answer.map_err(|error| error.to_string())?;
        let outputs = answer["outputs"].as_array();
        let said = outputs.and_then(|outputs| (self.read)(outputs));
        said.ok_or_else(|| format!("it said {answer}"))
    }
}

fn data<'a>(outputs: &'a [Value], wanted: &str) -> Option<&'a Vec<Value>> {
    let output = outputs.iter().find(|output| output["name"] == wanted)?;
    output["data"].as_array()
}

fn machine_failure(outputs: &[Value]) -> Option<String> {
    let label = data(outputs, "label")?.first()?.as_str()?;
    let probability = data(outputs, "probability")?.first()?.as_f64()?;
    Some(format!("{label}, probability {probability:.3}"))
}

fn digits(outputs: &[Value]) -> Option<String> {
    let label = data(outputs, "label")?.first()?.as_str()?;
    let most = data(outputs, "probabilities")?
        .iter()
        .filter_map(Value::as_f64)
        .fold(0.0, f64::max);
    Some(format!("a picture of {label}, probability {most:.3}"))
}

fn identity(outputs: &[Value]) -> Option<String> {
    let values: Vec<String> = data(outputs, "OUTPUT0")?
        .iter()
        .map(ToString::to_string)
        .collect();
    Some(format!("[{}]", values.join(", ")))
}

const QUESTIONS: [Question; 3] = [
    Question {
        model: "machine-failure",
        input: "features",
        shape: [1, 8],
        values: &[1.0, 0.0, 0.0, 302.3, 311.5, 1282.0, 60.7, 216.0],
        read: machine_failure,
    },
    Question {
        model: "digits",
        input: "pixels",
        shape: [1, 64],
        values: &ZERO,
        read: digits,
    },
    Question {
        model: "identity",
        input: "INPUT0",
        shape: [1, 3],
        values: &[1.0, 2.5, -3.0],
        read: identity,
    },
];

/// The first picture of scikit-learn's digits, a zero (UCI, "Optical Recognition of Handwritten
/// Digits", CC BY 4.0): 8 × 8 pixels, 0 to 16.
#[rustfmt::skip]
const ZERO: [f32; 64] = [
    0.0, 0.0,  5.0, 13.0,  9.0,  1.0, 0.0, 0.0,
    0.0, 0.0, 13.0, 15.0, 10.0, 15.0, 5.0, 0.0,
    0.0, 3.0, 15.0,  2.0,  0.0, 11.0, 8.0, 0.0,
    0.0, 4.0, 12.0,  0.0,  0.0,  8.0, 8.0, 0.0,
    0.0, 5.0,  8.0,  0.0,  0.0,  9.0, 8.0, 0.0,
    0.0, 4.0, 11.0,  0.0,  1.0, 12.0, 7.0, 0.0,
    0.0, 2.0, 14.0,  5.0, 10.0, 12.0, 0.0, 0.0,
    0.0, 0.0,  6.0, 13.0, 10.0,  0.0, 0.0, 0.0,
];

/// Models that the demo asks.
pub(crate) const MODELS: [&str; 3] = ["machine-failure", "digits", "identity"];
