//! Streams of requests over gRPC: each has its answer, in order, whatever becomes of the others; no
//! more are under way than may be; and who takes his stream back has nothing computed.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use prost::Message;

use crate::counting::{Counting, STEP, WIDE};
use crate::grpc::{
    Client, InferRequest, InferResponse, STREAM, Stream, StreamResponse, floats, frame, framed,
    integer,
};
use crate::node::Node;

const IN_FLIGHT: &str = "paceline_gateway_in_flight";
const MOMENT: Duration = Duration::from_millis(2);
/// Requests of a stream that a node has under way, and the one whose answer it writes.
const UNDER_WAY_MAX: f64 = 17.0;

fn identity(id: &str, value: f32) -> InferRequest {
    InferRequest {
        id: id.to_owned(),
        ..InferRequest::of("identity", "INPUT0", &[vec![value]])
    }
}

/// So many rows, which can be told from those of a warm-up.
fn rows(model: &str, count: u64) -> InferRequest {
    let values: Vec<_> = (0..count).map(|row| vec![row as f32 + 1.0, 0.5]).collect();
    InferRequest::of(model, "x", &values)
}

fn say(sending: &mut SendStream<Bytes>, request: &InferRequest, is_last: bool) {
    let message = frame(&request.encode_to_vec());
    sending.send_data(message, is_last).expect("it is sent");
}

fn answer(client: &Client, stream: &mut Stream) -> InferResponse {
    let next: StreamResponse = client.next(stream).expect("an answer");
    assert_eq!(next.error, "");
    next.answer.expect("it was answered")
}

