//! How many simulated requests a core gets through, every invariant being checked: on ten nodes
//! without faults, and with those of the scenario `node-kill`. The bar is 200,000 a second.

mod provenance;
mod spread;

use std::time::Instant;

use paceline_sim::{Arrivals, Expect, Scenario, Traces, run, with_faults};
use provenance::SEED;
use spread::Spread;

fn main() {
    provenance::print("simulator: requests a second of wall time, one core");
    let is_quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let (runs, duration_ms) = if is_quick { (3, 2_000) } else { (9, 10_000) };
    measure(
        "ten nodes, 100,000 requests/s",
        &ten_nodes(duration_ms),
        runs,
    );
    let faults = with_faults(&named("node-kill"), SEED);
    measure("node-kill, faults by seed", &faults, runs);
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
        let began = Instant::now();
        let report = run(scenario, &traces, SEED + number);
        let report = report.unwrap_or_else(|violation| panic!("{violation}"));
        report.requests as f64 / began.elapsed().as_secs_f64()
    });
    let spread = Spread::of(samples);
    println!(
        "{what}: median {:.0} requests/s (slowest {:.0}, fastest {:.0}, {runs} runs), {:.2} × the bar",
        spread.median(),
        spread.quantile(0.0),
        spread.quantile(1.0),
        spread.median() / BAR
    );
}

/// Requests a second on one core that a simulator of this kind should reach.
const BAR: f64 = 200_000.0;
