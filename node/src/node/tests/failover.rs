//! A router whose replicas are on other nodes, which do as a script says: answer, refuse, fail
//! or fall silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paceline_core::budget::Budget;
use paceline_models::CostCurve;
use paceline_protocol::frame::{Execution, Frame, LoadReport, Message};
use paceline_protocol::registry::{Change, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord};
use paceline_protocol::report::{NodeReport, ReplicaCondition, ReplicaReport};
use paceline_protocol::{ErrorCode, Failure, NodeId, ReplicaId, Tensor, TokenId};

use super::{FILES, World, model, serving};
use crate::directory::{Directory, StreamDirectory};
use crate::dispatch::{self, Handler};
use crate::gateway::infer::{InferBody, Serving, TensorAnswer, TensorRequest, Unanswered};
use crate::node::{Network, NodeHandle};
use crate::registry;
use crate::transport::memory::MemoryNetwork;
use crate::transport::{Boxed, Transport};

const HERE: NodeId = NodeId(1);
const PEERS: [NodeId; 2] = [NodeId(2), NodeId(3)];
const LIMIT: Duration = Duration::from_secs(30);

/// What a peer does with the next request, whichever peer it is.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer,
    Gone,
    Fail(ErrorCode, Execution),
    /// Its links are cut while it has the request.
    FallSilent,
}

/// Who was asked, and as which execution.
type Asked = Vec<(NodeId, u8)>;

#[derive(Default)]
struct Script {
    acts: Mutex<VecDeque<Act>>,
    asked: Mutex<Asked>,
}

struct Peer {
    node: NodeId,
    network: MemoryNetwork,
    script: Arc<Script>,
}

/// One real node without replicas of its own, and two scripted ones that have them.
struct Trio {
    node: NodeHandle,
    serving: Serving,
    network: MemoryNetwork,
    script: Arc<Script>,
    directories: Vec<(NodeId, StreamDirectory)>,
}

impl Handler for Peer {
    fn serve(&self, _peer: NodeId, request: Frame) -> Boxed<'_, Frame> {
        Box::pin(self.answer(request))
    }
}

impl Peer {
    async fn answer(&self, request: Frame) -> Frame {
        let Message::Infer {
            version,
            epoch,
            attempt,
            ..
        } = request.message
        else {
            panic!("only requests are handed over");
        };
        self.script.asked.lock().unwrap().push((self.node, attempt));
        let act = self.script.acts.lock().unwrap().pop_front();
        let load = LoadReport::default();
        let message = match act.expect("a request that the script does not know of") {
            Act::Answer => Message::Answer {
                version,
                epoch,
                load,
            },
            Act::Gone => Message::Gone { epoch },
            Act::Fail(code, execution) => Message::Failed {
                failure: Failure::new(code, "as the script says"),
                execution,
                load,
            },
            Act::FallSilent => {
                self.network.partition(&[self.node], &[HERE]);
                std::future::pending().await
            }
        };
        Frame { message, ..request }
    }
}

impl Trio {
    async fn start() -> Self {
        let network = MemoryNetwork::new(1);
        let world = World::new(CostCurve::default());
        let node = world.start_on(Network::Memory(network.clone()));
        let node = node.await.unwrap();
        node.install(&model(), FILES).await.unwrap();
        let script = Arc::new(Script::default());
        let mut directories = Vec::new();
        for peer in PEERS {
            let transport = network.join(peer);
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
            transport.set_peers(BTreeMap::from([(HERE, nowhere)]));
            let directory = StreamDirectory::start(transport.clone(), peer.0);
            directory.set_peers(BTreeSet::from([HERE]));
            directories.push((peer, directory));
            let handler = Arc::new(Peer {
                node: peer,
                network: network.clone(),
                script: script.clone(),
            });
            tokio::spawn(dispatch::serve(transport, handler, 1 << 20));
            write(&node, Change::RegisterNode(record(peer))).await;
        }
        let trio = Self {
            serving: serving(&node),
            node,
            network,
            script,
            directories,
        };
        trio.until("each peer has a replica", || trio.replicas().len() == 3)
            .await;
        for (peer, directory) in &trio.directories {
            directory.publish(trio.report(*peer));
        }
        // Its own replica goes once the others are ready: from here on nothing runs here.
        let drain = Change::Drain {
            node: HERE,
            deadline_ms: 60_000,
            computed_at: trio.node.registry.current().epoch(),
        };
        write(&trio.node, drain).await;
        trio.until("only the peers have replicas, and both are ready", || {
            let routes = trio.serving.router.routes();
            let version = routes.resolve("m", None).ok().cloned();
            trio.replicas().len() == 2 && version.is_some_and(|version| version.ready == 2)
        })
        .await;
        trio
    }

