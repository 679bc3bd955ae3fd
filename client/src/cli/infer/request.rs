//! From rows on a command line to a request: values read as the model's datatype, shape from its metadata.

use std::time::Duration;

use paceline_protocol::{Criticality, Dim, Dtype, ShapePattern};
use serde_json::{Number, Value, json};

use crate::api::{ModelMetadata, TensorMetadata};

/// What to ask a model.
pub(super) struct Question<'a> {
    pub(super) metadata: &'a ModelMetadata,
    pub(super) rows: Rows<'a>,
    /// Outputs to ask for; every one if empty.
    pub(super) outputs: &'a [String],
    /// How long the node may take; its default if absent.
    pub(super) budget: Option<Duration>,
    /// How much it matters; as the node has it if absent.
    pub(super) criticality: Option<Criticality>,
}

/// Rows as they were typed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rows<'a> {
    /// Values with commas between them.
    Values(&'a [String]),
    /// One text each, commas and all.
    Texts(&'a [String]),
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Body {
    pub(in crate::cli) bytes: Vec<u8>,
    /// How much of it is JSON, where tensors follow as bytes.
    pub(in crate::cli) json_bytes: Option<usize>,
}

/// How tensors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Encoding {
    Json,
    /// As Triton's extension of binary tensors has them, in answers, too.
    Binary,
}

/// Why rows do not make a request. Rows and values are counted from 1, as people do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error("'{model}' has {} inputs ({}): --row and --text need exactly one; use --json", names.len(), names.join(", "))]
    Inputs { model: String, names: Vec<String> },
    #[error("input '{input}' is {dtype}, which has no form in JSON; send it as binary data")]
    NoJson { input: String, dtype: Dtype },
    #[error("input '{input}' is {dtype}, and --text is for BYTES; use --row")]
    NoText { input: String, dtype: Dtype },
    #[error(
        "row {row} has {}, but input '{input}' has shape {shape}: {wanted} a row",
        values(*found)
    )]
    Length {
        row: usize,
        found: usize,
        input: String,
        shape: ShapePattern,
        wanted: u64,
    },
    #[error(
        "row {row} has {}, but input '{input}' has shape {shape}: a multiple of {step} a row",
        values(*found)
    )]
    Multiple {
        row: usize,
        found: usize,
        input: String,
        shape: ShapePattern,
        step: u64,
    },
    #[error("row {row} has {}, but row 1 has {first}; rows of one request are equally long", values(*found))]
    Ragged {
        row: usize,
        found: usize,
        first: usize,
    },
    #[error("{found} rows were given, but input '{input}' has shape {shape}")]
    RowCount {
        found: usize,
        input: String,
        shape: ShapePattern,
    },
    #[error(
        "input '{input}' has shape {shape}: a row of values does not say how to divide itself; use --json"
    )]
    Ambiguous { input: String, shape: ShapePattern },
    #[error("row {row}, value {position}: '{text}' is not {dtype}; allowed: {allowed}")]
    Value {
        row: usize,
        position: usize,
        text: String,
        dtype: Dtype,
        allowed: String,
    },
    #[error("'{model}' has no output '{name}'; its outputs: {}", known.join(", "))]
    Output {
        model: String,
        name: String,
        known: Vec<String>,
    },
}

