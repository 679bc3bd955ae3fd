//! What a run gave. It holds nothing of wall time, host, path or thread count, so two runs of
//! one scenario and seed can be compared byte for byte.

use std::fmt;

use serde::Serialize;

use crate::fact::End;
use crate::series::Series;

/// The figures of one run. Times are invented time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// How long the run was, in milliseconds of invented time.
    pub virtual_ms: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// How they ended.
    pub outcomes: Outcomes,
    /// How often a request was sent again, because it had not run or failed in passing.
    pub sent_again: u64,
    /// How often a request was sent again, because its node had fallen silent.
    pub failed_over: u64,
    /// How often a node's router left a replica out, since it failed.
    pub ejected: u64,
    /// Requests answered in time, for each second in which clients sent.
    pub goodput_per_s: u64,
    /// From sending to answering, of answered requests, in microseconds.
    pub latency_us: Latency,
    /// The same of each kind of clients, in the order of the scenario.
    pub clients: Vec<ClientsShare>,
    /// Batches that ran.
    pub batches: u64,
    /// How many batches had so many rows, by rows.
    pub batch_rows: Vec<BatchSize>,
    /// Thousandths of the time, since clients began, that lanes were running batches.
    pub utilisation_permille: u64,
    /// The registry's epoch at the end.
    pub epoch: u64,
    /// Events that the simulator dealt with: how much work the run was, not part of the report.
    #[serde(skip)]
    pub events: u64,
    /// What happened in each second; written as CSV, not as part of the report.
    #[serde(skip)]
    pub series: Series,
}

/// How requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Answered in time.
    pub answered: u64,
    /// Refused: the node had no permit left.
    pub overloaded: u64,
    /// Refused: the tenant had sent as many as it may.
    pub limited: u64,
    /// Refused: the replica's queue was full.
    pub queue_full: u64,
    /// The deadline passed.
    pub expired: u64,
    /// Given up before their deadline, since it could not be met behind what was waiting.
    pub late: u64,
    /// The client went away.
    pub cancelled: u64,
    /// Refused: no replica was ready.
    pub not_ready: u64,
    /// Refused: the client had seen more than any node that could be asked.
    pub stale: u64,
    /// The replicas went away more often than a request may be sent again.
    pub gone: u64,
    /// The engine failed.
    pub failed: u64,
    /// A node fell silent that may have run it, and it could not be tried again.
    pub unreachable: u64,
    /// Two nodes fell silent that may have run it.
    pub poison: u64,
}

/// What clients that are alike were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClientsShare {
    /// Requests that they sent.
    pub requests: u64,
    /// Those that were answered in time.
    pub answered: u64,
    /// From sending to answering, of answered requests, in microseconds.
    pub latency_us: Latency,
}

/// A distribution of times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half are not slower.
    pub p50: u64,
    /// 95 of 100 are not slower.
    pub p95: u64,
    /// 99 of 100 are not slower.
    pub p99: u64,
    /// None is slower.
    pub max: u64,
}

/// One column of the distribution of batch sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BatchSize {
    /// Rows in a batch.
    pub rows: u32,
    /// Batches of this size.
    pub batches: u64,
}

impl Outcomes {
    pub(crate) fn count(&mut self, end: End) {
        let counter = match end {
            End::Answered => &mut self.answered,
            End::Overloaded => &mut self.overloaded,
            End::Limited => &mut self.limited,
            End::QueueFull => &mut self.queue_full,
            End::Expired => &mut self.expired,
            End::Late => &mut self.late,
            End::Cancelled => &mut self.cancelled,
            End::NotReady => &mut self.not_ready,
            End::Stale => &mut self.stale,
            End::Gone => &mut self.gone,
            End::Failed => &mut self.failed,
            End::Unreachable => &mut self.unreachable,
            End::Poison => &mut self.poison,
        };
        *counter += 1;
    }

