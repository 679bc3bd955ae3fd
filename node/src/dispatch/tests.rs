//! Requests over lanes and over streams of their own, on the twin of the transport.

mod everywhere;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::frame::{Execution, Frame, Infer, Message};
use paceline_protocol::{
    Criticality, Dtype, Epoch, ErrorCode, ModelName, ReplicaId, Shape, TenantId, Tensor,
};
use paceline_protocol::{VersionNumber, frame};
use tokio::time::{Instant, sleep};

use super::*;
use crate::transport::memory::MemoryNetwork;
use crate::transport::{Boxed, Transport};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const BODY_MAX: usize = 64 << 20;

/// Answers with the request's tensors, after as many milliseconds as the model's version says.
#[derive(Default)]
struct Echo {
    running: AtomicUsize,
    done: AtomicUsize,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Echo {
    fn serve(&self, peer: NodeId, frame: Frame) -> Boxed<'_, Frame> {
        assert_eq!(peer, A);
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(&self.running);
        Box::pin(async move {
            let Message::Infer(Infer { version, epoch, .. }) = frame.message else {
                panic!("{frame:?}");
            };
            sleep(Duration::from_millis(version.0.into())).await;
            self.done.fetch_add(1, Ordering::SeqCst);
            drop(running);
            Frame {
                number: 0,
                message: Message::Answer {
                    version,
                    epoch,
                    load: frame::LoadReport::default(),
                    waited_us: 0,
                },
                tensors: frame.tensors,
            }
        })
    }
}

fn request(floats: usize, takes_ms: u32) -> Frame {
    let data = Bytes::from(vec![floats as u8; floats * 4]);
    let shape = Shape::new(&[1, floats as u64]).unwrap();
    Frame {
        number: 0,
        message: Message::Infer(Infer {
            model: ModelName::new("m").unwrap(),
            version: VersionNumber(takes_ms),
            replica: ReplicaId(3),
            epoch: Epoch(9),
            budget_us: 1_000_000,
            attempt: 1,
            criticality: Criticality::default(),
            tenant: TenantId::DEFAULT,
        }),
        tensors: vec![Tensor::new(Dtype::Fp32, shape, data).unwrap()],
    }
}

struct Pair {
    network: MemoryNetwork,
    asker: Arc<dyn Transport>,
    peers: Peers,
    echo: Arc<Echo>,
}

fn pair() -> Pair {
    let network = MemoryNetwork::new(1);
    let addresses: BTreeMap<NodeId, SocketAddr> = [A, B]
        .map(|node| (node, (Ipv4Addr::LOCALHOST, 1).into()))
        .into();
    let [asker, answerer] = [A, B].map(|node| {
        let transport = network.join(node);
        transport.set_peers(addresses.clone());
        transport as Arc<dyn Transport>
    });
    let echo = Arc::new(Echo::default());
    tokio::spawn(serve(answerer, echo.clone(), BODY_MAX));
    Pair {
        network,
        peers: Peers::new(asker.clone(), BODY_MAX),
        asker,
        echo,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test(start_paused = true)]
async fn small_and_large_requests_come_back_whole() {
    let pair = pair();
    for floats in [1, 16, 4_000, 5_000, 150_528, 5 << 20] {
        let sent = request(floats, 0);
        let answer = pair.peers.ask(B, sent.clone(), soon()).await.unwrap();
        assert_eq!(answer.tensors, sent.tensors, "{floats}");
        assert!(matches!(answer.message, Message::Answer { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_get_each_their_own_and_the_slow_do_not_hold_the_fast() {
    let pair = pair();
    let slow = {
        let peers = pair.peers.clone();
        tokio::spawn(async move { peers.ask(B, request(1, 3_000), soon()).await })
    };
    let asking = (1..500).map(|floats| {
        let peers = pair.peers.clone();
        tokio::spawn(async move {
            let answer = peers.ask(B, request(floats, 0), soon()).await.unwrap();
            assert_eq!(answer.tensors, request(floats, 0).tensors);
        })
    });
    let started = Instant::now();
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    slow.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_cancels() {
    let pair = pair();
    for floats in [1, 100_000] {
        let asking = pair.peers.ask(B, request(floats, 2_000), soon());
        let given_up = tokio::time::timeout(Duration::from_millis(100), asking).await;
        assert!(given_up.is_err());
        sleep(Duration::from_millis(50)).await;
        assert_eq!(pair.echo.running.load(Ordering::SeqCst), 0, "{floats}");
        assert_eq!(pair.echo.done.load(Ordering::SeqCst), 0, "not computed");
    }
    let late = Instant::now() + Duration::from_millis(100);
    let answer = pair.peers.ask(B, request(1, 2_000), late).await;
    assert_eq!(answer, Err(Lost::Late { peer: B }));
    assert_eq!(Instant::now(), late);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_goes_tells_everybody_who_waits_at_once() {
    let pair = pair();
    let asking: Vec<_> = [1, 2, 100_000]
        .into_iter()
        .map(|floats| {
            let peers = pair.peers.clone();
            tokio::spawn(async move { peers.ask(B, request(floats, 3_000), soon()).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    let lost_at = Instant::now();
    pair.asker.disconnect(B);
    for asked in asking {
        let lost = asked.await.unwrap().unwrap_err();
        assert!(matches!(lost, Lost::Silent { peer: B, .. }), "{lost}");
    }
    assert!(lost_at.elapsed() < Duration::from_millis(50));
    // The next request opens a new lane.
    pair.peers.ask(B, request(1, 0), soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_was_not_executed() {
    let pair = pair();
    let nobody = pair.peers.ask(NodeId(9), request(1, 0), soon()).await;
    assert!(matches!(nobody, Err(Lost::NotSent { .. })), "{nobody:?}");
    pair.network.partition(&[A], &[B]);
    let cut = pair.peers.ask(B, request(1, 0), soon()).await;
    assert!(matches!(cut, Err(Lost::NotSent { .. })), "{cut:?}");
    assert_eq!(pair.echo.done.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn more_than_a_peer_takes_is_refused_at_once_and_typed() {
    let pair = pair();
    let held: Vec<_> = (0..PERMITS)
        .map(|_| {
            let peers = pair.peers.clone();
            tokio::spawn(async move { peers.ask(B, request(1, 2_000), soon()).await })
        })
        .collect();
    sleep(Duration::from_millis(200)).await;
    let one_more = pair.peers.ask(B, request(1, 0), soon()).await;
    assert_eq!(one_more, Err(Lost::Full { peer: B }));
    // Another asker with the same name meets the answering side's own bound.
    let other = Peers::new(pair.asker.clone(), BODY_MAX);
    let refused = other.ask(B, request(1, 0), soon()).await.unwrap();
    let Message::Failed {
        failure, execution, ..
    } = refused.message
    else {
        panic!("{refused:?}");
    };
    assert_eq!(failure.code, ErrorCode::Overloaded);
    assert_eq!(execution, Execution::NotExecuted);
    for held in held {
        held.await.unwrap().unwrap();
    }
}
