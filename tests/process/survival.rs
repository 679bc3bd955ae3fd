//! What the clients of three nodes see while nodes die, stand still, leave and come back: nothing.
//!
//! Clients of the SDK know all nodes; clients over HTTP know one each, and ask it only while it
//! says that it is ready, as a load balancer does. No request of either may fail.
//! `PACELINE_ROUNDS` says how much of it there is: 2 by default, 20 in `scripts/verify-long`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paceline_client::blocking::Client;
use paceline_client::{ClientOptions, Tensor, Trust};

use crate::cluster::{Cluster, ROW};
use crate::http::{Connection, Request};
use crate::node::{Node, Stop, address, until};
use crate::tensors::{HeldOut, digits, version_of};
use crate::versions::variant;

const FEATURES: [f32; 8] = [1.0, 0.0, 0.0, 302.3, 311.5, 1_282.0, 60.7, 216.0];
/// Between two requests of a client in a rolling restart: some thousand a second of all of them
/// would starve three nodes on two cores.
const STEADY: Duration = Duration::from_millis(5);
/// 100 requests a second.
const PACE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(60);

/// Requests that were answered.
#[derive(Default)]
struct Answered {
    sdk: AtomicU64,
    http: AtomicU64,
}

impl Answered {
    fn total(&self) -> u64 {
        self.sdk.load(Ordering::SeqCst) + self.http.load(Ordering::SeqCst)
    }
}

#[test]
fn clients_of_a_cluster_see_no_failure() {
    let mut cluster = Cluster::of_three();
    let client = client(&cluster);
    kills(&mut cluster, &client);
    standstills(&cluster, &client);
    a_rolling_restart(&mut cluster, &client);
    all_at_once(&mut cluster);
    a_lost_disk(&mut cluster);
}

fn rounds() -> usize {
    let rounds = std::env::var("PACELINE_ROUNDS");
    rounds.map_or(2, |rounds| {
        rounds.parse().expect("PACELINE_ROUNDS is a number")
    })
}

/// A client that was told of all three nodes as they are at first; they come back elsewhere.
fn client(cluster: &Cluster) -> Client {
    let authority = std::fs::read_to_string(cluster.data(0).join("ca.crt")).expect("it is there");
    let seeds = (0..3).map(|number| address(&cluster.data(number), "sdk").to_string());
    let options = ClientOptions::new(Trust::Authority(authority));
    Client::connect(seeds, options).expect("a node lets it in")
}

/// Runs `during` while the SDK's client and one client over HTTP for each of `numbers` send.
fn under_load(
    cluster: &Cluster,
    client: &Client,
    numbers: &[usize],
    during: impl FnOnce(),
) -> Answered {
    let answered = Answered::default();
    let stop = AtomicBool::new(false);
    let addresses: Vec<_> = numbers
        .iter()
        .map(|number| cluster.node(*number).http)
        .collect();
    thread::scope(|scope| {
        let (stop, answered) = (&stop, &answered);
        for address in addresses {
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                while !stop.load(Ordering::SeqCst) {
                    let answer =
                        connection.ask(&Request::post("/v2/models/machine-failure/infer", ROW));
                    assert_eq!(answer.status, 200, "over HTTP: {}", answer.text());
                    answered.http.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(PACE);
                }
            });
        }
        scope.spawn(move || send_until(stop, client, PACE, &answered.sdk));
        thread::sleep(Duration::from_millis(300));
        let _stopping = Stop(stop);
        during();
    });
    answered
}

/// Requests of the SDK, one after the other: each is answered, and epochs never fall.
fn send_until(stop: &AtomicBool, client: &Client, pace: Duration, answered: &AtomicU64) {
    let mut epoch = client.epoch();
    while !stop.load(Ordering::SeqCst) {
        let features = Tensor::from_f32(8, &FEATURES);
        let request = client.infer("machine-failure").input("features", features);
        let answer = request.send();
        let answer = answer.unwrap_or_else(|error| panic!("over the SDK: {error:?}"));
        assert!(answer.epoch >= epoch, "{} after {epoch}", answer.epoch);
        epoch = answer.epoch;
        answered.fetch_add(1, Ordering::SeqCst);
        thread::sleep(pace);
    }
}

