//! A local cluster under its supervisor: what survives whom, and what is refused.
//!
//! One node is enough to see that; clusters of several are in the modules about what they do.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::node::{Node, Process, directory, paceline, until};

/// A node may take its time on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of one node on free ports, ready.
fn up(data: &Path, arguments: &[&str]) -> Process {
    up_of(1, data, arguments)
}

/// A cluster on free ports, ready.
fn up_of(nodes: usize, data: &Path, arguments: &[&str]) -> Process {
    let (data, nodes) = (data.to_str().expect("paths are text"), nodes.to_string());
    let words = [
        "up",
        "--nodes",
        &nodes,
        "--http-port",
        "0",
        "--data-dir",
        data,
    ];
    let process = Process::start(&[&words[..], arguments].concat(), None);
    process.until_said("ready   http://", 1);
    process
}

/// The process of the supervisor's only node.
fn node_of(supervisor: &Process) -> u32 {
    *nodes_of(supervisor).first().expect("the node runs")
}

/// The processes of a supervisor's nodes, by their parent.
fn nodes_of(supervisor: &Process) -> Vec<u32> {
    let wanted = supervisor.pid().to_string();
    let is_child = |pid: &u32| parent(*pid).as_deref() == Some(&wanted);
    let entries = std::fs::read_dir("/proc").expect("there is /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

/// The parent of a process that lives.
fn parent(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.next().map(str::to_owned))?
}

fn kill9(pid: u32) {
    signal(pid, "KILL");
}

fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status();
    assert!(sent.expect("there is a kill command").success());
}

#[test]
fn the_demo_is_shown_and_a_dead_node_comes_back() {
    let data = directory();
    let cluster = up(&data.path().join("cluster"), &["--demo"]);
    cluster.until_said("paceline bench machine-failure", 1);
    let said = cluster.stdout();
    for shown in [
        "n0  machine-failure  failure, probability 0.977",
        "n0  digits           a picture of 0",
        "n0  identity         [1.0, 2.5, -3.0]",
    ] {
        assert!(said.contains(shown), "{shown:?} is not in\n{said}");
    }
    let first = node_of(&cluster);
    kill9(first);
    cluster.until_said("n0 was ended by signal 9", 1);
    cluster.until_said("n0 is ready again", 1);
    assert_ne!(node_of(&cluster), first);

    let context = data.path().join("cluster/context.toml");
    let context = context.to_str().expect("temporary paths are text");
    let nodes = paceline(&["nodes", "-o", "json", "--context", context]);
    assert!(nodes.status.success(), "{nodes:?}");
    let nodes: Value = serde_json::from_str(&nodes.stdout).expect("the command prints JSON");
    assert_eq!(nodes[0]["name"], "n0");
    let row = "1,0,0,302.3,311.5,1282,60.7,216";
    let bench = [
        "bench",
        "machine-failure",
        "--row",
        row,
        "--duration",
        "300ms",
        "-o",
        "json",
        "--context",
        context,
    ];
    let bench = paceline(&bench);
    assert!(bench.status.success(), "{bench:?}");
    let bench: Value = serde_json::from_str(&bench.stdout).expect("the command prints JSON");
    assert!(
        bench["succeeded"].as_u64().is_some_and(|count| count >= 16),
        "{bench}"
    );
    assert_eq!(bench["errors"], serde_json::json!({}));

    cluster.signal("INT");
    let finished = cluster.finish(Duration::from_secs(30));
    assert!(finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("n0 has ended"), "{finished:?}");
}

