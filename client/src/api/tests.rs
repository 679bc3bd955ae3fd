//! The client against a real server: what is repeated, what is not, and how ends are typed.

use std::cell::RefCell;
use std::fs;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use paceline_protocol::operator::{Committed, DeployRequest};
use paceline_protocol::registry::ReplicaTarget;
use paceline_protocol::{Epoch, OpId, VersionNumber};
use serde_json::json;

use super::scripted::{Reply, Scripted};
use super::*;

fn name() -> ModelName {
    ModelName::new("digits").unwrap()
}

fn client(server: &Scripted) -> OperatorClient {
    OperatorClient::new(server.address(), Duration::from_secs(10))
}

/// An op-id whose upper half would be lost by a reader that knows only 64 bits.
const OP: OpId = OpId(0xfedc_ba98_7654_3210_0123_4567_89ab_cdef);

fn deployment() -> DeployRequest {
    DeployRequest {
        version: Some(VersionNumber(3)),
        replicas: Some(ReplicaTarget::Each),
        op: OP,
    }
}

fn committed() -> Committed {
    Committed {
        epoch: Epoch(812),
        applied_on: 3,
        nodes: 3,
    }
}

#[test]
fn a_write_is_repeated_with_the_same_op_id_until_it_is_settled() {
    let mut attempt = 0;
    let server = Scripted::serve(move |_| {
        attempt += 1;
        match attempt {
            1 => Reply::error(503, "NO_QUORUM", "no leader yet"),
            2 => Reply::Hangup,
            3 => Reply::error(504, "UNKNOWN", "sent, no word"),
            4 => Reply::error(409, "CONFLICT", "changed since"),
            _ => Reply::json(200, &committed()),
        }
    });
    let heard = Rc::new(RefCell::new(Vec::new()));
    let notes = heard.clone();
    let client = client(&server).with_notice(move |e| notes.borrow_mut().push(e.clone()));
    assert_eq!(client.deploy(&name(), &deployment()), Ok(committed()));
    let asked = server.asked();
    assert_eq!(asked.len(), 5);
    for request in &asked {
        assert_eq!(request.line(), "POST /v2/paceline/models/digits/deploy");
        let body: DeployRequest = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body, deployment(), "the same op-id every time");
    }
    assert_eq!(heard.borrow().len(), 4);
    assert!(matches!(heard.borrow()[1], ApiError::NoAnswer { .. }));
}

#[test]
fn a_delete_carries_its_op_id_in_the_query() {
    let mut attempt = 0;
    let server = Scripted::serve(move |_| {
        attempt += 1;
        match attempt {
            1 => Reply::Hangup,
            _ => Reply::json(200, &committed()),
        }
    });
    assert_eq!(client(&server).delete(&name(), OP), Ok(committed()));
    let wanted = "DELETE /v2/paceline/models/digits?op=fedcba98765432100123456789abcdef";
    assert_eq!(server.lines(), [wanted, wanted]);
}

