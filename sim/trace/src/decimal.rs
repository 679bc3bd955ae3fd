//! Decimal numbers as they are written, in whole numbers: a float would round times of this
//! century to a quarter of a microsecond.

/// What a text says, as a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scaled {
    /// Rounded down.
    pub(super) whole: u128,
    /// Whether nothing was rounded.
    pub(super) exact: bool,
}

/// Digits that are kept: every product with a power of ten below 10⁸ fits 128 bits.
const DIGITS_MAX: u32 = 30;

/// The number that `text` writes in decimal, with a fraction and an exponent if it likes, times
/// 10^`power`. Without a value: it is no number, it is negative, or it is 10³⁸ or more.
pub(super) fn scaled(text: &str, power: i32) -> Option<Scaled> {
    let text = text.trim();
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() == 0 || !digits.clone().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits past the thirtieth count as noughts.
    let (mut mantissa, mut kept, mut dropped, mut exact) = (0u128, 0, 0i64, true);
    for byte in digits {
        let digit = u128::from(byte - b'0');
        if kept == DIGITS_MAX {
            dropped += 1;
            exact &= digit == 0;
        } else {
            mantissa = mantissa * 10 + digit;
            kept += u32::from(mantissa > 0);
        }
    }
    if negative && (mantissa > 0 || !exact) {
        return None;
    }
    let shift = i64::from(power) + i64::from(exponent) + dropped - fraction.len() as i64;
    if mantissa == 0 {
        return Some(Scaled { whole: 0, exact });
    }
    let Some(factor) = 10u128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?) else {
        // At most thirty digits, moved by more than 38: nothing is left before the point.
        let tiny = Scaled {
            whole: 0,
            exact: false,
        };
        return (shift < 0).then_some(tiny);
    };
    if shift < 0 {
        let exact = exact && mantissa % factor == 0;
        let whole = mantissa / factor;
        return Some(Scaled { whole, exact });
    }
    let whole = mantissa.checked_mul(factor)?;
    Some(Scaled { whole, exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(whole: u128) -> Option<Scaled> {
        let exact = true;
        Some(Scaled { whole, exact })
    }

    fn rounded(whole: u128) -> Option<Scaled> {
        let exact = false;
        Some(Scaled { whole, exact })
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for (text, power, expected) in [
            ("0", 9, exactly(0)),
            ("-0.0", 9, exactly(0)),
            ("374", 0, exactly(374)),
            (" +374.0 ", 0, exactly(374)),
            (
                "1700000000.123456789",
                9,
                exactly(1_700_000_000_123_456_789),
            ),
            (
                "1700000000.1234567891",
                9,
                rounded(1_700_000_000_123_456_789),
            ),
            ("1.5e3", 0, exactly(1_500)),
            ("1.5E-3", 6, exactly(1_500)),
            (".5", 1, exactly(5)),
            ("5.", 1, exactly(50)),
            ("2.5", 0, rounded(2)),
            ("1e-300", 9, rounded(0)),
            ("0e30000", 9, exactly(0)),
            (
                "0.1000000000000000055511151231257827021181583404541015625",
                3,
                rounded(100),
            ),
        ] {
            assert_eq!(scaled(text, power), expected, "{text}");
        }
        let long = format!("{}1", "0".repeat(1_000));
        assert_eq!(scaled(&long, 0), exactly(1));
    }

    #[test]
    fn what_is_no_number_from_nought_on_is_refused() {
        for text in [
            "", " ", ".", "-", "e5", "abc", "1,000", "0x10", "-1", "-1e-300", "1e", "1e99999",
            "1e40", "inf", "NaN", "1 2", "1.2.3", "--1", "١",
        ] {
            assert_eq!(scaled(text, 0), None, "{text}");
        }
        assert_eq!(scaled(&"9".repeat(60_000), 0), None);
    }
}
