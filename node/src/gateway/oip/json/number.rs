//! Numbers: JSON's grammar and the decimal value in one scan, then the nearest float.

use super::{JsonError, Problem, Reader};

/// A number as it was written: `±mantissa × 10^exponent`, where the mantissa fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    text: &'a [u8],
    negative: bool,
    mantissa: u64,
    exponent: i32,
    /// Whether `mantissa` holds all digits.
    exact: bool,
    /// Whether there is neither a fraction nor an exponent.
    whole: bool,
}

impl<'a> Reader<'a> {
    /// Reads a number. Cost: one pass over its digits.
    pub(crate) fn number(&mut self) -> Result<Number<'a>, JsonError> {
        self.peek();
        match scan(self.rest()) {
            Ok((number, rest)) => {
                self.resume(rest);
                Ok(number)
            }
            Err((rest, problem)) => {
                self.resume(rest);
                Err(self.error(problem))
            }
        }
    }
}

/// What is left of the text where the grammar is broken, and how.
type Broken<'a> = (&'a [u8], Problem);

/// The number that `text` begins with, and what follows it.
#[inline]
pub(crate) fn scan(text: &[u8]) -> Result<(Number<'_>, &[u8]), Broken<'_>> {
    let mut mantissa = 0;
    let mut exponent = 0;
    let mut whole = true;
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut rest = match unsigned {
        [b'0', b'0'..=b'9', ..] => return Err((&unsigned[1..], LEADING_ZERO)),
        [b'0', rest @ ..] => rest,
        [b'1'..=b'9', ..] => digits(unsigned, &mut mantissa),
        _ => return Err((unsigned, no_digit(unsigned, negative))),
    };
    let mut count = unsigned.len() - rest.len();
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction, &mut mantissa);
        let places = fraction.len() - rest.len();
        if places == 0 {
            return Err((rest, Problem::Number));
        }
        whole = false;
        count += places;
        exponent = -i32::try_from(places).unwrap_or(EXPONENT_CAP);
    }
    if let [b'e' | b'E', power @ ..] = rest {
        let (power, behind) = read_exponent(power)?;
        rest = behind;
        whole = false;
        exponent += power;
    }
    let text = &text[..text.len() - rest.len()];
    let exact = count <= DIGITS_EXACT;
    Ok((
        Number {
            text,
            negative,
            mantissa,
            exponent,
            exact,
            whole,
        },
        rest,
    ))
}

/// Appends the digits that `text` begins with to `mantissa`, modulo 2^64; returns the rest.
///
/// Eight bytes are taken at a time, and how many of them are digits costs no branch: numbers
/// of a tensor differ in length, which a processor cannot foresee.
#[inline]
fn digits<'a>(text: &'a [u8], mantissa: &mut u64) -> &'a [u8] {
    let mut rest = text;
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word) ^ ZEROS;
        let count = leading_digits(word);
        if count == 8 {
            *mantissa = mantissa
                .wrapping_mul(100_000_000)
                .wrapping_add(eight_digits(word));
            rest = behind;
            continue;
        }
        // What follows the digits is pushed out, and zeros come in before them.
        let word = word << (56 - 8 * count) << 8;
        *mantissa = mantissa
            .wrapping_mul(TENS[count])
            .wrapping_add(eight_digits(word));
        return &rest[count..];
    }
    while let [byte @ b'0'..=b'9', behind @ ..] = rest {
        *mantissa = mantissa
            .wrapping_mul(10)
            .wrapping_add(u64::from(byte - b'0'));
        rest = behind;
    }
    rest
}

/// What follows `e`, capped far outside the range of any float, and what follows that.
fn read_exponent(text: &[u8]) -> Result<(i32, &[u8]), Broken<'_>> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut value = 0i32;
    let mut rest = unsigned;
    while let [byte @ b'0'..=b'9', behind @ ..] = rest {
        value = (value * 10 + i32::from(byte - b'0')).min(EXPONENT_CAP);
        rest = behind;
    }
    if rest.len() == unsigned.len() {
        return Err((rest, Problem::Number));
    }
    Ok((if negative { -value } else { value }, rest))
}

/// Why a number does not start here.
#[cold]
fn no_digit(text: &[u8], negative: bool) -> Problem {
    match text.first() {
        Some(b'I') => Problem::NotFinite,
        Some(b'N') if !negative => Problem::NotFinite,
        _ if negative => Problem::Number,
        _ => NO_NUMBER,
    }
}

