//! Powers and logarithms of two in fixed point: a platform's own would make runs differ.
//!
//! Logarithms are counted in steps of 2⁻⁴⁰ and found digit by digit, by squaring (Knuth, The
//! Art of Computer Programming 1, section 1.2.2, exercise 25 describes the inverse). Powers are
//! products of the roots 2^(1/2), 2^(1/4), … which repeated integer square roots give.

/// Binary digits behind the point of a logarithm.
pub(super) const LOG_BITS: u32 = 40;

/// Binary digits behind the point of a power.
pub(super) const POWER_BITS: u32 = 62;

/// log₂ e in steps of 2⁻⁴⁰: ⌊1.442695040888963407… × 2⁴⁰⌋.
pub(super) const LOG2_E: u64 = 1_586_259_972_792;

/// log₂ of a number from 1 on, in steps of 2⁻⁴⁰, less than one and a half steps too low.
///
/// # Panics
/// If `number` is 0.
pub(super) fn log2(number: u64) -> u64 {
    assert!(number > 0, "zero has no logarithm");
    let whole = number.ilog2();
    // In [1, 2) with 63 digits behind the point. Each squaring loses at most one unit and
    // doubles what was lost before: after 40 of them 2⁻²², seen through a digit worth 2⁻⁴⁰.
    let mut mantissa = number << (63 - whole);
    let mut logarithm = u64::from(whole);
    for _ in 0..LOG_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let digit = square >> 64;
        mantissa = (square >> digit) as u64;
        logarithm = (logarithm << 1) | digit as u64;
    }
    logarithm
}

/// `number` × 2^`logarithm`, rounded down. The factor is right to one part in 2⁵⁵.
pub(super) fn times_power(number: u32, logarithm: u64) -> u64 {
    let whole = (logarithm >> LOG_BITS).min(u64::from(POWER_BITS));
    let product = u128::from(number) * u128::from(power(logarithm));
    // Below 2⁹⁵, then at most 2³² × 2⁶³: what is larger than a u64 is cut to its largest.
    u64::try_from(product >> (u64::from(POWER_BITS) - whole)).unwrap_or(u64::MAX)
}

/// 2^−`logarithm` with 62 binary digits behind the point, right to one part in 2⁵⁵.
pub(super) fn inverse_power(logarithm: u64) -> u64 {
    let whole = logarithm.div_ceil(1 << LOG_BITS);
    // −y = (1 − fraction) − ⌈y⌉: the power of what is left is in [1, 2).
    let rest = (whole << LOG_BITS) - logarithm;
    power(rest).checked_shr(whole as u32).unwrap_or(0)
}

/// 2 to the fraction of `logarithm`, with 62 binary digits behind the point: in [1, 2).
fn power(logarithm: u64) -> u64 {
    let mut power = 1u128 << POWER_BITS;
    for (index, root) in ROOTS.iter().enumerate() {
        let digit = LOG_BITS - 1 - index as u32;
        if logarithm >> digit & 1 == 1 {
            power = (power * u128::from(*root)) >> POWER_BITS;
        }
    }
    power as u64
}

/// 2^(1/2), 2^(1/4), … 2^(2⁻⁴⁰), each with 62 binary digits behind the point.
const ROOTS: [u64; LOG_BITS as usize] = roots();

const fn roots() -> [u64; LOG_BITS as usize] {
    let mut roots = [0; LOG_BITS as usize];
    let mut last = 2u128 << POWER_BITS;
    let mut index = 0;
    while index < roots.len() {
        last = (last << POWER_BITS).isqrt();
        roots[index] = last as u64;
        index += 1;
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: f64 = (1u64 << LOG_BITS) as f64;

    #[test]
    fn logarithms_agree_with_the_platforms_to_their_last_step() {
        assert_eq!(log2(1), 0);
        assert_eq!(log2(1 << 32), 32 << LOG_BITS);
        assert_eq!(LOG2_E, (std::f64::consts::LOG2_E * STEP) as u64);
        let mut number = 3u64;
        while number < 1 << 40 {
            let off = (number as f64).log2() * STEP - log2(number) as f64;
            // The f64 itself is off by 2⁻⁴⁸ near 40: a hundredth of a step.
            assert!((-0.1..1.6).contains(&off), "log2({number}) is off by {off}");
            number = number * 7 / 4 + 1;
        }
    }

    #[test]
    fn powers_agree_with_the_platforms() {
        for step in 0..5_000u64 {
            let logarithm = step * 7_345_678_901;
            let exponent = logarithm as f64 / STEP;
            let expected = exponent.exp2() * 1_000_000.0;
            let found = times_power(1_000_000, logarithm) as f64;
            assert!(
                (found - expected).abs() <= 1.0 + expected * 1e-14,
                "{exponent}"
            );
            let inverse = inverse_power(logarithm) as f64 / (1u64 << POWER_BITS) as f64;
            let expected = (-exponent).exp2();
            assert!((inverse - expected).abs() < 1e-15, "-{exponent}");
        }
    }

    #[test]
    fn powers_of_the_largest_are_cut() {
        assert_eq!(times_power(u32::MAX, u64::MAX), u64::MAX);
        assert_eq!(times_power(0, u64::MAX), 0);
        assert_eq!(times_power(7, 0), 7);
        assert_eq!(inverse_power(0), 1 << POWER_BITS);
        assert_eq!(inverse_power(1 << LOG_BITS), 1 << (POWER_BITS - 1));
        assert_eq!(inverse_power(100 << LOG_BITS), 0);
    }
}
