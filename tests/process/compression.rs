//! Compressed bodies in both directions, by hand and by curl.

use std::io::{Read, Write};
use std::process::Command;

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::node::{Node, directory};
use crate::tensors::machine_failure;

const PATH: &str = "/v2/models/identity/infer";
const BODY_BYTES_MAX: usize = 1 << 20;
const CODINGS: [&str; 2] = ["gzip", "deflate"];

fn compress(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let level = Compression::default();
    let done = match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        _ => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
    };
    done.expect("memory takes everything")
}

/// The body of an answer that is compressed so.
fn decompressed(answer: &Answer, coding: &str) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), Some(coding));
    let mut bytes = Vec::new();
    let read = match coding {
        "gzip" => GzDecoder::new(&answer.body[..]).read_to_end(&mut bytes),
        _ => ZlibDecoder::new(&answer.body[..]).read_to_end(&mut bytes),
    };
    read.expect("it is what it says");
    bytes
}

/// A request of so many rows of 16 numbers.
fn rows(rows: usize) -> String {
    let data: Vec<f32> = (0..rows * 16).map(|at| (at % 97) as f32).collect();
    json!({"inputs":
        [{"name": "INPUT0", "shape": [rows, 16], "datatype": "FP32", "data": data}]})
    .to_string()
}

fn compressed(coding: &str, path: &str, body: &[u8]) -> Request {
    Request::post(path, compress(coding, body)).header("Content-Encoding", coding)
}

