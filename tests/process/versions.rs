//! Versions through the binary: traffic moves while it flows, and what was acknowledged outlives
//! a kill at any moment.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::http::Request;
use crate::node::{Node, Process, Stop, directory, example, until};
use crate::tensors::{HeldOut, digits, version_of};

const LIMIT: Duration = Duration::from_secs(30);

/// Copies an example's folder, and lets its batches have at most so many rows: another version.
pub(crate) fn variant(into: &Path, rows_max: u32) {
    std::fs::create_dir_all(into).expect("the directory is writable");
    for file in ["model.toml", "model.safetensors"] {
        std::fs::copy(example("digits").join(file), into.join(file)).expect("the file is there");
    }
    let declaration = into.join("model.toml");
    let text = std::fs::read_to_string(&declaration).expect("the file is there");
    let changed = text.replace("rows_max = 256", &format!("rows_max = {rows_max}"));
    assert_ne!(text, changed);
    std::fs::write(declaration, changed).expect("the directory is writable");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// Requests run from several connections while the command moves traffic: none fails, and none
/// that began after the command had returned is answered by the old version.
#[test]
fn traffic_moves_between_versions_without_a_failure() {
    let home = directory();
    let node = Node::start(&home.path().join("data"), &[]);
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    variant(&first, 255);
    variant(&second, 64);
    node.cli_json(&["model", "push", "mine", text(&first), "--deploy"]);
    let rows = HeldOut::of("digits").values;
    let body = digits(&rows[..3]).json().to_string();
    let request = Request::post("/v2/models/mine/infer", body);
    let expected = node.ask(&request).ok()["outputs"].clone();
    let (moved, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (old, new) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = node.connect();
                while !stop.load(Ordering::SeqCst) {
                    let after = moved.load(Ordering::SeqCst);
                    let answer = connection.ask(&request);
                    assert_eq!(answer.ok()["outputs"], expected, "{answer:?}");
                    let version = version_of(&answer);
                    assert!(!after || version == 2, "version {version} after the move");
                    let count = if version == 1 { &old } else { &new };
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _stopping = Stop(&stop);
        until(LIMIT, "200 answers of the old version", || {
            old.load(Ordering::SeqCst) >= 200
        });
        let pushed = node.cli_json(&["model", "push", "mine", text(&second), "--deploy"]);
        assert_eq!(pushed["version"], 2, "{pushed}");
        moved.store(true, Ordering::SeqCst);
        let at = new.load(Ordering::SeqCst);
        until(LIMIT, "200 answers of the new version", || {
            new.load(Ordering::SeqCst) >= at + 200
        });
    });
    // The old version's replica goes once traffic has left it.
    node.wait_for("/v2/paceline/models/mine", |model| {
        let replicas = model["replicas"].as_array().expect("replicas");
        replicas.iter().all(|replica| replica["version"] == 2)
    });
}

/// The node is killed while versions are pushed and deployed as fast as it takes them. What a
/// command said was done is there after every restart.
#[test]
fn what_was_acknowledged_outlives_a_kill_at_any_moment() {
    let home = directory();
    let data = home.path().join("data");
    let mut acknowledged: Vec<(String, Value)> = Vec::new();
    for round in 0..3 {
        let node = Node::start(&data, &[]);
        for (name, pushed) in &acknowledged {
            let model = node.get(&format!("/v2/paceline/models/{name}")).ok();
            let versions = model["versions"].as_array().expect("versions");
            let known = versions.iter().find(|v| v["version"] == pushed["version"]);
            assert!(known.is_some(), "{name} {pushed} is lost in round {round}");
        }
        let mut pushing = Vec::new();
        for lane in 0..2 {
            let folder = home.path().join(format!("lane-{round}-{lane}"));
            variant(&folder, 10 + 10 * round + lane);
            for number in 0..4 {
                let name = format!("m-{round}-{lane}-{number}");
                let address = node.http.to_string();
                let command = ["model", "push", &name, text(&folder), "-o", "json"];
                let all = [&command[..], &["--addr", &address, "--timeout", "5s"]].concat();
                pushing.push((name.clone(), Process::start(&all, None)));
            }
        }
        // Some have been answered by now and some have not: the moment differs by round.
        let (name, first) = pushing.remove(0);
        let first = first.finish(Duration::from_secs(60));
        assert!(first.status.success(), "{first:?}");
        acknowledged.push((name, serde_json::from_str(&first.stdout).expect("JSON")));
        thread::sleep(Duration::from_millis(u64::from(round) * 15));
        node.kill9();
        for (name, process) in pushing {
            let finished = process.finish(Duration::from_secs(60));
            if finished.status.success() {
                let pushed = serde_json::from_str(&finished.stdout).expect("JSON");
                acknowledged.push((name, pushed));
            }
        }
    }
    assert!(acknowledged.len() >= 3, "{acknowledged:?}");
    let node = Node::start(&data, &[]);
    for (name, _) in &acknowledged {
        let deployed = node.cli(&["model", "deploy", name]);
        assert!(deployed.status.success(), "{name}: {deployed:?}");
    }
}
