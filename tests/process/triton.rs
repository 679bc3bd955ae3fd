//! What clients of Triton ask beyond inference: configuration, statistics, the repository, and what
//! is honestly not there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bad_input::{assert_refused, case};
use crate::counting::{Counting, STEP};
use crate::http::{Connection, Request};
use crate::node::{Node, directory, example};
use crate::tensors::{HeldOut, digits, identity};

#[test]
fn a_configuration_leaves_the_rows_to_the_batcher() {
    let node = Node::shared();
    let digits = node.get("/v2/models/digits/config").ok();
    assert_eq!(digits["name"], "digits");
    assert_eq!(digits["max_batch_size"], 256);
    let pixels = json!([{"name": "pixels", "data_type": "TYPE_FP32", "dims": [64]}]);
    assert_eq!(digits["input"], pixels);
    let label = json!({"name": "label", "data_type": "TYPE_STRING", "dims": [1]});
    assert_eq!(digits["output"][1], label);
    assert_eq!(
        digits["version_policy"],
        json!({"specific": {"versions": [1]}})
    );
    assert_eq!(
        digits["model_transaction_policy"],
        json!({"decoupled": false})
    );
    assert_eq!(digits["instance_group"][0]["kind"], "KIND_CPU");
    assert_eq!(node.get("/v2/models/digits/versions/1/config").ok(), digits);
    let identity = node.get("/v2/models/identity/config").ok();
    assert_eq!(identity["input"][0]["dims"], json!([-1]));
}

#[test]
fn only_what_works_is_advertised() {
    let server = Node::shared().get("/v2").ok();
    let mut extensions: Vec<&str> = server["extensions"]
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect())
        .expect("names");
    extensions.sort_unstable();
    assert_eq!(
        extensions,
        [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "model_repository",
            "model_repository(unload_dependents)",
            "schedule_policy",
            "statistics",
        ]
    );
}

