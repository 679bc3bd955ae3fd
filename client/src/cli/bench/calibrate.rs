//! What batches of a model cost by their size, on the device that runs it: for the simulator.
//!
//! One request at a time is sent, so that each is one batch; its time is the engine's own, from the
//! node's metrics before and after, without network, gateway and queue. Sizes take turns, so that a
//! machine that becomes slower does not look like a size that does.

mod engine;
mod fit;
mod scenario;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use paceline_protocol::limits::BODY_BYTES_DEFAULT;
use paceline_protocol::operator::{ModelView, VersionView};
use serde::Serialize;

use super::provenance::Provenance;
use super::wire::{Exchange, Line as Wire};
use crate::api::{Freshness, NodeAddress, OperatorClient};
use crate::cli::failure::Failure;
use crate::cli::infer::Body;
use crate::cli::table::{Side, Table};
use crate::cli::terminal::Talk;
use crate::cli::units;
use engine::{Ran, Reading};
use fit::{Line, Size};
use scenario::Calibrated;

/// Measures sizes of batches.
pub(super) struct Calibration<'a> {
    pub(super) client: &'a OperatorClient,
    pub(super) model: ModelView,
    /// Which of its versions answers.
    pub(super) version: String,
    /// For how long; each size is measured a few times at least.
    pub(super) duration: Duration,
}

/// What was measured, as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Calibrating {
    provenance: Provenance,
    model: String,
    version: String,
    rows_max: u32,
    line: Line,
    /// What is wrong with it.
    warning: Option<String>,
    sizes: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    rows: u32,
    batches: usize,
    median_ns: u64,
    line_ns: u64,
}

/// Of each size, the first of which is not counted.
const ROUNDS_MAX: usize = 101;
const ROUNDS_MIN: usize = 6;
/// A line that is farther off than this anywhere would mislead a simulation.
const OFF_MAX: f64 = 0.1;

/// Sizes that are worth measuring: powers of two and what lies in their middle, and one more than
/// some, since engines that fill up to round sizes show it there.
pub(super) fn sizes(rows_max: u32) -> Vec<u32> {
    let mut sizes = vec![rows_max];
    let mut power = 1u32;
    while power <= rows_max {
        let more = if power >= 4 { power + 1 } else { power };
        sizes.extend([power, power + power / 2, more]);
        power = power.saturating_mul(2);
    }
    sizes.retain(|rows| *rows <= rows_max);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl Calibration<'_> {
    /// Largest batch of the version.
    ///
    /// # Errors
    /// The version that answered is not there any more.
    pub(super) fn rows_max(&self) -> Result<u32, Failure> {
        Ok(self.view()?.record.rows_max)
    }

    /// Measures bodies of these sizes, and writes what came of it.
    ///
    /// # Errors
    /// A request fails, a node does not tell what its engines run, or they run something else, too.
    pub(super) fn run(
        &self,
        (sizes, exchange): (&[u32], &Exchange),
        provenance: Provenance,
        (file, talk): (&Path, &Talk),
    ) -> Result<Calibrating, Failure> {
        let doors = self.doors()?;
        let sizes = self.measure(sizes, exchange, (&doors, talk))?;
        let line = Line::through(&sizes);
        let warning = warning(line, sizes.len());
        let view = self.view()?;
        let status = self.client.status(Freshness::Local)?;
        let scenario = Calibrated {
            model: &self.model.name,
            version: &self.version,
            rows_max: view.record.rows_max,
            lanes: status.devices.first().map_or(1, |device| device.lanes),
            memory_bytes: view.record.memory_bytes,
            sizes: &sizes,
            line,
            warning: warning.as_deref(),
            provenance: &provenance,
        };
        let failed = |error| Failure::Failed(format!("cannot write {}: {error}", file.display()));
        fs::write(file, scenario.toml()).map_err(failed)?;
        if let Some(warning) = &warning {
            talk.say(&format!("warning: {warning}"));
        }
        let measured = sizes.iter().map(|size| Measured {
            rows: size.rows,
            batches: size.nanos.len(),
            median_ns: size.median() as u64,
            line_ns: line.at(size.rows).round() as u64,
        });
        Ok(Calibrating {
            model: self.model.name.to_string(),
            version: self.version.clone(),
            rows_max: view.record.rows_max,
            line,
            warning,
            sizes: measured.collect(),
            provenance,
        })
    }

    fn view(&self) -> Result<&VersionView, Failure> {
        let versions = self.model.versions.iter();
        let mut same = versions.filter(|view| view.version.to_string() == self.version);
        same.next().ok_or_else(|| {
            let (name, version) = (&self.model.name, &self.version);
            Failure::Failed(format!("'{name}' has no version {version} any more"))
        })
    }

    /// Metrics of the nodes that hold a replica of the version.
    fn doors(&self) -> Result<Vec<OperatorClient>, Failure> {
        let version = self.view()?.version;
        let holders = |id| {
            let mut replicas = self.model.replicas.iter();
            replicas.any(|replica| replica.node == id && replica.version == version)
        };
        let nodes = self.client.nodes(Freshness::Local)?;
        let mut doors = Vec::new();
        for node in nodes.into_iter().filter(|node| holders(node.id)) {
            let address = node.addresses.metrics.unwrap_or_default();
            let address: NodeAddress = address.parse().map_err(|_| {
                Failure::Failed(format!("node {} has no door for metrics", node.name))
            })?;
            doors.push(OperatorClient::new(address, SCRAPE_MAX));
        }
        if doors.is_empty() {
            let name = &self.model.name;
            return Err(Failure::Failed(format!(
                "no node has a replica of '{name}'"
            )));
        }
        Ok(doors)
    }

    fn measure(
        &self,
        sizes: &[u32],
        exchange: &Exchange,
        (doors, talk): (&[OperatorClient], &Talk),
    ) -> Result<Vec<Size>, Failure> {
        let begun = Instant::now();
        let mut wire = Wire::new(exchange, 0);
        let mut seen: Vec<Vec<u64>> = vec![Vec::new(); sizes.len()];
        for round in 0..ROUNDS_MAX {
            if round >= ROUNDS_MIN && begun.elapsed() >= self.duration {
                break;
            }
            for (at, rows) in sizes.iter().enumerate() {
                talk.update(&format!("round {}: {rows} rows", round + 1));
                let before = Reading::of(doors)?;
                wire.ask(at).map_err(|miss| {
                    Failure::Failed(format!("a request of {rows} rows ended with {}", miss.code))
                })?;
                let ran = Reading::of(doors)?.since(before, *rows);
                if let Ran::Alone { nanos } = ran
                    && round > 0
                {
                    seen[at].push(nanos);
                }
            }
        }
        let few = seen.iter().position(|nanos| nanos.len() < ENOUGH);
        if let Some(at) = few {
            return Err(Failure::Failed(format!(
                "the engines ran more than one batch for most requests of {} rows: measure while nobody \
                 else uses them",
                sizes[at]
            )));
        }
        let pairs = sizes.iter().zip(seen);
        Ok(pairs.map(|(rows, nanos)| Size::new(*rows, nanos)).collect())
    }
}