/// Each round kills a node, the leader every other time, and measures for how long nothing
/// could be written.
fn kills(cluster: &mut Cluster, client: &Client) {
    let mut gaps = Vec::new();
    let mut total = 0;
    for round in 0..rounds() {
        let leader = cluster.leader();
        let victim = (leader + round % 2) % 3;
        let survivors: Vec<usize> = (0..3).filter(|number| *number != victim).collect();
        let dying = cluster.nodes[victim].take().expect("it lives");
        let answered = under_load(cluster, client, &survivors, || {
            dying.kill9();
            let died_at = Instant::now();
            let written_at = write(cluster.node(survivors[0]));
            if victim == leader {
                gaps.push(written_at - died_at);
            }
            thread::sleep(Duration::from_secs(1));
        });
        total += enough(&answered, 50);
        cluster.restart(victim);
        cluster.settle();
    }
    gaps.sort_unstable();
    let p99 = gaps[(gaps.len() * 99).div_ceil(100) - 1];
    println!(
        "{} kills, {total} requests, 0 failed; without writes after a leader's death: median {:?}, p99 {p99:?} of {}",
        rounds(),
        gaps[gaps.len() / 2],
        gaps.len()
    );
    assert!(p99 < Duration::from_secs(5), "a write took {p99:?}");
}

/// Writes something over HTTP, asking again until it is done, and says when that was.
fn write(node: &Node) -> Instant {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = node.post("/v2/paceline/tokens", "{}");
        let answered_at = Instant::now();
        if answer.status == 200 {
            let id = answer.json()["id"].as_str().expect("an id").to_owned();
            node.cli_json(&["token", "revoke", &id]);
            return answered_at;
        }
        assert!(answered_at < deadline, "{}", answer.text());
    }
}

fn enough(answered: &Answered, at_least: u64) -> u64 {
    let sdk = answered.sdk.load(Ordering::SeqCst);
    let http = answered.http.load(Ordering::SeqCst);
    assert!(sdk >= at_least, "{sdk} answers over the SDK are too few");
    assert!(http >= at_least, "{http} answers over HTTP are too few");
    answered.total()
}

/// A process that stands still says nothing, and is not missed. What moved meanwhile it knows
/// once it goes on, or says that it may not.
fn standstills(cluster: &Cluster, client: &Client) {
    let (one, two) = (
        cluster.home.path().join("one"),
        cluster.home.path().join("two"),
    );
    variant(&one, 255);
    variant(&two, 64);
    cluster
        .node(0)
        .cli_json(&["model", "push", "moved", text(&one), "--deploy"]);
    for of_leader in [true, false] {
        let leader = cluster.leader();
        let still = if of_leader { leader } else { (leader + 1) % 3 };
        let awake: Vec<usize> = (0..3).filter(|number| *number != still).collect();
        let rows = HeldOut::of("digits").values;
        let body = digits(&rows[..1]).json().to_string();
        let request = Request::post("/v2/models/moved/infer", body);
        let answered = under_load(cluster, client, &awake, || {
            cluster.node(still).signal("STOP");
            if of_leader {
                let mover = cluster.node(awake[0]);
                mover.cli_json(&["model", "push", "moved", text(&two), "--deploy"]);
            }
            thread::sleep(Duration::from_secs(2));
            cluster.node(still).signal("CONT");
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                let answer = cluster.node(still).ask(&request);
                let is_new = answer.status == 200 && version_of(&answer) == 2;
                let is_marked = answer.header("paceline-stale").is_some();
                assert!(is_new || is_marked || answer.status == 503, "{answer:?}");
            }
        });
        let total = enough(&answered, 100);
        println!("leader stood still: {of_leader}; {total} requests, 0 failed");
        cluster.settle();
    }
}

