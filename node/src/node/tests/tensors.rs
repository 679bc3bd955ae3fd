//! Requests that arrive as tensors, by name.

use std::time::Duration;

use paceline_models::CostCurve;
use paceline_protocol::{Epoch, ErrorCode, Tensor, VersionNumber};

use super::{FILES, World, model, serving};
use crate::gateway::infer::{Serving, TensorAnswer, TensorRequest};

fn request(input: &str) -> TensorRequest {
    TensorRequest {
        model: "m".to_owned(),
        version: None,
        inputs: vec![(input.to_owned(), Tensor::from_f32(2, &[1.0, 2.0]))],
        outputs: Vec::new(),
        budget_us: 10_000_000,
        epoch_seen: Epoch(0),
        is_idempotent: true,
        is_second: false,
    }
}

async fn ask(serving: &Serving, request: TensorRequest) -> Result<TensorAnswer, ErrorCode> {
    let answered = serving.infer_tensors(request).await;
    answered.map_err(|unanswered| unanswered.failure.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tensors_by_name_take_the_same_way_as_json() {
    let world = World::new(CostCurve::default());
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let serving = serving(&node);

    let answer = ask(&serving, request("INPUT0")).await.unwrap();
    assert_eq!(answer.version, VersionNumber(1));
    assert_eq!(answer.epoch, serving.router.routes().epoch);
    let names: Vec<&str> = answer
        .outputs
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["OUTPUT0"]);
    assert_eq!(answer.outputs[0].1.rows(), 1);

    assert_eq!(
        ask(&serving, request("other")).await,
        Err(ErrorCode::InputUnknown)
    );
    let other = |model: &str, outputs: &[&str]| TensorRequest {
        model: model.to_owned(),
        outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
        ..request("INPUT0")
    };
    assert_eq!(
        ask(&serving, other("m", &["x"])).await,
        Err(ErrorCode::OutputUnknown)
    );
    assert_eq!(
        ask(&serving, other("x", &[])).await,
        Err(ErrorCode::ModelNotFound)
    );
    let text = serving.metrics.render();
    let refused = "protocol=\"quic\",code=\"MODEL_NOT_FOUND\"} 1";
    assert!(text.contains(refused), "{text}");

    // A node that is behind waits for what the caller has seen, and not for ever.
    let before = tokio::time::Instant::now();
    let ahead = TensorRequest {
        epoch_seen: Epoch(u64::MAX),
        ..request("INPUT0")
    };
    ask(&serving, ahead).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(50));
    node.shutdown(Duration::from_secs(5)).await;
}
