//! What a node knows: the registry as far as it has applied it, what peers say of themselves,
//! and who of them is heard; and what follows for the router.
//!
//! The twin of `node/src/{registry,observed,detector,router}.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::detector::{self, Detector, Liveness};
use paceline_core::placement::ReplicaState;
use paceline_core::registry::{NodeState, Registry};
use paceline_core::router::{self, Condition, RouteId, Target};
use paceline_core::{Instant, Machine, failover};
use paceline_protocol::{NodeId, ReplicaId, VersionNumber};

use super::{Disk, Node};
use crate::agenda::{NodeIndex, Process, Timer};
use crate::fact::Fact;
use crate::message::{Message, Told};
use crate::world::outside::Outside;

/// What a node knows.
pub(super) struct Knowledge {
    index: u64,
    registry: Arc<Registry>,
    peers: BTreeMap<NodeId, Peer>,
    /// The version that serves, by model.
    serving: BTreeMap<u16, VersionNumber>,
    /// Versions that are routed to, and since when each has no ready replica.
    routes: BTreeMap<RouteId, Option<Instant>>,
    is_telling: bool,
    listened_at: Option<Instant>,
}

struct Peer {
    /// The process that was heard last.
    process: Process,
    detector: Detector,
    told: Option<Arc<Told>>,
}

impl Knowledge {
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            index: disk.index,
            registry: disk.registry,
            peers: BTreeMap::new(),
            serving: BTreeMap::new(),
            routes: BTreeMap::new(),
            is_telling: false,
            listened_at: None,
        }
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn disk(&self) -> Disk {
        Disk {
            index: self.index,
            registry: self.registry.clone(),
        }
    }

    pub(super) fn serving(&self, model: u16) -> Option<VersionNumber> {
        self.serving.get(&model).copied()
    }

    pub(super) fn bare_since(&self, route: RouteId) -> Option<Instant> {
        self.routes.get(&route).copied().flatten()
    }

    /// The process that a node was last heard as.
    pub(super) fn process_of(&self, node: NodeId, own: Process) -> Process {
        let known = self.peers.get(&node).map(|peer| peer.process);
        known.unwrap_or(Process {
            node: node_index(node),
            ..own
        })
    }

    /// How peers are.
    pub(super) fn heard(&self) -> impl Iterator<Item = (NodeId, Liveness)> {
        let peers = self.peers.iter();
        peers.map(|(node, peer)| (*node, peer.detector.liveness()))
    }

    /// Whether a peer says that a replica of its own is ready.
    fn is_ready(&self, node: NodeId, replica: ReplicaId) -> bool {
        let told = self.peers.get(&node).and_then(|peer| peer.told.as_ref());
        told.is_some_and(|told| told.replicas.get(&replica) == Some(&ReplicaState::Ready))
    }

    /// Whether every peer that is up has said what it has.
    pub(super) fn has_heard_all(&self, own: NodeId) -> bool {
        let up = self
            .registry
            .seats()
            .filter(|(_, state)| *state == NodeState::Up);
        up.into_iter().all(|(node, _)| {
            let peer = self.peers.get(&node);
            node == own || peer.is_some_and(|peer| peer.told.is_some())
        })
    }

    /// What is known of all replicas, `own` of this node's.
    pub(super) fn observed(
        &self,
        own: BTreeMap<ReplicaId, ReplicaState>,
    ) -> BTreeMap<ReplicaId, ReplicaState> {
        let mut observed = own;
        for told in self.peers.values().filter_map(|peer| peer.told.as_ref()) {
            let known = told.replicas.iter();
            observed.extend(known.map(|(replica, state)| (*replica, state.clone())));
        }
        observed
    }
}

impl Node {
    /// Takes up what its disk has.
    pub(super) fn follow_disk(&mut self, outside: &mut Outside) {
        self.apply(outside);
    }

    /// The log is committed up to here.
    pub(super) fn follow(&mut self, outside: &mut Outside, index: u64) {
        if index <= self.knowledge.index {
            return;
        }
        // Entries that are not kept one by one any more come as one snapshot.
        let Some((found, view)) = outside.views.range(index..).next() else {
            return;
        };
        (self.knowledge.index, self.knowledge.registry) = (*found, view.clone());
        let (node, index) = (self.index(), *found);
        outside.record(&Fact::Followed { node, index });
        self.apply(outside);
    }