/// Each node is drained, stopped, started and taken back, while clients send all the time: one
/// over HTTP to each node, and one of the SDK.
fn a_rolling_restart(cluster: &mut Cluster, client: &Client) {
    let wanted = 1_000 * rounds() as u64;
    let answered = Answered::default();
    let stop = AtomicBool::new(false);
    let mut restarts = 0;
    thread::scope(|scope| {
        let (stop, answered) = (&stop, &answered);
        for number in 0..3 {
            let data = cluster.data(number);
            scope.spawn(move || send_while_ready(stop, &data, &answered.http));
        }
        scope.spawn(move || send_until(stop, client, STEADY, &answered.sdk));
        let _stopping = Stop(stop);
        while restarts < 3 || answered.total() < wanted {
            let number = restarts % 3;
            let name = format!("n{number}");
            let helper = (number + 1) % 3;
            cluster.node(helper).cli_json(&["drain", &name]);
            let leaving = cluster.nodes[number].take().expect("it lives");
            leaving.signal("TERM");
            let ended = leaving.finish(LIMIT);
            assert!(ended.status.success(), "{ended:?}");
            cluster.restart(number);
            cluster.node(helper).cli_json(&["undrain", &name]);
            cluster.settle();
            restarts += 1;
        }
    });
    let total = enough(&answered, 500);
    println!("{restarts} restarts one after another, {total} requests, 0 failed");
}

/// A client of one node, wherever it is now, that looks whether it is ready before each request.
fn send_while_ready(stop: &AtomicBool, data: &Path, answered: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut connection) = Connection::try_open(address(data, "http")) else {
            thread::sleep(PACE);
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            match connection.try_ask(&Request::get("/v2/health/ready")) {
                Ok(ready) if ready.status == 200 => {}
                _ => break,
            }
            let answer = connection.ask(&Request::post("/v2/models/machine-failure/infer", ROW));
            assert_eq!(answer.status, 200, "over HTTP: {}", answer.text());
            answered.fetch_add(1, Ordering::SeqCst);
            thread::sleep(STEADY);
        }
        thread::sleep(PACE);
    }
}

/// Three losses of power at once: what was acknowledged is there, artifacts included.
fn all_at_once(cluster: &mut Cluster) {
    let three = cluster.home.path().join("three");
    variant(&three, 32);
    let pushed = cluster
        .node(0)
        .cli_json(&["model", "push", "moved", text(&three)]);
    let version = pushed["version"].to_string();
    let token = cluster.node(1).cli_json(&["token", "create"]);
    for number in 0..3 {
        cluster.kill(number);
    }
    // Each waits for a quorum before it says that it is ready: they start together.
    cluster.restart_all();
    cluster.settle();
    let known = cluster.node(2).cli_json(&["token", "list"]);
    assert!(
        known
            .to_string()
            .contains(token["id"].as_str().expect("an id")),
        "{known}"
    );
    cluster
        .node(2)
        .cli_json(&["model", "deploy", &format!("moved@{version}")]);
}

/// An artifact that a push has acknowledged outlives the disk of the node that took it.
fn a_lost_disk(cluster: &mut Cluster) {
    let four = cluster.home.path().join("four");
    variant(&four, 16);
    let pushed = cluster
        .node(1)
        .cli_json(&["model", "push", "moved", text(&four)]);
    let version = pushed["version"].to_string();
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).expect("the directory is ours");
    cluster
        .node(0)
        .cli_json(&["model", "deploy", &format!("moved@{version}")]);
    until(LIMIT, "the version serves", || {
        let shown = cluster.node(2).cli_json(&["model", "show", "moved"]);
        shown["serving"] == pushed["version"]
    });
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