impl Question<'_> {
    /// The body of the request.
    ///
    /// # Errors
    /// [`RequestError`] names the row, the value or the shape.
    pub(super) fn body(&self, encoding: Encoding) -> Result<Body, RequestError> {
        let input = self.input(encoding)?;
        let rows = self.elements(input)?;
        let shape = shape(input, &rows)?;
        let mut tensor = json!({
            "name": input.name,
            "datatype": input.datatype.name(),
            "shape": shape,
        });
        let mut binary = Vec::new();
        match encoding {
            Encoding::Json => tensor["data"] = json!(rows.concat()),
            Encoding::Binary => {
                rows.iter()
                    .flatten()
                    .for_each(|value| push(value, input.datatype, &mut binary));
                tensor["parameters"] = json!({ "binary_data_size": binary.len() });
            }
        }
        let mut body = json!({ "inputs": [tensor] });
        if !self.outputs.is_empty() {
            body["outputs"] = self.named_outputs()?;
        }
        if let Some(budget) = self.budget {
            let microseconds = u64::try_from(budget.as_micros()).unwrap_or(u64::MAX);
            body["parameters"]["timeout"] = json!(microseconds);
        }
        if let Some(criticality) = self.criticality {
            body["parameters"]["priority"] = json!(criticality.priority());
        }
        if encoding == Encoding::Binary {
            body["parameters"]["binary_data_output"] = json!(true);
        }
        let json = body.to_string().into_bytes();
        let json_bytes = (encoding == Encoding::Binary).then_some(json.len());
        Ok(Body {
            bytes: [json, binary].concat(),
            json_bytes,
        })
    }

    fn input(&self, encoding: Encoding) -> Result<&TensorMetadata, RequestError> {
        let [input] = &self.metadata.inputs[..] else {
            return Err(RequestError::Inputs {
                model: self.metadata.name.clone(),
                names: names(&self.metadata.inputs),
            });
        };
        let (name, dtype) = (input.name.clone(), input.datatype);
        match (self.rows, dtype) {
            (_, Dtype::Fp16 | Dtype::Bf16) if encoding == Encoding::Json => {
                Err(RequestError::NoJson { input: name, dtype })
            }
            (Rows::Texts(_), _) if dtype != Dtype::Bytes => {
                Err(RequestError::NoText { input: name, dtype })
            }
            _ => Ok(input),
        }
    }

    fn elements(&self, input: &TensorMetadata) -> Result<Vec<Vec<Value>>, RequestError> {
        match self.rows {
            Rows::Texts(texts) => Ok(texts.iter().map(|text| vec![json!(text)]).collect()),
            Rows::Values(rows) => {
                let numbered = rows.iter().enumerate();
                let read = |(at, text): (usize, &String)| read_row(at + 1, text, input.datatype);
                numbered.map(read).collect()
            }
        }
    }

    fn named_outputs(&self) -> Result<Value, RequestError> {
        let known = names(&self.metadata.outputs);
        if let Some(unknown) = self.outputs.iter().find(|name| !known.contains(name)) {
            return Err(RequestError::Output {
                model: self.metadata.name.clone(),
                name: unknown.clone(),
                known,
            });
        }
        let named = self.outputs.iter().map(|name| json!({ "name": name }));
        Ok(Value::Array(named.collect()))
    }
}

/// `[rows, …]`: the first dimension counts rows, and at most one other follows their length.
fn shape(input: &TensorMetadata, rows: &[Vec<Value>]) -> Result<Vec<u64>, RequestError> {
    let (name, pattern) = (&input.name, &input.shape);
    let ambiguous = || RequestError::Ambiguous {
        input: name.clone(),
        shape: pattern.clone(),
    };
    let (first, inner) = pattern.0.split_first().ok_or_else(ambiguous)?;
    if matches!(first, Dim::Exactly(wanted) if *wanted != rows.len() as u64) {
        return Err(RequestError::RowCount {
            found: rows.len(),
            input: name.clone(),
            shape: pattern.clone(),
        });
    }
    let is_open = |dim: &&Dim| matches!(dim, Dim::Any);
    if inner.iter().filter(is_open).count() > 1 {
        return Err(ambiguous());
    }
    let product = |product: u64, dim: &Dim| match dim {
        Dim::Any => Some(product),
        Dim::Exactly(size) => product.checked_mul(*size),
    };
    let step = inner.iter().try_fold(1, product).ok_or_else(ambiguous)?;
    let open = inner.iter().any(|dim| is_open(&dim));
    for (at, row) in rows.iter().enumerate() {
        check_length(input, (at + 1, row.len()), (step, open))?;
        let first = rows[0].len();
        if row.len() != first {
            let (row, found) = (at + 1, row.len());
            return Err(RequestError::Ragged { row, found, first });
        }
    }
    let length = rows.first().map_or(0, Vec::len) as u64;
    let size = |dim: &Dim| match dim {
        Dim::Any => length.checked_div(step).unwrap_or(0),
        Dim::Exactly(size) => *size,
    };
    Ok([rows.len() as u64]
        .into_iter()
        .chain(inner.iter().map(size))
        .collect())
}