    /// Every outcome with its name, in the order of the fields.
    pub fn named(&self) -> [(&'static str, u64); 13] {
        [
            ("answered", self.answered),
            ("overloaded", self.overloaded),
            ("limited", self.limited),
            ("queue full", self.queue_full),
            ("expired", self.expired),
            ("late", self.late),
            ("cancelled", self.cancelled),
            ("not ready", self.not_ready),
            ("stale", self.stale),
            ("gone", self.gone),
            ("failed", self.failed),
            ("unreachable", self.unreachable),
            ("poison", self.poison),
        ]
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p95, p99, max } = self.latency_us;
        writeln!(f, "scenario     {}", self.scenario)?;
        writeln!(f, "seed         {}", self.seed)?;
        writeln!(f, "virtual time {} ms", self.virtual_ms)?;
        writeln!(f, "requests     {}", self.requests)?;
        for (name, count) in self.outcomes.named() {
            let share = permille(count, self.requests);
            writeln!(f, "  {name:<11}{count:>9} {share:>7}")?;
        }
        writeln!(f, "sent again   {}", self.sent_again)?;
        writeln!(f, "failed over  {}", self.failed_over)?;
        writeln!(f, "ejected      {}", self.ejected)?;
        writeln!(f, "goodput      {} answers/s", self.goodput_per_s)?;
        writeln!(
            f,
            "latency      p50 {p50} µs, p95 {p95} µs, p99 {p99} µs, max {max} µs"
        )?;
        // Of one kind all is said.
        let kinds = self.clients.iter().enumerate();
        for (number, of) in kinds.filter(|_| self.clients.len() > 1) {
            let share = permille(of.answered, of.requests);
            let Latency { p50, p99, .. } = of.latency_us;
            writeln!(
                f,
                "  clients {number:<3}{:>9} {share:>7} answered, p50 {p50} µs, p99 {p99} µs",
                of.answered
            )?;
        }
        let utilisation = permille(self.utilisation_permille, 1_000);
        writeln!(f, "utilisation  {utilisation} of the lanes' time")?;
        writeln!(f, "epoch        {}", self.epoch)?;
        writeln!(f, "batches      {}", self.batches)?;
        let longest = self.batch_rows.iter().map(|size| size.batches).max();
        for BatchSize { rows, batches } in &self.batch_rows {
            let length = (batches * BAR_MAX).div_ceil(longest.unwrap_or(1).max(1));
            let bar = "#".repeat(length as usize);
            writeln!(f, "  {rows:>4} rows {batches:>9} {bar}")?;
        }
        Ok(())
    }
}

/// A share in per cent with one decimal, from whole numbers.
fn permille(part: u64, whole: u64) -> String {
    let permille = part * 1_000 / whole.max(1);
    format!("{}.{} %", permille / 10, permille % 10)
}

/// Characters of the longest bar.
const BAR_MAX: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_pinned_by_an_example() {
        let mut outcomes = Outcomes::default();
        for _ in 0..3 {
            outcomes.count(End::Answered);
        }
        outcomes.count(End::Expired);
        let report = Report {
            scenario: "steady".to_owned(),
            seed: 7,
            virtual_ms: 2_000,
            requests: 4,
            outcomes,
            sent_again: 0,
            failed_over: 0,
            ejected: 0,
            goodput_per_s: 3,
            latency_us: Latency {
                p50: 1,
                p95: 2,
                p99: 3,
                max: 4,
            },
            clients: vec![
                ClientsShare {
                    requests: 3,
                    answered: 3,
                    latency_us: Latency {
                        p50: 1,
                        p95: 2,
                        p99: 3,
                        max: 4,
                    },
                };
                2
            ],
            batches: 3,
            batch_rows: vec![
                BatchSize {
                    rows: 1,
                    batches: 2,
                },
                BatchSize {
                    rows: 2,
                    batches: 1,
                },
            ],
            utilisation_permille: 409,
            epoch: 5,
            events: 9,
            series: Series::default(),
        };
        let table = format!(
            "scenario     steady\nseed         7\nvirtual time 2000 ms\nrequests     4\n  \
             answered           3  75.0 %\n  overloaded         0   0.0 %\n  \
             limited            0   0.0 %\n  \
             queue full         0   0.0 %\n  expired            1  25.0 %\n  \
             late               0   0.0 %\n  \
             cancelled          0   0.0 %\n  not ready          0   0.0 %\n  \
             stale              0   0.0 %\n  \
             gone               0   0.0 %\n  failed             0   0.0 %\n  \
             unreachable        0   0.0 %\n  \
             poison             0   0.0 %\nsent again   0\nfailed over  0\nejected      0\ngoodput      3 answers/s\n\
             latency      p50 1 µs, p95 2 µs, p99 3 µs, max 4 µs\n  \
             clients 0          3 100.0 % answered, p50 1 µs, p99 3 µs\n  \
             clients 1          3 100.0 % answered, p50 1 µs, p99 3 µs\n\
             utilisation  40.9 % of the lanes' time\nepoch        5\nbatches      3\n     \
             1 rows         2 {}\n     2 rows         1 {}\n",
            "#".repeat(40),
            "#".repeat(20)
        );
        assert_eq!(report.to_string(), table);
    }
}
