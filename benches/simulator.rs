//! How much a core gets through, every invariant being checked: on ten nodes without faults, with
//! those of the scenario `node-kill` (the bar is 200,000 requests a second), and on 10, 100 and
//! 1,000 nodes with ten replicas each.
//!
//! `--quick` leaves out the thousand; `--nodes N` runs one size alone, once.

#[path = "../sim/tests/large/cluster.rs"]
mod cluster;
mod provenance;
#[path = "simulator/scaling.rs"]
mod scaling;
mod spread;
#[path = "simulator/stopwatch.rs"]
mod stopwatch;

use paceline_sim::{Arrivals, Expect, Scenario, Traces, run, with_faults};
use provenance::SEED;
use spread::Spread;
use stopwatch::Stopwatch;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "--nodes") {
        return scaling::run_one(&arguments[position + 1..]);
    }
    provenance::print("simulator: requests a second, one core");
    let is_quick = arguments
        .iter()
        .any(|argument| argument == "--quick" || argument == "--test");
    let (runs, duration_ms) = if is_quick { (3, 2_000) } else { (9, 10_000) };
    measure(
        "ten nodes, 100,000 requests/s",
        &ten_nodes(duration_ms),
        runs,
    );
    let faults = with_faults(&named("node-kill"), SEED);
    measure("node-kill, faults by seed", &faults, runs);
    scaling::measure(is_quick);
}

/// Ten nodes that share a load of two fifths of what they carry.
fn ten_nodes(duration_ms: u64) -> Scenario {
    let mut scenario = named("steady");
    scenario.cluster.groups[0].count = 10;
    scenario.expect = Expect::default();
    let workload = &mut scenario.clients[0].workload;
    workload.arrivals = Arrivals::Poisson {
        rate_per_s: 100_000,
    };
    workload.duration_ms = duration_ms;
    scenario
}

fn named(name: &str) -> Scenario {
    Scenario::named(name).expect("it comes along")
}

fn measure(what: &str, scenario: &Scenario, runs: u64) {
    let traces = Traces::default();
    let samples = (0..runs).map(|number| {
        let stopwatch = Stopwatch::start();
        let report = run(scenario, &traces, SEED + number);
        let report = report.unwrap_or_else(|violation| panic!("{violation}"));
        let (passed, requests) = (stopwatch.passed(), report.requests as f64);
        (requests / passed.wall, requests / passed.on_core)
    });
    let (wall, on_core): (Vec<f64>, Vec<f64>) = samples.unzip();
    println!("{what}, {runs} runs:");
    for (which, samples) in [("wall time", wall), ("a core", on_core)] {
        let spread = Spread::of(samples);
        println!(
            "  a second of {which:<9}: median {:.0} requests (slowest {:.0}, fastest {:.0}), {:.2} × the bar",
            spread.median(),
            spread.quantile(0.0),
            spread.quantile(1.0),
            spread.median() / BAR
        );
    }
}

/// Requests a second on one core that a simulator of this kind should reach.
const BAR: f64 = 200_000.0;
