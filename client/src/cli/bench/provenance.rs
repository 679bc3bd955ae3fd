//! Where figures come from: what was called, when, with which release, on which machine.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::units;

/// What belongs to every figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Provenance {
    /// Release of this program.
    pub(super) paceline: &'static str,
    /// As it was called, without keys.
    pub(super) command: String,
    /// In UTC, as RFC 3339 has it.
    pub(super) started: String,
    machine: Machine,
}

/// The machine that makes the load.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    os: &'static str,
    arch: &'static str,
    cores: usize,
}

impl Provenance {
    /// Of this process, from now on.
    pub(super) fn of_process() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            paceline: env!("CARGO_PKG_VERSION"),
            command: command(std::env::args()),
            started: date_time(since.map_or(0, |since| since.as_secs())),
            machine: Machine {
                os: std::env::consts::OS,
                arch: std::env::consts::ARCH,
                cores: cores(),
            },
        }
    }

    /// The machine in words.
    pub(super) fn machine(&self) -> String {
        let Machine { os, arch, cores } = self.machine;
        format!("{os}, {arch}, {}", units::counted(cores, "core"))
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Words as a shell takes them, the program by its name alone and keys left out.
fn command(words: impl Iterator<Item = String>) -> String {
    let mut shown = Vec::new();
    let mut is_key = false;
    for (at, word) in words.enumerate() {
        shown.push(match word.as_str() {
            _ if at == 0 => "paceline".to_owned(),
            _ if is_key => "pk_…".to_owned(),
            word if word.starts_with("--api-key=") => "--api-key=pk_…".to_owned(),
            word => quoted(word),
        });
        is_key = word == "--api-key";
    }
    shown.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@,=%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Seconds since 1970 as `2026-11-26T21:39:17Z`. The date is that of the proleptic Gregorian
/// calendar, by "chrono-compatible low-level date algorithms" (H. Hinnant), `civil_from_days`.
fn date_time(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days from the first of March of the year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_time(seconds), wanted);
        }
    }

    #[test]
    fn a_command_can_be_called_again_and_shows_no_key() {
        let shown = |words: &[&str]| command(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(
            shown(&["/bin/x", "bench", "m@2", "--text", "it's <b>"]),
            r"paceline bench m@2 --text 'it'\''s <b>'"
        );
        assert_eq!(
            shown(&["p", "--api-key", "pk_secret", "--api-key=pk_secret", ""]),
            "paceline --api-key pk_… --api-key=pk_… ''"
        );
    }
}
