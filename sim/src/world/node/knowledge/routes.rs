//! What the router is told: what nodes are good for, and the ready replicas of versions.
//!
//! The twin of `node/src/router.rs`. What was touched is looked at, and the router is told of a
//! version's replicas before it next picks one: what it would be told in between changes no pick.

use paceline_core::registry::Registry;
use paceline_core::router::{self, Condition, Target};
use paceline_core::{Instant, Machine};
use paceline_protocol::{NodeId, ReplicaId, traffic};

use super::{Shade, Try, Version};
use crate::world::node::{Node, Replica};
use crate::world::outside::Outside;

/// Whether a version can be routed to.
#[derive(Clone, Copy)]
pub(super) enum Route {
    /// This replica serves, as others may.
    To(ReplicaId),
    /// None does, since then.
    Bare(Instant),
}

impl Node {
    /// Tells the router what follows from what is known, and goes on with who waits for it.
    pub(in crate::world::node) fn publish(&mut self, outside: &mut Outside) {
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
            let canary = known.and_then(|model| model.canary.as_ref());
            match (canary, outside.name(model)) {
                (Some(canary), Some(name)) => {
                    let canary = Try {
                        since: canary.since,
                        version: canary.plan.version,
                        weight: canary.weight(),
                        salt: traffic::salt(name, canary.since),
                    };
                    knowledge.canaries.insert(model, canary);
                }
                _ => drop(knowledge.canaries.remove(&model)),
            }
            let shadow = known.and_then(|model| model.shadow);
            match (shadow, outside.name(model)) {
                (Some(shadow), Some(name)) => {
                    let shade = Shade {
                        version: shadow.plan.version,
                        weight: shadow.plan.weight,
                        salt: traffic::salt(name, shadow.since),
                    };
                    knowledge.shadows.insert(model, shade);
                }
                _ => drop(knowledge.shadows.remove(&model)),
            }
            let versions = known.into_iter().flat_map(|model| model.versions.keys());
            let versions = versions.map(|version| (model, *version));
            knowledge.touched_versions.extend(versions);
        }
        for version in std::mem::take(&mut knowledge.touched_versions) {
            self.publish_version(outside, version);
        }
        let mut replicas = std::mem::take(&mut self.knowledge.touched_replicas);
        for (version, replica) in replicas.drain(..) {
            self.publish_replica(outside, version, replica);
        }
        self.knowledge.touched_replicas = replicas;
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
            if before != conditions.get(&node).copied() {
                has_changed = true;
                // Nothing follows for versions that have no replica there.
                for replica in self.replicas_on(node) {
                    self.knowledge.touch_told(outside, replica);
                }
            }
        }
        if has_changed {
            let conditions = self.knowledge.conditions.clone();
            let input = router::Input::SetConditions { conditions };
            self.router
                .step(outside.now, input, &mut self.router_effects);
        }
    }

    /// What a node is known to have.
    fn replicas_on(&self, node: NodeId) -> Vec<ReplicaId> {
        match node == self.id {
            true => self.replicas.keys().copied().collect(),
            false => self.peers.replicas_on(node).collect(),
        }
    }

    /// Looks whether a version has a replica that serves.
    fn publish_version(&mut self, outside: &Outside, version: Version) {
        let knowledge = &self.knowledge;
        let before = knowledge.routes.get(&version).copied();
        let known = match before {
            Some(Route::To(replica)) if self.serves(replica) => Some(replica),
            _ => {
                let replicas = outside.name(version.0).into_iter();
                let replicas =
                    replicas.flat_map(|name| knowledge.registry.replicas_of(name, version.1));
                let mut replicas = replicas.map(|(replica, _)| replica);
                replicas.find(|replica| self.serves(*replica))
            }
        };
        let is_wanted = knowledge.serving.get(&version.0) == Some(&version.1);
        let route = match (known, before) {
            (Some(replica), _) => Some(Route::To(replica)),
            (None, _) if !is_wanted => None,
            (None, Some(Route::Bare(since))) => Some(Route::Bare(since)),
            (None, Some(Route::To(_)) | None) => Some(Route::Bare(outside.now)),
        };
        match route {
            Some(route) => drop(self.knowledge.routes.insert(version, route)),
            None => drop(self.knowledge.routes.remove(&version)),
        }
        self.knowledge.stale.insert(version);
    }

    /// A replica was assigned or taken away, or is ready or not any more: that alone may make a
    /// version bare, or end that it is.
    fn publish_replica(&mut self, outside: &Outside, version: Version, replica: ReplicaId) {
        let serves = self.serves(replica);
        match self.knowledge.routes.get(&version) {
            Some(Route::To(known)) if *known == replica && !serves => {
                self.publish_version(outside, version);
            }
            Some(Route::Bare(_)) | None if serves => {
                let route = Route::To(replica);
                self.knowledge.routes.insert(version, route);
            }
            _ => {}
        }
        self.knowledge.stale.insert(version);
    }

    /// Whether a replica is assigned and ready, and its node good for it.
    fn serves(&self, replica: ReplicaId) -> bool {
        let assignment = self.knowledge.registry.replicas().get(&replica);
        assignment.is_some_and(|of| {
            let condition = self.knowledge.conditions.get(&of.node);
            condition.is_none_or(|condition| condition.serves())
                && self.is_ready_on(replica, of.node)
        })
    }

    fn is_ready_on(&self, replica: ReplicaId, node: NodeId) -> bool {
        match node == self.id {
            true => self
                .replicas
                .get(&replica)
                .is_some_and(|own| own.batcher().is_some()),
            false => self.peers.is_ready(node, replica),
        }
    }

    /// Tells the router the replicas of a version, if they are not what it knows any more.
    pub(in crate::world::node) fn refresh(&mut self, outside: &mut Outside, version: Version) {
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
            let full = version
                .cost
                .batch_ns(version.rows_max, u64::from(version.tokens_max));
            full / u64::from(version.rows_max.max(1))
        };
        let replicas = outside.name(version.0).into_iter();
        let replicas = replicas.flat_map(|name| registry.replicas_of(name, version.1));
        let ready = replicas.filter(|(id, of)| self.is_ready_on(*id, of.node));
        let targets = ready.map(|(id, assignment)| Target {
            replica: id,
            node: assignment.node,
            local: match assignment.node == self.id {
                true => self.replicas.get(&id).and_then(Replica::batcher),
                false => None,
            },
            is_near: registry.zone(assignment.node) == zone,
            row_nanos,
        });
        targets.collect()
    }
}
