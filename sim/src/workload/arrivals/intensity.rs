//! A rate that changes with time, and a bound on it for a while.

use super::bursts::Bursts;

/// Rates are counted in 2⁻²⁰ of a request a second, so that slow swings have no steps.
pub(super) const RATE_BITS: u32 = 20;

/// Parts of a climb or a period with a bound of their own. Over a whole climb from 0, the bounds
/// are a sixteenth higher than the rate on average: one draw of seventeen is in vain.
const PARTS: u64 = 16;

/// A rate over time.
#[derive(Clone, Debug)]
pub(super) enum Intensity {
    /// Always the same, in requests a second.
    Even(u64),
    Bursts(Bursts),
    Diurnal(Diurnal),
    FlashCrowd(FlashCrowd),
}

/// For a while, no rate is higher than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// In 2⁻²⁰ of a request a second.
    pub(super) ceiling: u64,
    /// The first nanosecond that is not bounded any more; later than the one asked for.
    pub(super) until_nanos: u64,
}

/// Days and nights; see [`super::Arrivals::Diurnal`].
#[derive(Clone, Debug)]
pub(super) struct Diurnal {
    pub(super) low_per_s: u64,
    pub(super) high_per_s: u64,
    /// A multiple of a million, so that its sixteenths are whole.
    pub(super) period_nanos: u64,
}

/// A climb, a stay and a fall; see [`super::Arrivals::FlashCrowd`].
#[derive(Clone, Debug)]
pub(super) struct FlashCrowd {
    pub(super) base_per_s: u64,
    pub(super) peak_per_s: u64,
    pub(super) at_nanos: u64,
    pub(super) ramp_nanos: u64,
    pub(super) hold_nanos: u64,
}

impl Intensity {
    /// The bound from `at_nanos` on. Times do not go back from one call to the next.
    pub(super) fn stretch(&mut self, at_nanos: u64) -> Stretch {
        match self {
            Self::Even(rate_per_s) => Stretch {
                ceiling: *rate_per_s << RATE_BITS,
                until_nanos: u64::MAX,
            },
            Self::Bursts(bursts) => bursts.stretch(at_nanos),
            Self::Diurnal(diurnal) => diurnal.stretch(at_nanos),
            Self::FlashCrowd(crowd) => crowd.stretch(at_nanos),
        }
    }

    /// The rate at `at_nanos`, within `stretch`, in 2⁻²⁰ of a request a second.
    pub(super) fn rate(&self, at_nanos: u64, stretch: Stretch) -> u64 {
        match self {
            Self::Even(_) | Self::Bursts(_) => stretch.ceiling,
            Self::Diurnal(diurnal) => diurnal.rate(at_nanos),
            Self::FlashCrowd(crowd) => crowd.rate(at_nanos),
        }
    }
}

impl Diurnal {
    /// The rate climbs or falls throughout a sixteenth of a period: it is bounded by its ends.
    fn stretch(&self, at_nanos: u64) -> Stretch {
        let part_nanos = self.period_nanos / PARTS;
        let start = at_nanos - at_nanos % part_nanos;
        let until_nanos = start.saturating_add(part_nanos);
        Stretch {
            ceiling: self.rate(start).max(self.rate(until_nanos)),
            until_nanos,
        }
    }

    fn rate(&self, at_nanos: u64) -> u64 {
        let (low, high) = (self.low_per_s << RATE_BITS, self.high_per_s << RATE_BITS);
        let passed = u128::from(at_nanos % self.period_nanos);
        let phase = ((passed << 32) / u128::from(self.period_nanos)) as u64;
        between(low, high, swing(phase))
    }
}

/// (1 + s(x)) / 2 in steps of 2⁻³², for a part of the period that has passed in the same steps.
fn swing(phase: u64) -> u64 {
    // x counts from a quarter of the period, where the rate is in the middle and climbs.
    let x = (phase + 3 * (1 << 30)) % (1 << 32);
    let half = x % (1 << 31);
    // 16 x (½ − x), at most 2³² (at a quarter).
    let bump = (half * ((1 << 31) - half)) >> 28;
    if x < 1 << 31 {
        ((1 << 32) + bump) / 2
    } else {
        ((1 << 32) - bump) / 2
    }
}

