//! Requests that cannot be answered: each gets the status, the code and the words that say what
//! was wrong and what is allowed; the node counts them and goes on.

use std::collections::BTreeMap;

use serde_json::json;

use crate::http::{Answer, Request};
use crate::metrics::{self, Sample};
use crate::node::{Node, directory};
use crate::tensors::machine_failure;

/// A request and its refusal.
pub(crate) struct Case {
    pub(crate) request: Request,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// What the sentence must contain.
    pub(crate) words: &'static [&'static str],
}

const PATH: &str = "/v2/models/machine-failure/infer";
const GOOD: &str = r#"{"inputs":[{"name":"features","shape":[1,8],"datatype":"FP32","data":[1,0,0,302.3,311.5,1282,60.7,216]}]}"#;
const ROW: [f32; 8] = [1.0, 0.0, 0.0, 302.3, 311.5, 1282.0, 60.7, 216.0];

pub(crate) fn case(
    request: Request,
    (status, code): (u16, &'static str),
    words: &'static [&'static str],
) -> Case {
    Case {
        request,
        status,
        code,
        words,
    }
}

/// A good body with one part replaced.
fn instead(old: &str, new: &str) -> Request {
    assert!(GOOD.contains(old), "{old}");
    Request::post(PATH, GOOD.replace(old, new))
}

/// Asserts that a refusal is the one wanted, and that it gives nothing away.
pub(crate) fn assert_refused(node: &Node, case: &Case, answer: &Answer) {
    let (code, message) = answer.failure();
    let request = String::from_utf8_lossy(&case.request.body);
    let request: String = request.chars().take(200).collect();
    let seen = format!(
        "{} {request}\n{}: {code}: {message}",
        case.request.path, answer.status
    );
    assert_eq!(
        (answer.status, code.as_str()),
        (case.status, case.code),
        "{seen}"
    );
    for word in case.words {
        assert!(message.contains(word), "{word:?} is missing: {seen}");
    }
    let data = node.data.to_str().expect("temporary paths are text");
    let secrets = [
        data,
        "127.0.0.1",
        "/tmp",
        "/home",
        "src/",
        "::",
        "Some(",
        "Err(",
        "panicked",
    ];
    for secret in secrets {
        assert!(
            !message.contains(secret),
            "{secret:?} is given away: {seen}"
        );
    }
    assert!(message.len() < 600, "{seen}");
}

