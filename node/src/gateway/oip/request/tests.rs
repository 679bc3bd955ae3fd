//! Good and bad bodies, and the exact sentences that the bad ones earn.

mod binary;
mod document;
mod values;
mod wishes;

use super::*;
use paceline_protocol::{Dim, Dtype, ShapePattern};

fn spec(name: &str, dtype: Dtype, dims: &[i64]) -> TensorSpec {
    let dims = dims
        .iter()
        .map(|dim| Dim::try_from(*dim).unwrap())
        .collect();
    TensorSpec {
        name: name.into(),
        dtype,
        shape: ShapePattern(dims),
    }
}

fn one(dtype: Dtype, dims: &[i64]) -> Signature {
    Signature {
        inputs: vec![spec("x", dtype, dims)],
        outputs: vec![spec("y", dtype, dims)],
    }
}

fn two() -> Signature {
    Signature {
        inputs: vec![
            spec("a", Dtype::Fp32, &[-1, 2]),
            spec("b", Dtype::Bytes, &[-1, 1]),
        ],
        outputs: vec![
            spec("p", Dtype::Fp32, &[-1, 2]),
            spec("q", Dtype::Fp16, &[-1, 1]),
        ],
    }
}

fn read(body: impl Into<Bytes>, signature: &Signature) -> Result<ParsedRequest, Failure> {
    parse(&body.into(), None, signature, ParseOptions::default())
}

/// A JSON head with bytes behind it.
fn with_binary(json: &str, data: &[u8]) -> (Bytes, Option<usize>) {
    ([json.as_bytes(), data].concat().into(), Some(json.len()))
}

fn input(dtype: &str, shape: &str, data: &str) -> String {
    let tensor = format!(r#"{{"name":"x","datatype":"{dtype}","shape":{shape},"data":{data}}}"#);
    format!(r#"{{"inputs":[{tensor}]}}"#)
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let mut values = Vec::new();
    assert!(tensor.extend_f32(&mut values));
    values
}