#[test]
fn refusals_are_typed_and_not_repeated() {
    for (status, code) in [
        (404, "MODEL_NOT_FOUND"),
        (409, "LIMIT_REACHED"),
        (429, "OVERLOADED"),
        (403, "HOST_REFUSED"),
        (400, "A_CODE_OF_LATER"),
    ] {
        let server = Scripted::serve(move |_| Reply::error(status, code, "the reason"));
        let refused = client(&server).deploy(&name(), &deployment()).unwrap_err();
        let wanted = ApiError::Refused {
            status,
            code: code.into(),
            message: "the reason".into(),
            retry_after: None,
        };
        assert_eq!(refused, wanted);
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn a_write_that_stays_open_says_so_at_its_deadline() {
    let server = Scripted::serve(|_| Reply::Hangup);
    let client = OperatorClient::new(server.address(), Duration::from_millis(400));
    let begun = Instant::now();
    let ended = client.deploy(&name(), &deployment()).unwrap_err();
    assert!(ended.leaves_open(), "{ended:?}");
    assert!(
        server.asked().len() >= 2,
        "it was repeated before it gave up"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_read_is_asked_once() {
    let server = Scripted::serve(|_| Reply::error(503, "SHUTTING_DOWN", "leaving"));
    assert!(client(&server).status(Freshness::Local).is_err());
    assert_eq!(server.lines(), ["GET /v2/paceline/status"]);
}

#[test]
fn nobody_there_is_told_from_somebody_else_there() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: NodeAddress = free.local_addr().unwrap().to_string().parse().unwrap();
    drop(free);
    let begun = Instant::now();
    let away = OperatorClient::new(address.clone(), Duration::from_secs(30));
    let ended = away.deploy(&name(), &deployment()).unwrap_err();
    let reason = "connection refused".to_owned();
    assert_eq!(ended, ApiError::Unreachable { address, reason });
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "a wrong address is not waited for"
    );

    // Longer than a label of a name may be (RFC 1035, section 2.3.4): no resolver is asked.
    let nowhere: NodeAddress = "x".repeat(64).parse().unwrap();
    let away = OperatorClient::new(nowhere, Duration::from_secs(30));
    let ended = away.deploy(&name(), &deployment()).unwrap_err();
    assert!(matches!(ended, ApiError::Unreachable { .. }), "{ended:?}");

    let page = b"<html>hello</html>".to_vec();
    let other = Scripted::serve(move |_| Reply::Answer(200, vec![], page.clone()));
    let ended = client(&other).nodes(Freshness::Local).unwrap_err();
    assert!(matches!(ended, ApiError::Malformed { .. }), "{ended:?}");

    let proxy = Scripted::serve(|_| Reply::Answer(502, vec![], b"<h1>Bad\nGateway</h1>".to_vec()));
    let ended = client(&proxy).nodes(Freshness::Local).unwrap_err();
    assert_eq!(ended.to_string(), "status 502: <h1>Bad Gateway</h1>");
    let elsewhere = vec![("Location", "http://127.0.0.1:1/".to_owned())];
    let moved = Scripted::serve(move |_| Reply::Answer(302, elsewhere.clone(), vec![]));
    let ended = client(&moved).nodes(Freshness::Local).unwrap_err();
    assert!(matches!(ended, ApiError::Malformed { .. }), "{ended:?}");
}

#[test]
fn an_upload_is_repeated_from_its_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let content: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    fs::write(&path, &content).unwrap();
    let mut attempt = 0;
    let server = Scripted::serve(move |_| {
        attempt += 1;
        match attempt {
            1 => Reply::error(503, "SHUTTING_DOWN", "leaving"),
            _ => Reply::Answer(201, vec![], vec![]),
        }
    });
    let source = UploadSource {
        path: &path,
        bytes: content.len() as u64,
    };
    let mut last = 0;
    client(&server)
        .upload(Digest([7; 32]), source, &mut |sent| last = sent)
        .unwrap();
    assert_eq!(last, source.bytes);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    for request in asked {
        let wanted = format!("PUT /v2/paceline/blobs/{}", "07".repeat(32));
        assert_eq!(request.line(), wanted);
        let length = ("content-length".to_owned(), "300000".to_owned());
        assert!(request.headers.contains(&length), "{:?}", request.headers);
        assert!(request.body == content);
    }
}

#[test]
fn a_file_that_changed_its_size_is_not_uploaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    fs::write(&path, b"12345").unwrap();
    let server = Scripted::serve(|_| Reply::Answer(201, vec![], vec![]));
    for (bytes, begun) in [(4, 0), (6, 0)] {
        let source = UploadSource { path: &path, bytes };
        let ended = client(&server).upload(Digest([7; 32]), source, &mut |_| {});
        let Err(UploadError::Changed { wanted, found, .. }) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!((wanted, found), (bytes, 5));
        assert_eq!(server.asked().len(), begun);
    }
    // One that shrinks under way: the reader itself notices.
    let source = UploadSource {
        path: &path,
        bytes: 5,
    };
    let mut ignore = |_| {};
    let mut reader = Exactly::open(source, &mut ignore).unwrap();
    fs::write(&path, b"1").unwrap();
    let mut sink = Vec::new();
    assert!(std::io::Read::read_to_end(&mut reader, &mut sink).is_err());
    assert!(matches!(
        reader.failure(),
        Some(UploadError::Changed { found: 1, .. })
    ));
}

