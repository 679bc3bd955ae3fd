//! QUIC against the suite, and everybody who must not get in.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use rcgen::KeyPair;
use tokio::time::timeout;

use super::super::conformance::{self, Fabric, ask, echo};
use super::*;
use crate::identity::authority::{Authority, request};
use crate::identity::trust::Trust;
use paceline_protocol::Subject;

const CLUSTER: u128 = 0xc1;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Nodes of one cluster on the loopback interface.
pub(crate) struct Loopback {
    authority: Authority,
}

impl Loopback {
    pub(crate) fn new() -> Self {
        Self {
            authority: Authority::found(CLUSTER).unwrap(),
        }
    }

    fn credentials(&self, node: NodeId, signer: &Authority, cluster: u128) -> Credentials {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = KeyPair::generate().unwrap();
        let subject = Subject { node, cluster };
        let signed = signer.sign(&request(&key).unwrap(), subject, SystemTime::now());
        // Everybody trusts the real authority: who must be refused is not let off by itself.
        let trust = Trust::new(self.authority.certificate(), CLUSTER, provider).unwrap();
        let named = Subject {
            node,
            cluster: CLUSTER,
        };
        Credentials::new(named, key, signed.unwrap(), trust).unwrap()
    }

    fn node(&self, node: NodeId) -> Arc<QuicTransport> {
        start(self.credentials(node, &self.authority, CLUSTER))
    }
}

fn start(credentials: Credentials) -> Arc<QuicTransport> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    QuicTransport::start(socket, credentials).unwrap()
}

fn introduce(nodes: &[Arc<QuicTransport>]) {
    for node in nodes {
        let others = nodes.iter().filter(|other| other.node() != node.node());
        let peers = others.map(|other| (other.node(), other.address().unwrap()));
        node.set_peers(peers.collect());
    }
}

impl Fabric for Loopback {
    fn nodes(&self, count: u64) -> Vec<Arc<dyn Transport>> {
        let nodes: Vec<_> = (1..=count).map(|id| self.node(NodeId(id))).collect();
        introduce(&nodes);
        let ports = nodes.into_iter().map(|node| node as Arc<dyn Transport>);
        ports.collect()
    }

    fn nowhere(&self) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    conformance::hold(&Loopback::new()).await;
}

