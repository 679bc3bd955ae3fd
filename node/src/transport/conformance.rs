//! What every transport has to do, run on each of them.
//!
//! Each case gets two or three connected nodes from a [`Fabric`] and uses nothing but the port.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Incoming, OpenError, Plane, Stream, Transport};

/// Makes nodes that know each other.
pub(crate) trait Fabric {
    /// Nodes 1 to `count`, each with all others as peers.
    fn nodes(&self, count: u64) -> Vec<Arc<dyn Transport>>;
    /// An address at which nobody answers.
    fn nowhere(&self) -> SocketAddr;
}

/// Runs every case; each on nodes of its own.
pub(crate) async fn hold(fabric: &impl Fabric) {
    echo_small_and_large(&fabric.nodes(2)).await;
    many_streams_at_once(&fabric.nodes(2)).await;
    endings_are_told_apart(&fabric.nodes(2)).await;
    a_reader_that_does_not_read_stops_its_writer(&fabric.nodes(2)).await;
    who_cannot_be_reached_is_named_in_time(fabric).await;
    a_disconnect_fails_streams_at_once_and_the_next_one_connects(&fabric.nodes(2)).await;
    planes_do_not_wait_for_each_other(&fabric.nodes(2)).await;
    a_peer_is_heard_while_it_lives(&fabric.nodes(2)).await;
    both_may_open_and_each_is_named(&fabric.nodes(3)).await;
    a_closed_transport_says_so(&fabric.nodes(2)).await;
}

const LIMIT: Duration = Duration::from_secs(20);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

pub(crate) async fn open(from: &Arc<dyn Transport>, to: NodeId, plane: Plane) -> Stream {
    let opened = from.open(to, plane, LIMIT).await;
    opened.unwrap_or_else(|error| panic!("{:?}: {error}", from.node()))
}

async fn accept(at: &Arc<dyn Transport>, plane: Plane) -> Incoming {
    let accepted = timeout(LIMIT, at.accept(plane)).await;
    accepted.expect("in time").expect("not closed")
}

/// Answers every stream on a plane with what it says.
pub(crate) fn echo(at: &Arc<dyn Transport>, plane: Plane) -> tokio::task::JoinHandle<()> {
    let at = at.clone();
    tokio::spawn(async move {
        while let Some(Incoming { mut stream, .. }) = at.accept(plane).await {
            tokio::spawn(async move {
                let copied = tokio::io::copy(&mut stream.receive, &mut stream.send).await;
                if copied.is_ok() {
                    stream.send.finish();
                }
            });
        }
    })
}

/// Says something on a stream of its own, and returns what comes back.
pub(crate) async fn ask(from: &Arc<dyn Transport>, plane: Plane, text: &[u8]) -> Vec<u8> {
    let to = if from.node() == A { B } else { A };
    let Stream {
        mut send,
        mut receive,
    } = open(from, to, plane).await;
    let mut back = Vec::with_capacity(text.len());
    let speak = async {
        send.write_all(text).await.expect("the stream takes it");
        send.finish();
    };
    let (_, read) = tokio::join!(speak, receive.read_to_end(&mut back));
    read.expect("the answer comes to its end");
    back
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 + at % 251) as u8).collect()
}

async fn echo_small_and_large(nodes: &[Arc<dyn Transport>]) {
    let echoes = echo(&nodes[1], Plane::Infer);
    for length in [0, 1, 64, 65_537, 20 << 20] {
        let said = bytes(length);
        assert!(
            ask(&nodes[0], Plane::Infer, &said).await == said,
            "{length}"
        );
    }
    echoes.abort();
}

