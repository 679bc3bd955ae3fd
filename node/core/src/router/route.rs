//! The replicas of one version as a router sees them: in order of preference, with what was
//! learnt of each, and which of them are left out since they fail.

use std::collections::BTreeMap;
use std::ops::Range;

use paceline_protocol::NodeId;
use serde::{Deserialize, Serialize};

use super::health::Health;
use super::{Again, Condition, Report, Target};
use crate::random::Random;
use crate::time::Instant;

/// The replicas of a version, in the order of [`Rank`], and where each rank ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) candidates: Vec<Candidate>,
    /// Those that are not considered but for sequences.
    pub(super) beyond: Vec<Candidate>,
    near_end: usize,
    far_end: usize,
    pub(super) draining_end: usize,
    pub(super) ejected_end: usize,
    suspect_end: usize,
    /// When the next of those that are out may be probed.
    pub(super) probe_at: Instant,
    /// Until when some are picked less than others.
    pub(super) doubtful_until: Instant,
}

/// Where a candidate stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Near { is_remote: bool },
    Far,
    Draining,
    Ejected,
    Suspect,
    Away,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub(super) target: Target,
    pub(super) in_flight_rows: u64,
    pub(super) health: Health,
    row_nanos: u64,
    rest_nanos: u64,
    /// The least of those: it comes to that again when it is well.
    least_rest_nanos: u64,
    queued_rows: u32,
    reported_at: Instant,
}

/// What a request brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) rows: u32,
    pub(super) bytes: u64,
    /// Candidates whose share, in thousandths, is not above this are asked if they are much better
    /// than others.
    pub(super) luck_permille: u64,
}

/// Nanoseconds until it would be answered, and the position of the candidate.
pub(super) type Offer = (u64, usize);

impl Route {
    /// What was known of the candidates stays; of those that are out as many return as may not be.
    pub(super) fn ordered(
        now: Instant,
        (candidates, beyond): (Vec<Candidate>, Vec<Candidate>),
        conditions: &BTreeMap<NodeId, Condition>,
    ) -> Self {
        let mut route = Self {
            candidates,
            beyond,
            ..Self::default()
        };
        route.arrange(conditions);
        let before = route.out();
        let keeps = match route.is_in_panic() {
            true => 0,
            false => route.out_max(),
        };
        for _ in keeps..before {
            route.readmit_first(now);
        }
        if before > keeps {
            route.arrange(conditions);
        }
        route
    }

    /// Puts the candidates in order again.
    pub(super) fn arrange(&mut self, conditions: &BTreeMap<NodeId, Condition>) {
        let rank_of = |candidate: &Candidate| match rank(&candidate.target, conditions) {
            rank if candidate.health.is_out() => rank.max(Rank::Ejected),
            rank => rank,
        };
        // Stable: within a rank the order by rendezvous stays.
        self.candidates.sort_by_key(rank_of);
        let ends = [
            Rank::Far,
            Rank::Draining,
            Rank::Ejected,
            Rank::Suspect,
            Rank::Away,
        ];
        let ends = ends.map(|rank| {
            let is_better = |candidate: &Candidate| rank_of(candidate) < rank;
            self.candidates.partition_point(is_better)
        });
        [
            self.near_end,
            self.far_end,
            self.draining_end,
            self.ejected_end,
            self.suspect_end,
        ] = ends;
        self.look();
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let candidates = self.candidates.len() + self.beyond.len();
        size_of::<Self>() + candidates * size_of::<Candidate>()
    }

