//! Clients that say what no client says, half of it, or nothing.

use std::sync::Arc;
use std::time::Duration;

use paceline_node::gateway::quic::QuicOptions;
use paceline_protocol::client::{CLIENT_PROTOCOL, CLIENT_SCHEMA, Greeting, Hello, LENGTH_BYTES};
use paceline_protocol::frame::{ClientInfer, Frame, FrameDecoder, Message};
use paceline_protocol::{Criticality, Epoch, ErrorCode, ModelName, TenantId, Tensor};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ApplicationClose, Connection, ConnectionError, RecvStream, SendStream};

use super::door::{Cluster, Double, PATIENCE, Running, limits};

const REFUSED: u32 = 2;
const MALFORMED: u32 = 4;

fn hello() -> Vec<u8> {
    let hello = Hello {
        schema: CLIENT_SCHEMA,
        api_key: None,
        release: "hostile".to_owned(),
    };
    hello.encode().unwrap()
}

fn request(number: u64, model: &str) -> Frame {
    Frame {
        number,
        message: Message::ClientInfer(ClientInfer {
            model: ModelName::new(model).unwrap(),
            version: None,
            budget_us: 30_000_000,
            attempt: 1,
            epoch_seen: Epoch(0),
            idempotent: true,
            inputs: Vec::new(),
            outputs: Vec::new(),
            lost: None,
            criticality: Criticality::default(),
            tenant: TenantId(5),
            unit: None,
            sequence: None,
            in_parts: false,
        }),
        tensors: Vec::new(),
    }
}

/// A connection without a hello yet.
async fn connect(cluster: &Cluster, door: &Running) -> (quinn::Endpoint, Connection) {
    let believed = cluster.credentials(99);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(believed.trust().clone()))
        .with_no_client_auth();
    tls.alpn_protocols = vec![CLIENT_PROTOCOL.to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = cluster.credentials(door.node.0).subject().to_string();
    let connecting = endpoint.connect_with(config, door.address, &name).unwrap();
    (endpoint, connecting.await.unwrap())
}

async fn greeted(cluster: &Cluster, door: &Running) -> (quinn::Endpoint, Connection, RecvStream) {
    let (endpoint, connection) = connect(cluster, door).await;
    let (mut send, mut greetings) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    let mut length = [0; LENGTH_BYTES];
    greetings.read_exact(&mut length).await.unwrap();
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    greetings.read_exact(&mut bytes).await.unwrap();
    let greeting = Greeting::decode(&bytes).unwrap();
    assert!(matches!(greeting, Greeting::Welcome(_)), "{greeting:?}");
    (endpoint, connection, greetings)
}

async fn closed_with(connection: &Connection) -> u32 {
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
    match closed.expect("the door closes the connection") {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
            error_code.into_inner() as u32
        }
        other => panic!("{other}"),
    }
}

async fn send_all(send: &mut SendStream, frame: &Frame) {
    for part in frame.encode().unwrap() {
        send.write_all(&part).await.unwrap();
    }
}

