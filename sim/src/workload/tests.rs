//! Whole workloads: the same seed sends the same requests, in the shares that are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::Random;

use super::*;

/// A workload with everything in it.
fn mixed() -> Workload {
    let json = r#"{
        "arrivals": {"kind": "bursty", "calm_rate_per_s": 500, "burst_rate_per_s": 5000,
                     "calm_ms": 400, "burst_ms": 100},
        "duration_ms": 100000,
        "rows": {"kind": "uniform", "least": 1, "most": 4},
        "tokens": {"kind": "pareto", "least": 16, "shape_permille": 1200, "most": 8192},
        "bytes": {"kind": "choice", "of": [{"size": 100, "weight": 3}, {"size": 9, "weight": 1}]},
        "tenants": [{"name": "small", "weight": 1}, {"name": "large", "weight": 4}],
        "sequences": {"permille": 400, "length": {"kind": "uniform", "least": 2, "most": 8},
                      "pause_ms": {"kind": "uniform", "least": 0, "most": 20}}
    }"#;
    serde_json::from_str(json).unwrap()
}

fn sent(workload: &Workload, seed: u64) -> Vec<Sending> {
    Sender::new(workload, seed, None).unwrap().collect()
}

fn share_permille(part: usize, all: usize) -> usize {
    part * 1_000 / all
}

#[test]
fn a_seed_decides_every_request() {
    let bytes = |seed| format!("{:?}", sent(&mixed(), seed)).into_bytes();
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

/// Written down once: another platform or a later change has to send the same.
#[test]
fn the_requests_of_a_seed_stay_what_they_are() {
    let all = sent(&mixed(), 1);
    let sum = all.iter().fold(0u64, |sum, sending| {
        let sizes = [sending.rows, sending.tokens, sending.bytes, sending.tenant];
        let sizes = sizes.into_iter().fold(sending.at_nanos, |sum, size| {
            sum.rotate_left(7).wrapping_add(u64::from(size))
        });
        let sequence = sending.sequence.map_or(0, |number| number + 1);
        sum.rotate_left(1) ^ sizes ^ sequence.rotate_left(32)
    });
    assert_eq!((all.len(), sum), (181_613, 1_956_998_051_776_959_754));
}

#[test]
fn times_do_not_go_back_and_end_with_the_workload() {
    let all = sent(&mixed(), 3);
    assert!(all.len() > 100_000, "{}", all.len());
    assert!(all.is_sorted_by_key(|sending| sending.at_nanos));
    assert!(all.iter().all(|sending| sending.at_nanos < 100_000_000_000));
    let limited = Workload {
        requests_max: Some(1_000),
        ..mixed()
    };
    assert_eq!(sent(&limited, 3), all[..1_000]);
}

#[test]
fn tenants_and_sizes_have_their_shares() {
    let all = sent(&mixed(), 4);
    let large = all.iter().filter(|sending| sending.tenant == 1).count();
    assert!((790..=810).contains(&share_permille(large, all.len())));
    let bytes = all.iter().filter(|sending| sending.bytes == 100).count();
    assert!((745..=755).contains(&share_permille(bytes, all.len())));
    let rows: u64 = all.iter().map(|sending| u64::from(sending.rows)).sum();
    assert!((2_480..=2_520).contains(&(rows * 1_000 / all.len() as u64)));
    assert!(all.iter().all(|sending| sending.tokens_out == 0));
    // (64^−1.2 − 8193^−1.2) / (16^−1.2 − 8193^−1.2) = 0.18904.
    let tail = all.iter().filter(|sending| sending.tokens >= 64).count();
    assert!((185..=193).contains(&share_permille(tail, all.len())));
}

#[test]
fn members_of_sequences_have_their_share_their_length_and_one_tenant() {
    let all = sent(&mixed(), 5);
    let mut sequences: BTreeMap<u64, Vec<Sending>> = BTreeMap::new();
    for sending in &all {
        if let Some(number) = sending.sequence {
            sequences.entry(number).or_default().push(*sending);
        }
    }
    let members: usize = sequences.values().map(Vec::len).sum();
    let share = share_permille(members, all.len());
    assert!((390..=410).contains(&share), "{share}");
    // Those that the end cut off are among the last.
    let whole: Vec<&Vec<Sending>> = sequences.values().take(5_000).collect();
    assert_eq!(whole.len(), 5_000);
    let mean = whole.iter().map(|all| all.len()).sum::<usize>() / 5;
    assert!((4_900..=5_100).contains(&mean), "{mean} thousandths");
    let mut pauses = Vec::new();
    for members in whole {
        assert!((2..=8).contains(&members.len()));
        assert!(members.iter().all(|one| one.tenant == members[0].tenant));
        let between = members
            .windows(2)
            .map(|two| two[1].at_nanos - two[0].at_nanos);
        pauses.extend(between);
    }
    assert!(pauses.iter().all(|pause| *pause <= 20_000_000));
    let mean = pauses.iter().sum::<u64>() / pauses.len() as u64;
    assert!((9_800_000..=10_200_000).contains(&mean), "{mean}");
}

#[test]
fn a_change_of_one_part_leaves_the_others_alone() {
    let other = Workload {
        tokens: Sizes::Fixed { size: 7 },
        ..mixed()
    };
    for (one, two) in sent(&mixed(), 6).iter().zip(sent(&other, 6)).take(1_000) {
        let tokens = one.tokens;
        assert_eq!(*one, Sending { tokens, ..two });
    }
}

#[test]
fn a_trace_is_sent_as_it_is_and_what_it_lacks_is_drawn() {
    let text = "ms,n,who\n0,3,large\n5,4,new\n9,5,small\n5000,6,new\n";
    let json = r#"{"kind": "trace", "path": "a.csv", "format": "csv", "time_unit": "ms",
        "columns": {"time": "ms", "rows": "n", "tenant": "who"}}"#;
    let arrivals: Arrivals = serde_json::from_str(json).unwrap();
    let Arrivals::Trace(options) = &arrivals else {
        panic!("a trace was asked for");
    };
    let trace = Arc::new(Trace::read(text.as_bytes(), options).unwrap());
    let workload = Workload {
        arrivals,
        duration_ms: 5_000,
        sequences: None,
        ..mixed()
    };
    let sender = Sender::new(&workload, 1, Some(trace.clone())).unwrap();
    assert_eq!(sender.tenants(), ["small", "large", "new"]);
    let all: Vec<Sending> = sender.collect();
    let recorded = all.iter().map(|one| (one.at_nanos, one.rows, one.tenant));
    let expected = [(0, 3, 1), (5_000_000, 4, 2), (9_000_000, 5, 0)];
    assert!(recorded.eq(expected), "{all:?}");
    assert!(all.iter().all(|one| one.tokens >= 16 && one.bytes > 0));
    let message = |workload: &Workload, trace| {
        let error = Sender::new(workload, 1, trace).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        message(&workload, None),
        "arrivals is of a trace that is not given; allowed: the trace, read"
    );
    assert_eq!(
        message(&mixed(), Some(trace)),
        "arrivals is not of a trace, but one is given; allowed: none"
    );
}

