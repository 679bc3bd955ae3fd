//! Policy of the reconciler: from desired and observed state to the next change.
//!
//! One change at a time: each is committed, observed and followed by a fresh look, so no plan
//! outlives the state that it was made from.

use std::collections::BTreeMap;

use paceline_protocol::registry::{Change, ReplicaTarget};
use paceline_protocol::{DeviceId, Digest, ModelName, NodeId, ReplicaId, VersionNumber};

use crate::random::Random;
use crate::registry::{Deployment, NodeState, Registry};

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
        let missing = missing(registry, name, deployment);
        match missing {
            Missing::None => {}
            Missing::On(node, device) => {
                let version = deployment.version;
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

/// A replica that nothing wants: its version neither serves nor shall serve, or there are more
/// of it than wanted. Among too many, failed ones go first, then the youngest.
fn surplus(registry: &Registry, observed: &Observed) -> Option<Change> {
    let unassign = |replica| Change::Unassign {
        replica,
        computed_at: registry.epoch(),
    };
    let unwanted = registry.replicas().iter().find(|(_, assignment)| {
        registry
            .models()
            .get(&assignment.model)
            .is_none_or(|model| {
                let deployed = model
                    .deployment
                    .is_some_and(|d| d.version == assignment.version);
                !deployed && model.serving != Some(assignment.version)
            })
    });
    if let Some((replica, _)) = unwanted {
        return Some(unassign(*replica));
    }
    registry.models().iter().find_map(|(name, model)| {
        let deployment = model.deployment?;
        let (present, stranded): (Vec<_>, Vec<_>) = registry
            .replicas_of(name, deployment.version)
            .partition(|(_, assignment)| takes_work(registry, assignment.node));
        let wanted = wanted(registry, deployment);
        // What is on a node that is down or leaves goes once its replacements can serve.
        let ready = present
            .iter()
            .filter(|(id, _)| observed.get(id) == Some(&ReplicaState::Ready));
        if ready.count() >= wanted
            && wanted > 0
            && let Some((stranded, _)) = stranded.first()
        {
            return Some(unassign(*stranded));
        }
        let present: Vec<ReplicaId> = present.into_iter().map(|(id, _)| id).collect();
        if present.len() <= wanted {
            return None;
        }
        let failed =
            |id: &&ReplicaId| matches!(observed.get(*id), Some(ReplicaState::Failed { .. }));
        present
            .iter()
            .find(failed)
            .or(present.last())
            .copied()
            .map(unassign)
    })
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
fn takes_work(registry: &Registry, node: NodeId) -> bool {
    registry.node_state(node) == Some(NodeState::Up)
}

/// Nodes in the order in which they should keep a copy of an artifact, by rendezvous (Thaler
/// and Ravishankar, 1998): every node computes the same order, and a node that leaves moves
/// only what it kept.
pub fn keepers(registry: &Registry, artifact: Digest) -> Vec<NodeId> {
    let [a, b, c, d, e, f, g, h, ..] = artifact.0;
    let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let nodes = registry.nodes().keys().copied();
    let mut keepers: Vec<NodeId> = nodes.filter(|node| takes_work(registry, *node)).collect();
    keepers.sort_by_key(|node| Random::from_seed(seed ^ node.0.rotate_left(32)).next_u64());
    keepers
}

fn missing(registry: &Registry, name: &ModelName, deployment: Deployment) -> Missing {
    let version = deployment.version;
    let replicas = registry.replicas_of(name, version);
    let present = replicas
        .filter(|(_, assignment)| takes_work(registry, assignment.node))
        .count();
    if present >= wanted(registry, deployment) {
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
