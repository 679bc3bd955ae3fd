//! A rate that jumps between two, each kept for a random time.

use paceline_core::Random;

use super::intensity::{RATE_BITS, Stretch};
use crate::draws;

/// The two states of a bursty process; see [`super::Arrivals::Bursty`].
#[derive(Clone, Debug)]
pub(super) struct Bursts {
    random: Random,
    calm: State,
    burst: State,
    in_burst: bool,
    until_nanos: u64,
}

/// A rate and how long it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// In requests a second.
    pub(super) rate_per_s: u64,
    /// The mean, at least 1.
    pub(super) dwell_nanos: u64,
}

impl Bursts {
    /// At the start of time: in either state with its probability in the long run. What is left
    /// of an exponential time is distributed as all of it, so the process is stationary.
    pub(super) fn new(mut random: Random, calm: State, burst: State) -> Self {
        let total = calm.dwell_nanos + burst.dwell_nanos;
        let in_burst = random.below(total.max(1)) < burst.dwell_nanos;
        let mut bursts = Self {
            random,
            calm,
            burst,
            in_burst,
            until_nanos: 0,
        };
        bursts.stay();
        bursts
    }

    /// The state at `at_nanos`, and when it changes.
    pub(super) fn stretch(&mut self, at_nanos: u64) -> Stretch {
        while self.until_nanos <= at_nanos {
            self.in_burst = !self.in_burst;
            self.stay();
        }
        Stretch {
            ceiling: self.state().rate_per_s << RATE_BITS,
            until_nanos: self.until_nanos,
        }
    }

    fn stay(&mut self) {
        let mean = self.state().dwell_nanos;
        let nanos = draws::exponential(&mut self.random, mean);
        self.until_nanos = self.until_nanos.saturating_add(nanos);
    }

    fn state(&self) -> State {
        if self.in_burst { self.burst } else { self.calm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_share_of_the_time_and_its_mean_dwell() {
        let state = |rate_per_s, dwell_nanos| State {
            rate_per_s,
            dwell_nanos,
        };
        let (calm, burst) = (state(1, 9_000_000), state(5, 1_000_000));
        let mut bursts = Bursts::new(Random::from_seed(3), calm, burst);
        let (mut at, mut spent, mut visits) = (0, [0u64; 2], [0u64; 2]);
        while visits[1] < 20_000 {
            let stretch = bursts.stretch(at);
            let which = usize::from(stretch.ceiling == 5 << RATE_BITS);
            spent[which] += stretch.until_nanos - at;
            visits[which] += 1;
            at = stretch.until_nanos;
        }
        // An exponential's deviation is its mean: three of 20,000 visits are 2.1 %.
        assert!(
            (spent[0] / visits[0]).abs_diff(9_000_000) < 190_000,
            "{spent:?}"
        );
        assert!(
            (spent[1] / visits[1]).abs_diff(1_000_000) < 21_000,
            "{spent:?}"
        );
        let share_permille = spent[1] * 1_000 / (spent[0] + spent[1]);
        assert!((97..=103).contains(&share_permille), "{share_permille}");
    }

    #[test]
    fn it_starts_in_either_state_as_often_as_it_is_in_it() {
        let state = |rate_per_s, dwell_nanos| State {
            rate_per_s,
            dwell_nanos,
        };
        let started = (0..4_000).filter(|seed| {
            let random = Random::from_seed(*seed);
            Bursts::new(random, state(1, 3_000_000), state(5, 1_000_000)).in_burst
        });
        // 1,000 of 4,000, three standard deviations being 82.
        let started = started.count();
        assert!((918..=1_082).contains(&started), "{started}");
    }
}
