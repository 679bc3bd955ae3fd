//! The peers of a node: who of them is heard, and what they say of themselves.
//!
//! The twin of `node/src/{detector,observed}.rs`. A peer that is alive and was heard at the last
//! listening is *steady* and has no detector: one that was made at that moment says what one
//! would that was told so every 50 ms. So listening costs what has changed, not what there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use paceline_core::detector::{self, Detector, Liveness};
use paceline_core::placement::{Observed, ReplicaState};
use paceline_core::{Instant, Machine, failover};
use paceline_protocol::tenant::Demand;
use paceline_protocol::{NodeId, ReplicaId, TenantId};

use super::Node;
use super::knowledge::{node_id, node_index};
use crate::agenda::{NodeIndex, Process, Timer};
use crate::message::{Message, Told};
use crate::world::outside::Outside;

/// What a node knows of its peers.
#[derive(Default)]
pub(super) struct Peers {
    /// By position.
    known: Vec<Option<Peer>>,
    /// Those that have a detector.
    unsteady: BTreeSet<NodeIndex>,
    /// Changes of who can be heard that were looked at.
    looked: usize,
    listened_at: Option<Instant>,
    /// What was said last.
    said: Option<Arc<Told>>,
    is_telling: bool,
}

struct Peer {
    /// The process that was heard last.
    process: Process,
    /// When it has told something last, or was met.
    heard_at: Instant,
    detector: Option<Box<Detector>>,
    /// The number of the newest that it has told.
    number: u64,
    told: Option<Arc<Told>>,
}

impl Peers {
    fn get(&self, node: NodeIndex) -> Option<&Peer> {
        self.known.get(usize::from(node.0))?.as_ref()
    }

    fn get_mut(&mut self, node: NodeIndex) -> Option<&mut Peer> {
        self.known.get_mut(usize::from(node.0))?.as_mut()
    }

    /// By position.
    fn all(&self) -> impl Iterator<Item = &Peer> {
        self.known.iter().flatten()
    }

    /// The process that a node was last heard as.
    pub(super) fn process_of(&self, node: NodeId) -> Option<Process> {
        self.get(node_index(node)).map(|peer| peer.process)
    }

    /// How a node is heard; who was never met is not missed.
    pub(super) fn liveness(&self, node: NodeId) -> Liveness {
        let peer = self.get(node_index(node));
        peer.map_or(Liveness::Alive, Peer::liveness)
    }

    /// How peers are.
    pub(super) fn heard(&self) -> impl Iterator<Item = (NodeId, Liveness)> {
        self.all()
            .map(|peer| (node_id(peer.process.node), peer.liveness()))
    }

    /// Whether a peer says that a replica of its own is ready.
    pub(super) fn is_ready(&self, node: NodeId, replica: ReplicaId) -> bool {
        let told = self.get(node_index(node)).and_then(|p| p.told.as_ref());
        told.is_some_and(|told| told.replicas.get(&replica) == Some(&ReplicaState::Ready))
    }

    /// What a peer says that it has.
    pub(super) fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = ReplicaId> {
        let told = self.get(node_index(node)).and_then(|p| p.told.as_ref());
        told.into_iter()
            .flat_map(|told| told.replicas.keys().copied())
    }

    /// Whether a peer has said what it has.
    pub(super) fn has_told(&self, node: NodeId) -> bool {
        self.get(node_index(node))
            .is_some_and(|peer| peer.told.is_some())
    }

    /// What peers that are not known to be silent say that tenants asked of them.
    pub(super) fn demands(&self) -> impl Iterator<Item = &[(TenantId, Demand)]> + Clone {
        let told = self
            .known
            .iter()
            .flatten()
            .filter_map(|peer| peer.told.as_ref());
        told.map(|told| told.demands.as_slice())
    }

    /// What peers say of their replicas, beside what is known already.
    pub(super) fn observe(&self, observed: &mut Observed) {
        for told in self.all().filter_map(|peer| peer.told.as_ref()) {
            let known = told.replicas.iter();
            observed.extend(known.map(|(replica, state)| (*replica, state.clone())));
        }
    }
}

impl Peer {
    fn liveness(&self) -> Liveness {
        let detector = self.detector.as_ref();
        detector.map_or(Liveness::Alive, |detector| detector.liveness())
    }

