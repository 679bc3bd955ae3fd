//! The requests that are sent, rendered once: head and body in one piece.

use bytes::Bytes;
use paceline_core::Random;

use crate::provenance::SEED;

/// One kind of request.
pub(crate) struct Kind {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Everything that goes over the wire.
    pub(crate) bytes: Bytes,
}

/// The kinds, from small to large.
pub(crate) fn kinds() -> [Kind; 3] {
    [
        Kind {
            name: "json-16",
            bytes: json(&floats(16)),
        },
        Kind {
            name: "binary-16",
            bytes: binary(&floats(16)),
        },
        Kind {
            name: "binary-image",
            bytes: binary(&floats(IMAGE_FLOATS)),
        },
    ]
}

fn floats(count: usize) -> Vec<f32> {
    let mut random = Random::stream(SEED, "request");
    (0..count).map(|_| random.unit() as f32).collect()
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
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
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

/// Values of one image of 224 × 224 pixels in three colours.
const IMAGE_FLOATS: usize = 224 * 224 * 3;