fn check_length(
    input: &TensorMetadata,
    (row, found): (usize, usize),
    (step, open): (u64, bool),
) -> Result<(), RequestError> {
    let (input, shape) = (input.name.clone(), input.shape.clone());
    let length = found as u64;
    if !open && length != step {
        return Err(RequestError::Length {
            row,
            found,
            input,
            shape,
            wanted: step,
        });
    }
    if open && length.checked_rem(step) != Some(0) {
        return Err(RequestError::Multiple {
            row,
            found,
            input,
            shape,
            step,
        });
    }
    Ok(())
}

fn read_row(row: usize, text: &str, dtype: Dtype) -> Result<Vec<Value>, RequestError> {
    if text.trim().is_empty() && dtype != Dtype::Bytes {
        return Ok(Vec::new());
    }
    let numbered = text.split(',').enumerate();
    let read = |(at, text): (usize, &str)| {
        let text = text.trim();
        value(text, dtype).ok_or_else(|| RequestError::Value {
            row,
            position: at + 1,
            text: text.to_owned(),
            dtype,
            allowed: allowed(dtype),
        })
    };
    numbered.map(read).collect()
}

fn value(text: &str, dtype: Dtype) -> Option<Value> {
    match dtype {
        Dtype::Bytes => Some(json!(text)),
        Dtype::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(json!(true)),
            "false" | "0" => Some(json!(false)),
            _ => None,
        },
        Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64 => {
            // JSON has neither NaN nor infinities; `from_f64` refuses them.
            Number::from_f64(text.parse().ok()?).map(Value::Number)
        }
        _ => {
            let (least, most) = range(dtype)?;
            let number: i128 = text.parse().ok()?;
            let fits = (least..=most).contains(&number);
            fits.then(|| Number::from_i128(number).map(Value::Number))?
        }
    }
}

/// Appends a value that [`value`] has read, little-endian; BYTES have their length in front.
fn push(value: &Value, dtype: Dtype, bytes: &mut Vec<u8>) {
    match (dtype, value) {
        (_, Value::Bool(is)) => bytes.push(u8::from(*is)),
        (_, Value::String(text)) => {
            // A command line is shorter than 4 GiB.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        (_, Value::Number(number)) => {
            let float = number.as_f64().unwrap_or_default();
            if !dtype.push_float(float, bytes) {
                // Two's complement is the same bytes in every width that holds the number.
                let whole = number.as_i128().unwrap_or_default().to_le_bytes();
                bytes.extend(&whole[..dtype.element_bytes().unwrap_or(0)]);
            }
        }
        _ => {}
    }
}

/// The integers of a datatype.
fn range(dtype: Dtype) -> Option<(i128, i128)> {
    match dtype {
        Dtype::Uint8 => Some((0, u8::MAX.into())),
        Dtype::Uint16 => Some((0, u16::MAX.into())),
        Dtype::Uint32 => Some((0, u32::MAX.into())),
        Dtype::Uint64 => Some((0, u64::MAX.into())),
        Dtype::Int8 => Some((i8::MIN.into(), i8::MAX.into())),
        Dtype::Int16 => Some((i16::MIN.into(), i16::MAX.into())),
        Dtype::Int32 => Some((i32::MIN.into(), i32::MAX.into())),
        Dtype::Int64 => Some((i64::MIN.into(), i64::MAX.into())),
        Dtype::Bool | Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64 | Dtype::Bytes => None,
    }
}

fn allowed(dtype: Dtype) -> String {
    match (dtype, range(dtype)) {
        (_, Some((least, most))) => format!("whole numbers from {least} to {most}"),
        (Dtype::Bool, _) => "true, false, 1, 0".to_owned(),
        _ => "finite decimal numbers".to_owned(),
    }
}

fn names(tensors: &[TensorMetadata]) -> Vec<String> {
    tensors.iter().map(|tensor| tensor.name.clone()).collect()
}