    fn replicas(&self) -> Vec<(ReplicaId, NodeId)> {
        let registry = self.node.registry.current();
        let replicas = registry.replicas().iter();
        replicas.map(|(id, replica)| (*id, replica.node)).collect()
    }

    /// Every replica of a peer is ready.
    fn report(&self, peer: NodeId) -> NodeReport {
        let ready = ReplicaReport {
            condition: ReplicaCondition::Ready,
            row_nanos: 1_000,
            memory_bytes: 1,
        };
        let own = self.replicas().into_iter().filter(|(_, at)| *at == peer);
        NodeReport {
            node: peer,
            epoch: self.node.registry.current().epoch(),
            ready: true,
            draining: None,
            pid: 1,
            replicas: own.map(|(replica, _)| (replica, ready.clone())).collect(),
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.replicas());
    }

    /// Sends a request while the peers do this, one act a request that reaches one of them.
    async fn play(
        &self,
        acts: &[Act],
        request: TensorRequest,
    ) -> (Result<TensorAnswer, Unanswered>, Asked) {
        self.set(acts);
        let ended = self.serving.infer_tensors(request).await;
        (ended, self.rest().await)
    }

    fn set(&self, acts: &[Act]) {
        self.script.asked.lock().unwrap().clear();
        *self.script.acts.lock().unwrap() = acts.iter().copied().collect();
    }

    /// Who was asked; then heals what the script has cut, and waits until all are well.
    async fn rest(&self) -> Asked {
        assert!(self.script.acts.lock().unwrap().is_empty(), "not all acted");
        self.network.heal();
        self.until("the peers are heard again", || {
            self.serving.suspects.current().is_empty()
                && self
                    .serving
                    .router
                    .routes()
                    .resolve("m", None)
                    .is_ok_and(|version| version.ready == 2)
        })
        .await;
        let taken = self.serving.budget.decide(|budget| *budget);
        assert_eq!(taken, Budget::default(), "everything was given back");
        self.script.asked.lock().unwrap().clone()
    }
}

async fn write(node: &NodeHandle, change: Change) {
    let op = registry::fresh_op().unwrap();
    node.registry.write(op, change).await.unwrap();
}

fn record(node: NodeId) -> NodeRecord {
    NodeRecord {
        id: node,
        name: format!("n{node}"),
        zone: String::new(),
        addresses: NodeAddresses::default(),
        devices: vec![DeviceRecord {
            kind: DeviceKind::Cpu,
            lanes: 1,
            memory_bytes: 1 << 30,
        }],
    }
}

fn request() -> TensorRequest {
    TensorRequest {
        model: "m".to_owned(),
        version: None,
        inputs: vec![("INPUT0".to_owned(), Tensor::from_f32(2, &[1.0, 2.0]))],
        outputs: Vec::new(),
        budget_us: 20_000_000,
        is_idempotent: true,
        is_second: false,
        lost: None,
    }
}

fn once() -> TensorRequest {
    TensorRequest {
        is_idempotent: false,
        ..request()
    }
}

fn second() -> TensorRequest {
    TensorRequest {
        is_second: true,
        ..request()
    }
}

fn executions(asked: &Asked) -> Vec<u8> {
    let nodes: BTreeSet<NodeId> = asked.iter().map(|(node, _)| *node).collect();
    assert_eq!(
        nodes.len(),
        asked.len(),
        "never twice to the same: {asked:?}"
    );
    asked.iter().map(|(_, execution)| *execution).collect()
}

