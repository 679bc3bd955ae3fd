//! Answers in parts, over HTTP and the SDK: in order, as they are ready, at the client's pace; and
//! that a row which nobody waits for any more is not computed, by the engine's own count.

use std::time::{Duration, Instant};

use paceline_client::blocking::{Client, Inference, Parts};
use paceline_client::{ErrorCode, Execution, Part, Tensor};
use serde_json::{Value, json};

use crate::counting::{Counting, STEP, WIDE};
use crate::events::{Events, asking};
use crate::http::{Connection, Request};
use crate::node::{directory, paceline};

/// Parts that a node has under way for one stream.
const WINDOW: u64 = 4;
/// What a batch takes where its pace does not matter: too long for the task of its request.
const MOMENT: Duration = Duration::from_millis(2);
const STEPS: &str = "/v2/models/steps/infer";
const REQUESTS: &str = "paceline_gateway_requests_total";
const DROPPED: &str = "paceline_device_dropped_total";

/// Rows that can be told apart, and from those of a warm-up.
fn values(rows: u64) -> Vec<f32> {
    (0..rows).flat_map(|row| [row as f32 + 1.0, 0.5]).collect()
}

fn body(rows: u64) -> Value {
    let (name, shape, data) = ("x", [rows, 2], values(rows));
    json!({"inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": data}]})
}

fn client(node: &Counting) -> Client {
    let (seeds, options) = node.seed();
    Client::connect(seeds, options).expect("the node lets it in")
}

fn asked(client: &Client, model: &str, rows: u64) -> Inference {
    let rows = Tensor::from_f32(2, &values(rows));
    client.infer(model).input("x", rows)
}

fn y(part: &Part) -> &Tensor {
    part.output("y").expect("the model's output")
}

#[test]
fn parts_come_before_the_whole_is_done_and_make_up_the_same_answer() {
    let node = Counting::start(Duration::from_millis(50));
    let rows = 20 * STEP;
    let whole = Connection::open(node.http).ask(&Request::post(STEPS, body(rows).to_string()));
    let whole = whole.ok()["outputs"][0]["data"].clone();

    let began = Instant::now();
    let mut events = Events::open(node.http, &asking(STEPS, &body(rows)));
    let (mut first, mut data) = (None, Vec::new());
    for part in 0..20 {
        let (name, said) = events.next().expect("a part");
        first.get_or_insert(began.elapsed());
        assert_eq!(name, "");
        assert_eq!(said["parameters"]["first_row"], part * STEP);
        assert_eq!(said["outputs"][0]["shape"], json!([STEP, 2]));
        let part = said["outputs"][0]["data"].as_array().expect("numbers");
        data.extend(part.iter().cloned());
    }
    let (first, all) = (first.expect("there were parts"), began.elapsed());
    assert!(first < all / 2, "the first part after {first:?} of {all:?}");
    assert_eq!(Value::from(data), whole);
    assert_eq!(events.header("paceline-version"), Some("1"));
    let end = ("end".to_owned(), json!({"rows": rows, "parts": 20}));
    assert_eq!(events.next(), Some(end));
    assert_eq!(events.next(), None, "and nothing else");
    assert_eq!(node.rows(), 2 * rows);

    over_the_sdk(&node, rows);
    on_the_command_line(&node, rows);
    // What fits a batch is one part.
    let mut events = Events::open(node.http, &asking(STEPS, &body(3)));
    let (_, part) = events.next().expect("a part");
    assert_eq!(part["outputs"][0]["shape"], json!([3, 2]));
    assert_eq!(events.next().expect("the end").1["parts"], 1);
    // Each is one request, however many parts it has: one whole, two streams, two by command.
    let counted = |protocol| {
        let labels = [("model", "steps"), ("protocol", protocol), ("code", "OK")];
        node.metric(REQUESTS, &labels)
    };
    assert_eq!((counted("http"), counted("quic")), (5.0, 2.0));
}

fn over_the_sdk(node: &Counting, rows: u64) {
    let client = client(node);
    let whole = asked(&client, "steps", rows).send().expect("an answer");
    let began = Instant::now();
    let (mut first, mut next_row, mut tensors) = (None, 0, Vec::new());
    for part in asked(&client, "steps", rows).stream() {
        let part = part.expect("no part fails");
        first.get_or_insert(began.elapsed());
        assert_eq!(part.first_row, next_row);
        next_row += part.rows();
        tensors.push(y(&part).clone());
    }
    let (first, all) = (first.expect("there were parts"), began.elapsed());
    assert!(first < all / 2, "the first part after {first:?} of {all:?}");
    assert_eq!(tensors.len(), 20);
    let parts: Vec<&Tensor> = tensors.iter().collect();
    assert_eq!(Tensor::concat_rows(&parts).as_ref(), whole.output("y"));
}