    /// For a request that has been nowhere: as good as at random, in constant time.
    pub(super) fn first(&self, random: &mut Random, now: Instant, wish: Wish) -> Option<Offer> {
        let cost = |position: usize| self.candidates[position].completion_nanos(now, wish);
        let near = self.near(random, cost);
        if let Some((nanos, _)) = near
            && (nanos <= SPILL_NANOS || self.near_end == self.far_end)
        {
            return near;
        }
        let far = better_of_two(random, self.near_end..self.far_end, cost);
        match (near, far) {
            (Some(near), Some(far)) if far.0 < near.0 / 2 => return Some(far),
            (Some(_), _) => return near,
            (None, Some(_)) => return far,
            (None, None) => {}
        }
        let draining = better_of_two(random, self.far_end..self.draining_end, cost);
        let ejected = self.draining_end..self.ejected_end;
        let suspects = self.ejected_end..self.suspect_end;
        draining
            .or_else(|| better_of_two(random, ejected, cost))
            .or_else(|| better_of_two(random, suspects, cost))
    }

    /// The one on this node, if it is good, or the better of two others of the zone.
    fn near(&self, random: &mut Random, cost: impl Fn(usize) -> u64) -> Option<Offer> {
        let first = self.candidates.first()?;
        let locals = usize::from(self.near_end > 0 && first.target.local.is_some());
        let best = better_of_two(random, locals..self.near_end, &cost);
        if locals == 0 {
            return best;
        }
        // On a tie the local replica wins: it needs no network.
        let local = cost(0);
        match best {
            Some(best) if best.0 < local => Some(best),
            _ => Some((local, 0)),
        }
    }

    /// For a request that was sent before: every one that it has not been to is looked at, since
    /// two drawn at random might both be among those.
    pub(super) fn another(&self, now: Instant, wish: Wish, again: &Again) -> Option<Offer> {
        let last = if again.is_alone {
            self.ejected_end
        } else {
            self.suspect_end
        };
        let ranks = [
            0..self.far_end,
            self.far_end..self.draining_end,
            self.draining_end..self.ejected_end,
            self.ejected_end..last,
        ];
        ranks.into_iter().find_map(|positions| {
            let candidates = positions.filter(|position| {
                let node = self.candidates[*position].target.node;
                !again.been.contains(node)
            });
            let offers = candidates.map(|position| {
                let candidate = &self.candidates[position];
                (candidate.completion_nanos(now, wish), position)
            });
            offers.min()
        })
    }
}

impl Candidate {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            in_flight_rows: 0,
            health: Health::new(),
            row_nanos: target.row_nanos,
            rest_nanos: 0,
            least_rest_nanos: 0,
            queued_rows: 0,
            reported_at: Instant::ZERO,
        }
    }

    /// What was learnt stays with the replica, whatever its target says now.
    pub(super) fn renewed(self, target: Target) -> Self {
        Self { target, ..self }
    }

    pub(super) fn learn(&mut self, now: Instant, report: Report) {
        let is_known = now.nanos_since(self.reported_at) < FORGET_HALF_LIFE_NANOS;
        // One eighth of what is new, as TCP smooths its round trips (RFC 6298, section 2).
        let smooth = |old: u64, new: u64| match is_known && old > 0 {
            true => old - old / 8 + new / 8,
            false => new,
        };
        self.row_nanos = smooth(self.row_nanos, report.row_nanos);
        self.rest_nanos = smooth(self.rest_nanos, report.rest_nanos);
        self.least_rest_nanos = match self.least_rest_nanos {
            0 => self.rest_nanos,
            least => least.min(self.rest_nanos),
        };
        self.queued_rows = report.queued_rows;
        self.reported_at = now;
    }

    fn completion_nanos(&self, now: Instant, wish: Wish) -> u64 {
        let age = now.nanos_since(self.reported_at);
        // Halved for every half-life of age: an old report says little.
        let halvings = (age / REPORT_HALF_LIFE_NANOS).min(63);
        let queued = u64::from(self.queued_rows) >> halvings;
        let ahead = self.in_flight_rows.max(queued) + u64::from(wish.rows);
        let way = match self.target.local {
            Some(_) => 0,
            None => wish.bytes.saturating_mul(NANOS_PER_BYTE),
        };
        let forgotten = (age / FORGET_HALF_LIFE_NANOS).min(63);
        let faded = |learnt: u64, usual: u64| {
            let usual = usual.min(learnt);
            let more = (learnt - usual) >> forgotten;
            // What nearly is as usual is: or others would always be a little better.
            usual + if more > usual / 8 { more } else { 0 }
        };
        // A row is told to cost what it costs anywhere. Who was always slow is tried again as well,
        // in the end; a way that is long stays so.
        let usual = self.least_rest_nanos >> (forgotten / USUAL_HALF_LIVES);
        let nanos = ahead
            .saturating_mul(faded(self.row_nanos, self.target.row_nanos).max(1))
            .saturating_add(faded(self.rest_nanos, usual))
            .saturating_add(way);
        match self.is_doubtful(now, wish) {
            true => nanos.saturating_mul(DOUBT_FACTOR),
            false => nanos,
        }
    }

    fn is_doubtful(&self, now: Instant, wish: Wish) -> bool {
        // Nearly always decided without a look at its health.
        wish.luck_permille > 0 && self.health.share_permille(now) <= wish.luck_permille
    }
}

