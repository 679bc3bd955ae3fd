//! Machine that limits wrong guesses at a door: few from one source, and few in all.
//!
//! An attempt is charged when it begins, or many at the same time would all be free, and is
//! given back when it was right. Two rates (GCRA, as in ATM's traffic management): each source
//! has its own, and all share one, since an attacker has many sources.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::machine::Machine;
use crate::time::Instant;

/// How many wrong guesses are borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of one source.
    pub source: Rate,
    /// Of all sources together.
    pub all: Rate,
    /// Sources remembered at a time. Default 1,024: beyond it, `all` is what limits.
    pub sources_max: usize,
}

/// So many at once, and one more in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Until one more is allowed.
    pub interval: Duration,
}

/// Who guesses: an address without what its owner can choose freely (the host part of IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(pub u64);

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody shows something.
    Attempt(Source),
    /// It was right.
    Right(Source),
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look at what was shown.
    Check,
    /// Do not look at it.
    Refuse {
        /// When it may be looked at.
        retry_after: Duration,
    },
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Guesses {
    options: Options,
    /// For each rate, when all that was charged will have been paid off.
    paid_at: BTreeMap<Source, Instant>,
    all_paid_at: Instant,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // A person who mistypes is not hindered; a program gets 14,400 guesses a day.
            source: Rate {
                burst: 10,
                interval: Duration::from_secs(6),
            },
            // Checking one takes a signature: some 100 µs each, 0.1 % of a core.
            all: Rate {
                burst: 100,
                interval: Duration::from_millis(100),
            },
            sources_max: 1_024,
        }
    }
}

impl Rate {
    /// When everything is paid off after one more, or how long it must wait.
    fn charge(self, now: Instant, paid_at: Instant) -> Result<Instant, Duration> {
        let owed = paid_at.since(now);
        let room = self.interval * self.burst.saturating_sub(1);
        match owed.checked_sub(room) {
            Some(wait) if wait > Duration::ZERO => Err(wait),
            _ => Ok(paid_at.max(now) + self.interval),
        }
    }

    fn give_back(self, paid_at: Instant) -> Instant {
        Instant::ZERO + paid_at.since(Instant::ZERO + self.interval)
    }
}

impl Guesses {
    /// Nobody has guessed yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            paid_at: BTreeMap::new(),
            all_paid_at: Instant::ZERO,
        }
    }

    fn attempt(&mut self, now: Instant, source: Source) -> Result<(), Duration> {
        let owed = self.paid_at.get(&source).copied().unwrap_or_default();
        let paid_at = self.options.source.charge(now, owed)?;
        self.all_paid_at = self.options.all.charge(now, self.all_paid_at)?;
        if !self.paid_at.contains_key(&source) {
            self.make_room(now);
        }
        self.paid_at.insert(source, paid_at);
        Ok(())
    }

    /// Forgets who owes nothing, and, if that is nobody, who owes least.
    fn make_room(&mut self, now: Instant) {
        if self.paid_at.len() < self.options.sources_max {
            return;
        }
        self.paid_at.retain(|_, paid_at| *paid_at > now);
        if self.paid_at.len() >= self.options.sources_max {
            let least = self.paid_at.iter().min_by_key(|(_, paid_at)| **paid_at);
            if let Some((&source, _)) = least {
                self.paid_at.remove(&source);
            }
        }
    }

    fn right(&mut self, source: Source) {
        if let Some(paid_at) = self.paid_at.get_mut(&source) {
            *paid_at = self.options.source.give_back(*paid_at);
        }
        self.all_paid_at = self.options.all.give_back(self.all_paid_at);
    }
}

impl Machine for Guesses {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Attempt(source) => out.push(match self.attempt(now, source) {
                Ok(()) => Effect::Check,
                Err(retry_after) => Effect::Refuse { retry_after },
            }),
            Input::Right(source) => self.right(source),
        }
    }

    fn wake(&mut self, _now: Instant, _out: &mut Vec<Effect>) {}

    fn next_wakeup(&self) -> Option<Instant> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn is_checked(guesses: &mut Guesses, ms: u64, source: u64) -> bool {
        let mut out = Vec::new();
        guesses.step(at(ms), Input::Attempt(Source(source)), &mut out);
        assert_eq!(out.len(), 1);
        out[0] == Effect::Check
    }

    #[test]
    fn a_source_has_a_burst_and_then_its_rate() {
        let mut guesses = Guesses::new(Options::default());
        let checked = (0..10_000).filter(|_| is_checked(&mut guesses, 1_000, 7));
        assert_eq!(checked.count(), 10);
        let mut out = Vec::new();
        guesses.step(at(2_000), Input::Attempt(Source(7)), &mut out);
        let retry_after = Duration::from_secs(5);
        assert_eq!(out, [Effect::Refuse { retry_after }]);
        assert!(is_checked(&mut guesses, 7_000, 7));
        assert!(!is_checked(&mut guesses, 7_000, 7));
        assert!(is_checked(&mut guesses, 7_000, 8), "another source");
    }

    #[test]
    fn many_sources_share_one_rate() {
        let mut guesses = Guesses::new(Options::default());
        let checked = (0..10_000).filter(|source| is_checked(&mut guesses, 1_000, *source));
        assert_eq!(checked.count(), 100);
        // A second later the shared rate has room for ten more.
        let checked = (0..10_000).filter(|source| is_checked(&mut guesses, 2_000, *source));
        assert_eq!(checked.count(), 10);
    }

    #[test]
    fn what_was_right_costs_nothing() {
        let mut guesses = Guesses::new(Options::default());
        for turn in 0..1_000 {
            assert!(is_checked(&mut guesses, 1_000, 7), "turn {turn}");
            guesses.step(at(1_000), Input::Right(Source(7)), &mut Vec::new());
        }
    }

    #[test]
    fn memory_is_bounded_and_keeps_who_owes_most() {
        let mut guesses = Guesses::new(Options {
            all: Rate {
                burst: u32::MAX,
                interval: Duration::from_nanos(1),
            },
            sources_max: 4,
            ..Options::default()
        });
        for _ in 0..10 {
            assert!(is_checked(&mut guesses, 0, 1_000));
        }
        for source in 0..100 {
            is_checked(&mut guesses, 0, source);
            assert!(guesses.paid_at.len() <= 4);
        }
        assert!(!is_checked(&mut guesses, 0, 1_000));
    }
}