fn values(count: usize) -> String {
    crate::cli::units::counted(count, "value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(inputs: &[(&str, Dtype, &[i64])]) -> ModelMetadata {
        let tensor = |(name, datatype, dims): &(&str, Dtype, &[i64])| TensorMetadata {
            name: (*name).into(),
            datatype: *datatype,
            shape: ShapePattern(dims.iter().map(|d| Dim::try_from(*d).unwrap()).collect()),
        };
        ModelMetadata {
            name: "m".into(),
            inputs: inputs.iter().map(tensor).collect(),
            outputs: vec![tensor(&("y", Dtype::Fp32, &[-1, 1]))],
        }
    }

    fn ask(metadata: &ModelMetadata, rows: &[&str]) -> Result<Value, RequestError> {
        let rows: Vec<String> = rows.iter().map(|&row| row.into()).collect();
        let question = Question {
            metadata,
            rows: Rows::Values(&rows),
            outputs: &[],
            budget: None,
            criticality: None,
        };
        let body = question.body(Encoding::Json)?;
        assert_eq!(body.json_bytes, None);
        Ok(serde_json::from_slice(&body.bytes).unwrap())
    }

    #[test]
    fn rows_become_a_batch_of_the_models_datatype_and_shape() {
        let model = metadata(&[("x", Dtype::Fp32, &[-1, 3])]);
        let body = ask(&model, &["1, -2.5,3e-2", "4,5,6"]).unwrap();
        let wanted = json!({ "inputs": [{
            "name": "x", "datatype": "FP32", "shape": [2, 3],
            "data": [1.0, -2.5, 0.03, 4.0, 5.0, 6.0],
        }]});
        assert_eq!(body, wanted);
        for (dims, rows, shape) in [
            (&[-1, -1][..], &["1,2", "3,4"][..], json!([2, 2])),
            (&[-1, 2, -1], &["1,2,3,4,5,6"], json!([1, 2, 3])),
            (&[-1], &["1", "2", "3"], json!([3])),
            (&[2, 1], &["1", "2"], json!([2, 1])),
        ] {
            let model = metadata(&[("x", Dtype::Int64, dims)]);
            assert_eq!(ask(&model, rows).unwrap()["inputs"][0]["shape"], shape);
        }
    }

    #[test]
    fn values_are_read_as_their_datatype() {
        for (dtype, text, wanted) in [
            (Dtype::Uint64, "18446744073709551615", json!(u64::MAX)),
            (Dtype::Int8, "-128", json!(-128)),
            (Dtype::Bool, "TRUE", json!(true)),
            (Dtype::Bytes, "a b", json!("a b")),
            (Dtype::Fp64, "1e300", json!(1e300)),
        ] {
            let body = ask(&metadata(&[("x", dtype, &[-1, 1])]), &[text]).unwrap();
            assert_eq!(body["inputs"][0]["data"], json!([wanted]), "{dtype}");
        }
        for (dtype, text, allowed) in [
            (Dtype::Uint8, "256", "from 0 to 255"),
            (Dtype::Int8, "1.5", "from -128 to 127"),
            (Dtype::Uint64, "-1", "from 0 to"),
            (Dtype::Bool, "2", "true, false"),
            (Dtype::Fp32, "nan", "finite"),
            (Dtype::Fp32, "", "finite"),
        ] {
            let model = metadata(&[("x", dtype, &[-1, 2])]);
            let refused = ask(&model, &[&format!("1,{text}")])
                .unwrap_err()
                .to_string();
            assert!(refused.contains("row 1, value 2"), "{refused}");
            assert!(refused.contains(allowed), "{refused}");
        }
    }

    #[test]
    fn binary_tensors_follow_their_json() {
        let bytes = |dtype: Dtype, rows: &[&str]| {
            let rows: Vec<String> = rows.iter().map(|&row| row.into()).collect();
            let question = Question {
                metadata: &metadata(&[("x", dtype, &[-1, -1])]),
                rows: Rows::Values(&rows),
                outputs: &[],
                budget: Some(Duration::from_millis(5)),
                criticality: None,
            };
            let body = question.body(Encoding::Binary).unwrap();
            let (json, binary) = body.bytes.split_at(body.json_bytes.unwrap());
            let json: Value = serde_json::from_slice(json).unwrap();
            let wanted = json!({
                "inputs": [{
                    "name": "x", "datatype": dtype.name(), "shape": [rows.len(), 2],
                    "parameters": { "binary_data_size": binary.len() },
                }],
                "parameters": { "timeout": 5_000, "binary_data_output": true },
            });
            assert_eq!(json, wanted);
            binary.to_vec()
        };
        let singles = [1.0f32, -2.5].map(f32::to_le_bytes).concat();
        assert_eq!(bytes(Dtype::Fp32, &["1,-2.5"]), singles);
        assert_eq!(bytes(Dtype::Fp16, &["1,-2"]), [0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!(bytes(Dtype::Bf16, &["1,-2"]), [0x80, 0x3f, 0x00, 0xc0]);
        assert_eq!(
            bytes(Dtype::Int16, &["-2,3", "4,5"]),
            [0xfe, 0xff, 3, 0, 4, 0, 5, 0]
        );
        let wide = [u64::MAX.to_le_bytes(), 7u64.to_le_bytes()].concat();
        assert_eq!(bytes(Dtype::Uint64, &["18446744073709551615,7"]), wide);
        assert_eq!(bytes(Dtype::Bool, &["true,0"]), [1, 0]);
        assert_eq!(bytes(Dtype::Bytes, &["ab,c"]), b"\x02\0\0\0ab\x01\0\0\0c");
    }

    #[test]
    fn what_does_not_fit_names_both_sides() {
        let digits = metadata(&[("pixels", Dtype::Fp32, &[-1, 64])]);
        assert_eq!(
            ask(&digits, &["1,2,3"]).unwrap_err().to_string(),
            "row 1 has 3 values, but input 'pixels' has shape [-1,64]: 64 a row"
        );
        let cases: [(&[i64], &[&str], &str); 6] = [
            (
                &[-1, -1],
                &["1,2", "1"],
                "row 2 has 1 value, but row 1 has 2",
            ),
            (&[-1, -1, -1], &["1"], "use --json"),
            (&[-1, 2, -1], &["1,2,3"], "a multiple of 2 a row"),
            (
                &[4, 1],
                &["1"],
                "1 rows were given, but input 'x' has shape [4,1]",
            ),
            (
                &[-1],
                &["1,2"],
                "row 1 has 2 values, but input 'x' has shape [-1]: 1 a row",
            ),
            (&[], &["1"], "use --json"),
        ];
        for (dims, rows, wanted) in cases {
            let refused = ask(&metadata(&[("x", Dtype::Fp32, dims)]), rows).unwrap_err();
            assert!(refused.to_string().contains(wanted), "{dims:?}: {refused}");
        }
        let two = metadata(&[("a", Dtype::Fp32, &[-1]), ("b", Dtype::Fp32, &[-1])]);
        let refused = ask(&two, &["1"]).unwrap_err().to_string();
        assert!(refused.contains("'m' has 2 inputs (a, b)"), "{refused}");
        let half = metadata(&[("a", Dtype::Fp16, &[-1])]);
        assert!(matches!(
            ask(&half, &["1"]),
            Err(RequestError::NoJson { .. })
        ));
    }

    #[test]
    fn texts_are_taken_whole_and_only_for_bytes() {
        let texts = ["one, two".to_owned(), "three".to_owned()];
        let bytes = metadata(&[("t", Dtype::Bytes, &[-1, 1])]);
        let mut question = Question {
            metadata: &bytes,
            rows: Rows::Texts(&texts),
            outputs: &["y".to_owned()],
            budget: Some(Duration::from_secs(3)),
            criticality: Some(Criticality::Sheddable),
        };
        let body: Value =
            serde_json::from_slice(&question.body(Encoding::Json).unwrap().bytes).unwrap();
        assert_eq!(body["inputs"][0]["data"], json!(["one, two", "three"]));
        assert_eq!(body["inputs"][0]["shape"], json!([2, 1]));
        assert_eq!(body["outputs"], json!([{ "name": "y" }]));
        assert_eq!(
            body["parameters"],
            json!({ "timeout": 3_000_000, "priority": 4 })
        );
        let unknown = ["z".to_owned()];
        question.outputs = &unknown;
        let refused = question.body(Encoding::Json).unwrap_err().to_string();
        assert_eq!(refused, "'m' has no output 'z'; its outputs: y");
        let floats = metadata(&[("x", Dtype::Fp32, &[-1, 1])]);
        question.metadata = &floats;
        assert!(matches!(
            question.body(Encoding::Json),
            Err(RequestError::NoText { .. })
        ));
    }
}
