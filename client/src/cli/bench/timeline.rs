//! What happened in each second, and in all of them.

use serde::Serialize;

use super::interval::{Interval, Kind};

/// Seconds in a row.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) seconds: Vec<Second>,
    pub(super) total: Interval,
}

/// What was sent and what ended in a second: an answer counts where it came, not where its request
/// was due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Second {
    /// Seconds from the end of the warm-up to the beginning of this one.
    pub(super) second: u32,
    pub(super) sent: u64,
    pub(super) good: u64,
    pub(super) late: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) expired: u64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
    pub(super) unsent: u64,
    /// Of right answers; null if there was none.
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            seconds: Vec::new(),
            total: Interval::new(),
        }
    }
}

impl Timeline {
    /// Adds a second, and says how it was.
    pub(super) fn push(&mut self, mut interval: Interval) -> &Second {
        let number = u32::try_from(self.seconds.len()).unwrap_or(u32::MAX);
        self.seconds.push(Second::of(number, &interval));
        self.total.take(&mut interval);
        &self.seconds[self.seconds.len() - 1]
    }

    /// Leaves out a last second in which nothing was.
    pub(super) fn end(&mut self) {
        let is_empty = |last: &Second| {
            let number = last.second;
            number > 0
                && *last
                    == Second {
                        second: number,
                        ..Second::default()
                    }
        };
        self.seconds.pop_if(|last| is_empty(last));
    }
}

impl Second {
    fn of(second: u32, interval: &Interval) -> Self {
        let latencies = &interval.latencies;
        let quantile = |q| (latencies.count() > 0).then(|| latencies.quantile(q));
        Self {
            second,
            sent: interval.sent,
            good: interval.good(),
            late: interval.late,
            refused: interval.of(Kind::Refused),
            failed: interval.of(Kind::Failed),
            expired: interval.of(Kind::Expired),
            lost: interval.of(Kind::Lost),
            wrong: interval.of(Kind::Wrong),
            unsent: interval.unsent,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
        }
    }

    /// Requests that ended without a right answer.
    pub(super) fn missing(&self) -> u64 {
        self.refused + self.failed + self.expired + self.lost + self.wrong
    }
}
