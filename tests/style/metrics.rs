//! Metric names have one home: a dashboard outlives the code, and one file shows all it relies on.

use crate::tree::Source;

/// The file that holds every metric name.
const HOME: &str = "node/src/telemetry/metrics.rs";

/// The file of the command line that reads some of them: a process test holds that they are there.
const READER: &str = "client/src/cli/bench/calibrate/engine.rs";

/// Where a string that begins like a metric name stands outside that file. Tests and benchmarks
/// may name what they read; `paceline_node` and the like name log targets, not metrics.
pub(crate) fn names(source: &Source, crates: &[String]) -> Vec<String> {
    let is_free = source.path == HOME || source.path == READER;
    if is_free || source.path.starts_with("benches/") {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for literal in source
        .literals
        .iter()
        .filter(|literal| !source.in_tests(literal.at))
    {
        let shape = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let name = literal.text.split(|c| !shape(c)).next().unwrap_or_default();
        let is_metric = name
            .strip_prefix("paceline_")
            .is_some_and(|rest| !rest.is_empty());
        if is_metric && !crates.iter().any(|known| known == name) {
            let message = format!("metric `{name}` belongs in {HOME}");
            violations.push(source.violation(literal.at, &message));
        }
    }
    violations
}

#[test]
fn a_metric_away_from_home_is_found() {
    let crates = ["paceline_node".to_owned()];
    let text = "//! A.\n// \"paceline_a\"\nlet b = \"paceline_requests_total\";\n\
                let c = \"paceline_node::mesh=debug\";\nlet d = \"paceline_\";\n\
                let e = \"paceline_up{node=\\\"1\\\"}\";\n#[cfg(test)]\nmod tests {\n\"paceline_f\"\n}\n";
    let found = names(&Source::new("node/src/gateway.rs", text), &crates);
    assert_eq!(
        found,
        [
            "node/src/gateway.rs:3: metric `paceline_requests_total` belongs in node/src/telemetry/metrics.rs",
            "node/src/gateway.rs:6: metric `paceline_up` belongs in node/src/telemetry/metrics.rs",
        ]
    );
    for home in [
        HOME,
        READER,
        "benches/request.rs",
        "tests/process/metrics.rs",
    ] {
        assert!(
            names(&Source::new(home, text), &crates).is_empty(),
            "{home}"
        );
    }
}