#[test]
fn bodies_are_taken_and_given_compressed() {
    let node = Node::shared();
    let body = rows(1_000);
    let plain = node.post(PATH, body.clone());
    assert_eq!(plain.header("content-encoding"), None, "nobody asked");
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let plain = plain.ok();
    let mut connection = node.connect();
    for coding in CODINGS {
        let request = compressed(coding, PATH, body.as_bytes());
        assert!(request.body.len() < body.len() / 4);
        assert_eq!(connection.ask(&request).ok(), plain, "{coding}");
        let answer = connection.ask(&request.header("Accept-Encoding", coding));
        assert!(answer.body.len() < body.len() / 4, "{coding}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        let text = decompressed(&answer, coding);
        let json: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(json, plain);
    }
    // A small answer is not worth it; events never are.
    let small = Request::post(PATH, rows(2)).header("Accept-Encoding", "gzip");
    let small = connection.ask(&small);
    let coding = (small.header("content-encoding"), small.header("vary"));
    assert_eq!(coding, (None, None));
    let events = Request::post(PATH, body).header("Accept-Encoding", "gzip");
    let events = events.header("Accept", "text/event-stream");
    let events = crate::events::Events::open(node.http, &events);
    assert_eq!(events.header("content-encoding"), None);
}

#[test]
fn binary_tensors_follow_the_decompressed_json() {
    let node = Node::shared();
    let row = vec![1.0, 0.0, 0.0, 302.3, 311.5, 1282.0, 60.7, 216.0];
    let rows = vec![row; 3_000];
    let all = json!({"parameters": {"binary_data_output": true}});
    let plain = machine_failure(&rows).binary_request(&all);
    let known = node.ask(&plain);
    let (_, known_bytes) = known.parts();
    for coding in CODINGS {
        let mut request = plain.clone();
        request.body = compress(coding, &plain.body);
        let request = request.header("Content-Encoding", coding);
        let request = request.header("Accept-Encoding", coding);
        let mut answer = node.ask(&request);
        answer.body = decompressed(&answer, coding);
        let (_, bytes) = answer.parts();
        assert_eq!(bytes, known_bytes, "{coding}");
        // The length of the JSON is that of what was sent before it was compressed.
        let mut long = request.clone();
        let length = plain.body.len() + 1;
        long.headers
            .retain(|(name, _)| !name.contains("Header-Content"));
        let long = long.header("Inference-Header-Content-Length", length);
        let (code, message) = node.ask(&long).failure();
        assert_eq!(code, "BINARY_INVALID");
        assert!(message.contains(&format!("{}", length - 1)), "{message}");
    }
}

#[test]
fn bombs_and_broken_bodies_are_refused_by_name() {
    let home = directory();
    let limit = format!("http.body_bytes_max={BODY_BYTES_MAX}");
    let node = Node::start(home.path(), &["--demo", "--set", &limit]);
    let mut spaces = rows(2).into_bytes();
    spaces.resize(1_000 * BODY_BYTES_MAX / 10, b' ');
    for coding in CODINGS {
        let bomb = compressed(coding, PATH, &spaces);
        assert!(bomb.body.len() < BODY_BYTES_MAX / 5, "{}", bomb.body.len());
        let before = peak_kib(&node);
        let bombs: Vec<_> = (0..8)
            .map(|_| {
                let (address, bomb) = (node.http, bomb.clone());
                std::thread::spawn(move || crate::http::Connection::open(address).ask(&bomb))
            })
            .collect();
        for bomb in bombs {
            let answer = bomb.join().expect("it is answered");
            let (code, message) = answer.failure();
            assert_eq!((answer.status, code.as_str()), (413, "TOO_LARGE"));
            assert!(message.contains("decompressed"), "{message}");
        }
        let grown = peak_kib(&node) - before;
        // Decompressed they are 800 MB.
        assert!(grown < 100 << 10, "{grown} KiB more");
        let good = compress(coding, rows(2).as_bytes());
        for broken in [&good[..good.len() - 2], b"\x1f\x8b\x08", b"no", b""] {
            let request = Request::post(PATH, broken).header("Content-Encoding", coding);
            let (code, message) = node.ask(&request).failure();
            assert_eq!(code, "BINARY_INVALID");
            assert!(message.contains("Content-Encoding"), "{message}");
        }
    }
    for other in ["br", "zstd", "gzip, gzip", "compress"] {
        let request = Request::post(PATH, rows(2)).header("Content-Encoding", other);
        let answer = node.ask(&request);
        assert_eq!(answer.status, 501, "{other}");
        assert!(answer.failure().1.contains("gzip, deflate"));
    }
    let operator = compressed("gzip", "/v2/paceline/tokens", b"{}");
    assert_eq!(node.ask(&operator).failure().0, "UNSUPPORTED");
    assert_eq!(node.post(PATH, rows(2)).status, 200, "and it goes on");
}

/// The most memory that a node has had, in KiB.
fn peak_kib(node: &Node) -> u64 {
    let pid = node.get("/v2/paceline/nodes").ok()[0]["pid"].clone();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
    peak.expect("Linux tells it")
}

#[test]
fn curl_speaks_http_2_and_compression() {
    let features = Command::new("curl").arg("--version").output();
    let features = features.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let Some(features) = features.ok().filter(|text| text.contains("HTTP2")) else {
        eprintln!("skipped: no curl with HTTP/2 here");
        return;
    };
    assert!(features.contains("libz"), "a curl that can decompress");
    let node = Node::shared();
    let known = node.post(PATH, rows(1_000)).ok();
    let home = directory();
    let body = home.path().join("body.gz");
    std::fs::write(&body, compress("gzip", rows(1_000).as_bytes())).expect("it is written");
    let curl = |more: &[&str]| {
        let url = format!("http://{}{PATH}", node.http);
        let body = format!("@{}", body.display());
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "30",
                "--noproxy",
                "*",
            ])
            .args(["--write-out", "%{stderr}%{http_version} %{size_download}"])
            .args(["-H", "Content-Encoding: gzip", "--data-binary", &body, &url])
            .args(more)
            .output()
            .expect("curl runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(json, known, "{told}");
        let (version, bytes) = told.split_once(' ').expect("two words");
        let bytes: usize = bytes.parse().expect("a number");
        (version.to_owned(), bytes)
    };
    let (version, whole) = curl(&["--http2-prior-knowledge"]);
    assert_eq!(version, "2");
    let (version, fewer) = curl(&["--http2-prior-knowledge", "--compressed"]);
    assert_eq!(version, "2");
    assert!(fewer < whole / 4, "{fewer} of {whole}");
    let (version, fewer) = curl(&["--http1.1", "--compressed"]);
    assert_eq!(version, "1.1");
    assert!(fewer < whole / 4, "{fewer} of {whole}");
}
