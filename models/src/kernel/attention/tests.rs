//! Attention of every level against float64, of every length, and of sequences in any company.

use super::super::bf16::tests::units;
use super::super::level::{Level, Precision};
use super::super::noise::noise;
use super::*;

/// What computes, and how much more than floats' its error may be.
#[derive(Clone, Copy, Debug)]
struct Way {
    kernels: Kernels,
    unit: Option<Unit>,
    more: f64,
}

/// Every level of this machine, and everything that multiplies bfloat16.
fn ways() -> Vec<Way> {
    let floats = Level::available().into_iter().map(|level| Way {
        kernels: Kernels::on(level, Precision::F32),
        unit: None,
        more: 1.0,
    });
    let halves = units().into_iter().map(|(level, unit)| Way {
        kernels: Kernels::on(level, Precision::Bf16),
        unit: Some(unit),
        // 8 bits instead of 24.
        more: 8_000.0,
    });
    floats.chain(halves).collect()
}

/// Attention of all tokens.
fn run(way: Way, qkv: &[f32], lengths: &[u32], heads: usize) -> Vec<f32> {
    let tokens = lengths.iter().sum::<u32>() as usize;
    run_some(way, qkv, (lengths, 0..tokens), heads)
}

/// Attention over canaries, with scratch that is no number.
fn run_some(
    way: Way,
    qkv: &[f32],
    (lengths, queries): (&[u32], Range<usize>),
    heads: usize,
) -> Vec<f32> {
    const CANARY: f32 = 123.456;
    let tokens = lengths.iter().sum::<u32>() as usize;
    let len = qkv.len() / 3 / tokens.max(1) * queries.len();
    let mut guarded = vec![CANARY; len + 128];
    guarded[64..][..len].fill(f32::NAN);
    let sequences = Sequences {
        qkv,
        lengths,
        heads,
    };
    let output = &mut guarded[64..][..len];
    let with = (way.kernels, way.unit);
    super::run(with, sequences, queries, output, &mut Scratch::poisoned());
    let output = output.to_vec();
    assert!(guarded[..64].iter().all(|canary| *canary == CANARY));
    assert!(guarded[64 + len..].iter().all(|canary| *canary == CANARY));
    output
}

