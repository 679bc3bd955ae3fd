//! Calls over gRPC while they are under way: what is taken back is not computed, what is late is
//! told so, and a node that stops lets those inside finish.

use std::thread;
use std::time::{Duration, Instant};

use prost::Message;

use crate::counting::{Counting, STEP};
use crate::grpc::{Client, INFER, InferRequest, InferResponse, Number, integer};

const HEALTH: &str = "/grpc.health.v1.Health/Watch";
const MOMENT: Duration = Duration::from_millis(2);
const REQUESTS: &str = "paceline_gateway_requests_total";

/// So many rows, which can be told from those of a warm-up.
fn steps(rows: u64) -> InferRequest {
    let values: Vec<_> = (0..rows).map(|row| vec![row as f32 + 1.0, 0.5]).collect();
    InferRequest::of("steps", "x", &values)
}

#[test]
fn what_is_taken_back_is_not_computed() {
    let node = Counting::start(MOMENT);
    let client = Client::open(node.grpc);
    node.allow(0);
    // One is at the engine; those behind it wait.
    let first = client.send(INFER, &[], &steps(STEP).encode_to_vec());
    node.until_rows(STEP);
    let behind: Vec<_> = (0..20)
        .map(|_| client.send(INFER, &[], &steps(STEP).encode_to_vec()))
        .collect();
    let kept = client.send(INFER, &[], &steps(STEP).encode_to_vec());
    thread::sleep(Duration::from_millis(300));
    for call in behind {
        call.reset();
    }
    thread::sleep(Duration::from_millis(300));
    node.open();
    let _: InferResponse = client.finish(first).ok();
    let _: InferResponse = client.finish(kept).ok();
    assert_eq!(
        node.settled(),
        2 * STEP,
        "twenty calls were taken back before they ran"
    );
}

#[test]
fn a_connection_that_breaks_takes_its_calls_along() {
    let node = Counting::start(MOMENT);
    let client = Client::open(node.grpc);
    node.allow(0);
    let first = client.send(INFER, &[], &steps(STEP).encode_to_vec());
    node.until_rows(STEP);
    let _behind: Vec<_> = (0..20)
        .map(|_| client.send(INFER, &[], &steps(STEP).encode_to_vec()))
        .collect();
    thread::sleep(Duration::from_millis(300));
    drop(first);
    drop(client);
    thread::sleep(Duration::from_millis(300));
    node.open();
    assert_eq!(node.settled(), STEP);
}

#[test]
fn the_smaller_of_two_budgets_holds() {
    let node = Counting::start(MOMENT);
    let client = Client::open(node.grpc);
    node.allow(0);
    let first = client.send(INFER, &[], &steps(STEP).encode_to_vec());
    node.until_rows(STEP);
    let long = steps(STEP).with("timeout", integer(30_000_000));
    let short = steps(STEP).with("timeout", integer(200_000));
    for (headers, request) in [
        (vec![("grpc-timeout", "200m")], steps(STEP)),
        (vec![("grpc-timeout", "200m")], long),
        (vec![("grpc-timeout", "30S")], short),
    ] {
        let began = Instant::now();
        let called = client.call(INFER, &headers, &request.encode_to_vec());
        let took = began.elapsed();
        assert_eq!(called.ended(), (4, "DEADLINE_EXCEEDED"), "{called:?}");
        assert!(took >= Duration::from_millis(150), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    // A message that does not come in time is not waited for longer.
    let call = client.begin(INFER, &[("grpc-timeout", "200m")]);
    let began = Instant::now();
    assert_eq!(client.finish(call).ended(), (4, "DEADLINE_EXCEEDED"));
    assert!(began.elapsed() < Duration::from_secs(5));
    node.open();
    let _: InferResponse = client.finish(first).ok();
    let late = [("protocol", "grpc"), ("code", "DEADLINE_EXCEEDED")];
    assert!(node.metric(REQUESTS, &late) >= 1.0);
}

#[test]
fn a_node_that_stops_lets_those_inside_finish_and_takes_no_more() {
    let mut node = Counting::start(MOMENT);
    let (client, idle) = (Client::open(node.grpc), Client::open(node.grpc));
    let watch = client.send(HEALTH, &[], &[]);
    let mut watch = client.stream(watch);
    assert_eq!(client.next::<Number>(&mut watch).expect("a state").value, 1);
    node.allow(0);
    let under_way = client.send(INFER, &[], &steps(STEP).encode_to_vec());
    node.until_rows(STEP);
    let stopping = node.stop();
    // NOT_SERVING, and the stream's end.
    assert_eq!(client.next::<Number>(&mut watch).expect("a state").value, 2);
    let ended = client.next::<Number>(&mut watch).expect_err("its end");
    assert_eq!(ended["grpc-status"], "14");
    assert_eq!(ended["paceline-code"], "SHUTTING_DOWN");
    assert!(idle.closed().is_ok(), "GOAWAY without an error");
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.takes_more() {
        assert!(Instant::now() < deadline, "no GOAWAY");
        thread::sleep(Duration::from_millis(10));
    }
    node.open();
    let answer: InferResponse = client.finish(under_way).ok();
    assert_eq!(answer.outputs[0].shape, [STEP as i64, 2]);
    assert!(client.closed().is_ok());
    node.runtime.block_on(stopping).expect("the node stops");
}