#[test]
fn each_request_has_its_answer_in_order_and_a_failure_ends_nothing() {
    let client = Client::open(Node::shared().grpc);
    let (mut sending, response) = client.begin(STREAM, &[]).split();
    let count = 60;
    for place in 0..count {
        let mut request = identity(&place.to_string(), place as f32);
        match place {
            5 => request.model_name = "nobody".into(),
            6 => request = request.with("timeout", integer(-1)),
            7 => {
                let noise = frame(b"no message");
                sending.send_data(noise, false).expect("it is sent");
                continue;
            }
            _ => {}
        }
        say(&mut sending, &request, place + 1 == count);
    }
    let mut stream = client.answered(response);
    for place in 0..count {
        let next: StreamResponse = client.next(&mut stream).expect("an answer");
        let failed = match place {
            5 => Some("MODEL_NOT_FOUND"),
            6 => Some("PARAMETER_INVALID"),
            7 => Some("MESSAGE_INVALID"),
            _ => None,
        };
        let answer = next.answer.expect("one that names its request");
        let id = if place == 7 {
            String::new()
        } else {
            place.to_string()
        };
        assert_eq!(answer.id, id);
        assert_eq!(answer.parameter("triton_final_response").switch, Some(true));
        match failed {
            Some(code) => {
                assert!(!next.error.is_empty());
                assert_eq!(
                    answer.parameter("paceline-code").text.as_deref(),
                    Some(code)
                );
            }
            None => {
                assert_eq!(next.error, "");
                assert_eq!(floats(&answer.raw[0]), [place as f32]);
                assert!(answer.parameter("paceline-epoch").unsigned > Some(0));
            }
        }
    }
    let trailers = client.next::<StreamResponse>(&mut stream).unwrap_err();
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn an_answer_does_not_wait_for_the_next_request() {
    let client = Client::open(Node::shared().grpc);
    let (mut sending, response) = client.begin(STREAM, &[]).split();
    let mut stream = client.answered(response);
    for place in 0..3 {
        say(&mut sending, &identity("", place as f32), false);
        assert_eq!(floats(&answer(&client, &mut stream).raw[0]), [place as f32]);
    }
    // Large ones come whole, too.
    let values = vec![vec![0.25; 500_000]];
    let large = InferRequest::of("identity", "INPUT0", &values);
    say(&mut sending, &large, false);
    assert_eq!(answer(&client, &mut stream).raw, large.raw);
    // What is no frame ends the stream, after what was asked before.
    say(&mut sending, &identity("last", 1.0), false);
    let broken = framed(7, b"");
    sending.send_data(broken, false).expect("it is sent");
    assert_eq!(answer(&client, &mut stream).id, "last");
    let trailers = client.next::<StreamResponse>(&mut stream).unwrap_err();
    assert_eq!(trailers["grpc-status"], "3");
    assert_eq!(trailers["paceline-code"], "MESSAGE_INVALID");
}

#[test]
fn what_the_headers_say_holds_for_the_stream() {
    let client = Client::open(Node::shared().grpc);
    let message = identity("", 1.0).encode_to_vec();
    let refused = client.call(STREAM, &[("authorization", "Bearer pk_nonsense")], &message);
    assert_eq!(refused.ended(), (16, "UNAUTHENTICATED"));
    let late = client.send(STREAM, &[("grpc-timeout", "0m")], &message);
    let mut late = client.stream(late);
    let next: StreamResponse = client.next(&mut late).expect("an answer");
    let code = next
        .answer
        .expect("it names its code")
        .parameter("paceline-code");
    assert_eq!(code.text.as_deref(), Some("DEADLINE_EXCEEDED"));
}

#[test]
fn no_more_are_under_way_than_may_be_and_all_are_answered() {
    let node = Counting::start(Duration::from_millis(25));
    let client = Client::open(node.grpc);
    let (mut sending, response) = client.begin(STREAM, &[]).split();
    let count = 200;
    for place in 0..count {
        let request = InferRequest {
            id: place.to_string(),
            ..rows("steps", STEP)
        };
        say(&mut sending, &request, place + 1 == count);
    }
    let mut stream = client.answered(response);
    let mut most: f64 = 0.0;
    for place in 0..count {
        assert_eq!(answer(&client, &mut stream).id, place.to_string());
        most = most.max(node.metric(IN_FLIGHT, &[]));
    }
    assert!((8.0..=UNDER_WAY_MAX).contains(&most), "{most}");
    assert_eq!(node.settled(), count * STEP);
}

#[test]
fn a_stream_that_is_taken_back_takes_its_requests_along() {
    let node = Counting::start(MOMENT);
    let client = Client::open(node.grpc);
    node.allow(0);
    let held = client.send(
        crate::grpc::INFER,
        &[],
        &rows("steps", STEP).encode_to_vec(),
    );
    node.until_rows(STEP);
    let mut call = client.begin(STREAM, &[]);
    for _ in 0..12 {
        say(&mut call.sending, &rows("steps", STEP), false);
    }
    node.until_metric(IN_FLIGHT, &[], |now| now >= 13.0);
    call.reset();
    node.until_metric(IN_FLIGHT, &[], |now| now <= 1.0);
    node.open();
    let _: InferResponse = client.finish(held).ok();
    assert_eq!(node.settled(), STEP);
}

#[test]
fn a_node_that_stops_answers_what_it_has_read() {
    let mut node = Counting::start(MOMENT);
    let client = Client::open(node.grpc);
    node.allow(0);
    let (mut sending, response) = client.begin(STREAM, &[]).split();
    for _ in 0..3 {
        say(&mut sending, &rows("steps", STEP), false);
    }
    node.until_metric(IN_FLIGHT, &[], |now| now >= 3.0);
    let stopping = node.stop();
    thread::sleep(Duration::from_millis(200));
    node.open();
    let mut stream = client.answered(response);
    for _ in 0..3 {
        assert_eq!(
            answer(&client, &mut stream).outputs[0].shape,
            [STEP as i64, 2]
        );
    }
    let trailers = client.next::<StreamResponse>(&mut stream).unwrap_err();
    assert_eq!(trailers["paceline-code"], "SHUTTING_DOWN");
    node.runtime.block_on(stopping).expect("the node stops");
}

#[test]
fn who_takes_nothing_loses_the_stream_and_nobody_else_does() {
    let node = Counting::start(MOMENT);
    let client = Client::open(node.grpc);
    let (mut sending, response) = client.begin(STREAM, &[]).split();
    // An answer takes 1 MiB; the client's window holds 16.
    for place in 0..60 {
        say(&mut sending, &rows("wide", WIDE), place + 1 == 60);
    }
    let other = Client::open(node.grpc);
    let _: InferResponse = other.infer(&rows("steps", STEP)).ok();
    thread::sleep(Duration::from_secs(13));
    let (bytes, was_reset) = client.drain(client.answered(response));
    assert!((1 << 20..60 << 20).contains(&bytes), "{bytes}");
    assert!(was_reset, "its end would pass for a good one");
    let _: InferResponse = other.infer(&rows("steps", STEP)).ok();
}
