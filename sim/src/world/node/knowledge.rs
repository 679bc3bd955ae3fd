//! What a node knows: the registry as far as it has applied it, and what of it was *touched* since
//! the router was told last what follows.
//!
//! The twin of `node/src/registry.rs`.

mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use paceline_core::Instant;
use paceline_core::placement::{Observed, ReplicaState};
use paceline_core::registry::Registry;
use paceline_core::router::Condition;
use paceline_protocol::{Epoch, ModelName, NodeId, ReplicaId, VersionNumber};

use self::routes::Route;
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
    /// Canaries that are under way.
    canaries: BTreeMap<u16, Try>,
    shadows: BTreeMap<u16, Shade>,
    /// Of nodes that are not good, as the router was told.
    conditions: BTreeMap<NodeId, Condition>,
    /// Versions that are routed to: that have a replica which serves, or shall serve.
    routes: BTreeMap<Version, Route>,
    /// Versions whose replicas the router knows as they were.
    stale: BTreeSet<Version>,
    touched_nodes: BTreeSet<NodeId>,
    touched_models: BTreeSet<u16>,
    touched_versions: BTreeSet<Version>,
    touched_replicas: Vec<(Version, ReplicaId)>,
    /// What is known of all replicas, while somebody asks.
    observed: Option<Observed>,
}

/// A model and a version of it.
type Version = (u16, VersionNumber);

/// A canary, as requests are routed by it.
pub(super) struct Try {
    pub(super) since: Epoch,
    pub(super) version: VersionNumber,
    pub(super) weight: u16,
    pub(super) salt: String,
}

/// A shadow, as requests are copied for it.
pub(super) struct Shade {
    pub(super) version: VersionNumber,
    pub(super) weight: u16,
    pub(super) salt: String,
}

impl Knowledge {
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            index: disk.index,
            registry: disk.registry,
            serving: BTreeMap::new(),
            canaries: BTreeMap::new(),
            shadows: BTreeMap::new(),
            conditions: BTreeMap::new(),
            routes: BTreeMap::new(),
            stale: BTreeSet::new(),
            touched_nodes: BTreeSet::new(),
            touched_models: BTreeSet::new(),
            touched_versions: BTreeSet::new(),
            touched_replicas: Vec::new(),
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

    pub(super) fn canary(&self, model: u16) -> Option<&Try> {
        self.canaries.get(&model)
    }

    /// The shadow of a model, if it has one.
    pub(super) fn shadow(&self, model: u16) -> Option<&Shade> {
        self.shadows.get(&model)
    }

    pub(super) fn has_canaries(&self) -> bool {
        !self.canaries.is_empty()
    }

    /// The name of a model whose canary is this one still.
    pub(super) fn name_of_canary(&self, model: u16, since: Epoch) -> Option<ModelName> {
        let known = self.canaries.get(&model)?;
        let name = known.salt.split('@').next()?;
        (known.since == since).then(|| ModelName::new(name).ok())?
    }

    /// Whether a version has a replica that serves.
    pub(super) fn is_routed(&self, version: Version) -> bool {
        matches!(self.routes.get(&version), Some(Route::To(_)))
    }

    pub(super) fn bare_since(&self, version: Version) -> Option<Instant> {
        match self.routes.get(&version)? {
            Route::To(_) => None,
            Route::Bare(since) => Some(*since),
        }
    }

    /// A node is to be looked at when it is next published.
    pub(super) fn touch_node(&mut self, node: NodeId) {
        self.touched_nodes.insert(node);
    }

    pub(super) fn touch_replica(&mut self, version: Version, replica: ReplicaId) {
        self.touched_replicas.push((version, replica));
    }

    /// What a peer says of a replica has changed; of one that is not known yet nothing follows.
    pub(super) fn touch_told(&mut self, outside: &Outside, replica: ReplicaId) {
        if let Some(assignment) = self.registry.replicas().get(&replica)
            && let Some(model) = outside.model(&assignment.model)
        {
            self.touch_replica((model, assignment.version), replica);
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
        outside.set_applied(self.index(), self.epoch());
        self.look_at_tenants(outside);
        self.look_at_drain(outside);
        self.publish(outside);
        self.reconcile(outside);
        self.caught_up(outside);
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
                self.knowledge.touch_replica(version, id);
                replicas.insert(id);
            }
        }
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
