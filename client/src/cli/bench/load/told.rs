//! Progress on stderr: a line that is written over, or one a second where that was asked for.

use std::time::Duration;

use super::super::timeline::Second;
use crate::cli::terminal::Talk;
use crate::cli::units;

/// What is told while load is made.
pub(super) struct Told<'a> {
    talk: &'a Talk,
    /// Whether lines stay where none can be written over.
    stays: bool,
}

impl<'a> Told<'a> {
    pub(super) fn new(talk: &'a Talk, stays: bool) -> Self {
        Self { talk, stays }
    }

    pub(super) fn warming_up(&self, left: Duration) {
        let seconds = left.as_secs_f64().ceil();
        self.talk
            .update(&format!("warming up, {seconds:.0} s left"));
    }

    pub(super) fn second(&self, second: &Second, left: Duration) {
        if !self.talk.is_live() && !self.stays {
            return;
        }
        let line = line(second, left);
        if self.talk.is_live() {
            self.talk.update(&line);
        } else {
            self.talk.say(&line);
        }
    }
}

/// Short enough for one row of a narrow window.
fn line(second: &Second, left: Duration) -> String {
    let time = |nanos: Option<u64>| nanos.map_or_else(|| "-".to_owned(), units::nanoseconds);
    format!(
        "{} good, {} late, {} failed, p50 {}, p99 {}, {} s left",
        second.good,
        second.late,
        second.missing() + second.unsent,
        time(second.p50_ns),
        time(second.p99_ns),
        left.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_one_row() {
        let second = Second {
            good: 99_000,
            late: 500,
            refused: 400,
            unsent: 100,
            p50_ns: Some(1_200_000),
            p99_ns: Some(48_000_000),
            ..Second::default()
        };
        let line = line(&second, Duration::from_secs(86_399));
        assert_eq!(
            line,
            "99000 good, 500 late, 500 failed, p50 1.2 ms, p99 48.0 ms, 86399 s left"
        );
        assert!(line.chars().count() <= 79);
    }
}
