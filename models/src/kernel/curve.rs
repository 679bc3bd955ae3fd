//! Curves on vectors of floats: GELU, tanh and powers of two, by own approximations.
//!
//! The polynomials were fitted for this file: least squares, weighted anew until the largest relative
//! error was the same everywhere (Lawson's algorithm; for quotients after Sanathanan and Koerner).
//! Their errors stand beside them and are held by the tests. Not a number stays one.

use pulp::Simd;

/// `x · Φ(x)`, where Φ is the normal distribution: GELU by the error function.
///
/// Exactly `x` above 5.6 and 0 below -5.6. An infinite `x` below zero gives no number, as in PyTorch.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let size = simd.abs_f32s(x);
    gated(simd, x, size, quotient(simd, size, &ERF_OF_SQRT_HALF))
}

/// GELU by its tanh approximation: `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))` (Hendrycks and
/// Gimpel, 2016).
#[inline(always)]
pub(super) fn gelu_tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let size = simd.abs_f32s(x);
    let square = simd.mul_f32s(size, size);
    let factor = simd.mul_add_e_f32s(
        square,
        simd.splat_f32s(0.044_715 * SQRT_2_BY_PI),
        simd.splat_f32s(SQRT_2_BY_PI),
    );
    let inner = simd.mul_f32s(size, factor);
    gated(simd, x, size, quotient(simd, inner, &TANH))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let value = quotient(simd, simd.abs_f32s(x), &TANH);
    let sign = simd.and_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(1 << 31));
    simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(value), sign))
}

/// max(x, 0)
#[inline(always)]
pub(super) fn relu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    at_least(simd, x, 0.0)
}

/// 2ˣ for `x` of at most 0; what is below -126 counts as -126, which stands for nothing.
///
/// 2ˣ = 2ⁿ · 2ᶠ with the nearest whole `n` (Cody and Waite); 2ᶠ on -½..½ by a polynomial, with a
/// relative error below 10⁻⁷, and 2⁰ is exactly 1.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = at_least(simd, x, -126.0);
    // 1.5 · 2²³: a sum of this size has no places after the point, so it is rounded to a whole
    // number, which stands in its lowest bits.
    let magic = simd.splat_f32s(12_582_912.0);
    let shifted = simd.add_f32s(x, magic);
    let rest = simd.sub_f32s(x, simd.sub_f32s(shifted, magic));
    let power = polynomial(simd, rest, &POWER_OF_TWO);
    // The exponent of a float is in its bits from the 23rd on, where 127 stands for 2⁰.
    let exponent = simd.wrapping_dyn_shl_u32s(
        simd.transmute_u32s_f32s(shifted),
        simd.splat_u32s(f32::MANTISSA_DIGITS - 1),
    );
    let scale = simd.transmute_f32s_u32s(simd.add_u32s(exponent, simd.splat_u32s(127 << 23)));
    simd.mul_f32s(power, scale)
}

/// `x / 2 + |x| / 2 · gate`: `x` where the gate is 1 and `x` is above zero, 0 where it is below.
#[inline(always)]
fn gated<S: Simd>(simd: S, x: S::f32s, size: S::f32s, gate: S::f32s) -> S::f32s {
    let half = simd.splat_f32s(0.5);
    simd.mul_add_e_f32s(simd.mul_f32s(size, half), gate, simd.mul_f32s(x, half))
}

/// Not below `bound`, unless it is no number.
#[inline(always)]
fn at_least<S: Simd>(simd: S, x: S::f32s, bound: f32) -> S::f32s {
    let bound = simd.splat_f32s(bound);
    simd.select_f32s(simd.less_than_f32s(x, bound), bound, x)
}

/// An odd curve that rises to 1, for `x` of at least 0: `x · P(x²) / Q(x²)`, and 1 from `end` on.
struct Quotient {
    end: f32,
    above: [f32; 6],
    below: [f32; 6],
}

#[inline(always)]
fn quotient<S: Simd>(simd: S, x: S::f32s, curve: &Quotient) -> S::f32s {
    let square = simd.mul_f32s(x, x);
    let above = simd.mul_f32s(x, polynomial(simd, square, &curve.above));
    let value = simd.div_f32s(above, polynomial(simd, square, &curve.below));
    let is_over = simd.greater_than_or_equal_f32s(x, simd.splat_f32s(curve.end));
    simd.select_f32s(is_over, simd.splat_f32s(1.0), value)
}

/// Horner's scheme; the constant term comes first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, terms: &[f32; N]) -> S::f32s {
    let mut sum = simd.splat_f32s(terms[N - 1]);
    for term in terms[..N - 1].iter().rev() {
        sum = simd.mul_add_e_f32s(sum, x, simd.splat_f32s(*term));
    }
    sum
}

const SQRT_2_BY_PI: f32 = 0.797_884_6;

/// erf(x / √2), relative error 2·10⁻⁸ before rounding.
const ERF_OF_SQRT_HALF: Quotient = Quotient {
    end: 5.6,
    above: [
        0.797_884_5,
        0.067_858_3,
        0.009_354_717,
        0.000_337_861_07,
        1.257_958_4e-5,
        4.459_472_4e-8,
    ],
    below: [
        1.0,
        0.251_714_08,
        0.028_677_627,
        0.001_885_499_2,
        7.334_463_6e-5,
        1.179_656_6e-6,
    ],
};

