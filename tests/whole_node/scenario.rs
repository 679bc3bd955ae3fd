//! One run: a cluster is used, and suffers one thing after another as its seed says.
//!
//! Before each fault and after all of them everything has to be well again within bounds, and
//! while it is well and while a node drains nothing may fail.

use std::time::Duration;

use paceline_core::Random;
use paceline_node::transport::memory::LinkTiming;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::clients::Clients;
use crate::history::History;
use crate::models::{LONE, MODELS};
use crate::spectator;
use crate::trace::Trace;
use crate::world::{Life, NODES, World};

/// What can happen to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The leader loses power and comes back.
    LeaderDies,
    /// Another node does, for longer than it takes to be given up.
    FollowerDies,
    /// Voters lose power in the middle of their disks' work while a leader is elected.
    VotersDie,
    /// All nodes lose power at once.
    AllDie,
    /// Nobody hears the leader, and it hears nobody.
    LeaderAlone,
    /// The leader is not heard by one node, which it hears.
    HalfDeaf,
    /// The leader stands still for a while.
    LeaderStalls,
    /// Links lose and delay.
    BadLine,
    /// A node leaves and comes back, over long links.
    Drain,
}

/// Runs it; returns the trace, and what was wrong.
pub(crate) async fn run(seed: u64) -> (String, Vec<String>) {
    let trace = Trace::begin();
    let mut world = World::begin(seed, trace.clone()).await;
    let history = History::new(trace.clone());
    let clients = Clients::new(
        world.sights.clone(),
        world.ledger.clone(),
        history.clone(),
        trace.clone(),
    );
    let watching = spectator::watch(world.sights.clone(), trace.clone(), history.clone());
    let mut tasks = vec![tokio::spawn(watching)];
    let body = format!(
        r#"{{"version":1,"replicas":{{"count":1}},"op":"{}"}}"#,
        op(&mut world)
    );
    let path = format!("/v2/paceline/models/{LONE}/deploy");
    post(&world.sights.all()[0], &clients, &path, &body).await;
    recover(&mut world, &clients).await;
    for number in 0..OPERATORS {
        let random = Random::stream(seed, &format!("operator {number}"));
        tasks.push(tokio::spawn(clients.clone().operate(random)));
    }
    for number in 0..CALLERS {
        let random = Random::stream(seed, &format!("caller {number}"));
        tasks.push(tokio::spawn(clients.clone().infer(None, random)));
    }
    for fault in plan(seed) {
        clients.calm.set(true);
        sleep(Duration::from_millis(300 + world.random.below(500))).await;
        trace.note(format_args!("fault {fault:?}"));
        clients.calm.set(fault == Fault::Drain);
        history.count("faults");
        suffer(&mut world, &clients, fault).await;
        clients.calm.set(false);
        recover(&mut world, &clients).await;
    }
    clients.calm.set(true);
    sleep(Duration::from_secs(1)).await;
    tasks.iter().for_each(JoinHandle::abort);
    check_work(&history);
    for (what, count) in history.counts() {
        trace.note(format_args!("{count} × {what}"));
    }
    let (writes, digest) = world.network.traffic();
    trace.note(format_args!("network {writes} writes, {digest:016x}"));
    (trace.text(), history.verdict())
}

/// What happens, in which order: what the tests are named for always does, the rest by chance.
fn plan(seed: u64) -> Vec<Fault> {
    let mut random = Random::stream(seed, "plan");
    let mut plan = vec![
        Fault::LeaderDies,
        Fault::LeaderAlone,
        Fault::LeaderStalls,
        Fault::VotersDie,
        Fault::Drain,
    ];
    let others = [
        Fault::FollowerDies,
        Fault::AllDie,
        Fault::HalfDeaf,
        Fault::BadLine,
    ];
    plan.extend(others.into_iter().filter(|_| random.below(2) == 0));
    for left in (1..plan.len()).rev() {
        plan.swap(left, random.below(left as u64 + 1) as usize);
    }
    plan
}

