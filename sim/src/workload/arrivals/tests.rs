//! Arrivals come at the rates that their settings say, and settings that say nothing are refused.

use paceline_core::Random;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn times(arrivals: &Arrivals, seed: u64, seconds: u64) -> Vec<u64> {
    arrivals.check().unwrap();
    let mut stream = Stream::new(arrivals, seed, seconds * SECOND).unwrap();
    let times: Vec<u64> = std::iter::from_fn(|| stream.next()).collect();
    assert!(times.is_sorted());
    assert!(times.last() < Some(&(seconds * SECOND)));
    times
}

fn within_seconds(times: &[u64], from: u64, to: u64) -> usize {
    let range = from * SECOND..to * SECOND;
    times.iter().filter(|at| range.contains(at)).count()
}

/// Index of dispersion of the counts of windows: their variance over their mean.
fn dispersion(times: &[u64], window_nanos: u64, windows: usize) -> f64 {
    let mut counts = vec![0.0; windows];
    for at in times {
        counts[(at / window_nanos) as usize] += 1.0;
    }
    let mean = counts.iter().sum::<f64>() / windows as f64;
    let squares = counts.iter().map(|count| (count - mean) * (count - mean));
    squares.sum::<f64>() / windows as f64 / mean
}

#[test]
fn constant_arrivals_do_not_drift() {
    let times = times(&Arrivals::Constant { rate_per_s: 3_000 }, 1, 10);
    assert_eq!(times.len(), 30_000);
    assert_eq!(times[..4], [0, 333_333, 666_666, 1_000_000]);
    assert_eq!(times[29_997], 9_999_000_000);
}

#[test]
fn poisson_arrivals_have_their_rate_and_no_memory() {
    let times = times(&Arrivals::Poisson { rate_per_s: 1_000 }, 1, 200);
    // Four standard deviations of 200,000 are 1,789.
    assert!(times.len().abs_diff(200_000) < 1_789, "{}", times.len());
    // 1 for a Poisson process; the estimate over 2,000 windows deviates by √(2/2000) = 0.032.
    let dispersion = dispersion(&times, SECOND / 10, 2_000);
    assert!((0.9..1.1).contains(&dispersion), "{dispersion}");
}

#[test]
fn the_highest_rate_is_kept() {
    let mut stream = Stream::new(
        &Arrivals::Poisson {
            rate_per_s: RATE_PER_S_MAX,
        },
        1,
        100_000,
    )
    .unwrap();
    let count = std::iter::from_fn(|| stream.next()).count();
    // Four standard deviations of 100,000 are 1,265.
    assert!(count.abs_diff(100_000) < 1_265, "{count}");
}

#[test]
fn bursty_arrivals_have_the_mean_rate_of_both_states_and_come_in_bursts() {
    let bursty = Arrivals::Bursty {
        calm_rate_per_s: 100,
        burst_rate_per_s: 2_100,
        calm_ms: 900,
        burst_ms: 100,
    };
    let times = times(&bursty, 1, 2_000);
    // 0.9 × 100 + 0.1 × 2,100 = 300 a second. The variance of the count over T is T × 300 plus
    // T × 2 × (2000)² × 0.9 × 0.1 × 0.09 (the states' correlation time is 0.09 s): a standard
    // deviation of 16,118, of which two and a half are allowed.
    assert!(times.len().abs_diff(600_000) < 40_300, "{}", times.len());
    // Over windows w of 0.01 s, short against 0.09 s: 1 + w × 2000² × 0.09 / 300 = 13.
    let dispersion = dispersion(&times, SECOND / 100, 200_000);
    assert!((11.0..14.0).contains(&dispersion), "{dispersion}");
}

#[test]
fn a_jump_of_the_rate_brings_no_arrival_of_its_own() {
    let jumpy = Arrivals::Bursty {
        calm_rate_per_s: 0,
        burst_rate_per_s: 2,
        calm_ms: 1,
        burst_ms: 1,
    };
    // Two million jumps, and a mean of 1 a second; four standard deviations are 179.
    let count = times(&jumpy, 1, 2_000).len();
    assert!(count.abs_diff(2_000) < 179, "{count}");
}

#[test]
fn diurnal_arrivals_follow_the_documented_curve() {
    let diurnal = Arrivals::Diurnal {
        low_rate_per_s: 100,
        high_rate_per_s: 1_900,
        period_ms: 80_000,
    };
    let times = times(&diurnal, 1, 400);
    // Five periods with a mean of 1,000 a second; four standard deviations are 2,530.
    assert!(times.len().abs_diff(400_000) < 2_530, "{}", times.len());
    let eighths: Vec<usize> = (0..8)
        .map(|eighth| {
            (0..5)
                .map(|period| {
                    let from = period * 80 + eighth * 10;
                    within_seconds(&times, from, from + 10)
                })
                .sum()
        })
        .collect();
    // With y the part of the period from an extreme, s is 1 − 16 y² there: on average
    // 1 − 16/192 = 11/12 over an eighth beside it, and 1 − 16 × 7/192 = 5/12 over the next.
    let [near, far] = [11.0 / 12.0, 5.0 / 12.0];
    let shape = [-near, -far, far, near, near, far, -far, -near];
    for (found, s) in eighths.iter().zip(shape) {
        let expected = 50.0 * (1_000.0 + 900.0 * s);
        let off = (*found as f64 - expected).abs();
        assert!(
            off < 4.0 * f64::sqrt(expected),
            "{eighths:?}, not {expected}"
        );
    }
}