    fn apply(&mut self, outside: &mut Outside) {
        let registry = self.knowledge.registry.clone();
        for (id, assignment) in registry.replicas() {
            if assignment.node == self.id && !self.replicas.contains_key(id) {
                let Some(model) = outside.model(&assignment.model) else {
                    continue;
                };
                self.load(outside, *id, (model, assignment.version));
            }
        }
        let held: Vec<ReplicaId> = self.replicas.keys().copied().collect();
        for id in held.into_iter().rev() {
            if !registry.replicas().contains_key(&id) {
                self.unload(outside, id);
            }
        }
        self.look_at_drain(outside);
        self.publish(outside);
        self.say(outside);
        self.reconcile(outside);
    }

    /// A peer says what it is like now.
    pub(super) fn told(&mut self, outside: &mut Outside, (from, told): (Process, Arc<Told>)) {
        self.meet(outside, from);
        let now = outside.now;
        if let Some(peer) = self.knowledge.peers.get_mut(&node_id(from.node)) {
            peer.told = Some(told);
            let mut effects = Vec::new();
            peer.detector
                .step(now, detector::Input::Heard, &mut effects);
        }
        self.publish(outside);
        self.reconcile(outside);
    }

    /// A peer is heard as a certain process: what was under way to an earlier one is lost.
    fn meet(&mut self, outside: &mut Outside, process: Process) {
        let (node, now) = (node_id(process.node), outside.now);
        let before = self.knowledge.peers.get(&node).map(|peer| peer.process);
        if before == Some(process) || before.is_some_and(|before| before.life > process.life) {
            return;
        }
        let peer = self.knowledge.peers.entry(node).or_insert_with(|| Peer {
            process,
            detector: Detector::new(detector::Options::default(), now),
            told: None,
        });
        (peer.process, peer.told) = (process, None);
        if let Some(before) = before {
            self.unheard_process(outside, before, failover::End::Lost);
        }
        self.say(outside);
    }

    /// Listens for all peers: who runs and is reached is heard.
    pub(in crate::world) fn listen(&mut self, outside: &mut Outside, alive: &[Process]) {
        let (now, own) = (outside.now, self.index());
        let gap = self.knowledge.listened_at.map(|at| now.nanos_since(at));
        self.knowledge.listened_at = Some(now);
        let standstill = gap.and_then(|gap| detector::standstill(gap, LISTEN_NANOS));
        let (mut silent, mut changed) = (Vec::new(), false);
        for process in alive {
            let reached = outside.network.reaches(process.node, own)
                && outside.network.reaches(own, process.node);
            if process.node != own && reached {
                self.meet(outside, *process);
            }
        }
        for (node, peer) in &mut self.knowledge.peers {
            let mut effects = Vec::new();
            if let Some(nanos) = standstill {
                let input = detector::Input::StoodStill { nanos };
                peer.detector.step(now, input, &mut effects);
            }
            let is_heard =
                alive.contains(&peer.process) && outside.network.reaches(peer.process.node, own);
            if is_heard {
                peer.detector
                    .step(now, detector::Input::Heard, &mut effects);
            } else {
                peer.detector.wake(now, &mut effects);
            }
            for effect in effects {
                changed = true;
                match effect {
                    detector::Effect::Suspect => silent.push((*node, failover::End::Suspect)),
                    detector::Effect::Lost => {
                        peer.told = None;
                        silent.push((*node, failover::End::Lost));
                    }
                    detector::Effect::Alive | detector::Effect::Down => {}
                }
            }
        }
        if changed {
            self.publish(outside);
        }
        for (node, end) in silent {
            self.unheard(outside, node, end);
        }
    }

