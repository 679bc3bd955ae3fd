//! Policy of membership: from who was admitted and who has a vote to the next step.
//!
//! One step at a time: each is committed, and followed by a fresh look. Voters are 1, 3, 5 or 7,
//! as many as there are nodes for: never an even number, since a second or fourth one survives
//! no further loss. They are spread over zones, and all others are learners.

use std::collections::{BTreeMap, BTreeSet};

use paceline_protocol::limits::VOTERS_MAX;
use paceline_protocol::{ModelName, NodeId, VersionNumber};

use crate::placement::{self, Observed, ReplicaState};
use crate::registry::{NodeState, Registry};

/// What is known of the members.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Who was admitted, and their conditions.
    pub registry: &'a Registry,
    /// Who decides: keeps its vote as long as it can.
    pub leader: NodeId,
    /// Who has a vote.
    pub voters: BTreeSet<NodeId>,
    /// Who receives the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Entries that a member lags behind; unknown if it has not been heard.
    pub lags: BTreeMap<NodeId, u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it the log.
    AddLearner(NodeId),
    /// Give the vote to exactly these, in one joint step.
    SetVoters(BTreeSet<NodeId>),
    /// Stop sending it the log; it has no vote.
    RemoveMember(NodeId),
}

/// Why a node may not leave, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// No such node.
    #[error("there is no node {node}")]
    Unknown {
        /// What was named.
        node: NodeId,
    },
    /// Too few voters would be left to agree on anything.
    #[error(
        "{left} of {voters} voters would be up and not draining; a majority is {majority}: \
         wait for another node, or undrain one"
    )]
    Quorum {
        /// Voters that would be left.
        left: usize,
        /// Voters there are.
        voters: usize,
        /// How many are needed.
        majority: usize,
    },
    /// A version that serves would have no replica, and no other node has room for one.
    #[error(
        "model '{model}' version {version} is ready on node {node} alone, and no other node that \
         is up has room for it"
    )]
    LastReplica {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
        /// The node.
        node: NodeId,
    },
}

/// The next step, if there is one. Costs O(n log n) in nodes.
pub fn next(view: &View<'_>) -> Option<Step> {
    let seats: BTreeMap<NodeId, NodeState> = view.registry.seats().collect();
    let voters = wanted_voters(view, &seats);
    if voters != view.voters && !voters.is_empty() {
        return Some(Step::SetVoters(voters));
    }
    let gone = view.learners.iter().find(|node| !seats.contains_key(node));
    if let Some(node) = gone {
        return Some(Step::RemoveMember(*node));
    }
    let is_member = |node: &NodeId| view.voters.contains(node) || view.learners.contains(node);
    // Who has registered is there; who has only been admitted may never come.
    let mut registered = view.registry.nodes().keys();
    let new = registered.find(|node| seats.contains_key(node) && !is_member(node));
    new.map(|node| Step::AddLearner(*node))
}

/// Whether a node may be drained.
///
/// # Errors
/// The first objection.
pub fn may_drain(view: &View<'_>, observed: &Observed, node: NodeId) -> Result<(), Objection> {
    let registry = view.registry;
    match registry.node_state(node) {
        None => return Err(Objection::Unknown { node }),
        // It is leaving already: nothing is left to object to.
        Some(NodeState::Draining { .. } | NodeState::Drained { .. }) => return Ok(()),
        Some(NodeState::Up | NodeState::Down) => {}
    }
    if view.voters.contains(&node) {
        check_quorum(view, node)?;
    }
    for (name, model) in registry.models() {
        if let Some(version) = model.serving {
            check_replicas((registry, observed), (name, version), node)?;
        }
    }
    Ok(())
}

/// A version that serves must stay ready somewhere, or find room on a node that stays.
fn check_replicas(
    (registry, observed): (&Registry, &Observed),
    (name, version): (&ModelName, VersionNumber),
    node: NodeId,
) -> Result<(), Objection> {
    let is_ready = |id| observed.get(&id) == Some(&ReplicaState::Ready);
    let replicas = registry.replicas_of(name, version);
    let (here, elsewhere): (Vec<_>, Vec<_>) = replicas
        .filter(|(id, _)| is_ready(*id))
        .partition(|(_, assignment)| assignment.node == node);
    let stays = |at: NodeId| registry.node_state(at) == Some(NodeState::Up);
    let is_last = !here.is_empty() && !elsewhere.iter().any(|(_, there)| stays(there.node));
    if is_last && !placement::has_room(registry, (name, version), node) {
        return Err(Objection::LastReplica {
            model: name.clone(),
            version,
            node,
        });
    }
    Ok(())
}

