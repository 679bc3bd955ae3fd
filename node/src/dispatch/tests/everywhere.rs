//! One list of cases for the twin in memory and for QUIC, and what only paused time can show.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use paceline_protocol::frame::{Execution, Frame, Infer, LoadReport, Message};
use paceline_protocol::{
    Criticality, Epoch, ErrorCode, ModelName, NodeId, ReplicaId, TenantId, Tensor, VersionNumber,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::super::*;
use crate::transport::conformance::{Fabric, open};
use crate::transport::memory::MemoryNetwork;
use crate::transport::quic::tests::Loopback;
use crate::transport::{Boxed, Plane, Transport};

const B: NodeId = NodeId(2);
const BODY: usize = 32 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// What the scripted handler does, said by the request's epoch.
const ECHO: u64 = 0;
const WAIT: u64 = 1;
const PANIC: u64 = 2;

#[derive(Default)]
struct Scripted {
    begun: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Handler for Scripted {
    fn serve(&self, _peer: NodeId, request: Frame) -> Boxed<'_, Frame> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.answer(request))
    }
}

/// Counts who is dropped while it waits.
struct Hanging<'a>(&'a Scripted);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Scripted {
    async fn answer(&self, request: Frame) -> Frame {
        let Message::Infer(Infer { version, epoch, .. }) = request.message else {
            panic!("only requests are handed over");
        };
        assert_ne!(epoch.0, PANIC, "as told");
        if epoch.0 == WAIT {
            let _hanging = Hanging(self);
            std::future::pending::<()>().await;
        }
        let message = Message::Answer {
            version,
            epoch,
            load: LoadReport::default(),
            waited_us: 0,
        };
        Frame { message, ..request }
    }
}

fn request(what: u64, tensor: Tensor) -> Frame {
    Frame {
        number: 0,
        message: Message::Infer(Infer {
            model: ModelName::new("echo").unwrap(),
            version: VersionNumber(1),
            replica: ReplicaId(7),
            epoch: Epoch(what),
            budget_us: 1_000_000,
            attempt: 1,
            criticality: Criticality::default(),
            tenant: TenantId::DEFAULT,
        }),
        tensors: vec![tensor],
    }
}

fn tensor(values: usize, first: f32) -> Tensor {
    let mut values = vec![0.5; values];
    values[0] = first;
    Tensor::from_f32(1, &values)
}

fn within(limit: Duration) -> Instant {
    Instant::now() + limit
}

struct Pair {
    nodes: Vec<Arc<dyn Transport>>,
    peers: Peers,
    handler: Arc<Scripted>,
    serving: tokio::task::JoinHandle<()>,
}

fn pair(fabric: &impl Fabric) -> Pair {
    let nodes = fabric.nodes(2);
    let handler = Arc::new(Scripted::default());
    Pair {
        peers: Peers::new(nodes[0].clone(), BODY),
        serving: tokio::spawn(serve(nodes[1].clone(), handler.clone(), BODY)),
        handler,
        nodes,
    }
}

impl Pair {
    async fn ask(&self, frame: Frame) -> Result<Frame, Lost> {
        self.peers.ask(B, frame, within(LIMIT)).await
    }

    /// Begins a request that is answered to nobody.
    async fn hanging(&self, tensor: Tensor) -> tokio::task::JoinHandle<Result<Frame, Lost>> {
        let begun = self.handler.begun.load(Ordering::Relaxed);
        let peers = self.peers.clone();
        let asked = tokio::spawn(async move {
            let frame = request(WAIT, tensor);
            peers.ask(B, frame, within(LIMIT)).await
        });
        until(|| self.handler.begun.load(Ordering::Relaxed) > begun).await;
        asked
    }

    async fn is_cancelled(&self, times: usize) {
        until(|| self.handler.cancelled.load(Ordering::Relaxed) == times).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, waiting).await.expect("it happens");
}

async fn hold(fabric: &impl Fabric) {
    everybody_gets_its_own_answer(&pair(fabric)).await;
    who_loses_interest_cancels(&pair(fabric)).await;
    a_deadline_is_told_to_the_peer(&pair(fabric)).await;
    what_waits_ends_with_its_connection(&pair(fabric)).await;
    a_handler_that_panics_is_a_failure(&pair(fabric)).await;
    a_full_peer_is_a_typed_refusal(&pair(fabric)).await;
    who_cannot_be_reached_was_sent_nothing(fabric).await;
    hostile_callers_are_cut_off_alone(&pair(fabric)).await;
    hostile_answers_end_what_waits(fabric).await;
}

