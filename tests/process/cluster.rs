//! Three real nodes: joined by tokens, killed under load, drained, and what they refuse.
//!
//! One cluster for all of it, since each start costs seconds: a test here is a chapter, told in
//! order. Load runs over HTTP against nodes that live; a request that fails fails the test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http::Request;
use crate::http2::{Http2, small_runtime};
use crate::node::{Finished, Node, Stop, address, directory, paceline, until};

pub(crate) const ROW: &str = r#"{"inputs":[{"name":"features","shape":[1,8],"datatype":"FP32","data":[1,0,0,302.3,311.5,1282,60.7,216]}]}"#;
const LIMIT: Duration = Duration::from_secs(60);

/// Nodes n0, n1, n2; one that is dead is `None`.
pub(crate) struct Cluster {
    pub(crate) home: TempDir,
    pub(crate) nodes: Vec<Option<Node>>,
    /// A token that has let a node in.
    spent: String,
}

impl Cluster {
    /// Three voters with the demo's models on each of them.
    pub(crate) fn of_three() -> Self {
        let home = directory();
        let founder = Node::demo(&home.path().join("n0"));
        let mut cluster = Self {
            home,
            nodes: vec![Some(founder)],
            spent: String::new(),
        };
        for number in 1..3 {
            let name = format!("n{number}");
            let token = cluster.token();
            let seed = cluster.seed();
            let join = ["--token", &token, "--name", &name];
            let node = Node::join(&cluster.data(number), &seed, &join);
            cluster.nodes.push(Some(node));
            cluster.spent = token;
        }
        cluster.settle();
        cluster
    }

    pub(crate) fn data(&self, number: usize) -> PathBuf {
        self.home.path().join(format!("n{number}"))
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().expect("it lives")
    }

