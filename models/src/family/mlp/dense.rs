//! One dense layer as one candle operation: product, bias and activation, on the calling thread.

use candle_core::cpu::erf::erf_f32;
use candle_core::{CpuStorage, CustomOp3, Error, Layout, Shape};
use pulp::{Arch, Simd, WithSimd};
use serde::Deserialize;

/// The function between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Activation {
    /// max(x, 0)
    Relu,
    /// x · Φ(x), by the error function, as PyTorch's default; not its tanh approximation.
    Gelu,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Gelu => values.iter_mut().for_each(|x| *x = gelu(*x)),
            Self::Tanh => values.iter_mut().for_each(|x| *x = x.tanh()),
        }
    }
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf_f32(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `[rows, inputs] f32` → `[rows, outputs] f32`: `act(x · Wᵀ + b)`.
///
/// The weights lie in panels as wide as the machine's vectors: panel *p* holds, for each input
/// in turn, the weights of outputs *p·lanes* to *(p+1)·lanes*. A panel comes from memory once,
/// whatever the number of rows, and stays in the cache while they pass.
///
/// Each output starts at its bias and adds its products in the order of the inputs, whatever
/// the number of rows. Cost: `rows · inputs · outputs` multiply-adds.
pub(crate) struct Dense {
    arch: Arch,
    lanes: usize,
    inputs: usize,
    outputs: usize,
    activation: Option<Activation>,
}

impl Dense {
    /// A layer for the vector instructions of this machine.
    pub(crate) fn new(inputs: usize, outputs: usize, activation: Option<Activation>) -> Self {
        assert!(inputs > 0 && outputs > 0, "the plan refuses empty tensors");
        Self::on(Arch::new(), inputs, outputs, activation)
    }

    fn on(arch: Arch, inputs: usize, outputs: usize, activation: Option<Activation>) -> Self {
        Self {
            arch,
            lanes: arch.dispatch(Lanes),
            inputs,
            outputs,
            activation,
        }
    }

    /// A weight `[outputs, inputs]` in panels; what no output fills is zero.
    pub(crate) fn packed(&self, weight: &[f32]) -> Vec<f32> {
        assert_eq!(
            weight.len(),
            self.inputs * self.outputs,
            "the plan checked the shape"
        );
        let mut packed = vec![0.0; self.padded_outputs() * self.inputs];
        for (output, row) in weight.chunks_exact(self.inputs).enumerate() {
            let (panel, lane) = (output / self.lanes, output % self.lanes);
            let panel = &mut packed[panel * self.lanes * self.inputs..];
            for (slot, value) in panel.chunks_exact_mut(self.lanes).zip(row) {
                slot[lane] = *value;
            }
        }
        packed
    }

    /// A bias `[outputs]`, filled up with zeros to whole panels.
    pub(crate) fn padded(&self, bias: &[f32]) -> Vec<f32> {
        assert_eq!(bias.len(), self.outputs, "the plan checked the shape");
        let mut padded = bias.to_vec();
        padded.resize(self.padded_outputs(), 0.0);
        padded
    }

    fn padded_outputs(&self) -> usize {
        self.outputs.next_multiple_of(self.lanes)
    }
}

impl CustomOp3 for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        _: &Layout,
        bias: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (Some((start, end)), true) = (x_layout.contiguous_offsets(), inputs == self.inputs)
        else {
            return Err(Error::Msg(format!(
                "dense takes contiguous rows of {}",
                self.inputs
            )));
        };
        let mut y = vec![0.0; rows * self.outputs];
        self.arch.dispatch(Product {
            x: &x.as_slice::<f32>()?[start..end],
            weight: weight.as_slice()?,
            bias: bias.as_slice()?,
            y: &mut y,
            inputs,
            outputs: self.outputs,
        });
        if let Some(activation) = self.activation {
            activation.apply(&mut y);
        }
        Ok((CpuStorage::F32(y), Shape::from((rows, self.outputs))))
    }
}

