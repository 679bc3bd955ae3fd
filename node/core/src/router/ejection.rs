//! Which candidates of a route are left out since they fail, and how many may be.

use std::collections::BTreeMap;

use paceline_protocol::NodeId;

use super::Condition;
use super::route::{Candidate, Route};
use crate::planted::Bug;
use crate::random::Random;
use crate::time::Instant;

/// What becomes of a candidate by what was heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is left out until then.
    Ejected(Instant),
    /// It is picked again.
    Back,
}

impl Route {
    /// When something of the candidates' health will matter.
    pub(super) fn look(&mut self) {
        let probes = self.candidates[self.draining_end..self.ejected_end].iter();
        let probes = probes.filter_map(|candidate| candidate.health.probe_at());
        self.probe_at = probes.min().unwrap_or(Instant::FAR);
        let picked = self.candidates[..self.draining_end].iter();
        let doubtful = picked.map(|candidate| candidate.health.doubtful_until());
        // Where most fail it is not by their fault, and all are picked alike.
        self.doubtful_until = match self.is_in_panic() {
            true => Instant::ZERO,
            false => doubtful.max().unwrap_or(Instant::ZERO),
        };
    }

    /// Candidates that are out, or tried by a probe.
    pub(super) fn out(&self) -> usize {
        let is_out = |candidate: &&Candidate| candidate.health.is_out();
        self.candidates.iter().filter(is_out).count()
    }

    /// So many may be out at a time: a tenth of those that could be picked, or one.
    pub(super) fn out_max(&self) -> usize {
        (self.ejected_end / OUT_SHARE).max(1)
    }

    /// Whether more than half of those that could be picked fail: it is more likely the model, or
    /// what is asked of it, so none is left out.
    pub(super) fn is_in_panic(&self) -> bool {
        let could = &self.candidates[..self.ejected_end];
        let failing = could
            .iter()
            .filter(|candidate| candidate.health.is_failing());
        failing.count() * 2 > could.len()
    }

    /// Whoever is out and would be probed first is picked again.
    pub(super) fn readmit_first(&mut self, now: Instant) {
        let out = self
            .candidates
            .iter_mut()
            .map(|candidate| &mut candidate.health);
        let out = out.filter(|health| health.is_out());
        if let Some(first) = out.min_by_key(|health| health.probe_at()) {
            first.readmit(now);
        }
    }

    /// A candidate has answered.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        position: usize,
        conditions: &BTreeMap<NodeId, Condition>,
    ) -> Option<Turn> {
        let health = &mut self.candidates[position].health;
        let was_failing = health.is_failing();
        if health.answered(now) {
            self.arrange(conditions);
            return Some(Turn::Back);
        }
        if was_failing {
            self.look();
        }
        None
    }

    /// A candidate has failed.
    pub(super) fn failed(
        &mut self,
        (now, random): (Instant, &mut Random),
        position: usize,
        conditions: &BTreeMap<NodeId, Condition>,
    ) -> Option<Turn> {
        let health = &mut self.candidates[position].health;
        let was_probe = health.failed();
        let is_failing = health.is_failing();
        if !is_failing || Bug::NeverEjected.is_planted() {
            return None;
        }
        if self.is_in_panic() {
            let out = self.out();
            for _ in 0..out {
                self.readmit_first(now);
            }
            match out {
                0 => self.look(),
                _ => self.arrange(conditions),
            }
            return None;
        }
        let health = &mut self.candidates[position].health;
        let may_leave = was_probe || (!health.is_out() && self.out() < self.out_max());
        if !may_leave {
            self.look();
            return None;
        }
        let until = self.candidates[position].health.eject(now, random);
        self.arrange(conditions);
        Some(Turn::Ejected(until))
    }

    /// A request has ended at a candidate, by which nothing is known of it.
    pub(super) fn unheard(&mut self, now: Instant, position: usize) {
        if self.candidates[position].health.unheard(now) {
            self.look();
        }
    }

    /// Who is out and shall be tried now: with one request, while it has no other of ours.
    pub(super) fn probed(&mut self, now: Instant) -> Option<usize> {
        if now < self.probe_at {
            return None;
        }
        let is_due = |candidate: &Candidate| {
            let at = candidate.health.probe_at();
            at.is_some_and(|at| at <= now) && candidate.in_flight_rows == 0
        };
        let mut out = self.draining_end..self.ejected_end;
        let position = out.find(|position| is_due(&self.candidates[*position]))?;
        self.candidates[position].health.probe();
        self.look();
        Some(position)
    }

    /// What decides about candidates that are picked less than others. Drawn only if there are any.
    pub(super) fn luck_permille(&self, now: Instant, random: &mut Random) -> u64 {
        match now < self.doubtful_until {
            true => random.below(1_000),
            false => 0,
        }
    }
}

/// One of so many may be out at a time: those that remain must carry its load.
const OUT_SHARE: usize = 10;
