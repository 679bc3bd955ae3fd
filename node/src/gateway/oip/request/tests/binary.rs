//! Tensors behind the JSON, raw bodies, and values that are not finite.

use super::*;

#[test]
fn binary_inputs_follow_the_json_in_its_order_without_a_copy() {
    let json = r#"{"inputs":[{"name":"b","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":6}},{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"outputs":[{"name":"p"}]}"#;
    let data = [
        &b"\x02\0\0\0hi"[..],
        &1f32.to_le_bytes(),
        &2f32.to_le_bytes(),
    ]
    .concat();
    let (body, json_bytes) = with_binary(json, &data);
    let parsed = parse(&body, json_bytes, &two(), ParseOptions::default()).unwrap();
    assert_eq!(floats(&parsed.inputs[0]), [1., 2.]);
    assert_eq!(parsed.inputs[1].byte_strings().collect::<Vec<_>>(), [b"hi"]);
    assert_eq!(
        parsed.inputs[0].data().as_ptr(),
        body[json.len() + 6..].as_ptr()
    );

    let mixed = json.replace(r#""parameters":{"binary_data_size":6}"#, r#""data":["hi"]"#);
    let (body, json_bytes) = with_binary(&mixed, &data[6..]);
    assert_eq!(
        parse(&body, json_bytes, &two(), ParseOptions::default())
            .unwrap()
            .inputs,
        parsed.inputs
    );
}

#[test]
fn binary_lengths_must_add_up() {
    let signature = one(Dtype::Fp32, &[-1]);
    let head = |bytes: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"FP32","parameters":{{"binary_data_size":{bytes}}}}}]}}"#
        )
    };
    let read = |bytes: &str, data: &[u8]| {
        let (body, json_bytes) = with_binary(&head(bytes), data);
        parse(&body, json_bytes, &signature, ParseOptions::default())
    };
    assert!(read("8", &[0; 8]).is_ok());
    for &(bytes, length, code, message) in LENGTHS {
        let failure = read(bytes, &vec![0; length]).unwrap_err();
        assert_eq!(failure, Failure::new(code, message));
    }
    let body = Bytes::from(head("8"));
    let over = parse(
        &body,
        Some(body.len() + 1),
        &signature,
        ParseOptions::default(),
    );
    let message = format!(
        "inference header size should be in range (0, {}), got: {}",
        body.len(),
        body.len() + 1
    );
    assert_eq!(
        over.unwrap_err(),
        Failure::new(ErrorCode::BinaryInvalid, message)
    );
    let unsaid = parse(&body, None, &signature, ParseOptions::default()).unwrap_err();
    let message =
        "input 'x' has binary_data_size, which needs the header Inference-Header-Content-Length";
    assert_eq!(unsaid, Failure::new(ErrorCode::BinaryInvalid, message));
}

#[test]
fn a_raw_body_is_the_one_input() {
    let raw = |body: &[u8], signature: &Signature| {
        parse(
            &Bytes::copy_from_slice(body),
            Some(0),
            signature,
            ParseOptions::default(),
        )
    };
    let cases: [(Dtype, &[i64], usize, &[u64]); 6] = [
        (Dtype::Fp32, &[-1, 4], 32, &[2, 4]),
        (Dtype::Fp32, &[-1, -1], 32, &[1, 8]),
        (Dtype::Fp32, &[-1, 2, -1], 32, &[1, 2, 4]),
        (Dtype::Uint8, &[1, 3], 3, &[1, 3]),
        (Dtype::Bytes, &[-1], 5, &[1]),
        (Dtype::Bytes, &[-1, 1], 0, &[1, 1]),
    ];
    for (dtype, dims, bytes, shape) in cases {
        let body = vec![0; bytes];
        let parsed = raw(&body, &one(dtype, dims)).unwrap();
        assert_eq!(parsed.inputs[0].shape().dims(), shape, "{dims:?}");
        assert!(parsed.outputs.iter().all(|output| output.binary));
        if dtype == Dtype::Bytes {
            assert_eq!(
                parsed.inputs[0].byte_strings().collect::<Vec<_>>(),
                [&body[..]]
            );
        }
    }
    let refused = [
        (
            raw(&[0; 6], &one(Dtype::Fp32, &[-1])),
            ErrorCode::InputValues,
            "the raw body has 6 bytes, which is no whole number of FP32 values",
        ),
        (
            raw(&[0; 8], &one(Dtype::Fp32, &[-1, 4])),
            ErrorCode::InputShape,
            "the raw body holds 2 values of FP32, which do not fill shape [-1,4] of input 'x'",
        ),
        (
            raw(&[0; 8], &one(Dtype::Fp32, &[-1, -1, -1])),
            ErrorCode::InputShape,
            "the shape [-1,-1,-1] of input 'x' cannot be inferred from a raw body: send the request with JSON before the tensor",
        ),
        (
            raw(&[], &one(Dtype::Fp32, &[-1, 4])),
            ErrorCode::InputShape,
            "input 'x' has shape [0,4]: its first dimension counts rows and is at least 1",
        ),
        (
            raw(&[], &two()),
            ErrorCode::BinaryInvalid,
            "a raw request (Inference-Header-Content-Length: 0) is for models with one input; this one has 2",
        ),
        (
            raw(&f32::NAN.to_le_bytes(), &one(Dtype::Fp32, &[-1])),
            ErrorCode::InputNotFinite,
            "element 0 of input 'x' is NaN, and this model takes finite values only",
        ),
    ];
    for (result, code, message) in refused {
        assert_eq!(result.unwrap_err(), Failure::new(code, message));
    }
}