/// Whether `stranger` gets an answer from node 2.
async fn is_let_in(loopback: &Loopback, stranger: Credentials) -> bool {
    let (a, b) = (start(stranger), loopback.node(B));
    a.set_peers(BTreeMap::from([(B, b.address().unwrap())]));
    let b: Arc<dyn Transport> = b;
    let echoes = echo(&b, Plane::Infer);
    let opened = a.open(B, Plane::Infer, Duration::from_secs(10)).await;
    echoes.abort();
    opened.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_the_cluster_are_let_in() {
    let loopback = Loopback::new();
    let other = Authority::found(CLUSTER).unwrap();
    let good = loopback.credentials(A, &loopback.authority, CLUSTER);
    assert!(is_let_in(&loopback, good).await);
    let foreign = loopback.credentials(A, &other, CLUSTER);
    assert!(!is_let_in(&loopback, foreign).await, "another authority");
    let elsewhere = loopback.credentials(A, &loopback.authority, CLUSTER + 1);
    assert!(!is_let_in(&loopback, elsewhere).await, "another cluster");
    let twin = loopback.credentials(B, &loopback.authority, CLUSTER);
    assert!(!is_let_in(&loopback, twin).await, "the node itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burnt_node_is_let_in_no_more() {
    let loopback = Loopback::new();
    let (a, b) = (loopback.node(A), loopback.node(B));
    introduce(&[a.clone(), b.clone()]);
    let [of_a, of_b] = [&a, &b].map(|node| node.shared.credentials.clone());
    let trust = of_b.trust().clone();
    let (a, b): (Arc<dyn Transport>, Arc<dyn Transport>) = (a, b);
    let echoes = echo(&b, Plane::Infer);
    assert_eq!(ask(&a, Plane::Infer, b"in").await, b"in");
    trust.set_burnt([A].into());
    b.disconnect(A);
    // The close is on its way; until it arrives, streams open into nothing.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = a.open(B, Plane::Infer, Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(OpenError::Unreachable { .. })));
    echoes.abort();
    let told = tokio::time::timeout(Duration::from_secs(5), of_a.disowned()).await;
    assert!(told.is_ok(), "it knows why");
    let other = tokio::time::timeout(Duration::from_millis(100), of_b.disowned()).await;
    assert!(other.is_err(), "and the other one is what it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_must_be_who_was_meant() {
    let loopback = Loopback::new();
    let (a, b) = (loopback.node(A), loopback.node(B));
    let somebody = NodeId(3);
    a.set_peers(BTreeMap::from([(somebody, b.address().unwrap())]));
    let opened = a
        .open(somebody, Plane::Raft, Duration::from_secs(5))
        .await
        .map(|_| ());
    assert!(
        matches!(&opened, Err(OpenError::Unreachable { peer, .. }) if *peer == somebody),
        "{opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_or_with_another_protocol_nobody_gets_in() {
    let loopback = Loopback::new();
    let b = loopback.node(B);
    let address = b.address().unwrap();
    let client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let stranger = loopback.credentials(A, &loopback.authority, CLUSTER);
    let named = stranger.peer_client(b"paceline-infer/1".to_vec()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(stranger.trust().clone()))
        .with_no_client_auth();
    anonymous.alpn_protocols = named.alpn_protocols.clone();
    let mut other = stranger.peer_client(b"paceline-infer/2".to_vec()).unwrap();
    other.enable_early_data = true;
    let subject = Subject {
        node: B,
        cluster: CLUSTER,
    };
    for (tls, is_in) in [(named, true), (anonymous, false), (other, false)] {
        let config = options::client_config(tls, Plane::Infer);
        let connecting = client
            .connect_with(config, address, &subject.to_string())
            .unwrap();
        // TLS 1.3 lets a client believe that it is in; what counts is an answer.
        let answered = async {
            let connection = connecting.await.ok()?;
            let (mut send, mut receive) = connection.open_bi().await.ok()?;
            send.write_all(&Life(7).hello()).await.ok()?;
            send.finish().ok()?;
            receive.read_to_end(64).await.ok()
        };
        let answered = timeout(Duration::from_secs(10), answered).await.unwrap();
        let life = answered.and_then(|hello| Life::of(&hello));
        assert_eq!(life.is_some(), is_in);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dialling_at_once_leaves_every_stream_whole() {
    let loopback = Loopback::new();
    for _ in 0..10 {
        let nodes = loopback.nodes(2);
        let echoes = [echo(&nodes[0], Plane::Infer), echo(&nodes[1], Plane::Infer)];
        let both = nodes.iter().map(|from| {
            let from = from.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    assert_eq!(ask(&from, Plane::Infer, b"hello").await, b"hello");
                }
            })
        });
        for asked in both.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
        echoes.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[test]
fn what_is_under_way_to_an_earlier_process_of_a_peer_ends_when_the_next_one_speaks() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let loopback = Loopback::new();
    let credentials = loopback.credentials(B, &loopback.authority, CLUSTER);
    let (ours, killed, next) = (runtime(), runtime(), runtime());
    let a = ours.block_on(async { loopback.node(A) });
    let b = killed.block_on(async { start(credentials.clone()) });
    introduce(&[a.clone(), b.clone()]);
    let limit = Duration::from_secs(10);
    let opened = ours.block_on(a.open(B, Plane::Infer, limit));
    let mut stream = opened.unwrap();
    // As when its process is killed: it says nothing any more.
    std::mem::forget(b);
    killed.shutdown_background();

    let b = next.block_on(async { start(credentials) });
    b.set_peers(BTreeMap::from([(A, a.address().unwrap())]));
    next.block_on(b.open(A, Plane::Raft, limit)).unwrap();
    let mut byte = [0];
    let answer = tokio::io::AsyncReadExt::read(&mut stream.receive, &mut byte);
    let ended = ours.block_on(async { timeout(Duration::from_secs(5), answer).await });
    assert!(ended.expect("well before it counts as idle").is_err());
}

/// Bytes of memory that this process has resident.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_and_idle_streams_cost_little_and_stop_nobody() {
    let loopback = Loopback::new();
    let nodes = [loopback.node(A), loopback.node(B)];
    introduce(&nodes);
    let target = nodes[1].address().unwrap();
    let (a, b): (Arc<dyn Transport>, Arc<dyn Transport>) = (nodes[0].clone(), nodes[1].clone());
    let echoes = echo(&b, Plane::Raft);
    assert_eq!(ask(&a, Plane::Raft, b"before").await, b"before");
    let before = resident();
    // Noise: random bytes, first bytes of handshakes that go no further, huge lengths.
    let noise = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let mut chance = paceline_core::Random::from_seed(9);
    for number in 0..20_000_u32 {
        let mut bytes: Vec<u8> = (0..150)
            .flat_map(|_| chance.next_u64().to_le_bytes())
            .collect();
        if number % 2 == 0 {
            // A long header of version 1, with the rest at random.
            bytes[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
        }
        let _ = noise.send_to(&bytes, target).await;
    }
    // Idle streams: opened with one byte each, by somebody who is let in.
    let mut idle = Vec::new();
    while idle.len() < 10_000 {
        let opened = a.open(B, Plane::Blob, Duration::from_secs(5)).await;
        let Ok(mut stream) = opened else { break };
        if tokio::io::AsyncWriteExt::write_all(&mut stream.send, b"x")
            .await
            .is_err()
        {
            break;
        }
        idle.push(stream);
    }
    assert!(idle.len() >= 4_000, "{} streams were allowed", idle.len());
    assert!(idle.len() <= 4_096, "{} streams are too many", idle.len());
    assert_eq!(ask(&a, Plane::Raft, b"after").await, b"after");
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes for noise and idle streams");
    echoes.abort();
}
