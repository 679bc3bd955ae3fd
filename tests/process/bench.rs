//! `paceline bench` against a real node: figures that add up, a report, and an early end.

use std::time::Duration;

use serde_json::Value;

use crate::node::{Node, Process, directory, paceline};

const ROW: [&str; 4] = ["bench", "identity", "--row", "1,2,3"];

#[test]
fn an_open_loop_is_accounted_for_and_has_a_report() {
    let node = Node::shared();
    let folder = directory();
    let page = folder.path().join("bench.html");
    let page = page.to_str().expect("temporary paths are text");
    let arguments = "--rate 200 --arrivals poisson --seed 3 --duration 1s --warm-up 200ms \
                     --deadline 5s --rows 4 --check --report";
    let words: Vec<&str> = arguments.split_whitespace().chain([page]).collect();
    let report = node.cli_json(&[&ROW[..], &words].concat());
    let count = |key: &str| report[key].as_u64().expect("a number");
    assert!((150..250).contains(&count("requests")), "{report}");
    assert_eq!(
        count("good") + count("late"),
        count("succeeded"),
        "{report}"
    );
    assert_eq!(report["errors"], serde_json::json!({}));
    assert_eq!((count("unsent"), count("seed")), (0, 3));
    let seconds = report["timeline"].as_array().expect("a list");
    let good: u64 = seconds
        .iter()
        .filter_map(|second| second["good"].as_u64())
        .sum();
    assert_eq!(good, count("good"), "the timeline has all of them");
    let html = std::fs::read_to_string(page).expect("the report is written");
    assert!(
        html.contains("--rate 200 --arrivals poisson"),
        "the command is in it"
    );

    // The same moments again, however fast the machine was.
    let again = node.cli_json(&[&ROW[..], &words].concat());
    assert_eq!(again["requests"], report["requests"]);
}

#[test]
fn an_interrupt_ends_the_load_and_reports_it() {
    let address = Node::shared().http.to_string();
    let more = [
        "--rate",
        "50",
        "--duration",
        "1h",
        "--progress",
        "--addr",
        &address,
    ];
    let bench = Process::start(&[&ROW[..], &more, &["-o", "json"]].concat(), None);
    bench.until_said(" good, 0 late, 0 failed, p50 ", 1);
    bench.signal("INT");
    let finished = bench.finish(Duration::from_secs(30));
    assert!(finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("cut short after "), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(report["cut_short"], true);
    assert!(
        report["good"].as_u64().is_some_and(|good| good >= 40),
        "{report}"
    );
}

/// Two sizes, the second one twice, at twice the speed; as bytes, and compared with the first answer.
#[test]
fn a_trace_is_sent_again_with_its_rows() {
    let node = Node::shared();
    let folder = directory();
    let file = folder.path().join("trace.csv");
    std::fs::write(&file, "time_ms,rows\n500,1\n700,3\n1500,3\n").expect("it is written");
    let file = file.to_str().expect("temporary paths are text");
    let more = ["--trace", file, "--speed", "2", "--binary", "--check"];
    let report = node.cli_json(&[&ROW[..], &more].concat());
    assert_eq!(
        (&report["arrivals"], &report["good"]),
        (&"trace".into(), &3.into())
    );
    assert_eq!(
        (&report["version"], &report["rate_due"]),
        (&"1".into(), &Value::Null)
    );
    let window = report["window_seconds"].as_f64().expect("a number");
    assert!((window - 0.5).abs() < 1e-6, "{report}");
}

/// From a node's own metrics to a scenario that the simulator runs as it is.
#[test]
fn a_cost_that_was_measured_runs_in_the_simulator() {
    let data = directory();
    let node = Node::demo(&data.path().join("node"));
    let file = data.path().join("digits.toml");
    let file = file.to_str().expect("temporary paths are text");
    let row = ["0"; 64].join(",");
    let words = [
        "bench",
        "digits",
        "--row",
        &row,
        "--duration",
        "1s",
        "--calibrate",
        file,
    ];
    let calibrated = node.cli_json(&words);
    let sizes = calibrated["sizes"].as_array().expect("a list");
    assert!(sizes.len() >= 10, "{calibrated}");
    let line = &calibrated["line"];
    assert!(
        line["row_ns"].as_f64().is_some_and(|row| row > 0.0),
        "{calibrated}"
    );
    let run = paceline(&["sim", "run", file, "-o", "json"]);
    assert!(run.status.success(), "{run:?}");
    let text = std::fs::read_to_string(file).expect("it is written");
    assert!(
        text.contains("# What batches of digits (version 1) take"),
        "{text}"
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (more, wanted) in [
        (&["--arrivals", "poisson"][..], "--rate"),
        (&["--rate", "9", "--arrivals", "often"], "constant, poisson"),
        (&["--deadline", "0"], "500ms"),
        (&["--rows", "0"], "1..=65536"),
        (&["--find-max", "50ms"], "--rate"),
        (&["--trace", "a.csv", "--rate", "9"], "cannot be used"),
        (&["--trace", "a.csv", "--speed", "0"], "0.01 to 1000"),
        (&["--calibrate", "a.toml", "--rate", "9"], "cannot be used"),
    ] {
        let refused = paceline(&[&ROW[..], more].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused:?}");
    }
}
