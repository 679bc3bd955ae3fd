//! Machine that picks the replica that will answer a request soonest.
//!
//! Power of two choices on expected completion (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001): the candidates are the replica on this node and two
//! random others of a subset; the least expected completion wins. A pick costs the same for
//! ten replicas and for ten thousand.
//!
//! Those of this node's own zone come first. Another zone gets a request only when the best of
//! the own one would take long, and less than half as long there: so load spills over before it
//! is refused, and not back and forth. What nodes are good for is told as their [`Condition`]:
//! draining ones are picked if no other is left, suspect ones if those are not either (if all
//! are silent, it is more likely that this node did not listen), and those that are away never.
//! A request that was sent before goes to a node that it has [not been](Been) to.
//!
//! Expected completion of a replica is the sum of: rows of ours in flight there × its learnt time
//! of a row; what its newest load report said was queued, faded by the report's age; what a batch
//! costs before its first row; the round trip; the time that the bytes take.
//!
//! A replica that has become slow is picked no more, so nothing is learnt of it: what it takes
//! longer than it has done fades, halved for each second, until it looks as good as another. The
//! request that it gets then is its probe. What that finds replaces what was known.

mod been;
mod route;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use paceline_protocol::{NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

pub use self::been::Been;
use self::route::{Candidate, Route, Wish, keep_subset, rank};
use crate::detector::Liveness;
use crate::device::BatcherId;
use crate::machine::Machine;
use crate::planted::Bug;
use crate::random::Random;
use crate::record::{Recordable, Recording, Tape};
use crate::registry::NodeState;
use crate::request::Slot;
use crate::time::Instant;

/// A version that requests can be routed to. The driver chooses the number and may use it
/// again after the route's replicas were set to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteId(pub u32);

/// A replica that can be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its identity.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Its queue, if it is on this node.
    pub local: Option<BatcherId>,
    /// Whether it is in the zone of this node.
    pub is_near: bool,
    /// Expected time of a row in a full batch, in nanoseconds, until it is learnt.
    pub row_nanos: u64,
}

/// What can happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// The ready replicas of a version are now these. What was learnt of those that stay is
    /// kept. Off the hot path: costs O(n log n). Best told again after a change of conditions:
    /// of very many replicas, those that can be picked are considered first.
    SetTargets {
        /// The version.
        route: RouteId,
        /// Its ready replicas, in any order, none twice.
        targets: Vec<Target>,
    },
    /// What nodes' replicas are good for; those of other nodes are good. Off the hot path: costs
    /// O(routes).
    SetConditions {
        /// By node.
        conditions: BTreeMap<NodeId, Condition>,
    },
    /// A request wants a replica.
    Pick {
        /// The version.
        route: RouteId,
        /// The request.
        slot: Slot,
        /// Its rows.
        rows: u32,
        /// Bytes of its inputs.
        bytes: u64,
        /// What is to be minded if it was sent before; `None` for nearly all.
        again: Option<Box<Again>>,
    },
    /// A request that was dispatched has ended.
    Done {
        /// The version.
        route: RouteId,
        /// Where it was sent.
        replica: ReplicaId,
        /// Its rows.
        rows: u32,
        /// What is learnt from it; `None` if it did not run.
        report: Option<Report>,
    },
}

/// What is to be minded of a request that was sent before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Where it was.
    pub been: Been,
    /// Whether it may be what silenced a node: it goes to no other one that is silent.
    pub is_alone: bool,
}

/// What a node's replicas are good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    /// They are picked.
    #[default]
    Good,
    /// The node is about to leave: they are picked if there is no other.
    Draining,
    /// The node is silent: they are picked if not even a draining node has one.
    Suspect,
    /// The node is lost, down, or has left: they are not picked.
    Away,
}

/// What an answer says of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows that waited at the replica when it answered.
    pub queued_rows: u32,
    /// The replica's learnt time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// What one row's work does not explain of the time until the answer, in nanoseconds: what a
    /// batch costs before its first row and, from another node, the way in both directions and
    /// what the request waited at the replica.
    pub rest_nanos: u64,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Send the request there; its end must be reported with [`Input::Done`].
    Dispatch {
        /// The request.
        slot: Slot,
        /// The replica.
        replica: ReplicaId,
        /// The node that it is on.
        node: NodeId,
        /// Its queue, if it is on this node.
        local: Option<BatcherId>,
    },
    /// The version has no replica that could be picked.
    NoReplica {
        /// The request.
        slot: Slot,
    },
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Router {
    node: NodeId,
    random: Random,
    routes: Vec<Route>,
    /// Of nodes that are not good.
    conditions: BTreeMap<NodeId, Condition>,
}

impl Condition {
    /// Of a node that was agreed to be so, and that is heard so.
    pub fn of(state: NodeState, liveness: Liveness) -> Self {
        match (state, liveness) {
            (NodeState::Down | NodeState::Drained { .. }, _)
            | (_, Liveness::Lost | Liveness::Down) => Self::Away,
            (_, Liveness::Suspect) => Self::Suspect,
            (NodeState::Draining { .. }, Liveness::Alive) => Self::Draining,
            (NodeState::Up, Liveness::Alive) => Self::Good,
        }
    }

    /// Whether a ready replica on such a node counts as one.
    pub fn serves(self) -> bool {
        self <= Self::Draining
    }
}

