//! Policy of the reconciler: from desired and observed state to the next change.
//!
//! One change at a time: each is committed, observed and followed by a fresh look, so no plan
//! outlives the state that it was made from.
//!
//! Only nodes that are up *take work*. Replicas on others are replaced first and taken away when
//! their replacements are ready. That holds for the version that serves as much as for the one
//! that is deployed: a rollout that is stuck must not cost the model its last replica.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use paceline_protocol::registry::{Change, ReplicaTarget};
use paceline_protocol::{DeviceId, ModelName, NodeId, ReplicaId, VersionNumber};

use crate::planted::Bug;
use crate::registry::{Deployment, Model, NodeState, Registry};

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
    /// Its node has given up on it.
    Failed {
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
/// keeps its replicas until traffic has moved away from it. Cost: linear in replicas × devices.
pub fn plan(registry: &Registry, observed: &Observed) -> Plan {
    let mut plan = Plan {
        next: surplus(registry, observed),
        shortfalls: Vec::new(),
    };
    for (name, model) in registry.models() {
        let Some(deployment) = model.deployment else {
            continue;
        };
        for version in kept_versions(model) {
            match missing(registry, (name, model), version) {
                Missing::None => {}
                Missing::On(node, device) => {
                    plan.next.get_or_insert_with(|| Change::Assign {
                        model: name.clone(),
                        version,
                        node,
                        device,
                        computed_at: registry.epoch(),
                    });
                }
                Missing::Nowhere(shortfall) => plan.shortfalls.push(shortfall),
            }
        }
        if plan.next.is_none()
            && model.serving != Some(deployment.version)
            && all_ready(registry, observed, name, deployment.version)
        {
            plan.next = Some(Change::Activate {
                model: name.clone(),
                version: deployment.version,
                computed_at: registry.epoch(),
            });
        }
    }
    plan
}

enum Missing {
    None,
    On(NodeId, DeviceId),
    Nowhere(Shortfall),
}

/// A replica that nothing wants: its version neither serves nor shall serve, it has been
/// replaced, or there are more of it than wanted.
fn surplus(registry: &Registry, observed: &Observed) -> Option<Change> {
    let unwanted = registry.replicas().iter().find(|(_, assignment)| {
        let model = registry.models().get(&assignment.model);
        model.is_none_or(|model| kept_versions(model).all(|kept| kept != assignment.version))
    });
    let unwanted = unwanted.map(|(replica, _)| *replica);
    let surplus = unwanted.or_else(|| {
        registry.models().iter().find_map(|(name, model)| {
            let deployment = model.deployment?;
            let mut kept = kept_versions(model);
            kept.find_map(|version| replaced(registry, observed, (name, version), deployment))
                .or_else(|| too_many(registry, observed, name, deployment))
        })
    });
    surplus.map(|replica| Change::Unassign {
        replica,
        computed_at: registry.epoch(),
    })
}

/// A replica on a node that is down or leaves, once as many as are wanted can serve elsewhere.
/// What stands on each node is wanted again when a node that is down comes back, so it stays.
fn replaced(
    registry: &Registry,
    observed: &Observed,
    (name, version): (&ModelName, VersionNumber),
    deployment: Deployment,
) -> Option<ReplicaId> {
    let (standing, stranded): (Vec<_>, Vec<_>) = registry
        .replicas_of(name, version)
        .partition(|(_, assignment)| takes_work(registry, assignment.node));
    let wanted = wanted(registry, deployment);
    let ready = standing.iter().filter(|(id, _)| {
        observed.get(id) == Some(&ReplicaState::Ready) || Bug::ReplacedEarly.is_planted()
    });
    if wanted == 0 || ready.count() < wanted {
        return None;
    }
    let is_each = deployment.replicas == ReplicaTarget::Each;
    let mut stranded = stranded.into_iter().filter(|(_, assignment)| {
        !is_each || registry.node_state(assignment.node) != Some(NodeState::Down)
    });
    stranded.next().map(|(id, _)| id)
}

/// Among too many, failed ones go first, then those that are not ready, then the youngest.
fn too_many(
    registry: &Registry,
    observed: &Observed,
    name: &ModelName,
    deployment: Deployment,
) -> Option<ReplicaId> {
    let standing: Vec<ReplicaId> = registry
        .replicas_of(name, deployment.version)
        .filter(|(_, assignment)| takes_work(registry, assignment.node))
        .map(|(id, _)| id)
        .collect();
    if standing.len() <= wanted(registry, deployment) {
        return None;
    }
    standing.into_iter().min_by_key(|id| {
        let rank = match observed.get(id) {
            Some(ReplicaState::Failed { .. }) => 0,
            Some(ReplicaState::Unknown | ReplicaState::Loading) | None => 1,
            Some(ReplicaState::Ready) => 2,
        };
        (rank, Reverse(*id))
    })
}

/// The versions of a model that have replicas: the one that serves, and the deployed one.
fn kept_versions(model: &Model) -> impl Iterator<Item = VersionNumber> + use<> {
    let deployed = model.deployment.map(|deployment| deployment.version);
    let serving = model.serving.filter(|serving| Some(*serving) != deployed);
    serving.into_iter().chain(deployed)
}

/// A second copy of a version on one device gives nothing but memory use, so a deployment is
/// never larger than the number of devices.
fn wanted(registry: &Registry, deployment: Deployment) -> usize {
    let nodes = registry.nodes().iter();
    let working = nodes.filter(|(node, _)| takes_work(registry, **node));
    match deployment.replicas {
        ReplicaTarget::Count(count) => {
            let devices: usize = working.map(|(_, record)| record.devices.len()).sum();
            devices.min(count as usize)
        }
        ReplicaTarget::Each => working.count(),
    }
}

/// Whether a node can be given replicas: it is neither down nor about to leave.
pub(crate) fn takes_work(registry: &Registry, node: NodeId) -> bool {
    registry.node_state(node) == Some(NodeState::Up)
}

/// A replica that a version lacks. One that only serves until the deployed one is ready gets
/// none beside what replaces those that it has lost.
fn missing(
    registry: &Registry,
    (name, model): (&ModelName, &Model),
    version: VersionNumber,
) -> Missing {
    let Some(deployment) = model.deployment else {
        return Missing::None;
    };
    let replicas = registry.replicas_of(name, version);
    let (standing, stranded): (Vec<_>, Vec<_>) =
        replicas.partition(|(_, assignment)| takes_work(registry, assignment.node));
    let may_grow = version == deployment.version || !stranded.is_empty();
    if !may_grow || standing.len() >= wanted(registry, deployment) {
        return Missing::None;
    }
    let needed_bytes = needed_bytes(registry, name, version);
    let free = free_devices(registry, name, version);
    let fits = free
        .iter()
        .filter(|device| device.free_bytes >= needed_bytes);
    // Fewest copies in the zone, then on the node, then the most room; ids break ties.
    let best = fits.min_by_key(|device| {
        (
            device.in_zone,
            device.on_node,
            u64::MAX - device.free_bytes,
            device.node,
            device.device,
        )
    });
    match best {
        Some(best) => Missing::On(best.node, best.device),
        None => {
            let largest_free_bytes = free.iter().map(|d| d.free_bytes).max().unwrap_or(0);
            Missing::Nowhere(Shortfall {
                model: name.clone(),
                needed_bytes,
                largest_free_bytes,
            })
        }
    }
}

/// Whether a node that takes work, other than `without`, has a device with room for a replica.
pub fn has_room(
    registry: &Registry,
    (name, version): (&ModelName, VersionNumber),
    without: NodeId,
) -> bool {
    let needed_bytes = needed_bytes(registry, name, version);
    let free = free_devices(registry, name, version);
    free.iter()
        .any(|device| device.node != without && device.free_bytes >= needed_bytes)
}

fn needed_bytes(registry: &Registry, name: &ModelName, version: VersionNumber) -> u64 {
    let model = registry.models().get(name);
    let published = model.and_then(|model| model.versions.get(&version));
    published.map_or(0, |published| published.record.memory_bytes)
}

struct FreeDevice {
    node: NodeId,
    device: DeviceId,
    in_zone: usize,
    on_node: usize,
    free_bytes: u64,
}

/// Devices without a copy of the version, with what is left of their memory.
fn free_devices(registry: &Registry, name: &ModelName, version: VersionNumber) -> Vec<FreeDevice> {
    let mut used = BTreeMap::<(NodeId, DeviceId), u64>::new();
    for assignment in registry.replicas().values() {
        let model = registry.models().get(&assignment.model);
        let bytes = model
            .and_then(|model| model.versions.get(&assignment.version))
            .map_or(0, |version| version.record.memory_bytes);
        *used
            .entry((assignment.node, assignment.device))
            .or_default() += bytes;
    }
    let copies: Vec<(NodeId, DeviceId)> = registry
        .replicas_of(name, version)
        .map(|(_, a)| (a.node, a.device))
        .collect();
    let zone_of = |node: &NodeId| registry.nodes().get(node).map(|node| node.zone.as_str());
    let mut free = Vec::new();
    let working = registry
        .nodes()
        .iter()
        .filter(|(node, _)| takes_work(registry, **node));
    for (id, node) in working {
        let on_node = copies.iter().filter(|(at, _)| at == id).count();
        let in_zone = copies
            .iter()
            .filter(|(at, _)| zone_of(at) == Some(&node.zone))
            .count();
        for (number, record) in node.devices.iter().enumerate() {
            let device = DeviceId(number as u16);
            if copies.contains(&(*id, device)) {
                continue;
            }
            let taken = used.get(&(*id, device)).copied().unwrap_or(0);
            let free_bytes = record.memory_bytes.saturating_sub(taken);
            free.push(FreeDevice {
                node: *id,
                device,
                in_zone,
                on_node,
                free_bytes,
            });
        }
    }
    free
}

/// Traffic moves when every wanted replica that could be placed is ready, and at least one is.
fn all_ready(
    registry: &Registry,
    observed: &Observed,
    name: &ModelName,
    version: VersionNumber,
) -> bool {
    let mut replicas = registry
        .replicas_of(name, version)
        .filter(|(_, assignment)| takes_work(registry, assignment.node))
        .peekable();
    replicas.peek().is_some()
        && replicas.all(|(id, _)| observed.get(&id) == Some(&ReplicaState::Ready))
}

#[cfg(test)]
mod tests;
