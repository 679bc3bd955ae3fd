//! One of six replicas at a tenth of its speed, on six real nodes: processes with QUIC between them and
//! HTTP in front, whose engine sleeps its cost.
//!
//! Load is open: requests are sent when a Poisson process says, each to a node drawn at random. After
//! a quarter of the time one node's engine becomes ten times slower, and after three quarters it is as
//! fast as before. The bar is a p99 of half as long again as before at the most, from two seconds
//! after that.

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

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use paceline_sim::Scenario;

use node::{NodeArguments, Process, SLOW};
use offer::{Sample, offer};
use provenance::SEED;
use spread::Spread;

/// Slows one of six replicas down, under load.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds instead of a minute: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    node: NodeArguments,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut scenario = Scenario::read(include_str!("slow/scenario.toml"), "scenario.toml")?;
    if arguments.node.run(&scenario)? {
        return Ok(());
    }
    if arguments.quick || !arguments.bench {
        scenario.clients[0].workload.duration_ms = 12_000;
    }
    provenance::print("slow: one of six replicas at a tenth of its speed");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut nodes = Process::cluster(folder.path(), &scenario)?;
    let doors: Vec<SocketAddr> = nodes.iter().map(|node| node.http).collect();
    let time = Duration::from_millis(scenario.clients[0].workload.duration_ms);
    // Caches are cold, and nobody has learnt what the engine costs.
    scenario.clients[0].workload.duration_ms = 1_000;
    offer(&scenario, &doors, (SEED, SENDERS))?;
    scenario.clients[0].workload.duration_ms = time.as_millis() as u64;
    let (slow_at, fast_at) = (time / 4, time * 3 / 4);
    let samples = std::thread::scope(|scope| {
        let began = Instant::now();
        let load = scope.spawn(|| offer(&scenario, &doors, (SEED + 1, SENDERS)));
        let node = nodes.last_mut().context("there are six")?;
        for (at, is_slow) in [(slow_at, true), (fast_at, false)] {
            std::thread::sleep((began + at).saturating_duration_since(Instant::now()));
            slow(node, is_slow)?;
        }
        load.join().expect("it returns its errors")
    })?;
    let second = Duration::from_secs(1);
    let before = show("before", &samples, (Duration::ZERO, slow_at));
    show(
        "in the first second of being slow",
        &samples,
        (slow_at, slow_at + second),
    );
    show(
        "in the second one",
        &samples,
        (slow_at + second, slow_at + second * 2),
    );
    let while_slow = show("from then on", &samples, (slow_at + second * 2, fast_at));
    show(
        "fast again, from 2 s on",
        &samples,
        (fast_at + second * 2, time),
    );
    println!(
        "\np99 while it is slow, by that before: {:.2}",
        while_slow / before
    );
    Ok(())
}

/// Prints the times of requests that were sent in a span; returns their p99.
fn show(what: &str, samples: &[Sample], (from, until): (Duration, Duration)) -> f64 {
    let within = |(at, _): &&Sample| *at >= from && *at < until;
    let times = samples
        .iter()
        .filter(within)
        .map(|(_, micros)| micros / 1e3);
    let count = times.clone().count();
    let spread = Spread::of(times);
    let [p99, longest] = [0.99, 1.0].map(|share| spread.quantile(share));
    let p50 = spread.median();
    println!(
        "{what:<36} {count:>6} requests, ms: p50 {p50:.1}, p99 {p99:.1}, longest {longest:.1}"
    );
    p99
}

/// Makes a node's engine ten times slower, or as fast as it was.
fn slow(node: &mut Process, is_slow: bool) -> anyhow::Result<()> {
    let keeper = node.keeper.as_mut().context("its input is piped")?;
    let byte = if is_slow { SLOW } else { b'f' };
    Ok(keeper.write_all(&[byte])?)
}

/// A request takes some 6 ms and each sender sends one in 145, so 1 of 24 waits for the one before.
const SENDERS: u64 = 64;
