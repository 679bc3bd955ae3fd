//! Requests that are answered, refused, cancelled, late, large and many.

use std::sync::atomic::Ordering;
use std::time::Duration;

use paceline_client::{
    Client, ClientOptions, Epoch, ErrorCode, Execution, Tensor, VersionNumber, blocking,
};

use super::door::{Cluster, PATIENCE, Running};

fn row(values: &[f32]) -> Tensor {
    Tensor::from_f32(values.len(), values)
}

async fn client_of(cluster: &Cluster, door: &Running) -> Client {
    Client::connect([door.seed()], cluster.options())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_names_version_epoch_and_node() {
    let cluster = Cluster::found();
    let door = cluster.door(5);
    door.double.epoch.store(812, Ordering::SeqCst);
    let client = client_of(&cluster, &door).await;
    assert_eq!(client.epoch(), Epoch(812), "the welcome tells it");
    let (a, b) = (row(&[1.0, 2.0]), row(&[3.0]));
    let answer = client
        .infer("echo")
        .input("b", b.clone())
        .input("a", a.clone())
        .output("a")
        .version(VersionNumber(3))
        .deadline(PATIENCE)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.output("a"), Some(&a));
    assert_eq!(answer.output("b"), Some(&b));
    assert_eq!(answer.output("c"), None);
    assert_eq!(
        (answer.version, answer.epoch),
        (VersionNumber(3), Epoch(812))
    );
    assert_eq!((answer.node, answer.attempt), (door.node, 1));
    let asked = &door.double.asked()[0];
    assert_eq!(asked.inputs, ["b", "a"]);
    assert_eq!(asked.outputs, ["a"]);
    assert_eq!(asked.version, Some(VersionNumber(3).into()));
    assert_eq!((asked.attempt, asked.idempotent), (1, true));
    assert!(asked.budget_us <= PATIENCE.as_micros() as u64 && asked.budget_us > 0);
    assert!(
        door.metrics
            .render()
            .contains("paceline_gateway_quic_connections 1")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_refuses_is_typed_and_asked_once() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = client_of(&cluster, &door).await;
    let error = client.infer("gone").send().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::VersionGone);
    assert_eq!(error.execution, Execution::NotExecuted);
    assert_eq!(error.retry_after, Some(Duration::from_millis(40)));
    assert_eq!((error.is_retryable, error.node), (true, Some(door.node)));
    assert_eq!(error.to_string(), "VERSION_GONE: as the test wants it");
    let error = client.infer("nothing").send().await.unwrap_err();
    assert_eq!(
        (error.code, error.is_retryable),
        (ErrorCode::ModelNotFound, false)
    );
    assert_eq!(
        door.double.asked().len(),
        2,
        "what a node answered is final"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_refused_here() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let options = ClientOptions {
        in_flight_max: 1,
        ..cluster.options()
    };
    let client = Client::connect([door.seed()], options).await.unwrap();
    let error = client.infer("No Model").send().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ParameterInvalid);
    let many = (0..65).fold(client.infer("echo"), |request, _| request.output("x"));
    let error = many.send().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ParameterInvalid);
    let huge = Tensor::from_f32(1, &vec![0.0; (64 << 18) + 1]);
    let error = client
        .infer("echo")
        .input("x", huge)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(door.double.asked().is_empty());

    let stuck = tokio::spawn(client.infer("stuck").send());
    door.double
        .until(|double| double.asked_for("stuck") == 1)
        .await;
    let error = client.infer("echo").send().await.unwrap_err();
    assert_eq!((error.code, error.node), (ErrorCode::Overloaded, None));
    assert_eq!(error.execution, Execution::NotExecuted);
    stuck.abort();
    drop(stuck.await);
    client.infer("echo").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_dropped_is_cancelled_at_the_node() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = client_of(&cluster, &door).await;
    let large = Tensor::from_f32(1, &vec![1.0; 100_000]);
    for (already, input) in [(0, row(&[1.0])), (1, large)] {
        let request = client.infer("stuck").input("x", input).deadline(PATIENCE);
        let sending = tokio::spawn(request.send());
        let asked = already + 1;
        door.double
            .until(|double| double.asked_for("stuck") == asked)
            .await;
        assert_eq!(door.double.cancelled(), already as u64);
        sending.abort();
        door.double
            .until(|double| double.cancelled() == asked as u64)
            .await;
        client
            .infer("echo")
            .send()
            .await
            .expect("the connection is as good as before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_request_here_and_there() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = client_of(&cluster, &door).await;
    let budget = Duration::from_millis(200);
    let error = client
        .infer("stuck")
        .deadline(budget)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert_eq!(error.execution, Execution::Unknown);
    door.double.until(|double| double.cancelled() == 1).await;
    assert!(door.double.asked()[0].budget_us <= 200_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_epoch_goes_along_and_never_falls() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = client_of(&cluster, &door).await;
    for (epoch, highest) in [(10, 10), (5, 10), (11, 11)] {
        door.double.epoch.store(epoch, Ordering::SeqCst);
        let answer = client.infer("echo").send().await.unwrap();
        assert_eq!(answer.epoch, Epoch(epoch));
        assert_eq!(client.epoch(), Epoch(highest));
    }
    client.clone().infer("echo").send().await.unwrap();
    let seen: Vec<u64> = door
        .double
        .asked()
        .iter()
        .map(|asked| asked.epoch_seen.0)
        .collect();
    assert_eq!(seen, [1, 10, 10, 11]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_tensors_go_both_ways() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = client_of(&cluster, &door).await;
    let values: Vec<f32> = (0..5 << 20).map(|value| value as f32).collect();
    let tensor = Tensor::from_f32(1 << 10, &values);
    let request = client.infer("echo").input("x", tensor.clone());
    let answer = request.deadline(PATIENCE).send().await.unwrap();
    assert!(
        answer.output("x") == Some(&tensor),
        "20 MiB come back as they were"
    );
    // A large answer to a small request comes beside the lane.
    let request = client.infer("large").deadline(PATIENCE);
    let (large, small) = tokio::join!(request.send(), client.infer("echo").send());
    assert_eq!(
        large.unwrap().output("large").unwrap().data().len(),
        4 << 20
    );
    small.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_find_their_own_answers() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let client = client_of(&cluster, &door).await;
    let callers = (0..64u16).map(|caller| {
        let client = client.clone();
        tokio::spawn(async move {
            for turn in 0..20u16 {
                let model = if turn % 5 == 0 { "sleepy" } else { "echo" };
                // Some have a stream of their own.
                let columns = if turn % 7 == 0 { 10_000 } else { 16 };
                let input = row(&vec![f32::from(caller * 20 + turn); columns]);
                let request = client.infer(model).input("x", input.clone());
                let answer = request.deadline(PATIENCE).send().await.unwrap();
                assert!(answer.output("x") == Some(&input));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(door.double.asked().len(), 64 * 20);
    assert_eq!(door.double.cancelled(), 0);
}

#[test]
fn code_without_a_runtime_has_the_same_client() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = Cluster::found();
    let door = runtime.block_on(async { cluster.door(2) });
    let client = blocking::Client::connect([door.seed()], cluster.options()).unwrap();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|value| {
                let request = client.infer("echo").input("x", row(&[value as f32]));
                scope.spawn(move || request.deadline(PATIENCE).send().unwrap())
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (value, answer) in answers.iter().enumerate() {
        assert_eq!(answer.output("x"), Some(&row(&[value as f32])));
    }
    let error = client.infer("gone").send().unwrap_err();
    assert_eq!(error.code, ErrorCode::VersionGone);
    assert_eq!(client.epoch(), Epoch(1));
}