fn documents() -> Vec<Case> {
    let json = (400, "JSON_INVALID");
    let deep = format!("{}1{}", "{\"x\":".repeat(100), "}".repeat(100));
    let twice = GOOD.replace(r#"{"name""#, r#"{"name":"features","name""#);
    let post = |body: &str| Request::post(PATH, body);
    vec![
        case(post(""), json, &["request object", "byte 0"]),
        case(post("{"), json, &["key in quotes", "the end"]),
        case(post("[]"), json, &["request object", "'['"]),
        case(post("{}"), json, &["'inputs'"]),
        case(Request::post(PATH, b"\xff\xfe".to_vec()), json, &["0xff"]),
        case(
            Request::post(PATH, b"{\"a\":\"\xff\"}".to_vec()),
            json,
            &["UTF-8", "byte 6"],
        ),
        case(post(&format!("{GOOD}x")), json, &["end of the JSON", "'x'"]),
        case(post(r#"{"a":"\ud800"}"#), json, &["surrogate"]),
        case(post(r#"{"a":"\x"}"#), json, &["escape"]),
        case(post("{\"a\":\"\n\"}"), json, &["control character"]),
        case(post(r#"{"a":01}"#), json, &["leading 0"]),
        case(post(r#"{"a":1e}"#), json, &["number"]),
        case(post(r#"{"a":1,}"#), json, &["key in quotes"]),
        case(
            post(r#"{"inputs":[],"inputs":[]}"#),
            json,
            &["'inputs'", "twice"],
        ),
        case(post(&twice), json, &["'name'", "twice"]),
        case(post(&deep), json, &["deeper than 32"]),
        case(instead("216", "NaN"), json, &["NaN", "binary"]),
        case(instead("216", "-Infinity"), json, &["Infinity", "binary"]),
        case(instead("[1,8]", "1"), json, &["shape", "array"]),
        case(
            instead(r#","data":[1,0,0,302.3,311.5,1282,60.7,216]"#, ""),
            json,
            &["'data'"],
        ),
        case(instead(r#""name":"features","#, ""), json, &["'name'"]),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table, a row a case")]
fn tensors() -> Vec<Case> {
    let (shape, values) = ((400, "INPUT_SHAPE"), (400, "INPUT_VALUES"));
    let (dtype, unknown) = ((400, "INPUT_DTYPE"), (400, "INPUT_UNKNOWN"));
    let twice = GOOD.replace("]}]}", "]},").to_owned() + &GOOD[r#"{"inputs":["#.len()..];
    let empty = r#"{"inputs":[]}"#;
    let nested = format!("{}1{}", "[".repeat(30), "]".repeat(30));
    vec![
        case(
            instead("FP32", "FP64"),
            dtype,
            &["'features'", "FP64", "FP32"],
        ),
        case(instead("FP32", "FP31"), dtype, &["FP31", "BF16", "BYTES"]),
        case(
            instead("features", "feature"),
            unknown,
            &["'feature'", "'features'"],
        ),
        case(
            Request::post(PATH, twice),
            unknown,
            &["'features'", "twice"],
        ),
        case(
            Request::post(PATH, empty),
            (400, "INPUT_MISSING"),
            &["lacks 'features'"],
        ),
        case(
            instead("[1,8]", "[1,9]"),
            shape,
            &["'features'", "[1,9]", "[-1,8]"],
        ),
        case(instead("[1,8]", "[8]"), shape, &["[8]", "[-1,8]"]),
        case(instead("[1,8]", "[]"), shape, &["[-1,8]"]),
        case(
            instead("[1,8]", "[-1,8]"),
            shape,
            &["dimension 0 is -1", "0 or more"],
        ),
        case(
            instead("[1,8]", "[1.5,8]"),
            shape,
            &["'1.5'", "whole numbers"],
        ),
        case(
            instead("[1,8]", "[1,8,1,1,1,1,1,1,1]"),
            shape,
            &["at most 8", "has 9"],
        ),
        case(
            instead("[1,8]", "[18446744073709551615,8]"),
            shape,
            &["more elements"],
        ),
        case(
            instead("[1,8]", "[18446744073709551616,8]"),
            shape,
            &["18446744073709551615"],
        ),
        case(
            instead("[1,8]", "[4294967296,4294967296]"),
            shape,
            &["more elements"],
        ),
        case(
            instead("[1,8]", "[1000000000000,8]"),
            values,
            &["8000000000000 values", "has 8"],
        ),
        case(
            instead("[1,8]", "[2,8]"),
            values,
            &["[2,8]", "16 values", "has 8"],
        ),
        case(
            instead("216", "1e39"),
            values,
            &["element 7", "1e39", "3.4028235e38"],
        ),
        case(instead("216", "\"a\""), values, &["element 7", "a string"]),
        case(instead("216", "null"), values, &["element 7", "null"]),
        case(instead("216", &nested), values, &["element 7", "array"]),
        case(
            Request::post(
                PATH,
                GOOD.replace("[1,8]", "[0,8]")
                    .replace("[1,0,0,302.3,311.5,1282,60.7,216]", "[]"),
            ),
            shape,
            &["[0,8]", "at least 1"],
        ),
    ]
}

fn parameters() -> Vec<Case> {
    let invalid = (400, "PARAMETER_INVALID");
    let with = |more: &str| instead("}]}", &format!("}}],{more}}}"));
    let long = format!(r#""id":"{}""#, "x".repeat(1025));
    let many: Vec<_> = (0..65).map(|number| format!("\"p{number}\":1")).collect();
    let many = format!(r#""parameters":{{{}}}"#, many.join(","));
    let shared = r#""outputs":[{"name":"label","parameters":{"shared_memory_region":"r"}}]"#;
    vec![
        case(
            with(r#""outputs":[{"name":"x"}]"#),
            (400, "OUTPUT_UNKNOWN"),
            &["'x'", "'label'"],
        ),
        case(
            with(r#""parameters":{"timeout":-1}"#),
            invalid,
            &["'timeout' is -1", "600000000"],
        ),
        case(
            with(r#""parameters":{"timeout":9223372036854775808}"#),
            invalid,
            &["600000000"],
        ),
        case(
            with(r#""parameters":{"priority":"high"}"#),
            invalid,
            &["'priority'", "'high'"],
        ),
        case(
            with(r#""parameters":{"binary_data_output":1}"#),
            invalid,
            &["true or false"],
        ),
        case(
            with(r#""parameters":{"a":[]}"#),
            invalid,
            &["'a' is an array"],
        ),
        case(with(&many), invalid, &["more than 64"]),
        case(with(&long), invalid, &["1025 bytes", "at most 1024"]),
        case(with(shared), (400, "PARAMETER_INVALID"), &["shared memory"]),
        // No answer takes less than a microsecond.
        case(
            with(r#""parameters":{"timeout":1}"#),
            (504, "DEADLINE_EXCEEDED"),
            &["budget"],
        ),
    ]
}

fn binary() -> Vec<Case> {
    let (invalid, finite) = ((400, "BINARY_INVALID"), (400, "INPUT_NOT_FINITE"));
    const LENGTH: &str = "Inference-Header-Content-Length";
    let good = || machine_failure(&[ROW.to_vec()]).binary_request(&json!({}));
    let cut = || {
        let mut request = good();
        request.body.truncate(request.body.len() - 12);
        request
    };
    let length_is = |length: &str| {
        let mut request = good();
        request.headers = vec![(LENGTH.to_owned(), length.to_owned())];
        request
    };
    let last_is = |value: f32| {
        let mut row = ROW.to_vec();
        row[7] = value;
        machine_failure(&[row]).binary_request(&json!({}))
    };
    let claims = |size: &str| {
        let body = GOOD.replace(
            r#""data":[1,0,0,302.3,311.5,1282,60.7,216]"#,
            &format!(r#""parameters":{{"binary_data_size":{size}}}"#),
        );
        Request::post(PATH, body.clone()).header(LENGTH, body.len())
    };
    let raw = Request::post(PATH, machine_failure(&[ROW[..7].to_vec()]).bytes());
    let odd = Request::post(PATH, vec![0; 31]).header(LENGTH, 0);
    let mut headless = good();
    headless.headers.clear();
    headless.body.truncate(headless.body.len() - 32);
    vec![
        case(cut(), invalid, &["add up to 32", "20 bytes follow"]),
        case(length_is("100000"), invalid, &["range", "got: 100000"]),
        case(length_is("-1"), invalid, &[LENGTH, "number"]),
        case(
            length_is("18446744073709551616"),
            invalid,
            &[LENGTH, "number"],
        ),
        case(
            claims("18446744073709551615"),
            invalid,
            &["18446744073709551615", "0 bytes follow"],
        ),
        case(
            claims("-1"),
            (400, "PARAMETER_INVALID"),
            &["'binary_data_size' is -1"],
        ),
        case(headless, invalid, &["'features'", LENGTH]),
        case(
            raw.header(LENGTH, 0),
            (400, "INPUT_SHAPE"),
            &["7 values", "[-1,8]"],
        ),
        case(odd, (400, "INPUT_VALUES"), &["31 bytes", "FP32"]),
        case(
            last_is(f32::NAN),
            finite,
            &["element 7", "'features'", "NaN"],
        ),
        case(last_is(f32::INFINITY), finite, &["element 7", "infinity"]),
    ]
}

fn addresses() -> Vec<Case> {
    let to = |path: &str| Request::post(path, GOOD);
    let (model, version) = ((404, "MODEL_NOT_FOUND"), (404, "VERSION_NOT_FOUND"));
    let long = format!("/v2/models/{}/infer", "a".repeat(300));
    let encoded = |coding: &str| to(PATH).header("Content-Encoding", coding);
    vec![
        case(to("/v2/models/nope/infer"), model, &["\"nope\""]),
        case(to("/v2/models/../infer"), model, &["no model"]),
        case(to("/v2/models/%2e%2e%2f/infer"), model, &["no model"]),
        case(to("/v2/models/a%00b/infer"), model, &["no model"]),
        case(to(&long), model, &["no model"]),
        case(
            to("/v2/models/machine-failure/versions/2/infer"),
            version,
            &["\"2\"", ": 1"],
        ),
        case(
            to("/v2/models/machine-failure/versions/v1/infer"),
            version,
            &["\"v1\"", ": 1"],
        ),
        case(
            to("/v2/models/machine-failure/versions/-1/infer"),
            version,
            &["\"-1\""],
        ),
        case(encoded("br"), (501, "UNSUPPORTED"), &["gzip, deflate"]),
        case(
            encoded("gzip"),
            (400, "BINARY_INVALID"),
            &["Content-Encoding"],
        ),
    ]
}

#[test]
fn every_bad_request_is_refused_by_name_and_counted() {
    let home = directory();
    let node = Node::demo(home.path());
    let cases = [documents(), tensors(), parameters(), binary(), addresses()];
    let mut wanted: BTreeMap<&str, f64> = BTreeMap::new();
    let mut connection = node.connect();
    for case in cases.iter().flatten() {
        assert_refused(&node, case, &connection.ask(&case.request));
        *wanted.entry(case.code).or_default() += 1.0;
    }
    let refused: f64 = wanted.values().sum();
    assert!(refused >= 70.0, "{refused} requests are too few");
    assert!(wanted.len() >= 14, "{wanted:?}");
    let probability = &connection.ask(&Request::post(PATH, GOOD)).ok()["outputs"][0]["data"][0];
    assert!(
        (probability.as_f64().unwrap() - 0.977).abs() < 1e-3,
        "{probability}"
    );

    let samples = metrics::samples(&node.scrape());
    let mut counted: BTreeMap<&str, f64> = BTreeMap::new();
    let requests = |sample: &&Sample| sample.name == "paceline_gateway_requests_total";
    for sample in samples
        .iter()
        .filter(requests)
        .filter(|sample| sample.value > 0.0)
    {
        *counted.entry(sample.label("code").unwrap()).or_default() += sample.value;
    }
    wanted.insert("OK", 1.0);
    assert_eq!(counted, wanted);
}

#[test]
fn other_paths_methods_and_pages_are_refused() {
    let node = Node::shared();
    let request = |method, path: &str| Request::new(method, path, Vec::new());
    let (absent, foreign) = ((404, "NOT_FOUND"), (403, "HOST_REFUSED"));
    let mut connection = node.connect();
    let paths = [
        "/",
        "/v1",
        "/v3",
        "/v2/health",
        "/v2/models/",
        "/v2/models/digits/infer/x",
    ];
    for path in paths
        .into_iter()
        .chain(["/v2/paceline/x", "/v2/paceline/models/a/b/c", "/metrics"])
    {
        let case = case(request("GET", path), absent, &["nothing answers"]);
        assert_refused(node, &case, &connection.ask(&case.request));
    }
    let methods = [
        ("GET", PATH, "POST"),
        ("DELETE", PATH, "POST"),
        ("HEAD", PATH, "POST"),
        ("POST", "/v2", "GET"),
        ("PUT", "/v2/health/ready", "GET"),
        ("DELETE", "/v2/models/digits", "GET"),
        ("PATCH", "/v2/paceline/status", "GET"),
        ("POST", "/v2/paceline/models/digits", "DELETE"),
        ("GET", "/v2/paceline/models/digits/deploy", "POST"),
    ];
    for (method, path, allowed) in methods {
        let answer = connection.ask(&request(method, path));
        assert_eq!(answer.status, 405, "{method} {path}");
        let named = answer.header("allow").unwrap_or_default();
        assert!(named.contains(allowed), "{method} {path}: Allow: {named}");
        if method != "HEAD" {
            assert_eq!(answer.failure().0, "METHOD_NOT_ALLOWED");
        }
    }
    for (name, value) in [
        ("Host", "example.com"),
        ("Host", "127.0.0.1.example.com"),
        ("Host", "10.0.0.1:8000"),
        ("Host", ""),
        ("Origin", "http://example.com"),
        ("Origin", "null"),
    ] {
        for path in ["/v2", "/v2/paceline/status", "/v2/models/digits"] {
            let case = case(
                request("GET", path).header(name, value),
                foreign,
                &["loopback"],
            );
            assert_refused(node, &case, &connection.ask(&case.request));
        }
    }
    let page = request("GET", "/v2").header("Origin", "http://localhost:3000");
    assert_eq!(connection.ask(&page).status, 200);
    let elsewhere = Request::get("/v2/models");
    let answer = crate::http::Connection::open(node.metrics).ask(&elsewhere);
    assert_eq!(
        answer.failure().0,
        "NOT_FOUND",
        "the metrics port has metrics only"
    );
}