#[test]
fn settings_are_written_back_as_they_are_read_and_unknown_ones_refused() {
    let json = serde_json::to_value(mixed()).unwrap();
    assert_eq!(
        serde_json::from_value::<Workload>(json.clone()).unwrap(),
        mixed()
    );
    let short = r#"{"arrivals": {"kind": "poisson", "rate_per_s": 9}, "duration_ms": 7}"#;
    let short: Workload = serde_json::from_str(short).unwrap();
    assert_eq!(short, Workload::new(Arrivals::Poisson { rate_per_s: 9 }, 7));
    assert_eq!(short.check(), Ok(()));
    let mut unknown = json;
    unknown["tenant"] = 1.into();
    let error = serde_json::from_value::<Workload>(unknown).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `tenant`"),
        "{error}"
    );
}

#[test]
fn whatever_passes_the_check_can_be_sent() {
    let mut random = Random::from_seed(24);
    let interesting = [0, 1, 2, 9, 1_000, 1_024, 100_000, u32::MAX];
    let mut pick = || interesting[random.below(interesting.len() as u64) as usize];
    let mut passed = 0;
    for seed in 0..20_000 {
        let rate_per_s = u64::from(pick());
        let uniform = |least, most| Sizes::Uniform { least, most };
        let workload = Workload {
            duration_ms: u64::from(pick()),
            requests_max: Some(u64::from(pick())),
            rows: uniform(pick(), pick()),
            tokens: uniform(pick(), pick()),
            tenants: vec![
                Tenant {
                    name: "a".to_owned(),
                    weight: pick(),
                },
                Tenant {
                    name: "b".to_owned(),
                    weight: pick(),
                },
            ],
            sequences: (seed % 2 == 0).then(|| Sequences {
                permille: pick(),
                length: uniform(pick(), pick()),
                pause_ms: Sizes::Fixed { size: pick() },
            }),
            ..Workload::new(Arrivals::Poisson { rate_per_s }, 1)
        };
        match (workload.check(), Sender::new(&workload, seed, None)) {
            (Ok(()), Ok(sender)) => {
                passed += 1;
                let all: Vec<Sending> = sender.take(200).collect();
                assert!(all.is_sorted_by_key(|sending| sending.at_nanos));
                assert!(
                    all.iter()
                        .all(|sending| sending.rows > 0 && sending.tenant < 2)
                );
            }
            (Err(checked), Err(refused)) => assert_eq!(checked, refused),
            (checked, sender) => panic!("{checked:?} but {sender:?}"),
        }
    }
    assert!(passed > 1_000, "{passed}");
}
