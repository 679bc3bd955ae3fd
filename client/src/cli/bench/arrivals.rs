//! When requests are due: a list of moments that does not look at what became of earlier ones.

use std::sync::Arc;
use std::time::Duration;

/// When requests are due, and how large they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Arrivals {
    /// The next when the last was answered: nothing is due.
    Closed,
    /// So many a second, at equal distances.
    Constant(u32),
    /// So many a second on average, independently of each other.
    Poisson { rate: u32, seed: u64 },
    /// As they were recorded.
    Recorded(Arc<[Due]>),
}

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Nanoseconds from the beginning.
    pub(super) at_nanos: u64,
    /// Which of the bodies is sent.
    pub(super) body: usize,
}

/// What is due one after the other, up to an end. The same arrivals give the same moments.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    end_nanos: u64,
    number: u64,
    /// Where a Poisson process is, in nanoseconds; a fraction is kept.
    at: f64,
    draws: Draws,
}

/// SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"):
/// one word of state, so that a seed is all there is to say.
#[derive(Clone, Debug)]
struct Draws(u64);

impl Arrivals {
    /// As JSON has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Constant(_) => "constant",
            Self::Poisson { .. } => "poisson",
            Self::Recorded(_) => "trace",
        }
    }

    /// Requests a second that are due, if that is a number.
    pub(super) fn rate(&self) -> Option<u32> {
        match self {
            Self::Constant(rate) | Self::Poisson { rate, .. } => Some(*rate),
            Self::Closed | Self::Recorded(_) => None,
        }
    }

    /// The same process at another rate; what has none stays as it is.
    pub(super) fn at(&self, rate: u32) -> Self {
        match self {
            Self::Constant(_) => Self::Constant(rate),
            Self::Poisson { seed, .. } => Self::Poisson { rate, seed: *seed },
            Self::Closed | Self::Recorded(_) => self.clone(),
        }
    }

    /// What the moments are drawn from, if they are.
    pub(super) fn seed(&self) -> Option<u64> {
        match self {
            Self::Poisson { seed, .. } => Some(*seed),
            Self::Closed | Self::Constant(_) | Self::Recorded(_) => None,
        }
    }

    /// What is due before `end`.
    pub(super) fn schedule(&self, end: Duration) -> Schedule {
        Schedule {
            arrivals: self.clone(),
            end_nanos: nanos(end),
            number: 0,
            at: 0.0,
            draws: Draws(self.seed().unwrap_or(0)),
        }
    }
}

impl Schedule {
    fn candidate(&mut self) -> Option<Due> {
        let at_nanos = match &self.arrivals {
            Arrivals::Closed => return None,
            Arrivals::Recorded(all) => {
                return all.get(usize::try_from(self.number).ok()?).copied();
            }
            Arrivals::Constant(rate) => {
                let nanos = u128::from(self.number) * NANOS_PER_SECOND / u128::from(*rate);
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
            Arrivals::Poisson { rate, .. } => {
                // Times between two are exponential: −ln(u) / rate, with u above 0.
                let mean = NANOS_PER_SECOND as f64 / f64::from(*rate);
                self.at -= self.draws.unit().ln() * mean;
                self.at as u64
            }
        };
        Some(Due { at_nanos, body: 0 })
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let due = self.candidate()?;
        if due.at_nanos >= self.end_nanos {
            // What comes later is later: nothing is left.
            self.arrivals = Arrivals::Closed;
            return None;
        }
        self.number += 1;
        Some(due)
    }
}

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, up to 1: one of 2⁵³ values, which is what a double can tell apart there.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// Nanoseconds of a time, as far as 64 bits go: five hundred years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(arrivals: &Arrivals, end: Duration) -> Vec<u64> {
        arrivals.schedule(end).map(|due| due.at_nanos).collect()
    }

    #[test]
    fn constant_arrivals_are_at_equal_distances_and_never_drift() {
        let second = Duration::from_secs(1);
        let quarters = [0, 250_000_000, 500_000_000, 750_000_000];
        assert_eq!(moments(&Arrivals::Constant(4), second), quarters);
        let thirds = moments(&Arrivals::Constant(3), second * 1_000);
        assert_eq!((thirds.len(), thirds[2_997]), (3_000, 999_000_000_000));
        assert!(moments(&Arrivals::Closed, second).is_empty());
    }

    /// Counts of a Poisson process have a mean and a variance of the rate; 10,000 seconds at 100 a
    /// second put the first within 0.5 and the second within 5 with a probability of all but
    /// 10⁻⁶, and the seed is fixed.
    #[test]
    fn poisson_arrivals_have_the_mean_and_the_variance_of_one() {
        let arrivals = Arrivals::Poisson { rate: 100, seed: 7 };
        let moments = moments(&arrivals, Duration::from_secs(10_000));
        let mut counts = vec![0.0; 10_000];
        for at in &moments {
            counts[(at / 1_000_000_000) as usize] += 1.0;
        }
        let seconds = counts.len() as f64;
        let mean = counts.iter().sum::<f64>() / seconds;
        let squares = counts.iter().map(|count| (count - mean) * (count - mean));
        let variance = squares.sum::<f64>() / seconds;
        assert!((mean - 100.0).abs() < 0.5, "{mean}");
        assert!((variance - 100.0).abs() < 5.0, "{variance}");
        // And a gap longer than the mean has the probability 1/e.
        let gaps = moments.windows(2).map(|two| two[1] - two[0]);
        let long = gaps.filter(|gap| *gap > 10_000_000).count() as f64 / moments.len() as f64;
        assert!((long - (-1.0f64).exp()).abs() < 0.005, "{long}");
    }

    #[test]
    fn a_seed_says_everything() {
        let of = |seed| {
            moments(
                &Arrivals::Poisson { rate: 50, seed },
                Duration::from_secs(5),
            )
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(1).windows(2).all(|two| two[0] <= two[1]));
    }

    #[test]
    fn what_was_recorded_is_due_as_it_was_up_to_the_end() {
        let due = |at_nanos, body| Due { at_nanos, body };
        let recorded = [due(0, 0), due(5, 1), due(5, 0), due(1_000, 1)];
        let arrivals = Arrivals::Recorded(Arc::new(recorded));
        let all: Vec<Due> = arrivals.schedule(Duration::from_secs(1)).collect();
        assert_eq!(all, recorded);
        let mut some = arrivals.schedule(Duration::from_nanos(1_000));
        assert_eq!(some.by_ref().count(), 3);
        assert_eq!(some.next(), None, "the end is an end");
    }
}
