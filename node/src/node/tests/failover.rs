//! A router whose replicas are on other nodes: what is tried elsewhere, how often, and what a
//! client is told.

use std::time::{Duration, Instant};

use paceline_core::budget::{Budget, Extra};
use paceline_protocol::frame::Execution;
use paceline_protocol::registry::Change;
use paceline_protocol::{Criticality, ErrorCode, TenantId, Tensor, TokenId};

use super::trio::{Act, PEERS, Trio, executions};
use crate::gateway::infer::{Content, InferBody, TensorAnswer, TensorRequest, Unanswered};
use crate::registry;
use crate::tenants::Caller;

fn request() -> TensorRequest {
    TensorRequest {
        model: "m".to_owned(),
        version: None,
        inputs: vec![("INPUT0".to_owned(), Tensor::from_f32(2, &[1.0, 2.0]))],
        outputs: Vec::new(),
        budget_us: 20_000_000,
        is_idempotent: true,
        is_second: false,
        lost: None,
        criticality: Criticality::default(),
        tenant: TenantId::DEFAULT,
        unit: None,
        sequence: None,
    }
}

fn once() -> TensorRequest {
    TensorRequest {
        is_idempotent: false,
        ..request()
    }
}

fn second() -> TensorRequest {
    TensorRequest {
        is_second: true,
        ..request()
    }
}

