//! Requests that follow each other: conversations, and streams of windows.

use std::collections::BTreeMap;

use paceline_core::Random;
use serde::{Deserialize, Serialize};

use super::limits::{PAUSE_MS_MAX, SEQUENCE_LENGTH_MAX, SEQUENCES_OPEN_MAX};
use super::sizes::{Sizer, Sizes};
use super::{InvalidWorkload, within};

/// Some of the requests belong to sequences.
///
/// What arrives is single requests and the first members of sequences; the other members come on
/// top. With p the part of requests that belong to sequences of mean length m, there are
/// 1 / (1 − p + p / m) requests for each arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequences {
    /// So many of a thousand requests, 0 to 1,000, are members of a sequence.
    pub permille: u32,
    /// Members of a sequence, from 1 to 1,024.
    pub length: Sizes,
    /// Time from one member to the next, in milliseconds, up to a day.
    pub pause_ms: Sizes,
}

impl Sequences {
    /// Whether every setting is allowed.
    pub(super) fn check(&self) -> Result<(), InvalidWorkload> {
        within("sequences.permille", u64::from(self.permille), (0, 1_000))?;
        self.length
            .check("sequences.length", 1, SEQUENCE_LENGTH_MAX)?;
        self.pause_ms.check("sequences.pause_ms", 0, PAUSE_MS_MAX)
    }
}

/// The sequences that are under way.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    random: Random,
    length: Sizer,
    pause_ms: Sizer,
    /// An arrival begins a sequence with the chance `begin.0` of `begin.1`.
    begin: (u64, u64),
    end_nanos: u64,
    begun: u64,
    /// Next members by when they come and the number of their sequence.
    open: BTreeMap<(u64, u64), Follower>,
}

/// What is still to come of a sequence.
#[derive(Clone, Copy, Debug)]
struct Follower {
    tenant: u32,
    left: u32,
}

/// A member of a sequence after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) at_nanos: u64,
    pub(super) tenant: u32,
    pub(super) sequence: u64,
}

impl Followers {
    /// Of checked settings; none come from `end_nanos` on.
    pub(super) fn new(sequences: &Sequences, random: Random, end_nanos: u64) -> Self {
        let length = Sizer::new(&sequences.length);
        let permille = u64::from(sequences.permille);
        // An arrival in q begins a sequence of m members: p = q m / (q m + 1 − q), so
        // q = p / (m (1 − p) + p). Here p and m are in thousandths.
        let others = length.mean_thousandths() * (1_000 - permille);
        let begin = (1_000 * permille, others + 1_000 * permille);
        Self {
            random,
            length,
            pause_ms: Sizer::new(&sequences.pause_ms),
            begin,
            end_nanos,
            begun: 0,
            open: BTreeMap::new(),
        }
    }

    /// Whether the arrival of `tenant` begins a sequence, and which. While as many sequences are
    /// open as there may be, none begins.
    pub(super) fn begin(&mut self, at_nanos: u64, tenant: u32) -> Option<u64> {
        let begins = self.random.below(self.begin.1) < self.begin.0;
        if !begins || self.open.len() >= SEQUENCES_OPEN_MAX {
            return None;
        }
        let sequence = self.begun;
        self.begun += 1;
        let left = self.length.draw(&mut self.random) - 1;
        self.follow((at_nanos, sequence), Follower { tenant, left });
        Some(sequence)
    }

    /// When the next member comes.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.open.keys().next().map(|(at_nanos, _)| *at_nanos)
    }

    /// The next member.
    pub(super) fn take(&mut self) -> Option<Member> {
        let ((at_nanos, sequence), follower) = self.open.pop_first()?;
        let left = follower.left - 1;
        let tenant = follower.tenant;
        self.follow((at_nanos, sequence), Follower { tenant, left });
        Some(Member {
            at_nanos,
            tenant,
            sequence,
        })
    }

    /// Plans the member after the one at `at_nanos`, unless it was the last.
    fn follow(&mut self, (at_nanos, sequence): (u64, u64), follower: Follower) {
        if follower.left == 0 {
            return;
        }
        let pause_nanos = u64::from(self.pause_ms.draw(&mut self.random)) * 1_000_000;
        let next_nanos = at_nanos.saturating_add(pause_nanos);
        if next_nanos < self.end_nanos {
            self.open.insert((next_nanos, sequence), follower);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followers(permille: u32, length: Sizes) -> Followers {
        let pause_ms = Sizes::Uniform { least: 2, most: 6 };
        let sequences = Sequences {
            permille,
            length,
            pause_ms,
        };
        sequences.check().unwrap();
        Followers::new(&sequences, Random::from_seed(2), u64::MAX)
    }

    #[test]
    fn all_or_none_begin_a_sequence_at_the_ends() {
        let three = || Sizes::Fixed { size: 3 };
        let mut none = followers(0, three());
        assert!((0..1_000).all(|at| none.begin(at, 0).is_none()));
        let mut all = followers(1_000, three());
        assert!((0..1_000).all(|at| all.begin(at, 0) == Some(at)));
    }

    #[test]
    fn members_follow_at_the_drawn_pause_until_the_last() {
        let mut all = followers(1_000, Sizes::Fixed { size: 3 });
        assert_eq!(all.begin(1_000_000, 4), Some(0));
        let members: Vec<Member> = std::iter::from_fn(|| all.take()).collect();
        assert_eq!(members.len(), 2);
        let mut before = 1_000_000;
        for member in members {
            let pause = member.at_nanos - before;
            assert!((2_000_000..=6_000_000).contains(&pause), "{pause}");
            assert_eq!((member.tenant, member.sequence), (4, 0));
            before = member.at_nanos;
        }
        assert_eq!(all.next_at(), None);
    }

    #[test]
    fn sequences_that_are_open_have_a_limit() {
        let mut all = followers(1_000, Sizes::Fixed { size: 2 });
        let begun = (0..70_000).filter(|at| all.begin(*at, 0).is_some());
        assert_eq!(begun.count(), SEQUENCES_OPEN_MAX);
        assert!(all.take().is_some());
        assert!(all.begin(70_000, 0).is_some(), "one ended");
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let sequences = |permille, length, pause| Sequences {
            permille,
            length: Sizes::Fixed { size: length },
            pause_ms: Sizes::Fixed { size: pause },
        };
        let key = |sequences: Sequences| sequences.check().unwrap_err().key;
        assert_eq!(key(sequences(1_001, 1, 1)), "sequences.permille");
        assert_eq!(key(sequences(1, 0, 1)), "sequences.length.size");
        assert_eq!(key(sequences(1, 1_025, 1)), "sequences.length.size");
        assert_eq!(key(sequences(1, 1, 86_400_001)), "sequences.pause_ms.size");
        assert_eq!(sequences(1_000, 1_024, 0).check(), Ok(()));
    }
}
