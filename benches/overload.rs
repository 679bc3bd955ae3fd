//! Twice the load that the engine carries, for a minute: one real node (a process, HTTP in front)
//! whose engine sleeps what the scenario says, and the same in invented time.
//!
//! Load is open: each request is sent when the scenario's process says so, over a connection of
//! its own if all are in use, with a budget of 200 ms to 1 s. Goodput counts answers within their
//! budget and is compared with what full batches carry; refusals are timed from the moment that
//! the request's bytes are handed to the kernel. The bars: goodput of 95 %, the 99th percentile of
//! what was let in within its budget, refusals under 1 ms, and as before within 10 s.

#[path = "request/answer.rs"]
mod answer;
#[path = "timing/node.rs"]
mod node;
#[path = "overload/offer.rs"]
mod offer;
mod provenance;
mod spread;
#[path = "timing/wire.rs"]
mod wire;

use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use paceline_sim::{Arrivals, Scenario, Traces, run};

use node::{NodeArguments, Process};
use offer::{End, Sample, Sender};
use provenance::SEED;
use spread::Spread;

/// Offers a real node twice what its engine carries.
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

/// When the load changes, in seconds from the first request.
struct Phases {
    peak_from: f64,
    peak_until: f64,
    end: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut scenario = Scenario::read(include_str!("overload/scenario.toml"), "scenario.toml")?;
    if arguments.node.run(&scenario)? {
        return Ok(());
    }
    let Arrivals::FlashCrowd {
        base_rate_per_s,
        peak_rate_per_s,
        mut at_ms,
        mut hold_ms,
        ..
    } = scenario.clients[0].workload.arrivals
    else {
        bail!("the scenario's arrivals are no flash crowd");
    };
    let mut end_ms = scenario.clients[0].workload.duration_ms;
    if arguments.quick || !arguments.bench {
        (at_ms, hold_ms, end_ms) = (1_000, 3_000, 7_000);
        scenario.clients[0].workload.duration_ms = 12_000;
        scenario.expect.answers_min = 1;
        scenario.expect.calm_answered_permille_min = 0;
        scenario.expect.calm_from_ms = 0;
    }
    provenance::print("overload: twice what the engine carries, on a real node");
    let seconds = |ms: u64| ms as f64 / 1e3;
    let phases = Phases {
        peak_from: seconds(at_ms),
        peak_until: seconds(at_ms + hold_ms),
        end: seconds(end_ms),
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let nodes = Process::cluster(folder.path(), &scenario)?;
    let door = nodes.first().context("no node")?.http;
    let clients = &scenario.clients[0];
    let budgets_us = (clients.budget_min_us, clients.budget_max_us);
    let peak = phases.peak_from..phases.peak_until;
    let rate = move |at_s: f64| {
        let is_peak = peak.contains(&at_s);
        if is_peak {
            peak_rate_per_s
        } else {
            base_rate_per_s
        }
    };
    let sender = Sender {
        budgets_us,
        seed: SEED,
        key: None,
        rate: Rc::new(rate),
    };
    let mut samples = offer::offer(door, vec![sender], phases.end)?;
    let samples = samples.pop().context("nobody has sent")?;
    print(&scenario, &phases, &samples)?;
    let simulated = run(&scenario, &Traces::default(), SEED);
    let simulated = simulated.map_err(|violation| anyhow::anyhow!("{violation}"))?;
    println!("\nin invented time, all three phases:\n{simulated}");
    Ok(())
}

fn print(scenario: &Scenario, phases: &Phases, samples: &[Sample]) -> anyhow::Result<()> {
    let carried = scenario.capacity_rows_per_s() as f64;
    let within = |from: f64, until: f64| {
        let of = move |sample: &&Sample| (from..until).contains(&sample.at_s);
        samples.iter().filter(of)
    };
    // The first seconds of the peak fill the queue.
    let peak = || within(phases.peak_from + 1.0, phases.peak_until);
    let time = phases.peak_until - phases.peak_from - 1.0;
    let took = |end: End| peak().filter(move |s| s.end == end).map(|s| s.took_us);
    let (answers, refusals) = (took(End::Answered).count(), took(End::Refused).count());
    let late = took(End::Late).count();
    ensure!(answers > 0 && refusals > 0, "no overload was made");
    println!("offered     {:.0} requests/s", peak().count() as f64 / time);
    let goodput = answers as f64 / time;
    let share = goodput / carried;
    println!(
        "goodput     {goodput:.0} answers/s, {share:.3} of what full batches carry ({carried})"
    );
    let spread = Spread::of(took(End::Answered));
    let (p50, p99) = (spread.median() / 1e3, spread.quantile(0.99) / 1e3);
    println!("let in      p50 {p50:.0} ms, p99 {p99:.0} ms; {late} were not answered in time");
    let spread = Spread::of(took(End::Refused));
    let (p50, p99) = (spread.median(), spread.quantile(0.99));
    println!("refused     {refusals}: p50 {p50:.0} µs, p99 {p99:.0} µs");
    let before = Spread::of(within(0.0, phases.peak_from).map(|s| s.took_us)).quantile(0.99);
    let mut second = phases.peak_until;
    while second + 1.0 <= phases.end {
        let calm: Vec<&Sample> = within(second, second + 1.0).collect();
        let is_calm = calm.iter().all(|sample| sample.end == End::Answered);
        let p99 = Spread::of(calm.iter().map(|sample| sample.took_us)).quantile(0.99);
        if is_calm && p99 < 1.5 * before {
            break;
        }
        second += 1.0;
    }
    let after = second - phases.peak_until;
    let before = before / 1e3;
    println!("recovery    after {after:.0} s p99 is that of before ({before:.0} ms), or half more");
    Ok(())
}
