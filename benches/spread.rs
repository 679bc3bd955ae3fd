//! A spread: what repeated measurements of one thing gave, told by its quantiles.

/// Samples in rising order; at least one.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// # Panics
    /// If there are no samples: what was not measured has no spread.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        assert!(!samples.is_empty(), "nothing was measured");
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    /// The smallest sample that at least this share of all do not exceed ("nearest rank").
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}
