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

/// All windows of one kind of request at one number of connections; both servers have a sample
/// for each repetition.
pub(crate) struct Cell {
    pub(crate) kind: &'static str,
    pub(crate) connections: usize,
    pub(crate) node: Vec<Sample>,
    pub(crate) echo: Vec<Sample>,
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
            for (name, samples) in [("node", &cell.node), ("echo", &cell.echo)] {
                let column = |digits: usize, of: &dyn Fn(&Sample) -> f64| {
                    told(&Spread::of(samples.iter().map(of)), digits)
                };
                lines.push(vec![
                    cell.kind.to_owned(),
                    cell.connections.to_string(),
                    name.to_owned(),
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

    /// How the node compares with the bare server, repetition by repetition.
    pub(crate) fn comparison(cells: &[Cell]) -> Self {
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
            let pairs = || cell.node.iter().zip(&cell.echo);
            let rate = Spread::of(pairs().map(|(n, e)| n.requests_per_s / e.requests_per_s));
            let cpu = Spread::of(pairs().map(|(n, e)| n.cpu_us - e.cpu_us));
            let tail = Spread::of(pairs().map(|(n, e)| n.latency_us[2] / e.latency_us[2]));
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
