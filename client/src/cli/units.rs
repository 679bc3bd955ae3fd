//! Bytes and times as people read and write them. JSON has the exact figures.

use std::time::Duration;

/// `512 B`, `29.1 KiB`, `4.0 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as "1024.0".
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// `850 ns`, `12.1 µs`, `3.4 ms`, `2.0 s`.
pub(crate) fn nanoseconds(count: u64) -> String {
    let scaled = count as f64;
    match count {
        0..1_000 => format!("{count} ns"),
        1_000..999_950 => format!("{:.1} µs", scaled / 1e3),
        999_950..999_950_000 => format!("{:.1} ms", scaled / 1e6),
        _ => format!("{:.1} s", scaled / 1e9),
    }
}

/// The two largest units: `45s`, `3m 20s`, `5h 2m`, `12d 4h`.
pub(crate) fn seconds(count: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match count {
        0..MINUTE => format!("{count}s"),
        MINUTE..HOUR => format!("{}m {}s", count / MINUTE, count % MINUTE),
        HOUR..DAY => format!("{}h {}m", count / HOUR, count % HOUR / MINUTE),
        _ => format!("{}d {}h", count / DAY, count % DAY / HOUR),
    }
}

/// A noun with its number: `1 file`, `3 files`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Reads `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let number = text[..digits].parse::<u64>().ok();
    match number.and_then(|number| number.checked_mul(milliseconds)) {
        Some(total) if total > 0 => Ok(Duration::from_millis(total)),
        _ => Err(format!(
            "'{text}' is not a duration above zero; allowed: 500ms, 30s, 5m, 1h"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable_at_every_size() {
        for (count, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (29_808, "29.1 KiB"),
            (1_048_575, "1.0 MiB"),
            (4 << 30, "4.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), wanted);
        }
        for (count, wanted) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (12_100, "12.1 µs"),
            (999_949, "999.9 µs"),
            (999_960, "1.0 ms"),
            (2_000_000_000, "2.0 s"),
        ] {
            assert_eq!(nanoseconds(count), wanted);
        }
        for (count, wanted) in [
            (0, "0s"),
            (200, "3m 20s"),
            (18_120, "5h 2m"),
            (1_051_200, "12d 4h"),
        ] {
            assert_eq!(seconds(count), wanted);
        }
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "file"), "0 files");
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds))
            );
        }
        for bad in [
            "",
            "s",
            "0",
            "0s",
            "-1s",
            "1.5s",
            "1d",
            "5 m",
            "99999999999999999999s",
            "ä",
        ] {
            assert!(
                parse_duration(bad).unwrap_err().contains("allowed"),
                "{bad}"
            );
        }
    }
}
