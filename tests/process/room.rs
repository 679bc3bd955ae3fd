//! The memory that bodies share: each has its part until its request has ended, by whatever protocol it
//! came, and what values take that are decoded counts as well.

use std::time::Duration;

use prost::Message;

use crate::counting::{Counting, STEP};
use crate::grpc::{Client, Contents, INFER, InferRequest, Tensor};
use crate::http::{Connection, Request};
use crate::http2::{Http2, small_runtime};

const PATH: &str = "/v2/models/steps/infer";
const IN_FLIGHT: &str = "paceline_gateway_in_flight";
/// What one body may have, and two of those that are sent here.
const BODY_BYTES_MAX: usize = 1 << 20;
const BODIES_BYTES_MAX: u64 = 2 << 20;
/// More than half of that.
const LARGE_BYTES: usize = 900 << 10;

fn start() -> Counting {
    Counting::with(Duration::from_millis(1), |config| {
        config.http.body_bytes_max = BODY_BYTES_MAX;
        config.http.bodies_bytes_max = BODIES_BYTES_MAX;
    })
}

/// A request of one row in many bytes.
fn large() -> String {
    let mut body =
        r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#.to_owned();
    body.extend(std::iter::repeat_n(' ', LARGE_BYTES - body.len()));
    body
}

/// The same as a message, with a field that nobody knows.
fn large_message() -> Vec<u8> {
    let mut message = InferRequest::of("steps", "x", &[vec![1.0, 2.0]]).encode_to_vec();
    let unknown = 15 << 3 | 2;
    prost::encoding::encode_varint(unknown, &mut message);
    prost::encoding::encode_varint(LARGE_BYTES as u64, &mut message);
    message.resize(message.len() + LARGE_BYTES, 0);
    message
}

/// While two are under way a third is told so, and when they have ended it is taken.
fn held_by(node: &Counting, two: impl FnOnce(&dyn Fn())) {
    // Of a call that is refused before all of it has come, the status is read nevertheless.
    let third = Client::open(node.grpc);
    let ask = || third.call(INFER, &[], &large_message());
    node.allow(0);
    two(&|| {
        node.until_metric(IN_FLIGHT, &[], |now| now >= 2.0);
        let refused = ask();
        assert_eq!(refused.ended(), (8, "OVERLOADED"), "{refused:?}");
        assert_eq!(refused.said("retry-after"), "1");
        node.open();
    });
    assert_eq!(ask().ended(), (0, ""));
    // The gauge is sampled: what it says of these must not be taken for the next two.
    node.until_metric(IN_FLIGHT, &[], |now| now == 0.0);
}

#[test]
fn a_body_has_its_room_until_its_request_has_ended() {
    let node = start();
    held_by(&node, |while_held| {
        let mut two = [(); 2].map(|()| Connection::open(node.http));
        for connection in &mut two {
            let request = Request::post(PATH, large()).bytes();
            connection.write(&request).expect("it is taken");
        }
        while_held();
        for connection in &mut two {
            assert_eq!(connection.read("POST").expect("an answer").status, 200);
        }
    });
    let runtime = small_runtime();
    held_by(&node, |while_held| {
        let client = runtime.block_on(Http2::connect(node.http));
        let two = [(); 2].map(|()| {
            let request = client.post(PATH, &large());
            runtime.spawn(client.sender.clone().send_request(request))
        });
        while_held();
        for answer in two {
            let answer = runtime.block_on(answer).expect("no panic");
            assert_eq!(answer.expect("an answer").status(), 200);
        }
    });
    held_by(&node, |while_held| {
        let client = Client::open(node.grpc);
        let two = [(); 2].map(|()| client.send(INFER, &[], &large_message()));
        while_held();
        for call in two {
            assert_eq!(client.finish(call).ended(), (0, ""));
        }
    });
}

#[test]
fn integers_take_the_room_that_they_take_once_they_are_read() {
    let node = start();
    let client = Client::open(node.grpc);
    let typed = |values: usize| InferRequest {
        model_name: "steps".to_owned(),
        inputs: vec![Tensor {
            name: "x".to_owned(),
            datatype: "INT64".to_owned(),
            shape: vec![values as i64],
            contents: Some(Contents {
                int64: vec![1; values],
                ..Contents::default()
            }),
            ..Tensor::default()
        }],
        ..InferRequest::default()
    };
    // A byte each on the wire.
    let (fits, does_not) = (
        BODIES_BYTES_MAX as usize / 16,
        BODIES_BYTES_MAX as usize / 8 + 1,
    );
    assert!(typed(does_not).encode_to_vec().len() < BODY_BYTES_MAX / 2);
    let refused = client.infer(&typed(does_not));
    assert_eq!(refused.ended(), (8, "OVERLOADED"), "{refused:?}");
    // What is read is looked at: the model takes other numbers.
    assert_eq!(client.infer(&typed(fits)).ended(), (3, "INPUT_DTYPE"));
    let row = InferRequest::of("steps", "x", &vec![vec![1.0, 2.0]; STEP as usize]);
    assert_eq!(client.infer(&row).ended(), (0, ""));
}
