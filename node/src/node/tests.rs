//! Whole nodes in this process, on disks in memory and with the scripted engine.

mod ahead;
mod canary;
mod copies;
mod failover;
mod leaving;
mod models;
mod shadow;
mod tensors;
mod trio;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use paceline_models::{CostCurve, StubEngine};
use paceline_protocol::{ErrorCode, ModelName};

use super::*;
use crate::clock::Wall;
use crate::gateway::infer::{Content, InferBody, Serving};
use crate::storage::MemoryDisk;
use crate::tenants::Caller;
use crate::threads::Threads;
use crate::transport::memory::MemoryNetwork;

const FILES: &[(&str, &[u8])] = &[(
    "model.toml",
    br#"
name = "m"
family = "identity"
[[inputs]]
name = "INPUT0"
dtype = "FP32"
shape = [-1, 2]
[[outputs]]
name = "OUTPUT0"
dtype = "FP32"
shape = [-1, 2]
[batching]
rows_max = 8
"#,
)];

/// Disks and an engine that outlive a node.
struct World {
    root: MemoryDisk,
    raft: MemoryDisk,
    blobs: MemoryDisk,
    engine: StubEngine,
    config: Config,
    network: MemoryNetwork,
}

impl World {
    fn new(cost: CostCurve) -> Self {
        let mut config = Config::default();
        config.http.listen.set_port(0);
        config.grpc.listen.set_port(0);
        config.metrics.listen.set_port(0);
        Self {
            root: MemoryDisk::new(),
            raft: MemoryDisk::new(),
            blobs: MemoryDisk::new(),
            engine: StubEngine::new(cost),
            config,
            network: MemoryNetwork::new(1),
        }
    }

    async fn start(&self) -> Result<NodeHandle, StartError> {
        let network = Network::Memory(self.network.clone());
        self.start_on(network).await
    }

    async fn start_on(&self, network: Network) -> Result<NodeHandle, StartError> {
        let ports = Ports {
            root: Arc::new(self.root.clone()),
            raft: Arc::new(self.raft.clone()),
            blobs: Arc::new(self.blobs.clone()),
            engine: Arc::new(self.engine.clone()),
            network,
            front: crate::gateway::Front::Sockets,
            threads: Threads::Own,
            seed: 1,
            wall: Wall::System,
            pid: 1,
        };
        Box::pin(Node::start(self.config.clone(), ports)).await
    }

    /// What a power failure leaves.
    fn after_crash(&self, seed: u64) -> Self {
        Self {
            root: self.root.crash(seed),
            raft: self.raft.crash(seed + 1),
            blobs: self.blobs.crash(seed + 2),
            engine: self.engine.clone(),
            config: self.config.clone(),
            network: MemoryNetwork::new(1),
        }
    }
}

fn model() -> ModelName {
    ModelName::new("m").unwrap()
}

fn serving(node: &NodeHandle) -> Serving {
    node.serving.clone()
}