/// One node hears of its removal from the log, the other one stood still meanwhile, and hears of
/// it from the first peer that it asks for something.
#[test]
fn a_removed_node_stops_and_the_cluster_goes_on_without_it() {
    let data = directory();
    let place = data.path().join("cluster");
    let cluster = up_of(3, &place, &[]);
    let context = place.join("context.toml");
    let context = context.to_str().expect("temporary paths are text");
    let remove = |name: &str| {
        let removed = paceline(&["remove", name, "--yes", "--context", context]);
        assert!(removed.status.success(), "{removed:?}");
    };
    remove("n2");
    cluster.until_said("n2 was removed from the cluster", 1);
    let address = crate::node::address(&place.join("n1"), "http").to_string();
    let nodes = paceline(&["nodes", "-o", "json", "--addr", &address]);
    let nodes: Value = serde_json::from_str(&nodes.stdout).expect("the command prints JSON");
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");

    let status = |node: &str, is_so: &dyn Fn(&Value) -> bool| {
        let address = crate::node::address(&place.join(node), "http").to_string();
        until(LIMIT, "the cluster is as it should be", || {
            let status = paceline(&["status", "-o", "json", "--addr", &address]);
            let status = serde_json::from_str(&status.stdout);
            status.is_ok_and(|status: Value| is_so(&status))
        });
    };
    status("n0", &|status| {
        status["raft"]["voters"] == serde_json::json!([1])
    });
    let command = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let is_n1 = |pid: &u32| command(pid).is_ok_and(|line| line.contains("\0--name\0n1\0"));
    let sleeper = nodes_of(&cluster).into_iter().find(is_n1);
    let sleeper = sleeper.expect("n1 runs");
    signal(sleeper, "STOP");
    remove("n1");
    signal(sleeper, "CONT");
    cluster.until_said("n1 was removed from the cluster", 1);
    cluster.signal("INT");
    let finished = cluster.finish(Duration::from_secs(30));
    assert!(finished.status.success(), "{finished:?}");
    assert!(!finished.stderr.contains("starts again"), "{finished:?}");

    // The next time nobody waits for them, and each says why it does not start by itself.
    let name = place.to_str().expect("temporary paths are text");
    let words = ["up", "--http-port", "0", "--data-dir", name];
    let again = Process::start::<&str>(&words, None);
    again.until_said("ready   http://", 1);
    assert_eq!(nodes_of(&again).len(), 1);
    again.signal("INT");
    assert!(again.finish(Duration::from_secs(30)).status.success());
    let alone = place.join("n1");
    let alone = alone.to_str().expect("temporary paths are text");
    let alone = paceline(&["serve", "--data-dir", alone, "--http-port", "0"]);
    let (code, reason) = alone.failed();
    assert!(
        code == 1 && reason.contains("was removed from its cluster"),
        "{reason}"
    );
}

#[test]
fn a_killed_supervisor_leaves_no_process() {
    let data = directory();
    let cluster = up(&data.path().join("cluster"), &[]);
    let node = node_of(&cluster);
    kill9(cluster.pid());
    until(LIMIT, "the node is gone", || parent(node).is_none());
    // Its directory is free again, and nothing is lost.
    let again = up(&data.path().join("cluster"), &[]);
    again.signal("TERM");
    assert!(again.finish(Duration::from_secs(30)).status.success());
}

#[test]
fn directories_of_others_and_those_in_use_are_refused_by_name() {
    let data = directory();
    let place = data.path().join("cluster");
    let name = place.to_str().expect("temporary paths are text");
    let _cluster = up(&place, &[]);
    let second = paceline(&["up", "--nodes", "1", "--http-port", "0", "--data-dir", name]);
    let (code, reason) = second.failed();
    assert!(
        code == 1 && reason.contains(name) && reason.contains("in use"),
        "{reason}"
    );

    let theirs = directory();
    Node::start(theirs.path(), &[]).kill9();
    let name = theirs.path().to_str().expect("temporary paths are text");
    let foreign = paceline(&["up", "--data-dir", name]);
    let (code, reason) = foreign.failed();
    assert!(
        code == 1 && reason.contains(name) && reason.contains("addresses.json"),
        "{reason}"
    );
    assert!(!theirs.path().join("up.json").exists());
}

#[test]
fn a_port_in_use_ends_the_start_with_the_nodes_own_words() {
    let data = directory();
    // No block begins at the last ports.
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port_of = |taken: &std::net::TcpListener| taken.local_addr().map_or(0, |at| at.port());
    let taken = std::iter::repeat_with(bind)
        .take(100)
        .find(|taken| (1..=65_531).contains(&port_of(taken)))
        .expect("most ports are lower");
    let port = port_of(&taken);
    let place = data.path().join("cluster");
    let name = place.to_str().expect("temporary paths are text");
    let port = port.to_string();
    let refused = paceline(&[
        "up",
        "--nodes",
        "1",
        "--http-port",
        &port,
        "--data-dir",
        name,
    ]);
    let (code, reason) = refused.failed();
    let wanted = "cannot be bound";
    assert!(
        code == 1 && reason.contains(wanted) && reason.contains(&port),
        "{reason}"
    );
}

#[test]
fn joining_says_what_is_wrong_before_anything_runs() {
    let data = directory();
    let name = data.path().to_str().expect("temporary paths are text");
    let join = |seed: &str, token: &str| {
        paceline(&[
            "join",
            seed,
            "--token",
            token,
            "--http-port",
            "0",
            "--data-dir",
            name,
        ])
    };
    let (code, reason) = (join("nowhere", "pcl1.x"), "the port is missing");
    assert!(
        code.failed().0 == 2 && code.stderr.contains(reason),
        "{code:?}"
    );
    let secret = join("127.0.0.1:8003", "my-secret");
    assert!(
        secret.failed().0 == 2 && secret.stderr.contains("pcl1."),
        "{secret:?}"
    );
    Node::start(data.path(), &[]).kill9();
    let member = join("127.0.0.1:8003", "pcl1.x");
    let advice = "paceline serve --data-dir";
    assert!(
        member.failed().0 == 1 && member.stderr.contains(advice),
        "{member:?}"
    );
}
