//! Clients over HTTP that send what no client sends. Where what is promised against hostile clients
//! is tested, by its subject:
//!
//! | Promised | Tested by |
//! |---|---|
//! | a key that is mistyped, of another tenant, revoked, missing | `tenants::keys_say_who_somebody_is_until_they_are_revoked`, `tenants::each_to_its_own` |
//! | the operator API without a key, whatever the method | `nobody_operates_without_a_key` |
//! | a foreign Host, Origin or authority | `bad_input::other_paths_methods_and_pages_are_refused`, `http2::many_requests_share_a_connection_…`, `gateway::server::host` |
//! | secrets in no log and no answer | `nobody_operates_without_a_key` |
//! | random bytes, halves of requests, ends in the middle | `noise_ends_its_own_connection` |
//! | lengths that are negative, huge, twice, or of both kinds | `a_request_has_one_length_or_none_is_smuggled` |
//! | bodies over the limit, announced or not; strings of 100 MB | `what_is_too_large_is_refused_before_it_is_read` |
//! | JSON: depth, keys twice, NaN, half surrogates | `bad_input::every_bad_request_is_refused_by_name_and_counted`, `gateway::tests::json_requests` |
//! | protocols that are not offered (ALPN), plain text on a TLS port | `tls::http_1_and_2_are_spoken_under_tls_and_nothing_else_is` |
//! | slow headers, slow bodies, silence; connections over their limit | `patience` |
//! | handshakes that are never finished | `tls::tests::a_client_that_says_nothing_gives_its_place_back` |
//! | streams without end; more than may be open | `floods`, `http2` |
//! | a client that never reads | `patience::a_connection_whose_client_takes_nothing_is_closed`, `http2::a_stream_whose_client_takes_nothing_is_reset_…`, `streams` |
//! | chunks of a byte | `floods::a_body_in_chunks_of_one_byte_is_read_like_any_other` |
//! | rapid reset, CONTINUATION, empty DATA, PING floods | `floods` |
//! | compressed bombs | `compression::bombs_and_broken_bodies_are_refused_by_name` |
//! | shapes, datatypes, counts, deadlines out of bounds | `bad_input::every_bad_request_is_refused_by_name_and_counted` |
//! | names that lead out of a folder | `names_lead_nowhere` |
//! | errors that tell paths, addresses, or code | `bad_input::assert_refused`, `names_lead_nowhere` |
//! | whatever a mutation finds | `gateway::tests` |

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use paceline_core::Random;

use crate::bad_input::{assert_refused, case};
use crate::cluster::ROW;
use crate::http::{Connection, PATIENCE, Request};
use crate::node::{Node, directory};

const PATH: &str = "/v2/models/machine-failure/infer";

/// Sends bytes and the end, and reads whatever comes.
fn said_to(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.http).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
    // Who is refused in the middle may not get all of it away.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

fn answers(said: &str) -> Vec<u16> {
    let lines = said.split("HTTP/1.1 ").skip(1);
    lines
        .filter_map(|line| line.get(..3)?.parse().ok())
        .collect()
}

fn still_answers(node: &Node) {
    assert_eq!(node.post(PATH, ROW).status, 200);
}