    /// Its detector. A steady peer gets one that heard it at the last listening, or later.
    fn detector(&mut self, listened_at: Option<Instant>) -> &mut Detector {
        let heard_at = self.heard_at(listened_at);
        self.detector
            .get_or_insert_with(|| Box::new(Detector::new(options(), heard_at)))
    }

    fn heard_at(&self, listened_at: Option<Instant>) -> Instant {
        listened_at.map_or(self.heard_at, |at| at.max(self.heard_at))
    }

    /// Something has arrived from it, between two listenings.
    fn hear(&mut self, now: Instant, listened_at: Option<Instant>) {
        let silence = now.nanos_since(self.heard_at(listened_at));
        if self.detector.is_some() || silence >= options().suspect {
            let detector = self.detector(listened_at);
            detector.step(now, detector::Input::Heard, &mut Vec::new());
        }
        self.heard_at = now;
    }
}

impl Node {
    /// A peer says what it is like now. What an earlier process of it said, or what it said
    /// earlier and comes later, is no news.
    pub(super) fn told(&mut self, outside: &mut Outside, (from, told): (Process, Arc<Told>)) {
        self.meet(outside, from);
        let (now, node) = (outside.now, from.node);
        let listened_at = self.peers.listened_at;
        let peer = self.peers.get_mut(node);
        let Some(peer) = peer.filter(|peer| peer.process == from) else {
            return;
        };
        peer.hear(now, listened_at);
        let is_unsteady = peer.detector.is_some();
        let is_news = match peer.told {
            Some(_) => told.number > peer.number,
            None => told.number >= peer.number,
        };
        if is_unsteady {
            self.peers.unsteady.insert(node);
            self.knowledge.touch_node(node_id(node));
        }
        if is_news {
            self.learn_from(outside, node, told);
        }
        if is_news || is_unsteady {
            self.publish(outside);
            self.reconcile(outside);
        }
    }

    fn learn_from(&mut self, outside: &mut Outside, node: NodeIndex, told: Arc<Told>) {
        outside.mesh.heard((node, told.number), self.index());
        if let Some(peer) = self.peers.get_mut(node) {
            peer.number = told.number;
            let before = peer.told.replace(told.clone());
            self.learn(outside, before.as_deref(), &told);
            let before = before.as_ref().map(|before| before.demands.as_slice());
            if before.unwrap_or_default() != told.demands {
                self.divide(outside);
            }
        }
    }

    /// What a peer says of its replicas takes the place of what it said before.
    fn learn(&mut self, outside: &Outside, before: Option<&Told>, told: &Told) {
        let none = std::collections::BTreeMap::new();
        let before = before.map_or(&none, |told| &told.replicas);
        if *before == told.replicas {
            return;
        }
        let is_ready = |state: Option<&ReplicaState>| state == Some(&ReplicaState::Ready);
        for id in before.keys().chain(told.replicas.keys()) {
            let (was, is) = (before.get(id), told.replicas.get(id));
            if was != is {
                self.knowledge.observe(*id, is);
            }
            if is_ready(was) != is_ready(is) {
                self.knowledge.touch_told(outside, *id);
            }
        }
    }

    /// What a peer said is not known any more.
    fn forget(&mut self, outside: &mut Outside, node: NodeIndex) {
        outside.mesh.forgotten(node, self.index());
        let peer = self.peers.get_mut(node);
        if let Some(told) = peer.and_then(|peer| peer.told.take()) {
            let none = Told::default();
            self.learn(outside, Some(&told), &none);
        }
    }

    /// A peer is heard as a certain process: what was under way to an earlier one is lost.
    fn meet(&mut self, outside: &mut Outside, process: Process) {
        let (node, now) = (process.node, outside.now);
        let before = self.peers.get(node).map(|peer| peer.process);
        if before == Some(process) || before.is_some_and(|before| before.life > process.life) {
            return;
        }
        match self.peers.get_mut(node) {
            Some(peer) => {
                peer.process = process;
                self.forget(outside, node);
            }
            None => {
                outside.mesh.forgotten(node, self.index());
                let position = usize::from(node.0);
                if position >= self.peers.known.len() {
                    self.peers.known.resize_with(position + 1, || None);
                }
                self.peers.known[position] = Some(Peer {
                    process,
                    heard_at: now,
                    detector: Some(Box::new(Detector::new(options(), now))),
                    number: 0,
                    told: None,
                });
                self.peers.unsteady.insert(node);
            }
        }
        if let Some(before) = before {
            self.unheard_process(outside, before, failover::End::Lost);
        }
        self.say(outside);
    }