impl FlashCrowd {
    /// The time is cut where the rate bends, and climbs and falls into sixteenths.
    fn stretch(&self, at_nanos: u64) -> Stretch {
        let until_nanos = if at_nanos < self.at_nanos {
            self.at_nanos
        } else if at_nanos < self.top() {
            self.at_nanos + self.part_end(at_nanos - self.at_nanos)
        } else if at_nanos < self.edge() {
            self.edge()
        } else if at_nanos < self.end() {
            self.edge() + self.part_end(at_nanos - self.edge())
        } else {
            u64::MAX
        };
        // At the edges of jumps the rate after the stretch may be the higher one; that costs
        // draws and changes nothing.
        Stretch {
            ceiling: self.rate(at_nanos).max(self.rate(until_nanos)),
            until_nanos,
        }
    }

    fn rate(&self, at_nanos: u64) -> u64 {
        let (base, peak) = (self.base_per_s << RATE_BITS, self.peak_per_s << RATE_BITS);
        let climbed = |nanos: u64| ((u128::from(nanos) << 32) / u128::from(self.ramp_nanos)) as u64;
        if at_nanos < self.at_nanos || at_nanos >= self.end() {
            base
        } else if at_nanos < self.top() {
            between(base, peak, climbed(at_nanos - self.at_nanos))
        } else if at_nanos < self.edge() {
            peak
        } else {
            between(base, peak, climbed(self.end() - at_nanos))
        }
    }

    /// Where the part of a ramp ends that `nanos` into the ramp lies in.
    fn part_end(&self, nanos: u64) -> u64 {
        // A ramp is a multiple of a million nanoseconds: its sixteenths are whole.
        let part_nanos = self.ramp_nanos / PARTS;
        (nanos / part_nanos + 1) * part_nanos
    }

    fn top(&self) -> u64 {
        self.at_nanos + self.ramp_nanos
    }

    fn edge(&self) -> u64 {
        self.top() + self.hold_nanos
    }

    fn end(&self) -> u64 {
        self.edge() + self.ramp_nanos
    }
}

/// From `low` to `high`, at `part` of the way in steps of 2⁻³².
fn between(low: u64, high: u64, part: u64) -> u64 {
    low + ((u128::from(high - low) * u128::from(part)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_swing_is_nowhere_far_from_a_sine_and_its_mean_is_the_middle() {
        let mut sum = 0u64;
        for step in 0..4_096u64 {
            let found = swing(step << 20);
            sum += found >> 12;
            let x = step as f64 / 4_096.0;
            let sine = 0.5 - 0.5 * (std::f64::consts::TAU * x).cos();
            let off = found as f64 / (1u64 << 32) as f64 - sine;
            assert!(off.abs() < 0.0281, "{off} at {x}");
        }
        assert_eq!(swing(0), 0);
        assert_eq!(swing(1 << 31), 1 << 32);
        assert!(sum.abs_diff(1 << 31) < 4_096, "{sum}");
    }

    #[test]
    fn no_rate_is_above_its_stretch() {
        let diurnal = Diurnal {
            low_per_s: 3,
            high_per_s: 1_000,
            period_nanos: 7_000_000,
        };
        let crowd = FlashCrowd {
            base_per_s: 0,
            peak_per_s: 77,
            at_nanos: 1_000_000,
            ramp_nanos: 3_000_000,
            hold_nanos: 1_000_000,
        };
        for mut intensity in [Intensity::Diurnal(diurnal), Intensity::FlashCrowd(crowd)] {
            let mut stretch = intensity.stretch(0);
            let mut highest = 0;
            for at in (0..15_000_000).step_by(617) {
                if at >= stretch.until_nanos {
                    stretch = intensity.stretch(at);
                    assert!(stretch.until_nanos > at);
                }
                let rate = intensity.rate(at, stretch);
                highest = highest.max(rate);
                assert!(rate <= stretch.ceiling, "{rate} at {at} in {stretch:?}");
            }
            let peak = intensity
                .rate(3_500_000, stretch)
                .max(intensity.rate(4_500_000, stretch));
            assert!(highest <= peak && highest > peak - peak / 1_000);
        }
    }

    #[test]
    fn a_crowd_that_jumps_has_no_ramp() {
        let mut crowd = Intensity::FlashCrowd(FlashCrowd {
            base_per_s: 1,
            peak_per_s: 9,
            at_nanos: 10_000_000,
            ramp_nanos: 0,
            hold_nanos: 5_000_000,
        });
        let rates = [9_999_999, 10_000_000, 14_999_999, 15_000_000].map(|at| {
            let stretch = crowd.stretch(at);
            crowd.rate(at, stretch) >> RATE_BITS
        });
        assert_eq!(rates, [1, 9, 9, 1]);
    }
}
