//! A few hundred nodes come up, deploy, serve and lose one of them, and all that always holds
//! does; more than a thousand are refused. `cargo bench --bench simulator` runs the thousand.

#[path = "large/cluster.rs"]
mod cluster;

use cluster::Size;
use paceline_sim::{Traces, run};

const SIZE: Size = Size {
    nodes: 300,
    models: 6,
    replicas: 100,
};

#[test]
fn three_hundred_nodes_come_up_serve_and_lose_one() {
    let report = run(&SIZE.cluster(12_000, 3_000), &Traces::default(), 1);
    let report = report.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.outcomes.answered, report.requests, "{report}");
    assert!(report.failed_over > 0, "what the dead node had: {report}");
    // Nodes, two entries for a version, its replicas, the traffic; the dead node is marked down,
    // its two replicas are assigned anew and taken away, and it is marked up.
    let replaced = u64::from(SIZE.all_replicas() / u32::from(SIZE.nodes));
    let up = u64::from(SIZE.nodes) + u64::from(SIZE.models) * 3 + u64::from(SIZE.all_replicas());
    assert!(report.epoch >= up + 1 + replaced, "{report}");
}

#[test]
fn a_thousand_nodes_are_the_most() {
    let nodes = |nodes| Size { nodes, ..SIZE }.cluster(1_000, 1_000);
    assert_eq!(nodes(1_000).problems(), []);
    let problems = nodes(1_001).problems();
    let says: Vec<(&str, &str)> = problems
        .iter()
        .map(|problem| (problem.value.as_str(), problem.allowed.as_str()))
        .collect();
    assert_eq!(says, [("1001", "1 to 1000"); 2], "{problems:?}");
}