async fn suffer(world: &mut World, clients: &Clients, fault: Fault) {
    match fault {
        Fault::LeaderDies => {
            let leader = world.leader().await;
            world.kill(leader);
            pause(world, 400, 3_000).await;
        }
        Fault::FollowerDies => {
            let leader = world.leader().await;
            world.kill((leader + 1) % NODES);
            pause(world, 4_000, 7_000).await;
        }
        Fault::VotersDie => voters_die(world).await,
        Fault::AllDie => {
            (0..NODES).for_each(|position| world.kill(position));
            pause(world, 10, 500).await;
        }
        Fault::LeaderAlone => {
            let leader = world.leader().await;
            world.partition(leader);
            pause(world, 500, 4_000).await;
        }
        Fault::HalfDeaf => {
            let leader = world.leader().await;
            let deaf = (leader + 1 + world.random.below(2) as usize) % NODES;
            world.network.cut(world.node(leader), world.node(deaf));
            pause(world, 500, 4_000).await;
        }
        Fault::LeaderStalls => {
            let leader = world.leader().await;
            let life = world.sights.of(world.node(leader)).expect("it leads");
            world.stall(leader);
            for _ in 0..2 {
                tokio::spawn(clients.clone().read_at(life.clone()));
            }
            pause(world, 600, 2_500).await;
        }
        Fault::BadLine => {
            world.network.set_timing(BAD_LINE);
            pause(world, 1_000, 3_000).await;
            world.network.set_timing(GOOD_LINE);
        }
        Fault::Drain => drain(world, clients).await,
    }
}

/// The leader dies, and whoever is about to vote dies soon after: what it promised must be on
/// its disk. Each node starts alone, so that it is seen with what its disk says and no more.
async fn voters_die(world: &mut World) {
    for _ in 0..2 {
        let leader = world.leader().await;
        world.kill(leader);
        let voters: Vec<usize> = (0..NODES).filter(|voter| *voter != leader).collect();
        for voter in &voters {
            let operations = 1 + world.random.below(6);
            world.cut_power_after(*voter, operations);
        }
        pause(world, 300, 700).await;
        // Whoever still lives is not spared: its next operation may come at any later time.
        voters.iter().for_each(|voter| world.kill(*voter));
        (0..NODES).for_each(|position| world.partition(position));
        world.start_all().await;
        pause(world, 10, 20).await;
        world.heal();
    }
}

