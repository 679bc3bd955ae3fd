//! Dense layers of every level against sums in float64, of every shape, and of rows in any company.

use proptest::prelude::*;

use super::super::bf16::tests::units;
use super::super::level::{Level, Precision};
use super::super::noise::noise;
use super::*;

/// A layer with random weights, and the same in float64.
struct Case {
    inputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(inputs: usize, outputs: usize, seed: u64) -> Self {
        Self {
            inputs,
            weight: noise(inputs * outputs, seed),
            bias: noise(outputs, !seed),
        }
    }

    fn on(&self, level: Level) -> Linear {
        let kernels = Kernels::on(level, Precision::F32);
        Linear::new(kernels, &self.weight, &self.bias, self.inputs)
    }

    /// This layer on every level, and with everything that multiplies bfloat16.
    fn layers(&self) -> Vec<Layer> {
        let floats = Level::available().into_iter().map(|level| Layer {
            name: format!("{level} f32"),
            layer: self.on(level),
            rounds: false,
        });
        let halves = units().into_iter().map(|(level, unit)| {
            let kernels = Kernels::on(level, Precision::Bf16);
            let parameters = (&self.weight[..], &self.bias[..]);
            Layer {
                name: format!("{unit:?}"),
                layer: Linear::with(kernels, Some(unit), parameters, self.inputs),
                rounds: true,
            }
        });
        floats.chain(halves).collect()
    }

    /// In float64, of numbers as they are or rounded to bfloat16.
    fn exact(&self, input: &[f32], rounds: bool) -> Vec<f64> {
        let rounded = |x: &f32| {
            let nearest = half::bf16::from_f32(*x).to_f32();
            f64::from(if rounds { nearest } else { *x })
        };
        let mut output = Vec::new();
        for x in input.chunks_exact(self.inputs) {
            for (w, bias) in self.weight.chunks_exact(self.inputs).zip(&self.bias) {
                let products = x.iter().zip(w).map(|(x, w)| rounded(x) * rounded(w));
                output.push(products.sum::<f64>() + f64::from(*bias));
            }
        }
        output
    }
}

struct Layer {
    name: String,
    layer: Linear,
    rounds: bool,
}

/// Runs over memory with canaries on both sides of the output, which has to be written whole.
fn run(layer: &Linear, input: &[f32], before: &[f32], then: Then) -> Vec<f32> {
    const CANARY: f32 = 123.456;
    let len = before.len();
    let mut guarded = vec![CANARY; len + 128];
    guarded[64..][..len].copy_from_slice(before);
    let output = &mut guarded[64..][..len];
    layer.run(input, output, then, &mut Scratch::poisoned());
    let output = output.to_vec();
    assert!(guarded[..64].iter().all(|canary| *canary == CANARY));
    assert!(guarded[64 + len..].iter().all(|canary| *canary == CANARY));
    output
}

/// The largest error, in units of what sums of so many products of numbers below 1 may have.
fn error(got: &[f32], exact: &[f64], inputs: usize) -> f64 {
    assert_eq!(got.len(), exact.len());
    let pairs = got.iter().zip(exact);
    let largest = pairs.map(|(got, exact)| (f64::from(*got) - exact).abs());
    // `f64::max` would pass over what is no number.
    largest.fold(0.0, |a, b| if a > b { a } else { b }) / (2e-7 * (4.0 + inputs as f64))
}

/// What follows a product, in float64.
fn follow(then: Then, exact: f64, before: f32) -> f64 {
    match then {
        Then::Nothing => exact,
        // The curves have their own tests; here it is enough that they are where they belong.
        Then::Gelu => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (exact + 0.044_715 * exact.powi(3));
            0.5 * exact * (1.0 + inner.tanh())
        }
        Then::GeluTanh => follow(Then::Gelu, exact, before),
        Then::Relu => exact.max(0.0),
        Then::Tanh => exact.tanh(),
        Then::Add => exact + f64::from(before),
    }
}

const THENS: [Then; 6] = [
    Then::Nothing,
    Then::Gelu,
    Then::GeluTanh,
    Then::Relu,
    Then::Tanh,
    Then::Add,
];

#[test]
fn every_count_of_rows_is_a_product() {
    let case = Case::new(37, 83, 1);
    for Layer {
        name,
        layer,
        rounds,
    } in case.layers()
    {
        for rows in 0..=65 {
            let input = noise(rows * 37, rows as u64);
            let before = vec![f32::NAN; rows * 83];
            let got = run(&layer, &input, &before, Then::Nothing);
            let error = error(&got, &case.exact(&input, rounds), 37);
            assert!(error <= 1.0, "{name} {rows}: {error}");
        }
    }
}

#[test]
fn rows_beyond_the_cache_are_a_product() {
    // Few enough outputs for a quick sum, and enough inputs for several passes over the weights.
    let (inputs, outputs, rows) = (4_099, 19, 75);
    let case = Case::new(inputs, outputs, 2);
    let input = noise(rows * inputs, 3);
    for Layer {
        name,
        layer,
        rounds,
    } in case.layers()
    {
        let before = vec![0.0; rows * outputs];
        let got = run(&layer, &input, &before, Then::Nothing);
        let error = error(&got, &case.exact(&input, rounds), inputs);
        assert!(error <= 1.0, "{name}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_follows_follows_and_no_row_knows_its_neighbours(
        rows in 1usize..40, inputs in 1usize..70, outputs in 1usize..150, seed: u64,
    ) {
        let case = Case::new(inputs, outputs, seed);
        let (input, before) = (noise(rows * inputs, seed ^ 5), noise(rows * outputs, seed ^ 6));
        for Layer { name, layer, rounds } in case.layers() {
            let exact = case.exact(&input, rounds);
            for then in THENS {
                let got = run(&layer, &input, &before, then);
                let pairs = exact.iter().zip(&before);
                let exact: Vec<f64> = pairs.map(|(x, y)| follow(then, *x, *y)).collect();
                // The approximation by tanh differs from the error function by 5e-4 at the most.
                let allowed = if then == Then::Gelu { 6e-4 / 2e-7 / 4.0 } else { 2.0 };
                let error = error(&got, &exact, inputs);
                prop_assert!(error <= allowed, "{} {:?}: {}", name, then, error);
                for row in [0, rows / 2, rows - 1] {
                    let (input, part) = (&input[row * inputs..][..inputs], row * outputs);
                    let alone = run(&layer, input, &before[part..][..outputs], then);
                    prop_assert_eq!(&alone[..], &got[part..][..outputs]);
                }
            }
        }
    }
}

#[test]
fn a_layer_says_how_large_it_is() {
    let layer = Case::new(384, 100, 1).on(Level::Plain);
    assert_eq!((layer.inputs(), layer.outputs()), (384, 100));
    let bytes = (384 * 100 + 100) * 4;
    assert!((bytes..bytes + 1_000).contains(&layer.bytes()));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let layer = Case::new(4, 3, 1).on(Level::Plain);
    for (input, output) in [(7, 3), (8, 3), (4, 4), (0, 3)] {
        let (input, mut output) = (vec![0.0; input], vec![0.0; output]);
        let run = || layer.run(&input, &mut output, Then::Nothing, &mut Scratch::new());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}
