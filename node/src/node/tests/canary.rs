//! Canaries on a whole node: a version that errs is aborted by itself and gets nothing more, one that
//! is good is promoted by itself, and units keep their version.

use std::collections::BTreeMap;

use paceline_core::registry::Model;
use paceline_protocol::registry::{CanaryGuards, CanaryPlan, CanaryStage, ReplicaTarget};
use paceline_protocol::traffic::{self, Unit};
use paceline_protocol::{Epoch, TenantName};

use super::*;
use crate::registry::fresh_op;
use crate::tenants::Caller;

/// Another version of the model, which its author calls by this name.
pub(super) async fn publish(node: &NodeHandle, name: &str) -> VersionNumber {
    let toml = std::str::from_utf8(FILES[0].1).unwrap();
    let toml = toml.replace("name = \"m\"", &format!("name = \"{name}\""));
    let toml: &'static str = Box::leak(toml.into_boxed_str());
    let files: &'static [(&str, &[u8])] = Box::leak(Box::new([("model.toml", toml.as_bytes())]));
    let artifacts = node.artifacts.clone();
    let digest = tokio::task::spawn_blocking(move || artifacts.store_files(files).unwrap());
    let stored = (digest.await.unwrap(), toml.len() as u64);
    let published = node.publisher.publish_stored(
        (model(), TenantName::default()),
        stored,
        (fresh_op().unwrap(), None),
    );
    published.await.unwrap().version
}

async fn begin(node: &NodeHandle, version: VersionNumber, stages: &[(u16, u64)]) -> Epoch {
    let stages = stages.iter();
    let plan = Box::new(CanaryPlan {
        version,
        replicas: ReplicaTarget::Count(1),
        stages: stages
            .map(|&(weight, hold_ms)| CanaryStage { weight, hold_ms })
            .collect(),
        guards: CanaryGuards {
            requests_min: 50,
            ..CanaryGuards::default()
        },
    });
    let change = Change::BeginCanary {
        model: model(),
        plan,
    };
    let written = node.registry.write(fresh_op().unwrap(), change).await;
    let since = written.unwrap().0;
    until(node, "the canary has its share", |model| {
        model
            .canary
            .as_ref()
            .is_some_and(|canary| canary.weight() > 0)
    })
    .await;
    assert!(
        node.router
            .wait_for(node.registry.current().epoch(), LIMIT)
            .await
    );
    since
}

pub(super) async fn until(node: &NodeHandle, what: &str, is_so: impl Fn(&Model) -> bool) {
    let waiting = async {
        while !is_so(&node.registry.current().models()[&model()]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    assert!(
        waited.is_ok(),
        "{what}: {:?}",
        node.registry.current().models()[&model()]
    );
}

/// The version that answers a unit, or the error.
pub(super) async fn ask(serving: &Serving, unit: Option<&str>) -> Result<u32, ErrorCode> {
    let body = InferBody {
        model: "m",
        version: None,
        content: Content::json(BODY),
        epoch_seen: None,
        caller: Caller::ANONYMOUS,
        unit: unit.map(|unit| Unit::new(unit).unwrap()),
        sequence: None,
    };
    let answered = serving.infer(body).await;
    let answered = answered.map_err(|failure| failure.code)?;
    Ok(answered.version.0)
}

pub(super) async fn started(world: &World) -> NodeHandle {
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), LIMIT).await);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_errs_is_aborted_by_itself_and_gets_no_request_after() {
    let world = World::new(CostCurve::default());
    let node = started(&world).await;
    let serving = serving(&node);
    let bad = publish(&node, "bad").await;
    begin(&node, bad, &[(1_000, 600_000)]).await;
    world.engine.script().fail_model(Some("bad"));
    let (mut asked, mut failed) = (0, 0);
    let ended = |node: &NodeHandle| {
        let registry = node.registry.current();
        let model = &registry.models()[&model()];
        model.ended.clone().and_then(|ended| ended.aborted)
    };
    let deadline = tokio::time::Instant::now() + LIMIT;
    let reason = loop {
        if let Some(reason) = ended(&node) {
            break reason;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{failed} of {asked} failed"
        );
        asked += 1;
        match ask(&serving, None).await {
            Ok(version) => assert_eq!(version, 1),
            Err(code) => {
                assert_eq!(code, ErrorCode::EngineFailed);
                failed += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(
        (3..200).contains(&failed),
        "{failed} of {asked} before: {reason}"
    );
    assert!(failed * 4 < asked, "a tenth: {failed} of {asked}");
    assert!(reason.contains("requests failed"), "{reason}");
    assert!(
        node.router
            .wait_for(node.registry.current().epoch(), LIMIT)
            .await
    );
    for _ in 0..300 {
        assert_eq!(ask(&serving, None).await, Ok(1), "after: {reason}");
    }
    until(&node, "its replica goes", |_| {
        let registry = node.registry.current();
        registry.replicas_of(&model(), bad).len() == 0
    })
    .await;
    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_is_promoted_and_units_keep_theirs_while_it_grows() {
    let world = World::new(CostCurve::default());
    let node = started(&world).await;
    let serving = serving(&node);
    let good = publish(&node, "good").await;
    let since = begin(&node, good, &[(2_000, 400), (5_000, 400)]).await;
    let salt = traffic::salt(&model(), since);
    let (mut answers, mut seen) = (0, BTreeMap::<String, u32>::new());
    let mut by_weight = BTreeMap::<u16, (f64, f64)>::new();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let weight = |node: &NodeHandle| {
            let registry = node.registry.current();
            let model = &registry.models()[&model()];
            let canary = model.canary.as_ref().map(|canary| canary.weight());
            (canary, model.serving)
        };
        let before = weight(&node);
        if before.1 == Some(good) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{before:?} after {answers}"
        );
        let unit = format!("user-{}", answers % 500);
        let version = ask(&serving, Some(&unit)).await.unwrap();
        answers += 1;
        // Nobody goes back.
        let known = seen.insert(unit.clone(), version);
        assert!(
            known <= Some(version),
            "{unit} was given {known:?}, then {version}"
        );
        let alone = ask(&serving, None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let (Some(share), true) = (before.0, weight(&node) == before) {
            let is_in = traffic::is_in(traffic::bucket(&salt, unit.as_bytes()), share);
            let wanted = if is_in { good.0 } else { 1 };
            // The routes may be a moment behind the registry: they follow, and then all fits.
            let counted = by_weight.entry(share).or_default();
            if version == wanted {
                *counted = (counted.0 + f64::from(alone == good.0), counted.1 + 1.0);
            }
        }
    }
    for (share, (tried, all)) in by_weight.iter().filter(|(_, (_, all))| *all >= 100.0) {
        let wanted = f64::from(*share) / 1e4;
        // Five standard deviations, and a moment in which routes are behind.
        let bound = 5.0 * (wanted * (1.0 - wanted) / all).sqrt() + 0.02;
        assert!(
            (tried / all - wanted).abs() < bound,
            "{tried} of {all} at {share}"
        );
    }
    assert!(
        by_weight.values().any(|(_, all)| *all >= 100.0),
        "{by_weight:?}"
    );
    let registry = node.registry.current();
    let model = &registry.models()[&model()];
    let ended = model.ended.as_ref().unwrap();
    assert_eq!((ended.stage, &ended.aborted), (Some(1), &None));
    assert_eq!(model.previous, Some(VersionNumber(1)));
    node.shutdown(Duration::from_secs(5)).await;
}

const LIMIT: Duration = Duration::from_secs(20);
const BODY: &str = r#"{"inputs":[{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
