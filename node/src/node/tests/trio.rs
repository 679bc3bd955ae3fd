//! One real node whose replicas are all on two others, which do as a script says: answer, refuse,
//! fail or fall silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paceline_core::budget::Budget;
use paceline_models::CostCurve;
use paceline_protocol::frame::{Execution, Frame, Infer, LoadReport, Message};
use paceline_protocol::registry::{Change, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord};
use paceline_protocol::report::{NodeReport, ReplicaCondition, ReplicaReport};
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, ReplicaId, VersionNumber};

use super::{FILES, World, model, serving};
use crate::directory::{Directory, StreamDirectory};
use crate::dispatch::{self, Handler};
use crate::gateway::infer::{Serving, TensorAnswer, TensorRequest, Unanswered};
use crate::node::{Network, NodeHandle};
use crate::registry;
use crate::transport::memory::MemoryNetwork;
use crate::transport::{Boxed, Transport};

const HERE: NodeId = NodeId(1);
pub(super) const PEERS: [NodeId; 2] = [NodeId(2), NodeId(3)];
/// An epoch that only the peers know.
pub(super) const AHEAD: Epoch = Epoch(1 << 40);
const LIMIT: Duration = Duration::from_secs(30);

/// What a peer does with the next request, whichever peer it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Answer,
    /// With outputs that nobody here knows.
    AnswerElse,
    Gone,
    Fail(ErrorCode, Execution),
    /// Its links are cut while it has the request.
    FallSilent,
}

/// Who was asked, and as which execution.
pub(super) type Asked = Vec<(NodeId, u8)>;

#[derive(Default)]
pub(super) struct Script {
    pub(super) acts: Mutex<VecDeque<Act>>,
    pub(super) asked: Mutex<Asked>,
}

struct Peer {
    node: NodeId,
    network: MemoryNetwork,
    script: Arc<Script>,
}

/// One real node without replicas of its own, and two scripted ones that have them.
pub(super) struct Trio {
    pub(super) node: NodeHandle,
    pub(super) serving: Serving,
    network: MemoryNetwork,
    pub(super) script: Arc<Script>,
    directories: Vec<(NodeId, StreamDirectory)>,
}

impl Handler for Peer {
    fn serve(&self, _peer: NodeId, request: Frame) -> Boxed<'_, Frame> {
        Box::pin(self.answer(request))
    }
}

impl Peer {
    async fn answer(&self, request: Frame) -> Frame {
        let (attempt, of) = match request.message {
            Message::Infer(Infer {
                version,
                epoch,
                attempt,
                ..
            }) => (attempt, Some((version, epoch))),
            // Sent on for a client that has seen more than the real node.
            Message::ClientInfer(head) => (head.attempt, None),
            other => panic!("only requests are handed over: {other:?}"),
        };
        self.script.asked.lock().unwrap().push((self.node, attempt));
        let act = self.script.acts.lock().unwrap().pop_front();
        let load = LoadReport::default();
        let message = match act.expect("a request that the script does not know of") {
            act @ (Act::Answer | Act::AnswerElse) => match (of, act) {
                (Some((version, epoch)), _) => Message::Answer {
                    version,
                    epoch,
                    load,
                    waited_us: 0,
                },
                (None, act) => Message::ClientAnswer {
                    version: VersionNumber(1),
                    epoch: AHEAD,
                    outputs: vec![match act {
                        Act::AnswerElse => "ELSE".to_owned(),
                        _ => "OUTPUT0".to_owned(),
                    }],
                    stale_seconds: None,
                },
            },
            Act::Gone => Message::Gone {
                epoch: of.map_or(AHEAD, |(_, epoch)| epoch),
            },
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
    pub(super) async fn start() -> Self {
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

    /// Lets the peers say that they know more than the real node.
    pub(super) async fn say_more(&self) {
        for (peer, directory) in &self.directories {
            let epoch = AHEAD;
            directory.publish(NodeReport {
                epoch,
                ..self.report(*peer)
            });
        }
        self.until("both are ahead", || {
            let nodes = self.serving.observed.nodes();
            nodes.values().filter(|facts| facts.epoch == AHEAD).count() == 2
        })
        .await;
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
            demands: Vec::new(),
            canaries: Vec::new(),
        }
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.replicas());
    }

    /// Sends a request while the peers do this, one act a request that reaches one of them.
    pub(super) async fn play(
        &self,
        acts: &[Act],
        request: TensorRequest,
    ) -> (Result<TensorAnswer, Unanswered>, Asked) {
        self.set(acts);
        let ended = self.serving.infer_tensors(request).await;
        (ended, self.rest().await)
    }

    pub(super) fn set(&self, acts: &[Act]) {
        self.script.asked.lock().unwrap().clear();
        *self.script.acts.lock().unwrap() = acts.iter().copied().collect();
    }

    /// Who was asked; then heals what the script has cut, and waits until all are well.
    pub(super) async fn rest(&self) -> Asked {
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

/// How they were asked: as which executions, each by another peer.
pub(super) fn executions(asked: &Asked) -> Vec<u8> {
    let nodes: BTreeSet<NodeId> = asked.iter().map(|(node, _)| *node).collect();
    assert_eq!(
        nodes.len(),
        asked.len(),
        "never twice to the same: {asked:?}"
    );
    asked.iter().map(|(_, execution)| *execution).collect()
}
