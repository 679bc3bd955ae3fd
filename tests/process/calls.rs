//! Calls over gRPC: the model card's figures, every form that a request may have, and how each kind
//! of refusal is told.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message;

use crate::grpc::{
    Client, INFER, InferRequest, InferResponse, Number, Simple, Value, Wanted, entry, floats,
    framed, integer,
};
use crate::node::{Node, address};
use crate::tensors::{HeldOut, assert_close};

const SERVICE: &str = "/inference.GRPCInferenceService/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const TOLERANCE: f32 = 1e-5;

fn client() -> Client {
    Client::open(Node::shared().grpc)
}

fn identity(values: &[Vec<f32>]) -> InferRequest {
    InferRequest::of("identity", "INPUT0", values)
}

fn path(method: &str) -> String {
    format!("{SERVICE}{method}")
}

#[derive(Clone, PartialEq, Message)]
struct ServerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, repeated, tag = "3")]
    extensions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ModelMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    versions: Vec<String>,
    #[prost(string, tag = "3")]
    platform: String,
    #[prost(message, repeated, tag = "4")]
    inputs: Vec<crate::grpc::Tensor>,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<crate::grpc::Tensor>,
}

#[test]
fn held_out_digits_get_the_recorded_probabilities_raw_and_typed() {
    let (client, held_out) = (client(), HeldOut::of("digits"));
    for batch in [1, 64] {
        let mut row = 0;
        for values in held_out.values.chunks(batch).take(5) {
            let request = InferRequest::of("digits", "pixels", values);
            let raw: InferResponse = client.infer(&request).ok();
            let typed: InferResponse = client.infer(&request.typed()).ok();
            assert_eq!(raw, typed);
            assert_eq!(raw.outputs[0].name, "probabilities");
            assert_eq!(raw.outputs[0].shape, [values.len() as i64, 10]);
            let rows = row..row + values.len();
            let probabilities = floats(&raw.raw[0]);
            let probabilities: Vec<_> = probabilities.chunks(10).map(<[f32]>::to_vec).collect();
            assert_close(&probabilities, &held_out.recorded[rows.clone()], TOLERANCE);
            let mut labels = &raw.raw[1][..];
            for wanted in &held_out.labels[rows] {
                let (length, rest) = labels.split_first_chunk::<4>().unwrap();
                let (label, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
                assert_eq!(label, wanted.as_bytes());
                labels = rest;
            }
            row += values.len();
        }
        assert!(row >= 5 * batch);
    }
}

#[test]
fn answers_say_who_gave_them_and_to_which_request() {
    let client = client();
    for (id, version) in [("seven", ""), ("", "1"), ("\u{e4}\u{1f600}", "")] {
        let mut request = identity(&[vec![1.0, 2.0]]);
        (request.id, request.model_version) = (id.into(), version.into());
        let called = client.call(
            INFER,
            &[("x-request-id", "trace-7")],
            &request.encode_to_vec(),
        );
        let answer: InferResponse = called.ok();
        assert_eq!(
            (answer.id.as_str(), answer.model_name.as_str()),
            (id, "identity")
        );
        assert_eq!(answer.model_version, "1");
        assert_eq!(floats(&answer.raw[0]), [1.0, 2.0]);
        assert_eq!(called.http_status, 200);
        assert_eq!(called.said("content-type"), "application/grpc");
        assert_eq!(called.said("x-request-id"), "trace-7");
        assert_eq!(called.said("paceline-version"), "1");
        assert!(called.said("paceline-epoch").parse::<u64>().unwrap() > 0);
    }
    // As perf_analyzer sends it, with whatever else a client may say.
    let asked = Value {
        switch: Some(true),
        ..Value::default()
    };
    let request = identity(&[vec![1.0]])
        .with("triton_enable_empty_final_response", asked)
        .with("timeout", integer(5_000_000))
        .with("priority", integer(1));
    let _: InferResponse = client.infer(&request).ok();
}

#[test]
fn outputs_are_those_that_are_wanted_and_classes_are_text() {
    let pixels = HeldOut::of("digits").values;
    let mut request = InferRequest::of("digits", "pixels", &pixels[..1]);
    request.outputs = vec![Wanted {
        name: "probabilities".into(),
        parameters: vec![entry("classification", integer(2))],
    }];
    let answer: InferResponse = client().infer(&request).ok();
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.outputs[0].datatype, "BYTES");
    assert_eq!(answer.outputs[0].shape, [1, 2]);
    assert_eq!(answer.raw.len(), 1);
}

