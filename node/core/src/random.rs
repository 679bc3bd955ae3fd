//! Seeded randomness: xoshiro256++ (Blackman and Vigna, 2018), seeded through SplitMix64.

use serde::{Deserialize, Serialize};

/// A stream of numbers that its seed decides. Not for secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of `seed`.
    pub fn from_seed(seed: u64) -> Self {
        let mut mixer = seed;
        Self {
            state: std::array::from_fn(|_| split_mix(&mut mixer)),
        }
    }

    /// An independent stream for the part called `label`, so that parts can be added without
    /// changing what the others draw.
    pub fn stream(seed: u64, label: &str) -> Self {
        // FNV-1a, 64 bit: labels are short and chosen by us.
        let hash = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self::from_seed(seed ^ hash)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let mut next = [a, b, c ^ a, d ^ b];
        next[1] ^= next[2];
        next[0] ^= next[3];
        next[2] ^= b << 17;
        next[3] = next[3].rotate_left(45);
        self.state = next;
        result
    }

    /// A number below `bound`, each equally likely to within 2⁻³² for bounds below 2³²
    /// (Lemire's multiplication, 2019, without the rejection step that such bounds do not need).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits: every value is a multiple of 2⁻⁵³ and exactly representable.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the published reference implementation for the state 1, 2, 3, 4.
    #[test]
    fn agrees_with_the_reference_implementation() {
        let mut random = Random {
            state: [1, 2, 3, 4],
        };
        let drawn: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386
            ]
        );
    }

    #[test]
    fn streams_differ_by_label_and_repeat_by_seed() {
        let first = |label| Random::stream(7, label).next_u64();
        assert_eq!(first("router"), first("router"));
        assert_ne!(first("router"), first("network"));
        assert_ne!(
            Random::stream(7, "a").next_u64(),
            Random::stream(8, "a").next_u64()
        );
    }

    #[test]
    fn below_stays_below_and_covers_everything() {
        let mut random = Random::from_seed(1);
        let mut counts = [0u32; 7];
        for _ in 0..7_000 {
            counts[random.below(7) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