#[test]
fn the_first_value_that_is_not_finite_is_named() {
    let cases: [(Dtype, Vec<u8>, Vec<u8>, &str); 4] = [
        (
            Dtype::Fp16,
            vec![0xff, 0x7b],
            vec![0x00, 0xfc],
            "an infinity",
        ),
        (Dtype::Bf16, vec![0x7f, 0x7f], vec![0x81, 0x7f], "NaN"),
        (
            Dtype::Fp32,
            f32::MAX.to_le_bytes().into(),
            f32::NEG_INFINITY.to_le_bytes().into(),
            "an infinity",
        ),
        (
            Dtype::Fp64,
            f64::MIN.to_le_bytes().into(),
            f64::NAN.to_le_bytes().into(),
            "NaN",
        ),
    ];
    for (dtype, fine, bad, kind) in cases {
        for at in [0, 255, 256, 700] {
            let mut data = fine.repeat(at);
            data.extend_from_slice(&bad);
            data.extend_from_slice(&bad);
            let json = format!(
                r#"{{"inputs":[{{"name":"x","shape":[{}],"datatype":"{dtype}","parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
                at + 2,
                data.len()
            );
            let (body, json_bytes) = with_binary(&json, &data);
            let signature = one(dtype, &[-1]);
            let failure =
                parse(&body, json_bytes, &signature, ParseOptions::default()).unwrap_err();
            let message = format!(
                "element {at} of input 'x' is {kind}, and this model takes finite values only"
            );
            assert_eq!(failure, Failure::new(ErrorCode::InputNotFinite, message));
            let lenient = ParseOptions {
                finite_inputs: false,
            };
            assert!(parse(&body, json_bytes, &signature, lenient).is_ok());
        }
    }
}

const LENGTHS: &[(&str, usize, ErrorCode, &str)] = &[
    (
        "8",
        7,
        ErrorCode::BinaryInvalid,
        "the inputs' binary_data_size add up to 8 bytes; 7 bytes follow the JSON",
    ),
    (
        "8",
        9,
        ErrorCode::BinaryInvalid,
        "the inputs' binary_data_size add up to 8 bytes; 9 bytes follow the JSON",
    ),
    (
        "18446744073709551615",
        8,
        ErrorCode::BinaryInvalid,
        "the inputs' binary_data_size add up to 18446744073709551615 bytes; 8 bytes follow the JSON",
    ),
    (
        "7",
        7,
        ErrorCode::InputValues,
        "input 'x': shape [2] of FP32 needs 8 bytes, got 7",
    ),
    (
        "-1",
        7,
        ErrorCode::ParameterInvalid,
        "parameter 'binary_data_size' is -1; allowed: a number of bytes from 0",
    ),
    (
        "\"8\"",
        8,
        ErrorCode::ParameterInvalid,
        "parameter 'binary_data_size' is '8'; allowed: a number of bytes from 0",
    ),
    (
        "[8]",
        8,
        ErrorCode::ParameterInvalid,
        "parameter 'binary_data_size' is an array; allowed: a string, a number, true or false",
    ),
];
