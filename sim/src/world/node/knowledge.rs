//! What a node knows: the registry as far as it has applied it, and what follows from that and
//! from its peers for the router.
//!
//! The twin of `node/src/{registry,router}.rs`. What follows is computed for what was *touched*
//! since the last time, and the router is told of a version's replicas before it next picks one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use paceline_core::placement::{Observed, ReplicaState};
use paceline_core::registry::Registry;
use paceline_core::router::{self, Condition, Target};
use paceline_core::{Instant, Machine};
use paceline_protocol::{NodeId, ReplicaId, VersionNumber};

use super::{Disk, Node};
use crate::agenda::NodeIndex;
use crate::fact::Fact;
use crate::world::history::Touched;
use crate::world::outside::Outside;

/// What a node knows.
pub(super) struct Knowledge {
    index: u64,
    registry: Arc<Registry>,
    /// The version that serves, by model.
    serving: BTreeMap<u16, VersionNumber>,
    /// Of nodes that are not good, as the router was told.
    conditions: BTreeMap<NodeId, Condition>,
    /// Versions that are routed to, and since when each has no ready replica.
    routes: BTreeMap<Version, Option<Instant>>,
    /// Versions whose replicas the router knows as they were.
    stale: BTreeSet<Version>,
    touched_nodes: BTreeSet<NodeId>,
    touched_models: BTreeSet<u16>,
    touched_versions: BTreeSet<Version>,
    /// What is known of all replicas, while somebody asks.
    observed: Option<Observed>,
}

/// A model and a version of it.
type Version = (u16, VersionNumber);

impl Knowledge {
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            index: disk.index,
            registry: disk.registry,
            serving: BTreeMap::new(),
            conditions: BTreeMap::new(),
            routes: BTreeMap::new(),
            stale: BTreeSet::new(),
            touched_nodes: BTreeSet::new(),
            touched_models: BTreeSet::new(),
            touched_versions: BTreeSet::new(),
            observed: None,
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

    pub(super) fn index(&self) -> u64 {
        self.index
    }

    pub(super) fn serving(&self, model: u16) -> Option<VersionNumber> {
        self.serving.get(&model).copied()
    }

    pub(super) fn bare_since(&self, version: Version) -> Option<Instant> {
        self.routes.get(&version).copied().flatten()
    }

    /// A node is to be looked at when it is next published.
    pub(super) fn touch_node(&mut self, node: NodeId) {
        self.touched_nodes.insert(node);
    }

    pub(super) fn touch_version(&mut self, version: Version) {
        self.touched_versions.insert(version);
    }

    /// What is known of a replica has changed; of one that is not known yet nothing follows.
    pub(super) fn touch_replica(&mut self, outside: &Outside, replica: ReplicaId) {
        if let Some(assignment) = self.registry.replicas().get(&replica)
            && let Some(model) = outside.model(&assignment.model)
        {
            self.touched_versions.insert((model, assignment.version));
        }
    }

    /// A replica is in this state, or nothing is known of it.
    pub(super) fn observe(&mut self, replica: ReplicaId, state: Option<&ReplicaState>) {
        if let Some(observed) = &mut self.observed {
            match state {
                Some(state) => drop(observed.insert(replica, state.clone())),
                None => drop(observed.remove(&replica)),
            }
        }
    }

    /// What is known of all replicas need not be kept.
    pub(super) fn stop_observing(&mut self) {
        self.observed = None;
    }

    /// Everything is to be looked at.
    fn touch_all(&mut self, outside: &Outside) {
        let registry = &self.registry;
        self.touched_nodes
            .extend(registry.seats().map(|(node, _)| node));
        let models = registry.models().keys();
        self.touched_models
            .extend(models.filter_map(|name| outside.model(name)));
        self.touched_versions.extend(self.routes.keys());
    }
}

impl Node {
    /// Takes up what its disk has.
    pub(super) fn follow_disk(&mut self, outside: &mut Outside) {
        self.apply(outside, None);
    }

