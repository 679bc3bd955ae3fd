//! Machine that picks the replica that will answer a request soonest.
//!
//! Power of two choices on expected completion (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001): the candidates are the replica on this node and two
//! random others of a subset; the least expected completion wins. A pick costs the same for
//! ten replicas and for ten thousand.
//!
//! Expected completion of a replica = rows of ours in flight there × its learnt time of a row
//! + what its newest load report said was queued, faded by the report's age + the round trip
//! + the time that the bytes take.

use paceline_protocol::{NodeId, ReplicaId};

use crate::device::BatcherId;
use crate::machine::Machine;
use crate::random::Random;
use crate::request::Slot;
use crate::time::Instant;

/// A version that requests can be routed to. The driver chooses the number and may use it
/// again after the route's replicas were set to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// A replica that can be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its identity.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Its queue, if it is on this node.
    pub local: Option<BatcherId>,
    /// Expected time of a row in a full batch, in nanoseconds, until it is learnt.
    pub row_nanos: u64,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// The ready replicas of a version are now these. What was learnt of those that stay is
    /// kept. Off the hot path: costs O(n log n).
    SetTargets {
        /// The version.
        route: RouteId,
        /// Its ready replicas, in any order, none twice.
        targets: Vec<Target>,
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

/// What an answer says of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Rows that waited at the replica when it answered.
    pub queued_rows: u32,
    /// The replica's learnt time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// What one row's work does not explain of the time until the answer, in nanoseconds: the way
    /// in both directions, and what the request waited at the replica. 0 on this node.
    pub round_trip_nanos: u64,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The version has no ready replica.
    NoReplica {
        /// The request.
        slot: Slot,
    },
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Router {
    node: NodeId,
    random: Random,
    routes: Vec<Vec<Candidate>>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    target: Target,
    in_flight_rows: u64,
    row_nanos: u64,
    round_trip_nanos: u64,
    queued_rows: u32,
    reported_at: Instant,
}

impl Router {
    /// The router of `node`. `seed` decides which others it considers.
    pub fn new(node: NodeId, seed: u64) -> Self {
        Self {
            node,
            random: Random::stream(seed, "router"),
            routes: Vec::new(),
        }
    }

    /// Ready replicas of a version that this router considers.
    pub fn targets(&self, route: RouteId) -> usize {
        self.routes.get(route.0 as usize).map_or(0, Vec::len)
    }

    fn set_targets(&mut self, route: RouteId, mut targets: Vec<Target>) {
        let index = route.0 as usize;
        if index >= self.routes.len() {
            self.routes.resize_with(index + 1, Vec::new);
        }
        // The local replica first, then the subset by rendezvous: each router considers its
        // own few, and all replicas are considered by some (Thaler and Ravishankar, 1998).
        let node = self.node;
        targets.sort_by_key(|target| {
            (
                target.local.is_none(),
                std::cmp::Reverse(affinity(node, target.replica)),
            )
        });
        targets.truncate(SUBSET_MAX);
        let known = std::mem::take(&mut self.routes[index]);
        let candidates = targets.into_iter().map(|target| {
            let same = known
                .iter()
                .find(|known| known.target.replica == target.replica);
            same.map_or_else(
                || Candidate::new(target),
                |known| Candidate { target, ..*known },
            )
        });
        self.routes[index] = candidates.collect();
    }

    fn pick(
        &mut self,
        now: Instant,
        (route, slot): (RouteId, Slot),
        rows: u32,
        bytes: u64,
    ) -> Effect {
        let Some(candidates) = self
            .routes
            .get_mut(route.0 as usize)
            .filter(|c| !c.is_empty())
        else {
            return Effect::NoReplica { slot };
        };
        let best = choose(&mut self.random, candidates, |candidate| {
            candidate.completion_nanos(now, rows, bytes)
        });
        let chosen = &mut candidates[best];
        chosen.in_flight_rows += u64::from(rows);
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
        let candidates = self.routes.get_mut(route.0 as usize);
        let candidate = candidates
            .and_then(|candidates| candidates.iter_mut().find(|c| c.target.replica == replica));
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
            Input::Pick {
                route,
                slot,
                rows,
                bytes,
            } => {
                out.push(self.pick(now, (route, slot), rows, bytes));
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

impl Candidate {
    fn new(target: Target) -> Self {
        Self {
            target,
            in_flight_rows: 0,
            row_nanos: target.row_nanos,
            round_trip_nanos: 0,
            queued_rows: 0,
            reported_at: Instant::ZERO,
        }
    }

    fn learn(&mut self, now: Instant, report: Report) {
        // One eighth of what is new, as TCP smooths its round trips (RFC 6298, section 2).
        let smooth = |old: u64, new: u64| old - old / 8 + new / 8;
        self.row_nanos = smooth(self.row_nanos, report.row_nanos);
        self.round_trip_nanos = match self.round_trip_nanos {
            0 => report.round_trip_nanos,
            known => smooth(known, report.round_trip_nanos),
        };
        self.queued_rows = report.queued_rows;
        self.reported_at = now;
    }

    fn completion_nanos(&self, now: Instant, rows: u32, bytes: u64) -> u64 {
        let age = now.nanos_since(self.reported_at);
        // Halved for every half-life of age: an old report says little.
        let halvings = (age / REPORT_HALF_LIFE_NANOS).min(63);
        let queued = u64::from(self.queued_rows) >> halvings;
        let ahead = self.in_flight_rows.max(queued) + u64::from(rows);
        let way = match self.target.local {
            Some(_) => 0,
            None => self.round_trip_nanos + bytes.saturating_mul(NANOS_PER_BYTE),
        };
        ahead
            .saturating_mul(self.row_nanos.max(1))
            .saturating_add(way)
    }
}

/// Position of the best of: the first, if it is on this node, and two random others.
fn choose(
    random: &mut Random,
    candidates: &[Candidate],
    cost: impl Fn(&Candidate) -> u64,
) -> usize {
    let locals = usize::from(candidates[0].target.local.is_some());
    let others = candidates.len() - locals;
    if others == 0 {
        return 0;
    }
    let first = locals + random.below(others as u64) as usize;
    let mut best = first;
    if others > 1 {
        // Another one: drawn from those that remain, then moved past the first.
        let drawn = locals + random.below(others as u64 - 1) as usize;
        let second = drawn + usize::from(drawn >= first);
        if cost(&candidates[second]) < cost(&candidates[best]) {
            best = second;
        }
    }
    // On a tie the local replica wins: it needs no network.
    if locals == 1 && cost(&candidates[0]) <= cost(&candidates[best]) {
        0
    } else {
        best
    }
}

/// How much `node` favours `replica`: a mix of both ids, the same on every node.
fn affinity(node: NodeId, replica: ReplicaId) -> u64 {
    Random::from_seed(node.0.rotate_left(32) ^ replica.0).next_u64()
}

/// Replicas of a version that one router considers: enough that two random ones are a fair
/// sample, few enough that their load reports stay fresh.
const SUBSET_MAX: usize = 32;
/// After this long a load report counts half: a queue of typical models has turned over.
const REPORT_HALF_LIFE_NANOS: u64 = 10_000_000;
/// Time that a byte takes to another node: about 2.7 Gbit/s with both copies.
const NANOS_PER_BYTE: u64 = 3;

const _: () = assert!(size_of::<Effect>() <= 64);

#[cfg(test)]
mod tests;
