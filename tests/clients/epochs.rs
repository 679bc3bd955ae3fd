//! What an epoch is worth to a client: it never falls, whichever node answers.

use std::sync::atomic::Ordering;

use paceline_client::{Client, ErrorCode, Execution};

use super::door::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answers_epoch_never_falls_for_a_client() {
    let cluster = Cluster::found();
    let doors = [cluster.door(1), cluster.door(2)];
    let reached = [
        (doors[0].node, doors[0].address),
        (doors[1].node, doors[1].address),
    ];
    doors.iter().for_each(|door| door.knows(&reached));
    let client = Client::connect([doors[0].seed()], cluster.options());
    let client = client.await.unwrap();
    while client.nodes().len() != 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let mut highest = 0;
    let mut answered = [0u32; 2];
    for round in 0..200u64 {
        // The registry moves on, now on the one node first and now on the other, which is then
        // alone with what it knows.
        let first = (round / 20) as usize % 2;
        doors[first]
            .double
            .epoch
            .fetch_max(10 + round, Ordering::SeqCst);
        let request = client.infer("fresh").deadline(PATIENCE);
        let answer = request.send().await.unwrap();
        assert!(
            answer.epoch.0 >= highest,
            "round {round}: {} after {highest}",
            answer.epoch
        );
        highest = answer.epoch.0;
        answered[answer.node.0 as usize - 1] += 1;
    }
    assert!(answered.iter().all(|count| *count >= 20), "{answered:?}");
    let asked: Vec<usize> = doors
        .iter()
        .map(|door| door.double.asked_for("fresh"))
        .collect();
    let refused = asked.iter().sum::<usize>() - 200;
    assert!(refused >= 20, "a node that was behind was asked: {asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_rather_than_shown_less_where_nobody_knows_more() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = Client::connect([door.seed()], cluster.options());
    let client = client.await.unwrap();
    door.double.epoch.store(7, Ordering::SeqCst);
    let seen = client.infer("fresh").send().await.unwrap();
    assert_eq!((seen.epoch.0, seen.stale), (7, None));
    // As after a restart from an older disk without a quorum.
    door.double.epoch.store(6, Ordering::SeqCst);
    let error = client.infer("fresh").send().await.unwrap_err();
    assert_eq!(
        (error.code, error.execution, error.is_retryable),
        (ErrorCode::Stale, Execution::NotExecuted, true)
    );
    assert_eq!(door.double.asked_for("fresh"), 2, "asked once each time");
}