impl Router {
    /// The router of `node`. `seed` decides which others it considers.
    pub fn new(node: NodeId, seed: u64) -> Self {
        Self {
            node,
            random: Random::stream(seed, "router"),
            routes: Vec::new(),
            conditions: BTreeMap::new(),
        }
    }

    /// Ready replicas of a version that this router considers.
    pub fn targets(&self, route: RouteId) -> usize {
        let route = self.routes.get(route.0 as usize);
        route.map_or(0, |route| route.candidates.len())
    }

    /// Rows of this router's requests that are under way to replicas which it considers. Costs
    /// O(routes).
    pub fn in_flight_rows(&self) -> u64 {
        let candidates = self.routes.iter().flat_map(|route| &route.candidates);
        candidates.map(|candidate| candidate.in_flight_rows).sum()
    }

    fn set_targets(&mut self, route: RouteId, mut targets: Vec<Target>) {
        let index = route.0 as usize;
        if index >= self.routes.len() {
            self.routes.resize_with(index + 1, Route::default);
        }
        // The subset by rendezvous: each router considers its own few, and all replicas are
        // considered by some (Thaler and Ravishankar, 1998).
        let (node, conditions) = (self.node, &self.conditions);
        targets.sort_by_cached_key(|target| {
            let rank = rank(target, conditions);
            (rank, Reverse(affinity(node, target.replica)))
        });
        keep_subset(&mut targets, conditions);
        let known = std::mem::take(&mut self.routes[index]).candidates;
        let candidates = targets.into_iter().map(|target| {
            let same = known
                .iter()
                .find(|known| known.target.replica == target.replica);
            same.map_or_else(|| Candidate::new(target), |known| known.renewed(target))
        });
        self.routes[index] = Route::ordered(candidates.collect(), conditions);
    }

    fn set_conditions(&mut self, conditions: BTreeMap<NodeId, Condition>) {
        if conditions == self.conditions {
            return;
        }
        self.conditions = conditions;
        for route in &mut self.routes {
            let candidates = std::mem::take(&mut route.candidates);
            *route = Route::ordered(candidates, &self.conditions);
        }
    }

    fn pick(
        &mut self,
        now: Instant,
        (route, slot): (RouteId, Slot),
        wish: Wish,
        again: Option<&Again>,
    ) -> Effect {
        let random = &mut self.random;
        let picked = self.routes.get_mut(route.0 as usize).and_then(|route| {
            let best = match again {
                None => route.first(random, now, wish),
                Some(again) => route.another(now, wish, again),
            };
            let (_, best) = best?;
            route.candidates.get_mut(best)
        });
        let Some(chosen) = picked else {
            return Effect::NoReplica { slot };
        };
        chosen.in_flight_rows += u64::from(wish.rows);
        let Target {
            replica,
            node,
            local,
            ..
        } = chosen.target;
        Effect::Dispatch {
            slot,
            replica,
            node,
            local,
        }
    }

    fn done(
        &mut self,
        now: Instant,
        (route, replica): (RouteId, ReplicaId),
        rows: u32,
        report: Option<Report>,
    ) {
        if report.is_none() && Bug::EndsForgotten.is_planted() {
            return;
        }
        let route = self.routes.get_mut(route.0 as usize);
        let candidate = route.and_then(|route| {
            let mut candidates = route.candidates.iter_mut();
            candidates.find(|candidate| candidate.target.replica == replica)
        });
        // A replica that was taken away meanwhile has nothing to learn any more.
        let Some(candidate) = candidate else { return };
        candidate.in_flight_rows = candidate.in_flight_rows.saturating_sub(u64::from(rows));
        if let Some(report) = report {
            candidate.learn(now, report);
        }
    }
}

impl Machine for Router {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::SetTargets { route, targets } => self.set_targets(route, targets),
            Input::SetConditions { conditions } => self.set_conditions(conditions),
            Input::Pick {
                route,
                slot,
                rows,
                bytes,
                again,
            } => {
                let wish = Wish { rows, bytes };
                out.push(self.pick(now, (route, slot), wish, again.as_deref()));
            }
            Input::Done {
                route,
                replica,
                rows,
                report,
            } => {
                self.done(now, (route, replica), rows, report);
            }
        }
    }

    fn wake(&mut self, _now: Instant, _out: &mut Vec<Effect>) {}

    fn next_wakeup(&self) -> Option<Instant> {
        None
    }
}

impl Recordable for Router {
    fn state_bytes(&self) -> usize {
        let routes: usize = self.routes.iter().map(Route::bytes).sum();
        routes + self.conditions.len() * CONDITION_BYTES
    }

    fn input_bytes(input: &Input) -> usize {
        match input {
            Input::SetTargets { targets, .. } => targets.len() * size_of::<Target>(),
            Input::SetConditions { conditions } => conditions.len() * CONDITION_BYTES,
            Input::Pick { again, .. } => again.as_ref().map_or(0, |_| size_of::<Again>()),
            Input::Done { .. } => 0,
        }
    }

    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Router(tape)
    }
}

/// What one takes in a map: its nodes are two thirds full on average.
const CONDITION_BYTES: usize = 24;

/// How much `node` favours `replica`: a mix of both ids, the same on every node.
fn affinity(node: NodeId, replica: ReplicaId) -> u64 {
    Random::from_seed(node.0.rotate_left(32) ^ replica.0).next_u64()
}

const _: () = assert!(size_of::<Effect>() <= 64);

#[cfg(test)]
mod tests;
