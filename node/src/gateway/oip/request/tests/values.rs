//! `data` in every form and datatype, and what does not fit.

use super::*;

#[test]
fn members_may_stand_in_any_order_and_nested_or_flat() {
    let signature = one(Dtype::Fp32, &[-1, 2]);
    let bodies = [
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3e0,4]}]}"#,
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,4.0]]}]}"#,
        r#"{"inputs":[{"data":[ [1 ,2.5] , [-3.0,4] ],"datatype":"FP32","shape":[2,2],"name":"x"}]}"#,
        r#" { "outputs" : [ ] , "inputs":[{"shape":[2,2],"data":[1,2.5,-3,4],"name":"x","datatype":"FP32","parameters":null}], "id":null, "parameters":null, "later":{"a":[1,{"b":null}]} } "#,
        r#"{"inputs":[{"name":"\u0078","shape":[2,2],"datatype":"FP32","parameters":{"content_type":"np"},"data":[1,2.5,-3,4]}]}"#,
    ];
    for body in bodies {
        let parsed = read(body, &signature).unwrap();
        assert_eq!(floats(&parsed.inputs[0]), [1., 2.5, -3., 4.], "{body}");
        assert_eq!(
            parsed.inputs[0].data().as_ptr().addr() % 64,
            0,
            "aligned for engines"
        );
        assert_eq!((parsed.rows(), parsed.id), (2, None));
        assert_eq!(
            parsed.outputs,
            [WantedOutput {
                position: 0,
                binary: false,
                classes: None
            }]
        );
        assert_eq!(parsed.parameters, RequestParameters::default());
    }
    let deep = read(
        input("INT8", "[1,2,1,2]", "[[[[1,-2]],[[3,4]]]]"),
        &one(Dtype::Int8, &[-1, -1, -1, -1]),
    );
    assert_eq!(deep.unwrap().inputs[0].data()[..], [1, 254, 3, 4]);
    let empty = read(
        input("FP32", "[2,0]", "[[],[]]"),
        &one(Dtype::Fp32, &[-1, -1]),
    )
    .unwrap();
    assert_eq!(empty.inputs[0].shape().dims(), [2, 0]);
}