fn told(ended: Result<TensorAnswer, Unanswered>) -> (ErrorCode, Execution) {
    let unanswered = ended.unwrap_err();
    (unanswered.failure.code, unanswered.execution)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_run_goes_elsewhere_and_what_failed_runs_once_more_alone() {
    let trio = Trio::start().await;
    for terms in [request(), once()] {
        let (ended, asked) = trio.play(&[Act::Gone, Act::Answer], terms).await;
        ended.unwrap();
        assert_eq!(executions(&asked), [1, 1]);
    }
    let busy = Act::Fail(ErrorCode::QueueFull, Execution::NotExecuted);
    let (ended, asked) = trio.play(&[busy, Act::Answer], once()).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [1, 1]);
    let failing = Act::Fail(ErrorCode::EngineFailed, Execution::Executed);
    let (ended, asked) = trio.play(&[failing, Act::Answer], request()).await;
    ended.unwrap();
    assert_eq!(
        executions(&asked),
        [1, 2],
        "the second shares its batch with nobody"
    );
    let (ended, _) = trio.play(&[failing], once()).await;
    assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Executed));
    let (ended, _) = trio.play(&[failing, busy], request()).await;
    assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Executed));
    let (ended, asked) = trio.play(&[busy, busy], request()).await;
    assert_eq!(told(ended), (ErrorCode::QueueFull, Execution::NotExecuted));
    assert_eq!(asked.len(), 2, "there is no third");
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_gone_everywhere_is_looked_for_anew_and_then_told() {
    let trio = Trio::start().await;
    // Both say so, and both are asked again once anything has changed.
    let acts = [Act::Gone, Act::Gone, Act::Gone, Act::Answer];
    let change = async {
        trio.until("both were asked", || {
            trio.script.asked.lock().unwrap().len() == 2
        })
        .await;
        let token = Change::RevokeToken {
            token: TokenId([7; 8]),
        };
        // Refused, but an entry like any other.
        let op = registry::fresh_op().unwrap();
        trio.node.registry.write(op, token).await.unwrap_err();
    };
    let ((ended, asked), ()) = tokio::join!(trio.play(&acts, request()), change);
    ended.unwrap();
    assert_eq!(asked.len(), 4);
    // Whatever changes, they are gone: it has its time, and is told.
    let before = Instant::now();
    trio.set(&[Act::Gone; 1_000]);
    let ended = trio.serving.infer_tensors(request()).await;
    trio.script.acts.lock().unwrap().clear();
    let asked = trio.rest().await;
    let gone = (ErrorCode::VersionGone, Execution::NotExecuted);
    assert_eq!(told(ended), gone);
    assert!(before.elapsed() >= Duration::from_secs(2));
    assert!(asked.iter().all(|(_, execution)| *execution == 1));
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_replaced_once_and_the_second_one_is_poison() {
    let trio = Trio::start().await;
    let (ended, asked) = trio.play(&[Act::FallSilent, Act::Answer], request()).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [1, 2]);

    let poison = (ErrorCode::Poison, Execution::Unknown);
    let (ended, asked) = trio
        .play(&[Act::FallSilent, Act::FallSilent], request())
        .await;
    assert_eq!(told(ended), poison);
    assert_eq!(executions(&asked), [1, 2], "and no third");

    // Whatever the second one says instead, the first may have run it.
    let unreachable = (ErrorCode::Unreachable, Execution::Unknown);
    let full = Act::Fail(ErrorCode::QueueFull, Execution::NotExecuted);
    for second in [full, Act::Gone] {
        let (ended, asked) = trio.play(&[Act::FallSilent, second], request()).await;
        assert_eq!(told(ended), unreachable, "{second:?}");
        assert_eq!(executions(&asked), [1, 2]);
    }
    let text = trio.serving.metrics.render();
    let counted = "paceline_gateway_extra_attempts_total{why=\"failover\"} 4";
    assert!(text.contains(counted), "{text}");
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_run_twice_and_what_a_client_sends_again_runs_once() {
    let trio = Trio::start().await;
    let unreachable = (ErrorCode::Unreachable, Execution::Unknown);
    let (ended, asked) = trio.play(&[Act::FallSilent], once()).await;
    assert_eq!(told(ended), unreachable);
    assert_eq!(executions(&asked), [1]);
    let (ended, asked) = trio.play(&[Act::FallSilent], second()).await;
    assert_eq!(told(ended), unreachable);
    assert_eq!(executions(&asked), [2], "the client's second is the last");
    let (ended, asked) = trio.play(&[Act::Gone, Act::Answer], second()).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [2, 2], "the first of them did not run");
    // Whom the client has lost is not asked, though nobody here calls it silent yet.
    for _ in 0..8 {
        let lost = TensorRequest {
            lost: Some(PEERS[0]),
            ..second()
        };
        let (ended, asked) = trio.play(&[Act::Answer], lost).await;
        ended.unwrap();
        assert_eq!(asked, [(PEERS[1], 2)]);
    }

    // The same flag, as HTTP has it.
    for parameter in ["\"idempotent\":false", "\"sequence_id\":7"] {
        trio.set(&[Act::FallSilent]);
        let body = format!(
            r#"{{"parameters":{{{parameter}}},"inputs":[{{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[1,2]}}]}}"#
        );
        let body = InferBody {
            model: "m",
            version: None,
            json_bytes: None,
            body: body.into(),
            epoch_seen: None,
        };
        let failure = trio.serving.infer(body).await.err().unwrap();
        assert_eq!(failure.code, ErrorCode::Unreachable);
        assert_eq!(executions(&trio.rest().await), [1]);
    }
    trio.node.shutdown(Duration::from_secs(5)).await;
}
