//! What happened in each second of a run, as CSV.

use std::fmt;

use crate::fact::End;

/// Counts by second of invented time, from the start of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    seconds: Vec<Second>,
}

/// One second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Second {
    sent: u64,
    answered: u64,
    cancelled: u64,
    /// Refused, late, failed or lost.
    other: u64,
    failed_over: u64,
    sent_again: u64,
    batches: u64,
    busy_nanos: u64,
    /// Of what was answered, in nanoseconds.
    latencies: Vec<u64>,
}

/// Something that is counted.
pub(crate) enum Happened {
    Sent,
    Ended(End, u64),
    FailedOver,
    SentAgain,
    Ran(u64),
}

impl Series {
    pub(crate) fn count(&mut self, at_nanos: u64, what: &Happened) {
        let second = (at_nanos / 1_000_000_000) as usize;
        if second >= self.seconds.len() {
            self.seconds.resize_with(second + 1, Second::default);
        }
        let second = &mut self.seconds[second];
        match what {
            Happened::Sent => second.sent += 1,
            Happened::Ended(End::Answered, nanos) => {
                second.answered += 1;
                second.latencies.push(*nanos);
            }
            Happened::Ended(End::Cancelled, _) => second.cancelled += 1,
            Happened::Ended(..) => second.other += 1,
            Happened::FailedOver => second.failed_over += 1,
            Happened::SentAgain => second.sent_again += 1,
            Happened::Ran(nanos) => {
                second.batches += 1;
                second.busy_nanos += nanos;
            }
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "second,sent,answered,cancelled,other,failed_over,sent_again,batches,busy_ms,p50_us,p99_us"
        )?;
        for (number, second) in self.seconds.iter().enumerate() {
            let mut sorted = second.latencies.clone();
            sorted.sort_unstable();
            let percentile = |permille: usize| {
                let rank = (sorted.len() * permille).div_ceil(1_000);
                let nanos = sorted.get(rank.saturating_sub(1)).copied();
                nanos.map_or(String::new(), |nanos| (nanos / 1_000).to_string())
            };
            writeln!(
                f,
                "{number},{},{},{},{},{},{},{},{},{},{}",
                second.sent,
                second.answered,
                second.cancelled,
                second.other,
                second.failed_over,
                second.sent_again,
                second.batches,
                second.busy_nanos / 1_000_000,
                percentile(500),
                percentile(990),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_is_a_line() {
        let mut series = Series::default();
        series.count(5, &Happened::Sent);
        series.count(2_000_000_000, &Happened::Ended(End::Answered, 7_000));
        series.count(2_000_000_001, &Happened::Ended(End::Gone, 0));
        let text = series.to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let expected = [
            "0,1,0,0,0,0,0,0,0,,",
            "1,0,0,0,0,0,0,0,0,,",
            "2,0,1,0,1,0,0,0,0,7,7",
        ];
        assert_eq!(lines, expected);
    }
}
