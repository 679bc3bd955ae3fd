//! Which versions have replicas: what serves, shall serve, is tried, or gets copies.

use paceline_protocol::registry::ReplicaTarget;
use paceline_protocol::{DeviceId, ModelName, NodeId, ReplicaId, VersionNumber};

use super::room::needed_bytes;
use crate::registry::{Model, Registry};

/// A version of a model that has replicas.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub(super) version: VersionNumber,
    pub(super) replicas: ReplicaTarget,
    /// Whether it gets replicas beside those that replace what it has lost.
    pub(super) may_grow: bool,
    /// Whether somebody waits for its answers: its replicas are replaced before they go.
    pub(super) answers: bool,
}

/// The versions of a model that have replicas: the one that serves, the deployed one, the one that
/// is tried, and the one that gets copies. Each once.
pub(super) fn kept(model: &Model) -> impl Iterator<Item = Kept> + use<> {
    let deployed = model.deployment.map(|deployment| Kept {
        version: deployment.version,
        replicas: deployment.replicas,
        may_grow: true,
        answers: true,
    });
    let serving = model.serving.zip(deployed);
    let serving = serving.map(|(version, deployed)| Kept {
        version,
        may_grow: false,
        ..deployed
    });
    let serving = serving.filter(|kept| Some(kept.version) != deployed.map(|kept| kept.version));
    let canary = model.canary.as_ref().filter(|_| !model.is_promoting());
    let canary = canary.map(|canary| Kept {
        version: canary.plan.version,
        replicas: canary.plan.replicas,
        may_grow: true,
        answers: true,
    });
    let shadow = model.shadow.map(|shadow| Kept {
        version: shadow.plan.version,
        replicas: shadow.plan.replicas,
        may_grow: true,
        answers: false,
    });
    // It is about to serve, then.
    let shadow = shadow.filter(|kept| Some(kept.version) != deployed.map(|kept| kept.version));
    [serving, canary, shadow, deployed].into_iter().flatten()
}

/// The versions that get copies, and are not about to serve.
pub(super) fn shadows(registry: &Registry) -> impl Iterator<Item = (&ModelName, Kept)> {
    let models = registry.models().iter();
    let shadowed = models.filter(|(_, model)| model.shadow.is_some() && model.deployment.is_some());
    shadowed.flat_map(|(name, model)| {
        let shadow = kept(model).filter(|kept| !kept.answers);
        shadow.map(move |kept| (name, kept))
    })
}

/// Replicas of shadows on a device, and what each takes of its memory.
pub(super) fn shadowing(
    registry: &Registry,
    (node, device): (NodeId, DeviceId),
) -> impl Iterator<Item = (ReplicaId, u64)> {
    shadows(registry).flat_map(move |(name, kept)| {
        let bytes = needed_bytes(registry, name, kept.version);
        let replicas = registry.replicas_of(name, kept.version);
        let here = replicas.filter(move |(_, of)| (of.node, of.device) == (node, device));
        here.map(move |(replica, _)| (replica, bytes))
    })
}