fn on_the_command_line(node: &Counting, rows: u64) {
    let home = directory();
    let file = home.path().join("rows.json");
    std::fs::write(&file, body(rows).to_string()).expect("it is written");
    let file = file.to_str().expect("temporary paths are text");
    let address = node.http.to_string();
    let ask = |format: &str| {
        let request = ["infer", "steps", "--json", file, "--stream"];
        let finished = paceline(&[&request[..], &["--addr", &address, "-o", format]].concat());
        assert!(finished.status.success(), "{finished:?}");
        assert!(finished.stderr.contains("version 1"), "{finished:?}");
        finished.stdout
    };
    let lines = ask("json");
    let parts = lines.lines().map(serde_json::from_str::<Value>);
    let parts: Vec<_> = parts.map(|part| part.expect("a part a line")).collect();
    assert_eq!(parts.len(), 20);
    assert_eq!(parts[19]["parameters"]["first_row"], rows - STEP);
    let table = ask("table");
    let last = table.lines().last().expect("a row");
    assert!(last.trim_start().starts_with("79 "), "{table}");
}

#[test]
fn what_fails_before_the_first_part_is_a_status_and_what_fails_later_is_the_end() {
    let node = Counting::start(MOMENT);
    let ask = |path: &str, body: &Value| Connection::open(node.http).ask(&asking(path, body));
    let unknown = ask("/v2/models/nobody/infer", &body(1));
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.failure().0, "MODEL_NOT_FOUND");
    let mut binary = body(1);
    binary["parameters"] = json!({"binary_data_output": true});
    let refused = ask(STEPS, &binary);
    let (code, reason) = refused.failure();
    assert_eq!((refused.status, code.as_str()), (400, "PARAMETER_INVALID"));
    assert!(reason.contains("text/event-stream"), "{reason}");
    let client = client(&node);
    let mut parts = asked(&client, "nobody", 1).stream();
    let refused = parts.next().expect("an end").expect_err("there is no such");
    assert_eq!(refused.code, ErrorCode::ModelNotFound);
    assert!(parts.next().is_none(), "there is one end");
    assert_eq!(node.rows(), 0);

    // Two parts are taken before the third fails, which must not run twice.
    node.allow(2);
    let mut once = body(20 * STEP);
    once["parameters"] = json!({"idempotent": false});
    let mut events = Events::open(node.http, &asking(STEPS, &once));
    (0..2).for_each(|_| assert_eq!(events.next().expect("a part").0, ""));
    node.until_rows(3 * STEP);
    node.stub.script().fail_run(1);
    node.open();
    let (name, said) = events.next().expect("an end");
    assert_eq!(
        (name.as_str(), &said["code"]),
        ("error", &json!("ENGINE_FAILED"))
    );
    assert_eq!(events.next(), None, "there is one end");

    node.settled();
    node.allow(2);
    let before = node.rows();
    let mut parts = asked(&client, "steps", 20 * STEP)
        .idempotent(false)
        .stream();
    (0..2).for_each(|_| drop(parts.next().expect("a part").expect("it is answered")));
    node.until_rows(before + 3 * STEP);
    node.stub.script().fail_run(1);
    node.open();
    let failed = parts.next().expect("an end").expect_err("it was scripted");
    assert_eq!(
        (failed.code, failed.execution, failed.is_retryable),
        (ErrorCode::EngineFailed, Execution::Executed, false)
    );
    assert!(parts.next().is_none(), "there is one end");
}

#[test]
fn who_reads_slowly_holds_up_only_itself() {
    let node = Counting::start(MOMENT);
    let client = client(&node);
    let rows = 40 * WIDE;
    let mut stuck = asked(&client, "wide", rows).stream();
    first_row(&mut stuck);
    // What the client's window of a stream takes, 8 MiB, what it has read, and the node's window.
    let most = (8 + 2 + WINDOW + 1) * WIDE;
    let computed = node.settled();
    assert!(
        computed <= most,
        "{computed} rows for a client that does not read"
    );
    let mut slow = asked(&client, "wide", rows).stream();
    first_row(&mut slow);
    let of_two = node.settled();
    assert!(of_two <= 2 * most, "{of_two} rows for two of them");
    // Nobody else waits for them.
    let other = Connection::open(node.http).ask(&Request::post(STEPS, body(9).to_string()));
    assert_eq!(other.ok()["outputs"][0]["shape"], json!([9, 2]));
    let mut seen = WIDE;
    for part in slow {
        let part = part.expect("no part fails");
        assert_eq!(part.first_row, seen);
        seen += part.rows();
    }
    assert_eq!(seen, rows, "it gets all that it takes the time for");

    // The same over HTTP, where the system's buffers hold a few parts of 3 MB.
    let before = node.settled();
    let mut events = Events::open(node.http, &asking("/v2/models/wide/infer", &body(rows)));
    assert_eq!(
        events.next().expect("a part").1["parameters"]["first_row"],
        0
    );
    let computed = node.settled() - before;
    assert!(
        computed < rows / 2,
        "{computed} rows for a client that does not read"
    );
    drop(events);

    // Who takes nothing for ten seconds has its stream ended; what it has not got is cancelled.
    let cancelled = [
        ("model", "wide"),
        ("protocol", "quic"),
        ("code", "CANCELLED"),
    ];
    node.until_metric(REQUESTS, &cancelled, |count| count == 1.0);
    let ended = stuck.find_map(Result::err).expect("it ends with a failure");
    assert_eq!(ended.code, ErrorCode::Cancelled, "{ended}");
    assert!(node.settled() < 2 * rows);
}

