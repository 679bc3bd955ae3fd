//! Times as traces write them, in nanoseconds.

use super::decimal::scaled;
use super::options::TimeUnit;

impl TimeUnit {
    /// The time that `text` says, in nanoseconds from where the trace counts (dates: from 1970 in
    /// UTC); what is finer than a nanosecond is left out. Without a value: it is no such time, or
    /// lies past the year 2500 or so.
    pub(super) fn nanos(self, text: &str) -> Option<u64> {
        let power = match self {
            Self::Seconds => 9,
            Self::Millis => 6,
            Self::Micros => 3,
            Self::Nanos => 0,
            Self::DateTime => return date_time(text.trim()),
        };
        u64::try_from(scaled(text, power)?.whole).ok()
    }

    /// What [`TimeUnit::nanos`] reads, for messages.
    pub(super) fn allowed(self) -> &'static str {
        match self {
            Self::Seconds => "seconds from 0 to 18446744073",
            Self::Millis => "milliseconds from 0 to 18446744073709",
            Self::Micros => "microseconds from 0 to 18446744073709551",
            Self::Nanos => "nanoseconds from 0 to 18446744073709551615",
            Self::DateTime => "a date and time from 1970 to 2500, like 2023-11-16 18:17:03.9799600",
        }
    }
}

/// `YYYY-MM-DD`, a blank or `T`, `hh:mm:ss`, a fraction or none, `Z` or `±hh:mm` or nothing
/// (RFC 3339, section 5.6; what it does not have is a missing offset).
fn date_time(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let time = rest.strip_prefix([' ', 'T', 't'])?;
    let (time, rest) = time.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let date_allowed = (1970..=2500).contains(&year) && (1..=days_of(year, month)?).contains(&day);
    // A leap second is the 60th.
    if !date_allowed || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, zone) = rest.split_at(digits);
            (nanos_of(fraction)?, zone)
        }
        None => (0, rest),
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = seconds.checked_sub(offset_seconds(zone)?)?;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(fraction)
}

/// Numbers of so many digits each, with `between` between them.
fn numbers(text: &str, between: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, width) in found.iter_mut().zip(widths) {
        *number = digits(parts.next()?, width)?;
    }
    parts.next().is_none().then_some(found)
}

fn digits(text: &str, width: usize) -> Option<i64> {
    let all = text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// The nanoseconds of a fraction of a second.
fn nanos_of(fraction: &str) -> Option<u64> {
    let kept = &fraction[..fraction.len().min(9)];
    let number: u64 = kept.parse().ok()?;
    Some(number * 10u64.pow(9 - kept.len() as u32))
}

/// How far a zone is ahead of UTC.
fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, zone) = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (zone.len() == 1).then_some(0),
        Some(b'+') => (1, &zone[1..]),
        Some(b'-') => (-1, &zone[1..]),
        Some(_) => return None,
    };
    let (hours, minutes) = zone.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Days of a month; none for a month that is not there.
fn days_of(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Howard Hinnant's `days_from_civil` ("chrono-compatible low-level date algorithms", 2013), for
/// years that are not negative: years begin in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_rfc_3339_has_them_and_as_azure_writes_them() {
        for (text, expected) in [
            ("1970-01-01 00:00:00", 0),
            ("2023-11-16 18:17:03.9799600", 1_700_158_623_979_960_000),
            ("2023-11-16T18:17:03.97996Z", 1_700_158_623_979_960_000),
            ("2023-11-16t19:47:03.97996+01:30", 1_700_158_623_979_960_000),
            ("2023-11-16T13:17:03.97996-05:00", 1_700_158_623_979_960_000),
            ("2000-02-29 00:00:00.0000000019", 951_782_400_000_000_001),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ] {
            assert_eq!(TimeUnit::DateTime.nanos(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn days_are_counted_without_gaps() {
        let mut before = days_since_1970(1969, 12, 31);
        for year in 1970..=2500 {
            for month in 1..=12 {
                for day in 1..=days_of(year, month).unwrap() {
                    let days = days_since_1970(year, month, day);
                    assert_eq!(days, before + 1, "{year}-{month}-{day}");
                    before = days;
                }
            }
        }
        assert_eq!(days_since_1970(1970, 1, 1), 0);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2023-11-16",
            "2023-11-16 18:17",
            "2023-02-29 00:00:00",
            "1900-01-01 00:00:00",
            "2023-13-01 00:00:00",
            "2023-00-01 00:00:00",
            "2023-01-00 00:00:00",
            "2023-01-01 24:00:00",
            "2023-01-01 00:60:00",
            "2023-01-01 00:00:61",
            "2023-01-01_00:00:00",
            "2023-01-01 00:00:00.",
            "2023-01-01 00:00:00.x",
            "2023-01-01 00:00:00 UTC",
            "2023-01-01 00:00:00+1",
            "2023-01-01 00:00:00+24:00",
            "1970-01-01 00:00:00+00:01",
            "+023-01-01 00:00:00",
            "2023-1-001 00:00:00",
            "２０２３-01-01 00:00:00",
            "9999-12-31 23:59:59",
        ] {
            assert_eq!(TimeUnit::DateTime.nanos(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_times_in_their_unit() {
        assert_eq!(TimeUnit::Seconds.nanos("1.5"), Some(1_500_000_000));
        assert_eq!(TimeUnit::Millis.nanos("1.5"), Some(1_500_000));
        assert_eq!(TimeUnit::Micros.nanos("1.5"), Some(1_500));
        assert_eq!(TimeUnit::Nanos.nanos("1.5"), Some(1));
        assert_eq!(TimeUnit::Nanos.nanos("18446744073709551616"), None);
        assert_eq!(TimeUnit::Seconds.nanos("1e12"), None);
        assert_eq!(TimeUnit::Seconds.nanos("-1"), None);
    }
}
