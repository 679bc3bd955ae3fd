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
//!
//! A replica that fails several requests in a row is left out for a while, each time for longer,
//! and comes back by a single request that it answers ([`health`]). Of a version's replicas one in
//! ten may be out at a time, and none if more than half fail: others that fail are picked seldom.
//! Only failures eject: what is slow is used as far as it is worth, also when all are busy.
//!
//! A request of a sequence goes where the sequence's others went: the replica is the one that the
//! sequence prefers, of all there are, as long as it is not loaded more than others ([`sticky`]).

mod been;
mod ejection;
mod health;
mod language;
mod route;
mod sticky;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use paceline_protocol::{NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

pub use self::been::Been;
use self::ejection::Turn;
pub use self::language::{Again, Effect, Heard, InSequence, Input, Report};
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

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Router {
    node: NodeId,
    random: Random,
    routes: Vec<Route>,
    /// Of nodes that are not good.
    conditions: BTreeMap<NodeId, Condition>,
}

/// What a request wants of its replica.
struct Asks<'a> {
    rows: u32,
    bytes: u64,
    may_probe: bool,
    again: Option<&'a Again>,
    sequence: Option<InSequence>,
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

    /// Rows of this router's requests that are under way to replicas that it knows. Costs
    /// O(routes).
    pub fn in_flight_rows(&self) -> u64 {
        let routes = self.routes.iter();
        let candidates = routes.flat_map(|route| route.candidates.iter().chain(&route.beyond));
        candidates.map(|candidate| candidate.in_flight_rows).sum()
    }

    /// Replicas that are left out since they fail. Costs O(routes).
    pub fn ejected(&self) -> usize {
        self.routes.iter().map(Route::out).sum()
    }

    fn set_targets(&mut self, now: Instant, route: RouteId, mut targets: Vec<Target>) {
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
        let beyond = keep_subset(&mut targets, conditions);
        let Route {
            candidates,
            beyond: others,
            ..
        } = std::mem::take(&mut self.routes[index]);
        let known = candidates.into_iter().chain(others);
        let known: BTreeMap<ReplicaId, Candidate> =
            known.map(|known| (known.target.replica, known)).collect();
        let candidate = |target: Target| {
            let same = known.get(&target.replica);
            same.map_or_else(|| Candidate::new(target), |known| known.renewed(target))
        };
        let beyond = beyond.into_iter().map(candidate).collect();
        let candidates = targets.into_iter().map(candidate).collect();
        self.routes[index] = Route::ordered(now, (candidates, beyond), conditions);
    }

    fn set_conditions(&mut self, now: Instant, conditions: BTreeMap<NodeId, Condition>) {
        if conditions == self.conditions {
            return;
        }
        self.conditions = conditions;
        for route in &mut self.routes {
            let Route {
                candidates, beyond, ..
            } = std::mem::take(route);
            *route = Route::ordered(now, (candidates, beyond), &self.conditions);
        }
    }

    fn pick(&mut self, now: Instant, (route, slot): (RouteId, Slot), asks: Asks<'_>) -> Effect {
        let (random, conditions) = (&mut self.random, &self.conditions);
        let picked = self.routes.get_mut(route.0 as usize).and_then(|route| {
            if let Some(sequence) = asks.sequence {
                let been = asks.again.map(|again| &again.been);
                return route.take_sticky(now, (sequence, been), conditions);
            }
            let wish = Wish {
                rows: asks.rows,
                bytes: asks.bytes,
                luck_permille: match asks.again {
                    // It has no further attempt to lose.
                    Some(_) => LUCK_PERMILLE_MAX,
                    None => route.luck_permille(now, random),
                },
            };
            let best = match asks.again {
                None => {
                    let probed = asks.may_probe.then(|| route.probed(now)).flatten();
                    probed.or_else(|| Some(route.first(random, now, wish)?.1))
                }
                Some(again) => Some(route.another(now, wish, again)?.1),
            };
            route.candidates.get_mut(best?)
        });
        let Some(chosen) = picked else {
            return Effect::NoReplica { slot };
        };
        chosen.in_flight_rows += u64::from(asks.rows);
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
        heard: Heard,
    ) -> Option<Effect> {
        if !matches!(heard, Heard::Answer(_)) && Bug::EndsForgotten.is_planted() {
            return None;
        }
        let route = self.routes.get_mut(route.0 as usize)?;
        let mut candidates = route.candidates.iter();
        // A replica that was taken away meanwhile has nothing to learn any more.
        let position = candidates.position(|candidate| candidate.target.replica == replica);
        let Some(position) = position else {
            route.done_beyond((now, &mut self.random), (replica, rows), heard);
            return None;
        };
        let candidate = &mut route.candidates[position];
        candidate.in_flight_rows = candidate.in_flight_rows.saturating_sub(u64::from(rows));
        let node = candidate.target.node;
        let turn = match heard {
            Heard::Answer(report) => {
                candidate.learn(now, report);
                route.answered(now, position, &self.conditions)
            }
            Heard::Fault => route.failed((now, &mut self.random), position, &self.conditions),
            Heard::Nothing => {
                route.unheard(now, position);
                None
            }
        };
        Some(match turn? {
            Turn::Ejected(until) => Effect::Ejected {
                replica,
                node,
                until,
            },
            Turn::Back => Effect::Back { replica, node },
        })
    }
}

impl Machine for Router {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::SetTargets { route, targets } => self.set_targets(now, route, targets),
            Input::SetConditions { conditions } => self.set_conditions(now, conditions),
            Input::Pick {
                route,
                slot,
                rows,
                bytes,
                may_probe,
                again,
                sequence,
            } => {
                let asks = Asks {
                    rows,
                    bytes,
                    may_probe,
                    again: again.as_deref(),
                    sequence,
                };
                out.push(self.pick(now, (route, slot), asks));
            }
            Input::Done {
                route,
                replica,
                rows,
                heard,
            } => out.extend(self.done(now, (route, replica), rows, heard)),
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

/// Below it no share of a thousand is whole.
const LUCK_PERMILLE_MAX: u64 = 999;
/// What one takes in a map: its nodes are two thirds full on average.
const CONDITION_BYTES: usize = 24;

/// How much `node` favours `replica`: a mix of both ids, the same on every node.
fn affinity(node: NodeId, replica: ReplicaId) -> u64 {
    Random::from_seed(node.0.rotate_left(32) ^ replica.0).next_u64()
}

#[cfg(test)]
mod tests;
