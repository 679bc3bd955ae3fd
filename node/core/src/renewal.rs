//! Policy: when a node has its certificate signed once more.
//!
//! At two thirds of its life, with jitter, so that nodes that were started together do not all
//! ask at once; what fails is tried again, less and less often, but often enough that a third
//! of a life is many tries. Times are seconds since 1970, as certificates have them.

use crate::random::Random;

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From then on.
    pub from_s: u64,
    /// Until then.
    pub until_s: u64,
}

/// When a certificate is renewed. `seed` is the node's own.
pub fn due_s(life: Life, seed: u64) -> u64 {
    let length_s = life.until_s.saturating_sub(life.from_s);
    let jitter_s = Random::stream(seed, "renewal").below(length_s / 12 + 1);
    life.from_s + length_s / 3 * 2 + jitter_s
}

/// How long to wait after so many failures in a row, in seconds.
pub fn retry_in_s(failures: u32, seed: u64) -> u64 {
    let wait_s = RETRY_MIN_S
        .saturating_mul(1 << failures.min(16))
        .min(RETRY_MAX_S);
    let mut random = Random::stream(seed.wrapping_add(u64::from(failures)), "renewal retry");
    wait_s / 2 + random.below(wait_s / 2 + 1)
}

/// A voter that restarts is back after ten seconds.
const RETRY_MIN_S: u64 = 10;
/// Six hours, the last quarter of a day's certificate, are 36 tries and more.
const RETRY_MAX_S: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Life = Life {
        from_s: 1_000_000,
        until_s: 1_000_000 + 24 * 3600,
    };

    #[test]
    fn nodes_renew_in_time_and_not_together() {
        let hours = |seed| (due_s(DAY, seed) - DAY.from_s) / 3600;
        let all: Vec<u64> = (0..64).map(hours).collect();
        assert!(all.iter().all(|hour| (16..=18).contains(hour)), "{all:?}");
        assert!(all.contains(&16) && all.contains(&17), "{all:?}");
        let backwards = Life {
            from_s: 9,
            until_s: 3,
        };
        assert_eq!(due_s(backwards, 1), 9);
    }

    #[test]
    fn a_third_of_a_life_is_many_tries() {
        for seed in 0..64 {
            let latest = DAY.until_s - due_s(DAY, seed);
            let (mut waited, mut failures) = (0, 0);
            while waited < latest {
                let wait_s = retry_in_s(failures, seed);
                assert!((5..=600).contains(&wait_s), "{wait_s}");
                waited += wait_s;
                failures += 1;
            }
            assert!((36..100).contains(&failures), "{failures}");
        }
        assert!(retry_in_s(u32::MAX, 0) <= 600);
    }
}
