//! Policy: the replica of a request that belongs to a sequence.
//!
//! Rendezvous hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing
//! with Bounded Loads", 2018): of the replicas that are not loaded more than others the one is taken
//! that the sequence [prefers](preference). A replica is loaded more if what is under way there
//! exceeds 1.25 times the mean by more than a request like this, all of its parts together: so one that has little to do keeps
//! its sequences, and none is swamped by those that it is given. Routers count what they send
//! themselves. Zones do not matter, nor what is expected to be fast: a state that was built up is
//! worth more than a way that is short.
//!
//! Draining nodes, replicas that fail, and silent nodes are taken in that order when no other is
//! left, as for other requests.

use std::collections::BTreeMap;

use paceline_protocol::traffic::preference;
use paceline_protocol::{NodeId, ReplicaId};

use super::route::{Candidate, Rank, Route, rank};
use super::{Been, Condition, Heard, InSequence};
use crate::random::Random;
use crate::time::Instant;

/// Where a replica stands among the candidates of a route, and those beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// How good a replica is for a sequence; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Good,
    Draining,
    Ejected,
    Suspect,
}

impl Route {
    /// The replica of a request that belongs to a sequence, and was at these nodes already. One
    /// that was left out and may be tried again is, by a request whose replica it is. Costs
    /// O(replicas), and allocates nothing.
    pub(super) fn take_sticky(
        &mut self,
        now: Instant,
        (of, been): (InSequence, Option<&Been>),
        conditions: &BTreeMap<NodeId, Condition>,
    ) -> Option<&mut Candidate> {
        let place = self.sticky(now, (of, been), conditions)?;
        let health = &mut self.at_mut(place)?.health;
        if health.is_out() && health.probe_at().is_some_and(|at| at <= now) {
            health.probe();
            self.look();
        }
        self.at_mut(place)
    }

    fn sticky(
        &self,
        now: Instant,
        (InSequence { sequence, rows }, been): (InSequence, Option<&Been>),
        conditions: &BTreeMap<NodeId, Condition>,
    ) -> Option<Place> {
        let open = || {
            let all = self.candidates.iter().chain(&self.beyond).enumerate();
            all.filter_map(|(place, candidate)| {
                let was_there = been.is_some_and(|been| been.contains(candidate.target.node));
                let grade = grade(now, candidate, conditions).filter(|_| !was_there)?;
                Some((grade, place, candidate))
            })
        };
        let best = open().map(|(grade, ..)| grade).min()?;
        let among = || open().filter(|(grade, ..)| *grade == best);
        let loads = among().map(|(_, _, candidate)| candidate.in_flight_rows);
        let (count, total) = loads.fold((0, 0), |(count, total), load| (count + 1, total + load));
        let bound = Bound { count, total, rows };
        let free = among().filter(|(_, _, candidate)| bound.allows(candidate.in_flight_rows));
        let prefers = |candidate: &Candidate| preference(sequence, candidate.target.replica);
        let chosen = free.max_by_key(|(_, _, candidate)| prefers(candidate));
        chosen.map(|(_, place, _)| Place(place))
    }

    fn at_mut(&mut self, Place(place): Place) -> Option<&mut Candidate> {
        let considered = self.candidates.len();
        match place.checked_sub(considered) {
            None => self.candidates.get_mut(place),
            Some(beyond) => self.beyond.get_mut(beyond),
        }
    }

    /// A request has ended at a replica that is taken for sequences only. One that fails is left out
    /// by itself: where all are, they are taken all the same.
    pub(super) fn done_beyond(
        &mut self,
        (now, random): (Instant, &mut Random),
        (replica, rows): (ReplicaId, u32),
        heard: Heard,
    ) {
        let mut beyond = self.beyond.iter_mut();
        let Some(candidate) = beyond.find(|candidate| candidate.target.replica == replica) else {
            return;
        };
        candidate.in_flight_rows = candidate.in_flight_rows.saturating_sub(u64::from(rows));
        let health = &mut candidate.health;
        match heard {
            Heard::Answer(report) => {
                health.answered(now);
                candidate.learn(now, report);
            }
            Heard::Fault => {
                let was_probe = health.failed();
                if was_probe || (health.is_failing() && !health.is_out()) {
                    health.eject(now, random);
                }
            }
            Heard::Nothing => {
                health.unheard(now);
            }
        }
    }
}

/// What replicas have under way, and what a request adds.
#[derive(Clone, Copy, Debug)]
struct Bound {
    count: u64,
    total: u64,
    rows: u32,
}

impl Bound {
    /// Whether a replica with so many rows under way takes the request: `load ≤ 1.25 × mean +
    /// rows`. The one with the least always does.
    fn allows(self, load: u64) -> bool {
        let Self { count, total, rows } = self;
        let (load, count) = (u128::from(load), u128::from(count));
        let mean = u128::from(total) * LOAD_PERCENT_MAX;
        load * count * 100 <= mean + u128::from(rows) * count * 100
    }
}

fn grade(
    now: Instant,
    candidate: &Candidate,
    conditions: &BTreeMap<NodeId, Condition>,
) -> Option<Grade> {
    let health = &candidate.health;
    let may_be_tried = health.probe_at().is_some_and(|at| at <= now);
    let is_out = health.is_out() && !(may_be_tried && candidate.in_flight_rows == 0);
    Some(match rank(&candidate.target, conditions) {
        Rank::Away => return None,
        Rank::Suspect => Grade::Suspect,
        Rank::Near { .. } | Rank::Far | Rank::Draining | Rank::Ejected if is_out => Grade::Ejected,
        Rank::Near { .. } | Rank::Far => Grade::Good,
        Rank::Draining => Grade::Draining,
        Rank::Ejected => Grade::Ejected,
    })
}

/// How much of the mean a replica may have under way, in per cent: with less, sequences move when
/// nothing is wrong; with more, one replica has most of the work before others help.
const LOAD_PERCENT_MAX: u128 = 125;
