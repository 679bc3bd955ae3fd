//! Shadows on a whole node: callers get the answers of the version that serves whatever becomes of
//! the copies, which are counted, compared and bounded.

use paceline_protocol::registry::{ReplicaTarget, ShadowPlan};
use paceline_protocol::traffic;

use super::canary::{ask, publish, started, until};
use super::*;
use crate::registry::fresh_op;

/// Lets a version have copies of a share of the requests, and waits until it can.
async fn shade(node: &NodeHandle, version: VersionNumber, weight: u16) {
    let plan = ShadowPlan {
        version,
        replicas: ReplicaTarget::Count(1),
        weight,
    };
    let model = model();
    write(node, Change::SetShadow { model, plan }).await;
    let is_ready = async {
        loop {
            let routes = node.router.routes();
            let route = routes.model("m").unwrap();
            if route.versions.get(&version).is_some_and(|of| of.ready > 0) {
                return;
            }
            drop(routes);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), is_ready).await;
    assert!(waited.is_ok(), "the shadow is not ready");
}

async fn write(node: &NodeHandle, change: Change) {
    let written = node.registry.write(fresh_op().unwrap(), change).await;
    let epoch = written.unwrap().0;
    assert!(node.router.wait_for(epoch, Duration::from_secs(20)).await);
}

/// A counter of the shadow, version 2.
fn counted(node: &NodeHandle, name: &str, label: &str) -> u64 {
    let text = node.serving.metrics.render();
    let series = format!("paceline_shadow_{name}_total{{model=\"m\",version=\"2\",{label}}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .parse()
        .unwrap()
}

fn copies(node: &NodeHandle, end: &str) -> u64 {
    counted(node, "copies", &format!("end=\"{end}\""))
}

async fn settled(node: &NodeHandle) {
    let ends = async {
        while copies(node, "sent") != copies(node, "answered") + copies(node, "failed") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ends).await;
    assert!(ended.is_ok(), "copies do not end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_fails_is_seen_by_no_caller_and_its_copies_are_counted() {
    let world = World::new(CostCurve::default());
    let node = started(&world).await;
    let serving = serving(&node);
    let other = publish(&node, "other").await;
    shade(&node, other, traffic::WEIGHT_ALL).await;
    for _ in 0..100 {
        assert_eq!(ask(&serving, None).await, Ok(1));
    }
    settled(&node).await;
    // It answers by the same rule, so every row is the same.
    let answered = copies(&node, "answered");
    assert!(answered > 0, "{}", node.serving.metrics.render());
    assert_eq!(answered + copies(&node, "dropped_full"), 100);
    assert_eq!(counted(&node, "rows", "agreement=\"equal\""), answered);
    assert_eq!(counted(&node, "rows", "agreement=\"different\""), 0);

    world.engine.script().fail_model(Some("other"));
    for _ in 0..100 {
        assert_eq!(ask(&serving, None).await, Ok(1), "the callers see nothing");
    }
    settled(&node).await;
    assert!(copies(&node, "failed") > 0);
    assert_eq!(copies(&node, "answered"), answered);

    let model = model();
    write(&node, Change::EndShadow { model }).await;
    let sent = copies(&node, "sent");
    assert_eq!(ask(&serving, None).await, Ok(1));
    assert_eq!(copies(&node, "sent"), sent, "none is sent any more");
    until(&node, "its replica goes", |_| {
        let registry = node.registry.current();
        registry.replicas_of(&super::model(), other).len() == 0
    })
    .await;
    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_always_copied_or_never() {
    let world = World::new(CostCurve::default());
    let node = started(&world).await;
    let serving = serving(&node);
    let other = publish(&node, "other").await;
    shade(&node, other, 3_000).await;
    let mut seen = 0;
    for user in 0..40 {
        let unit = format!("user-{user}");
        let before = copies(&node, "sent");
        let mut drawn = Vec::new();
        for _ in 0..3 {
            let before = copies(&node, "sent");
            assert_eq!(ask(&serving, Some(&unit)).await, Ok(1));
            drawn.push(copies(&node, "sent") - before);
            settled(&node).await;
        }
        assert!(drawn == [0; 3] || drawn == [1; 3], "{unit}: {drawn:?}");
        seen += usize::from(copies(&node, "sent") > before);
    }
    // 12 of 40, with a standard deviation of 3.
    assert!((1..=28).contains(&seen), "{seen} of 40 users");
    node.shutdown(Duration::from_secs(5)).await;
}
