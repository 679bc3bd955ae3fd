//! The JSON around the values, and the inputs that it names.

use super::*;

#[test]
fn json_faults_are_told_apart_from_values() {
    let signature = one(Dtype::Fp32, &[-1]);
    for &(body, message) in BROKEN {
        assert_eq!(
            read(body, &signature).unwrap_err(),
            Failure::new(ErrorCode::JsonInvalid, message),
            "{body}"
        );
    }
    let deep = format!(r#"{{"x":{}"#, "[".repeat(10_000));
    let failure = read(deep, &signature).unwrap_err();
    assert_eq!(
        failure.message,
        "the JSON is nested deeper than 32 at byte 36"
    );
}

#[test]
fn inputs_are_checked_against_the_signature() {
    let fine = r#"{"name":"b","shape":[1,1],"datatype":"BYTES","data":["t"]}"#;
    let cases = [
        (format!(r#"[{{"name":"c"}},{fine}]"#), ErrorCode::InputUnknown, "'c' is not an input of this model, which takes 'a', 'b'"),
        (format!("[{fine}]"), ErrorCode::InputMissing, "the request lacks 'a'; the model takes 'a', 'b'"),
        ("[]".into(), ErrorCode::InputMissing, "the request lacks 'a', 'b'; the model takes 'a', 'b'"),
        (format!("[{fine},{fine}]"), ErrorCode::InputUnknown, "input 'b' stands twice in the request"),
        (r#"[{"name":"a","shape":[1,2],"datatype":"FP64","data":[1,2]}]"#.into(), ErrorCode::InputDtype, "input 'a' has datatype FP64, the model takes FP32"),
        (r#"[{"name":"a","shape":[1,2],"datatype":"float","data":[1,2]}]"#.into(), ErrorCode::InputDtype, "input 'a': 'float' is not a datatype; allowed: BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES"),
        (r#"[{"name":"a","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]"#.into(), ErrorCode::InputShape, "input 'a' has shape [1,3], the model takes [-1,2]"),
        (r#"[{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]}]"#.into(), ErrorCode::InputShape, "input 'a' has shape [2], the model takes [-1,2]"),
        (r#"[{"name":"a","shape":[-1,2],"datatype":"FP32","data":[1,2]}]"#.into(), ErrorCode::InputShape, "input 'a': dimension 0 is -1; the dimensions of a request are 0 or more"),
        (r#"[{"name":"a","shape":[1.5,2],"datatype":"FP32","data":[1,2]}]"#.into(), ErrorCode::InputShape, "input 'a': dimension 0 is '1.5'; allowed: whole numbers from 0 to 18446744073709551615"),
        (r#"[{"shape":[1,1,1,1,1,1,1,1,1,1]}]"#.into(), ErrorCode::InputShape, "inputs[0]: a tensor has at most 8 dimensions, this one has 10"),
        (r#"[{"name":"a","shape":[18446744073709551615,2]}]"#.into(), ErrorCode::InputShape, "input 'a': the shape [18446744073709551615, 2] has more elements than can be counted"),
        (format!(r#"[{{"name":"a","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}},{fine}]"#), ErrorCode::InputShape, "inputs differ in rows, their first dimension: 'a' has 2, 'b' has 1"),
        (r#"[{"name":"a","shape":[0,2],"datatype":"FP32","data":[]},{"name":"b","shape":[0,1],"datatype":"BYTES","data":[]}]"#.into(), ErrorCode::InputShape, "input 'a' has shape [0,2]: its first dimension counts rows and is at least 1"),
        (r#"[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]"#.into(), ErrorCode::ParameterInvalid, "input 'a' asks for a shared memory region, which is not offered: send the values as JSON or as binary data"),
    ];
    for (inputs, code, message) in cases {
        let failure = read(format!(r#"{{"inputs":{inputs}}}"#), &two()).unwrap_err();
        assert_eq!(failure, Failure::new(code, message), "{inputs}");
    }
    let rows = format!("[{}]", vec!["1"; 65_537].join(","));
    let failure = read(input("UINT8", "[65537]", &rows), &one(Dtype::Uint8, &[-1])).unwrap_err();
    let message = "input 'x' has 65537 rows; allowed: at most 65536 in one request";
    assert_eq!(failure, Failure::new(ErrorCode::TooLarge, message));
    let half = read(input("FP16", "[1]", "[1]"), &one(Dtype::Fp16, &[-1])).unwrap_err();
    let message = "input 'x': FP16 has no form in JSON, send it as binary data (binary_data_size)";
    assert_eq!(half, Failure::new(ErrorCode::InputDtype, message));
}

#[test]
fn text_of_the_request_is_shown_short_and_harmless() {
    let name = format!("\\u0007{}", "n".repeat(1000));
    let body = format!(r#"{{"inputs":[{{"name":"{name}"}}]}}"#);
    let message = read(body, &one(Dtype::Fp32, &[-1])).unwrap_err().message;
    assert!(
        message.starts_with("'\\u{7}nnn") && message.contains("n…' is not"),
        "{message}"
    );
    assert!(message.len() < 150, "{message}");
}

const BROKEN: &[(&str, &str)] = &[
    ("", "expected the request object at byte 0, found the end"),
    ("[]", "expected the request object at byte 0, found '['"),
    ("{}", "the request has no member 'inputs'"),
    (
        r#"{"inputs":null}"#,
        "expected an array of inputs at byte 10, found 'n'",
    ),
    (
        r#"{"inputs":[1]}"#,
        "expected an object that describes an input at byte 11, found '1'",
    ),
    (r#"{"inputs":[{}]}"#, "inputs[0] has no member 'name'"),
    (
        r#"{"inputs":[{"name":"x"}]}"#,
        "input 'x' has no member 'shape'",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1]}]}"#,
        "input 'x' has no member 'datatype'",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#,
        "input 'x' has neither 'data' nor the parameter 'binary_data_size'",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}}]}"#,
        "input 'x' has both 'data' and the parameter 'binary_data_size'",
    ),
    (
        r#"{"inputs":[{"name":"x","name":"x"}]}"#,
        "the key 'name' stands twice in input 'x'",
    ),
    (
        r#"{"inputs":[{"extra":1,"extra":2}]}"#,
        "the key 'extra' stands twice in inputs[0]",
    ),
    (
        r#"{"id":"1","id":"2","inputs":[]}"#,
        "the key 'id' stands twice in the request",
    ),
    (
        r#"{"zz":1,"\u007az":2}"#,
        "the key 'zz' stands twice in the request",
    ),
    (
        r#"{"parameters":{"a":1,"a":2}}"#,
        "the key 'a' stands twice in the request's parameters",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#,
        "JSON has no NaN or Infinity, send such values as binary data: byte 61",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[-Infinity]}]}"#,
        "JSON has no NaN or Infinity, send such values as binary data: byte 62",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[01]}]}"#,
        "expected no digit after a leading 0 at byte 62, found '1'",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1"#,
        "expected ',' or ']' at byte 62, found the end",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[,]}]}"#,
        "expected a number at byte 61, found ','",
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}x"#,
        "expected the end of the JSON at byte 66, found 'x'",
    ),
    (r#"{"id":7}"#, "expected a string at byte 6, found '7'"),
    (r#"{"outputs":[{}]}"#, "outputs[0] has no member 'name'"),
];