/// tanh(x), relative error 2·10⁻⁹ before rounding.
const TANH: Quotient = Quotient {
    end: 9.2,
    above: [
        1.0,
        0.136_714,
        0.003_857_662_2,
        2.779_263_2e-5,
        3.007_058_4e-8,
        -1.182_467_5e-11,
    ],
    below: [
        1.0,
        0.470_047_32,
        0.027_206_793,
        0.000_391_983_86,
        1.272_383e-6,
        0.0,
    ],
};

/// 2ˣ on -½..½, relative error 2·10⁻⁹ before rounding.
const POWER_OF_TWO: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_46,
    0.055_503_286,
    0.009_618_489,
    0.001_339_993_1,
    0.000_153_458_11,
];

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::super::level::{Kernels, Level, Precision};
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Curve {
        Gelu,
        GeluTanh,
        Tanh,
        Relu,
        Exp2,
    }

    struct Swept<'a> {
        curve: Curve,
        values: &'a mut [f32],
    }

    impl WithSimd for Swept<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (values, rest) = S::as_mut_simd_f32s(self.values);
            assert!(rest.is_empty());
            for x in values {
                *x = match self.curve {
                    Curve::Gelu => gelu(simd, *x),
                    Curve::GeluTanh => gelu_tanh(simd, *x),
                    Curve::Tanh => tanh(simd, *x),
                    Curve::Relu => relu(simd, *x),
                    Curve::Exp2 => exp2(simd, *x),
                };
            }
        }
    }

    /// The curve of each of at most 16 values, on a level.
    fn swept(level: Level, curve: Curve, values: &[f32]) -> Vec<f32> {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(16), 0.0);
        Kernels::on(level, Precision::F32).dispatch(Swept {
            curve,
            values: &mut padded,
        });
        padded.truncate(values.len());
        padded
    }

    /// The error function in float64 by its series, and beyond 3 by the continued fraction of its
    /// complement.
    fn erf(x: f64) -> f64 {
        if x < 0.0 {
            return -erf(-x);
        }
        if x < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let mut fraction = x;
        for n in (1..100).rev() {
            fraction = x + f64::from(n) / 2.0 / fraction;
        }
        1.0 - (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
    }

    fn exact(curve: Curve, x: f64) -> f64 {
        match curve {
            Curve::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Curve::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Curve::Tanh => x.tanh(),
            Curve::Relu => x.max(0.0),
            Curve::Exp2 => x.max(-126.0).exp2(),
        }
    }

    #[test]
    fn curves_are_as_exact_as_floats_allow() {
        for level in Level::available() {
            for curve in [Curve::Gelu, Curve::GeluTanh, Curve::Tanh, Curve::Relu] {
                let values: Vec<f32> = (-120_000..=120_000).map(|i| i as f32 / 1e4).collect();
                for (x, got) in values.iter().zip(swept(level, curve, &values)) {
                    let wanted = exact(curve, f64::from(*x));
                    // Half of |x| times the error of a number near 1, as the textbook form has.
                    let error = (f64::from(got) - wanted).abs();
                    let allowed = 3e-7 * f64::from(x.abs());
                    assert!(error <= allowed, "{level} {curve:?} {x}: {got} {wanted}");
                }
            }
            let values: Vec<f32> = (-1_300_000..=0).map(|i| i as f32 / 1e4).collect();
            for (x, got) in values.iter().zip(swept(level, Curve::Exp2, &values)) {
                let wanted = exact(Curve::Exp2, f64::from(*x));
                let error = (f64::from(got) / wanted - 1.0).abs();
                assert!(error < 2e-7, "{level} {x}: {got} {wanted}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_line_are_exact() {
        let (inf, most) = (f32::INFINITY, f32::MAX);
        let cases = [
            (Curve::Gelu, [0.0, inf, most, 5.6, -5.6, -most]),
            (Curve::GeluTanh, [0.0, inf, most, 20.0, -20.0, -most]),
            (Curve::Tanh, [0.0, inf, most, 9.2, -9.2, -inf]),
            (Curve::Relu, [0.0, inf, most, 1.0, -1.0, -inf]),
            (Curve::Exp2, [0.0, -1.0, -126.0, -127.0, -most, -inf]),
        ];
        let least = f32::MIN_POSITIVE;
        let wanted = [
            [0.0, inf, most, 5.6, 0.0, 0.0],
            [0.0, inf, most, 20.0, 0.0, 0.0],
            [0.0, 1.0, 1.0, 1.0, -1.0, -1.0],
            [0.0, inf, most, 1.0, 0.0, 0.0],
            [1.0, 0.5, least, least, least, least],
        ];
        for level in Level::available() {
            for ((curve, values), wanted) in cases.iter().zip(wanted) {
                assert_eq!(swept(level, *curve, values), wanted, "{level} {curve:?}");
                let nan = swept(level, *curve, &[f32::NAN]);
                assert!(nan[0].is_nan(), "{level} {curve:?}");
            }
            assert!(swept(level, Curve::Gelu, &[-inf])[0].is_nan());
        }
    }
}
