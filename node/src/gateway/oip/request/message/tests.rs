//! Messages as another encoder writes them, hostile ones, and what each of those is told.

use std::collections::HashMap;

use paceline_protocol::{Criticality, Dim, ShapePattern, TensorSpec};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::gateway::grpc::proto::inference::infer_parameter::ParameterChoice;
use crate::gateway::grpc::proto::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use crate::gateway::grpc::proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest,
};
use crate::gateway::oip::wire;
use crate::threads::Threads;

fn signature(dtype: Dtype) -> Signature {
    let spec = |name: &str, dtype| TensorSpec {
        name: name.into(),
        dtype,
        shape: ShapePattern(vec![Dim::Any, Dim::Any]),
    };
    Signature {
        inputs: vec![spec("x", dtype)],
        outputs: vec![spec("y", Dtype::Fp32), spec("z", Dtype::Bytes)],
    }
}

fn request(datatype: &str, shape: [i64; 2], contents: InferTensorContents) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.into(),
            parameters: HashMap::new(),
            contents: Some(contents),
        }],
        ..ModelInferRequest::default()
    }
}

fn raw(datatype: &str, shape: [i64; 2], data: &[u8]) -> ModelInferRequest {
    ModelInferRequest {
        raw_input_contents: vec![data.to_vec()],
        ..request(datatype, shape, InferTensorContents::default())
    }
}

fn body(request: &ModelInferRequest) -> Bytes {
    request.encode_to_vec().into()
}

fn parsed(body: &Bytes, dtype: Dtype) -> Result<ParsedRequest, Failure> {
    let options = ParseOptions {
        finite_inputs: false,
    };
    Message::read(body)?.parse(&signature(dtype), options)
}

/// Code and sentence of the one failure.
fn refused(request: &ModelInferRequest, dtype: Dtype) -> (ErrorCode, String) {
    let failure = parsed(&body(request), dtype).unwrap_err();
    (failure.code, failure.message.into_owned())
}

fn parameter(name: &str, choice: ParameterChoice) -> (String, InferParameter) {
    let parameter_choice = Some(choice);
    (name.to_owned(), InferParameter { parameter_choice })
}

