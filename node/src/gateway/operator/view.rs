//! What operators see: registry, observations and queues put together.

use std::collections::BTreeSet;

use paceline_core::membership;
use paceline_core::placement::ReplicaState;
use paceline_core::registry::{NodeState, Registry};
use paceline_protocol::operator::{
    AddressesView, DeploymentView, DeviceStatus, ModelView, NodeView, RaftStatus, ReplicaView,
    Status, VersionView,
};
use paceline_protocol::{ModelName, NodeId};

use super::{OperatorParts, traffic};
use crate::raft::Role;

pub(super) fn status(parts: &OperatorParts) -> Status {
    let registry = parts.registry.current();
    let raft = parts.registry.raft();
    let record = registry.nodes().get(&parts.node);
    let (running, queued_rows) = parts.device.occupancy();
    let devices = record.map_or_else(Vec::new, |record| {
        let devices = record.devices.iter().map(|device| DeviceStatus {
            kind: device.kind,
            lanes: device.lanes,
            running,
            queued_rows,
            memory_used_bytes: parts.observed.own_memory_bytes(),
            memory_bytes: device.memory_bytes,
        });
        devices.collect()
    });
    let voters: BTreeSet<NodeId> = raft.voters.iter().copied().collect();
    let contact = parts.contact.now();
    let quorum = contact.is_fresh();
    let survivable = match quorum {
        true => membership::survivable_losses(&registry, &voters),
        false => 0,
    };
    Status {
        cluster: format!("{:032x}", parts.cluster),
        node: parts.node,
        name: record.map_or_else(String::new, |record| record.name.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: parts.readiness.is_ready(),
        epoch: registry.epoch(),
        raft: RaftStatus {
            role: role(raft.role).to_owned(),
            term: raft.term,
            leader: raft.leader,
            last_log: raft.last_log.unwrap_or(0),
            committed: raft.committed.unwrap_or(0),
            applied: raft.applied.unwrap_or(0),
            voters: raft.voters,
        },
        survivable_losses: u32::try_from(survivable).unwrap_or(u32::MAX),
        quorum,
        stale_seconds: contact.age().map(|age| age.as_secs()),
        warnings: {
            let mut warnings = warnings(registry.nodes().len(), quorum, survivable);
            warnings.extend(parts.tls.iter().flat_map(|tls| tls.warnings()));
            warnings
        },
        models: registry.models().len(),
        models_ready: parts.router.routes().ready_models(),
        shadows: registry
            .models()
            .values()
            .filter(|model| model.shadow.is_some())
            .count(),
        uptime_seconds: parts.clock.now().as_nanos() / 1_000_000_000,
        devices,
        degraded: parts.health.degraded(),
    }
}

/// What is allowed and unwise.
fn warnings(nodes: usize, quorum: bool, survivable: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if !quorum {
        warnings.push("no quorum: nothing can be changed, and answers may be stale".to_owned());
    }
    match nodes {
        2 => {
            warnings.push("two nodes: no loss is survivable; a third node makes one so".to_owned())
        }
        3.. if survivable == 0 => {
            warnings.push("no further loss is survivable".to_owned());
        }
        _ => {}
    }
    warnings
}

pub(super) fn nodes(parts: &OperatorParts) -> Vec<NodeView> {
    let registry = parts.registry.current();
    let raft = parts.registry.raft();
    let peers = parts.observed.nodes();
    let view = |id: &NodeId, record: &paceline_protocol::registry::NodeRecord| {
        let here = *id == parts.node;
        let role = match (raft.leader == Some(*id), raft.voters.contains(id)) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let addresses = &record.addresses;
        NodeView {
            id: *id,
            name: record.name.clone(),
            state: state(registry.node_state(*id)).to_owned(),
            role: role.to_owned(),
            zone: record.zone.clone(),
            pid: match here {
                true => Some(parts.pid),
                false => peers.get(id).map(|facts| facts.pid),
            },
            addresses: AddressesView {
                http: open(&addresses.http),
                grpc: open(&addresses.grpc),
                metrics: open(&addresses.metrics),
                sdk: open(&addresses.sdk),
                peer: open(&addresses.peer),
            },
            epoch: match here {
                true => Some(registry.epoch()),
                false => peers.get(id).map(|facts| facts.epoch),
            },
        }
    };
    registry
        .nodes()
        .iter()
        .map(|(id, record)| view(id, record))
        .collect()
}

pub(super) fn model(
    parts: &OperatorParts,
    registry: &Registry,
    name: &ModelName,
) -> Option<ModelView> {
    let model = registry.models().get(name)?;
    let observed = parts.observed.current();
    let replicas = registry.replicas().iter().filter(|(_, a)| a.model == *name);
    let replicas = replicas.map(|(id, assignment)| {
        let state = observed
            .get(id)
            .map(|observation| observation.state.clone());
        let (state, reason) = match state.unwrap_or_default() {
            ReplicaState::Unknown => ("unknown", None),
            ReplicaState::Loading => ("loading", None),
            ReplicaState::Ready => ("ready", None),
            ReplicaState::Failed { reason } => ("failed", Some(reason)),
            ReplicaState::GivenUp { reason } => ("failed", Some(format!("given up: {reason}"))),
        };
        ReplicaView {
            id: *id,
            version: assignment.version,
            node: assignment.node,
            device: assignment.device,
            state: state.to_owned(),
            reason,
        }
    });
    let versions = model
        .versions
        .iter()
        .map(|(version, published)| VersionView {
            version: *version,
            published_ms: published.published_ms,
            record: published.record.clone(),
        });
    let routes = parts.router.routes();
    Some(ModelView {
        name: name.clone(),
        owner: model.owner.clone(),
        serving: model.serving,
        deployed: model.deployment.map(|deployment| DeploymentView {
            version: deployment.version,
            replicas: deployment.replicas,
        }),
        ready: routes
            .model(name.as_str())
            .is_ok_and(crate::router::ModelRoute::is_ready),
        versions: versions.collect(),
        replicas: replicas.collect(),
        canary: traffic::canary(parts, registry, name),
        canary_ended: traffic::ended(model),
        shadow: traffic::shadow(model, &routes, name),
        previous: model.previous,
        labels: model.labels.clone(),
        revision: model.revision,
        epoch: registry.epoch(),
    })
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

fn state(state: Option<NodeState>) -> &'static str {
    match state {
        Some(NodeState::Up) | None => "up",
        Some(NodeState::Down) => "down",
        Some(NodeState::Draining { .. }) => "draining",
        Some(NodeState::Drained { .. }) => "drained",
    }
}

/// A door that is not open has no address.
fn open(address: &str) -> Option<String> {
    Some(address.to_owned()).filter(|address| !address.is_empty())
}
