//! Our way of batching and those of other servers, under the same load in invented time.
//!
//! Each line is one run of the simulator: the same nodes, router, network, requests and seed, and
//! another [`Policy`]. Loads are shares of what full batches carry. Beyond that, budgets of 200 ms
//! to 1 s decide what an answer is worth; below it, how long answers take.

mod provenance;

use anyhow::Context;
use paceline_core::batcher::Policy;
use paceline_sim::{Arrivals, Expect, Report, Scenario, Sizes, Traces, run};

use provenance::SEED;

/// The policies, by whom they are known.
const POLICIES: [(&str, Policy, u32); 5] = [
    ("Paceline", Policy::Deadlines, 0),
    ("Triton, no delay", Policy::Arrival, 0),
    (
        "TF Serving, 10 ms",
        Policy::Timeout { nanos: 10_000_000 },
        0,
    ),
    ("BentoML, 100 ms", Policy::Latency { nanos: 100_000_000 }, 0),
    ("TEI, 1,024 tokens", Policy::Arrival, 1_024),
];
/// Shares of what full batches carry, in per cent.
const LOADS: [u64; 5] = [30, 60, 90, 150, 200];

fn main() -> anyhow::Result<()> {
    provenance::print("policies: our batching beside that of others, in invented time");
    for load in LOADS {
        let mut scenario = Scenario::named("overload")?;
        // Slow enough that what a node lets in may be more than it finishes within a budget.
        let cost = &mut scenario.models[0].versions[0].cost;
        (cost.fixed_ns, cost.row_ns) = (30 * cost.fixed_ns, 30 * cost.row_ns);
        let carried = scenario.capacity_rows_per_s();
        let clients = &mut scenario.clients[0];
        clients.budget_min_us = 200_000;
        clients.budget_max_us = 1_000_000;
        clients.workload.duration_ms = 10_000;
        clients.shapes = 1;
        clients.workload.rows = Sizes::Fixed { size: 1 };
        // A full batch has 1,024 on average.
        clients.workload.tokens = Sizes::Uniform { least: 1, most: 63 };
        clients.workload.arrivals = Arrivals::Poisson {
            rate_per_s: carried * load / 100,
        };
        println!("\n{load} % of what full batches carry ({carried} rows/s)");
        compare(&scenario, |report| {
            let answered = report.outcomes.answered as f64 / report.requests as f64;
            let latency = report.latency_us;
            let goodput = report.goodput_per_s as f64 / carried as f64;
            let (p50, p99) = (latency.p50, latency.p99);
            format!(
                "answered {:>5.1} %, goodput {goodput:.3}, p50 {p50:>7} µs, p99 {p99:>7} µs, \
                 utilisation {:>3} %",
                100.0 * answered,
                report.utilisation_permille / 10
            )
        })?;
    }
    println!("\na critical class beside twice what the node carries of a sheddable one");
    compare(&Scenario::named("criticality")?, |report| share(report, 0))?;
    println!("\na tenant within its share beside one at ten times its own");
    compare(&Scenario::named("noisy-tenant")?, |report| share(report, 1))?;
    Ok(())
}

/// Runs a scenario with each policy; nothing is expected of it.
fn compare(scenario: &Scenario, line: impl Fn(&Report) -> String) -> anyhow::Result<()> {
    for (name, policy, tokens_max) in POLICIES {
        let mut scenario = scenario.clone();
        scenario.expect = Expect::default();
        for clients in &mut scenario.clients {
            (clients.answered_permille_min, clients.p99_us_max) = (0, 0);
        }
        for version in scenario.models.iter_mut().flat_map(|m| &mut m.versions) {
            (version.policy, version.tokens_max) = (policy, tokens_max);
        }
        let report = run(&scenario, &Traces::default(), SEED);
        let report = report.map_err(|violation| anyhow::anyhow!("{name}: {violation}"))?;
        println!("  {name:<17} {}", line(&report));
    }
    Ok(())
}

fn share(report: &Report, clients: usize) -> String {
    let of = report.clients.get(clients).context("no such clients");
    of.map_or_else(
        |error| error.to_string(),
        |of| {
            let answered = 100.0 * of.answered as f64 / of.requests as f64;
            let p99 = of.latency_us.p99;
            format!("answered {answered:>5.1} % of those, p99 {p99:>7} µs")
        },
    )
}
