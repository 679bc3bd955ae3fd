//! Three real nodes on ports in memory: started, killed, cut off, stalled, and watched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paceline_core::Random;
use paceline_models::CostCurve;
use paceline_node::clock::Wall;
use paceline_node::gateway::{Front, MemoryFront};
use paceline_node::raft::RaftHandle;
use paceline_node::storage::{Disk, MemoryDisk};
use paceline_node::threads::Threads;
use paceline_node::transport::memory::MemoryNetwork;
use paceline_node::{Config, Network, Node, NodeHandle, Ports};
use paceline_protocol::{ModelName, NodeId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::engine::{Ledger, LedgerEngine};
use crate::models::{MODELS, files};
use crate::reach::Reach;
use crate::trace::Trace;

/// A cluster, its disks and its network.
pub(crate) struct World {
    pub(crate) network: MemoryNetwork,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    pub(crate) sights: Sights,
    pub(crate) random: Random,
    wall: Wall,
    seed: u64,
    places: Vec<Place>,
}

/// Who lives, for clients and spectators. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sights {
    lives: Arc<Mutex<Vec<Life>>>,
}

/// One life of a node as others see it.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) raft: RaftHandle,
    front: MemoryFront,
    ended: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
}

/// A machine: its disks, and the node on it while it lives.
struct Place {
    name: String,
    node: NodeId,
    root: MemoryDisk,
    raft: MemoryDisk,
    blobs: MemoryDisk,
    handle: Option<NodeHandle>,
}

impl World {
    /// Three nodes, all ready, with every model deployed on each of them.
    pub(crate) async fn begin(seed: u64, trace: Trace) -> Self {
        let mut world = Self {
            network: MemoryNetwork::new(seed),
            trace,
            ledger: Ledger::default(),
            sights: Sights::default(),
            random: Random::stream(seed, "world"),
            // Some day in 2026.
            wall: Wall::invented(1_790_000_000_000),
            seed,
            places: vec![Place::new(0, NodeId::FOUNDER)],
        };
        world.start_all().await;
        for position in 1..NODES {
            let mut place = Place::new(position, NodeId::FOUNDER);
            let root: Arc<dyn Disk> = Arc::new(place.root.clone());
            let founder = world.places[0].handle.as_ref().expect("it was started");
            place.node = founder.seat(&root, &place.name).await.expect("admitted");
            world.places.push(place);
            world.start_all().await;
        }
        for model in MODELS {
            let name = ModelName::new(model).expect("a name");
            let founder = world.places[0].handle.as_ref().expect("it was started");
            founder
                .install(&name, files(model))
                .await
                .expect("installed");
        }
        world
    }

    fn ports(&self, position: usize, front: MemoryFront) -> Ports {
        let place = &self.places[position];
        // A batch takes a few milliseconds, so that some are under way when something happens.
        let cost = CostCurve {
            fixed_us: 1_000,
            per_row_us: 500,
        };
        Ports {
            root: Arc::new(place.root.clone()),
            raft: Arc::new(place.raft.clone()),
            blobs: Arc::new(place.blobs.clone()),
            engine: Arc::new(LedgerEngine::new(cost, self.ledger.clone())),
            network: Network::Memory(self.network.clone()),
            front: Front::Memory(front),
            threads: Threads::Shared,
            seed: self.seed ^ place.node.0,
            wall: self.wall,
            pid: place.node.0 as u32,
        }
    }

    /// Starts all nodes that do not live, at once: each may wait for another's vote.
    pub(crate) async fn start_all(&mut self) {
        let down = (0..self.places.len()).filter(|position| !self.lives(*position));
        let starting: Vec<_> = down.map(|position| self.starting(position)).collect();
        for starting in starting {
            let (position, handle) = starting.await.expect("starting does not panic");
            self.places[position].handle = Some(handle);
        }
    }

    /// Buries what has ended by itself.
    pub(crate) fn bury_ended(&mut self) {
        for position in 0..self.places.len() {
            if !self.lives(position) {
                self.bury(position);
            }
        }
    }

    /// Begins to start the node on a machine, on what its last life left.
    fn starting(&self, position: usize) -> JoinHandle<(usize, NodeHandle)> {
        let front = MemoryFront::new();
        let mut config = Config::default();
        config.node.name.clone_from(&self.places[position].name);
        config.raft.segment_bytes = 1 << 20;
        config.raft.snapshot_entries = 60;
        let ports = self.ports(position, front.clone());
        let node = self.places[position].node;
        self.trace.note(format_args!("start {node}"));
        let (sights, network, trace) = (
            self.sights.clone(),
            self.network.clone(),
            self.trace.clone(),
        );
        tokio::spawn(async move {
            let started = Box::pin(Node::start(config, ports)).await;
            let handle =
                started.unwrap_or_else(|error| panic!("node {node} does not start: {error}"));
            let life = Life {
                node,
                raft: handle.raft(),
                front,
                ended: watch::Sender::new(false),
                stalled: watch::Sender::new(false),
            };
            sights.locked().push(life.clone());
            tokio::spawn(life.until_ended(network, trace));
            (position, handle)
        })
    }

