//! Nodes that vanish, leave, stop and come back, while requests are on their way.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use paceline_client::{Client, ClientOptions, ErrorCode, Execution, NodeId, Tensor};

use super::door::{Cluster, PATIENCE, Running, limits};
use super::proxy::Proxy;

/// Two nodes, each behind a wire that can be cut, and a client that is connected with both.
struct Pair {
    cluster: Cluster,
    doors: [Running; 2],
    wires: [Proxy; 2],
    client: Client,
}

impl Pair {
    async fn start() -> Self {
        let cluster = Cluster::found();
        let doors = [cluster.door(1), cluster.door(2)];
        let wires = [
            Proxy::to(doors[0].address).await,
            Proxy::to(doors[1].address).await,
        ];
        let reached = [(NodeId(1), wires[0].address), (NodeId(2), wires[1].address)];
        doors.iter().for_each(|door| door.knows(&reached));
        // One seed is enough: the node behind it names the other.
        let seed = wires[0].address.to_string();
        // Slower to suspect than by default: this machine pauses for others.
        let options = ClientOptions {
            suspect_after: Duration::from_secs(1),
            lost_after: Duration::from_secs(3),
            ..cluster.options()
        };
        let client = Client::connect([seed], options).await.unwrap();
        connected(&client, 2).await;
        Self {
            cluster,
            doors,
            wires,
            client,
        }
    }

    /// Which of the two was asked for a model first.
    async fn asked(&self, model: &str) -> usize {
        let [one, two] = &self.doors;
        let is_one = tokio::select! {
            () = one.double.until(|double| double.asked_for(model) > 0) => true,
            () = two.double.until(|double| double.asked_for(model) > 0) => false,
        };
        usize::from(!is_one)
    }
}

