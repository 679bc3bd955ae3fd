//! Arrivals drawn one after the other, in time that only goes forward.

use paceline_core::Random;

use super::Arrivals;
use super::bursts::{Bursts, State};
use super::intensity::{Diurnal, FlashCrowd, Intensity, RATE_BITS};
use crate::draws;

/// Binary digits of a nanosecond that are kept between two arrivals: at a request each
/// nanosecond the mean gap is still right to one part in a million.
const TIME_BITS: u32 = 20;

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_S: u64 = 1_000_000_000;

/// The arrivals of a process, in constant memory.
#[derive(Clone, Debug)]
pub(in crate::workload) struct Stream {
    end_nanos: u64,
    process: Process,
}

#[derive(Clone, Debug)]
enum Process {
    Constant {
        rate_per_s: u64,
        sent: u64,
    },
    /// A Poisson process of a changing rate, by thinning (Lewis and Shedler, "Simulation of
    /// nonhomogeneous Poisson processes by thinning", 1979): candidates come at a bound on the
    /// rate and are kept with the share that the rate has of it. Where the bound changes, what
    /// is left of a gap is drawn anew, since an exponential gap knows no past.
    Thinned {
        random: Random,
        intensity: Intensity,
        /// The last candidate, in 2⁻²⁰ ns.
        at: u128,
    },
}

impl Stream {
    /// What `arrivals`, checked before, draw before `end_nanos`; none of a trace.
    pub(in crate::workload) fn new(arrivals: &Arrivals, seed: u64, end_nanos: u64) -> Option<Self> {
        let thinned = |intensity| Process::Thinned {
            random: Random::stream(seed, "workload.arrivals"),
            intensity,
            at: 0,
        };
        let process = match arrivals {
            Arrivals::Constant { rate_per_s } => Process::Constant {
                rate_per_s: *rate_per_s,
                sent: 0,
            },
            Arrivals::Poisson { rate_per_s } => thinned(Intensity::Even(*rate_per_s)),
            Arrivals::Bursty {
                calm_rate_per_s,
                burst_rate_per_s,
                calm_ms,
                burst_ms,
            } => {
                let state = |rate_per_s: &u64, dwell_ms: &u64| State {
                    rate_per_s: *rate_per_s,
                    dwell_nanos: dwell_ms * NANOS_PER_MS,
                };
                thinned(Intensity::Bursts(Bursts::new(
                    Random::stream(seed, "workload.bursts"),
                    state(calm_rate_per_s, calm_ms),
                    state(burst_rate_per_s, burst_ms),
                )))
            }
            Arrivals::Diurnal {
                low_rate_per_s,
                high_rate_per_s,
                period_ms,
            } => thinned(Intensity::Diurnal(Diurnal {
                low_per_s: *low_rate_per_s,
                high_per_s: *high_rate_per_s,
                period_nanos: period_ms * NANOS_PER_MS,
            })),
            Arrivals::FlashCrowd {
                base_rate_per_s,
                peak_rate_per_s,
                at_ms,
                ramp_ms,
                hold_ms,
            } => thinned(Intensity::FlashCrowd(FlashCrowd {
                base_per_s: *base_rate_per_s,
                peak_per_s: *peak_rate_per_s,
                at_nanos: at_ms * NANOS_PER_MS,
                ramp_nanos: ramp_ms * NANOS_PER_MS,
                hold_nanos: hold_ms * NANOS_PER_MS,
            })),
            Arrivals::Trace(_) => return None,
        };
        Some(Self { end_nanos, process })
    }

    /// The next arrival, in nanoseconds; none from the end on. Cost: about four random numbers
    /// a candidate.
    pub(in crate::workload) fn next(&mut self) -> Option<u64> {
        let at_nanos = match &mut self.process {
            Process::Constant { rate_per_s, sent } => {
                let nanos = u128::from(*sent) * u128::from(NANOS_PER_S) / u128::from(*rate_per_s);
                *sent += 1;
                u64::try_from(nanos).ok()?
            }
            Process::Thinned {
                random,
                intensity,
                at,
            } => thin(random, intensity, (at, self.end_nanos))?,
        };
        (at_nanos < self.end_nanos).then_some(at_nanos)
    }
}

/// The next candidate that is kept.
fn thin(
    random: &mut Random,
    intensity: &mut Intensity,
    (at, end_nanos): (&mut u128, u64),
) -> Option<u64> {
    loop {
        let now_nanos = u64::try_from(*at >> TIME_BITS).ok()?;
        if now_nanos >= end_nanos {
            return None;
        }
        let stretch = intensity.stretch(now_nanos);
        let until = u128::from(stretch.until_nanos) << TIME_BITS;
        if stretch.ceiling == 0 {
            *at = until;
            continue;
        }
        let mean =
            (u128::from(NANOS_PER_S) << (RATE_BITS + TIME_BITS)) / u128::from(stretch.ceiling);
        let gap = draws::exponential(random, u64::try_from(mean).unwrap_or(u64::MAX));
        if *at + u128::from(gap) >= until {
            *at = until;
            continue;
        }
        *at += u128::from(gap);
        let candidate_nanos = (*at >> TIME_BITS) as u64;
        let rate = intensity.rate(candidate_nanos, stretch);
        if rate >= stretch.ceiling || random.below(stretch.ceiling) < rate {
            return Some(candidate_nanos);
        }
    }
}