    /// Tells the router what follows from what is known, and goes on with who waits for it.
    pub(super) fn publish(&mut self, outside: &mut Outside) {
        let registry = self.knowledge.registry.clone();
        let conditions = self.conditions(&registry);
        let input = router::Input::SetConditions {
            conditions: conditions.clone(),
        };
        self.router
            .step(outside.now, input, &mut self.router_effects);
        let mut routes = BTreeMap::new();
        self.knowledge.serving.clear();
        for (name, model) in registry.models() {
            let Some(number) = outside.model(name) else {
                continue;
            };
            if let Some(serving) = model.serving {
                self.knowledge.serving.insert(number, serving);
            }
            for version in model.versions.keys() {
                let targets = self.targets(outside, &registry, (name, number), *version);
                let is_routed = !targets.is_empty() || model.serving == Some(*version);
                let route = outside.route((number, *version));
                if !is_routed && !self.knowledge.routes.contains_key(&route) {
                    continue;
                }
                let serves = |target: &Target| {
                    conditions
                        .get(&target.node)
                        .is_none_or(|condition| condition.serves())
                };
                let is_bare = !targets.iter().any(serves);
                let before = self.knowledge.routes.get(&route).copied().flatten();
                let bare_since = is_bare.then(|| before.unwrap_or(outside.now));
                if is_routed {
                    routes.insert(route, bare_since);
                }
                let input = router::Input::SetTargets { route, targets };
                self.router
                    .step(outside.now, input, &mut self.router_effects);
            }
        }
        self.knowledge.routes = routes;
        self.resume_all(outside);
    }

    fn conditions(&self, registry: &Registry) -> BTreeMap<NodeId, Condition> {
        let seats = registry.seats().map(|(node, state)| {
            let peer = self.knowledge.peers.get(&node);
            let liveness = peer.map_or(Liveness::Alive, |peer| peer.detector.liveness());
            (node, Condition::of(state, liveness))
        });
        seats
            .filter(|(_, condition)| *condition != Condition::Good)
            .collect()
    }

    fn targets(
        &self,
        outside: &Outside,
        registry: &Registry,
        (name, number): (&paceline_protocol::ModelName, u16),
        version: VersionNumber,
    ) -> Vec<Target> {
        let zone = registry.zone(self.id);
        let row_nanos = {
            let version = outside.version((number, version));
            version.cost.batch_ns(version.rows_max, 0) / u64::from(version.rows_max.max(1))
        };
        let replicas = registry.replicas_of(name, version);
        let ready = replicas.filter_map(|(id, assignment)| {
            let is_here = assignment.node == self.id;
            let local = self.replicas.get(&id).and_then(|own| own.batcher);
            let is_ready = match is_here {
                true => local.is_some(),
                false => self.knowledge.is_ready(assignment.node, id),
            };
            is_ready.then_some(Target {
                replica: id,
                node: assignment.node,
                local: local.filter(|_| is_here),
                is_near: registry.zone(assignment.node) == zone,
                row_nanos,
            })
        });
        ready.collect()
    }

    /// Plans to tell peers what has changed: what changes together is said together.
    pub(super) fn say(&mut self, outside: &mut Outside) {
        if self.is_up && !std::mem::replace(&mut self.knowledge.is_telling, true) {
            outside.plan(self.process, COALESCE_NANOS, Timer::Tell);
        }
    }

    /// Tells every peer.
    pub(super) fn tell(&mut self, outside: &mut Outside) {
        self.knowledge.is_telling = false;
        let told = Arc::new(Told {
            epoch: self.epoch(),
            is_ready: self.is_ready(),
            replicas: self.own_states(),
        });
        let peers = self.knowledge.peers.values().map(|peer| peer.process);
        for process in peers.collect::<Vec<_>>() {
            if process != self.process {
                let message = Message::Told(self.process, told.clone());
                outside.send(self.index(), process, TOLD_BYTES, message);
            }
        }
    }
}

/// Ids count from 1, positions from 0.
pub(super) fn node_id(index: NodeIndex) -> NodeId {
    NodeId(u64::from(index.0) + 1)
}

pub(super) fn node_index(node: NodeId) -> NodeIndex {
    NodeIndex(node.0.saturating_sub(1) as u16)
}

/// How often a node listens: as `node/src/detector.rs` does.
pub(in crate::world) const LISTEN_NANOS: u64 = 50_000_000;
/// As the publisher of `node/src/directory` waits for more.
const COALESCE_NANOS: u64 = 10_000_000;
const TOLD_BYTES: u64 = 1_024;
