//! The highest rate that is carried: raised until it is not, then the middle, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::load::Load;
use super::provenance::Provenance;
use super::report::{Report, Subject};
use crate::cli::failure::Failure;
use crate::cli::table::{Side, Table};
use crate::cli::terminal::Talk;
use crate::cli::units;

/// Which rate is tried next.
#[derive(Clone, Copy, Debug)]
struct Search {
    start: u32,
    /// The highest rate that held.
    held: Option<u32>,
    /// The lowest that did not.
    failed: Option<u32>,
}

/// What was found, as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    provenance: Provenance,
    model: String,
    version: Option<String>,
    /// Of the answers to a rate that holds, 99 of 100 took no longer.
    p99_max_ns: u64,
    /// And of all requests that were due, this share was good.
    good_share_min: f64,
    /// Requests a second; null if not even the lowest rate held.
    rate_max: Option<u32>,
    /// Whether the client, not the server, could not do more.
    client_limited: bool,
    /// Ended early by Ctrl-C.
    cut_short: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Step {
    rate: u32,
    good_per_second: f64,
    good_share: f64,
    p99_ns: Option<u64>,
    limited: bool,
    holds: bool,
}

/// What is asked of a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) start: u32,
    pub(super) p99: Duration,
}

/// Rates that differ by less than one in so many are one rate.
const FINE: u32 = 20;
const RATE_MAX: u32 = 1_000_000;
const GOOD_SHARE_MIN: f64 = 0.99;
/// Between two rates: what the one before left behind is done by then.
const PAUSE: Duration = Duration::from_millis(500);

impl Search {
    fn next(self) -> Option<u32> {
        match (self.held, self.failed) {
            (None, None) => Some(self.start),
            (Some(held), None) => (held < RATE_MAX).then(|| held.saturating_mul(2).min(RATE_MAX)),
            (None, Some(failed)) => (failed > 1).then_some(failed / 2),
            (Some(held), Some(failed)) => {
                let between = failed.saturating_sub(held);
                (between > (held / FINE).max(1)).then_some(held + between / 2)
            }
        }
    }

    fn tried(&mut self, rate: u32, holds: bool) {
        match holds {
            true => self.held = Some(rate),
            false => self.failed = Some(rate),
        }
    }
}

/// Tries one rate after another with `load`, each for as long as the load lasts. Blocks.
///
/// # Errors
/// A thread does not start.
pub(super) fn find(
    mut load: Load,
    subject: &Subject,
    wanted: Wanted,
    (talk, stop): (&Talk, &AtomicBool),
) -> Result<Found, Failure> {
    let provenance = Provenance::of_process();
    let mut search = Search {
        start: wanted.start,
        held: None,
        failed: None,
    };
    let mut steps: Vec<Step> = Vec::new();
    while let Some(rate) = search.next() {
        if !steps.is_empty() {
            thread::sleep(PAUSE);
        }
        load.arrivals = load.arrivals.at(rate);
        let measured = load.run(talk, false, stop);
        let measured = measured
            .map_err(|error| Failure::Failed(format!("a thread does not start: {error}")))?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let report = Report::new(provenance.clone(), subject.clone(), &load, measured);
        let step = Step::of(rate, &report, wanted.p99);
        talk.say(&step.line());
        search.tried(rate, step.holds);
        steps.push(step);
    }
    let failed = steps.iter().find(|step| Some(step.rate) == search.failed);
    Ok(Found {
        provenance,
        model: subject.model.to_string(),
        version: subject.version.clone(),
        p99_max_ns: super::arrivals::nanos(wanted.p99),
        good_share_min: GOOD_SHARE_MIN,
        rate_max: search.held,
        client_limited: failed.is_some_and(|step| step.limited),
        cut_short: stop.load(Ordering::Relaxed),
        steps,
    })
}

impl Step {
    fn of(rate: u32, report: &Report, p99: Duration) -> Self {
        let p99_ns = report.latency_ns.map(|latency| latency.p99);
        let good_share = report.good_share.unwrap_or(0.0);
        let is_fast = p99_ns.is_some_and(|nanos| u128::from(nanos) <= p99.as_nanos());
        Self {
            rate,
            good_per_second: report.good_per_second,
            good_share,
            p99_ns,
            limited: report.is_limited(),
            holds: is_fast && good_share >= GOOD_SHARE_MIN,
        }
    }

    fn line(&self) -> String {
        let p99 = self
            .p99_ns
            .map_or_else(|| "-".to_owned(), units::nanoseconds);
        let holds = if self.holds { "holds" } else { "does not hold" };
        let share = self.good_share * 100.0;
        format!("{}/s {holds}: p99 {p99}, {share:.2} % good", self.rate)
    }
}

impl Found {
    /// As people read it.
    pub(super) fn text(&self) -> String {
        let columns = ["RATE", "GOOD/S", "GOOD", "P99", "HOLDS"];
        let mut table = Table::new(columns.map(|column| (column, Side::Right)));
        let mut steps = self.steps.clone();
        steps.sort_by_key(|step| step.rate);
        for step in &steps {
            table.row([
                step.rate.to_string(),
                format!("{:.1}", step.good_per_second),
                format!("{:.2} %", step.good_share * 100.0),
                step.p99_ns
                    .map_or_else(|| "-".to_owned(), units::nanoseconds),
                if step.holds { "yes" } else { "no" }.to_owned(),
            ]);
        }
        let p99 = units::nanoseconds(self.p99_max_ns);
        let found = match self.rate_max {
            Some(rate) => format!("{rate} requests/s with a p99 of {p99} at most"),
            None => format!("no rate holds a p99 of {p99}"),
        };
        let why = match (self.client_limited, self.cut_short) {
            (_, true) => "; cut short, so it may be more",
            (true, _) => "; more could not be sent by this client, so the server may carry it",
            _ => "",
        };
        format!("{}\n{found}{why}\n", table.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: u32, carries: u32) -> (Option<u32>, usize) {
        let mut search = Search {
            start,
            held: None,
            failed: None,
        };
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.tried(rate, rate <= carries);
            steps += 1;
            assert!(steps < 40, "it ends");
        }
        (search.held, steps)
    }

    #[test]
    fn the_highest_rate_is_found_from_below_and_from_above() {
        for carries in [1, 7, 100, 1_930, 77_777] {
            for start in [1, 100, 50_000] {
                let (held, steps) = search(start, carries);
                let held = held.expect("some rate holds");
                assert!(
                    held <= carries && carries - held <= carries / FINE + 1,
                    "{held}"
                );
                assert!(steps <= 24, "{steps} steps from {start} to {carries}");
            }
        }
        assert_eq!(search(100, 0).0, None);
        assert_eq!(search(100, u32::MAX).0, Some(RATE_MAX));
    }
}