/// More than a window, a frame and a batch.
#[test]
fn large_tensors_pass_whole() {
    let client = client();
    let values: Vec<_> = (0..5_000).map(|row| vec![row as f32; 400]).collect();
    let request = identity(&values);
    assert_eq!(request.raw[0].len(), 8_000_000);
    let answer: InferResponse = client.infer(&request).ok();
    assert_eq!(answer.raw, request.raw);
    assert_eq!(answer.outputs[0].shape, [5_000, 400]);
}

#[test]
fn many_calls_share_a_connection() {
    let client = client();
    let request = |call: usize| identity(&[vec![call as f32]]).encode_to_vec();
    let calls: Vec<_> = (0..500)
        .map(|call| client.send(INFER, &[], &request(call)))
        .collect();
    for (place, call) in calls.into_iter().enumerate() {
        let answer: InferResponse = client.finish(call).ok();
        assert_eq!(floats(&answer.raw[0]), [place as f32]);
    }
}

#[test]
fn compressed_requests_are_read_within_the_same_limit() {
    let client = client();
    let request = identity(&[vec![1.5; 1_000]]).encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&request).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::default());
    deflate.write_all(&request).unwrap();
    let deflate = deflate.finish().unwrap();
    assert!(gzip.len() < request.len() / 10);
    let send = |encoding: &str, flag, message: &[u8]| {
        let mut call = client.begin(INFER, &[("grpc-encoding", encoding)]);
        call.sending.send_data(framed(flag, message), true).unwrap();
        client.finish(call)
    };
    for (encoding, message) in [("gzip", &gzip), ("deflate", &deflate)] {
        let answer: InferResponse = send(encoding, 1, message).ok();
        assert_eq!(floats(&answer.raw[0]), [1.5; 1_000]);
    }
    let plain: InferResponse = send("gzip", 0, &request).ok();
    assert_eq!(plain.raw.len(), 1, "a message may be left as it is");
    let unknown = send("snappy", 1, &gzip);
    assert_eq!(unknown.ended(), (12, "UNSUPPORTED"));
    assert_eq!(
        unknown.said("grpc-accept-encoding"),
        "identity,gzip,deflate"
    );
    assert_eq!(send("identity", 1, &gzip).ended(), (3, "MESSAGE_INVALID"));
    assert_eq!(send("gzip", 1, &gzip[..20]).ended(), (3, "MESSAGE_INVALID"));
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..65 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = send("gzip", 1, &bomb.finish().unwrap());
    assert_eq!(bomb.ended(), (3, "TOO_LARGE"));
}