fn told(ended: Result<TensorAnswer, Unanswered>) -> (ErrorCode, Execution) {
    let unanswered = ended.unwrap_err();
    (unanswered.failure.code, unanswered.execution)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_run_goes_elsewhere_and_what_failed_runs_once_more_alone() {
    let trio = Trio::start().await;
    for terms in [request(), once()] {
        let (ended, asked) = trio.play(&[Act::Gone, Act::Answer], terms).await;
        ended.unwrap();
        assert_eq!(executions(&asked), [1, 1]);
    }
    let busy = Act::Fail(ErrorCode::QueueFull, Execution::NotExecuted);
    let (ended, asked) = trio.play(&[busy, Act::Answer], once()).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [1, 1]);
    let failing = Act::Fail(ErrorCode::EngineFailed, Execution::Executed);
    let (ended, asked) = trio.play(&[failing, Act::Answer], request()).await;
    ended.unwrap();
    assert_eq!(
        executions(&asked),
        [1, 2],
        "the second shares its batch with nobody"
    );
    let (ended, _) = trio.play(&[failing], once()).await;
    assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Executed));
    let (ended, _) = trio.play(&[failing, busy], request()).await;
    assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Executed));
    let (ended, asked) = trio.play(&[busy, busy], request()).await;
    assert_eq!(told(ended), (ErrorCode::QueueFull, Execution::NotExecuted));
    assert_eq!(asked.len(), 2, "there is no third");
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_gone_everywhere_is_looked_for_anew_and_then_told() {
    let trio = Trio::start().await;
    // Both say so, and both are asked again once anything has changed.
    let acts = [Act::Gone, Act::Gone, Act::Gone, Act::Answer];
    let change = async {
        trio.until("both were asked", || {
            trio.script.asked.lock().unwrap().len() == 2
        })
        .await;
        let token = Change::RevokeToken {
            token: TokenId([7; 8]),
        };
        // Refused, but an entry like any other.
        let op = registry::fresh_op().unwrap();
        trio.node.registry.write(op, token).await.unwrap_err();
    };
    let ((ended, asked), ()) = tokio::join!(trio.play(&acts, request()), change);
    ended.unwrap();
    assert_eq!(asked.len(), 4);
    // Whatever changes, they are gone: it has its time, and is told.
    let before = Instant::now();
    trio.set(&[Act::Gone; 1_000]);
    let ended = trio.serving.infer_tensors(request()).await;
    trio.script.acts.lock().unwrap().clear();
    let asked = trio.rest().await;
    let gone = (ErrorCode::VersionGone, Execution::NotExecuted);
    assert_eq!(told(ended), gone);
    assert!(before.elapsed() >= Duration::from_secs(2));
    assert!(asked.iter().all(|(_, execution)| *execution == 1));
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_replaced_once_and_the_second_one_is_poison() {
    let trio = Trio::start().await;
    let (ended, asked) = trio.play(&[Act::FallSilent, Act::Answer], request()).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [1, 2]);

    let poison = (ErrorCode::Poison, Execution::Unknown);
    let (ended, asked) = trio
        .play(&[Act::FallSilent, Act::FallSilent], request())
        .await;
    assert_eq!(told(ended), poison);
    assert_eq!(executions(&asked), [1, 2], "and no third");

    // Whatever the second one says instead, the first may have run it.
    let unreachable = (ErrorCode::Unreachable, Execution::Unknown);
    let full = Act::Fail(ErrorCode::QueueFull, Execution::NotExecuted);
    for second in [full, Act::Gone] {
        let (ended, asked) = trio.play(&[Act::FallSilent, second], request()).await;
        assert_eq!(told(ended), unreachable, "{second:?}");
        assert_eq!(executions(&asked), [1, 2]);
    }
    let text = trio.serving.metrics.render();
    let counted = "paceline_gateway_extra_attempts_total{why=\"failover\"} 4";
    assert!(text.contains(counted), "{text}");
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_died_over_runs_once_more_however_many_retry() {
    let trio = Trio::start().await;
    // It has taken a whole batch along, and the fifth that is for retries is spent.
    let spend = |budget: &mut Budget| (0..).take_while(|_| budget.take(Extra::Retry)).count();
    let spent = trio.serving.budget.decide(spend);
    let failing = Act::Fail(ErrorCode::EngineFailed, Execution::Executed);
    let died = Act::Fail(ErrorCode::EngineFailed, Execution::Unknown);
    trio.set(&[failing]);
    let ended = trio.serving.infer_tensors(request()).await;
    assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Executed));
    trio.set(&[died, Act::Answer]);
    trio.serving.infer_tensors(request()).await.unwrap();
    let give_back = |budget: &mut Budget| (0..spent).for_each(|_| budget.give_back(Extra::Retry));
    trio.serving.budget.decide(give_back);
    assert_eq!(executions(&trio.rest().await), [1, 2], "alone");

    let (ended, _) = trio.play(&[died, died], request()).await;
    assert_eq!(told(ended), (ErrorCode::Poison, Execution::Unknown));
    let (ended, _) = trio.play(&[died], once()).await;
    assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Unknown));
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_run_twice_and_what_a_client_sends_again_runs_once() {
    let trio = Trio::start().await;
    let unreachable = (ErrorCode::Unreachable, Execution::Unknown);
    let (ended, asked) = trio.play(&[Act::FallSilent], once()).await;
    assert_eq!(told(ended), unreachable);
    assert_eq!(executions(&asked), [1]);
    let (ended, asked) = trio.play(&[Act::FallSilent], second()).await;
    assert_eq!(told(ended), unreachable);
    assert_eq!(executions(&asked), [2], "the client's second is the last");
    let (ended, asked) = trio.play(&[Act::Gone, Act::Answer], second()).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [2, 2], "the first of them did not run");
    // Whom the client has lost is not asked, though nobody here calls it silent yet.
    for _ in 0..8 {
        let lost = TensorRequest {
            lost: Some(PEERS[0]),
            ..second()
        };
        let (ended, asked) = trio.play(&[Act::Answer], lost).await;
        ended.unwrap();
        assert_eq!(asked, [(PEERS[1], 2)]);
    }

    // The same flag, as HTTP has it.
    for parameter in ["\"idempotent\":false", "\"sequence_id\":7"] {
        trio.set(&[Act::FallSilent]);
        let body = format!(
            r#"{{"parameters":{{{parameter}}},"inputs":[{{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[1,2]}}]}}"#
        );
        let body = InferBody {
            model: "m",
            version: None,
            content: Content::json(body),
            epoch_seen: None,
            caller: Caller::ANONYMOUS,
            unit: None,
            sequence: None,
        };
        let failure = trio.serving.infer(body).await.err().unwrap();
        assert_eq!(failure.code, ErrorCode::Unreachable);
        assert_eq!(executions(&trio.rest().await), [1]);
    }
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_fails_is_left_out_and_comes_back_by_one_request() {
    let trio = Trio::start().await;
    let failing = Act::Fail(ErrorCode::EngineFailed, Execution::Executed);
    let left_out = "paceline_router_ejections_total 1";
    let mut asked = Vec::new();
    while !trio.serving.metrics.render().contains(left_out) {
        let (ended, of) = trio.play(&[failing], once()).await;
        assert_eq!(told(ended), (ErrorCode::EngineFailed, Execution::Executed));
        asked.extend(of);
        assert!(asked.len() < 10, "five at one of them: {asked:?}");
    }
    let (out, _) = asked[asked.len() - 1];
    assert_eq!(trio.serving.router.ejected(), 1);
    for _ in 0..16 {
        let (ended, asked) = trio.play(&[Act::Answer], once()).await;
        ended.unwrap();
        assert!(asked.iter().all(|(node, _)| *node != out), "{asked:?}");
    }
    // Its time is over after a second and a quarter at most. What may not run twice tries nothing.
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let (_, asked) = trio.play(&[Act::Answer], once()).await;
    assert_ne!(asked, [(out, 1)]);
    let (ended, asked) = trio.play(&[Act::Answer], request()).await;
    ended.unwrap();
    assert_eq!(asked, [(out, 1)], "its probe");
    assert_eq!(trio.serving.router.ejected(), 0);
    trio.node.shutdown(Duration::from_secs(5)).await;
}
