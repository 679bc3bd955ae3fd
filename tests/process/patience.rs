//! For how long a client over HTTP is waited for, and that others do not wait with it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::counting::{Counting, WIDE};
use crate::floods::{Frames, PING, frame, header};
use crate::http::{Connection, PATIENCE, Request};
use crate::node::{Node, directory, until};

const ROW: &str = crate::cluster::ROW;
const PATH: &str = "/v2/models/machine-failure/infer";
/// For how long a peer may take nothing, as the node has it.
const STALL: Duration = Duration::from_secs(10);

fn open(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.http).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Waits until the node closes, and tells after how long.
fn closed(mut stream: TcpStream, since: Instant) -> Duration {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes);
    let took = since.elapsed();
    assert!(took < PATIENCE, "it stays open");
    took
}

fn within(took: Duration, limit_ms: u64) {
    let least = Duration::from_millis(limit_ms);
    // A quarter later by design, and some time for a busy machine.
    let most = least * 5 / 4 + Duration::from_secs(2);
    assert!((least..most).contains(&took), "{took:?} for {least:?}");
}

#[test]
fn who_says_nothing_half_a_header_or_no_more_is_closed() {
    let home = directory();
    let limits = ["http.header_timeout_ms=800", "http.idle_timeout_ms=3000"];
    let limits = limits.map(|limit| ["--set", limit]).concat();
    let node = Node::start(home.path(), &[&["--demo"], &limits[..]].concat());
    let (silent, since) = (open(&node), Instant::now());
    within(closed(silent, since), 800);

    // A byte at a time buys no time.
    let (mut slow, since) = (open(&node), Instant::now());
    let header = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nX: {}",
        "y".repeat(500)
    );
    let sent = header.bytes().try_for_each(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        slow.write_all(&[byte])
    });
    sent.expect_err("the node closes while it is sent");
    within(since.elapsed(), 800);
    let (mut preface, since) = (open(&node), Instant::now());
    let half = preface.write_all(b"PRI * HTTP/2.0\r\n");
    half.expect("it is open");
    within(closed(preface, since), 800);

    // Behind a request that was answered, too.
    let request = Request::post(PATH, ROW);
    let mut second = Connection::open(node.http);
    assert_eq!(second.ask(&request).status, 200);
    let since = Instant::now();
    second.write(b"GET /v2 HTTP/1.1\r\n").expect("it is open");
    let ended = second.read("GET").expect_err("half a header has no answer");
    assert_ne!(ended.kind(), io::ErrorKind::WouldBlock, "it was closed");
    within(since.elapsed(), 800);

    // And one that has nothing to do for a while may go on.
    let mut idle = Connection::open(node.http);
    assert_eq!(idle.ask(&request).status, 200);
    std::thread::sleep(Duration::from_millis(2_000));
    assert_eq!(idle.ask(&request).status, 200, "it was idle for two thirds");
    let since = Instant::now();
    let ended = idle.read("GET").expect_err("nothing was asked");
    assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    within(since.elapsed(), 3_000);
}

/// Whether it has asked or not, and though it pings: pings are neither requests nor headers.
#[test]
fn an_idle_connection_of_http_2_is_told_goaway_and_closed() {
    let home = directory();
    let limits = ["http.header_timeout_ms=800", "http.idle_timeout_ms=3000"];
    let limits = limits.map(|limit| ["--set", limit]).concat();
    let node = Node::start(home.path(), &[&["--demo"], &limits[..]].concat());
    for has_asked in [true, false] {
        let mut frames = Frames::to(node.http);
        if has_asked {
            // The headers, with the ends of headers and of stream.
            let asked = frame(1, 4 | 1, 1, &header("/v2"));
            frames.send(&asked).expect("it is taken");
            while frames.read().expect("an answer").1 != 1 {}
        }
        let since = Instant::now();
        let mut pinging = frames.stream.try_clone().expect("a socket can be shared");
        let goaway = std::thread::scope(|scope| {
            scope.spawn(move || {
                let ping = frame(PING, 0, 0, &[7; 8]);
                while pinging.write_all(&ping).is_ok() && since.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            frames.goaway()
        });
        let took = since.elapsed();
        assert_eq!(goaway, Some(0), "{has_asked}: no error, after {took:?}");
        within(took, 3_000);
    }
}

#[test]
fn a_body_must_come_at_some_pace() {
    let node = Node::shared();
    for path in [PATH, "/v2/paceline/tokens"] {
        let mut connection = Connection::open(node.http);
        let head = Request::post(path, "").header("Content-Length", 100_000);
        connection.write(&head.bytes()).expect("it is taken");
        let since = Instant::now();
        let answer = std::thread::scope(|scope| {
            let mut writer = connection.writer();
            scope.spawn(move || {
                while writer.write_all(b" ").is_ok() && since.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            connection.read("POST")
        });
        let took = since.elapsed();
        assert!((STALL..2 * STALL).contains(&took), "{took:?}");
        let answer = answer.expect("an answer says why");
        assert!(answer.status >= 400, "{answer:?}");
        if path == PATH {
            let (code, message) = answer.failure();
            assert_eq!(code, "DEADLINE_EXCEEDED");
            assert!(message.contains("64 KiB"), "{message}");
        }
    }
}

#[test]
fn a_connection_whose_client_takes_nothing_is_closed() {
    let node = Counting::start(Duration::from_millis(1));
    let data = vec![1.0; 2 * WIDE as usize];
    let wide = json!({"inputs":
        [{"name": "x", "shape": [WIDE, 2], "datatype": "FP32", "data": data}]});
    let wide = Request::post("/v2/models/wide/infer", wide.to_string());
    let bytes = Connection::open(node.http).ask(&wide).body.len();
    let inside = || node.connections();
    until(PATIENCE, "nobody is inside", || inside() == 0);
    let mut stream = TcpStream::connect(node.http).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    // More than the buffers of both ends hold, one behind the other.
    let asked = (32 << 20) / bytes + 1;
    for _ in 0..asked {
        stream.write_all(&wide.bytes()).expect("requests are small");
    }
    let since = Instant::now();
    until(PATIENCE, "it is let in", || inside() == 1);
    until(2 * STALL, "it is closed", || inside() == 0);
    assert!(since.elapsed() >= STALL, "{:?}", since.elapsed());
    let mut taken = Vec::new();
    let _ = stream.read_to_end(&mut taken);
    assert!(!taken.is_empty() && taken.len() < asked * bytes);
}

#[test]
fn connections_over_the_limit_wait_for_those_that_leave() {
    let home = directory();
    let limits = ["http.header_timeout_ms=1500", "http.connections_max=4"];
    let limits = limits.map(|limit| ["--set", limit]).concat();
    let node = Node::start(home.path(), &[&["--demo"], &limits[..]].concat());
    let silent: Vec<_> = (0..4).map(|_| open(&node)).collect();
    let since = Instant::now();
    assert_eq!(node.post(PATH, ROW).status, 200);
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(1_000), "{waited:?}");
    drop(silent);
}