#[test]
fn a_flash_crowd_climbs_stays_and_leaves() {
    let crowd = Arrivals::FlashCrowd {
        base_rate_per_s: 1_000,
        peak_rate_per_s: 9_000,
        at_ms: 20_000,
        ramp_ms: 10_000,
        hold_ms: 20_000,
    };
    let times = times(&crowd, 1, 100);
    for (from, to, expected) in [
        (0, 20, 20_000),
        (20, 25, 15_000),
        (25, 30, 35_000),
        (30, 50, 180_000),
        (50, 55, 35_000),
        (55, 60, 15_000),
        (60, 100, 40_000),
    ] {
        let found = within_seconds(&times, from, to);
        // Four standard deviations.
        let bound = 4 * (expected as u64).isqrt() as usize;
        assert!(found.abs_diff(expected) < bound, "{found} in {from}..{to}");
    }
}

#[test]
fn a_seed_decides_every_arrival() {
    let poisson = Arrivals::Poisson { rate_per_s: 500 };
    assert_eq!(times(&poisson, 7, 10), times(&poisson, 7, 10));
    assert_ne!(times(&poisson, 7, 10), times(&poisson, 8, 10));
}

#[test]
fn settings_that_are_not_allowed_are_named() {
    for (json, message) in [
        (
            r#"{"kind": "poisson", "rate_per_s": 0}"#,
            "arrivals.rate_per_s is 0; allowed: 1 to 1000000000",
        ),
        (
            r#"{"kind": "bursty", "calm_rate_per_s": 9, "burst_rate_per_s": 8, "calm_ms": 1, "burst_ms": 1}"#,
            "arrivals.burst_rate_per_s is 8; allowed: 9 to 1000000000",
        ),
        (
            r#"{"kind": "diurnal", "low_rate_per_s": 0, "high_rate_per_s": 8, "period_ms": 0}"#,
            "arrivals.period_ms is 0; allowed: 1 to 2678400000",
        ),
        (
            r#"{"kind": "flash_crowd", "base_rate_per_s": 0, "peak_rate_per_s": 0, "at_ms": 1, "ramp_ms": 1, "hold_ms": 1}"#,
            "arrivals.peak_rate_per_s is 0; allowed: 1 to 1000000000",
        ),
    ] {
        let arrivals: Arrivals = serde_json::from_str(json).unwrap();
        assert_eq!(arrivals.check().unwrap_err().to_string(), message);
        let again = serde_json::to_value(&arrivals).unwrap();
        assert_eq!(serde_json::from_value::<Arrivals>(again).unwrap(), arrivals);
    }
    for unknown in [
        r#"{"kind": "constant", "rate_per_s": 1, "rate": 1}"#,
        r#"{"kind": "weibull"}"#,
        r#"{"rate_per_s": 1}"#,
    ] {
        assert!(
            serde_json::from_str::<Arrivals>(unknown).is_err(),
            "{unknown}"
        );
    }
}

#[test]
fn whatever_passes_the_check_gives_arrivals_in_order() {
    let mut random = Random::from_seed(22);
    let interesting = [
        0,
        1,
        3,
        1_000,
        999_999,
        RATE_PER_S_MAX,
        DURATION_MS_MAX,
        u64::MAX,
    ];
    let mut pick = || interesting[random.below(interesting.len() as u64) as usize];
    let mut passed = 0;
    for seed in 0..1_500 {
        let every_kind = [
            Arrivals::Constant { rate_per_s: pick() },
            Arrivals::Poisson { rate_per_s: pick() },
            Arrivals::Bursty {
                calm_rate_per_s: pick(),
                burst_rate_per_s: pick(),
                calm_ms: pick(),
                burst_ms: pick(),
            },
            Arrivals::Diurnal {
                low_rate_per_s: pick(),
                high_rate_per_s: pick(),
                period_ms: pick(),
            },
            Arrivals::FlashCrowd {
                base_rate_per_s: pick(),
                peak_rate_per_s: pick(),
                at_ms: pick(),
                ramp_ms: pick(),
                hold_ms: pick(),
            },
        ];
        for arrivals in every_kind {
            if arrivals.check().is_ok() {
                passed += 1;
                // A few states of a millisecond; where the rate climbs from 0 to the highest, the
                // draws are mostly in vain so early.
                let mut stream = Stream::new(&arrivals, seed, SECOND / 200).unwrap();
                let times: Vec<u64> = std::iter::from_fn(|| stream.next()).take(50).collect();
                assert!(times.is_sorted(), "{arrivals:?}");
                assert!(times.iter().all(|at| *at < SECOND / 200), "{arrivals:?}");
            }
        }
    }
    assert!(passed > 2_000, "{passed}");
}