/// Floats in a vector of this machine.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The product of a block of rows with all panels, bias included.
struct Product<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [f32],
    inputs: usize,
    outputs: usize,
}

/// Most rows that pass together: over a pair of panels they are ten sums, which more than hide the
/// latency of a multiply-add (4 cycles, two a cycle) and leave 6 of 16 registers to their operands;
/// with 32 registers they pass over four, so that more is on its way from memory. Six rows over four
/// panels would fit by the count, and took twice as long.
const BLOCK_ROWS: usize = 5;

impl WithSimd for Product<'_> {
    type Output = ();

    /// Few rows go over several panels at once, to have as many sums in flight; more are cut
    /// into blocks of nearly one size, so that none of the counts has a costly remainder.
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.x.len() / self.inputs {
            0 => {}
            1 => self.strips::<S, 1, 8>(simd),
            2 => self.strips::<S, 2, 4>(simd),
            3 => self.strips::<S, 3, 3>(simd),
            rows if S::REGISTER_COUNT < 32 => self.blocks::<S, 2>(simd, rows),
            4 => self.strips::<S, 4, 3>(simd),
            5 => self.strips::<S, 5, 3>(simd),
            6 => self.strips::<S, 6, 3>(simd),
            rows => self.blocks::<S, 4>(simd, rows),
        }
    }
}

