//! What devices have left: looked at once for a plan, whatever number of models it is for.

use std::collections::{BTreeMap, BTreeSet};

use paceline_protocol::{DeviceId, ModelName, NodeId, VersionNumber};

use super::takes_work;
use crate::registry::{NodeState, Registry};

/// Nodes that take work, and their devices.
pub(super) struct Room<'a> {
    registry: &'a Registry,
    /// Nodes that take none: mostly few.
    idle: BTreeSet<NodeId>,
    nodes: usize,
    /// By node and number.
    devices: Vec<Device<'a>>,
}

struct Device<'a> {
    at: (NodeId, DeviceId),
    zone: &'a str,
    free_bytes: u64,
}

/// A device without a copy of a certain version.
#[derive(Clone, Copy)]
pub(super) struct FreeDevice {
    pub(super) node: NodeId,
    pub(super) device: DeviceId,
    /// Copies in its zone.
    pub(super) in_zone: usize,
    /// Copies on its node's other devices.
    pub(super) on_node: usize,
    pub(super) free_bytes: u64,
}

impl<'a> Room<'a> {
    /// Costs O(replicas × log devices).
    pub(super) fn of(registry: &'a Registry) -> Self {
        let idle = registry.seats();
        let idle = idle.filter(|(_, state)| *state != NodeState::Up);
        let working = registry.nodes().iter();
        let working = working.filter(|(node, _)| takes_work(registry, **node));
        let devices = working.clone().flat_map(|(node, record)| {
            let devices = (0..).zip(&record.devices);
            devices.map(|(number, device)| Device {
                at: (*node, DeviceId(number)),
                zone: &record.zone,
                free_bytes: device.memory_bytes,
            })
        });
        let mut room = Self {
            registry,
            idle: idle.map(|(node, _)| node).collect(),
            nodes: working.count(),
            devices: devices.collect(),
        };
        for (name, version, replicas) in registry.replicas_by_version() {
            let bytes = needed_bytes(registry, name, version);
            for assignment in replicas.values() {
                let at = (assignment.node, assignment.device);
                if let Ok(found) = room.devices.binary_search_by_key(&at, |device| device.at) {
                    let device = &mut room.devices[found];
                    device.free_bytes = device.free_bytes.saturating_sub(bytes);
                }
            }
        }
        room
    }

    /// Nodes that take work.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Their devices.
    pub(super) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Whether a node that has a replica takes work.
    pub(super) fn takes_work(&self, node: NodeId) -> bool {
        !self.idle.contains(&node)
    }

    /// Replicas of a version on nodes that take work.
    pub(super) fn standing(&self, name: &ModelName, version: VersionNumber) -> usize {
        let replicas = self.registry.replicas_of(name, version);
        match self.idle.is_empty() {
            true => replicas.len(),
            false => replicas.filter(|(_, of)| self.takes_work(of.node)).count(),
        }
    }

    /// Devices without a copy of a version, by node and number.
    pub(super) fn without(
        &self,
        name: &ModelName,
        version: VersionNumber,
    ) -> impl Iterator<Item = FreeDevice> {
        let mut copies = BTreeSet::new();
        let mut on_node = BTreeMap::<NodeId, usize>::new();
        let mut in_zone = BTreeMap::<&str, usize>::new();
        for (_, copy) in self.registry.replicas_of(name, version) {
            copies.insert((copy.node, copy.device));
            *on_node.entry(copy.node).or_default() += 1;
            if let Some(node) = self.registry.nodes().get(&copy.node) {
                *in_zone.entry(&node.zone).or_default() += 1;
            }
        }
        let devices = self.devices.iter();
        devices.filter_map(move |device| {
            let (node, number) = device.at;
            (!copies.contains(&device.at)).then(|| FreeDevice {
                node,
                device: number,
                in_zone: in_zone.get(device.zone).copied().unwrap_or(0),
                on_node: on_node.get(&node).copied().unwrap_or(0),
                free_bytes: device.free_bytes,
            })
        })
    }
}

/// What a replica takes.
pub(super) fn needed_bytes(registry: &Registry, name: &ModelName, version: VersionNumber) -> u64 {
    let model = registry.models().get(name);
    let published = model.and_then(|model| model.versions.get(&version));
    published.map_or(0, |published| published.record.memory_bytes)
}
