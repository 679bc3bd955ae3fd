//! Clients that have seen more than this node: which peers it asks in its place, how often, and
//! what is told when they do not answer.

use std::time::Duration;

use paceline_protocol::frame::{ClientInfer, Execution};
use paceline_protocol::{Criticality, ErrorCode, TenantId, Tensor};

use super::model;
use super::trio::{AHEAD, Act, Asked, Trio, executions};
use crate::gateway::infer::{Content, InferBody};
use crate::gateway::quic::{ClientAnswer, ClientFailure, ClientRequest, Door};
use crate::tenants::Caller;

fn request(idempotent: bool, budget_us: u64) -> ClientRequest {
    let head = ClientInfer {
        model: model(),
        version: None,
        budget_us,
        attempt: 1,
        epoch_seen: AHEAD,
        idempotent,
        inputs: vec!["INPUT0".to_owned()],
        outputs: Vec::new(),
        lost: None,
        criticality: Criticality::default(),
        tenant: TenantId::DEFAULT,
        unit: None,
        sequence: None,
        in_parts: false,
    };
    let inputs = vec![Tensor::from_f32(2, &[1.0, 2.0])];
    ClientRequest { head, inputs }
}

/// Sends a request while the peers do this.
async fn play(
    trio: &Trio,
    acts: &[Act],
    request: ClientRequest,
) -> (Result<ClientAnswer, (ErrorCode, Execution)>, Asked) {
    trio.set(acts);
    let ended = Door::infer(&trio.serving, request).await;
    let told = |failed: ClientFailure| (failed.failure.code, failed.execution);
    (ended.map_err(told), trio.rest().await)
}

const LONG_US: u64 = 20_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_on_runs_twice_at_most_and_is_never_told_as_not_run_if_it_may_have()
{
    let trio = Trio::start().await;
    trio.say_more().await;
    let (ended, asked) = play(&trio, &[Act::Answer], request(true, LONG_US)).await;
    assert_eq!(ended.unwrap().epoch, AHEAD);
    assert_eq!(executions(&asked), [1]);
    // One that stops has not taken it.
    let (ended, asked) = play(&trio, &[Act::Gone, Act::Answer], request(false, LONG_US)).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [1, 1]);
    let silent = [Act::FallSilent, Act::Answer];
    let (ended, asked) = play(&trio, &silent, request(true, LONG_US)).await;
    ended.unwrap();
    assert_eq!(executions(&asked), [1, 2]);
    let unreachable = Err((ErrorCode::Unreachable, Execution::Unknown));
    let (ended, asked) = play(&trio, &[Act::FallSilent], request(false, LONG_US)).await;
    assert_eq!(ended, unreachable, "it may not run twice");
    assert_eq!(executions(&asked), [1]);
    let both = [Act::FallSilent, Act::FallSilent];
    let (ended, asked) = play(&trio, &both, request(true, LONG_US)).await;
    assert_eq!(ended, unreachable);
    assert_eq!(executions(&asked), [1, 2]);
    let full = Act::Fail(ErrorCode::QueueFull, Execution::NotExecuted);
    let (ended, _) = play(&trio, &[full], request(true, LONG_US)).await;
    assert_eq!(ended, Err((ErrorCode::QueueFull, Execution::NotExecuted)));
    let (ended, _) = play(&trio, &[Act::FallSilent, full], request(true, LONG_US)).await;
    let unknown = Err((ErrorCode::QueueFull, Execution::Unknown));
    assert_eq!(ended, unknown, "the first one may have run it");
    // It has been waited for until nothing was left.
    let (ended, asked) = play(&trio, &[], request(true, 1_000)).await;
    let late = Err((ErrorCode::DeadlineExceeded, Execution::NotExecuted));
    assert_eq!(ended, late);
    assert!(asked.is_empty(), "{asked:?}");
    trio.node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_outputs_that_are_not_known_here_is_told_as_such() {
    let trio = Trio::start().await;
    trio.say_more().await;
    let body = r#"{"inputs":[{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let body = || InferBody {
        model: "m",
        version: None,
        content: Content::json(body),
        epoch_seen: Some(AHEAD),
        caller: Caller::ANONYMOUS,
        unit: None,
        sequence: None,
    };
    trio.set(&[Act::AnswerElse]);
    let failure = trio.serving.infer(body()).await.err().unwrap();
    assert_eq!(failure.code, ErrorCode::Internal);
    assert!(failure.message.contains("was executed"), "{failure}");
    assert_eq!(executions(&trio.rest().await), [1]);
    trio.set(&[Act::Answer]);
    let answered = trio.serving.infer(body()).await.ok().unwrap();
    assert_eq!(answered.epoch, AHEAD);
    trio.node.shutdown(Duration::from_secs(5)).await;
}