impl Number<'_> {
    /// The nearest f32, ties to even; `None` where that is an infinity.
    ///
    /// Cost: one multiplication for up to 19 digits and 22 decimal places. The f64 in between is
    /// off by at most 2.5 units in its last place: mantissa, power and product are rounded
    /// once each. Rounding it to f32 decides at the midpoints between neighbours, where the 29
    /// bits that are dropped read 1 followed by zeros: further than 4 units from there, the
    /// exact value lies on the same side and rounds alike.
    #[inline]
    pub(crate) fn to_f32(self) -> Option<f32> {
        const DROPPED: u64 = (1 << 29) - 1;
        const MIDPOINT: u64 = 1 << 28;
        if self.exact
            && let Ok(position) = usize::try_from(self.exponent + POWER_MAX)
            && let Some(power) = SIGNED_POWERS.get(position)
        {
            let value = self.mantissa as f64 * power;
            let from_midpoint = (value.to_bits() & DROPPED).abs_diff(MIDPOINT);
            let rounded = value as f32;
            if from_midpoint > 4 && rounded.is_finite() {
                return Some(if self.negative { -rounded } else { rounded });
            }
        }
        fast_float2::parse(self.text)
            .ok()
            .filter(|value: &f32| value.is_finite())
    }

    /// The nearest f64, ties to even; `None` where that is an infinity.
    ///
    /// Cost: one multiplication or division if the mantissa is below 2^53 and the power of ten
    /// exact: then the one rounding is the right one (W. D. Clinger, "How to Read Floating
    /// Point Numbers Accurately", 1990); else a second pass.
    #[inline]
    pub(crate) fn to_f64(self) -> Option<f64> {
        if self.exact
            && self.mantissa <= 1 << 53
            && let Some(power) = POWERS.get(self.exponent.unsigned_abs() as usize)
        {
            let mantissa = self.mantissa as f64;
            let value = if self.exponent < 0 {
                mantissa / power
            } else {
                mantissa * power
            };
            return Some(if self.negative { -value } else { value });
        }
        fast_float2::parse(self.text)
            .ok()
            .filter(|value: &f64| value.is_finite())
    }

    /// The value as a 64-bit magnitude and sign; `None` unless it is written as a whole number
    /// that fits.
    #[inline]
    pub(crate) fn to_integer(self) -> Option<(bool, u64)> {
        if !self.whole {
            return None;
        }
        if self.exact {
            return Some((self.negative, self.mantissa));
        }
        let digits = std::str::from_utf8(&self.text[usize::from(self.negative)..]).ok()?;
        digits
            .parse()
            .ok()
            .map(|magnitude| (self.negative, magnitude))
    }

    /// The value as `u64`; `None` if it is negative, not whole or too large.
    pub(crate) fn to_u64(self) -> Option<u64> {
        let (negative, magnitude) = self.to_integer()?;
        (!negative || magnitude == 0).then_some(magnitude)
    }

    /// The value as `i64`; `None` if it is not whole or outside the range.
    pub(crate) fn to_i64(self) -> Option<i64> {
        let (negative, magnitude) = self.to_integer()?;
        if negative {
            0i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        }
    }

    /// As it stands in the document.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.text).expect("a number holds digits, signs, points and e only")
    }
}

/// How many of eight bytes, the first in the lowest, are digits before one is not; a digit is
/// given as its value.
#[inline]
fn leading_digits(word: u64) -> usize {
    // 9 + 118 stays below the top bit, 10 + 118 reaches it. A byte that carries into the next
    // one has its own top bit set, so that only what follows it is misjudged.
    let others = (word.wrapping_add(u64::from_le_bytes([118; 8])) | word) & TOP_BITS;
    others.trailing_zeros() as usize / 8
}

/// The value of eight digits, the first in the lowest byte, each given as its value.
///
/// Neighbours are added up pairwise: 8 digits to 4 pairs, to 2 fours, to one eight (Daniel
/// Lemire, "Number Parsing at a Gigabyte per Second", 2021, section 8).
#[inline]
fn eight_digits(word: u64) -> u64 {
    let pairs = (word.wrapping_mul(10).wrapping_add(word >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff
}

const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
const TOP_BITS: u64 = u64::from_le_bytes([0x80; 8]);
/// Powers of ten for up to seven digits.
const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// 10^19 < 2^64: so many digits always fit.
const DIGITS_EXACT: usize = 19;
/// Where exponents stop counting: beyond it a number is zero or an infinity, whatever its
/// mantissa, since the mantissa is no longer than the largest body (2^30 digits).
const EXPONENT_CAP: i32 = 100_000_000;
/// What starts here is no number at all.
pub(crate) const NO_NUMBER: Problem = Problem::Expected("a number");
/// What stands behind a leading zero is no digit.
const LEADING_ZERO: Problem = Problem::Expected("no digit after a leading 0");
/// The largest power of ten that f64 holds exactly.
const POWER_MAX: i32 = 22;
/// The powers of ten from -22 to 22, each the nearest f64.
const SIGNED_POWERS: [f64; 45] = [
    1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10,
    1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7,
    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
/// The powers of ten that f64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