    /// The log is committed up to here.
    pub(super) fn follow(&mut self, outside: &mut Outside, index: u64) {
        let before = self.knowledge.index;
        if index <= before {
            return;
        }
        // Entries that are not kept one by one any more come as one snapshot.
        let Some((found, view)) = outside.history.view(index) else {
            return;
        };
        (self.knowledge.index, self.knowledge.registry) = (found, view);
        let node = self.index();
        let index = found;
        outside.record(&Fact::Followed { node, index });
        self.apply(outside, Some(before));
    }

    /// Does what follows from entries after `before`, or from all there are.
    fn apply(&mut self, outside: &mut Outside, before: Option<u64>) {
        let registry = self.knowledge.registry.clone();
        let touched =
            before.and_then(|before| outside.history.touched(before, self.knowledge.index));
        let mut replicas = BTreeSet::new();
        match touched {
            Some(touched) => {
                for touched in touched {
                    self.touch(outside, touched, &mut replicas);
                }
            }
            None => {
                self.knowledge.touch_all(outside);
                let here = registry.replicas().iter();
                let here = here.filter(|(_, assignment)| assignment.node == self.id);
                replicas.extend(here.map(|(id, _)| *id));
                replicas.extend(self.replicas.keys());
            }
        }
        for id in &replicas {
            if let Some(assignment) = registry.replicas().get(id)
                && assignment.node == self.id
                && !self.replicas.contains_key(id)
                && let Some(model) = outside.model(&assignment.model)
            {
                self.load(outside, *id, (model, assignment.version));
            }
        }
        for id in replicas.into_iter().rev() {
            if !registry.replicas().contains_key(&id) {
                self.unload(outside, id);
            }
        }
        self.look_at_drain(outside);
        self.publish(outside);
        self.say(outside);
        self.reconcile(outside);
    }

    /// Notes what an entry has changed.
    fn touch(&mut self, outside: &Outside, touched: Touched, replicas: &mut BTreeSet<ReplicaId>) {
        match touched {
            Touched::Nothing => {}
            // Who is near is told of itself.
            Touched::Node(node) if node == self.id => self.knowledge.touch_all(outside),
            Touched::Node(node) => self.knowledge.touch_node(node),
            Touched::Model(model) => drop(self.knowledge.touched_models.insert(model)),
            Touched::Replica(id, version) => {
                self.knowledge.touch_version(version);
                replicas.insert(id);
            }
        }
    }

    /// Tells the router what follows from what is known, and goes on with who waits for it.
    pub(super) fn publish(&mut self, outside: &mut Outside) {
        let registry = self.knowledge.registry.clone();
        self.publish_conditions(outside, &registry);
        let knowledge = &mut self.knowledge;
        for model in std::mem::take(&mut knowledge.touched_models) {
            let known = outside.name(model).and_then(|n| registry.models().get(n));
            let serving = known.and_then(|model| model.serving);
            match serving {
                Some(serving) => drop(knowledge.serving.insert(model, serving)),
                None => drop(knowledge.serving.remove(&model)),
            }
            let versions = known.into_iter().flat_map(|model| model.versions.keys());
            let versions = versions.map(|version| (model, *version));
            knowledge.touched_versions.extend(versions);
        }
        for version in std::mem::take(&mut knowledge.touched_versions) {
            self.publish_version(outside, &registry, version);
        }
        self.resume_all(outside);
    }

    fn publish_conditions(&mut self, outside: &Outside, registry: &Registry) {
        let mut has_changed = false;
        for node in std::mem::take(&mut self.knowledge.touched_nodes) {
            let condition = registry.node_state(node);
            let condition = condition.map(|state| Condition::of(state, self.peers.liveness(node)));
            let conditions = &mut self.knowledge.conditions;
            let before = match condition.filter(|condition| *condition != Condition::Good) {
                Some(condition) => conditions.insert(node, condition),
                None => conditions.remove(&node),
            };
            has_changed |= before != conditions.get(&node).copied();
        }
        if has_changed {
            let conditions = self.knowledge.conditions.clone();
            let input = router::Input::SetConditions { conditions };
            self.router
                .step(outside.now, input, &mut self.router_effects);
            let routed = self.knowledge.routes.keys();
            self.knowledge.touched_versions.extend(routed);
        }
    }

