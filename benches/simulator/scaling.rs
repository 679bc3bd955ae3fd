//! What a larger cluster costs: the same traffic on 10, 100 and 1,000 nodes, each run in a process
//! of its own, whose peak of memory is its own too.
//!
//! Each size runs twice, with clients for a short and for a long time: the short run is nearly all
//! of it what it takes to bring the cluster up and to lose a node.

use std::process::Command;

use paceline_sim::{Traces, run};

use crate::cluster::Size;
use crate::provenance::SEED;
use crate::stopwatch::Stopwatch;

/// Figures of one run, in the order in which they are printed.
struct Figures {
    wall: f64,
    /// Seconds on a core.
    on_core: f64,
    events: f64,
    requests: f64,
    peak_mib: f64,
}

/// Prints a line for each size.
pub(crate) fn measure(is_quick: bool) {
    let sizes = if is_quick { &NODES[..2] } else { &NODES[..] };
    println!(
        "\nten replicas a node, {RATE_PER_S} requests/s in all, one node is killed; clients send"
    );
    println!("for {SHORT_MS} and for {LONG_MS} ms, and rates are those of the longer run:\n");
    println!(
        "nodes replicas |    events  on a core ns/event |    events  on a core ns/event | wall time events/s requests/s     peak"
    );
    for nodes in sizes {
        let (short, long) = (
            in_a_process(*nodes, SHORT_MS),
            in_a_process(*nodes, LONG_MS),
        );
        println!(
            "{nodes:>5} {:>8} | {} | {} | {:>7.2} s {:>8.0} {:>10.0} {:>4.0} MiB",
            size(*nodes).all_replicas(),
            short.cost(),
            long.cost(),
            long.wall,
            long.events / long.wall,
            long.requests / long.wall,
            long.peak_mib,
        );
    }
}

impl Figures {
    fn cost(&self) -> String {
        let nanos_per_event = self.on_core * 1e9 / self.events;
        format!(
            "{:>9.0} {:>8.2} s {nanos_per_event:>8.0}",
            self.events, self.on_core
        )
    }
}

/// Runs one size, and prints its figures: `nodes`, and for how long clients send.
pub(crate) fn run_one(arguments: &[String]) {
    let number = |position: usize| arguments.get(position)?.parse::<u64>().ok();
    let nodes = number(0).unwrap_or(1_000) as u16;
    let scenario = size(nodes).cluster(RATE_PER_S, number(1).unwrap_or(LONG_MS));
    let stopwatch = Stopwatch::start();
    let report = run(&scenario, &Traces::default(), SEED);
    let report = report.unwrap_or_else(|violation| panic!("{violation}"));
    let passed = stopwatch.passed();
    println!(
        "{nodes} nodes: {:.3} s, {:.3} s on a core, {} events, {} requests, {} failed over, {:.1} MiB",
        passed.wall,
        passed.on_core,
        report.events,
        report.requests,
        report.failed_over,
        peak_mib()
    );
}

fn in_a_process(nodes: u16, duration_ms: u64) -> Figures {
    let program = std::env::current_exe().expect("this program is somewhere");
    let (nodes, duration_ms) = (nodes.to_string(), duration_ms.to_string());
    let output = Command::new(program)
        .args(["--nodes", &nodes, &duration_ms])
        .output()
        .expect("it runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [_, wall, on_core, events, requests, _, peak_mib] = numbers[..] else {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    Figures {
        wall,
        on_core,
        events,
        requests,
        peak_mib,
    }
}

/// Models have as many replicas as ten nodes can hold, or a hundred.
fn size(nodes: u16) -> Size {
    let replicas = u32::from(nodes).clamp(1, 100);
    Size {
        nodes,
        models: u32::from(nodes) * 10 / replicas,
        replicas,
    }
}

/// The most memory that this process has had at a time; 0 where that is not said.
fn peak_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1_024.0
}

const NODES: [u16; 3] = [10, 100, 1_000];
/// What ten nodes carry, in batches that are nearly all of one request.
const RATE_PER_S: u64 = 40_000;
const SHORT_MS: u64 = 3_000;
const LONG_MS: u64 = 13_000;