#[test]
fn every_datatype_is_read_to_its_limits() {
    let cases: [(Dtype, &str, Vec<u8>); 12] = [
        (Dtype::Bool, "[true,false,1,0]", vec![1, 0, 1, 0]),
        (Dtype::Uint8, "[0,255]", vec![0, 255]),
        (Dtype::Int8, "[-128,127]", vec![128, 127]),
        (Dtype::Uint16, "[65535]", vec![255, 255]),
        (Dtype::Int16, "[-32768]", vec![0, 128]),
        (Dtype::Uint32, "[4294967295]", vec![255; 4]),
        (Dtype::Int32, "[-2147483648]", vec![0, 0, 0, 128]),
        (Dtype::Uint64, "[18446744073709551615]", vec![255; 8]),
        (
            Dtype::Int64,
            "[-9223372036854775808,-0]",
            [i64::MIN, 0].map(i64::to_le_bytes).concat(),
        ),
        (
            Dtype::Fp32,
            "[-0.0,0.1]",
            [-0.0, 0.1].map(f32::to_le_bytes).concat(),
        ),
        (
            Dtype::Fp64,
            "[0.1,1e308]",
            [0.1, 1e308].map(f64::to_le_bytes).concat(),
        ),
        (
            Dtype::Bytes,
            r#"["","é\n"]"#,
            b"\0\0\0\0\x03\0\0\0\xc3\xa9\n".to_vec(),
        ),
    ];
    for (dtype, data, bytes) in cases {
        let count = data.matches(',').count() + 1;
        let body = input(dtype.name(), &format!("[{count}]"), data);
        let parsed = read(body, &one(dtype, &[-1])).unwrap();
        assert_eq!(parsed.inputs[0].data()[..], bytes, "{dtype}");
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    for &(dtype, data, message) in MISFITS {
        let signature = one(dtype.parse().unwrap(), &[-1]);
        let failure = read(input(dtype, "[3]", data), &signature).unwrap_err();
        assert_eq!(failure, Failure::new(ErrorCode::InputValues, message));
        // The same sentence when `data` stands first and is read in a second pass.
        let body = format!(
            r#"{{"inputs":[{{"data":{data},"name":"x","shape":[3],"datatype":"{dtype}"}}]}}"#
        );
        assert_eq!(read(body, &signature).unwrap_err().message, message);
    }
    let nested = [
        (
            "[[1,2,3],[4]]",
            "input 'x': shape [2,2] wants 2 items in the array at byte 63, which has 3",
        ),
        (
            "[[1,2]]",
            "input 'x': shape [2,2] wants 2 items in the array at byte 62, which has 1",
        ),
        (
            "[[1,2],[3,4],[5,6]]",
            "input 'x': shape [2,2] wants 2 items in the array at byte 62, which has 3",
        ),
        (
            "[[1,2],3,4]",
            "expected an array of values at byte 69, found '3'",
        ),
    ];
    for (data, message) in nested {
        let failure = read(input("FP32", "[2,2]", data), &one(Dtype::Fp32, &[-1, 2])).unwrap_err();
        assert_eq!(failure.message, message, "{data}");
    }
    let halfway = read(
        input("FP32", "[1,1,2]", "[[1,2]]"),
        &one(Dtype::Fp32, &[-1, 1, 2]),
    );
    assert_eq!(
        halfway.unwrap_err().message,
        "input 'x': its data is nested 2 deep; shape [1,1,2] takes flat data or data nested 3 deep"
    );
}

const MISFITS: &[(&str, &str, &str)] = &[
    (
        "UINT8",
        "[1,2,256]",
        "element 2 of input 'x' is 256; UINT8 takes whole numbers from 0 to 255",
    ),
    (
        "INT8",
        "[1,-129,3]",
        "element 1 of input 'x' is -129; INT8 takes whole numbers from -128 to 127",
    ),
    (
        "UINT64",
        "[18446744073709551616,1,1]",
        "element 0 of input 'x' is 18446744073709551616; UINT64 takes whole numbers from 0 to 18446744073709551615",
    ),
    (
        "INT64",
        "[1,1,9223372036854775808]",
        "element 2 of input 'x' is 9223372036854775808; INT64 takes whole numbers from -9223372036854775808 to 9223372036854775807",
    ),
    (
        "INT32",
        "[1,1.5,1]",
        "element 1 of input 'x' is 1.5; INT32 takes whole numbers from -2147483648 to 2147483647",
    ),
    (
        "FP32",
        "[1,1e39,1]",
        "element 1 of input 'x' is 1e39; FP32 takes numbers from -3.4028235e38 to 3.4028235e38",
    ),
    (
        "FP32",
        "[1,\"NaN\",1]",
        "element 1 of input 'x' is a string; FP32 takes numbers from -3.4028235e38 to 3.4028235e38",
    ),
    (
        "FP64",
        "[null,1,1]",
        "element 0 of input 'x' is null; FP64 takes numbers from -1.7976931348623157e308 to 1.7976931348623157e308",
    ),
    (
        "FP32",
        "[1,[2],1]",
        "element 1 of input 'x' is an array; FP32 takes numbers from -3.4028235e38 to 3.4028235e38",
    ),
    (
        "BOOL",
        "[true,2,true]",
        "element 1 of input 'x' is 2; BOOL takes true, false, 0 or 1",
    ),
    (
        "BOOL",
        "[true,\"true\",true]",
        "element 1 of input 'x' is a string; BOOL takes true, false, 0 or 1",
    ),
    (
        "BYTES",
        "[\"a\",\"b\",3]",
        "element 2 of input 'x' is 3; BYTES takes strings",
    ),
    (
        "BYTES",
        "[\"a\",{},\"b\"]",
        "element 1 of input 'x' is an object; BYTES takes strings",
    ),
    (
        "FP32",
        "[1,2]",
        "input 'x': shape [3] needs 3 values, its data has 2",
    ),
    (
        "FP32",
        "[1,2,3,4,\"5\",[6]]",
        "input 'x': shape [3] needs 3 values, its data has 6",
    ),
    (
        "FP32",
        "[]",
        "input 'x': shape [3] needs 3 values, its data has 0",
    ),
    (
        "FP32",
        "[[1,2,3]]",
        "input 'x': its data is nested 2 deep; shape [3] takes flat data or data nested 1 deep",
    ),
];