async fn many_streams_at_once(nodes: &[Arc<dyn Transport>]) {
    let echoes = echo(&nodes[1], Plane::Blob);
    let asking = (0..1_000_u32).map(|number| {
        let from = nodes[0].clone();
        tokio::spawn(async move {
            let said = number.to_le_bytes();
            assert_eq!(ask(&from, Plane::Blob, &said).await, said);
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.expect("each gets its own answer");
    }
    echoes.abort();
}

async fn endings_are_told_apart(nodes: &[Arc<dyn Transport>]) {
    // Finished: all arrives, then the end, also when the half is dropped at once.
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    stream.send.write_all(b"whole").await.unwrap();
    stream.send.finish();
    drop(stream.send);
    let mut incoming = accept(&nodes[1], Plane::Infer).await;
    let mut text = Vec::new();
    let read = incoming.stream.receive.read_to_end(&mut text);
    timeout(LIMIT, read).await.unwrap().unwrap();
    assert_eq!(text, b"whole");
    // Reset and dropped: the reader fails, and is not told that this was all.
    for drops in [false, true] {
        let mut stream = open(&nodes[0], B, Plane::Infer).await;
        stream.send.write_all(b"half").await.unwrap();
        let mut incoming = accept(&nodes[1], Plane::Infer).await;
        if drops {
            drop(stream.send);
        } else {
            stream.send.reset();
        }
        let read = incoming.stream.receive.read_to_end(&mut text);
        assert!(timeout(LIMIT, read).await.unwrap().is_err(), "{drops}");
    }
    // A reader that goes away: the writer is told.
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    stream.send.write_all(b"x").await.unwrap();
    drop(accept(&nodes[1], Plane::Infer).await.stream.receive);
    let writing = async { while stream.send.write_all(&[0; 1024]).await.is_ok() {} };
    timeout(LIMIT, writing)
        .await
        .expect("the writer is stopped");
}

async fn a_reader_that_does_not_read_stops_its_writer(nodes: &[Arc<dyn Transport>]) {
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    let mut written = 0;
    let chunk = vec![7; 1 << 20];
    let stalls = async {
        loop {
            stream.send.write_all(&chunk).await.unwrap();
            written += chunk.len();
        }
    };
    let held = timeout(Duration::from_secs(2), stalls).await;
    assert!(held.is_err(), "the writer has to wait");
    assert!(written < 64 << 20, "{written} bytes are not held back");
}

async fn who_cannot_be_reached_is_named_in_time(fabric: &impl Fabric) {
    let node = fabric.nodes(1).remove(0);
    let limit = Duration::from_millis(300);
    let unknown = node.open(NodeId(9), Plane::Raft, limit).await.map(|_| ());
    assert_eq!(unknown, Err(OpenError::Unknown { peer: NodeId(9) }));
    node.set_peers(BTreeMap::from([(NodeId(9), fabric.nowhere())]));
    let started = tokio::time::Instant::now();
    let absent = node.open(NodeId(9), Plane::Raft, limit).await.map(|_| ());
    assert!(
        matches!(
            absent,
            Err(OpenError::Unreachable {
                peer: NodeId(9),
                ..
            })
        ),
        "{absent:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

async fn a_disconnect_fails_streams_at_once_and_the_next_one_connects(
    nodes: &[Arc<dyn Transport>],
) {
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    stream.send.write_all(b"x").await.unwrap();
    let mut incoming = accept(&nodes[1], Plane::Infer).await;
    let mut first = [0; 1];
    incoming
        .stream
        .receive
        .read_exact(&mut first)
        .await
        .unwrap();
    nodes[0].disconnect(B);
    let mut rest = Vec::new();
    for read in [&mut stream.receive, &mut incoming.stream.receive] {
        let read = timeout(LIMIT, read.read_to_end(&mut rest)).await;
        assert!(read.expect("at once").is_err());
    }
    let echoes = echo(&nodes[1], Plane::Infer);
    assert_eq!(ask(&nodes[0], Plane::Infer, b"again").await, b"again");
    echoes.abort();
}

async fn planes_do_not_wait_for_each_other(nodes: &[Arc<dyn Transport>]) {
    let echoes = echo(&nodes[1], Plane::Raft);
    let mut stalled = open(&nodes[0], B, Plane::Blob).await;
    let filling = async {
        loop {
            stalled.send.write_all(&[1; 65_536]).await.unwrap();
        }
    };
    let _ = timeout(Duration::from_millis(500), filling).await;
    let more = timeout(
        Duration::from_millis(100),
        stalled.send.write_all(&[1; 65_536]),
    );
    assert!(more.await.is_err(), "the blob is not stalled");
    for _ in 0..20 {
        let asked = timeout(Duration::from_secs(5), ask(&nodes[0], Plane::Raft, b"beat"));
        assert_eq!(asked.await.expect("not behind the blob"), b"beat");
    }
    echoes.abort();
}

async fn a_peer_is_heard_while_it_lives(nodes: &[Arc<dyn Transport>]) {
    let echoes = echo(&nodes[1], Plane::Raft);
    ask(&nodes[0], Plane::Raft, b"x").await;
    let mut last = nodes[0].heard(B);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = nodes[0].heard(B);
        assert!(now > last, "nothing was heard for half a second");
        last = now;
    }
    nodes[1].close();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let last = nodes[0].heard(B);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(nodes[0].heard(B), last, "who has gone is not heard");
    echoes.abort();
}

async fn both_may_open_and_each_is_named(nodes: &[Arc<dyn Transport>]) {
    let mut kept = Vec::new();
    for from in nodes {
        for to in nodes.iter().filter(|to| to.node() != from.node()) {
            let mut stream = open(from, to.node(), Plane::Mesh).await;
            stream.send.write_all(b"x").await.unwrap();
            let incoming = accept(to, Plane::Mesh).await;
            assert_eq!(incoming.peer, from.node());
            kept.push((stream, incoming));
        }
    }
    assert_eq!(kept.len(), 6);
}

async fn a_closed_transport_says_so(nodes: &[Arc<dyn Transport>]) {
    let waiting = {
        let node = nodes[0].clone();
        tokio::spawn(async move { node.accept(Plane::Infer).await.is_none() })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    nodes[0].close();
    let opened = nodes[0].open(B, Plane::Infer, LIMIT).await.map(|_| ());
    assert_eq!(opened, Err(OpenError::Closed));
    let ended = timeout(LIMIT, waiting).await.expect("it ends");
    assert!(
        ended.expect("it does not panic"),
        "there is nothing to accept"
    );
}

/// Peers for a fabric whose nodes have no addresses of their own.
pub(crate) fn all_but(me: u64, count: u64) -> BTreeMap<NodeId, SocketAddr> {
    let others = (1..=count).filter(|other| *other != me);
    others
        .map(|other| (NodeId(other), (Ipv4Addr::LOCALHOST, 1).into()))
        .collect()
}