#[test]
fn server_and_models_say_what_they_are() {
    let client = client();
    let live: Number = client.call(&path("ServerLive"), &[], &[]).ok();
    let ready: Number = client.call(&path("ServerReady"), &[], &[]).ok();
    assert_eq!((live.value, ready.value), (1, 1));
    let server: ServerMetadata = client.call(&path("ServerMetadata"), &[], &[]).ok();
    assert_eq!(server.name, "paceline");
    assert!(server.extensions.contains(&"classification".to_owned()));
    let asked = |text: &str, second: &str| {
        let (text, second) = (text.to_owned(), second.to_owned());
        Simple { text, second }.encode_to_vec()
    };
    let digits: ModelMetadata = client
        .call(&path("ModelMetadata"), &[], &asked("digits", ""))
        .ok();
    assert_eq!(
        (digits.name.as_str(), digits.versions),
        ("digits", vec!["1".to_owned()])
    );
    assert_eq!(digits.inputs[0].name, "pixels");
    assert_eq!(digits.inputs[0].shape, [-1, 64]);
    assert_eq!(digits.outputs[1].datatype, "BYTES");
    let ready: Number = client
        .call(&path("ModelReady"), &[], &asked("digits", "1"))
        .ok();
    assert_eq!(ready.value, 1);
    for (model, version) in [("nobody", ""), ("digits", "9")] {
        let call = client.call(&path("ModelReady"), &[], &asked(model, version));
        let ready: Number = call.ok();
        assert_eq!(ready.value, 0, "{model} {version}");
    }
    let unknown = client.call(&path("ModelMetadata"), &[], &asked("nobody", ""));
    assert_eq!(unknown.ended(), (5, "MODEL_NOT_FOUND"), "{unknown:?}");
    assert!(unknown.said("grpc-message").contains("nobody"));
    let version = client.call(&path("ModelMetadata"), &[], &asked("digits", "9"));
    assert_eq!(version.ended(), (5, "VERSION_NOT_FOUND"));
}

#[test]
fn health_knows_the_node_and_its_service() {
    let client = client();
    let asked = |text: &str| {
        let text = text.to_owned();
        let second = String::new();
        Simple { text, second }.encode_to_vec()
    };
    for service in ["", "inference.GRPCInferenceService"] {
        let state: Number = client
            .call(&format!("{HEALTH}Check"), &[], &asked(service))
            .ok();
        assert_eq!(state.value, 1, "SERVING");
        let watch = client.send(&format!("{HEALTH}Watch"), &[], &asked(service));
        let mut watch = client.stream(watch);
        assert_eq!(client.next::<Number>(&mut watch).unwrap().value, 1);
    }
    let unknown = client.call(&format!("{HEALTH}Check"), &[], &asked("x"));
    assert_eq!(unknown.ended(), (5, "NOT_FOUND"));
    let watch = client.send(&format!("{HEALTH}Watch"), &[], &asked("x"));
    let mut watch = client.stream(watch);
    assert_eq!(
        client.next::<Number>(&mut watch).unwrap().value,
        3,
        "SERVICE_UNKNOWN"
    );
}

#[test]
fn each_refusal_has_its_status_and_code() {
    let client = client();
    let good = || identity(&[vec![1.0, 2.0]]);
    let mut nobody = good();
    nobody.model_name = "nobody".into();
    let mut mixed = good();
    mixed.inputs[0].contents = good().typed().inputs[0].contents.clone();
    let mut shape = good();
    shape.inputs[0].shape = vec![2, 2];
    let mut output = good();
    output.outputs = vec![Wanted {
        name: "x".into(),
        ..Wanted::default()
    }];
    let late = good().with("timeout", integer(-1));
    let mut region = good();
    region.inputs[0].parameters = vec![entry("shared_memory_region", integer(1))];
    for (request, ended, words) in [
        (nobody, (5, "MODEL_NOT_FOUND"), "nobody"),
        (mixed, (3, "MESSAGE_INVALID"), "raw_input_contents"),
        (shape, (3, "INPUT_VALUES"), "needs 16 bytes, got 8"),
        (output, (3, "OUTPUT_UNKNOWN"), "OUTPUT0"),
        (late, (3, "PARAMETER_INVALID"), "microseconds"),
        (region, (3, "PARAMETER_INVALID"), "shared memory"),
    ] {
        let called = client.infer(&request);
        assert_eq!(called.ended(), ended, "{called:?}");
        let said = called.said("grpc-message");
        assert!(said.contains(words), "{words:?} is missing in: {said}");
        assert!(!called.said("x-request-id").is_empty());
    }
    let body = good().encode_to_vec();
    for (headers, ended) in [
        (
            ("authorization", "Bearer pk_nonsense"),
            (16, "UNAUTHENTICATED"),
        ),
        (("grpc-timeout", "soon"), (3, "PARAMETER_INVALID")),
        (("grpc-timeout", "0m"), (4, "DEADLINE_EXCEEDED")),
        (("paceline-epoch", "x"), (3, "PARAMETER_INVALID")),
        (("paceline-epoch", "99999999"), (14, "STALE")),
        (("paceline-unit", ""), (3, "PARAMETER_INVALID")),
        (("origin", "http://example.com"), (7, "HOST_REFUSED")),
    ] {
        let called = client.call(INFER, &[headers], &body);
        assert_eq!(called.ended(), ended, "{headers:?}: {called:?}");
    }
    let anonymous = client.call(INFER, &[("authorization", "Bearer sk-other")], &body);
    let _: InferResponse = anonymous.ok();
}

