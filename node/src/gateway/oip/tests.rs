//! The codec as a whole: what is written can be read back, and no body makes it panic.

use bytes::Bytes;
use paceline_protocol::{
    AlignedBuffer, Dim, Dtype, ErrorCode, Failure, Shape, ShapePattern, Signature, Tensor,
    TensorSpec, VersionNumber,
};
use proptest::prelude::*;

use super::*;

fn signature(specs: &[(&str, Dtype, usize)]) -> Signature {
    let specs = specs.iter().map(|(name, dtype, rank)| TensorSpec {
        name: (*name).to_owned(),
        dtype: *dtype,
        shape: ShapePattern(vec![Dim::Any; *rank]),
    });
    let specs: Vec<_> = specs.collect();
    Signature {
        inputs: specs.clone(),
        outputs: specs,
    }
}

fn view<'a>(
    signature: &'a Signature,
    outputs: &'a [Tensor],
    wanted: &'a [WantedOutput],
) -> AnswerView<'a> {
    let version = VersionNumber(3);
    AnswerView {
        model_name: "m",
        version,
        id: None,
        parameters: &[],
        signature,
        outputs,
        wanted,
    }
}

fn plain(position: usize) -> WantedOutput {
    WantedOutput {
        position,
        binary: false,
        classes: None,
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn floats(rows: u64, values: &[f32]) -> Tensor {
    Tensor::from_f32(values.len() / rows as usize, values)
}

#[test]
fn an_answer_reads_as_tritons_does() {
    let signature = signature(&[("p", Dtype::Fp32, 2), ("l", Dtype::Bytes, 2)]);
    let labels = Tensor::from_byte_strings(&["a\"\n", "é"]);
    let outputs = [floats(2, &[1.0, -0.5, 1e-7, 3e38]), labels];
    let wanted = [plain(0), plain(1)];
    let parameters = [
        ("stale".to_owned(), ParameterValue::Bool(true)),
        ("epoch".to_owned(), ParameterValue::Integer(-12)),
    ];
    let mut answer = view(&signature, &outputs, &wanted);
    answer.id = Some("7");
    answer.parameters = &parameters;
    let rendered = render(&answer).unwrap();
    assert_eq!(
        text(&rendered.head),
        r#"{"model_name":"m","model_version":"3","id":"7","parameters":{"stale":true,"epoch":-12},"outputs":[{"name":"p","datatype":"FP32","shape":[2,2],"data":[1.0,-0.5,1e-7,3e+38]},{"name":"l","datatype":"BYTES","shape":[2,1],"data":["a\"\n","é"]}]}"#
    );
    assert_eq!((rendered.json_bytes, rendered.bodies.len()), (None, 0));

    let wanted = [
        WantedOutput {
            binary: true,
            ..plain(1)
        },
        plain(0),
    ];
    let rendered = render(&view(&signature, &outputs, &wanted)).unwrap();
    assert_eq!(
        text(&rendered.head),
        r#"{"model_name":"m","model_version":"3","outputs":[{"name":"l","datatype":"BYTES","shape":[2,1],"parameters":{"binary_data_size":13}},{"name":"p","datatype":"FP32","shape":[2,2],"data":[1.0,-0.5,1e-7,3e+38]}]}"#
    );
    assert_eq!(rendered.json_bytes, Some(rendered.head.len()));
    assert_eq!(
        rendered.bodies[0].as_ptr(),
        outputs[1].data().as_ptr(),
        "shared, not copied"
    );
    assert_eq!(rendered.len(), rendered.head.len() + 13);
}

#[test]
fn what_json_cannot_say_is_a_failure_that_names_the_remedy() {
    let remedy = "ask for it as binary data (parameter binary_data or binary_data_output)";
    let not_utf8 = AlignedBuffer::copied(b"\x01\0\0\0\xff");
    let one = Shape::new(&[1]).unwrap();
    let half = AlignedBuffer::copied(&[0, 0]);
    let cases = [
        (
            Dtype::Fp32,
            AlignedBuffer::copied(&f32::NAN.to_le_bytes()),
            "holds NaN, which has no form in JSON",
        ),
        (
            Dtype::Fp64,
            AlignedBuffer::copied(&f64::NEG_INFINITY.to_le_bytes()),
            "holds an infinity, which has no form in JSON",
        ),
        (
            Dtype::Fp16,
            half.clone(),
            "is FP16, which has no form in JSON",
        ),
        (Dtype::Bf16, half, "is BF16, which has no form in JSON"),
        (
            Dtype::Bytes,
            not_utf8,
            "holds text that is not UTF-8 as element 0",
        ),
    ];
    for (dtype, data, what) in cases {
        let signature = signature(&[("y", dtype, 1)]);
        let outputs = [Tensor::new(dtype, one, data).unwrap()];
        let failure = render(&view(&signature, &outputs, &[plain(0)])).unwrap_err();
        let message = format!("output 'y' {what}: {remedy}");
        assert_eq!(failure, Failure::new(ErrorCode::Unsupported, message));
        let binary = [WantedOutput {
            binary: true,
            ..plain(0)
        }];
        assert_eq!(
            render(&view(&signature, &outputs, &binary)).unwrap().bodies[0],
            outputs[0].data()
        );
    }
}

#[test]
fn a_failure_is_a_sentence_and_a_code() {
    let failure = Failure::new(ErrorCode::ModelNotFound, "no model \"x\"\n");
    assert_eq!(
        text(&render_failure(&failure)),
        r#"{"error":"no model \"x\"\n","code":"MODEL_NOT_FOUND"}"#
    );
}

#[test]
fn classification_gives_the_highest_of_each_row() {
    let signature = signature(&[("p", Dtype::Fp32, 2), ("n", Dtype::Int8, 2)]);
    let counts = Tensor::new(
        Dtype::Int8,
        Shape::new(&[2, 4]).unwrap(),
        Bytes::from_static(&[255, 5, 5, 0, 1, 2, 3, 4]),
    );
    let outputs = [
        floats(2, &[0.25, f32::NAN, 0.5, 0.25, 1., 2., 3., 4.]),
        counts.unwrap(),
    ];
    let wanted = |classes| {
        [0, 1].map(|position| WantedOutput {
            classes: Some(classes),
            ..plain(position)
        })
    };
    let rendered = render(&view(&signature, &outputs, &wanted(3))).unwrap();
    assert_eq!(
        text(&rendered.head),
        r#"{"model_name":"m","model_version":"3","outputs":[{"name":"p","datatype":"BYTES","shape":[2,3],"data":["0.500000:2","0.250000:0","0.250000:3","4.000000:3","3.000000:2","2.000000:1"]},{"name":"n","datatype":"BYTES","shape":[2,3],"data":["5:1","5:2","0:3","4:3","3:2","2:1"]}]}"#
    );
    let all = render(&view(&signature, &outputs, &wanted(usize::MAX))).unwrap();
    assert!(
        text(&all.head)
            .contains(r#""shape":[2,4],"data":["0.500000:2","0.250000:0","0.250000:3","NaN:1","#)
    );
}

/// A tensor of any type and small shape; floats are finite, since JSON holds no others.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dims = prop::collection::vec(0u64..5, 0..4);
    (0..Dtype::ALL.len(), 1u64..5, dims, any::<u64>()).prop_map(|(dtype, rows, inner, seed)| {
        let dtype = Dtype::ALL[dtype];
        let shape = Shape::new(&[&[rows], &inner[..]].concat()).unwrap();
        let mut draw = Draw(seed);
        let mut data = AlignedBuffer::with_capacity(0);
        for _ in 0..shape.elements() {
            let bits = draw.next();
            match dtype {
                Dtype::Bool => data.extend(&[bits as u8 & 1]),
                Dtype::Bytes => {
                    let length = bits as usize % 12;
                    data.extend(&(length as u32).to_le_bytes());
                    // Quotes, backslashes and controls among them.
                    data.extend(
                        &(0..length)
                            .map(|_| draw.next() as u8 & 0x7f)
                            .collect::<Vec<_>>(),
                    );
                }
                Dtype::Fp16 => data.extend(&(bits as u16 & 0xbfff).to_le_bytes()),
                Dtype::Bf16 => data.extend(&(bits as u16 & 0xbfff).to_le_bytes()),
                Dtype::Fp32 => data.extend(&(bits as u32 & 0xbfff_ffff).to_le_bytes()),
                Dtype::Fp64 => data.extend(&(bits & 0xbfff_ffff_ffff_ffff).to_le_bytes()),
                _ => data.extend(&bits.to_le_bytes()[..dtype.element_bytes().unwrap()]),
            }
        }
        Tensor::new(dtype, shape, data.freeze()).unwrap()
    })
}

/// The body of an answer, made into a request for the same tensors.
fn echoed(rendered: &Rendered) -> (Bytes, Option<usize>) {
    let answer = text(&rendered.head);
    let outputs = &answer[answer.find(r#""outputs":"#).unwrap() + 10..];
    let json = format!(r#"{{"parameters":{{"binary_data_output":true}},"inputs":{outputs}"#);
    let mut body = json.clone().into_bytes();
    rendered
        .bodies
        .iter()
        .for_each(|bytes| body.extend_from_slice(bytes));
    (body.into(), rendered.json_bytes.map(|_| json.len()))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(first in any_tensor(), second in any_tensor(), binary in any::<[bool; 2]>()) {
        let tensors = [first, second.clone()];
        let specs = [("a", &tensors[0]), ("b", &tensors[1])]
            .map(|(name, tensor)| (name, tensor.dtype(), tensor.shape().dims().len()));
        let signature = signature(&specs);
        let formless = |dtype| matches!(dtype, Dtype::Fp16 | Dtype::Bf16);
        // The second first: the order of a request is not the signature's.
        let wanted = [1, 0].map(|position| {
            let binary = binary[position] || formless(tensors[position].dtype());
            WantedOutput { position, binary, classes: None }
        });
        let rendered = render(&view(&signature, &tensors, &wanted)).unwrap();
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&rendered.head).is_ok());
        let (body, json_bytes) = echoed(&rendered);
        let result = parse(&body, json_bytes, &signature, ParseOptions::default());
        if tensors[0].rows() == tensors[1].rows() {
            prop_assert_eq!(&result.unwrap().inputs[..], &tensors[..]);
        } else {
            prop_assert_eq!(result.unwrap_err().code, ErrorCode::InputShape);
        }
    }
}

/// Splitmix64 (Steele, Lea, Flood, 2014): mutations that repeat.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[test]
fn mutated_bodies_are_read_or_refused_and_never_panic() {
    const PIECES: [&str; 16] = [
        "[",
        "]",
        "{",
        "}",
        ",",
        "\"",
        "0",
        "-1",
        "1e999",
        "null",
        "\\ud800",
        "18446744073709551615",
        "\"data\":",
        "\"shape\":[1000000000,1000000000]",
        "\"binary_data_size\":9",
        "NaN",
    ];
    let signature = signature(&[
        ("a", Dtype::Fp32, 2),
        ("b", Dtype::Bytes, 2),
        ("c", Dtype::Int32, 1),
    ]);
    let json = r#"{"id":"1","parameters":{"timeout":1000,"priority":1},"inputs":[{"name":"a","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e2,4]]},{"data":["x","\u00e9"],"name":"b","shape":[2,1],"datatype":"BYTES"},{"name":"c","shape":[2],"datatype":"INT32","parameters":{"binary_data_size":8}}],"outputs":[{"name":"a","parameters":{"classification":1,"binary_data":true}}]}"#;
    let mut draw = Draw(2024);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let mut body = json.as_bytes().to_vec();
        for _ in 0..if round == 0 { 0 } else { 1 + draw.below(3) } {
            let at = draw.below(body.len());
            match draw.below(5) {
                0 => body.truncate(at.max(1)),
                1 => body[at] = draw.next() as u8,
                2 => body[at] ^= 1 << draw.below(8),
                3 if body.len() > 1 => drop(body.remove(at)),
                _ => drop(body.splice(at..at, PIECES[draw.below(PIECES.len())].bytes())),
            }
        }
        let given = match draw.below(20) {
            0 => None,
            1 => Some(draw.below(body.len() + 20)),
            _ => Some(body.len()),
        };
        body.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        match parse(&body.into(), given, &signature, ParseOptions::default()) {
            Ok(parsed) => {
                good += 1;
                assert_eq!(parsed.inputs.len(), 3);
                assert!(
                    parsed
                        .inputs
                        .iter()
                        .all(|tensor| tensor.rows() == parsed.rows())
                );
                assert!(render(&view(&signature, &parsed.inputs, &parsed.outputs)).is_ok());
            }
            Err(failure) => {
                bad += 1;
                assert!(failure.code.http_status() < 500, "{failure:?}");
                assert!(failure.message.len() < 1000, "{failure:?}");
            }
        }
    }
    assert!(good > 500 && bad > 10_000, "{good} read, {bad} refused");
}

#[test]
fn hostile_claims_cost_no_more_than_the_body() {
    let signature = signature(&[("a", Dtype::Fp64, 2)]);
    let read = |body: String| parse(&body.into(), None, &signature, ParseOptions::default());
    let claim =
        r#"{"inputs":[{"name":"a","shape":[1,1000000000],"datatype":"FP64","data":[1,2]}]}"#;
    assert_eq!(
        read(claim.into()).unwrap_err().message,
        "input 'a': shape [1,1000000000] needs 1000000000 values, its data has 2"
    );
    let many = format!(
        r#"{{"inputs":[{{"name":"a","shape":[1,2],"datatype":"FP64","data":[{}1]}}]}}"#,
        "1,".repeat(2_000_000)
    );
    assert_eq!(
        read(many).unwrap_err().message,
        "input 'a': shape [1,2] needs 2 values, its data has 2000001"
    );
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(8 << 20));
    assert_eq!(
        read(long).unwrap_err().message,
        "the id has 8388608 bytes; allowed: at most 1024"
    );
    let digits = format!(
        r#"{{"inputs":[{{"name":"a","shape":[1,1],"datatype":"FP64","data":[0.{}1]}}]}}"#,
        "0".repeat(4 << 20)
    );
    assert_eq!(read(digits).unwrap().inputs[0].data()[..], [0; 8]);
}
