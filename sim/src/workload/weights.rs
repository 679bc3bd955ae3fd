//! Which entry of a weighted list, drawn.

use paceline_core::Random;

use super::InvalidWorkload;
use super::limits::WEIGHTED_MAX;

/// A weighted list, ready to be drawn from.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    /// The sum of the weights up to and with each entry.
    sums: Vec<u64>,
}

impl Weights {
    /// Of at least one weight that is not 0.
    pub(super) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0;
        let sums = weights.into_iter().map(|weight| {
            sum += u64::from(weight);
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    /// An entry, each as likely as its weight's share of all. Cost: a binary search.
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        let total = self.sums.last().copied().unwrap_or(0);
        // A single entry needs no draw, so that adding tenants leaves one tenant's runs alone.
        if self.sums.len() < 2 || total == 0 {
            return 0;
        }
        let drawn = random.below(total);
        self.sums.partition_point(|sum| *sum <= drawn)
    }

    /// What makes a list of weights undrawable.
    pub(super) fn check(
        key: &str,
        weights: impl ExactSizeIterator<Item = u32>,
    ) -> Result<(), InvalidWorkload> {
        let count = weights.len();
        if count == 0 || count > WEIGHTED_MAX {
            let value = format!("a list of {count}");
            let allowed = format!("1 to {WEIGHTED_MAX} entries");
            return Err(InvalidWorkload::new(key, value, allowed));
        }
        if weights.max() == Some(0) {
            let allowed = "at least one weight of 1 or more";
            return Err(InvalidWorkload::new(key, "without any weight", allowed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_as_often_as_their_weights_say() {
        let weights = Weights::new([1, 0, 3, 6]);
        let mut random = Random::from_seed(5);
        let mut counts = [0i64; 4];
        for _ in 0..100_000 {
            counts[weights.draw(&mut random)] += 1;
        }
        assert_eq!(counts[1], 0);
        // Three standard deviations of a share p of 100,000 are below 475.
        for (count, expected) in counts.iter().zip([10_000, 0, 30_000, 60_000]) {
            assert!((count - expected).abs() < 475, "{counts:?}");
        }
    }

    #[test]
    fn lists_that_cannot_be_drawn_from_are_refused() {
        let refused = |weights: Vec<u32>| Weights::check("rows.of", weights.into_iter());
        assert_eq!(refused(vec![0, 1]), Ok(()));
        assert_eq!(
            refused(vec![]).unwrap_err().to_string(),
            "rows.of is a list of 0; allowed: 1 to 1000 entries"
        );
        assert!(refused(vec![1; 1_001]).is_err());
        assert_eq!(
            refused(vec![0, 0]).unwrap_err().to_string(),
            "rows.of is without any weight; allowed: at least one weight of 1 or more"
        );
        assert_eq!(Weights::new([u32::MAX; 1_000]).sums[999], 4_294_967_295_000);
    }
}