async fn connected(client: &Client, nodes: usize) {
    let waiting = async {
        while client.nodes().len() != nodes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("{:?} are connected, not {nodes}", client.nodes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_vanishes_without_a_word_is_replaced_within_the_request() {
    let pair = Pair::start().await;
    let request = pair.client.infer("stuck-once").deadline(PATIENCE);
    let sending = tokio::spawn(request.send());
    let vanished = pair.asked("stuck-once").await;
    let other = 1 - vanished;
    pair.wires[vanished].cut();
    let answer = sending.await.unwrap().unwrap();
    assert_eq!(answer.node, pair.doors[other].node);
    assert_eq!(answer.attempt, 2);
    assert!(pair.wires[vanished].swallowed() > 0, "the wire was cut");
    let asked = pair.doors[other].double.asked();
    assert_eq!(asked.len(), 1, "one more attempt, and no third");
    assert_eq!(asked[0].attempt, 2);

    // Then it is given up, and everything goes to the other one.
    connected(&pair.client, 1).await;
    for _ in 0..20 {
        let answer = pair
            .client
            .infer("echo")
            .deadline(PATIENCE)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.node, pair.doors[other].node);
    }
    // And when it is back, it is connected again.
    pair.wires[vanished].mend();
    connected(&pair.client, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_to_another_node_only_before_its_first_part() {
    let pair = Pair::start().await;
    let stream = |model: &str| {
        let rows = Tensor::from_f32(1, &[1.0, 2.0, 3.0]);
        pair.client.infer(model).input("x", rows).stream()
    };
    let mut parts = stream("stuck-once");
    let taking = tokio::spawn(async move { (parts.next().await, parts) });
    let vanished = pair.asked("stuck-once").await;
    let other = 1 - vanished;
    pair.wires[vanished].cut();
    let (first, mut parts) = taking.await.unwrap();
    let first = first.unwrap().unwrap();
    assert_eq!(first.node, pair.doors[other].node);
    assert_eq!(parts.next().await.unwrap().unwrap().first_row, 1);
    assert_eq!(parts.next().await.unwrap().unwrap().first_row, 2);
    assert!(parts.next().await.is_none(), "three rows, and the end");
    assert_eq!(pair.doors[other].double.asked()[0].attempt, 2);

    let mut parts = stream("stuck-midway");
    assert_eq!(parts.next().await.unwrap().unwrap().first_row, 0);
    pair.wires[other].cut();
    let lost = parts.next().await.unwrap().unwrap_err();
    assert_eq!(lost.code, ErrorCode::Unreachable);
    assert_eq!(
        lost.execution,
        Execution::Executed,
        "its first part was here"
    );
    assert!(parts.next().await.is_none(), "there is one end");
    let asked = pair.doors.iter().map(|door| &door.double);
    let asked: usize = asked.map(|double| double.asked_for("stuck-midway")).sum();
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_may_not_run_twice_is_not_sent_twice() {
    let pair = Pair::start().await;
    let request = pair.client.infer("stuck-once").idempotent(false);
    let sending = tokio::spawn(request.deadline(PATIENCE).send());
    let vanished = pair.asked("stuck-once").await;
    pair.wires[vanished].cut();
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable);
    assert_eq!(
        (error.execution, error.is_retryable),
        (Execution::Unknown, false)
    );
    assert!(pair.doors[1 - vanished].double.asked().is_empty());
    assert!(!pair.doors[vanished].double.asked()[0].idempotent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_second_node_says_the_first_may_have_run_it() {
    let pair = Pair::start().await;
    let request = pair.client.infer("stuck-then-full").deadline(PATIENCE);
    let sending = tokio::spawn(request.send());
    let vanished = pair.asked("stuck-then-full").await;
    pair.wires[vanished].cut();
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(
        (error.code, error.execution),
        (ErrorCode::QueueFull, Execution::Unknown)
    );
    assert!(pair.wires[vanished].swallowed() > 0, "the wire was cut");
    let attempts = pair.doors.each_ref().map(|door| {
        let asked = door.double.asked();
        asked.iter().map(|asked| asked.attempt).collect::<Vec<_>>()
    });
    assert_eq!(attempts[vanished], [1]);
    assert_eq!(attempts[1 - vanished], [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_vanish_while_nothing_is_asked_are_missed_all_the_same() {
    let pair = Pair::start().await;
    pair.wires.iter().for_each(Proxy::cut);
    connected(&pair.client, 0).await;
    pair.wires.iter().for_each(Proxy::mend);
    let request = pair.client.infer("echo").deadline(PATIENCE);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.attempt, 1, "nothing was sent into the void");
    let asked = pair.doors.each_ref();
    let asked = asked.map(|door| door.double.asked_for("echo"));
    assert_eq!(asked.iter().sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_may_still_answer_when_there_is_no_other() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let wire = Proxy::to(door.address).await;
    door.knows(&[(NodeId(1), wire.address)]);
    let options = ClientOptions {
        lost_after: PATIENCE,
        ..cluster.options()
    };
    let client = Client::connect([wire.address.to_string()], options)
        .await
        .unwrap();
    let sleepy = Arc::new(client.clone());
    let sending =
        tokio::spawn(async move { sleepy.infer("sleepy").deadline(PATIENCE).send().await });
    door.double
        .until(|double| double.asked_for("sleepy") == 1)
        .await;
    wire.cut();
    tokio::time::sleep(Duration::from_millis(600)).await;
    wire.mend();
    let answer = sending.await.unwrap().unwrap();
    assert_eq!(answer.attempt, 1);
    client
        .infer("echo")
        .deadline(PATIENCE)
        .send()
        .await
        .expect("it is well again");
}

/// Signs of life are acknowledged although nothing else is said: a slow answer is no lost node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_works_for_longer_than_silence_may_last_is_not_given_up() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let options = ClientOptions {
        suspect_after: Duration::from_secs(1),
        lost_after: Duration::from_secs(2),
        ..cluster.options()
    };
    let client = Client::connect([door.seed()], options).await.unwrap();
    let answer = client.infer("slow").deadline(PATIENCE).send().await;
    assert_eq!(answer.unwrap().attempt, 1);
    assert_eq!(door.double.asked_for("slow"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_and_comes_back_is_found_again() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = Client::connect([door.seed()], cluster.options())
        .await
        .unwrap();
    client.infer("echo").send().await.unwrap();
    let address = door.address;
    door.accepting.abort();
    door.endpoint.close(quinn::VarInt::from_u32(0), b"dies");
    door.endpoint.wait_idle().await;
    drop(door);
    connected(&client, 0).await;
    let short = Duration::from_millis(200);
    let error = client
        .infer("echo")
        .deadline(short)
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.execution),
        (ErrorCode::Unreachable, Execution::NotExecuted)
    );
    let socket = tokio::time::timeout(PATIENCE, async {
        loop {
            match UdpSocket::bind(address) {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let door = cluster.door_on(1, socket.await.unwrap(), limits());
    let answer = client
        .infer("echo")
        .deadline(PATIENCE)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.node, door.node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let pair = Pair::start().await;
    let request = pair.client.infer("stuck").deadline(PATIENCE);
    let sending = tokio::spawn(request.send());
    let leaver = pair.asked("stuck").await;
    let stayer = 1 - leaver;
    pair.doors[leaver].leaving.send_replace(true);
    // The word has to arrive; until then the node serves as before.
    let waiting = async {
        loop {
            let before = pair.doors[leaver].double.asked_for("echo");
            for _ in 0..20 {
                pair.client
                    .infer("echo")
                    .deadline(PATIENCE)
                    .send()
                    .await
                    .unwrap();
            }
            if pair.doors[leaver].double.asked_for("echo") == before {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert!(pair.doors[stayer].double.asked_for("echo") >= 20);
    assert_eq!(
        pair.doors[leaver].double.cancelled(),
        0,
        "what it had goes on"
    );
    sending.abort();
    pair.doors[leaver]
        .double
        .until(|double| double.cancelled() == 1)
        .await;

    // It stays after all, and is asked again.
    pair.doors[leaver].leaving.send_replace(false);
    let asked = pair.doors[leaver].double.asked_for("echo");
    let waiting = async {
        while pair.doors[leaver].double.asked_for("echo") == asked {
            pair.client
                .infer("echo")
                .deadline(PATIENCE)
                .send()
                .await
                .unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    drop(pair.cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_fails_no_request() {
    let pair = Pair::start().await;
    // Some that may run twice, and some that may not: none is lost or counted as an attempt.
    let load = (0..8).map(|number| {
        let client = pair.client.clone();
        tokio::spawn(async move {
            let mut answered = [0u32; 2];
            for _ in 0..400 {
                let request = client.infer("sleepy").idempotent(number % 2 == 0);
                let answer = request.deadline(PATIENCE).send().await.unwrap();
                // What a node refuses while it stops is no attempt; what it closes over is one.
                assert!(answer.attempt <= 2);
                answered[answer.node.0 as usize - 1] += 1;
            }
            answered
        })
    });
    let load: Vec<_> = load.collect();
    let stopped = &pair.doors[0];
    stopped
        .double
        .until(|double| double.asked_for("sleepy") > 20)
        .await;
    stopped.stopping.send_replace(true);
    for answered in load {
        let answered = answered.await.unwrap();
        assert!(answered[1] >= 20, "{answered:?}");
    }
    let closed = tokio::time::timeout(PATIENCE, stopped.endpoint.wait_idle()).await;
    closed.expect("the endpoint closes");
}
