//! When requests arrive: a process in time.

mod bursts;
mod intensity;
mod stream;

use paceline_trace::TraceOptions;
use serde::{Deserialize, Serialize};

use super::limits::{DURATION_MS_MAX, RATE_PER_S_MAX};
use super::{InvalidWorkload, within};

pub(super) use self::stream::Stream;

/// When requests arrive. Rates are whole requests a second, up to one each nanosecond; spans are
/// in milliseconds, up to 31 days.
///
/// All but a trace are open-loop: what arrives does not wait for what is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// At even distances, the first one at the start.
    Constant {
        /// From 1.
        rate_per_s: u64,
    },
    /// Independently of each other: the times between two are exponential.
    Poisson {
        /// The mean, from 1.
        rate_per_s: u64,
    },
    /// A Poisson process whose rate jumps between two, each being kept for a random time with an
    /// exponential distribution (a Markov-modulated Poisson process of two states). It starts in
    /// either state with the probability that the state has in the long run.
    Bursty {
        /// The lower rate; may be 0.
        calm_rate_per_s: u64,
        /// The higher rate, from 1.
        burst_rate_per_s: u64,
        /// How long the lower rate is kept on average, from 1.
        calm_ms: u64,
        /// How long the higher rate is kept on average, from 1.
        burst_ms: u64,
    },
    /// A Poisson process whose rate swings like that of days and nights: it starts at the low,
    /// is at the high half a period later, and its mean is the middle of both.
    ///
    /// The shape is two parabolas in the place of a sine, since a platform's sine would make runs
    /// differ: with x the part of the period that has passed since a quarter of it,
    /// s(x) = 16 x (½ − x) below ½, −16 (x − ½)(1 − x) from there, and
    /// rate = (low + high) / 2 + s (high − low) / 2. s is nowhere farther than 0.056 from
    /// sin 2πx.
    Diurnal {
        /// The lowest rate; may be 0.
        low_rate_per_s: u64,
        /// The highest rate, from 1.
        high_rate_per_s: u64,
        /// From one low to the next, from 1.
        period_ms: u64,
    },
    /// A Poisson process whose rate climbs in a straight line, stays, and falls back as fast.
    FlashCrowd {
        /// The rate before and after; may be 0.
        base_rate_per_s: u64,
        /// The highest rate, from 1.
        peak_rate_per_s: u64,
        /// When the rate begins to climb.
        at_ms: u64,
        /// How long it climbs, and how long it falls; 0 is a jump.
        ramp_ms: u64,
        /// How long it stays.
        hold_ms: u64,
    },
    /// As they were recorded.
    Trace(TraceOptions),
}

impl Arrivals {
    /// Whether every setting is allowed.
    pub(super) fn check(&self) -> Result<(), InvalidWorkload> {
        let rate = |name: &str, value: &u64, least: u64| {
            within(&format!("arrivals.{name}"), *value, (least, RATE_PER_S_MAX))
        };
        let span = |name: &str, value: &u64, least: u64| {
            within(
                &format!("arrivals.{name}"),
                *value,
                (least, DURATION_MS_MAX),
            )
        };
        match self {
            Self::Constant { rate_per_s } | Self::Poisson { rate_per_s } => {
                rate("rate_per_s", rate_per_s, 1)
            }
            Self::Bursty {
                calm_rate_per_s,
                burst_rate_per_s,
                calm_ms,
                burst_ms,
            } => {
                rate("calm_rate_per_s", calm_rate_per_s, 0)?;
                rate(
                    "burst_rate_per_s",
                    burst_rate_per_s,
                    (*calm_rate_per_s).max(1),
                )?;
                span("calm_ms", calm_ms, 1)?;
                span("burst_ms", burst_ms, 1)
            }
            Self::Diurnal {
                low_rate_per_s,
                high_rate_per_s,
                period_ms,
            } => {
                rate("low_rate_per_s", low_rate_per_s, 0)?;
                rate("high_rate_per_s", high_rate_per_s, (*low_rate_per_s).max(1))?;
                span("period_ms", period_ms, 1)
            }
            Self::FlashCrowd {
                base_rate_per_s,
                peak_rate_per_s,
                at_ms,
                ramp_ms,
                hold_ms,
            } => {
                rate("base_rate_per_s", base_rate_per_s, 0)?;
                rate(
                    "peak_rate_per_s",
                    peak_rate_per_s,
                    (*base_rate_per_s).max(1),
                )?;
                span("at_ms", at_ms, 0)?;
                span("ramp_ms", ramp_ms, 0)?;
                span("hold_ms", hold_ms, 0)
            }
            Self::Trace(options) => options.check("arrivals"),
        }
    }
}

#[cfg(test)]
mod tests;
