//! Policy of requests that an engine died of: which of them run alone, and which not at all.
//!
//! When an engine dies, each request of its batch may be what killed it. All of them are
//! remembered by a fingerprint that is computed only then; one that comes again runs alone, so
//! that it can take nobody along, and is innocent once it has run. What an engine dies of twice is
//! refused from then on, for a while: an engine may also die of something else, twice in a row.
//!
//! Fingerprints are compared only while some are held. Cost: a search among those held; a scan of
//! them when an engine has died.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// Stands for a request's inputs: equal ones have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known against it.
    Free,
    /// An engine died while it ran: it shares its batch with nobody.
    Alone,
    /// Engines died of it.
    Refused,
}

/// The requests that engines of one version on this node died of.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    held: BTreeMap<Fingerprint, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deaths: u32,
    until: Instant,
}

impl Quarantine {
    /// Whether no request need be compared.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What a request may do now.
    pub fn verdict(&self, now: Instant, fingerprint: Fingerprint) -> Verdict {
        match self.held.get(&fingerprint) {
            Some(entry) if entry.until <= now => Verdict::Free,
            Some(entry) if entry.deaths >= DEATHS_MAX => Verdict::Refused,
            Some(_) => Verdict::Alone,
            None => Verdict::Free,
        }
    }

    /// An engine died while these ran. `is_second` says that an engine elsewhere had died of the
    /// request before, and that it ran alone here.
    pub fn died(
        &mut self,
        now: Instant,
        requests: impl IntoIterator<Item = Fingerprint>,
        is_second: bool,
    ) {
        self.held.retain(|_, entry| entry.until > now);
        for fingerprint in requests {
            let known = self.held.get(&fingerprint);
            let before = known.map_or(u32::from(is_second), |entry| entry.deaths);
            if known.is_none() && self.held.len() >= HELD_MAX {
                self.forget_one();
            }
            let entry = Entry {
                deaths: before.saturating_add(1),
                until: now + HELD_FOR,
            };
            self.held.insert(fingerprint, entry);
        }
    }

    /// A request has run to its end: it was not what killed the engine before.
    pub fn ran(&mut self, fingerprint: Fingerprint) {
        if (self.held.get(&fingerprint)).is_some_and(|entry| entry.deaths < DEATHS_MAX) {
            self.held.remove(&fingerprint);
        }
    }

    /// Makes room: for what has the fewest deaths, and of those the oldest.
    fn forget_one(&mut self) {
        let least = |(_, entry): &(&Fingerprint, &Entry)| (entry.deaths, entry.until);
        if let Some(fingerprint) = self.held.iter().min_by_key(least).map(|(name, _)| *name) {
            self.held.remove(&fingerprint);
        }
    }
}

/// Deaths after which a request is refused.
const DEATHS_MAX: u32 = 2;
/// How long a death is held against a request. An engine that dies of age, or by an operator's
/// hand, twice under one request should not cost its caller more than a coffee break.
const HELD_FOR: Duration = Duration::from_secs(600);
/// Most fingerprints that are held: four batches of the most rows that are usual, 32 KiB.
const HELD_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    const A: Fingerprint = Fingerprint(1);
    const B: Fingerprint = Fingerprint(2);

    #[test]
    fn who_shared_the_batch_runs_alone_until_it_has_run_and_what_kills_again_is_refused() {
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.verdict(at(0), A), Verdict::Free);
        quarantine.died(at(0), [A, B], false);
        assert_eq!(quarantine.verdict(at(1), A), Verdict::Alone);
        assert_eq!(quarantine.verdict(at(1), B), Verdict::Alone);
        quarantine.ran(B);
        assert_eq!(quarantine.verdict(at(1), B), Verdict::Free);
        quarantine.died(at(2), [A], false);
        assert_eq!(quarantine.verdict(at(3), A), Verdict::Refused);
        quarantine.ran(A);
        assert_eq!(
            quarantine.verdict(at(3), A),
            Verdict::Refused,
            "it cannot run"
        );
    }

    #[test]
    fn a_death_elsewhere_counts_and_time_forgives() {
        let mut quarantine = Quarantine::default();
        quarantine.died(at(0), [A], true);
        assert_eq!(quarantine.verdict(at(599), A), Verdict::Refused);
        assert_eq!(quarantine.verdict(at(600), A), Verdict::Free);
        quarantine.died(at(700), [B], false);
        assert_eq!(quarantine.held.len(), 1, "what is over is let go");
        quarantine.ran(B);
        assert!(quarantine.is_empty());
    }

    #[test]
    fn what_is_held_is_bounded_and_suspects_go_before_the_convicted() {
        let mut quarantine = Quarantine::default();
        quarantine.died(at(0), [A], true);
        let many = (10..).map(Fingerprint).take(3 * HELD_MAX);
        quarantine.died(at(1), many, false);
        assert_eq!(quarantine.held.len(), HELD_MAX);
        assert_eq!(quarantine.verdict(at(2), A), Verdict::Refused);
    }
}
