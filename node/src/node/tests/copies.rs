//! An artifact whose second keeper is gone is fetched by the next one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paceline_core::copies::keepers;
use paceline_core::registry::Registry;
use paceline_models::CostCurve;
use paceline_protocol::registry::{Change, NodeAddresses, NodeRecord, VersionRecord};
use paceline_protocol::{
    Digest, Dim, Dtype, ModelName, NodeId, ShapePattern, Signature, TenantName, TensorSpec,
};

use super::World;
use crate::artifacts::{Artifacts, Fetcher, serve};
use crate::node::{Network, NodeHandle};
use crate::registry::fresh_op;
use crate::storage::MemoryDisk;
use crate::transport::Transport;
use crate::transport::memory::MemoryNetwork;

const HERE: NodeId = NodeId(1);
const HOLDER: NodeId = NodeId(2);
const LEAVER: NodeId = NodeId(3);

async fn write(node: &NodeHandle, change: Change) {
    let op = fresh_op().unwrap();
    node.registry.write(op, change).await.unwrap();
}

async fn admit(node: &NodeHandle, id: NodeId) {
    let record = NodeRecord {
        id,
        name: format!("n{id}"),
        zone: String::new(),
        addresses: NodeAddresses::default(),
        devices: Vec::new(),
    };
    write(node, Change::RegisterNode(record)).await;
}

async fn publish(node: &NodeHandle, model: &str, digest: Digest) {
    let spec = TensorSpec {
        name: "x".into(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(vec![Dim::Any]),
    };
    let version = Box::new(VersionRecord {
        digest,
        family: "identity".into(),
        signature: Signature {
            inputs: vec![spec.clone()],
            outputs: vec![spec],
        },
        rows_max: 8,
        finite_inputs: false,
        artifact_bytes: 1,
        memory_bytes: 1,
        one_row_ns: 1,
        full_batch_ns: 8,
        golden: Vec::new(),
    });
    let change = Change::PublishVersion {
        model: ModelName::new(model).unwrap(),
        owner: TenantName::default(),
        version,
    };
    write(node, change).await;
}

/// An artifact that `registry` has kept by exactly these two.
fn kept_by(store: &Artifacts, registry: &Registry, two: [NodeId; 2]) -> Digest {
    let mut tried = (0..1_000u32).map(|number| {
        let content = number.to_le_bytes();
        store.store_files(&[("weights", &content)]).unwrap()
    });
    let is_theirs = |digest: &Digest| {
        let keepers = keepers(registry, *digest);
        keepers[..2].iter().all(|keeper| two.contains(keeper))
    };
    tried.find(is_theirs).expect("a third of all are")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_node_kept_is_kept_by_the_next_one() {
    let network = MemoryNetwork::new(1);
    let world = World::new(CostCurve::default());
    let node = world.start_on(Network::Memory(network.clone()));
    let node = node.await.unwrap();
    let store = Artifacts::open(Arc::new(MemoryDisk::new())).unwrap();
    for peer in [HOLDER, LEAVER] {
        let transport = network.join(peer);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        transport.set_peers(BTreeMap::from([(HERE, nowhere)]));
        if peer == HOLDER {
            tokio::spawn(serve(Fetcher::new(store.clone(), transport)));
        }
        admit(&node, peer).await;
    }
    let registry = node.registry.current();
    let own = kept_by(&store, &registry, [HERE, HOLDER]);
    let theirs = kept_by(&store, &registry, [HOLDER, LEAVER]);
    publish(&node, "theirs", theirs).await;
    publish(&node, "own", own).await;
    let here = |digest| node.artifacts.source(digest).is_ok();
    let until = async |digest| {
        let waiting = async {
            while !here(digest) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await
    };
    until(own).await.expect("it keeps what is its own to keep");
    assert!(!here(theirs), "two others keep it");
    write(&node, Change::RemoveNode { node: LEAVER }).await;
    until(theirs).await.expect("it takes over");
    node.shutdown(Duration::from_secs(5)).await;
}