fn first_row(parts: &mut Parts) {
    let first = parts.next().expect("a part").expect("it is answered");
    assert_eq!(first.first_row, 0);
}

#[test]
fn a_row_that_nobody_waits_for_is_not_computed() {
    let node = Counting::start(MOMENT);
    let cancelled = |least: f64| {
        let dropped = [("reason", "cancelled")];
        node.until_metric(DROPPED, &dropped, |count| count >= least);
    };
    let queued = |is_so: fn(f64) -> bool| {
        node.until_metric("paceline_device_queued_rows", &[], is_so);
    };
    // One batch runs for as long as this wants it; behind it others wait.
    node.allow(0);
    let mut busy = Connection::open(node.http);
    let request = Request::post(STEPS, body(STEP).to_string());
    busy.write(&request.bytes()).expect("it is sent");
    node.until_rows(STEP);
    let mut leaving = Connection::open(node.http);
    let waiting = Request::post(STEPS, body(3).to_string());
    leaving.write(&waiting.bytes()).expect("it is sent");
    queued(|rows| rows >= 3.0);
    drop(leaving);
    cancelled(1.0);
    queued(|rows| rows == 0.0);
    let (seeds, options) = node.seed();
    let connecting = paceline_client::Client::connect(seeds, options);
    let client = node.runtime.block_on(connecting).expect("it is let in");
    let rows = Tensor::from_f32(2, &values(2));
    let sending = client.infer("steps").input("x", rows).send();
    let sending = node.runtime.spawn(sending);
    queued(|rows| rows >= 2.0);
    sending.abort();
    cancelled(2.0);
    node.open();
    busy.read("POST").expect("an answer").ok();
    one_row(&node);
    assert_eq!(node.rows(), STEP + 1, "neither of those that left");
}

#[test]
fn a_stream_that_is_dropped_midway_computes_nothing_more() {
    let node = Counting::start(MOMENT);
    let rows = 20 * STEP;
    let client = client(&node);
    dropped_midway(&node, || {
        let mut events = Events::open(node.http, &asking(STEPS, &body(rows)));
        (0..2).for_each(|_| assert_eq!(events.next().expect("a part").0, ""));
        events
    });
    dropped_midway(&node, || {
        let mut parts = asked(&client, "steps", rows).stream();
        (0..2).for_each(|_| drop(parts.next().expect("a part").expect("it is answered")));
        parts
    });
    for protocol in ["http", "quic"] {
        let labels = [("protocol", protocol), ("code", "CANCELLED")];
        node.until_metric(REQUESTS, &labels, |count| count == 1.0);
    }
}

/// Two parts of a stream are taken, and it is dropped while the third runs.
fn dropped_midway<S>(node: &Counting, take_two: impl FnOnce() -> S) {
    let dropped = [("reason", "cancelled")];
    let before = (node.rows(), node.metric(DROPPED, &dropped));
    node.allow(2);
    let stream = take_two();
    node.until_rows(before.0 + 3 * STEP);
    drop(stream);
    // Of the window, one runs; one may be staged behind it.
    let waited = before.1 + (WINDOW - 2) as f64;
    node.until_metric(DROPPED, &dropped, |count| count >= waited);
    node.open();
    one_row(node);
    let computed = node.settled() - before.0;
    assert!(
        (3 * STEP + 1..=4 * STEP + 1).contains(&computed),
        "{computed} rows"
    );
}

fn one_row(node: &Counting) {
    let answer = Connection::open(node.http).ask(&Request::post(STEPS, body(1).to_string()));
    assert_eq!(answer.ok()["outputs"][0]["shape"], json!([1, 2]));
}
