//! Three real nodes: what an epoch promises while traffic moves, and how the leader leaves.
//!
//! One cluster for all of it, told in chapters. Load runs from threads of this process against
//! all three nodes; a request that fails fails the test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paceline_client::blocking::Client;
use paceline_client::{ClientOptions, Tensor, Trust};

use crate::cluster::{Cluster, ROW};
use crate::http::{Connection, Request};
use crate::node::{Stop, address, directory, until};
use crate::tensors::version_of;

pub(crate) const INPUT: &str =
    r#"{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
const LIMIT: Duration = Duration::from_secs(60);
/// Flips of traffic between two versions.
const FLIPS: u32 = 4;

/// A request of the load, and the version that answered it.
struct Answered {
    sent_at: Instant,
    version: u32,
}

#[test]
fn epochs_hold_while_traffic_moves_and_the_leader_leaves() {
    let cluster = Cluster::of_three();
    flips(&cluster);
    crate::canary::from_first_share_to_rollback(&cluster);
    crate::shadow::that_disagrees(&cluster);
    crate::sequences::stay_on_one_replica(&cluster, &sdk(&cluster));
    the_leader_leaves(&cluster);
    a_drain_is_repeated(&cluster);
}

/// Once the command says that a version serves on 3 of 3, no request that is sent later is
/// answered by another one; and no client of the SDK sees an epoch fall.
fn flips(cluster: &Cluster) {
    for version in 1..=2 {
        let folder = directory();
        let toml = std::fs::read_to_string(crate::node::example("identity").join("model.toml"));
        let toml = toml.expect("the example is there");
        let toml = toml.replace("for first steps", &format!("version {version}"));
        std::fs::write(folder.path().join("model.toml"), toml).expect("the folder is writable");
        let folder = folder.path().to_str().expect("temporary paths are text");
        let pushed = cluster.node(0).cli_json(&["model", "push", "m", folder]);
        assert_eq!(pushed["version"], version, "{pushed}");
    }
    deploy(cluster, 1);
    let stop = AtomicBool::new(false);
    let answers = Mutex::new(Vec::new());
    let mut moved = Vec::new();
    let (highest, asked) = thread::scope(|scope| {
        let (stop, answers) = (&stop, &answers);
        for number in 0..3 {
            let address = cluster.node(number).http;
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                let request = Request::post("/v2/models/m/infer", INPUT);
                while !stop.load(Ordering::SeqCst) {
                    let sent_at = Instant::now();
                    let answer = connection.ask(&request);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let version = version_of(&answer);
                    let answered = Answered { sent_at, version };
                    answers.lock().expect("nobody panicked").push(answered);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let client = sdk(cluster);
        let watching = scope.spawn(move || {
            let (mut highest, mut asked) = (0, 0);
            while !stop.load(Ordering::SeqCst) {
                let input = Tensor::from_f32(1, &[1.0]);
                let request = client.infer("m").input("INPUT0", input);
                let answer = request.deadline(LIMIT).send().expect("it is answered");
                assert!(answer.epoch.0 >= highest, "{} < {highest}", answer.epoch);
                assert_eq!(answer.stale, None);
                (highest, asked) = (answer.epoch.0, asked + 1);
            }
            (highest, asked)
        });
        let stopping = Stop(stop);
        for flip in 0..FLIPS {
            let version = 2 - flip % 2;
            deploy(cluster, version);
            moved.push((Instant::now(), version));
            thread::sleep(Duration::from_millis(300));
        }
        drop(stopping);
        watching.join().expect("no epoch fell")
    });
    let answers = answers.into_inner().expect("nobody panicked");
    assert!(asked > 100 && highest > 0, "{asked} SDK requests");
    for (place, (at, version)) in moved.iter().enumerate() {
        // The next flip begins 300 ms later at the earliest.
        let until = *at + Duration::from_millis(290);
        let sent = |answered: &&Answered| answered.sent_at > *at && answered.sent_at < until;
        let settled: Vec<_> = answers.iter().filter(sent).collect();
        assert!(settled.len() > 10, "{} after flip {place}", settled.len());
        let old = settled.iter().filter(|a| a.version != *version).count();
        assert_eq!(old, 0, "answers of the old version after flip {place}");
    }
}

fn deploy(cluster: &Cluster, version: u32) {
    let target = format!("m@{version}");
    let words = ["model", "deploy", &target, "--replicas", "each"];
    let deployed = cluster.node(version as usize % 3).cli(&words);
    assert!(deployed.status.success(), "{deployed:?}");
    assert!(
        deployed.stdout.contains("applied on 3 of 3"),
        "{deployed:?}"
    );
}

pub(crate) fn sdk(cluster: &Cluster) -> Client {
    let pem = std::fs::read_to_string(cluster.data(0).join("ca.crt"));
    let trust = Trust::Authority(pem.expect("the authority's certificate is there"));
    let seeds = (0..3).map(|number| address(&cluster.data(number), "sdk").to_string());
    Client::connect(seeds, ClientOptions::new(trust)).expect("a node lets clients in")
}

fn the_leader_leaves(cluster: &Cluster) {
    let leader = cluster.leader();
    let name = format!("n{leader}");
    let other = (leader + 1) % 3;
    let leaver = cluster.node(leader);
    let before = leaver.get("/v2/health/ready");
    assert_eq!((before.status, before.header("connection")), (200, None));
    let answered = cluster.under_load(&[0, 1, 2], || {
        let words = ["drain", &name, "--deadline", "30s"];
        let drained = cluster.node(other).cli(&words);
        assert!(drained.status.success(), "{drained:?}");
        assert_eq!(cluster.state(other, &name), "drained");
        assert_ne!(cluster.leader(), leader, "it does not lead any more");
        let status = cluster.node(other).get("/v2/paceline/status").ok();
        assert_eq!(
            status["survivable_losses"], 0,
            "it may be stopped: {status}"
        );

        // What still arrives is served, by others' replicas, and asked to go elsewhere.
        let mut connection = leaver.connect();
        let answer = connection.ask(&Request::post("/v2/models/machine-failure/infer", ROW));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        let closed = connection.try_ask(&Request::get("/v2/health/live"));
        assert!(closed.is_err(), "the connection ends with its answer");
        let ready = leaver.get("/v2/health/ready");
        assert_eq!(
            (ready.status, ready.header("connection")),
            (503, Some("close"))
        );

        let back = cluster.node(other).cli(&["undrain", &name]);
        assert!(back.status.success(), "{back:?}");
        leaver.wait_for("/v2/health/ready", |_| true);
        until(LIMIT, "connections last again", || {
            leaver.get("/v2/health/live").header("connection").is_none()
        });
    });
    assert!(answered > 100, "{answered} answers are too few");
}

/// A drain under the same op-id gets its first answer, whatever has happened since.
fn a_drain_is_repeated(cluster: &Cluster) {
    let node = |number: usize| {
        let status = cluster.node(number).get("/v2/paceline/status").ok();
        status["node"].as_u64().expect("a node has an id")
    };
    let path = |id| format!("/v2/paceline/nodes/{id}/drain");
    let body = |op: &str| format!(r#"{{"deadline_ms":30000,"op":"{op}"}}"#);
    let (first, second) = (node(1), node(2));
    let op = "0123456789abcdef0123456789abcdef";
    let drained = cluster.node(0).post(&path(first), body(op)).ok();
    let back = cluster.node(0).cli(&["undrain", "n1"]);
    assert!(back.status.success(), "{back:?}");
    let other = "00000000000000000000000000000010";
    cluster.node(0).post(&path(second), body(other)).ok();
    // Now n1 may not leave as well: a new wish is refused, the old one has been granted.
    let third = "00000000000000000000000000000300";
    let refused = cluster.node(0).post(&path(first), body(third));
    assert_eq!(
        (refused.status, refused.failure().0.as_str()),
        (409, "CONFLICT")
    );
    for number in 0..3 {
        let repeated = cluster.node(number).post(&path(first), body(op)).ok();
        assert_eq!(repeated["epoch"], drained["epoch"]);
    }
    assert_eq!(cluster.state(0, "n1"), "up", "and drains nothing again");
    assert_eq!(
        cluster
            .node(0)
            .post(&path(first), r#"{"deadline_ms":0}"#)
            .status,
        400
    );
    let back = cluster.node(0).cli(&["undrain", "n2"]);
    assert!(back.status.success(), "{back:?}");
}
