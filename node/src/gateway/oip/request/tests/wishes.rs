//! Requested outputs and parameters.

use paceline_protocol::traffic::Unit;

use super::*;

#[test]
fn outputs_are_chosen_ordered_and_given_a_form() {
    let wanted = |rest: &str| {
        let outputs = with_rest(rest).unwrap().outputs;
        outputs
            .iter()
            .map(|o| (o.position, o.binary, o.classes))
            .collect::<Vec<_>>()
    };
    assert_eq!(wanted(r#""outputs":[{"name":"p"}]"#), [(0, false, None)]);
    assert_eq!(
        wanted(
            r#""outputs":[{"name":"q","parameters":{"binary_data":true}},{"name":"p","parameters":{"classification":3}}]"#
        ),
        [(1, true, None), (0, false, Some(3))]
    );
    assert_eq!(
        wanted(r#""parameters":{"binary_data_output":true}"#),
        [(0, true, None), (1, true, None)]
    );
    assert_eq!(
        wanted(
            r#""outputs":[{"name":"p","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true}"#
        ),
        [(0, false, None)]
    );
    let cases = [
        (
            r#""outputs":[{"name":"r"}]"#,
            ErrorCode::OutputUnknown,
            "'r' is not an output of this model, which gives 'p', 'q'",
        ),
        (
            r#""outputs":[{"name":"p"},{"name":"p"}]"#,
            ErrorCode::OutputUnknown,
            "output 'p' is asked for twice",
        ),
        (
            r#""outputs":[{"name":"q"}]"#,
            ErrorCode::ParameterInvalid,
            "output 'q' is FP16, which has no form in JSON: ask for it with the parameter 'binary_data': true",
        ),
        (
            r#""outputs":[{"name":"q","parameters":{"classification":1}}]"#,
            ErrorCode::ParameterInvalid,
            "output 'q' is FP16; classification takes integers, FP32 and FP64",
        ),
        (
            r#""outputs":[{"name":"p","parameters":{"classification":0}}]"#,
            ErrorCode::ParameterInvalid,
            "parameter 'classification' is 0; allowed: a number of classes, at least 1",
        ),
        (
            r#""outputs":[{"name":"p","parameters":{"binary_data":1}}]"#,
            ErrorCode::ParameterInvalid,
            "parameter 'binary_data' is 1; allowed: true or false",
        ),
        (
            r#""outputs":[{"name":"p","parameters":{"shared_memory_region":"r"}}]"#,
            ErrorCode::ParameterInvalid,
            "outputs[0] asks for a shared memory region, which is not offered: send the values as JSON or as binary data",
        ),
    ];
    for (rest, code, message) in cases {
        assert_eq!(
            with_rest(rest).unwrap_err(),
            Failure::new(code, message),
            "{rest}"
        );
    }
}

#[test]
fn parameters_are_read_checked_and_passed_on() {
    let parsed = with_parameters(r#""timeout":1500,"priority":2,"sequence_id":7,"sequence_start":true,"sequence_end":false,"idempotent":false,"triton_enable_empty_final_response":true,"unit":"u1","big":18446744073709551615,"share":0.5,"low":-3"#).unwrap();
    assert_eq!(parsed.id.as_deref(), Some(""));
    let parameters = parsed.parameters;
    assert_eq!(
        (parameters.timeout_us, parameters.priority),
        (Some(1500), Some(2))
    );
    assert_eq!(parameters.sequence, Unit::new("7").ok());
    assert_eq!(
        (parameters.sequence_start, parameters.sequence_end),
        (true, false)
    );
    assert_eq!(parameters.idempotent, Some(false));
    let others = [
        (
            "triton_enable_empty_final_response",
            ParameterValue::Bool(true),
        ),
        ("unit", ParameterValue::Text("u1".into())),
        ("big", ParameterValue::Unsigned(u64::MAX)),
        ("share", ParameterValue::Number(0.5)),
        ("low", ParameterValue::Integer(-3)),
    ];
    assert_eq!(
        parameters.others,
        others.map(|(name, value)| (name.to_owned(), value))
    );

    let defaults = with_parameters(r#""timeout":0,"priority":0,"sequence_id":0"#)
        .unwrap()
        .parameters;
    assert_eq!(
        (defaults.timeout_us, defaults.priority, defaults.sequence),
        (None, None, None)
    );
    let text = with_parameters(r#""sequence_id":"s""#)
        .unwrap()
        .parameters
        .sequence;
    assert_eq!(text, Unit::new("s").ok());
}

#[test]
fn parameters_outside_what_is_allowed_are_named() {
    let timeout = "allowed: microseconds from 1 to 600000000, or 0 for the node's default";
    let cases = [
        (
            r#""timeout":9223372036854775808"#,
            format!("parameter 'timeout' is 9223372036854775808; {timeout}"),
        ),
        (
            r#""timeout":-1"#,
            format!("parameter 'timeout' is -1; {timeout}"),
        ),
        (
            r#""timeout":1.5"#,
            format!("parameter 'timeout' is 1.5; {timeout}"),
        ),
        (
            r#""timeout":600000001"#,
            format!("parameter 'timeout' is 600000001; {timeout}"),
        ),
        (
            r#""priority":"high""#,
            "parameter 'priority' is 'high'; allowed: 1 (most urgent) and up, or 0 for the usual"
                .into(),
        ),
        (
            r#""x":{}"#,
            "parameter 'x' is an object; allowed: a string, a number, true or false".into(),
        ),
        (
            r#""x":null"#,
            "parameter 'x' is null; allowed: a string, a number, true or false".into(),
        ),
        (
            r#""x":1e999"#,
            "parameter 'x' is '1e999', more than a 64-bit float holds".into(),
        ),
        (
            r#""sequence_id":-1"#,
            "parameter 'sequence_id' is -1; allowed: a whole number from 0, or a string".into(),
        ),
    ];
    for (parameters, message) in cases {
        assert_eq!(
            with_parameters(parameters).unwrap_err(),
            Failure::new(ErrorCode::ParameterInvalid, message)
        );
    }
    let many: Vec<_> = (0..PARAMETERS_MAX)
        .map(|n| format!(r#""p{n}":1"#))
        .collect();
    assert_eq!(
        with_parameters(&many.join(",")).unwrap_err().message,
        "more than 64 parameters in the request's parameters"
    );
    let long = "x".repeat(ID_BYTES_MAX + 1);
    let failure = with_rest(&format!(r#""id":"{long}""#)).unwrap_err();
    assert_eq!(
        failure.message,
        "the id has 1025 bytes; allowed: at most 1024"
    );
}

fn with_parameters(parameters: &str) -> Result<ParsedRequest, Failure> {
    with_rest(&format!(
        r#""id":"","parameters":{{"binary_data_output":true,{parameters}}}"#
    ))
}

fn with_rest(rest: &str) -> Result<ParsedRequest, Failure> {
    let inputs = r#"[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"b","shape":[1,1],"datatype":"BYTES","data":[""]}]"#;
    read(format!(r#"{{"inputs":{inputs},{rest}}}"#), &two())
}