    /// Whether a version is routed to, and whether it has anybody who serves.
    fn publish_version(&mut self, outside: &Outside, registry: &Registry, version: Version) {
        let serves = |node| {
            let condition = self.knowledge.conditions.get(&node);
            condition.is_none_or(|condition| condition.serves())
        };
        let replicas = outside.name(version.0).into_iter();
        let replicas = replicas.flat_map(|name| registry.replicas_of(name, version.1));
        let mut ready = replicas.filter(|(id, of)| self.is_ready_on(*id, of.node));
        let first = ready.next().map(|(_, assignment)| assignment.node);
        let mut nodes = first.into_iter().chain(ready.map(|(_, of)| of.node));
        let is_bare = !nodes.any(serves);
        let routes = &mut self.knowledge.routes;
        let before = routes.get(&version).copied().flatten();
        let bare_since = is_bare.then(|| before.unwrap_or(outside.now));
        let is_serving = self.knowledge.serving.get(&version.0) == Some(&version.1);
        match first.is_some() || is_serving {
            true => drop(routes.insert(version, bare_since)),
            false => drop(routes.remove(&version)),
        }
        self.knowledge.stale.insert(version);
    }

    fn is_ready_on(&self, replica: ReplicaId, node: NodeId) -> bool {
        match node == self.id {
            true => self
                .replicas
                .get(&replica)
                .is_some_and(|own| own.batcher.is_some()),
            false => self.peers.is_ready(node, replica),
        }
    }

    /// Tells the router the replicas of a version, if they are not what it knows any more.
    pub(super) fn refresh(&mut self, outside: &mut Outside, version: Version) {
        if !self.knowledge.stale.remove(&version) {
            return;
        }
        let targets = self.targets(outside, version);
        let route = outside.route(version);
        let input = router::Input::SetTargets { route, targets };
        self.router
            .step(outside.now, input, &mut self.router_effects);
    }

    fn targets(&self, outside: &Outside, version: Version) -> Vec<Target> {
        let registry = &self.knowledge.registry;
        let zone = registry.zone(self.id);
        let row_nanos = {
            let version = outside.version(version);
            version.cost.batch_ns(version.rows_max, 0) / u64::from(version.rows_max.max(1))
        };
        let replicas = outside.name(version.0).into_iter();
        let replicas = replicas.flat_map(|name| registry.replicas_of(name, version.1));
        let ready = replicas.filter(|(id, of)| self.is_ready_on(*id, of.node));
        let targets = ready.map(|(id, assignment)| Target {
            replica: id,
            node: assignment.node,
            local: match assignment.node == self.id {
                true => self.replicas.get(&id).and_then(|own| own.batcher),
                false => None,
            },
            is_near: registry.zone(assignment.node) == zone,
            row_nanos,
        });
        targets.collect()
    }

    /// What is known of all replicas.
    pub(in crate::world) fn observed(&self) -> Observed {
        let mut observed = self.own_states();
        self.peers.observe(&mut observed);
        observed
    }

    /// The same, kept up to date from now on.
    pub(super) fn observing(&mut self) -> &Observed {
        let observed = match self.knowledge.observed.take() {
            Some(observed) => observed,
            None => self.observed(),
        };
        self.knowledge.observed.insert(observed)
    }
}

/// Ids count from 1, positions from 0.
pub(super) fn node_id(index: NodeIndex) -> NodeId {
    NodeId(u64::from(index.0) + 1)
}

pub(super) fn node_index(node: NodeId) -> NodeIndex {
    NodeIndex(node.0.saturating_sub(1) as u16)
}