impl Product<'_> {
    /// All of `ROWS` rows, `PANELS` panels at a time.
    #[inline(always)]
    fn strips<S: Simd, const ROWS: usize, const PANELS: usize>(&mut self, simd: S) {
        let panels = S::as_simd_f32s(self.bias).0.len();
        let mut panel = 0;
        while panel + PANELS <= panels {
            self.tile::<S, ROWS, PANELS>(simd, 0, panel);
            panel += PANELS;
        }
        for panel in panel..panels {
            self.tile::<S, ROWS, 1>(simd, 0, panel);
        }
    }

    /// All rows, `PANELS` panels at a time, which stay in the cache while the rows pass.
    #[inline(always)]
    fn blocks<S: Simd, const PANELS: usize>(&mut self, simd: S, rows: usize) {
        let panels = S::as_simd_f32s(self.bias).0.len();
        let mut panel = 0;
        while panel + PANELS <= panels {
            self.pass::<S, PANELS>(simd, rows, panel);
            panel += PANELS;
        }
        for panel in panel..panels {
            self.pass::<S, 1>(simd, rows, panel);
        }
    }

    /// All rows over `PANELS` panels from `panel` on.
    #[inline(always)]
    fn pass<S: Simd, const PANELS: usize>(&mut self, simd: S, rows: usize, panel: usize) {
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let mut row = 0;
        for block in 0..blocks {
            let size = rows / blocks + usize::from(block < rows % blocks);
            self.block::<S, PANELS>(simd, row, size, panel);
            row += size;
        }
    }

    /// From 3 rows to [`BLOCK_ROWS`].
    #[inline(always)]
    fn block<S: Simd, const PANELS: usize>(
        &mut self,
        simd: S,
        row: usize,
        size: usize,
        panel: usize,
    ) {
        match size {
            3 => self.tile::<S, 3, PANELS>(simd, row, panel),
            4 => self.tile::<S, 4, PANELS>(simd, row, panel),
            BLOCK_ROWS => self.tile::<S, BLOCK_ROWS, PANELS>(simd, row, panel),
            _ => unreachable!("four rows or more were cut evenly"),
        }
    }

    /// `ROWS` rows from `row` on, times `PANELS` panels from `panel` on.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const PANELS: usize>(
        &mut self,
        simd: S,
        row: usize,
        panel: usize,
    ) {
        let inputs = self.inputs;
        let (weight, _) = S::as_simd_f32s(self.weight);
        let (bias, _) = S::as_simd_f32s(self.bias);
        let mut x: [&[f32]; ROWS] = [&[]; ROWS];
        for (r, x) in x.iter_mut().enumerate() {
            *x = &self.x[(row + r) * inputs..][..inputs];
        }
        let mut w: [&[S::f32s]; PANELS] = [&[]; PANELS];
        let mut sums = [[bias[panel]; PANELS]; ROWS];
        for p in 0..PANELS {
            w[p] = &weight[(panel + p) * inputs..][..inputs];
            for sums in &mut sums {
                sums[p] = bias[panel + p];
            }
        }
        for k in 0..inputs {
            for r in 0..ROWS {
                let x = simd.splat_f32s(x[r][k]);
                for p in 0..PANELS {
                    sums[r][p] = simd.mul_add_e_f32s(x, w[p][k], sums[r][p]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let start = panel * S::F32_LANES;
            let y = &mut self.y[(row + r) * self.outputs..][start..self.outputs];
            for (y, sum) in y.chunks_mut(S::F32_LANES).zip(sums) {
                simd.partial_store_f32s(y, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    /// Numbers in -1..1 that look random: a linear congruential generator.
    fn noise(count: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn run(dense: &Dense, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let array = |values: Vec<f32>| Tensor::new(values, &Device::Cpu).unwrap();
        let x = array(x.to_vec()).reshape(((), dense.inputs)).unwrap();
        let (weight, bias) = (array(dense.packed(weight)), array(dense.padded(bias)));
        let y = x.apply_op3_no_bwd(&weight, &bias, dense).unwrap();
        y.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Every set of vector instructions that this machine has, and none.
    fn machines() -> Vec<Arch> {
        let mut machines = vec![Arch::Scalar];
        #[cfg(target_arch = "x86_64")]
        machines.extend(pulp::x86::V3::try_new().map(Arch::V3));
        machines.push(Arch::new());
        machines
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a sum in float64, for every count of rows and panels and every machine.
        #[test]
        fn it_is_a_product_and_no_row_knows_its_neighbours(
            rows in 1usize..20, inputs in 1usize..70, outputs in 1usize..150, seed: u64,
        ) {
            let (x, weight) = (noise(rows * inputs, seed), noise(inputs * outputs, !seed));
            let bias = noise(outputs, seed ^ 77);
            for arch in machines() {
                let dense = Dense::on(arch, inputs, outputs, None);
                let y = run(&dense, &x, &weight, &bias);
                for row in 0..rows {
                    let x = &x[row * inputs..][..inputs];
                    for output in 0..outputs {
                        let w = &weight[output * inputs..][..inputs];
                        let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let exact = products.sum::<f64>() + f64::from(bias[output]);
                        let got = f64::from(y[row * outputs + output]);
                        prop_assert!((exact - got).abs() < 1e-5, "{row} {output}: {exact} {got}");
                    }
                    let alone = run(&dense, x, &weight, &bias);
                    prop_assert_eq!(&alone[..], &y[row * outputs..][..outputs]);
                }
            }
        }
    }

    #[test]
    fn activations_are_those_of_the_books() {
        let cases = [
            (Activation::Relu, [0.0, 0.0, 1.5]),
            (Activation::Gelu, [-0.045_500_26, 0.0, 1.399_789_2]),
            (Activation::Tanh, [-0.964_027_6, 0.0, 0.905_148_3]),
        ];
        for (activation, wanted) in cases {
            let dense = Dense::new(1, 1, Some(activation));
            let got = run(&dense, &[-2.0, 0.0, 1.5], &[1.0], &[0.0]);
            for (got, wanted) in got.iter().zip(wanted) {
                assert!(
                    (got - wanted).abs() < 1e-6,
                    "{activation:?}: {got} {wanted}"
                );
            }
        }
    }

    #[test]
    fn rows_of_another_width_are_refused() {
        let dense = Dense::new(2, 1, None);
        let array = |count| Tensor::new(vec![0f32; count], &Device::Cpu).unwrap();
        let x = array(6).reshape((2, 3)).unwrap();
        assert!(x.apply_op3_no_bwd(&array(16), &array(8), &dense).is_err());
    }
}