async fn answer(receive: &mut RecvStream) -> Frame {
    let reading = receive.read_to_end(1 << 20);
    let bytes = tokio::time::timeout(PATIENCE, reading).await.unwrap();
    Frame::decode_slice(&bytes.unwrap(), 1 << 20).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_hello_is_closed() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let (_endpoint, silent) = connect(&cluster, &door).await;
    assert_eq!(closed_with(&silent).await, REFUSED);

    let later_schema = {
        let mut bytes = hello();
        bytes[LENGTH_BYTES] = 99;
        bytes
    };
    for said in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[255; 64],
        &hello()[..7],
        &later_schema,
    ] {
        let (_endpoint, connection) = connect(&cluster, &door).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(said).await.unwrap();
        assert_eq!(closed_with(&connection).await, REFUSED, "{said:?}");
    }
    assert!(door.double.asked().is_empty());
    assert!(
        door.metrics
            .render()
            .contains("paceline_gateway_quic_connections 0")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_make_no_sense_end_the_connection() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let joined = |frame: Frame| frame.encode().unwrap().concat();
    let mut magic = joined(request(1, "echo"));
    magic[0] = b'X';
    let mut header = joined(request(1, "echo"));
    header[18..40].fill(255);
    let mut too_long_header = joined(request(1, "echo"));
    too_long_header[4..8].fill(255);
    let unnamed_tensor = joined(Frame {
        tensors: vec![Tensor::from_f32(1, &[1.0])],
        ..request(1, "echo")
    });
    let not_a_clients = joined(Frame {
        message: Message::Gone { epoch: Epoch(1) },
        ..request(1, "echo")
    });
    let half = joined(request(1, "echo"))[..20].to_vec();
    let cases = [
        magic,
        header,
        too_long_header,
        unnamed_tensor,
        not_a_clients,
        half,
    ];
    for (case, bytes) in cases.into_iter().enumerate() {
        let (_endpoint, connection, _greetings) = greeted(&cluster, &door).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(closed_with(&connection).await, MALFORMED, "case {case}");
    }
    // A number that is in use names two requests; the one that runs is dropped with the rest.
    let (_endpoint, connection, _greetings) = greeted(&cluster, &door).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send_all(&mut send, &request(1, "stuck")).await;
    door.double
        .until(|double| double.asked_for("stuck") == 1)
        .await;
    send_all(&mut send, &request(1, "stuck")).await;
    assert_eq!(closed_with(&connection).await, MALFORMED);
    door.double.until(|double| double.cancelled() == 1).await;
    // The door itself is none the worse.
    let (_endpoint, connection, _greetings) = greeted(&cluster, &door).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send_all(&mut send, &request(7, "echo")).await;
    send.finish().unwrap();
    let frame = answer(&mut receive).await;
    assert_eq!(frame.number, 7);
    assert!(matches!(frame.message, Message::ClientAnswer { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_parts_shares_its_stream_with_nobody() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let (_endpoint, connection, _greetings) = greeted(&cluster, &door).await;
    let in_parts = |number| {
        let mut frame = request(number, "stuck");
        if let Message::ClientInfer(head) = &mut frame.message {
            head.in_parts = true;
        }
        frame
    };
    // Behind another request it is told so, and the other one is none the worse.
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send_all(&mut send, &request(1, "echo")).await;
    send_all(&mut send, &in_parts(2)).await;
    send.finish().unwrap();
    let bytes = receive.read_to_end(1 << 20).await.unwrap();
    let (mut rest, mut decoder) = (&bytes[..], FrameDecoder::new(1 << 20));
    let mut codes = std::collections::BTreeMap::new();
    while let Some(frame) = decoder.feed(&mut rest).unwrap() {
        let code = match frame.message {
            Message::Failed { failure, .. } => Some(failure.code),
            _ => None,
        };
        codes.insert(frame.number, code);
    }
    assert_eq!(codes[&1], None);
    assert_eq!(codes[&2], Some(ErrorCode::Unsupported));
    // On its own it runs until its client cancels it.
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send_all(&mut send, &in_parts(3)).await;
    let asked = |double: &Double| double.asked_for("stuck") == 1;
    door.double.until(asked).await;
    let cancel = Frame {
        number: 3,
        message: Message::Cancel,
        tensors: Vec::new(),
    };
    send_all(&mut send, &cancel).await;
    door.double.until(|double| double.cancelled() == 1).await;
    // Another one behind it makes no sense.
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send_all(&mut send, &in_parts(4)).await;
    send_all(&mut send, &request(5, "echo")).await;
    assert_eq!(closed_with(&connection).await, MALFORMED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let (_endpoint, connection, _greetings) = greeted(&cluster, &door).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut bytes = request(1, "echo").encode().unwrap().concat();
    bytes[8..16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    send.write_all(&bytes).await.unwrap();
    match answer(&mut receive).await.message {
        Message::Failed { failure, .. } => assert_eq!(failure.code, ErrorCode::TooLarge),
        other => panic!("{other:?}"),
    }
    assert!(connection.close_reason().is_none(), "other streams go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_client_has_open_and_in_flight_is_bounded() {
    let cluster = Cluster::found();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = QuicOptions {
        in_flight_max: 3,
        ..limits()
    };
    let door = cluster.door_on(1, socket, options);
    let (_endpoint, connection, _greetings) = greeted(&cluster, &door).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    for number in 1..=4 {
        send_all(&mut send, &request(number, "stuck")).await;
    }
    send.finish().unwrap();
    let mut start = [0; 64];
    let refused = tokio::time::timeout(PATIENCE, receive.read_exact(&mut start)).await;
    refused
        .expect("the fourth is refused while three wait")
        .unwrap();
    door.double
        .until(|double| double.asked_for("stuck") == 3)
        .await;
    receive.stop(quinn::VarInt::from_u32(1)).unwrap();
    door.double.until(|double| double.cancelled() == 3).await;

    // Idle streams are counted too: at the limit, opening one more waits.
    let mut idle = Vec::new();
    let more = loop {
        let opening = connection.open_bi();
        match tokio::time::timeout(Duration::from_secs(1), opening).await {
            Ok(opened) => {
                let (mut send, receive) = opened.unwrap();
                // One byte is the beginning of a frame, which may not stand still; the lanes of
                // a client that says nothing are not even seen.
                send.write_all(b"").await.unwrap();
                idle.push((send, receive));
            }
            Err(_waits) => break idle.len(),
        }
        assert!(idle.len() <= 128);
    };
    assert!((100..=128).contains(&more), "{more} streams");
    assert!(connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded() {
    let cluster = Cluster::found();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = QuicOptions {
        connections_max: 1,
        ..limits()
    };
    let door = cluster.door_on(1, socket, options);
    let first = paceline_client::Client::connect([door.seed()], cluster.options()).await;
    let first = first.unwrap();
    let second = paceline_client::Client::connect([door.seed()], cluster.options()).await;
    assert!(second.is_err());
    drop(first);
    let waiting = async {
        while paceline_client::Client::connect([door.seed()], cluster.options())
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("its place is free again");
}
