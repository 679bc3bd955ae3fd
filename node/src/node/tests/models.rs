//! What doors tell of models on a whole node, and loading them at the same time.

use std::time::Duration;

use paceline_models::CostCurve;
use paceline_protocol::registry::{Change, ReplicaTarget};
use paceline_protocol::{Digest, VersionNumber};

use super::{FILES, World, model};
use crate::gateway::Models;
use crate::gateway::models::{State, VersionState};
use crate::node::NodeHandle;
use crate::registry;
use crate::tenants::Caller;

const LIMIT: Duration = Duration::from_secs(10);

fn models(node: &NodeHandle) -> Models {
    Models {
        registry: node.registry.clone(),
        router: node.serving.router.clone(),
        observed: node.serving.observed.clone(),
        clock: node.serving.clock,
    }
}

async fn write(node: &NodeHandle, change: Change) {
    let op = registry::fresh_op().unwrap();
    node.registry.write(op, change).await.unwrap();
}

async fn started() -> NodeHandle {
    let node = World::new(CostCurve::default()).start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), LIMIT).await);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_deployed_and_has_no_place_is_listed_with_the_reason() {
    let node = started().await;
    let registry = node.registry.current();
    let known = &registry.models()[&model()];
    let mut record = known.versions[&VersionNumber(1)].record.clone();
    // More than any machine has.
    record.memory_bytes = 1 << 60;
    record.digest = Digest([7; 32]);
    let owner = known.owner.clone();
    let publish = Change::PublishVersion {
        model: model(),
        owner,
        version: Box::new(record),
    };
    write(&node, publish).await;
    let version = VersionNumber(2);
    let deploy = Change::Deploy {
        model: model(),
        version,
        replicas: ReplicaTarget::Count(1),
    };
    write(&node, deploy).await;
    let models = models(&node);
    let told = models.index(false);
    let states: Vec<_> = told
        .iter()
        .map(|told| (told.version.0, told.state))
        .collect();
    assert_eq!(states, [(1, State::Ready), (2, State::Unavailable)]);
    assert!(told[1].reason.contains("no replica"), "{told:?}");
    assert_eq!(models.index(true), told[..1]);
    let summary = models.summary("m").unwrap();
    assert!(summary.is_ready, "the version before serves on");
    let failure = summary.versions.last().and_then(VersionState::failure);
    assert_eq!(failure, Some(told[1].reason.as_str()));
    node.shutdown(Duration::from_secs(5)).await;
}

/// Each finds the model unloaded, and one of them is the first to deploy it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_at_the_same_time_all_succeed() {
    let node = started().await;
    let models = models(&node);
    for _ in 0..5 {
        models.unload(Caller::ANONYMOUS, "m").await.unwrap();
        let loads = (0..4).map(|_| {
            let models = models.clone();
            tokio::spawn(async move { models.load(Caller::ANONYMOUS, "m").await })
        });
        for load in loads.collect::<Vec<_>>() {
            load.await.unwrap().unwrap();
        }
        let route = models.router.routes();
        assert!(route.resolve("m", None).is_ok_and(|route| route.ready > 0));
    }
    node.shutdown(Duration::from_secs(5)).await;
}
