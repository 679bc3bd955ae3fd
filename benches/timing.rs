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
mod provenance;
mod spread;
#[path = "timing/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use paceline_core::Random;
use paceline_sim::{Arrivals, Scenario, Traces, run};

use node::{NodeArguments, Process};
use provenance::SEED;
use spread::Spread;
use wire::Connection;

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
    offer(&scenario, &doors, SEED)?;
    for number in 1..=arguments.runs {
        real.push(offer(&scenario, &doors, SEED + number)?);
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

/// Offers the scenario's load to real nodes: as many senders as keep one that waits for its answer
/// from delaying the next arrival, each with a part of the rate. Poisson processes add up.
fn offer(scenario: &Scenario, doors: &[SocketAddr], seed: u64) -> anyhow::Result<Times> {
    let workload = &scenario.clients[0].workload;
    let Arrivals::Poisson { rate_per_s } = workload.arrivals else {
        anyhow::bail!("the scenario's arrivals are no Poisson process");
    };
    let gap_s = SENDERS as f64 / rate_per_s as f64;
    let time = Duration::from_millis(workload.duration_ms);
    let samples: anyhow::Result<Vec<Vec<f64>>> = std::thread::scope(|scope| {
        let senders = (0..SENDERS).map(|number| {
            let chance = Random::stream(seed, &format!("sender {number}"));
            scope.spawn(move || send(doors, chance, gap_s, time))
        });
        let senders: Vec<_> = senders.collect();
        let sent = senders.into_iter().map(|sender| sender.join());
        sent.map(|sent| sent.expect("a sender returns its errors"))
            .collect()
    });
    let samples: Vec<f64> = samples?.into_iter().flatten().collect();
    ensure!(samples.len() > 100, "too few requests to say anything");
    let spread = Spread::of(samples);
    Ok([0.5, 0.95, 0.99, 1.0].map(|share| spread.quantile(share)))
}

/// Sends requests at random times until the time is over; microseconds of each.
fn send(
    doors: &[SocketAddr],
    mut chance: Random,
    gap_s: f64,
    time: Duration,
) -> anyhow::Result<Vec<f64>> {
    let opened = doors.iter().map(|door| Connection::open(*door));
    let mut connections: Vec<Connection> = opened.collect::<anyhow::Result<_>>()?;
    let body = r#"{"inputs":[{"name":"INPUT0","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    let head = format!(
        "POST /v2/models/table/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body.as_bytes()].concat();
    let (began, mut at_s, mut samples) = (Instant::now(), 0.0, Vec::new());
    loop {
        // Inverse transform of the exponential distribution; 0 itself has no logarithm.
        at_s -= gap_s * (1.0 - chance.unit()).ln();
        let at = Duration::from_secs_f64(at_s);
        if at >= time {
            return Ok(samples);
        }
        std::thread::sleep((began + at).saturating_duration_since(Instant::now()));
        let door = chance.below(connections.len() as u64) as usize;
        let sent = Instant::now();
        let answer = connections[door].ask(&request).context("a request")?;
        samples.push(sent.elapsed().as_secs_f64() * 1e6);
        ensure!(!answer.is_empty(), "an answer without a body");
    }
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