/// One sequence in float64.
fn exact(qkv: &[f32], heads: usize, width: usize) -> Vec<f64> {
    let tokens = qkv.len() / 3 / width;
    let size = width / heads;
    let at = |token: usize, kind: usize, i: usize| f64::from(qkv[(token * 3 + kind) * width + i]);
    let mut output = vec![0.0; tokens * width];
    for head in (0..width).step_by(size) {
        for query in 0..tokens {
            let scores: Vec<f64> = (0..tokens)
                .map(|key| {
                    let products = (head..head + size).map(|i| at(query, 0, i) * at(key, 1, i));
                    products.sum::<f64>() / (size as f64).sqrt()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for i in head..head + size {
                let values = weights.iter().enumerate().map(|(key, w)| w * at(key, 2, i));
                output[query * width + i] = values.sum::<f64>() / sum;
            }
        }
    }
    output
}

fn assert_near(got: &[f32], exact: &[f64], allowed: f64, what: &str) {
    assert_eq!(got.len(), exact.len());
    for (got, exact) in got.iter().zip(exact) {
        let error = (f64::from(*got) - exact).abs();
        assert!(error <= allowed, "{what}: {got} {exact}");
    }
}

#[test]
fn every_length_and_size_of_head_is_attention() {
    for way in ways() {
        for length in (1..=70).chain([511, 512]) {
            let sizes: &[usize] = match length {
                511.. => &[32],
                60.. => &[8, 20, 64, 128],
                _ => &[1, 8, 13, 32],
            };
            for size in sizes {
                let (heads, width) = (2, 2 * size);
                let qkv = noise(length * 3 * width, length as u64);
                let got = run(way, &qkv, &[length as u32], heads);
                let what = format!("{way:?}, {length} tokens, heads of {size}");
                assert_near(&got, &exact(&qkv, heads, width), 2e-6 * way.more, &what);
            }
        }
    }
}

/// Queries and keys whose scores lie between -1000 and 1000.
#[test]
fn large_scores_give_the_weights_of_the_largest() {
    let (length, size) = (67, 32);
    let mut qkv = noise(length * 3 * size, 7);
    for token in qkv.chunks_exact_mut(3 * size) {
        // Each is a multiple of one direction, so that products do not cancel.
        let (a, b) = (token[0] * 1_000.0, token[size]);
        token[..size].fill(a / (size as f32).sqrt());
        token[size..2 * size].fill(b);
    }
    for way in ways() {
        let got = run(way, &qkv, &[length as u32], 1);
        // A score of 1000 has an error of 6e-5, and its weight that error relatively; in bfloat16
        // one of 4, so which is the largest of two is anybody's guess, but an average it remains.
        let allowed = if way.unit.is_some() { 2.0 } else { 5e-4 };
        assert_near(&got, &exact(&qkv, 1, size), allowed, &format!("{way:?}"));
    }
}

#[test]
fn one_dominant_key_gives_its_value_exactly() {
    let (length, size) = (50, 16);
    let mut qkv = noise(length * 3 * size, 8);
    for (i, token) in qkv.chunks_exact_mut(3 * size).enumerate() {
        token[..size].fill(1.0);
        token[size..2 * size].fill(if i == 33 { 300.0 } else { 0.0 });
    }
    let value = qkv[33 * 3 * size + 2 * size..][..size].to_vec();
    for way in ways() {
        let got = run(way, &qkv, &[length as u32], 1);
        let rounded = value.iter().map(|x| half::bf16::from_f32(*x).to_f32());
        let wanted = match way.unit {
            Some(_) => rounded.collect(),
            None => value.clone(),
        };
        for row in got.chunks_exact(size) {
            assert_eq!(row, wanted, "{way:?}");
        }
    }
}

#[test]
fn a_sequence_does_not_know_its_neighbours() {
    let lengths = [3, 1, 64, 0, 17, 8, 9, 130];
    let (heads, width) = (3, 3 * 24);
    for way in ways() {
        let tokens: u32 = lengths.iter().sum();
        let qkv = noise(tokens as usize * 3 * width, 9);
        let together = run(way, &qkv, &lengths, heads);
        let mut first = 0;
        for length in lengths {
            let end = first + length as usize;
            let part = &qkv[first * 3 * width..end * 3 * width];
            let alone = run(way, part, &[length], heads);
            assert_eq!(alone, together[first * width..end * width], "{way:?}");
            first = end;
        }
    }
}

#[test]
fn some_queries_are_answered_as_among_all() {
    let lengths = [3, 0, 64, 17];
    let (heads, width) = (3, 3 * 24);
    let tokens = lengths.iter().sum::<u32>() as usize;
    let qkv = noise(tokens * 3 * width, 10);
    for way in ways() {
        let all = run(way, &qkv, &lengths, heads);
        for queries in [
            0..0,
            0..2,
            2..10,
            5..67,
            60..tokens,
            tokens - 1..tokens,
            0..tokens,
        ] {
            let some = run_some(way, &qkv, (&lengths, queries.clone()), heads);
            let those = &all[queries.start * width..queries.end * width];
            assert_eq!(some, those, "{way:?} {queries:?}");
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let cases: [(usize, &[u32], usize, usize); 5] = [
        (24, &[3], 2, 8),
        (24, &[2], 3, 8),
        (24, &[2], 0, 8),
        (24, &[2], 1, 9),
        (24, &[], 1, 8),
    ];
    for (qkv, lengths, heads, output) in cases {
        let run = || {
            let sequences = Sequences {
                qkv: &vec![0.0; qkv],
                lengths,
                heads,
            };
            let kernels = Kernels::on(Level::Plain, Precision::F32);
            let output = &mut vec![0.0; output];
            let queries = 0..lengths.iter().sum::<u32>() as usize;
            attention(kernels, sequences, queries, output, &mut Scratch::new());
        };
        assert!(
            std::panic::catch_unwind(run).is_err(),
            "{lengths:?} {heads}"
        );
    }
}