    /// Listens for all peers: who runs and is reached is heard.
    pub(in crate::world) fn listen(&mut self, outside: &mut Outside) {
        let (now, own) = (outside.now, self.index());
        let before = self.peers.listened_at;
        let gap = before.map(|at| now.nanos_since(at));
        let standstill = gap.and_then(|gap| detector::standstill(gap, LISTEN_NANOS));
        let mut nodes = self.peers.unsteady.clone();
        nodes.extend(outside.hearing.changed_since(&mut self.peers.looked));
        nodes.remove(&own);
        for node in &nodes {
            let is_reached =
                outside.network.reaches(*node, own) && outside.network.reaches(own, *node);
            if let Some(process) = outside.hearing.running(*node).filter(|_| is_reached) {
                self.meet(outside, process);
            }
        }
        let (mut silent, mut changed) = (Vec::new(), false);
        for node in nodes {
            for effect in self.listen_for(outside, node, standstill) {
                changed = true;
                self.knowledge.touch_node(node_id(node));
                match effect {
                    detector::Effect::Suspect => silent.push((node, failover::End::Suspect)),
                    detector::Effect::Lost => {
                        self.forget(outside, node);
                        silent.push((node, failover::End::Lost));
                    }
                    detector::Effect::Alive | detector::Effect::Down => {}
                }
            }
        }
        self.peers.listened_at = Some(now);
        if changed {
            self.publish(outside);
        }
        for (node, end) in silent {
            self.unheard(outside, node_id(node), end);
        }
    }

    /// Listens for a peer; it is steady, or its detector says how it is.
    fn listen_for(
        &mut self,
        outside: &Outside,
        node: NodeIndex,
        standstill: Option<u64>,
    ) -> Vec<detector::Effect> {
        let (now, own, before) = (outside.now, self.index(), self.peers.listened_at);
        let mut effects = Vec::new();
        let Some(peer) = self.peers.get_mut(node) else {
            return effects;
        };
        let runs = outside.hearing.running(node) == Some(peer.process);
        let is_heard = runs && outside.network.reaches(node, own);
        if peer.detector.is_none() && is_heard {
            return effects;
        }
        let detector = peer.detector(before);
        if let Some(nanos) = standstill {
            let input = detector::Input::StoodStill { nanos };
            detector.step(now, input, &mut effects);
        }
        if is_heard {
            detector.step(now, detector::Input::Heard, &mut effects);
        } else {
            detector.wake(now, &mut effects);
        }
        if is_heard && detector.liveness() == Liveness::Alive {
            peer.detector = None;
            self.peers.unsteady.remove(&node);
        } else {
            self.peers.unsteady.insert(node);
        }
        effects
    }

    /// Plans to tell peers what has changed: what changes together is said together.
    pub(super) fn say(&mut self, outside: &mut Outside) {
        if self.is_up && !std::mem::replace(&mut self.peers.is_telling, true) {
            outside.plan(self.process, COALESCE_NANOS, Timer::Tell);
        }
    }

    /// Tells every peer that has not heard it what is so here.
    pub(super) fn tell(&mut self, outside: &mut Outside) {
        self.peers.is_telling = false;
        let (own, replicas) = (self.index(), self.own_states());
        let demands = self.demands().to_vec();
        let known = self.peers.said.take();
        let told = known.filter(|told| told.replicas == replicas && told.demands == demands);
        let told = told.unwrap_or_else(|| {
            let number = outside.mesh.say(own);
            Arc::new(Told {
                number,
                replicas,
                demands,
            })
        });
        for node in outside.mesh.unheard(own) {
            if let Some(peer) = self.peers.get(node) {
                let message = Message::Told(self.process, told.clone());
                outside.send(own, peer.process, TOLD_BYTES, message);
            }
        }
        self.peers.said = Some(told);
    }
}

/// As the product's detectors are.
fn options() -> detector::Options {
    detector::Options::default()
}

/// How often a node listens: as `node/src/detector.rs` does.
pub(in crate::world) const LISTEN_NANOS: u64 = 50_000_000;
/// As the publisher of `node/src/directory` waits for more.
const COALESCE_NANOS: u64 = 10_000_000;
const TOLD_BYTES: u64 = 1_024;