/// Keeps as many of the ordered targets as are considered: the best, and a few that are not of
/// this zone, or not good, for when those are full or lost. Gives the others.
pub(super) fn keep_subset(
    targets: &mut Vec<Target>,
    conditions: &BTreeMap<NodeId, Condition>,
) -> Vec<Target> {
    let near = targets.partition_point(|target| rank(target, conditions) < Rank::Far);
    let spare = SPARE_MIN.min(targets.len() - near);
    let mut beyond = Vec::new();
    if near + spare > SUBSET_MAX {
        beyond.extend(targets.drain(SUBSET_MAX - spare..near));
    }
    beyond.extend(targets.drain(SUBSET_MAX.min(targets.len())..));
    beyond
}

pub(super) fn rank(target: &Target, conditions: &BTreeMap<NodeId, Condition>) -> Rank {
    match conditions.get(&target.node).copied().unwrap_or_default() {
        Condition::Good if target.is_near => Rank::Near {
            is_remote: target.local.is_none(),
        },
        Condition::Good => Rank::Far,
        Condition::Draining => Rank::Draining,
        Condition::Suspect => Rank::Suspect,
        Condition::Away => Rank::Away,
    }
}

/// The better of two random positions of a range, however long it is.
fn better_of_two(
    random: &mut Random,
    among: Range<usize>,
    cost: impl Fn(usize) -> u64,
) -> Option<Offer> {
    let first = match among.len() {
        0 => return None,
        1 => return Some((cost(among.start), among.start)),
        count => among.start + random.below(count as u64) as usize,
    };
    // Another one: drawn from those that remain, then moved past the first.
    let drawn = among.start + random.below(among.len() as u64 - 1) as usize;
    let second = drawn + usize::from(drawn >= first);
    let (first, second) = ((cost(first), first), (cost(second), second));
    Some(if second.0 < first.0 { second } else { first })
}

/// Replicas of a version that one router considers: enough that two random ones are a fair
/// sample, few enough that their load reports stay fresh.
pub(super) const SUBSET_MAX: usize = 32;
/// So many of those, at least, are of other zones or not good, if there are any.
pub(super) const SPARE_MIN: usize = 8;
/// A request stays in its zone while it would take less than this there: the way to another
/// zone costs about as much.
const SPILL_NANOS: u64 = 2_000_000;
/// Who is in doubt is asked if the others would take so much longer: rather than that they are
/// overloaded.
const DOUBT_FACTOR: u64 = 16;
/// After this long a load report counts half: a queue of typical models has turned over.
const REPORT_HALF_LIFE_NANOS: u64 = 10_000_000;
/// After this long without an answer what a replica takes longer than it has done counts half: one
/// that has become ten times as slow as others is tried again after seven seconds at the latest.
const FORGET_HALF_LIFE_NANOS: u64 = 1_000_000_000;
/// What it has taken at its best counts half after so many of these.
const USUAL_HALF_LIVES: u64 = 64;
/// Time that a byte takes to another node: about 2.7 Gbit/s with both copies.
const NANOS_PER_BYTE: u64 = 3;
