//! Policy of artifacts' copies: which nodes keep one, and which one a node has to fetch.
//!
//! Nobody counts copies: every node computes from the registry alone what it keeps, so a node
//! that is down, drained or removed is replaced by the next in the order as soon as that is
//! agreed on. Who has an artifact for other reasons (it was pushed there, or runs there) has one
//! more; so an artifact has as many copies as it needs, or more.

use paceline_protocol::limits::ARTIFACT_COPIES;
use paceline_protocol::{Digest, NodeId};

use crate::placement::takes_work;
use crate::random::Random;
use crate::registry::{NodeState, Registry};

/// Nodes in the order in which they should keep a copy of an artifact, by rendezvous (Thaler
/// and Ravishankar, 1998): every node computes the same order, and a node that leaves moves
/// only what it kept.
pub fn keepers(registry: &Registry, artifact: Digest) -> Vec<NodeId> {
    let mut keepers = sources(registry, artifact);
    keepers.retain(|node| takes_work(registry, *node));
    keepers
}

/// Nodes that may give an artifact, in the order in which they are asked: its keepers, and then
/// those that leave or have left and still run, since the last copy may be theirs.
pub fn sources(registry: &Registry, artifact: Digest) -> Vec<NodeId> {
    let [a, b, c, d, e, f, g, h, ..] = artifact.0;
    let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let seats = registry
        .seats()
        .filter(|(_, state)| *state != NodeState::Down);
    let mut sources: Vec<NodeId> = seats.map(|(node, _)| node).collect();
    sources.sort_by_key(|node| {
        let affinity = Random::from_seed(seed ^ node.0.rotate_left(32)).next_u64();
        (!takes_work(registry, *node), affinity)
    });
    sources
}

/// An artifact that `node` shall keep, unless it is one that needs nothing now, as `is_settled`
/// says: the lowest of those that any version in the registry is made of. Costs O(versions) and,
/// for those that are not settled, O(n log n) in nodes.
pub fn lacking(
    registry: &Registry,
    node: NodeId,
    is_settled: impl Fn(&Digest) -> bool,
) -> Option<Digest> {
    let shall_keep = |artifact: &Digest| {
        let keepers = keepers(registry, *artifact);
        keepers
            .iter()
            .take(ARTIFACT_COPIES)
            .any(|keeper| *keeper == node)
    };
    let lacking = artifacts(registry).filter(|artifact| !is_settled(artifact));
    lacking.filter(shall_keep).min()
}

/// What the versions in the registry are made of; some of it may come twice.
pub fn artifacts(registry: &Registry) -> impl Iterator<Item = Digest> {
    let versions = registry.models().values().flat_map(|m| m.versions.values());
    versions.map(|version| version.record.digest)
}

#[cfg(test)]
mod tests;
