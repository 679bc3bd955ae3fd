//! A node that drains: what its deadline ends, what it refuses then, and that it comes back.

use paceline_core::registry::NodeState;

use super::*;

const DEADLINE: Duration = Duration::from_millis(150);
/// A batch takes longer than the drain may.
const BATCH: Duration = Duration::from_millis(500);

async fn until(node: &NodeHandle, is_so: impl Fn(&NodeHandle) -> bool) {
    let waiting = async {
        while !is_so(node) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    waited.expect("it comes to that");
}

fn state(node: &NodeHandle) -> NodeState {
    let state = node.registry.current().node_state(NodeId::FOUNDER);
    state.expect("it has a seat")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_at_a_drains_deadline_ends_with_a_status_that_may_be_sent_again() {
    let world = World::new(CostCurve {
        fixed_us: BATCH.as_micros() as u64,
        per_row_us: 0,
    });
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(30)).await);
    let serving = serving(&node);
    let running = serving.clone();
    let running = tokio::spawn(async move { infer(&running, "").await });
    until(&node, |node| node.device.occupancy().0 == 1).await;

    let begun_at = std::time::Instant::now();
    let drain = Change::Drain {
        node: NodeId::FOUNDER,
        deadline_ms: DEADLINE.as_millis() as u64,
        computed_at: node.registry.current().epoch(),
    };
    let op = registry::fresh_op().unwrap();
    node.registry.write(op, drain).await.unwrap();
    until(&node, |node| !node.readiness.is_ready()).await;
    assert!(
        matches!(state(&node), NodeState::Draining { .. }),
        "what runs is waited for"
    );
    assert_eq!(running.await.unwrap(), Err(ErrorCode::ShuttingDown));
    let took = begun_at.elapsed();
    assert!(took >= DEADLINE && took < BATCH, "{took:?}");
    until(&node, |node| {
        matches!(state(node), NodeState::Drained { .. })
    })
    .await;
    let refused = infer(&serving, "").await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");

    let undrain = Change::Undrain {
        node: NodeId::FOUNDER,
    };
    let op = registry::fresh_op().unwrap();
    node.registry.write(op, undrain).await.unwrap();
    until(&node, |node| node.readiness.is_ready()).await;
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    assert!(infer(&serving, "").await.is_ok());
    node.shutdown(Duration::from_secs(5)).await;
}
