//! What is measured of a run, from the same facts that the invariants see.

use std::collections::BTreeMap;

use paceline_core::Instant;
use paceline_protocol::Epoch;

use crate::fact::{End, Fact};
use crate::report::{BatchSize, ClientsShare, Latency, Outcomes, Report};
use crate::scenario::Scenario;
use crate::series::{Happened, Series};

/// Counts and samples of one run.
#[derive(Default)]
pub(crate) struct Measured {
    /// When each request was sent, and by which clients.
    sent: Vec<(Instant, u16)>,
    clients: Vec<OfClients>,
    outcomes: Outcomes,
    sent_again: u64,
    failed_over: u64,
    ejected: u64,
    /// Of answered requests, in nanoseconds.
    latencies: Vec<u64>,
    /// Batches by their rows.
    batches: BTreeMap<u32, u64>,
    busy_nanos: u64,
    epoch: Epoch,
    series: Series,
}

/// What clients that are alike were told.
#[derive(Default)]
struct OfClients {
    requests: u64,
    /// Of answered requests, in nanoseconds.
    latencies: Vec<u64>,
}

impl Measured {
    pub(crate) fn observe(&mut self, now: Instant, fact: &Fact<'_>) {
        let happened = match *fact {
            Fact::Submitted { client, .. } => {
                self.sent.push((now, client));
                self.clients_mut(client).requests += 1;
                Happened::Sent
            }
            Fact::Ended { request, end, .. } => {
                self.outcomes.count(end);
                let (sent, client) = self.sent[request.0 as usize];
                let took = now.nanos_since(sent);
                if end == End::Answered {
                    self.latencies.push(took);
                    self.clients_mut(client).latencies.push(took);
                }
                Happened::Ended(end, took)
            }
            Fact::Ran(ref batch) => {
                *self.batches.entry(batch.rows).or_default() += 1;
                self.busy_nanos += batch.nanos;
                Happened::Ran(batch.nanos)
            }
            Fact::SentAgain => {
                self.sent_again += 1;
                Happened::SentAgain
            }
            Fact::FailedOver => {
                self.failed_over += 1;
                Happened::FailedOver
            }
            Fact::Ejected => {
                self.ejected += 1;
                return;
            }
            Fact::Applied { epoch, .. } => {
                self.epoch = epoch;
                return;
            }
            Fact::HungUp { .. }
            | Fact::Admitted { .. }
            | Fact::Disclaimed { .. }
            | Fact::Split { .. }
            | Fact::Copied(_)
            | Fact::Sequenced { .. }
            | Fact::Loaded { .. }
            | Fact::Left { .. }
            | Fact::Stray { .. }
            | Fact::Queued(_)
            | Fact::Taken { .. }
            | Fact::Closed { .. }
            | Fact::Opened { .. }
            | Fact::Died { .. }
            | Fact::Loading { .. }
            | Fact::Failed { .. }
            | Fact::GivenUp { .. }
            | Fact::Unloaded { .. }
            | Fact::Followed { .. }
            | Fact::Settled { .. } => return,
        };
        self.series.count(now.as_nanos(), &happened);
    }

    fn clients_mut(&mut self, client: u16) -> &mut OfClients {
        let index = usize::from(client);
        if index >= self.clients.len() {
            self.clients.resize_with(index + 1, OfClients::default);
        }
        &mut self.clients[index]
    }

    /// The report of a run that came to rest at `end`, after so many events.
    pub(crate) fn report(
        mut self,
        scenario: &Scenario,
        seed: u64,
        (end, events): (Instant, u64),
    ) -> Report {
        self.latencies.sort_unstable();
        let lanes = scenario.lanes();
        let from = Instant::from_nanos(scenario.begins_ms() * 1_000_000);
        let until = Instant::from_nanos(scenario.ends_ms() * 1_000_000);
        let lane_nanos = lanes * until.nanos_since(from).max(1);
        let sending_ms = until.nanos_since(from) / 1_000_000;
        let batches = self.batches.values().sum::<u64>();
        Report {
            scenario: scenario.name.clone(),
            seed,
            virtual_ms: end.as_nanos() / 1_000_000,
            requests: self.sent.len() as u64,
            goodput_per_s: self.outcomes.answered * 1_000 / sending_ms.max(1),
            outcomes: self.outcomes,
            sent_again: self.sent_again,
            failed_over: self.failed_over,
            ejected: self.ejected,
            latency_us: latency(&self.latencies),
            clients: self.clients.into_iter().map(OfClients::share).collect(),
            batches,
            batch_rows: self
                .batches
                .into_iter()
                .map(|(rows, batches)| BatchSize { rows, batches })
                .collect(),
            utilisation_permille: self.busy_nanos * 1_000 / lane_nanos,
            epoch: self.epoch.0,
            events,
            series: self.series,
        }
    }
}

impl OfClients {
    fn share(mut self) -> ClientsShare {
        self.latencies.sort_unstable();
        ClientsShare {
            requests: self.requests,
            answered: self.latencies.len() as u64,
            latency_us: latency(&self.latencies),
        }
    }
}

/// What sorted nanoseconds are like.
fn latency(sorted: &[u64]) -> Latency {
    let at = |permille| percentile(sorted, permille) / 1_000;
    Latency {
        p50: at(500),
        p95: at(950),
        p99: at(990),
        max: at(1_000),
    }
}

/// The least value that so many thousandths of all do not exceed (nearest rank); 0 of none.
fn percentile(sorted: &[u64], permille: usize) -> u64 {
    let rank = (sorted.len() * permille).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u64> = (1..=100).collect();
        let of = |permille| percentile(&hundred, permille);
        assert_eq!((of(500), of(950), of(990), of(1_000)), (50, 95, 99, 100));
        assert_eq!(percentile(&[7], 500), 7);
        assert_eq!(percentile(&[], 500), 0);
    }
}
