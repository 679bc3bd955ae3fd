//! The twin against the suite, and what only it can do: cuts, crashes, and repeats by seed.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::super::conformance::{self, Fabric, all_but, ask, echo, open};
use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

impl Fabric for MemoryNetwork {
    fn nodes(&self, count: u64) -> Vec<Arc<dyn Transport>> {
        let nodes = (1..=count).map(|id| {
            let node = self.join(NodeId(id));
            node.set_peers(all_but(id, count));
            node as Arc<dyn Transport>
        });
        nodes.collect()
    }

    fn nowhere(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 1).into()
    }
}

#[tokio::test(start_paused = true)]
async fn it_conforms() {
    conformance::hold(&MemoryNetwork::new(1)).await;
}

#[tokio::test(start_paused = true)]
async fn it_conforms_over_a_bad_line() {
    let network = MemoryNetwork::new(2);
    network.set_timing(LinkTiming {
        delay_min_us: 1_000,
        delay_max_us: 30_000,
        loss_permille: 200,
    });
    conformance::hold(&network).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_bytes_back_and_healing_lets_them_through() {
    let network = MemoryNetwork::new(3);
    let nodes = network.nodes(2);
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    stream.send.write_all(b"before").await.unwrap();
    let mut incoming = nodes[1].accept(Plane::Infer).await.unwrap();
    let mut text = [0; 6];
    incoming.stream.receive.read_exact(&mut text).await.unwrap();
    let heard = nodes[1].heard(A);
    network.cut(A, B);
    stream.send.write_all(b"during").await.unwrap();
    let read = incoming.stream.receive.read_exact(&mut text);
    assert!(timeout(Duration::from_secs(3), read).await.is_err());
    assert!(nodes[1].heard(A) <= heard + 1, "nothing comes from there");
    assert!(nodes[0].heard(B) >= 30, "the other way still works");
    network.heal();
    incoming.stream.receive.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"during");
    sleep(Duration::from_secs(1)).await;
    assert!(nodes[1].heard(A) > heard + 5);
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_silent_until_the_stream_has_been_idle_for_long() {
    let network = MemoryNetwork::new(4);
    let nodes = network.nodes(2);
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    stream.send.write_all(b"x").await.unwrap();
    let _incoming = nodes[1].accept(Plane::Infer).await.unwrap();
    network.crash(B);
    let started = Instant::now();
    let mut byte = [0; 1];
    let read = stream.receive.read_exact(&mut byte).await;
    assert!(read.is_err() && started.elapsed() >= IDLE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_new_life_is_another_node_to_its_peers() {
    let network = MemoryNetwork::new(5);
    let nodes = network.nodes(2);
    let mut stream = open(&nodes[0], B, Plane::Infer).await;
    stream.send.write_all(b"x").await.unwrap();
    network.crash(B);
    let again: Arc<dyn Transport> = network.join(B);
    again.set_peers(all_but(2, 2));
    let mut byte = [0; 1];
    let read = timeout(Duration::from_secs(1), stream.receive.read_exact(&mut byte)).await;
    assert!(read.expect("told at once").is_err());
    let echoes = echo(&again, Plane::Infer);
    assert_eq!(ask(&nodes[0], Plane::Infer, b"hello").await, b"hello");
    echoes.abort();
}

/// The moments at which answers come, which delays and losses decide.
async fn moments(seed: u64) -> Vec<Duration> {
    let network = MemoryNetwork::new(seed);
    let timing = LinkTiming {
        delay_min_us: 100,
        delay_max_us: 9_000,
        loss_permille: 100,
    };
    network.set_timing(timing);
    let nodes = network.nodes(2);
    let echoes = echo(&nodes[1], Plane::Infer);
    let started = Instant::now();
    let mut moments = Vec::new();
    for _ in 0..50 {
        ask(&nodes[0], Plane::Infer, b"x").await;
        moments.push(started.elapsed());
    }
    echoes.abort();
    moments
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_a_run_and_another_seed_does_not() {
    let first = moments(7).await;
    assert_eq!(moments(7).await, first);
    assert_ne!(moments(8).await, first);
}
