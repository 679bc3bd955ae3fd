//! The simulator beside what it simulates: one scenario in invented time, and on three real nodes
//! (processes, QUIC between them, HTTP in front) whose engine sleeps what the scenario says.
//!
//! Load is open: requests are sent when the scenario's Poisson process says, whether or not others
//! have been answered, each to a node drawn at random. A real request is measured from the moment
//! that its bytes are handed to the kernel; the simulated one from its arrival at the node, so what
//! HTTP and this machine's scheduler take is what the two differ by. Runs of both alternate; the
//! bar is a median of p50 within 15 %, the rest is printed side by side.

#[path = "request/answer.rs"]
mod answer;
#[path = "timing/node.rs"]
mod node;
#[path = "timing/offer.rs"]
mod offer;
mod provenance;
mod spread;
#[path = "timing/wire.rs"]
mod wire;

use std::net::SocketAddr;

use anyhow::ensure;
use clap::Parser;
use paceline_sim::{Scenario, Traces, run};

use node::{NodeArguments, Process};
use offer::offer;
use provenance::SEED;
use spread::Spread;

/// Compares the simulator's times with those of a real cluster.
#[derive(Debug, Parser)]
struct Arguments {
    /// Few and short runs: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Runs of each.
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u64,
    #[command(flatten)]
    node: NodeArguments,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Times of one run, in microseconds: p50, p95, p99 and the longest.
type Times = [f64; 4];

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    let mut scenario = Scenario::read(include_str!("timing/scenario.toml"), "scenario.toml")?;
    if arguments.node.run(&scenario)? {
        return Ok(());
    }
    if arguments.quick || !arguments.bench {
        arguments.runs = 2;
        scenario.clients[0].workload.duration_ms = 1_000;
    }
    ensure!(arguments.runs > 0, "--runs 0 measures nothing");
    provenance::print("timing: a scenario in invented time, and on three real nodes");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let nodes = Process::cluster(folder.path(), &scenario)?;
    let doors: Vec<SocketAddr> = nodes.iter().map(|node| node.http).collect();
    let (mut real, mut simulated) = (Vec::new(), Vec::new());
    // The first run finds cold caches and an engine whose cost nobody has learnt.
    measure(&scenario, &doors, SEED)?;
    for number in 1..=arguments.runs {
        real.push(measure(&scenario, &doors, SEED + number)?);
        simulated.push(simulate(&scenario, SEED + number)?);
    }
    print(&real, &simulated);
    Ok(())
}

/// Runs the scenario in invented time.
fn simulate(scenario: &Scenario, seed: u64) -> anyhow::Result<Times> {
    let report = run(scenario, &Traces::default(), seed);
    let report = report.map_err(|violation| anyhow::anyhow!("{violation}"))?;
    ensure!(
        report.outcomes.answered == report.requests,
        "not every simulated request was answered"
    );
    let latency = report.latency_us;
    Ok([latency.p50, latency.p95, latency.p99, latency.max].map(|micros| micros as f64))
}

/// Runs the scenario's load on real nodes.
fn measure(scenario: &Scenario, doors: &[SocketAddr], seed: u64) -> anyhow::Result<Times> {
    let samples = offer(scenario, doors, (seed, SENDERS))?;
    ensure!(samples.len() > 100, "too few requests to say anything");
    let spread = Spread::of(samples.into_iter().map(|(_, micros)| micros));
    Ok([0.5, 0.95, 0.99, 1.0].map(|share| spread.quantile(share)))
}

fn print(real: &[Times], simulated: &[Times]) {
    println!(
        "{} runs of each, alternating; µs, median (least–most)\n",
        real.len()
    );
    println!(
        "{:<8}{:>26}{:>26}{:>12}",
        "", "three real nodes", "simulated", "ratio"
    );
    for (place, name) in ["p50", "p95", "p99", "longest"].iter().enumerate() {
        let of = |runs: &[Times]| Spread::of(runs.iter().map(|times| times[place]));
        let (real, simulated) = (of(real), of(simulated));
        let text = |spread: &Spread| {
            let (least, most) = (spread.quantile(0.0), spread.quantile(1.0));
            format!("{:.0} ({least:.0}–{most:.0})", spread.median())
        };
        let ratio = simulated.median() / real.median();
        let (real, simulated) = (text(&real), text(&simulated));
        println!("{name:<8}{real:>26}{simulated:>26}{ratio:>12.3}");
    }
}

/// A request takes some 3 ms and each sender sends one in 210, so 1 of 70 waits for the one before.
const SENDERS: u64 = 96;