fn typed(dtype: Dtype) -> (InferTensorContents, Vec<u8>) {
    let mut contents = InferTensorContents::default();
    let data: Vec<u8> = match dtype {
        Dtype::Bool => {
            contents.bool_contents = vec![true, false];
            vec![1, 0]
        }
        Dtype::Int8 | Dtype::Int16 | Dtype::Int32 => {
            contents.int_contents = vec![-3, 100];
            let size = dtype.element_bytes().unwrap();
            let bytes = |value: i32| value.to_le_bytes()[..size].to_vec();
            [bytes(-3), bytes(100)].concat()
        }
        Dtype::Int64 => {
            contents.int64_contents = vec![i64::MIN, 7];
            [i64::MIN.to_le_bytes(), 7i64.to_le_bytes()].concat()
        }
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 => {
            contents.uint_contents = vec![200, 1];
            let size = dtype.element_bytes().unwrap();
            let bytes = |value: u32| value.to_le_bytes()[..size].to_vec();
            [bytes(200), bytes(1)].concat()
        }
        Dtype::Uint64 => {
            contents.uint64_contents = vec![u64::MAX, 0];
            [u64::MAX.to_le_bytes(), [0; 8]].concat()
        }
        Dtype::Fp32 => {
            contents.fp32_contents = vec![1.5, f32::NAN];
            [1.5f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat()
        }
        Dtype::Fp64 => {
            contents.fp64_contents = vec![-0.0, 1e300];
            [(-0.0f64).to_le_bytes(), 1e300f64.to_le_bytes()].concat()
        }
        Dtype::Bytes => {
            contents.bytes_contents = vec![b"ab".to_vec(), Vec::new()];
            [&2u32.to_le_bytes()[..], b"ab", &0u32.to_le_bytes()].concat()
        }
        Dtype::Fp16 | Dtype::Bf16 => unreachable!("they have no contents"),
    };
    (contents, data)
}

#[test]
fn what_is_decoded_has_room_among_bodies_for_as_long_as_its_tensor_lives() {
    let options = ParseOptions {
        finite_inputs: false,
    };
    let integers = InferTensorContents {
        int64_contents: vec![1; 4_096],
        ..InferTensorContents::default()
    };
    // Four KiB, and 32 once they are read.
    let body = body(&request("INT64", [1, 4_096], integers));
    assert!(body.len() < 5_000);
    let parse = |bodies: &Bodies| {
        let mut message = Message::read(&body)?;
        message.counted(bodies);
        message.parse(&signature(Dtype::Int64), options)
    };
    let code = |refused: Result<ParsedRequest, Failure>| refused.unwrap_err().code;
    let bodies = Bodies::new(63 << 10, Threads::Own);
    let first = parse(&bodies).unwrap();
    assert_eq!(code(parse(&bodies)), ErrorCode::Overloaded);
    let tensor = first.inputs[0].clone();
    drop(first);
    assert_eq!(code(parse(&bodies)), ErrorCode::Overloaded);
    assert_eq!(tensor.data().len(), 32 << 10);
    drop(tensor);
    parse(&bodies).unwrap();
    // Floats in one field stay where they are.
    let floats = InferTensorContents {
        fp32_contents: vec![1.0; 4_096],
        ..InferTensorContents::default()
    };
    let body = self::body(&request("FP32", [1, 4_096], floats));
    let mut message = Message::read(&body).unwrap();
    let none = Bodies::new(0, Threads::Own);
    message.counted(&none);
    message.parse(&signature(Dtype::Fp32), options).unwrap();
}

#[test]
fn every_datatype_is_read_typed_and_raw() {
    for dtype in Dtype::ALL {
        if matches!(dtype, Dtype::Fp16 | Dtype::Bf16) {
            let contents = InferTensorContents {
                fp32_contents: vec![1.0, 2.0],
                ..InferTensorContents::default()
            };
            let (code, said) = refused(&request(dtype.name(), [1, 2], contents), dtype);
            assert_eq!(code, ErrorCode::InputDtype);
            assert!(said.contains("raw_input_contents"), "{said}");
            let halves = body(&raw(dtype.name(), [1, 2], &[0, 60, 0, 64]));
            assert_eq!(parsed(&halves, dtype).unwrap().inputs[0].rows(), 1);
            continue;
        }
        let (contents, data) = typed(dtype);
        let typed = body(&request(dtype.name(), [2, 1], contents));
        let read = parsed(&typed, dtype).unwrap();
        assert_eq!(read.inputs[0].data()[..], data, "{dtype}");
        assert_eq!(read.inputs[0].shape().dims(), [2, 1]);
        let raw = body(&raw(dtype.name(), [2, 1], &data));
        assert_eq!(parsed(&raw, dtype).unwrap().inputs, read.inputs, "{dtype}");
    }
}

#[test]
fn raw_values_and_packed_floats_are_slices_of_the_body() {
    let data = [1, 2, 3, 4].map(|value| value as f32);
    let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let contents = InferTensorContents {
        fp32_contents: data.into(),
        ..InferTensorContents::default()
    };
    for body in [
        body(&raw("FP32", [2, 2], &bytes)),
        body(&request("FP32", [2, 2], contents)),
    ] {
        let read = parsed(&body, Dtype::Fp32).unwrap();
        let values = read.inputs[0].data();
        assert_eq!(values[..], bytes);
        assert!(body.as_ptr_range().contains(&values.as_ptr()));
    }
}

/// Encoders pack values in one field; the language allows several, and values one by one.
#[test]
fn values_in_several_fields_are_put_together() {
    let mut contents = Vec::new();
    wire::bytes(&mut contents, 6, &1f32.to_le_bytes());
    wire::bytes(&mut contents, 6, &2f32.to_le_bytes());
    wire::varint(&mut contents, 6 << 3 | 5);
    contents.extend(3f32.to_le_bytes());
    let mut input = Vec::new();
    wire::bytes(&mut input, 1, b"x");
    wire::bytes(&mut input, 2, b"FP32");
    wire::number(&mut input, 3, 3);
    wire::bytes(&mut input, 3, &[1]);
    wire::bytes(&mut input, 5, &contents);
    let mut whole = Vec::new();
    wire::bytes(&mut whole, 1, b"m");
    wire::bytes(&mut whole, 5, &input);
    let read = parsed(&whole.into(), Dtype::Fp32).unwrap();
    let mut values = Vec::new();
    assert!(read.inputs[0].extend_f32(&mut values));
    assert_eq!(values, [1.0, 2.0, 3.0]);
    assert_eq!(read.inputs[0].shape().dims(), [3, 1]);
}

fn ints(values: &[i32]) -> InferTensorContents {
    InferTensorContents {
        int_contents: values.into(),
        ..InferTensorContents::default()
    }
}

fn assert_refused(cases: impl IntoIterator<Item = (ModelInferRequest, ErrorCode, &'static str)>) {
    for (request, code, words) in cases {
        let said = refused(&request, Dtype::Fp32);
        assert_eq!(said.0, code, "{}", said.1);
        assert!(
            said.1.contains(words),
            "{words:?} is missing in: {}",
            said.1
        );
    }
}

#[test]
fn inputs_that_do_not_fit_the_model_are_told_so() {
    let contents = || typed(Dtype::Fp32).0;
    let mut mixed = raw("FP32", [1, 2], &[0; 8]);
    mixed.inputs[0].contents = Some(contents());
    let mut two_raw = raw("FP32", [1, 2], &[0; 8]);
    two_raw.raw_input_contents.push(Vec::new());
    let mut nine = request("FP32", [1, 2], contents());
    nine.inputs[0].shape = vec![1; 9];
    let mut unknown = request("FP32", [1, 2], contents());
    unknown.inputs[0].name = "w".into();
    let mut twice = request("FP32", [1, 2], contents());
    twice.inputs.push(twice.inputs[0].clone());
    let mut none = request("FP32", [1, 2], contents());
    none.inputs.clear();
    let odd = request("FP31", [1, 2], contents());
    let other = request("INT8", [1, 2], ints(&[1, 2]));
    let negative = request("FP32", [-1, 2], contents());
    let huge = request("FP32", [i64::MAX, i64::MAX], contents());
    let empty = raw("FP32", [0, 2], &[]);
    assert_refused([
        (mixed, ErrorCode::MessageInvalid, "either, for all inputs"),
        (two_raw, ErrorCode::MessageInvalid, "2 entries for 1 inputs"),
        (nine, ErrorCode::InputShape, "has 9"),
        (unknown, ErrorCode::InputUnknown, "'w' is not an input"),
        (twice, ErrorCode::InputUnknown, "stands twice"),
        (none, ErrorCode::InputMissing, "lacks 'x'"),
        (odd, ErrorCode::InputDtype, "'FP31' is not a datatype"),
        (other, ErrorCode::InputDtype, "the model takes FP32"),
        (negative, ErrorCode::InputShape, "dimension 0 is -1"),
        (huge, ErrorCode::InputShape, "more elements"),
        (empty, ErrorCode::InputShape, "at least 1"),
    ]);
}

#[test]
fn values_that_do_not_fit_their_input_are_told_so() {
    let too_large = request("INT8", [1, 2], ints(&[1, 128]));
    let too_few = request("FP32", [1, 3], typed(Dtype::Fp32).0);
    let too_many = request("INT32", [1, 1], ints(&[1, 2]));
    let elsewhere = request("INT64", [1, 1], ints(&[1]));
    let cut = raw("FP32", [1, 2], &[0; 7]);
    let code = ErrorCode::InputValues;
    assert_refused([
        (too_large, code, "element 1 of input 'x' is 128, no INT8"),
        (too_few, code, "needs 12 bytes, got 8"),
        (too_many, code, "there are more"),
        (
            elsewhere,
            code,
            "has int_contents; INT64 takes int64_contents",
        ),
        (cut, code, "got 7"),
    ]);
}

#[test]
fn parameters_are_those_of_json() {
    let mut asked = raw("FP32", [1, 2], &[0; 8]);
    asked.id = "seven".into();
    asked.parameters = HashMap::from([
        parameter("timeout", ParameterChoice::Int64Param(5_000)),
        parameter("priority", ParameterChoice::Uint64Param(3)),
        parameter("sequence_id", ParameterChoice::StringParam("s".into())),
        parameter("idempotent", ParameterChoice::BoolParam(false)),
        parameter("weight", ParameterChoice::DoubleParam(0.5)),
        parameter(
            "triton_enable_empty_final_response",
            ParameterChoice::BoolParam(true),
        ),
    ]);
    let whole = body(&asked);
    let mut message = Message::read(&whole).unwrap();
    assert_eq!((message.model(), message.version()), ("m", None));
    message.within(Duration::from_millis(9));
    assert_eq!(message.parameters().timeout_us, Some(5_000));
    message.within(Duration::from_millis(1));
    let read = message.parse(&signature(Dtype::Fp32), ParseOptions::default());
    let read = read.unwrap();
    assert_eq!(read.id.as_deref(), Some("seven"));
    assert_eq!(read.parameters.timeout_us, Some(1_000));
    assert_eq!(read.parameters.criticality(), Criticality::of_priority(3));
    assert_eq!(read.parameters.sequence.unwrap().as_str(), "s");
    assert_eq!(read.parameters.idempotent, Some(false));
    assert_eq!(read.parameters.others.len(), 2);
}

#[test]
fn parameters_that_cannot_be_are_refused_by_name() {
    let one = |name: &str, parameter_choice| {
        let mut asked = raw("FP32", [1, 2], &[0; 8]);
        asked
            .parameters
            .insert(name.into(), InferParameter { parameter_choice });
        refused(&asked, Dtype::Fp32).1
    };
    let text = |bytes| Some(ParameterChoice::StringParam("x".repeat(bytes)));
    let cases = [
        one("timeout", text(1)),
        one("timeout", Some(ParameterChoice::Int64Param(-1))),
        one("weight", Some(ParameterChoice::DoubleParam(f64::INFINITY))),
        one("note", text(4_097)),
        one("nothing", None),
    ];
    for (said, words) in cases.iter().zip(["'x'", "-1", "inf", "4097", "no value"]) {
        assert!(said.contains(words), "{words:?} is missing in: {said}");
    }
    let mut many = raw("FP32", [1, 2], &[0; 8]);
    let choice = || ParameterChoice::BoolParam(true);
    many.parameters = (0..65)
        .map(|at| parameter(&at.to_string(), choice()))
        .collect();
    assert!(
        refused(&many, Dtype::Fp32)
            .1
            .contains("more than 64 parameters")
    );

    let mut entry = Vec::new();
    wire::bytes(&mut entry, 1, b"a");
    wire::bytes(&mut entry, 2, &[8, 1]);
    let mut twice = raw("FP32", [1, 2], &[0; 8]).encode_to_vec();
    wire::bytes(&mut twice, 4, &entry);
    wire::bytes(&mut twice, 4, &entry);
    let failure = parsed(&twice.into(), Dtype::Fp32).unwrap_err();
    assert!(failure.message.contains("'a' stands twice"), "{failure}");

    let mut wrong = raw("FP32", [1, 2], &[0; 8]);
    wrong.id = "seven".into();
    let negative = ParameterChoice::Int64Param(-1);
    wrong.parameters = HashMap::from([parameter("timeout", negative)]);
    let wrong = body(&wrong);
    assert!(Message::read(&wrong).is_err());
    assert_eq!(Message::id_in(&wrong), "seven");
    assert_eq!(Message::id_in(b"no message"), "");

    let mut long = raw("FP32", [1, 2], &[0; 8]);
    long.id = "x".repeat(ID_BYTES_MAX + 1);
    assert!(refused(&long, Dtype::Fp32).1.contains("1025 bytes"));
    let region = || HashMap::from([parameter("shared_memory_region", choice())]);
    let mut shared = raw("FP32", [1, 2], &[0; 8]);
    shared.inputs[0].parameters = region();
    assert!(refused(&shared, Dtype::Fp32).1.contains("shared memory"));
    let mut shared = raw("FP32", [1, 2], &[0; 8]);
    let (name, parameters) = ("y".into(), region());
    shared.outputs = vec![InferRequestedOutputTensor { name, parameters }];
    assert!(refused(&shared, Dtype::Fp32).1.contains("outputs[0]"));
}

#[test]
fn outputs_are_those_that_are_named() {
    let wants = |names: &[(&str, i64)]| {
        let mut asked = raw("FP32", [1, 2], &[0; 8]);
        let outputs = names.iter().map(|(name, classes)| {
            let classes = ParameterChoice::Int64Param(*classes);
            InferRequestedOutputTensor {
                name: (*name).into(),
                parameters: HashMap::from([parameter("classification", classes)]),
            }
        });
        asked.outputs = outputs.collect();
        let read = parsed(&body(&asked), Dtype::Fp32);
        read.map(|read| read.outputs)
            .map_err(|failure| failure.code)
    };
    let wanted = |position, classes| WantedOutput {
        position,
        binary: true,
        classes,
    };
    assert_eq!(wants(&[]), Ok(vec![wanted(0, None), wanted(1, None)]));
    assert_eq!(wants(&[("y", 3)]), Ok(vec![wanted(0, Some(3))]));
    assert_eq!(wants(&[("y", 0)]), Err(ErrorCode::ParameterInvalid));
    assert_eq!(
        wants(&[("z", 1)]),
        Err(ErrorCode::ParameterInvalid),
        "it is text"
    );
    assert_eq!(wants(&[("w", 1)]), Err(ErrorCode::OutputUnknown));
    assert_eq!(wants(&[("y", 1), ("y", 1)]), Err(ErrorCode::OutputUnknown));
}

#[test]
fn nothing_is_taken_in_numbers_that_no_model_has() {
    let fields: [(u32, &[u8], &str); 3] = [
        (5, b"\x0a\x01x\x12\x04FP32", "inputs"),
        (6, b"\x0a\x01y", "outputs"),
        (7, b"", "raw_input_contents"),
    ];
    for (field, one, name) in fields {
        let mut many = Vec::new();
        (0..=TENSORS_MAX).for_each(|_| wire::bytes(&mut many, field, one));
        let failure = parsed(&many.into(), Dtype::Fp32).unwrap_err();
        assert_eq!(failure.code, ErrorCode::MessageInvalid);
        assert!(failure.message.contains(name), "{failure}");
    }
    // A field inside a field inside a field costs one step each: what nobody asks for is skipped.
    let mut deep = Vec::new();
    for _ in 0..1_000 {
        let inner = std::mem::take(&mut deep);
        wire::bytes(&mut deep, 99, &inner);
    }
    assert!(Message::read(&deep.into()).is_ok());
}

fn valid() -> impl Strategy<Value = ModelInferRequest> {
    let values = proptest::collection::vec(any::<i32>(), 0..20);
    (values, any::<bool>(), ".{0,10}", -2i64..30).prop_map(|(values, is_raw, name, rows)| {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let contents = InferTensorContents {
            int_contents: values,
            ..InferTensorContents::default()
        };
        let mut request = match is_raw {
            true => raw("INT32", [rows, 1], &bytes),
            false => request("INT32", [rows, 1], contents),
        };
        let value = ParameterChoice::StringParam(name.clone());
        request.parameters = HashMap::from([parameter(&name, value)]);
        request
    })
}

proptest! {
    #[test]
    fn what_fits_is_read_and_nothing_else(asked in valid()) {
        let count = asked.inputs[0].contents.as_ref().unwrap().int_contents.len();
        let count = count + asked.raw_input_contents.iter().map(Vec::len).sum::<usize>() / 4;
        let fits = count > 0 && asked.inputs[0].shape[0] == count as i64;
        let read = parsed(&body(&asked), Dtype::Int32);
        let is_named = !asked.parameters.keys().any(|name| name == "timeout");
        prop_assert_eq!(read.is_ok(), fits && is_named, "{:?}", read);
    }

    /// Cut, flipped or prolonged, a message is read or refused: nothing panics, and what is read
    /// holds no more than eight times its bytes.
    #[test]
    fn whatever_comes_is_read_or_refused(
        asked in valid(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = asked.encode_to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for bytes in [bytes[..cut.index(bytes.len())].to_vec(), bytes] {
            let body = Bytes::from(bytes);
            if let Ok(read) = parsed(&body, Dtype::Int32) {
                let held: usize = read.inputs.iter().map(|input| input.data().len()).sum();
                prop_assert!(held <= 8 * body.len());
            }
        }
    }
}
