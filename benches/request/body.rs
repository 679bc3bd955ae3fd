//! The requests that are sent, rendered once, and what answers must hold.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use paceline_core::Random;
use prost::Message;

use crate::http1::ask_once;
use crate::http2::{Call, call_once};
use crate::messages::{InferRequest, InferResponse, Tensor};
use crate::provenance::SEED;
use crate::server::Server;

/// One kind of request.
pub(crate) struct Kind {
    /// What the table calls it.
    pub(crate) name: &'static str,
    pub(crate) sent: Sent,
    /// What the model is given, and has to give back.
    values: Vec<f32>,
}

/// Everything that goes over the wire.
pub(crate) enum Sent {
    /// A request over HTTP/1.1: head and body in one piece.
    Http(Bytes),
    /// A call of gRPC.
    Grpc(Call),
}

/// The kinds, from small to large.
pub(crate) fn kinds() -> [Kind; 6] {
    [
        Kind::new("json-16", SMALL, |values| Sent::Http(json(values))),
        Kind::new("binary-16", SMALL, |values| Sent::Http(binary(values))),
        Kind::new("grpc-16", SMALL, |values| Sent::Grpc(call(values))),
        Kind::new("json-image", IMAGE, |values| Sent::Http(json(values))),
        Kind::new("binary-image", IMAGE, |values| Sent::Http(binary(values))),
        Kind::new("grpc-image", IMAGE, |values| Sent::Grpc(call(values))),
    ]
}

impl Kind {
    fn new(name: &'static str, count: usize, render: fn(&[f32]) -> Sent) -> Self {
        let mut random = Random::stream(SEED, "request");
        let values: Vec<f32> = (0..count).map(|_| random.unit() as f32).collect();
        let sent = render(&values);
        Self { name, sent, values }
    }

    /// Whether it has as many values as an image.
    pub(crate) fn is_large(&self) -> bool {
        self.values.len() > SMALL
    }

    /// The answer of a server, which was found to hold the values that were sent.
    pub(crate) fn ask(&self, server: &Server) -> anyhow::Result<Vec<u8>> {
        let (answer, values) = match &self.sent {
            Sent::Http(request) => {
                let answer = ask_once(server.http, request)?;
                let values = read_http(&answer)?;
                (answer, values)
            }
            Sent::Grpc(call) => {
                let answer = call_once(server.grpc, call)?;
                let values = read_grpc(&answer)?;
                (answer, values)
            }
        };
        let same = values == self.values;
        ensure!(same, "an answer to {} has other values", self.name);
        Ok(answer)
    }

    /// Where a server takes it.
    pub(crate) fn door(&self, server: &Server) -> SocketAddr {
        match self.sent {
            Sent::Http(_) => server.http,
            Sent::Grpc(_) => server.grpc,
        }
    }
}

/// In JSON, or binary behind it.
fn read_http(answer: &[u8]) -> anyhow::Result<Vec<f32>> {
    let mut values = serde_json::Deserializer::from_slice(answer).into_iter();
    let head: serde_json::Value = values.next().context("an answer without JSON")??;
    let output = &head["outputs"][0];
    if let Some(data) = output["data"].as_array() {
        let value = |value: &serde_json::Value| value.as_f64().map(|value| value as f32);
        return Ok(data.iter().filter_map(value).collect());
    }
    read_bytes(&answer[values.byte_offset()..])
}

fn read_grpc(framed: &[u8]) -> anyhow::Result<Vec<f32>> {
    let answer = InferResponse::decode(&framed[5..])?;
    read_bytes(answer.raw.first().context("an answer without a tensor")?)
}

fn read_bytes(bytes: &[u8]) -> anyhow::Result<Vec<f32>> {
    let (values, rest) = bytes.as_chunks::<4>();
    ensure!(rest.is_empty(), "a tensor of odd length");
    Ok(values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect())
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    bytes.collect()
}

fn json(values: &[f32]) -> Bytes {
    let data: Vec<String> = values.iter().map(f32::to_string).collect();
    let body = format!(
        r#"{{"inputs":[{{"name":"INPUT0","shape":[1,{}],"datatype":"FP32","data":[{}]}}]}}"#,
        values.len(),
        data.join(",")
    );
    post("content-type: application/json\r\n", body.as_bytes())
}

fn binary(values: &[f32]) -> Bytes {
    let data = bytes_of(values);
    let json = format!(
        r#"{{"inputs":[{{"name":"INPUT0","shape":[1,{}],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],"outputs":[{{"name":"OUTPUT0","parameters":{{"binary_data":true}}}}]}}"#,
        values.len(),
        data.len()
    );
    let headers = format!(
        "content-type: application/octet-stream\r\ninference-header-content-length: {}\r\n",
        json.len()
    );
    post(&headers, &[json.as_bytes(), &data].concat())
}

fn post(headers: &str, body: &[u8]) -> Bytes {
    let head = format!(
        "POST /v2/models/identity/infer HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

fn call(values: &[f32]) -> Call {
    let message = InferRequest {
        model_name: "identity".to_owned(),
        inputs: vec![Tensor {
            name: "INPUT0".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, values.len() as i64],
        }],
        raw: vec![bytes_of(values).into()],
    };
    let path = "/inference.GRPCInferenceService/ModelInfer";
    Call::new(path, &message.encode_to_vec())
}

const SMALL: usize = 16;
/// Values of one image of 224 × 224 pixels in three colours.
const IMAGE: usize = 224 * 224 * 3;