async fn everybody_gets_its_own_answer(pair: &Pair) {
    // 64 bytes; at both sides of a lane's limit; a picture; more than a window.
    for (number, values) in [16, 3_900, 4_200, 16 << 10, 5 << 20]
        .into_iter()
        .enumerate()
    {
        let sent = tensor(values, number as f32);
        let answer = pair.ask(request(ECHO, sent.clone())).await.unwrap();
        assert!(answer.tensors == [sent], "{values}");
        assert_eq!(answer.tensors[0].data().as_ptr().addr() % 64, 0);
    }
    let asking = (0..600).map(|number| {
        let peers = pair.peers.clone();
        // Every tenth goes on a stream of its own.
        let values = if number % 10 == 0 { 20_000 } else { 16 };
        tokio::spawn(async move {
            let sent = tensor(values, number as f32);
            let frame = request(ECHO, sent.clone());
            let answer = peers.ask(B, frame, within(LIMIT)).await.unwrap();
            assert!(answer.tensors == [sent]);
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
}

async fn who_loses_interest_cancels(pair: &Pair) {
    for (times, values) in [16, 20_000].into_iter().enumerate() {
        let asked = pair.hanging(tensor(values, 1.0)).await;
        assert_eq!(pair.handler.cancelled.load(Ordering::Relaxed), times);
        asked.abort();
        pair.is_cancelled(times + 1).await;
    }
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
}

async fn a_deadline_is_told_to_the_peer(pair: &Pair) {
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
    for (times, values) in [16, 20_000].into_iter().enumerate() {
        let frame = request(WAIT, tensor(values, 1.0));
        let limit = within(Duration::from_millis(800));
        let lost = pair.peers.ask(B, frame, limit).await;
        assert!(matches!(lost, Err(Lost::Late { .. })), "{lost:?}");
        pair.is_cancelled(times + 1).await;
    }
}

async fn what_waits_ends_with_its_connection(pair: &Pair) {
    let waiting = [
        pair.hanging(tensor(16, 1.0)).await,
        pair.hanging(tensor(20_000, 1.0)).await,
    ];
    let started = Instant::now();
    pair.nodes[0].disconnect(B);
    for asked in waiting {
        let lost = asked.await.unwrap();
        assert!(matches!(lost, Err(Lost::Silent { .. })), "{lost:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    pair.is_cancelled(2).await;
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
    // A node that stops serving lets nobody wait either.
    let asked = pair.hanging(tensor(16, 1.0)).await;
    pair.serving.abort();
    let lost = timeout(LIMIT, asked).await.unwrap().unwrap();
    assert!(matches!(lost, Err(Lost::Silent { .. })), "{lost:?}");
    pair.is_cancelled(3).await;
}

async fn a_handler_that_panics_is_a_failure(pair: &Pair) {
    let answer = pair.ask(request(PANIC, tensor(16, 1.0))).await.unwrap();
    let Message::Failed {
        failure, execution, ..
    } = answer.message
    else {
        panic!("not a failure");
    };
    assert_eq!(failure.code, ErrorCode::Internal);
    assert_eq!(execution, Execution::Unknown);
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
}

async fn a_full_peer_is_a_typed_refusal(pair: &Pair) {
    let waiting = (0..PERMITS).map(|_| {
        let peers = pair.peers.clone();
        tokio::spawn(async move {
            let frame = request(WAIT, tensor(16, 1.0));
            peers.ask(B, frame, within(LIMIT)).await
        })
    });
    let waiting: Vec<_> = waiting.collect();
    until(|| pair.handler.begun.load(Ordering::Relaxed) == PERMITS).await;
    let refused = pair.ask(request(ECHO, tensor(16, 1.0))).await;
    assert!(matches!(refused, Err(Lost::Full { .. })));
    waiting.iter().for_each(|asked| asked.abort());
    pair.is_cancelled(PERMITS).await;
    // The permits come back once the cancelling was written.
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
}

async fn who_cannot_be_reached_was_sent_nothing(fabric: &impl Fabric) {
    let node = fabric.nodes(1).remove(0);
    node.set_peers([(NodeId(9), fabric.nowhere())].into());
    let peers = Peers::new(node, BODY);
    for peer in [NodeId(8), NodeId(9)] {
        for values in [16, 20_000] {
            let frame = request(ECHO, tensor(values, 1.0));
            let lost = peers.ask(peer, frame, within(LIMIT)).await;
            assert!(matches!(lost, Err(Lost::NotSent { .. })), "{lost:?}");
        }
    }
    let too_large = request(ECHO, tensor(9 << 20, 1.0));
    let lost = peers.ask(NodeId(9), too_large, within(LIMIT)).await;
    assert!(matches!(lost, Err(Lost::NotSent { .. })));
}

async fn hostile_callers_are_cut_off_alone(pair: &Pair) {
    let encoded = |frame: Frame| frame.encode().unwrap().concat();
    let answer = Frame {
        message: Message::Gone { epoch: Epoch(1) },
        ..request(ECHO, tensor(16, 1.0))
    };
    let twice = encoded(request(WAIT, tensor(16, 1.0))).repeat(2);
    let mut promise = encoded(request(ECHO, tensor(16, 1.0)));
    promise[8..16].copy_from_slice(&(BODY as u64 + 1).to_le_bytes());
    let waiting = pair.hanging(tensor(16, 1.0)).await;
    for hostile in [vec![7; 100], encoded(answer), twice, promise] {
        let mut stream = open(&pair.nodes[0], B, Plane::Infer).await;
        // It may be cut off before all is written.
        let _ = stream.send.write_all(&hostile).await;
        let mut rest = Vec::new();
        let read = stream.receive.read_to_end(&mut rest);
        assert!(timeout(LIMIT, read).await.expect("cut off").is_err());
    }
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
    assert!(!waiting.is_finished(), "others are not hurt");
    waiting.abort();
}

async fn hostile_answers_end_what_waits(fabric: &impl Fabric) {
    let nodes = fabric.nodes(2);
    let hostile = nodes[1].clone();
    let answering = tokio::spawn(async move {
        let mut number = 0_u64;
        while let Some(mut incoming) = hostile.accept(Plane::Infer).await {
            number += 1;
            let bytes = match number % 3 {
                0 => vec![7; 300],
                1 => request(ECHO, tensor(16, 1.0)).encode().unwrap().concat(),
                _ => Vec::new(),
            };
            let _ = incoming.stream.send.write_all(&bytes).await;
            incoming.stream.send.finish();
        }
    });
    let peers = Peers::new(nodes[0].clone(), BODY);
    for values in [16, 20_000].repeat(6) {
        let frame = request(ECHO, tensor(values, 1.0));
        let lost = timeout(LIMIT / 2, peers.ask(B, frame, within(LIMIT))).await;
        assert!(lost.expect("it does not hang").is_err());
    }
    answering.abort();
}

#[tokio::test(start_paused = true)]
async fn requests_go_over_the_twin_in_memory() {
    hold(&MemoryNetwork::new(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_over_quic() {
    hold(&Loopback::new()).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_lane_ends_only_when_all_on_it_is_answered() {
    let pair = pair(&MemoryNetwork::new(2));
    let waiting = pair.hanging(tensor(16, 1.0)).await;
    sleep(Duration::from_secs(50)).await;
    let second = pair.hanging(tensor(16, 1.0)).await;
    sleep(Duration::from_secs(12)).await;
    for _ in 0..4 {
        pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
    }
    let lost = waiting.await.unwrap();
    assert!(matches!(lost, Err(Lost::Late { .. })), "{lost:?}");
    assert!(!second.is_finished(), "its lane is old, and still there");
    second.abort();
    pair.is_cancelled(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_a_cut_ends_at_its_deadline() {
    let network = MemoryNetwork::new(3);
    let pair = pair(&network);
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
    network.partition(&[NodeId(1)], &[B]);
    let started = Instant::now();
    let limit = Duration::from_millis(300);
    let frame = request(ECHO, tensor(16, 1.0));
    let lost = pair.peers.ask(B, frame, within(limit)).await;
    assert!(matches!(lost, Err(Lost::Late { .. })), "{lost:?}");
    assert!(started.elapsed() < limit * 2);
    network.heal();
    pair.ask(request(ECHO, tensor(16, 1.0))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_no_answers_is_asked_for_no_more_requests() {
    let pair = pair(&MemoryNetwork::new(4));
    let mut stream = open(&pair.nodes[0], B, Plane::Infer).await;
    let flooding = async {
        for number in 0..40_000 {
            let frame = Frame {
                number,
                ..request(ECHO, tensor(1_000, 1.0))
            };
            let bytes = frame.encode().unwrap().concat();
            stream.send.write_all(&bytes).await.unwrap();
        }
    };
    let held = timeout(Duration::from_secs(30), flooding).await;
    assert!(held.is_err(), "the flood has to wait");
    let begun = pair.handler.begun.load(Ordering::Relaxed);
    // What is served at a time, and what two windows of 1 MiB and the buffers hold.
    assert!((200..=PERMITS + 600).contains(&begun), "{begun} requests");
    pair.ask(request(ECHO, tensor(5_000, 1.0)))
        .await
        .unwrap_or_else(|lost| {
            panic!("a request on another stream: {lost}");
        });
}
