//! Policy of the reconciler: from desired and observed state to the next change.
//!
//! One change at a time: each is committed, observed and followed by a fresh look, so no plan
//! outlives the state that it was made from.
//!
//! Only nodes that are up *take work*. Replicas on others are replaced first and taken away when
//! their replacements are ready. That holds for the version that serves as much as for the one
//! that is deployed: a rollout that is stuck must not cost the model its last replica.
//!
//! A shadow's replicas get what room the others leave, and give way to them.
//!
//! A replica that its node has given up stays assigned, and is the mark that its version fails on
//! its device: it counts for nothing, another one is assigned to a device without a mark, and a
//! version that fails everywhere comes to rest with a mark on each. So nothing is remembered but
//! what is in the registry, and nothing goes round in circles. When its node starts anew it is
//! tried again, and taken away if it is not wanted any more. What stands on each node has no other
//! place.

mod kept;
mod room;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use paceline_protocol::registry::{Change, ReplicaTarget};
use paceline_protocol::{DeviceId, ModelName, NodeId, ReplicaId, VersionNumber};

use self::kept::{Kept, kept, shadowing, shadows};
use self::room::{Room, needed_bytes};
use crate::planted::Bug;
use crate::registry::{Model, NodeState, Registry};

/// What is known of a replica's condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReplicaState {
    /// Nothing has been heard of it.
    #[default]
    Unknown,
    /// Its node fetches, loads or warms it up.
    Loading,
    /// It can serve.
    Ready,
    /// Its engine has failed; its node tries again after a while.
    Failed {
        /// Why.
        reason: String,
    },
    /// Its engine has failed too often; its node has given up on it.
    GivenUp {
        /// Why.
        reason: String,
    },
}

/// Replicas' conditions as their nodes report them.
pub type Observed = BTreeMap<ReplicaId, ReplicaState>;

/// Why a deployment has fewer replicas than it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The model.
    pub model: ModelName,
    /// Bytes that a replica needs.
    pub needed_bytes: u64,
    /// The largest free memory of any device that could take it.
    pub largest_free_bytes: u64,
}

/// What to do next, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The change to commit next; `None` if the state is as desired, or must be waited for.
    pub next: Option<Change>,
    /// Deployments that do not fit.
    pub shortfalls: Vec<Shortfall>,
}

/// Decides the next change.
///
/// Order: replicas that nothing wants go first (they hold memory), then missing replicas are
/// assigned, then traffic moves to versions whose replicas are all ready. A version that serves
/// keeps its replicas until traffic has moved away from it. Cost: linear in models + devices and,
/// with a small factor, in replicas; linear in devices once more for each model that fits nowhere.
pub fn plan(registry: &Registry, observed: &Observed) -> Plan {
    let given_up = observed.iter().filter_map(|(id, state)| match state {
        ReplicaState::GivenUp { .. } => Some(*id),
        ReplicaState::Unknown
        | ReplicaState::Loading
        | ReplicaState::Ready
        | ReplicaState::Failed { .. } => None,
    });
    let look = Look {
        registry,
        observed,
        given_up: given_up
            .filter(|_| !Bug::GivenUpStays.is_planted())
            .collect(),
        room: Room::of(registry),
    };
    let mut plan = Plan {
        next: look.surplus(),
        shortfalls: Vec::new(),
    };
    for (name, model) in registry.models() {
        let Some(deployment) = model.deployment else {
            continue;
        };
        for kept in kept(model).filter(|kept| kept.answers) {
            look.place(&mut plan, name, kept);
        }
        if plan.next.is_none()
            && model.serving != Some(deployment.version)
            && look.all_ready(name, (deployment.version, deployment.replicas))
        {
            plan.next = Some(Change::Activate {
                model: name.clone(),
                version: deployment.version,
                computed_at: registry.epoch(),
            });
        }
        if plan.next.is_none() {
            plan.next = look.canary_begins(name, model);
        }
    }
    // What is left is for those that answer nobody.
    for (name, kept) in shadows(registry) {
        look.place(&mut plan, name, kept);
    }
    plan
}

/// What a plan is made from.
struct Look<'a> {
    registry: &'a Registry,
    observed: &'a Observed,
    /// Replicas that their nodes have given up.
    given_up: BTreeSet<ReplicaId>,
    room: Room<'a>,
}

enum Missing {
    None,
    On(NodeId, DeviceId),
    Nowhere(Shortfall),
}

