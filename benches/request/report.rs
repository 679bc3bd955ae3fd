//! What was measured, as a table: figures of both servers, then how they compare.

use std::time::Duration;

use crate::load::Window;
use crate::spread::Spread;

/// What one server did in one window.
pub(crate) struct Sample {
    requests_per_s: f64,
    cpu_us: f64,
    /// p50, p95, p99.
    latency_us: [f64; 3],
    client_busy: f64,
}

/// All windows of one kind of request at one number of connections.
pub(crate) struct Cell {
    pub(crate) kind: &'static str,
    pub(crate) is_large: bool,
    pub(crate) connections: usize,
    /// The servers by name, the node first, each with a sample for each repetition.
    pub(crate) samples: Vec<(&'static str, Vec<Sample>)>,
}

/// How the node compares with another server, repetition by repetition.
struct Comparison {
    rate: Spread,
    /// In microseconds a request.
    cpu_more: Spread,
    cpu_ratio: Spread,
    tail: Spread,
}

impl Cell {
    /// With the server at this place among the others.
    fn beside(&self, place: usize) -> Comparison {
        let [(_, node), (_, other)] = [&self.samples[0], &self.samples[place]];
        let spread = |of: fn(&Sample, &Sample) -> f64| {
            Spread::of(node.iter().zip(other).map(|(node, other)| of(node, other)))
        };
        Comparison {
            rate: spread(|node, other| node.requests_per_s / other.requests_per_s),
            cpu_more: spread(|node, other| node.cpu_us - other.cpu_us),
            cpu_ratio: spread(|node, other| node.cpu_us / other.cpu_us),
            tail: spread(|node, other| node.latency_us[2] / other.latency_us[2]),
        }
    }
}

impl Sample {
    /// `cpu` is what the server took in this window.
    pub(crate) fn new(window: &Window, cpu: Duration) -> Self {
        let requests = window.requests as f64;
        Self {
            requests_per_s: requests / window.seconds,
            cpu_us: cpu.as_secs_f64() * 1e6 / requests,
            latency_us: [0.5, 0.95, 0.99].map(|share| window.latency_us.quantile(share)),
            client_busy: window.busy,
        }
    }
}

/// Lines of a table; the first holds the headings.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// What each server did.
    pub(crate) fn figures(cells: &[Cell]) -> Self {
        let headings = [
            "request",
            "c",
            "server",
            "requests/s",
            "CPU µs/request",
            "p50 µs",
            "p95 µs",
            "p99 µs",
            "client busy",
        ];
        let mut lines = vec![headings.map(str::to_owned).to_vec()];
        for cell in cells {
            for (name, samples) in &cell.samples {
                let column = |digits: usize, of: &dyn Fn(&Sample) -> f64| {
                    told(&Spread::of(samples.iter().map(of)), digits)
                };
                lines.push(vec![
                    cell.kind.to_owned(),
                    cell.connections.to_string(),
                    (*name).to_owned(),
                    column(0, &|sample| sample.requests_per_s),
                    column(1, &|sample| sample.cpu_us),
                    column(0, &|sample| sample.latency_us[0]),
                    column(0, &|sample| sample.latency_us[1]),
                    column(0, &|sample| sample.latency_us[2]),
                    column(2, &|sample| sample.client_busy),
                ]);
            }
        }
        Self(lines)
    }

    /// The node and the bare server.
    pub(crate) fn beside_echo(cells: &[Cell]) -> Self {
        let headings = [
            "request",
            "c",
            "requests/s, node ÷ echo",
            "bar",
            "CPU µs, node − echo",
            "bar",
            "p99, node ÷ echo",
        ];
        let mut lines = vec![headings.map(str::to_owned).to_vec()];
        for cell in cells {
            let Comparison {
                rate,
                cpu_more: cpu,
                tail,
                ..
            } = cell.beside(1);
            lines.push(vec![
                cell.kind.to_owned(),
                cell.connections.to_string(),
                told(&rate, 2),
                verdict(rate.median() >= RATE_BAR, &format!("≥ {RATE_BAR}")),
                told(&cpu, 1),
                verdict(cpu.median() <= CPU_BAR_US, &format!("≤ +{CPU_BAR_US}")),
                told(&tail, 2),
            ]);
        }
        Self(lines)
    }

    /// The node and Triton. A closed loop offers the faster one more: its p99 is no comparison at
    /// equal load.
    pub(crate) fn beside_triton(cells: &[Cell]) -> Self {
        let headings = [
            "request",
            "c",
            "requests/s, node ÷ Triton",
            "bar",
            "CPU, node ÷ Triton",
            "bar",
            "p99, node ÷ Triton",
        ];
        let mut lines = vec![headings.map(str::to_owned).to_vec()];
        for cell in cells {
            let Comparison {
                rate,
                cpu_ratio: cpu,
                tail,
                ..
            } = cell.beside(2);
            let (rate_bar, cpu_bar) = match (cell.is_large, cell.kind.starts_with("json")) {
                (false, _) => (2.0, Some(0.5)),
                // Parsing is what is compared.
                (true, true) => (1.3, Some(0.2)),
                (true, false) => (1.3, None),
            };
            lines.push(vec![
                cell.kind.to_owned(),
                cell.connections.to_string(),
                told(&rate, 2),
                verdict(rate.median() >= rate_bar, &format!("≥ {rate_bar}")),
                told(&cpu, 2),
                cpu_bar.map_or_else(String::new, |bar| {
                    verdict(cpu.median() <= bar, &format!("≤ {bar}"))
                }),
                told(&tail, 2),
            ]);
        }
        Self(lines)
    }

    /// Columns for a terminal.
    pub(crate) fn print(&self) {
        let columns = self.0.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.0.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &self.0 {
            let cells = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        println!();
    }

    /// The same as Markdown.
    pub(crate) fn print_markdown(&self) {
        for (number, line) in self.0.iter().enumerate() {
            println!("| {} |", line.join(" | "));
            if number == 0 {
                println!("|{}", "---|".repeat(line.len()));
            }
        }
        println!();
    }
}

/// The median, with the smallest and the largest behind it.
fn told(spread: &Spread, digits: usize) -> String {
    let (median, low, high) = (spread.median(), spread.quantile(0.0), spread.quantile(1.0));
    format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
}

fn verdict(holds: bool, bar: &str) -> String {
    let word = if holds { "holds" } else { "MISSED" };
    format!("{bar}: {word}")
}

/// Requests per second that a node reaches of what a bare server does with the same parsing.
const RATE_BAR: f64 = 0.6;
/// What being a node may cost beyond it, in microseconds of CPU time for each request.
const CPU_BAR_US: f64 = 8.0;