#[test]
fn an_inference_names_version_and_epoch() {
    let body = json!({
        "model_name": "digits",
        "outputs": [{ "name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["4"] }],
    });
    let server = Scripted::serve(move |_| {
        let headers = vec![
            ("paceline-version", "2".to_owned()),
            ("paceline-epoch", "812".to_owned()),
        ];
        Reply::Answer(200, headers, serde_json::to_vec(&body).unwrap())
    });
    let answer = client(&server)
        .infer(&name(), Some(&VersionNumber(2).into()), b"{}")
        .unwrap();
    assert_eq!(answer.version.as_deref(), Some("2"));
    assert_eq!(answer.epoch.as_deref(), Some("812"));
    assert_eq!(answer.stale_seconds, None);
    assert_eq!(answer.outputs[0].data, ["4"]);
    assert_eq!(server.lines(), ["POST /v2/models/digits/versions/2/infer"]);
}

/// An address that nothing listens on.
fn nobody() -> NodeAddress {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string().parse().unwrap()
}

fn cluster(nodes: &[NodeAddress], timeout: Duration) -> OperatorClient {
    let cluster = ClusterAddress {
        nodes: nodes.to_vec(),
        api_key: Some("pk_1".to_owned()),
        authority: None,
    };
    OperatorClient::new(cluster, timeout)
}

#[test]
fn the_next_node_is_asked_when_the_first_is_not_there() {
    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => Reply::json(200, &committed()),
    });
    let client = cluster(&[nobody(), server.address()], Duration::from_secs(10));
    assert_eq!(client.nodes(Freshness::Consistent), Ok(vec![]));
    assert_eq!(client.address(), &server.address(), "it is asked first now");
    assert_eq!(client.deploy(&name(), &deployment()), Ok(committed()));
    assert_eq!(
        server.lines(),
        [
            "GET /v2/paceline/nodes?consistent=true",
            "POST /v2/paceline/models/digits/deploy"
        ]
    );
    let key = ("authorization".to_owned(), "Bearer pk_1".to_owned());
    assert!(server.asked()[0].headers.contains(&key));

    let away = cluster(&[nobody(), nobody()], Duration::from_secs(10));
    let ended = away.deploy(&name(), &deployment()).unwrap_err();
    assert!(matches!(ended, ApiError::Unreachable { .. }), "{ended:?}");
}

#[test]
fn a_node_that_hangs_leaves_time_for_the_next() {
    // The system takes the connection; nobody ever answers.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs: NodeAddress = hanging.local_addr().unwrap().to_string().parse().unwrap();
    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => Reply::json(200, &committed()),
    });
    let nodes = [hangs, server.address()];
    let reader = cluster(&nodes, Duration::from_secs(2));
    assert_eq!(reader.models(Freshness::Local), Ok(vec![]));
    let writer = cluster(&nodes, Duration::from_secs(4));
    assert_eq!(writer.deploy(&name(), &deployment()), Ok(committed()));
    let body: DeployRequest = serde_json::from_slice(&server.asked()[1].body).unwrap();
    assert_eq!(body.op, OP, "the same write at another node");
    // What may have arrived is not done twice without an op-id.
    let asker = cluster(&nodes, Duration::from_millis(400));
    let ended = asker.infer(&name(), None, b"{}").unwrap_err();
    assert!(matches!(ended, ApiError::NoAnswer { .. }), "{ended:?}");
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_write_that_a_node_cannot_take_now_is_taken_to_another() {
    let first = Scripted::serve(|_| Reply::error(503, "NO_QUORUM", "cut off"));
    let second = Scripted::serve(|_| Reply::json(200, &committed()));
    let nodes = [first.address(), second.address()];
    let client = cluster(&nodes, Duration::from_secs(10));
    assert_eq!(client.delete(&name(), OP), Ok(committed()));
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
    assert_eq!(first.lines(), second.lines());
}