#[test]
fn there_is_no_shared_memory() {
    let client = client();
    for kind in ["System", "Cuda"] {
        let method = |verb: &str| path(&format!("{kind}SharedMemory{verb}"));
        let status: Number = client.call(&method("Status"), &[], &[]).ok();
        let unregistered: Number = client.call(&method("Unregister"), &[], &[]).ok();
        assert_eq!((status.value, unregistered.value), (0, 0));
        let registered = client.call(&method("Register"), &[], &[]);
        assert_eq!(registered.ended(), (12, "UNSUPPORTED"));
        assert!(registered.sentence().contains("shared memory"));
    }
}

#[test]
fn what_is_no_call_is_refused() {
    let client = client();
    let body = identity(&[vec![1.0]]).encode_to_vec();
    let unknown = client.call(&path("ModelTrain"), &[], &[]);
    assert_eq!(unknown.ended(), (12, "METHOD_NOT_ALLOWED"));
    assert!(unknown.said("grpc-message").contains("ModelTrain"));
    let unknown = client.call("/other.Service/Call", &[], &[]);
    assert_eq!(unknown.ended(), (12, "METHOD_NOT_ALLOWED"));
    let json = client.call(INFER, &[("content-type", "application/json")], &body);
    assert_eq!(json.http_status, 415);
    assert_eq!(
        client.call(INFER, &[], b"no message").ended(),
        (3, "MESSAGE_INVALID")
    );
    let empty = client.call(INFER, &[], &[]);
    assert_eq!(
        empty.ended(),
        (5, "MODEL_NOT_FOUND"),
        "a message may be empty"
    );

    let sent = |slices: &[&[u8]]| {
        let mut call = client.begin(INFER, &[]);
        for (place, slice) in slices.iter().enumerate() {
            let is_last = place + 1 == slices.len();
            let data = bytes::Bytes::copy_from_slice(slice);
            call.sending.send_data(data, is_last).unwrap();
        }
        client.finish(call)
    };
    let whole = framed(0, &body);
    let slices: Vec<&[u8]> = whole.chunks(1).collect();
    let _: InferResponse = sent(&slices).ok();
    assert_eq!(sent(&[&[]]).ended(), (3, "MESSAGE_INVALID"), "no message");
    assert_eq!(
        sent(&[&whole, &whole]).ended(),
        (3, "MESSAGE_INVALID"),
        "two"
    );
    assert_eq!(
        sent(&[&whole[..20]]).ended(),
        (3, "MESSAGE_INVALID"),
        "cut off"
    );
    assert_eq!(
        sent(&[&[2, 0, 0, 0, 0]]).ended(),
        (3, "MESSAGE_INVALID"),
        "a flag"
    );
    let announced = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    assert_eq!(
        sent(&[&announced]).ended(),
        (3, "TOO_LARGE"),
        "4 GiB are announced"
    );
    // The connection has survived all of it.
    let _: InferResponse = client.call(INFER, &[], &body).ok();
}

#[test]
fn the_door_stands_beside_that_of_http() {
    let node = Node::shared();
    assert_eq!(address(&node.data, "grpc"), node.grpc);
    let nodes = node.get("/v2/paceline/nodes").ok();
    assert_eq!(nodes[0]["addresses"]["grpc"], node.grpc.to_string());
    let scraped = node.scrape();
    assert!(
        scraped.contains("protocol=\"grpc\",code=\"OK\""),
        "{scraped}"
    );
}