    /// Takes the power away from a machine.
    pub(crate) fn kill(&mut self, position: usize) {
        let node = self.places[position].node;
        self.trace.note(format_args!("kill {node}"));
        if let Some(life) = self.sights.of(node) {
            life.end(&self.network);
        }
        self.bury(position);
    }

    /// What is left of a node that has ended: its disks as they survive, and tasks that reach
    /// nobody any more.
    fn bury(&mut self, position: usize) {
        let Some(handle) = self.places[position].handle.take() else {
            return;
        };
        let draw = self.random.next_u64();
        let place = &mut self.places[position];
        self.sights.locked().retain(|life| life.node != place.node);
        for disk in [&mut place.root, &mut place.raft, &mut place.blobs] {
            *disk = disk.crash(draw);
        }
        tokio::spawn(handle.shutdown(Duration::ZERO));
    }

    /// Lets a machine's power fail after `count` more operations of its log's disk.
    pub(crate) fn cut_power_after(&self, position: usize, count: u64) {
        let place = &self.places[position];
        let node = place.node;
        self.trace
            .note(format_args!("power of {node} fails after {count}"));
        place.raft.cut_power_after(count);
    }

    /// Nothing goes into a node or comes out of it until [`World::heal`]: what a stopped process
    /// is to all others.
    pub(crate) fn stall(&self, position: usize) {
        let (node, others) = (self.node(position), self.others(position));
        self.trace.note(format_args!("stall {node}"));
        self.network.partition(&[node], &others);
        if let Some(life) = self.sights.of(node) {
            life.stalled.send_replace(true);
        }
    }

    pub(crate) fn partition(&self, position: usize) {
        let (node, others) = (self.node(position), self.others(position));
        self.trace.note(format_args!("partition {node}"));
        self.network.partition(&[node], &others);
    }

    /// Heals all links, and lets all nodes go on.
    pub(crate) fn heal(&self) {
        self.trace.note("heal");
        for life in self.sights.locked().iter() {
            life.stalled.send_replace(false);
        }
        self.network.heal();
    }

    pub(crate) fn node(&self, position: usize) -> NodeId {
        self.places[position].node
    }

    pub(crate) fn position(&self, node: NodeId) -> Option<usize> {
        self.places.iter().position(|place| place.node == node)
    }

    pub(crate) fn others(&self, position: usize) -> Vec<NodeId> {
        let node = self.node(position);
        let all = self.places.iter().map(|place| place.node);
        all.filter(|other| *other != node).collect()
    }

    pub(crate) fn lives(&self, position: usize) -> bool {
        self.sights.of(self.node(position)).is_some()
    }

    /// The machine of the node that most of the living take for their leader, once there is one.
    pub(crate) async fn leader(&self) -> usize {
        let agreed = async {
            loop {
                let lives = self.sights.all();
                let said = lives.iter().filter_map(|life| life.raft.metrics().leader);
                let said: Vec<NodeId> = said.collect();
                let most = said.iter().find(|leader| {
                    let agree = said.iter().filter(|other| other == leader).count();
                    2 * agree > NODES && self.sights.of(**leader).is_some()
                });
                if let Some(leader) = most {
                    return self.position(*leader).expect("a member");
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let found = timeout(Duration::from_secs(20), agreed).await;
        found.unwrap_or_else(|_late| panic!("nobody leads\n{}", self.trace.text()))
    }
}

impl Place {
    fn new(position: usize, node: NodeId) -> Self {
        Self {
            name: format!("n{position}"),
            node,
            root: MemoryDisk::new(),
            raft: MemoryDisk::new(),
            blobs: MemoryDisk::new(),
            handle: None,
        }
    }
}

impl Sights {
    /// All that live, by node.
    pub(crate) fn all(&self) -> Vec<Life> {
        let mut lives = self.locked().clone();
        lives.retain(|life| !*life.ended.borrow());
        lives.sort_by_key(|life| life.node);
        lives
    }

    pub(crate) fn of(&self, node: NodeId) -> Option<Life> {
        self.all().into_iter().find(|life| life.node == node)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// The way to it for a client.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            front: self.front.clone(),
            ended: self.ended.subscribe(),
            stalled: self.stalled.subscribe(),
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        *self.stalled.borrow()
    }

    fn end(&self, network: &MemoryNetwork) {
        self.ended.send_replace(true);
        network.crash(self.node);
    }

    /// A node whose disk fails ends its process.
    async fn until_ended(self, network: MemoryNetwork, trace: Trace) {
        let reason = self.raft.stopped().await;
        if !*self.ended.borrow() {
            trace.note(format_args!("{} ends itself: {reason}", self.node));
            self.end(&network);
        }
    }
}

/// Nodes of a world.
pub(crate) const NODES: usize = 3;