impl Calibrating {
    /// As people read it.
    pub(super) fn text(&self) -> String {
        let line = self.line;
        let columns = ["ROWS", "BATCHES", "MEDIAN", "LINE", "OFF"];
        let mut table = Table::new(columns.map(|column| (column, Side::Right)));
        for size in &self.sizes {
            let off = size.line_ns as f64 / (size.median_ns as f64).max(1.0) - 1.0;
            table.row([
                size.rows.to_string(),
                size.batches.to_string(),
                units::nanoseconds(size.median_ns),
                units::nanoseconds(size.line_ns),
                format!("{:+.1} %", off * 100.0),
            ]);
        }
        let table = table.render();
        format!(
            "{table}\ncost = {{ fixed_ns = {:.0}, row_ns = {:.0}, noise_permille = {} }}, {:.1} % off at most\n",
            line.fixed_ns,
            line.row_ns,
            line.noise_permille,
            line.worst_share * 100.0
        )
    }
}

/// Bodies with as many rows as a door takes; the others are left out with their sizes.
pub(super) fn fitting(sizes: Vec<u32>, bodies: Vec<Body>) -> (Vec<u32>, Vec<Body>) {
    let pairs = sizes.into_iter().zip(bodies);
    pairs
        .filter(|(_, body)| body.bytes.len() <= BODY_BYTES_DEFAULT)
        .unzip()
}

fn warning(line: Line, sizes: usize) -> Option<String> {
    if line.worst_share <= OFF_MAX {
        let nothing = format!("{} say nothing about a line", units::counted(sizes, "size"));
        return (sizes < 3).then_some(nothing);
    }
    let (rows, off) = (line.worst_rows, line.worst_share * 100.0);
    let why = match line.noise_permille {
        NOISE_MAX.. => {
            "Batches of one size differ much: measure on a machine that does nothing else"
        }
        _ => "Engines that fill up to round sizes have steps, which the simulator does not know",
    };
    Some(format!(
        "the cost is no line: at {rows} rows it is {off:.0} % off. {why}; trust it only near sizes \
         where it fits"
    ))
}

/// Batches of a size that differ by more than this from their median hide steps, if there are any.
const NOISE_MAX: u64 = 200;
/// Batches of a size that a median is worth anything of.
const ENOUGH: usize = 3;
/// A node tells its metrics within milliseconds.
const SCRAPE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_round_ones_and_those_behind_them() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(8), [1, 2, 3, 4, 5, 6, 8]);
        let many = sizes(100);
        for rows in [9, 12, 16, 17, 24, 33, 64, 65, 96, 100] {
            assert!(many.contains(&rows), "{rows} in {many:?}");
        }
        assert!(sizes(65_536).len() < 50);
    }

    #[test]
    fn a_poor_fit_is_said() {
        let steps = |rows: u32| Size::new(rows, vec![u64::from(rows.next_multiple_of(8)) * 1_000]);
        let line = Line::through(&sizes(32).into_iter().map(steps).collect::<Vec<_>>());
        let said = warning(line, 10).unwrap();
        let wanted = format!("the cost is no line: at {} rows", line.worst_rows);
        assert!(said.starts_with(&wanted), "{said}");
        let straight = |rows: u32| Size::new(rows, vec![5_000 + u64::from(rows) * 1_000]);
        let straight: Vec<Size> = [1, 2].map(straight).into();
        let line = Line::through(&straight);
        assert_eq!(
            warning(line, 2).unwrap(),
            "2 sizes say nothing about a line"
        );
        assert_eq!(warning(line, 3), None);
    }
}