    fn living(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    fn token(&self) -> String {
        let created = self.node(0).cli_json(&["token", "create"]);
        created["token"].as_str().expect("a token").to_owned()
    }

    fn seed(&self) -> String {
        address(&self.data(0), "sdk").to_string()
    }

    /// Waits until all live nodes see three voters, and every model on three nodes.
    pub(crate) fn settle(&self) {
        for node in self.living() {
            node.wait_for("/v2/paceline/status", |status| {
                let voters = status["raft"]["voters"].as_array().expect("voters");
                let ready = status["models_ready"].as_u64().expect("a number");
                let are_ready = ready >= 3 && status["models"] == ready;
                voters.len() == 3 && status["quorum"] == true && are_ready
            });
            node.wait_for("/v2/paceline/models", |models| {
                let models = models.as_array().expect("models");
                let of_demo = models
                    .iter()
                    .filter(|model| model["deployed"]["replicas"] == "each");
                of_demo.into_iter().all(|model| {
                    let replicas = model["replicas"].as_array().expect("replicas");
                    replicas.len() == 3 && replicas.iter().all(|r| r["state"] == "ready")
                })
            });
        }
    }

    /// The number of the node that leads.
    pub(crate) fn leader(&self) -> usize {
        let deadline = Instant::now() + LIMIT;
        loop {
            for node in self.living() {
                let nodes = node.get("/v2/paceline/nodes").ok();
                let nodes = nodes.as_array().expect("nodes").clone();
                let leads = nodes.iter().find(|node| node["role"] == "leader");
                let name = leads.and_then(|node| node["name"].as_str());
                let number = name.and_then(|name| name.strip_prefix('n')?.parse().ok());
                if let Some(number) = number.filter(|n: &usize| self.nodes[*n].is_some()) {
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number].take().expect("it lives").kill9();
    }

    pub(crate) fn restart(&mut self, number: usize) {
        let name = format!("n{number}");
        let node = Node::start(&self.data(number), &["--name", &name]);
        self.nodes[number] = Some(node);
    }

    /// Starts all three at once: none is ready before two of them agree.
    pub(crate) fn restart_all(&mut self) {
        let starting = (0..3).map(|number| {
            let data = self.data(number);
            thread::spawn(move || Node::start(&data, &["--name", &format!("n{number}")]))
        });
        let starting: Vec<_> = starting.collect();
        let started = starting.into_iter().map(thread::JoinHandle::join);
        self.nodes = started.map(|node| Some(node.expect("it starts"))).collect();
    }

    pub(crate) fn state(&self, seen_by: usize, name: &str) -> String {
        let nodes = self.node(seen_by).get("/v2/paceline/nodes").ok();
        let nodes = nodes.as_array().expect("nodes").clone();
        let node = nodes.iter().find(|node| node["name"] == name);
        let state = node.and_then(|node| node["state"].as_str());
        state.expect("the node is listed").to_owned()
    }

    /// Runs `during` while requests are sent to the nodes of these numbers, one after another
    /// on a connection each, and returns how many were answered. All of them must be.
    pub(crate) fn under_load(&self, numbers: &[usize], during: impl FnOnce()) -> u64 {
        let stop = AtomicBool::new(false);
        let answered = AtomicU64::new(0);
        let addresses = numbers.iter().map(|number| self.node(*number).http);
        let addresses: Vec<_> = addresses.collect();
        thread::scope(|scope| {
            let (stop, answered) = (&stop, &answered);
            let load = addresses.into_iter().map(|address| {
                scope.spawn(move || {
                    let mut connection = crate::http::Connection::open(address);
                    let request = Request::post("/v2/models/machine-failure/infer", ROW);
                    while !stop.load(Ordering::SeqCst) {
                        let answer = connection.ask(&request);
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        if answer.header("connection") == Some("close") {
                            connection = crate::http::Connection::open(address);
                        }
                        answered.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(2));
                    }
                })
            });
            let load: Vec<_> = load.collect();
            thread::sleep(Duration::from_millis(300));
            let stopping = Stop(stop);
            during();
            drop(stopping);
            for load in load {
                load.join().expect("no request failed");
            }
        });
        answered.into_inner()
    }
}

fn refused(finished: &Finished, code: i32, words: &[&str]) {
    let (found, reason) = finished.failed();
    assert_eq!(found, code, "{reason}");
    for word in words {
        assert!(reason.contains(word), "{word:?} is missing: {reason}");
    }
}

fn join(data: &Path, seed: &str, token: &str) -> Finished {
    let data = data.to_str().expect("temporary paths are text");
    paceline(&[
        "join",
        seed,
        "--token",
        token,
        "--data-dir",
        data,
        "--http-port",
        "0",
        "--name",
        "nx",
    ])
}

#[test]
fn a_cluster_hides_deaths_and_departures_from_its_clients() {
    let mut cluster = Cluster::of_three();
    what_is_seen_of_the_others(&cluster);
    who_may_join(&cluster);
    deaths(&mut cluster);
    departures(&cluster);
    without_a_quorum(&mut cluster);
}

/// Whoever is asked knows of every node which process it is and how far it has come.
fn what_is_seen_of_the_others(cluster: &Cluster) {
    for node in cluster.living() {
        node.wait_for("/v2/paceline/nodes", |nodes| {
            let nodes = nodes.as_array().expect("nodes");
            let pids: BTreeSet<_> = nodes.iter().filter_map(|n| n["pid"].as_u64()).collect();
            let epochs: BTreeSet<_> = nodes.iter().map(|n| n["epoch"].as_u64()).collect();
            pids.len() == 3 && epochs.len() == 1 && !epochs.contains(&None)
        });
    }
}

fn who_may_join(cluster: &Cluster) {
    let new = |name: &str| cluster.home.path().join(name);
    let good = cluster.token();
    let seed = cluster.seed();
    // Another cluster's token: its pin is another authority's, and nothing is sent.
    let other = Node::start(&new("other"), &[]);
    let theirs = other.cli_json(&["token", "create"]);
    let theirs = theirs["token"].as_str().expect("a token");
    refused(&join(&new("pin"), &seed, theirs), 1, &["another cluster"]);
    let mut mistyped = good.clone().into_bytes();
    let last = mistyped.last_mut().expect("it has characters");
    *last = if *last == b'a' { b'b' } else { b'a' };
    let mistyped = String::from_utf8(mistyped).expect("it is text");
    refused(&join(&new("typo"), &seed, &mistyped), 1, &["token"]);
    let revoked = cluster.node(1).cli_json(&["token", "create"]);
    let id = revoked["id"].as_str().expect("an id").to_owned();
    let gone = cluster.node(0).cli(&["token", "revoke", &id]);
    assert!(gone.status.success(), "{gone:?}");
    assert!(gone.stdout.contains("applied on 3 of 3"), "{gone:?}");
    let revoked = revoked["token"].as_str().expect("a token");
    let not_known = "the join token is not known here";
    refused(&join(&new("revoked"), &seed, revoked), 1, &[not_known]);
    let spent = join(&new("spent"), &seed, &cluster.spent);
    refused(&spent, 1, &["the join token has been used"]);
    let nobody = join(&new("nobody"), "127.0.0.1:1", &good);
    refused(&nobody, 1, &["127.0.0.1:1"]);
    assert_eq!(
        cluster
            .node(0)
            .get("/v2/paceline/nodes")
            .ok()
            .as_array()
            .map(Vec::len),
        Some(3),
        "nobody got in"
    );
}

fn deaths(cluster: &mut Cluster) {
    for round in 0..4 {
        // The leader every other time.
        let leader = cluster.leader();
        let victim = if round % 2 == 0 {
            leader
        } else {
            (leader + 1) % 3
        };
        let survivors: Vec<usize> = (0..3).filter(|number| *number != victim).collect();
        let dying = cluster.nodes[victim].take().expect("it lives");
        let mut gap = Duration::ZERO;
        let answered = cluster.under_load(&survivors, || {
            dying.kill9();
            let died_at = Instant::now();
            let written = cluster.node(survivors[0]).cli(&["token", "create"]);
            assert!(written.status.success(), "{written:?}");
            gap = died_at.elapsed();
            thread::sleep(Duration::from_secs(1));
        });
        assert!(answered > 200, "{answered} answers are too few");
        // A command line that starts, an election, and a write; on a busy machine.
        assert!(gap < Duration::from_secs(5), "a write took {gap:?}");
        cluster.restart(victim);
        cluster.settle();
    }
}

fn departures(cluster: &Cluster) {
    let runtime = small_runtime();
    let early = runtime.block_on(Http2::connect(cluster.node(1).http));
    assert_eq!(runtime.block_on(asked(&early)), 200);
    let answered = cluster.under_load(&[0, 1, 2], || {
        let drained = cluster.node(0).cli(&["drain", "n1"]);
        assert!(drained.status.success(), "{drained:?}");
        assert_eq!(cluster.state(0, "n1"), "drained");
        assert_eq!(cluster.node(1).get("/v2/health/ready").status, 503);
        runtime.block_on(sent_elsewhere(early));
        // Who comes nevertheless is answered first.
        let late = runtime.block_on(Http2::connect(cluster.node(1).http));
        assert_eq!(runtime.block_on(asked(&late)), 200);
        runtime.block_on(sent_elsewhere(late));
        let second = cluster.node(0).cli(&["drain", "n2"]);
        refused(&second, 3, &["1 of 3 voters", "majority"]);
        assert_eq!(cluster.state(2, "n2"), "up");
        let back = cluster.node(2).cli(&["undrain", "n1"]);
        assert!(back.status.success(), "{back:?}");
        cluster.settle();
        cluster.node(1).wait_for("/v2/health/ready", |_| true);
    });
    assert!(answered > 500, "{answered} answers are too few");
}

async fn asked(client: &Http2) -> u16 {
    let request = client.post("/v2/models/machine-failure/infer", ROW);
    client.ask(request).await.head.status.as_u16()
}

/// The node says GOAWAY, and the connection ends in order.
async fn sent_elsewhere(client: Http2) {
    let ended = tokio::time::timeout(LIMIT, client.running).await;
    let ended = ended.expect("it is told to go");
    ended.expect("no panic").expect("and ends in order");
}

fn without_a_quorum(cluster: &mut Cluster) {
    cluster.kill(1);
    cluster.kill(2);
    let alone = cluster.node(0);
    let alone_since = Instant::now();
    // A write that is under way when the quorum goes ends as soon as that is known.
    let write = alone.post("/v2/paceline/tokens", "{}");
    let code = write.failure().0;
    assert!(["NO_QUORUM", "UNKNOWN"].contains(&code.as_str()), "{code}");
    let took = alone_since.elapsed();
    assert!(took < Duration::from_secs(3), "a write took {took:?}");
    let status = alone.wait_for("/v2/paceline/status", |status| status["quorum"] == false);
    assert_eq!(status["survivable_losses"], 0, "{status}");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("no quorum"), "{warnings}");
    let seconds = |answer: &crate::http::Answer| {
        let text = answer.header("paceline-stale").expect("it is marked");
        text.parse::<u64>().expect("whole seconds")
    };
    let infer = |node: &Node| {
        let answer = node.post("/v2/models/machine-failure/infer", ROW);
        assert_eq!(answer.status, 200, "it serves what it knows: {answer:?}");
        seconds(&answer)
    };
    let first = infer(alone);
    thread::sleep(Duration::from_millis(1_100));
    let second = infer(alone);
    assert!(
        first >= 2 && second > first && second < 60,
        "{first}, {second}"
    );
    let asked_at = Instant::now();
    let write = alone.post("/v2/paceline/tokens", "{}");
    assert_eq!(write.failure().0, "NO_QUORUM");
    let took = asked_at.elapsed();
    assert!(took < Duration::from_secs(2), "a refusal took {took:?}");
    let read = alone.get("/v2/paceline/status?consistent=true");
    assert_eq!(read.failure().0, "NO_QUORUM");
    // A node that starts alone serves what its disk says, and for as long as it is told to.
    cluster.kill(0);
    let name = ["--name", "n0", "--set", "node.stale_max_ms=16000"];
    let alone = Node::start(&cluster.data(0), &name);
    alone.wait_for("/v2/models/machine-failure/ready", |_| true);
    let answer = alone.post("/v2/models/machine-failure/infer", ROW);
    assert!(
        answer.status == 200 || answer.failure().0 == "STALE",
        "{answer:?}"
    );
    assert!(seconds(&answer) < 60);
    until(LIMIT, "it stops serving", || {
        let answer = alone.post("/v2/models/machine-failure/infer", ROW);
        answer.status == 503 && answer.failure().0 == "STALE"
    });
    cluster.nodes[0] = Some(alone);
    cluster.restart(1);
    cluster.restart(2);
    cluster.settle();
    until(LIMIT, "it serves again", || {
        let answer = cluster
            .node(0)
            .post("/v2/models/machine-failure/infer", ROW);
        answer.status == 200 && answer.header("paceline-stale").is_none()
    });
    let written = cluster.node(0).cli(&["token", "create"]);
    assert!(
        written.status.success(),
        "healed, it takes writes: {written:?}"
    );
}