async fn infer(serving: &Serving, parameters: &str) -> Result<Bytes, ErrorCode> {
    let body = format!(
        r#"{{"parameters":{{{parameters}}},"inputs":[{{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[1,2]}}]}}"#
    );
    let body = InferBody {
        model: "m",
        version: None,
        content: Content::json(body),
        epoch_seen: None,
        caller: Caller::ANONYMOUS,
        unit: None,
        sequence: None,
    };
    let answered = serving.infer(body).await;
    answered
        .map(|answered| answered.rendered.head)
        .map_err(|failure| failure.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_installed_is_there_after_a_power_failure() {
    let world = World::new(CostCurve::default());
    let node = world.start().await.unwrap();
    let version = node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let answer = infer(&serving(&node), "").await.unwrap();
    let before = node.registry.current();
    let crashed = world.after_crash(5);
    node.shutdown(Duration::from_secs(5)).await;
    let node = crashed.start().await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let after = node.registry.current();
    assert_eq!(after.models(), before.models());
    assert_eq!(after.replicas(), before.replicas());
    assert_eq!(infer(&serving(&node), "").await.unwrap(), answer);
    assert_eq!(
        node.install(&model(), FILES).await.unwrap(),
        version,
        "it is known already"
    );
    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_panics_is_loaded_again_and_costs_no_request() {
    let world = World::new(CostCurve::default());
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let serving = serving(&node);
    let script = world.engine.script();
    let (loads, batches) = (script.loads(), script.batches());
    script.panic_run(1);
    // It waits for the engine, the only one that there is, and runs there once more.
    infer(&serving, "").await.unwrap();
    assert_eq!(script.loads(), loads + 1);
    assert!(script.batches() > batches + 1);
    infer(&serving, "").await.unwrap();
    assert_eq!(script.loads(), loads + 1);
    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_request_ends_by_its_deadline_under_overload() {
    let mut world = World::new(CostCurve {
        fixed_us: 30_000,
        per_row_us: 0,
    });
    world.config.admission.permits = 64;
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let serving = serving(&node);
    let requests: Vec<_> = (0..300)
        .map(|_| {
            let serving = serving.clone();
            tokio::spawn(async move {
                let began = std::time::Instant::now();
                let end = infer(&serving, r#""timeout":150000"#).await;
                (end.map(drop), began.elapsed())
            })
        })
        .collect();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for request in requests {
        let (end, took) = request.await.unwrap();
        assert!(
            took < Duration::from_millis(150 + 250),
            "{end:?} took {took:?}"
        );
        let end = end.map_or_else(|code| code.name().to_owned(), |()| "OK".to_owned());
        *counts.entry(end).or_default() += 1;
    }
    assert!(counts["OK"] >= 16, "{counts:?}");
    assert!(counts["OVERLOADED"] >= 200, "{counts:?}");
    assert!(
        counts
            .keys()
            .all(|end| ["OK", "OVERLOADED", "DEADLINE_EXCEEDED"].contains(&end.as_str()))
    );
    assert_eq!(node.in_flight.in_flight(), 0, "every permit came back");
    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_matters_more_is_served_before_all_that_waits() {
    let world = World::new(CostCurve {
        fixed_us: 30_000,
        per_row_us: 0,
    });
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let serving = serving(&node);
    let ask = |priority: u64| {
        let serving = serving.clone();
        tokio::spawn(async move {
            let parameters = format!(r#""timeout":60000000,"priority":{priority}"#);
            infer(&serving, &parameters).await.unwrap();
        })
    };
    let sheddable: Vec<_> = (0..1_000).map(|_| ask(4)).collect();
    let all_in = async {
        while node.in_flight.in_flight() < 900 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, all_in).await.unwrap();
    ask(1).await.unwrap();
    let waiting = node.in_flight.in_flight();
    assert!(waiting > 700, "{waiting} of 1,000 wait, after it");
    for request in sheddable {
        request.await.unwrap();
    }
    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_live_in_one_process() {
    let worlds: Vec<World> = (0..3).map(|_| World::new(CostCurve::default())).collect();
    let mut nodes = Vec::new();
    for world in &worlds {
        let node = world.start().await.unwrap();
        node.install(&model(), FILES).await.unwrap();
        nodes.push(node);
    }
    for node in nodes {
        assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
        assert!(infer(&serving(&node), "").await.is_ok());
        node.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_and_a_port_in_use_are_named() {
    let world = World::new(CostCurve::default());
    let node = world.start().await.unwrap();
    match world.start().await {
        Err(error @ StartError::Lock(_)) => assert!(error.to_string().contains("in use")),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two nodes share a directory"),
    }
    let mut other = World::new(CostCurve::default());
    other.config.http.listen = node.addresses().http;
    match other.start().await {
        Err(error @ StartError::Bind { .. }) => {
            let text = error.to_string();
            let port = node.addresses().http.port().to_string();
            assert!(
                text.contains("http.listen") && text.contains(&port),
                "{text}"
            );
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two nodes share a port"),
    }
    node.shutdown(Duration::from_secs(5)).await;
    assert!(world.start().await.is_ok(), "the directory is free again");
}
