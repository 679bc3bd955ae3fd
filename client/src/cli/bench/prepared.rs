//! What a command line means: which bodies, whom to ask, when, and for how long.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use paceline_protocol::limits::REQUEST_BUDGET_DEFAULT_MS;

use super::arrivals::Arrivals;
use super::load::Load;
use super::recorded::Recorded;
use super::wire::{Exchange, Question};
use super::{BenchArgs, DURATION_MAX, Process};
use crate::api::{OperatorClient, inference_path};
use crate::cli::failure::Failure;
use crate::cli::infer::{Body, Encoding};
use crate::cli::target::ModelTarget;
use crate::cli::terminal::Talk;
use crate::cli::units;

/// Without a word on it.
pub(super) const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// All bodies of a trace together: what a small machine has to spare.
const BODIES_BYTES_MAX: usize = 256 << 20;

impl BenchArgs {
    /// What cannot be written is told before load is made.
    pub(super) fn open_page(&self) -> Result<Option<(File, &Path)>, Failure> {
        let Some(path) = &self.report else {
            return Ok(None);
        };
        let file = File::create(path).map_err(|error| unwritten(path, &error))?;
        Ok(Some((file, path)))
    }

    /// The trace, with one body for all where its rows are not to be taken.
    pub(super) fn recorded(&self, talk: &Talk) -> Result<Option<Recorded>, Failure> {
        let Some(file) = &self.trace else {
            return Ok(None);
        };
        let recorded = Recorded::read(file, self.speed.0).map_err(Failure::Failed)?;
        talk.say(&recorded.told);
        let is_one = self.rows.is_some() || self.input.rows().is_none();
        Ok(Some(match is_one {
            true => recorded.with_one_body(),
            false => recorded,
        }))
    }

    /// The bodies of a load, with these rows; without any, one as it was given.
    pub(super) fn bodies(
        &self,
        sizes: &[u32],
        plain: Option<Vec<u8>>,
        client: &OperatorClient,
    ) -> Result<Vec<Body>, Failure> {
        let one = match (self.input.rows(), plain) {
            (None, Some(bytes)) => {
                let json_bytes = None;
                return Ok(vec![Body { bytes, json_bytes }]);
            }
            (given, _) => [self.rows.or(given).unwrap_or(1)],
        };
        let sizes = if sizes.is_empty() { &one } else { sizes };
        self.sized(sizes, client)
    }

    pub(super) fn sized(
        &self,
        sizes: &[u32],
        client: &OperatorClient,
    ) -> Result<Vec<Body>, Failure> {
        let ModelTarget { name, version } = &self.target;
        let metadata = client.metadata(name, version.as_ref())?;
        let encoding = match self.binary {
            true => Encoding::Binary,
            false => Encoding::Json,
        };
        let meant = (self.connection.timeout(), self.importance);
        // Before they are written: what one row more takes is the same for all of them.
        let small = self.input.bodies(&[1, 2], encoding, &metadata, meant)?;
        if let [one, two] = &small[..] {
            let (one, two) = (one.bytes.len(), two.bytes.len());
            let rows: usize = sizes.iter().map(|rows| *rows as usize).sum();
            let bytes =
                two.saturating_sub(one).saturating_mul(rows) + one.saturating_mul(sizes.len());
            if bytes > BODIES_BYTES_MAX {
                return Err(Failure::Usage(format!(
                    "the requests take about {}; allowed: up to {}; choose one size with --rows",
                    units::bytes(bytes as u64),
                    units::bytes(BODIES_BYTES_MAX as u64)
                )));
            }
        }
        self.input.bodies(sizes, encoding, &metadata, meant)
    }

    pub(super) fn exchange(&self, bodies: Vec<Body>, limit: Duration) -> Result<Exchange, Failure> {
        let cluster = self.connection.cluster()?;
        let ModelTarget { name, version } = &self.target;
        Ok(Exchange::new(Question {
            nodes: cluster.nodes,
            api_key: cluster.api_key,
            path: format!("{}/infer", inference_path(name, version.as_ref())),
            bodies,
            limit,
        }))
    }

    pub(super) fn load(
        &self,
        exchange: Exchange,
        recorded: Option<Recorded>,
    ) -> Result<Load, Failure> {
        let seed = self.seed;
        let warm_up = self.warm_up.unwrap_or_default();
        let ends = recorded.as_ref().map(|recorded| recorded.last_nanos + 1);
        let arrivals = match (recorded, self.rate, self.arrivals) {
            (Some(recorded), ..) => recorded.arrivals,
            (None, None, _) => Arrivals::Closed,
            (None, Some(rate), Process::Constant) => Arrivals::Constant(rate),
            (None, Some(rate), Process::Poisson) => Arrivals::Poisson { rate, seed },
        };
        let duration = match (self.duration, ends) {
            (Some(duration), None) => duration,
            // Behind its end there is nothing to send.
            (Some(duration), Some(ends)) => {
                duration.min(Duration::from_nanos(ends).saturating_sub(warm_up))
            }
            (None, None) => DURATION_DEFAULT,
            (None, Some(ends)) => Duration::from_nanos(ends).saturating_sub(warm_up),
        };
        if duration.is_zero() || duration > DURATION_MAX {
            return Err(Failure::Usage(format!(
                "the trace would be sent for {}; allowed: up to 24h, and longer than --warm-up; choose a \
                 part with --duration, or another --speed",
                units::nanoseconds(ends.unwrap_or(0))
            )));
        }
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        // Where a p99 is looked for, what takes longer is not worth waiting for.
        let deadline = self.deadline.or(self.find_max);
        Ok(Load {
            exchange,
            connections: self.concurrency.unwrap_or(match arrivals {
                Arrivals::Closed => 16,
                _ => 64,
            }),
            arrivals,
            warm_up,
            duration,
            deadline: deadline.unwrap_or_else(|| self.connection.timeout_or(default)),
            retry: self.retry,
        })
    }
}

pub(super) fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", path.display()))
}
