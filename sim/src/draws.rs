//! What chance decides, in whole numbers: a platform's logarithm would make runs differ.

use paceline_core::Random;

/// A span with an exponential distribution, in nanoseconds: the time between two arrivals that
/// know nothing of each other.
///
/// Von Neumann's method ("Various techniques used in connection with random digits", 1951):
/// only comparisons, no logarithm. A run of falling numbers that has an odd length is accepted
/// with its first number as the fraction; each rejected run adds one to the whole part.
pub(crate) fn exponential(random: &mut Random, mean_nanos: u64) -> u64 {
    let mut whole: u128 = 0;
    loop {
        let first = random.next_u64();
        let mut last = first;
        let mut length = 1u32;
        loop {
            let next = random.next_u64();
            if next >= last {
                break;
            }
            last = next;
            length += 1;
        }
        if length % 2 == 1 {
            let fixed_point = (whole << 64) | u128::from(first);
            // The whole part is below 2⁷ but once in 10⁵⁵ draws, so this fits.
            let nanos = (fixed_point >> 32).saturating_mul(u128::from(mean_nanos)) >> 32;
            return u64::try_from(nanos).unwrap_or(u64::MAX);
        }
        whole += 1;
    }
}

/// `nanos` changed by up to `permille` thousandths in either direction, each equally likely.
pub(crate) fn noisy(random: &mut Random, nanos: u64, permille: u64) -> u64 {
    let factor = 1_000 - permille.min(1_000) + random.below(2 * permille.min(1_000) + 1);
    nanos.saturating_mul(factor) / 1_000
}

/// A number from `least` to `most`, both included, each equally likely.
pub(crate) fn between(random: &mut Random, least: u64, most: u64) -> u64 {
    least + random.below(most - least + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spans_are_exponential() {
        let mut random = Random::from_seed(3);
        let draws: Vec<u64> = (0..100_000)
            .map(|_| exponential(&mut random, 1_000_000))
            .collect();
        let mean = draws.iter().sum::<u64>() / 100_000;
        assert!((990_000..1_010_000).contains(&mean), "{mean}");
        // The share above k means is e⁻ᵏ: 36,788, 13,534 and 4,979 of 100,000.
        for (means, expected) in [(1, 36_788), (2, 13_534), (3, 4_979)] {
            let above = draws.iter().filter(|nanos| **nanos > means * 1_000_000);
            let above = above.count() as i64;
            assert!((above - expected).abs() < 500, "{above} above {means}");
        }
    }

    #[test]
    fn noise_stays_within_its_share_and_reaches_both_ends() {
        let mut random = Random::from_seed(3);
        let draws: Vec<u64> = (0..10_000).map(|_| noisy(&mut random, 1_000, 20)).collect();
        assert_eq!(draws.iter().min(), Some(&980));
        assert_eq!(draws.iter().max(), Some(&1_020));
        assert_eq!(noisy(&mut random, 77, 0), 77);
        assert!((0..100).all(|_| (4..=6).contains(&between(&mut random, 4, 6))));
    }
}
