//! I6: of the requests that a canary takes part in, it gets its share: within six standard
//! deviations of the binomial distribution, which one run in a billion exceeds by chance.

use std::collections::BTreeMap;

use paceline_core::Instant;
use paceline_protocol::Epoch;

use super::Invariant;
use crate::fact::Fact;

/// Requests of a canary, by model, canary and weight.
#[derive(Default)]
pub(super) struct Shares(BTreeMap<(u16, Epoch, u16), Share>);

#[derive(Clone, Copy, Default)]
struct Share {
    requests: u64,
    tried: u64,
}

impl Share {
    /// Whether it is what a weight of so many in 10,000 gives.
    fn fits(self, weight: u16) -> bool {
        let (requests, weight) = (u128::from(self.requests), u128::from(weight));
        // All in units of a request's ten-thousandth.
        let expected = requests * weight;
        let off = (u128::from(self.tried) * WHOLE).abs_diff(expected);
        let variance = requests * weight * (WHOLE - weight);
        // One request more or less is none of chance's.
        let off = off.saturating_sub(WHOLE);
        off * off <= 36 * variance
    }
}

impl Invariant for Shares {
    fn name(&self) -> &'static str {
        "I6 shares"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Split {
            model,
            since,
            weight,
            is_canary,
        } = *fact
        {
            let share = self.0.entry((model, since, weight)).or_default();
            share.requests += 1;
            share.tried += u64::from(is_canary);
        }
        Ok(())
    }

    fn end(&self, _now: Instant) -> Result<(), String> {
        let mut shares = self.0.iter();
        let wrong = shares.find(|((_, _, weight), share)| !share.fits(*weight));
        wrong.map_or(Ok(()), |((model, since, weight), share)| {
            Err(format!(
                "{} of {} requests for model {model} went to the canary of epoch {since}, whose \
                 share is {weight} in 10,000",
                share.tried, share.requests
            ))
        })
    }
}

const WHOLE: u128 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_chance_does_not_explain_is_found() {
        let fits = |requests, tried, weight| Share { requests, tried }.fits(weight);
        assert!(fits(10_000, 1_000, 1_000) && fits(10_000, 1_150, 1_000));
        assert!(!fits(10_000, 1_200, 1_000) && !fits(10_000, 800, 1_000));
        assert!(fits(0, 0, 1_000) && fits(3, 3, 5_000));
        assert!(fits(1_000, 1_000, 10_000) && !fits(1_000, 990, 10_000));
    }

    #[test]
    fn each_stage_has_its_own_share() {
        let mut shares = Shares::default();
        for number in 0..10_000 {
            for weight in [100, 5_000] {
                let split = Fact::Split {
                    model: 0,
                    since: Epoch(7),
                    weight,
                    is_canary: number % 2 == 0,
                };
                shares.observe(Instant::ZERO, &split).unwrap();
            }
        }
        let wrong = shares.end(Instant::ZERO).unwrap_err();
        assert!(wrong.contains("share is 100"), "{wrong}");
    }
}