/// A tool that benchmarks sees its own requests between two looks, batch by batch.
#[test]
fn statistics_advance_with_each_request() {
    let home = directory();
    let node = Node::demo(home.path());
    let one = |path: &str| node.get(path).ok()["model_stats"][0].clone();
    let before = one("/v2/models/digits/stats");
    assert_eq!(
        (&before["name"], &before["version"]),
        (&json!("digits"), &json!("1"))
    );
    assert_eq!(
        (&before["inference_count"], &before["last_inference"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(before["batch_stats"], json!([]));
    let pixels = HeldOut::of("digits").values;
    let mut connection = node.connect();
    for rows in [1, 1, 3] {
        connection.ask(&digits(&pixels[..rows]).request()).ok();
    }
    let narrow = identity(&[vec![1.0]]).json().to_string();
    assert_eq!(node.post("/v2/models/digits/infer", narrow).status, 400);

    let after = one("/v2/models/digits/versions/1/stats");
    assert_eq!(
        (&after["inference_count"], &after["execution_count"]),
        (&json!(5), &json!(3))
    );
    let stats = &after["inference_stats"];
    let durations = [
        ("success", 3),
        ("fail", 1),
        ("queue", 3),
        ("compute_input", 3),
        ("compute_infer", 3),
        ("compute_output", 3),
        ("cache_hit", 0),
        ("cache_miss", 0),
    ];
    for (name, count) in durations {
        assert_eq!(stats[name]["count"], count, "{name}: {stats}");
        assert!(stats[name]["ns"].is_u64(), "{name}: {stats}");
    }
    assert!(stats["success"]["ns"].as_u64() >= stats["compute_infer"]["ns"].as_u64());
    let sizes: Vec<_> = after["batch_stats"]
        .as_array()
        .expect("batches")
        .iter()
        .map(|batch| {
            (
                batch["batch_size"].clone(),
                batch["compute_infer"]["count"].clone(),
            )
        })
        .collect();
    assert_eq!(sizes, [(json!(1), json!(2)), (json!(3), json!(1))]);
    assert!(
        after["memory_usage"][0]["byte_size"].as_u64() > Some(1_000),
        "{after}"
    );
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("it is later")
        .as_millis();
    let last = u128::from(after["last_inference"].as_u64().expect("a moment"));
    assert!(
        (now - 60_000..=now).contains(&last),
        "{last} is not shortly before {now}"
    );

    let all = node.get("/v2/models/stats").ok();
    let names = all["model_stats"].as_array().expect("versions").iter();
    let names: Vec<_> = names.map(|version| version["name"].clone()).collect();
    assert_eq!(names, ["digits", "identity", "machine-failure"]);
}

/// Times are of requests that were answered: those that are refused after they were read, and those
/// of which a part has run, are counted as failures only.
#[test]
fn times_of_requests_that_fail_are_among_no_others() {
    let node = Counting::start(Duration::from_millis(1));
    let ask = |rows: u64, timeout_us: u64| {
        let body = steps(rows, timeout_us);
        Connection::open(node.http).ask(&Request::post("/v2/models/steps/infer", body))
    };
    let stats = || {
        let all = Connection::open(node.http).ask(&Request::get("/v2/models/steps/stats"));
        all.ok()["model_stats"][0]["inference_stats"].clone()
    };
    for _ in 0..5 {
        assert_eq!(
            ask(1, 1).failure().0,
            "DEADLINE_EXCEEDED",
            "it is read, and late"
        );
    }
    // Two batches, of which one may run.
    node.allow(1);
    let late = ask(2 * STEP, 400_000);
    assert_eq!(late.failure().0, "DEADLINE_EXCEEDED");
    assert_eq!(node.rows(), 2 * STEP, "both were begun");
    let failed = stats();
    assert_eq!(failed["fail"]["count"], 6);
    assert!(
        failed["fail"]["ns"].as_u64() > Some(400_000_000),
        "{failed}"
    );
    let answered = [
        "success",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
    ];
    for name in answered {
        assert_eq!(failed[name], json!({"count": 0, "ns": 0}), "{name}");
    }
    node.open();
    ask(2 * STEP, 20_000_000).ok();
    let after = stats();
    for name in answered {
        assert_eq!(after[name]["count"], 1, "{name}");
        assert!(after[name]["ns"].as_u64() > Some(0), "{name}: {after}");
    }
    assert_eq!(after["fail"], failed["fail"]);
}

/// A request of so many rows, which can be told from those of a warm-up.
fn steps(rows: u64, timeout_us: u64) -> String {
    let data = vec![1.0; 2 * rows as usize];
    let input = json!({"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": data});
    json!({"parameters": {"timeout": timeout_us}, "inputs": [input]}).to_string()
}

#[test]
fn a_model_is_unloaded_and_loaded_again() {
    let home = directory();
    let node = Node::demo(home.path());
    let index = |body: &str| node.post("/v2/repository/index", body).ok();
    let state = |name: &str| {
        let index = index("");
        let models = index.as_array().expect("an array");
        let found = models.iter().find(|version| version["name"] == name);
        found.expect("it is listed").clone()
    };
    let ready = |name| json!({"name": name, "version": "1", "state": "READY", "reason": ""});
    let names = ["digits", "identity", "machine-failure"];
    assert_eq!(index(""), json!(names.map(ready)));
    assert_eq!(
        node.post("/v2/repository/any/index", "{}").ok(),
        index(r#"{"ready":true}"#)
    );

    let dependents = r#"{"parameters":{"unload_dependents":true}}"#;
    let unloaded = node.post("/v2/repository/models/digits/unload", dependents);
    assert_eq!((unloaded.status, &unloaded.body[..]), (200, &b""[..]));
    let pixels = HeldOut::of("digits").values;
    let infer = || node.ask(&digits(&pixels[..1]).request());
    assert_eq!(infer().failure().0, "MODEL_NOT_READY");
    node.wait_for("/v2/paceline/models/digits", |model| {
        model["replicas"] == json!([])
    });
    let resting =
        json!({"name": "digits", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"});
    assert_eq!(state("digits"), resting);
    assert_eq!(index(r#"{"ready":true}"#).as_array().map(Vec::len), Some(2));
    assert_eq!(node.get("/v2/models/digits/ready").status, 503);

    let loaded = node.post("/v2/repository/models/digits/load", "{}");
    assert_eq!(
        (loaded.status, &loaded.body[..]),
        (200, &b""[..]),
        "{}",
        loaded.text()
    );
    assert_eq!(infer().status, 200, "it is ready when that is said");
    assert_eq!(state("digits"), ready("digits"));
    let again = node.post("/v2/repository/models/digits/load", "");
    assert_eq!(again.status, 200, "it is loaded already");

    // What was never deployed is loaded by its newest version.
    let folder = example("identity");
    let folder = folder.to_str().expect("the path is text");
    node.cli_json(&["model", "push", "mine", folder]);
    assert_eq!(state("mine")["state"], "UNAVAILABLE");
    assert_eq!(node.post("/v2/repository/models/mine/load", "").status, 200);
    assert_eq!(node.get("/v2/models/mine/ready").status, 200);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table, a row a case")]
fn what_cannot_be_is_refused_with_a_sentence() {
    let node = Node::shared();
    let unsupported = (501, "UNSUPPORTED");
    let config = r#"{"parameters":{"config":"{}","file:1/model.onnx":"AA=="}}"#;
    let wrong = r#"{"parameters":{"colour":1}}"#;
    let post = |path: &str, body: &str| Request::post(path, body);
    let cases = [
        case(
            post("/v2/repository/models/digits/load", config),
            unsupported,
            &["'config'", "model push"],
        ),
        case(
            post("/v2/repository/models/digits/load", wrong),
            (400, "PARAMETER_INVALID"),
            &["colour"],
        ),
        case(
            post("/v2/repository/models/digits/unload", "[]"),
            (400, "JSON_INVALID"),
            &["object"],
        ),
        case(
            post("/v2/repository/models/nope/load", ""),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            post("/v2/repository/models/nope/unload", ""),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            post("/v2/repository/index", r#"{"ready":1}"#),
            (400, "JSON_INVALID"),
            &["true or false"],
        ),
        case(
            post("/v2/systemsharedmemory/region/r/register", "{}"),
            unsupported,
            &["shared memory"],
        ),
        case(
            post("/v2/cudasharedmemory/region/r/register", "{}"),
            unsupported,
            &["shared memory"],
        ),
        case(post("/v2/trace/setting", "{}"), unsupported, &["trace"]),
        case(post("/v2/logging", "{}"), unsupported, &["log.filter"]),
        case(
            Request::get("/v2/models/nope/config"),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            Request::get("/v2/models/digits/versions/7/config"),
            (404, "VERSION_NOT_FOUND"),
            &["\"7\""],
        ),
        case(
            Request::get("/v2/models/nope/stats"),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            Request::get("/v2/models/nope/trace/setting"),
            (404, "MODEL_NOT_FOUND"),
            &["nope"],
        ),
        case(
            Request::get("/v2/repository/index"),
            (405, "METHOD_NOT_ALLOWED"),
            &["POST"],
        ),
        case(
            post("/v2/models/digits/config", ""),
            (405, "METHOD_NOT_ALLOWED"),
            &["GET"],
        ),
        case(
            Request::get("/v2/repository/nothing"),
            (404, "NOT_FOUND"),
            &["path"],
        ),
    ];
    for case in cases {
        assert_refused(node, &case, &node.ask(&case.request));
    }
}

#[test]
fn what_is_not_there_can_be_asked_about() {
    let node = Node::shared();
    for kind in ["system", "cuda"] {
        for region in ["", "/region/r"] {
            let status = node.get(&format!("/v2/{kind}sharedmemory{region}/status"));
            assert_eq!(status.ok(), json!([]));
            let path = format!("/v2/{kind}sharedmemory{region}/unregister");
            assert_eq!(node.post(&path, "").status, 200, "{path}");
        }
    }
    let trace = json!({
        "trace_level": ["OFF"],
        "trace_rate": "1000",
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_file": "",
    });
    assert_eq!(node.get("/v2/trace/setting").ok(), trace);
    assert_eq!(node.get("/v2/models/digits/trace/setting").ok(), trace);
    let logging = node.get("/v2/logging").ok();
    assert_eq!(
        (&logging["log_info"], &logging["log_verbose_level"]),
        (&json!(true), &json!(0))
    );
}