#[test]
fn noise_ends_its_own_connection() {
    let home = directory();
    let filter = ["--set", "log.filter=debug"];
    let node = Node::start(home.path(), &[&["--demo"][..], &filter].concat());
    let mut random = Random::from_seed(7);
    let whole = Request::post(PATH, ROW).bytes();
    for round in 0..300_u64 {
        let length = random.below(600) as usize;
        let mut bytes = match round % 3 {
            0 => (0..length).map(|_| random.next_u64() as u8).collect(),
            _ => whole[..length.min(whole.len())].to_vec(),
        };
        if round % 3 == 2 && !bytes.is_empty() {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next_u64() as u8;
        }
        let said = said_to(&node, &bytes);
        assert!(answers(&said).len() <= 1, "{bytes:?}: {said}");
    }
    let strange: [&[u8]; 9] = [
        b"GET /v2\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /v2 HTTP/1.0\r\n\r\n",
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frames at all, of whatever kind",
    ];
    for bytes in strange {
        let said = said_to(&node, bytes);
        assert!(
            answers(&said).len() <= 1 && !said.contains(" 101 "),
            "{said}"
        );
    }
    still_answers(&node);
    node.signal("TERM");
    let finished = node.finish(PATIENCE);
    assert!(finished.status.success(), "{finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[test]
fn a_request_has_one_length_or_none_is_smuggled() {
    let node = Node::shared();
    let hidden = "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\n");
    let length = ROW.len();
    // Each ends its connection, so that nothing behind it is taken for a request.
    let refused = [
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{ROW}{hidden}"),
        format!("Content-Length: {length}, 0\r\n\r\n{ROW}{hidden}"),
        format!("Content-Length: +{length}\r\n\r\n{ROW}{hidden}"),
        format!("Content-Length: -1\r\n\r\n{hidden}"),
        format!("Content-Length: 0x10\r\n\r\n{hidden}"),
        format!("Content-Length: 18446744073709551616\r\n\r\n{hidden}"),
        format!("Content-Length : {length}\r\n\r\n{ROW}{hidden}"),
        format!("Content-Length: {length}\0\r\n\r\n{ROW}{hidden}"),
        format!("X: a\r\n folded: b\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!(" X: a\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: gzip\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{hidden}"),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n0\r\nX: {}\r\n\r\n{hidden}",
            "y".repeat(1 << 20)
        ),
    ];
    for request in refused {
        let said = said_to(node, format!("{head}{request}").as_bytes());
        let statuses = answers(&said);
        let is_refused = statuses.iter().all(|status| (400..500).contains(status));
        assert!(statuses.len() <= 1 && is_refused, "{request}: {said}");
        assert!(!said.contains("\"live\""), "{request}: {said}");
    }
    // Of both kinds, the chunks count (RFC 9112, section 6.3), and nothing is read behind them.
    let chunked = format!("{length:x}\r\n{ROW}\r\n0\r\n\r\n{hidden}");
    for both in [
        format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked}"),
    ] {
        let said = said_to(node, format!("{head}{both}").as_bytes());
        assert_eq!(answers(&said), [200], "{said}");
        assert!(!said.contains("\"live\""), "{said}");
    }
    // What is unambiguous is answered, and so is what follows it.
    let mut connection = Connection::open(node.http);
    let plain = format!("{head}Content-Length: {length}\r\n\r\n{ROW}{hidden}");
    connection.write(plain.as_bytes()).expect("it is taken");
    for method in ["POST", "GET"] {
        assert_eq!(connection.read(method).expect("an answer").status, 200);
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let node = Node::shared();
    let since = Instant::now();
    for length in [100_u64 << 20, 1 << 31, 1 << 62] {
        let mut connection = Connection::open(node.http);
        let head = Request::post(PATH, "").header("Content-Length", length);
        connection.write(&head.bytes()).expect("it is taken");
        let answer = connection.read("POST").expect("it is told at once");
        let (code, message) = answer.failure();
        assert_eq!((answer.status, code.as_str()), (413, "TOO_LARGE"));
        assert!(message.contains("67108864"), "{message}");
    }
    assert!(since.elapsed() < Duration::from_secs(5));
    let many = (0..101).map(|number| format!("x-{number}: 1\r\n"));
    let many: String = many.collect();
    for header in [many, format!("x: {}\r\n", "y".repeat(70_000))] {
        let request = format!("GET /v2 HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        assert_eq!(answers(&said_to(node, request.as_bytes())), [431]);
    }
    let path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a/".repeat(40_000)
    );
    let refused = answers(&said_to(node, path.as_bytes()));
    assert!([vec![414], vec![431]].contains(&refused), "{refused:?}");
    // Ten thousand levels are refused at the thirty-third.
    let deep = format!("{{\"x\":{}", "[".repeat(10_000));
    let case = case(
        Request::post(PATH, deep),
        (400, "JSON_INVALID"),
        &["deeper than 32"],
    );
    assert_refused(node, &case, &node.ask(&case.request));
    still_answers(node);
}

#[test]
fn names_lead_nowhere() {
    let node = Node::shared();
    let long = "a".repeat(300);
    let names = [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "a%2f..%2f..%2fb",
        "%2fetc%2fpasswd",
        "a%00b",
        "..%5c..%5cx",
        "%ef%bc%8e%ef%bc%8e",
        "con:",
        &long,
        "A",
        "-a",
        "a%0ab",
    ];
    let mut connection = node.connect();
    for name in names {
        for request in [
            Request::post(format!("/v2/models/{name}/infer"), ROW),
            Request::get(format!("/v2/models/{name}")),
            Request::get(format!("/v2/paceline/models/{name}")),
            Request::post(
                format!("/v2/paceline/models/{name}/deploy"),
                r#"{"version":1}"#,
            ),
            Request::new(
                "DELETE",
                format!("/v2/paceline/models/{name}?op=00"),
                Vec::new(),
            ),
            Request::new("PUT", format!("/v2/paceline/blobs/{name}"), b"x".to_vec()),
            Request::new(
                "PUT",
                format!("/v2/paceline/tenants/{name}"),
                b"{}".to_vec(),
            ),
            Request::new(
                "DELETE",
                format!("/v2/paceline/tokens/{name}?op=00"),
                Vec::new(),
            ),
        ] {
            let answer = connection.ask(&request);
            let told = format!("{} {}: {answer:?}", request.method, request.path);
            assert!((400..500).contains(&answer.status), "{told}");
            let (_, message) = answer.failure();
            let data = node.data.to_str().expect("temporary paths are text");
            for secret in [
                data,
                "127.0.0.1",
                "/tmp",
                "src/",
                "panicked",
                "No such file",
            ] {
                assert!(
                    !message.contains(secret),
                    "{secret:?} is given away: {told}"
                );
            }
            if answer.header("connection") == Some("close") {
                connection = node.connect();
            }
        }
    }
    still_answers(node);
}

#[test]
fn nobody_operates_without_a_key() {
    let home = directory();
    let founder = Node::start(home.path(), &[]);
    let made = founder.cli(&["tenant", "key", "add", "default"]);
    let key = made.stdout.trim().to_owned();
    founder.kill9();
    let required = [
        "--set",
        "admission.keys_required=true",
        "--set",
        "log.filter=debug",
    ];
    let node = Node::again(home.path(), &required);
    let mut connection = node.connect();
    let wrong = format!(
        "{}{}",
        &key[..key.len() - 1],
        if key.ends_with('a') { 'b' } else { 'a' }
    );
    for (method, path) in [
        ("GET", "status"),
        ("GET", "nodes"),
        ("POST", "nodes/1/drain"),
        ("DELETE", "nodes/1"),
        ("POST", "tokens"),
        ("DELETE", "tokens/x"),
        ("GET", "tenants"),
        ("PUT", "tenants/x"),
        ("PATCH", "tenants/x"),
        ("DELETE", "keys/x"),
        ("POST", "models/m/deploy"),
        ("POST", "blobs/missing"),
        ("GET", "debug/record"),
        ("GET", "nothing"),
    ] {
        let request = Request::new(method, format!("/v2/paceline/{path}"), Vec::new());
        for shown in [None, Some(&wrong)] {
            let request = match shown {
                None => request.clone(),
                Some(key) => request
                    .clone()
                    .header("Authorization", format!("Bearer {key}")),
            };
            let answer = connection.ask(&request);
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert!(!answer.text().contains(&wrong[8..]), "{answer:?}");
        }
    }
    let good = Request::get("/v2/paceline/status").header("Authorization", format!("Bearer {key}"));
    assert_eq!(connection.ask(&good).status, 200);
    assert!(!node.scrape().contains(&key[20..]), "no metric tells it");
    node.signal("TERM");
    let finished = node.finish(PATIENCE);
    for secret in [&key[20..], &wrong[20..]] {
        assert!(!finished.stderr.contains(secret) && !finished.stdout.contains(secret));
    }
}
