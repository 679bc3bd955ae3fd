//! Metrics: names by the rule, and counts that are exactly what was done.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::http::Request;
use crate::node::{Node, directory};
use crate::tensors::{HeldOut, digits, identity};

/// One line of what Prometheus reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads OpenMetrics text.
pub(crate) fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(sample).collect()
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a series and its value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (series, ""),
    };
    let label = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("a label and its value");
        (name.to_owned(), value.trim_matches('"').to_owned())
    };
    let labels = labels
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(label)
        .collect();
    Sample {
        name: name.to_owned(),
        labels,
        value: value
            .parse()
            .unwrap_or_else(|error| panic!("{line}: {error}")),
    }
}

/// The value of the series with this name and these labels among its own.
pub(crate) fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&Sample| {
        labels
            .iter()
            .all(|(key, value)| sample.label(key) == Some(value))
    };
    let mut found = samples
        .iter()
        .filter(|sample| sample.name == name)
        .filter(has);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {name} with {labels:?}"));
    assert_eq!(
        found.next(),
        None,
        "{labels:?} do not tell the series of {name} apart"
    );
    first.value
}

#[test]
fn names_and_labels_follow_the_rule() {
    let node = Node::shared();
    node.get("/v2/models/digits").ok();
    let answer = crate::http::Connection::open(node.metrics).ask(&Request::get("/metrics"));
    let content_type = answer.header("content-type").unwrap();
    assert!(
        content_type.starts_with("application/openmetrics-text"),
        "{content_type}"
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    let components = [
        "build", "gateway", "router", "shadow", "tenant", "device", "registry", "raft", "node",
    ];
    let closed = BTreeSet::from([
        "model",
        "version",
        "protocol",
        "code",
        "stage",
        "reason",
        "le",
        "end",
        "agreement",
        "tenant",
        "outcome",
    ]);
    let samples = samples(text);
    assert!(samples.len() > 100, "{}", samples.len());
    for sample in &samples {
        let rest = sample
            .name
            .strip_prefix("paceline_")
            .unwrap_or_else(|| panic!("{sample:?}"));
        let is_snake = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(rest.chars().all(is_snake), "{sample:?}");
        assert!(
            components.iter().any(|known| rest.starts_with(known)),
            "{sample:?}"
        );
        for (name, _) in &sample.labels {
            assert!(closed.contains(name.as_str()), "{sample:?}");
        }
    }
    let families: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    assert!(families.len() >= 18, "{families:?}");
    for family in families {
        let (name, kind) = family.split_once(' ').unwrap();
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} has no help"
        );
        if kind == "counter" {
            assert!(text.contains(&format!("\n{name}_total")), "{name}");
        }
        if kind == "histogram" && name.contains("duration") {
            assert!(name.ends_with("_seconds"), "{name}");
        }
    }
}

/// 37 requests of one row, 3 of eight, one in shards, 5 refused: nothing else reaches this node.
#[test]
fn counts_are_exact_after_known_traffic() {
    let home = directory();
    let node = Node::demo(home.path());
    let pixels = HeldOut::of("digits").values;
    let mut connection = node.connect();
    let mut send = |rows: &[Vec<f32>]| connection.ask(&digits(rows).request()).ok();
    (0..37).for_each(|row| drop(send(&pixels[row..=row])));
    (0..3).for_each(|_| drop(send(&pixels[..8])));
    drop(send(&[&pixels[..450], &pixels[..150]].concat()));
    let narrow = identity(&[vec![1.0]]).json().to_string();
    for _ in 0..5 {
        assert_eq!(
            node.post("/v2/models/digits/infer", narrow.as_str()).status,
            400
        );
    }
    let samples = samples(&node.scrape());
    let of = |name: &str, more: &[(&str, &str)]| {
        let labels = [&[("model", "digits"), ("version", "1")], more].concat();
        value(&samples, name, &labels)
    };
    let requests = "paceline_gateway_requests_total";
    assert_eq!(of(requests, &[("code", "OK"), ("protocol", "http")]), 41.0);
    assert_eq!(
        of(requests, &[("code", "INPUT_UNKNOWN"), ("protocol", "http")]),
        5.0
    );
    assert_eq!(of("paceline_gateway_rows_total", &[]), 37.0 + 24.0 + 600.0);
    let duration = "paceline_gateway_request_duration_seconds";
    assert_eq!(of(&format!("{duration}_count"), &[]), 41.0);
    assert_eq!(of(&format!("{duration}_bucket"), &[("le", "+Inf")]), 41.0);
    assert!(of(&format!("{duration}_sum"), &[]) > 0.0);
    let stage = "paceline_gateway_stage_duration_seconds_count";
    assert_eq!(of(stage, &[("stage", "parse")]), 41.0);
    assert_eq!(of(stage, &[("stage", "render")]), 41.0);
    // 600 rows are three shards of at most 256.
    assert_eq!(of(stage, &[("stage", "queue")]), 43.0);
    assert_eq!(of(stage, &[("stage", "run")]), 43.0);
    let identity = [("model", "identity"), ("code", "OK"), ("protocol", "http")];
    assert_eq!(
        value(&samples, requests, &identity),
        0.0,
        "visible from its first day"
    );
    let batches = value(&samples, "paceline_device_batches_total", &[]);
    assert!((41.0..=43.0).contains(&batches), "{batches}");
    assert_eq!(
        value(&samples, "paceline_device_batch_rows_count", &[]),
        batches
    );
    assert_eq!(
        value(&samples, "paceline_device_batch_rows_sum", &[]),
        661.0
    );
    assert_eq!(
        value(
            &samples,
            "paceline_device_batch_rows_bucket",
            &[("le", "1.0")]
        ),
        37.0
    );
}

#[test]
fn gauges_follow_what_is() {
    let home = directory();
    let node = Node::demo(home.path());
    let deadline = Instant::now() + Duration::from_secs(20);
    let settled = |samples: &[Sample]| {
        let gauge = |name: &str| value(samples, name, &[]);
        gauge("paceline_registry_models_ready") == 3.0
            && gauge("paceline_raft_is_leader") == 1.0
            && gauge("paceline_gateway_in_flight") == 0.0
            && gauge("paceline_device_queued_rows") == 0.0
            && gauge("paceline_node_degraded_parts") == 0.0
            && gauge("paceline_raft_term") >= 1.0
            && gauge("paceline_raft_applied_index") >= 14.0
            && gauge("paceline_device_memory_bytes") > 40_000.0
    };
    loop {
        let text = node.scrape();
        if settled(&samples(&text)) {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
