//! What nodes decided under load is decided again from their records, byte for byte, while one of
//! them dies, comes back, and drains.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::node::{Node, directory, paceline};

/// Load that fills batches.
const MANY: [&str; 8] = [
    "bench",
    "machine-failure",
    "--row",
    "1,0,0,302.3,311.5,1282,60.7,216",
    "--concurrency",
    "16",
    "--duration",
    "4s",
];

/// What `paceline debug record` wrote of a node.
fn record(node: &Node, file: &Path) -> PathBuf {
    let text = file.to_str().expect("temporary paths are text");
    let written = node.cli(&["debug", "record", "-o", text]);
    assert!(written.status.success(), "{written:?}");
    assert_eq!(written.stdout, "");
    assert!(written.stderr.contains(" steps of "), "{written:?}");
    file.to_owned()
}

/// What `paceline sim replay` says of a record, whose steps must all be the same.
fn replayed(file: &Path) -> Value {
    let text = file.to_str().expect("temporary paths are text");
    let finished = paceline(&["sim", "replay", text, "-o", "json"]);
    let json: Value = serde_json::from_str(&finished.stdout).unwrap_or_default();
    assert!(
        finished.status.success() && json["is_same"] == true,
        "{text}: {finished:?}"
    );
    json
}

/// Steps and effects of all machines of a kind.
fn of(replayed: &Value, machine: &str) -> (u64, u64) {
    let machines = replayed["machines"].as_array().expect("machines").iter();
    let number = |value: &Value| value.as_u64().expect("a number");
    let counts = machines
        .filter(|row| row["machine"] == machine)
        .map(|row| (number(&row["steps"]), number(&row["effects"])));
    counts.fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1))
}

#[test]
fn what_nodes_decided_under_load_is_decided_again_to_the_same_bytes() {
    let mut cluster = Cluster::of_three();
    let files = directory();
    let file = |name: &str| files.path().join(name);
    let dying = cluster.nodes[2].take().expect("it lives");
    cluster.under_load(&[0, 1], || {
        dying.kill9();
        // Longer than a peer is only suspect.
        thread::sleep(Duration::from_secs(2));
    });
    let after_death = replayed(&record(cluster.node(0), &file("death.record")));
    let (_, changes) = of(&after_death, "detector");
    assert!(changes >= 2, "suspect, and lost: {after_death}");
    cluster.restart(2);
    cluster.settle();
    let answered = cluster.under_load(&[0, 1, 2], || {
        thread::scope(|scope| {
            let many = (0..3).map(|number| {
                let node = cluster.node(number);
                scope.spawn(move || node.cli(&MANY))
            });
            let many: Vec<_> = many.collect();
            let drained = cluster.node(0).cli(&["drain", "n1"]);
            assert!(drained.status.success(), "{drained:?}");
            for load in many {
                let bench = load.join().expect("it ends");
                assert!(bench.status.success(), "{bench:?}");
            }
        });
        for number in 0..3 {
            record(cluster.node(number), &file(&format!("n{number}.record")));
        }
    });
    assert!(answered > 500, "{answered} answers are too few");
    for number in 0..3 {
        let replayed = replayed(&file(&format!("n{number}.record")));
        let least = [
            ("admission", 500),
            ("router", 500),
            ("device", 500),
            ("detector", 50),
            ("drain", 5),
        ];
        for (machine, least) in least {
            let (steps, _) = of(&replayed, machine);
            assert!(steps >= least, "n{number}, {machine}: {replayed}");
        }
        let (_, admitted) = of(&replayed, "admission");
        let (_, ran) = of(&replayed, "device");
        assert!(admitted >= 200 && ran >= 200, "n{number}: {replayed}");
        if number == 1 {
            let (_, said) = of(&replayed, "drain");
            assert!(
                said >= 3,
                "it leaves, closes, and has it written: {replayed}"
            );
        }
    }
    what_is_cut_off_is_refused(&file("n0.record"));
}

fn what_is_cut_off_is_refused(file: &Path) {
    let bytes = std::fs::read(file).expect("it was written");
    let half = bytes.len() / 2;
    std::fs::write(file, &bytes[..half]).expect("it can be written");
    let text = file.to_str().expect("temporary paths are text");
    let finished = paceline(&["sim", "replay", text]);
    let (code, reason) = finished.failed();
    assert_eq!(code, 1, "{reason}");
    let said = format!("truncated: {half} of {} bytes are there", bytes.len());
    assert!(reason.contains(&said), "{reason}");
}

#[test]
fn a_node_that_records_nothing_says_so() {
    let home = directory();
    let node = Node::start(home.path(), &["--set", "debug.record_bytes=0"]);
    let file = home.path().join("nothing.record");
    let text = file.to_str().expect("temporary paths are text");
    let finished = node.cli(&["debug", "record", "-o", text]);
    let (code, reason) = finished.failed();
    assert_eq!(code, 1, "{reason}");
    assert!(reason.contains("debug.record_bytes is 0"), "{reason}");
    assert!(!file.exists(), "nothing was written");
}