/// Whether a node may be removed for ever.
///
/// # Errors
/// The first objection.
pub fn may_remove(view: &View<'_>, node: NodeId) -> Result<(), Objection> {
    if view.registry.node_state(node).is_none() {
        return Err(Objection::Unknown { node });
    }
    if view.voters.contains(&node) && view.voters.len() > 1 {
        check_quorum(view, node)?;
    }
    Ok(())
}

/// The voters that there shall be before `leaver` is removed: those there are, and a learner in
/// its place. `None` if it has no vote, or nobody could take it: then its removal leaves fewer.
pub fn relieved(view: &View<'_>, leaver: NodeId) -> Option<BTreeSet<NodeId>> {
    let mut seats: BTreeMap<NodeId, NodeState> = view.registry.seats().collect();
    seats.remove(&leaver);
    let voters = wanted_voters(view, &seats);
    let is_relieved = view.voters.contains(&leaver) && voters.len() >= view.voters.len();
    is_relieved.then_some(voters)
}

/// Who shall lead in the place of `leaver`: a voter that is up, the one that lags the least.
pub fn successor(view: &View<'_>, leaver: NodeId) -> Option<NodeId> {
    let stays = |node: &&NodeId| {
        **node != leaver && view.registry.node_state(**node) == Some(NodeState::Up)
    };
    let lag = |node: &&NodeId| (view.lags.get(node).copied().unwrap_or(u64::MAX), **node);
    view.voters.iter().filter(stays).min_by_key(lag).copied()
}

/// How many voters may be lost before nothing more can be agreed on, where there is a quorum.
/// One that drains counts as lost: it was drained to be stopped.
pub fn survivable_losses(registry: &Registry, voters: &BTreeSet<NodeId>) -> usize {
    let majority = voters.len() / 2 + 1;
    let up = voters
        .iter()
        .filter(|node| registry.node_state(**node) == Some(NodeState::Up));
    up.count().saturating_sub(majority)
}

fn check_quorum(view: &View<'_>, leaving: NodeId) -> Result<(), Objection> {
    let (voters, majority) = (view.voters.len(), view.voters.len() / 2 + 1);
    let stays = |node: &&NodeId| {
        **node != leaving && view.registry.node_state(**node) == Some(NodeState::Up)
    };
    let left = view.voters.iter().filter(stays).count();
    if left < majority {
        return Err(Objection::Quorum {
            left,
            voters,
            majority,
        });
    }
    Ok(())
}

/// The voters that there shall be: those there are, as far as they were not removed, and the
/// best learners up to the largest odd number that can be had.
fn wanted_voters(view: &View<'_>, seats: &BTreeMap<NodeId, NodeState>) -> BTreeSet<NodeId> {
    let mut voters: BTreeSet<NodeId> = view
        .voters
        .iter()
        .filter(|node| seats.contains_key(node))
        .copied()
        .collect();
    let mut spare: Vec<NodeId> = view
        .learners
        .iter()
        .filter(|node| {
            seats.get(node) == Some(&NodeState::Up)
                && view.lags.get(node).is_some_and(|lag| *lag <= LAG_MAX)
        })
        .copied()
        .collect();
    let can = (voters.len() + spare.len()).min(VOTERS_MAX);
    let target = if can.is_multiple_of(2) {
        can.saturating_sub(1)
    } else {
        can
    };
    while voters.len() < target {
        let zone_of = |node: &NodeId| view.registry.zone(*node).unwrap_or_default();
        let taken: BTreeSet<&str> = voters.iter().map(zone_of).collect();
        let best = spare
            .iter()
            .position(|node| !taken.contains(zone_of(node)))
            .unwrap_or(0);
        voters.insert(spare.remove(best));
    }
    while voters.len() > target.max(1) {
        let is_up = |node: &NodeId| seats.get(node) == Some(&NodeState::Up);
        let others = || voters.iter().rev().filter(|node| **node != view.leader);
        let worst = others()
            .find(|node| !is_up(node))
            .or_else(|| others().next())
            .copied();
        match worst {
            Some(worst) => voters.remove(&worst),
            None => break,
        };
    }
    voters
}

/// A learner that lags by more has not caught up: its vote would slow every write.
const LAG_MAX: u64 = 1_000;

#[cfg(test)]
mod tests;