impl Look<'_> {
    /// Sees to it that a version has a replica more, if it lacks one.
    fn place(&self, plan: &mut Plan, name: &ModelName, kept: Kept) {
        match self.missing(name, kept, plan.next.is_some()) {
            Missing::None => {}
            Missing::On(node, device) => {
                plan.next.get_or_insert_with(|| Change::Assign {
                    model: name.clone(),
                    version: kept.version,
                    node,
                    device,
                    computed_at: self.registry.epoch(),
                });
            }
            Missing::Nowhere(shortfall) => {
                if kept.answers && plan.next.is_none() {
                    plan.next = self.gives_way((name, kept.version), shortfall.needed_bytes);
                }
                plan.shortfalls.push(shortfall);
            }
        }
    }

    /// The replica of a shadow in whose place a version would fit that lacks one.
    fn gives_way(
        &self,
        (name, version): (&ModelName, VersionNumber),
        needed_bytes: u64,
    ) -> Option<Change> {
        let free = self.room.without(name, version);
        let fits = free.filter_map(|device| {
            let missing = needed_bytes.saturating_sub(device.free_bytes);
            let here = || shadowing(self.registry, (device.node, device.device));
            let all_bytes: u64 = here().map(|(_, bytes)| bytes).sum();
            let (first, _) = here().next()?;
            (all_bytes >= missing).then_some(first)
        });
        fits.min().map(|replica| Change::Unassign {
            replica,
            computed_at: self.registry.epoch(),
        })
    }

    /// A replica that nothing wants: its version neither serves nor shall serve, it has been
    /// replaced, or there are more of it than wanted.
    fn surplus(&self) -> Option<Change> {
        let models = self.registry.models();
        let versions = self.registry.replicas_by_version();
        let unwanted = versions.filter(|(name, version, _)| {
            let model = models.get(*name);
            model.is_none_or(|model| kept(model).all(|kept| kept.version != *version))
        });
        let unwanted = unwanted.filter_map(|(_, _, of)| of.keys().next().copied());
        let surplus = unwanted.min().or_else(|| {
            models.iter().find_map(|(name, model)| {
                let replaced = kept(model).find_map(|kept| self.replaced(name, kept));
                replaced.or_else(|| kept(model).find_map(|kept| self.too_many(name, kept)))
            })
        });
        surplus.map(|replica| Change::Unassign {
            replica,
            computed_at: self.registry.epoch(),
        })
    }

    /// A replica on a node that is down or leaves, once as many as are wanted can serve elsewhere; of
    /// a shadow at once, since nobody waits for it.
    /// What stands on each node is wanted again when a node that is down comes back, so it stays.
    fn replaced(&self, name: &ModelName, kept: Kept) -> Option<ReplicaId> {
        let (registry, version) = (self.registry, kept.version);
        if self.room.standing(name, version) == registry.replicas_of(name, version).len() {
            return None;
        }
        let (standing, stranded): (Vec<_>, Vec<_>) = registry
            .replicas_of(name, version)
            .partition(|(_, assignment)| self.room.takes_work(assignment.node));
        let wanted = self.wanted(kept.replicas);
        let ready = standing.iter().filter(|(id, _)| {
            self.observed.get(id) == Some(&ReplicaState::Ready) || Bug::ReplacedEarly.is_planted()
        });
        if wanted == 0 || (kept.answers && ready.count() < wanted) {
            return None;
        }
        let is_each = kept.replicas == ReplicaTarget::Each;
        let mut stranded = stranded.into_iter().filter(|(_, assignment)| {
            !is_each || registry.node_state(assignment.node) != Some(NodeState::Down)
        });
        stranded.next().map(|(id, _)| id)
    }

    /// Among too many, failed ones go first, then those that are not ready, then the youngest. A
    /// version that only serves until another one does keeps what it has.
    fn too_many(&self, name: &ModelName, kept: Kept) -> Option<ReplicaId> {
        if !kept.may_grow || self.standing(name, kept) <= self.wanted(kept.replicas) {
            return None;
        }
        let standing = self
            .registry
            .replicas_of(name, kept.version)
            .filter(|(id, assignment)| {
                self.room.takes_work(assignment.node) && !self.is_mark(id, kept.replicas)
            })
            .map(|(id, _)| id);
        standing.min_by_key(|id| {
            let rank = match self.observed.get(id) {
                Some(ReplicaState::GivenUp { .. } | ReplicaState::Failed { .. }) => 0,
                Some(ReplicaState::Unknown | ReplicaState::Loading) | None => 1,
                Some(ReplicaState::Ready) => 2,
            };
            (rank, Reverse(*id))
        })
    }

    /// Replicas of a version on nodes that take work, but for those that were given up.
    fn standing(&self, name: &ModelName, kept: Kept) -> usize {
        let version = kept.version;
        let standing = self.room.standing(name, version);
        if self.given_up.is_empty() {
            return standing;
        }
        let marks = self
            .registry
            .replicas_of(name, version)
            .filter(|(id, of)| self.room.takes_work(of.node) && self.is_mark(id, kept.replicas));
        standing - marks.count()
    }

    /// Whether a replica only says that its version fails where it is.
    fn is_mark(&self, id: &ReplicaId, target: ReplicaTarget) -> bool {
        target != ReplicaTarget::Each && self.given_up.contains(id)
    }

    /// A second copy of a version on one device gives nothing but memory use, so a deployment is
    /// never larger than the number of devices.
    fn wanted(&self, replicas: ReplicaTarget) -> usize {
        match replicas {
            ReplicaTarget::Count(count) => self.room.devices().min(count as usize),
            ReplicaTarget::Each => self.room.nodes(),
        }
    }

    /// A replica that a version lacks. One that only serves until the deployed one is ready gets
    /// none beside what replaces those that it has lost. If it `may_wait`, its place is not looked
    /// for: any that fits will do.
    fn missing(&self, name: &ModelName, kept: Kept, may_wait: bool) -> Missing {
        let version = kept.version;
        let standing = self.standing(name, kept);
        let all = self.registry.replicas_of(name, version).len();
        let may_grow = kept.may_grow || standing < all;
        if !may_grow || standing >= self.wanted(kept.replicas) {
            return Missing::None;
        }
        let needed_bytes = needed_bytes(self.registry, name, version);
        let (mut largest_free_bytes, mut is_any) = (0, false);
        let free = self.room.without(name, version);
        let mut fits = free.filter(|device| {
            is_any = true;
            largest_free_bytes = largest_free_bytes.max(device.free_bytes);
            device.free_bytes >= needed_bytes
        });
        let best = match may_wait {
            true => fits.next(),
            // Fewest copies in the zone, then on the node, then the most room; ids break ties.
            false => fits.min_by_key(|device| {
                (
                    device.in_zone,
                    device.on_node,
                    Reverse(device.free_bytes),
                    device.node,
                    device.device,
                )
            }),
        };
        match best {
            Some(best) => Missing::On(best.node, best.device),
            // Each device has one, or has failed at it.
            None if !is_any => Missing::None,
            None => Missing::Nowhere(Shortfall {
                model: name.clone(),
                needed_bytes,
                largest_free_bytes,
            }),
        }
    }

    /// A canary gets its first share when its replicas are ready.
    fn canary_begins(&self, name: &ModelName, model: &Model) -> Option<Change> {
        let canary = model.canary.as_ref()?;
        let (version, replicas) = (canary.plan.version, canary.plan.replicas);
        let waits = canary.stage.is_none() && self.all_ready(name, (version, replicas));
        waits.then(|| Change::AdvanceCanary {
            model: name.clone(),
            since: canary.since,
            stage: 0,
        })
    }

    /// Traffic moves when every wanted replica that could be placed is ready, and at least one is;
    /// if some were given up, when as many as are wanted are ready elsewhere.
    fn all_ready(
        &self,
        name: &ModelName,
        (version, target): (VersionNumber, ReplicaTarget),
    ) -> bool {
        let replicas = self.registry.replicas_of(name, version);
        let standing = replicas.filter(|(_, assignment)| self.room.takes_work(assignment.node));
        let (given_up, others): (Vec<_>, Vec<_>) =
            standing.partition(|(id, _)| self.given_up.contains(id));
        let is_ready = |id| self.observed.get(id) == Some(&ReplicaState::Ready);
        let least = match given_up.is_empty() {
            true => 1,
            false => self.wanted(target).max(1),
        };
        others.len() >= least && others.iter().all(|(id, _)| is_ready(id))
    }
}

/// Whether a node can be given replicas: it is neither down nor about to leave.
pub(crate) fn takes_work(registry: &Registry, node: NodeId) -> bool {
    registry.node_state(node) == Some(NodeState::Up)
}

/// Whether a node that takes work, other than `without`, has a device with room for a replica, or with
/// shadows that would give way to it.
pub fn has_room(
    registry: &Registry,
    (name, version): (&ModelName, VersionNumber),
    without: NodeId,
) -> bool {
    let needed_bytes = needed_bytes(registry, name, version);
    let room = Room::of(registry);
    let mut free = room.without(name, version);
    free.any(|device| {
        let shadows = shadowing(registry, (device.node, device.device));
        let gives_way: u64 = shadows.map(|(_, bytes)| bytes).sum();
        device.node != without && device.free_bytes + gives_way >= needed_bytes
    })
}

#[cfg(test)]
mod tests;