/// The node with the lone replica leaves and comes back, a few times: each time another one.
async fn drain(world: &mut World, clients: &Clients) {
    let callers = (0..LATE_CALLERS).map(|number| {
        let random = Random::stream(world.random.next_u64(), &format!("late caller {number}"));
        tokio::spawn(clients.clone().infer(Some(LONE), random))
    });
    let callers: Vec<_> = callers.collect();
    for _ in 0..3 {
        let leaving = host(world).await;
        lead(world, leaving).await;
        let leader = world.leader().await;
        let node = world.node(leaving).0;
        let leads = world.sights.of(world.node(leader)).expect("it leads");
        // Who lags behind sends requests to a node that has left meanwhile.
        world.network.set_timing(LONG_LINE);
        let body = format!(r#"{{"deadline_ms":60000,"op":"{}"}}"#, op(world));
        let path = format!("/v2/paceline/nodes/{node}/drain");
        post(&leads, clients, &path, &body).await;
        let drained = async {
            while state_of(world, leader, node).await != "drained" {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(DRAIN_MAX, drained).await.is_err() {
            let what = format!("{node} was not drained in {DRAIN_MAX:?}");
            clients.history.violation(what);
        }
        clients.trace.note(format_args!("drained {node}"));
        world.network.set_timing(GOOD_LINE);
        let body = format!(r#"{{"op":"{}"}}"#, op(world));
        let path = format!("/v2/paceline/nodes/{node}/undrain");
        post(&leads, clients, &path, &body).await;
        clients.history.count("drains");
        pause(world, 200, 400).await;
    }
    callers.iter().for_each(JoinHandle::abort);
}

/// Lets this node lead, as far as consensus agrees: a leader that leaves has to hand over first.
async fn lead(world: &World, position: usize) {
    let leader = world.leader().await;
    if let Some(life) = world
        .sights
        .of(world.node(leader))
        .filter(|_| leader != position)
    {
        let deadline = Instant::now() + Duration::from_secs(2);
        let moved = life
            .raft
            .transfer_leader(world.node(position), deadline)
            .await;
        world
            .trace
            .note(format_args!("leadership moves: {moved:?}"));
    }
}

/// Where the lone replica is.
async fn host(world: &World) -> usize {
    let state = world.sights.all()[0].raft.state();
    let mut replicas = state.replicas().values();
    let lone = replicas.find(|assignment| assignment.model.as_str() == LONE);
    let node = lone.expect("it is deployed").node;
    world.position(node).expect("a member")
}

/// A write that has to succeed.
async fn post(life: &Life, clients: &Clients, path: &str, body: &str) {
    let answered = life.reach().ask("POST", path, body.as_bytes()).await;
    let code = answered.map_or("LOST".to_owned(), |answer| answer.code());
    clients.trace.note(format_args!("{path}: {code}"));
    if code != "OK" {
        clients.history.violation(format!("{path}: {code}"));
    }
}

fn op(world: &mut World) -> String {
    format!("{:032x}", world.random.next_u64())
}

async fn state_of(world: &World, asked: usize, node: u64) -> String {
    let Some(life) = world.sights.of(world.node(asked)) else {
        return String::new();
    };
    let answered = life.reach().ask("GET", "/v2/paceline/nodes", b"").await;
    let nodes = answered.map(|answer| answer.json()).unwrap_or_default();
    let mut nodes = nodes.as_array().into_iter().flatten();
    let found = nodes.find(|view| view["id"].as_u64() == Some(node));
    let state = found.and_then(|view| view["state"].as_str());
    state.unwrap_or_default().to_owned()
}

/// Takes all faults away; then everything has to be well before long.
async fn recover(world: &mut World, clients: &Clients) {
    world.heal();
    world.bury_ended();
    world.start_all().await;
    let began = Instant::now();
    let well = async {
        while !is_well(world).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(RECOVERY_MAX, well).await.is_err() {
        let what = format!("not everything was well {RECOVERY_MAX:?} after the last fault");
        clients.history.violation(what);
    }
    let took = began.elapsed().as_millis();
    clients.trace.note(format_args!("well after {took} ms"));
}

/// Whether all nodes are up, follow one leader, and answer for every model.
async fn is_well(world: &World) -> bool {
    let lives = world.sights.all();
    let leaders: Vec<_> = lives
        .iter()
        .map(|life| life.raft.metrics().leader)
        .collect();
    let agree = leaders.windows(2).all(|pair| pair[0] == pair[1]) && leaders[0].is_some();
    if lives.len() != NODES || !agree {
        return false;
    }
    for life in lives {
        let door = life.reach();
        let get = async |path: &str| {
            let answered = door.ask("GET", path, b"").await;
            answered.map(|answer| answer.json()).unwrap_or_default()
        };
        let status = get("/v2/paceline/status").await;
        let voters = status["raft"]["voters"].as_array().map_or(0, Vec::len);
        if status["ready"] != true || status["quorum"] != true || voters != NODES {
            return false;
        }
        let nodes = get("/v2/paceline/nodes").await;
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        if nodes.len() != NODES || nodes.iter().any(|node| node["state"] != "up") {
            return false;
        }
        let models = get("/v2/paceline/models").await;
        let models = models.as_array().cloned().unwrap_or_default();
        let is_whole = |model: &serde_json::Value| {
            let replicas = model["replicas"].as_array().cloned().unwrap_or_default();
            let ready = replicas
                .iter()
                .filter(|replica| replica["state"] == "ready");
            let wanted = if model["name"] == LONE { 1 } else { NODES };
            model["ready"] == true && ready.count() == wanted && replicas.len() == wanted
        };
        if models.len() != MODELS.len() || !models.iter().all(is_whole) {
            return false;
        }
    }
    true
}

/// A run that proves nothing fails.
fn check_work(history: &History) {
    let least = [
        ("infer OK", 500),
        ("read OK", 50),
        ("write OK", 30),
        ("faults", 5),
        ("drains", 3),
        ("leaders", 3),
    ];
    for (what, least) in least {
        let count = history.counted(what);
        if count < least {
            let what = format!("only {count} × {what}, {least} at least prove something");
            history.violation(what);
        }
    }
}

async fn pause(world: &mut World, least_ms: u64, most_ms: u64) {
    let ms = least_ms + world.random.below(most_ms - least_ms);
    sleep(Duration::from_millis(ms)).await;
}

const GOOD_LINE: LinkTiming = LinkTiming {
    delay_min_us: 100,
    delay_max_us: 500,
    loss_permille: 0,
};
/// Within what heartbeats of 50 ms bear there and back. What is lost comes late on its own plane
/// only, so that a node learns from consensus what it has not heard on the mesh, or the reverse.
const LONG_LINE: LinkTiming = LinkTiming {
    delay_min_us: 1_000,
    delay_max_us: 20_000,
    loss_permille: 150,
};
const BAD_LINE: LinkTiming = LinkTiming {
    delay_min_us: 500,
    delay_max_us: 8_000,
    loss_permille: 50,
};
const OPERATORS: usize = 4;
const CALLERS: usize = 3;
const LATE_CALLERS: usize = 24;
/// Everything is well again so soon after the last fault: an election, a node that is given up
/// and comes back, replicas that are placed and loaded.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
const DRAIN_MAX: Duration = Duration::from_secs(10);
