//! The registry: state, command, exact outcome.

use paceline_protocol::limits::OP_IDS_REMEMBERED;
use paceline_protocol::registry::{DeviceKind, DeviceRecord, NodeAddresses, ReplicaTarget};
use paceline_protocol::{DeviceId, Digest, Dtype, OpId, ShapePattern, Signature, TensorSpec};

use super::*;

mod labels;
mod members;
mod shadow;
mod tenants;
mod traffic;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn record(digest: u8) -> VersionRecord {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(vec![paceline_protocol::Dim::Any]),
    };
    VersionRecord {
        digest: Digest([digest; 32]),
        family: "identity".into(),
        signature: Signature {
            inputs: vec![spec("a")],
            outputs: vec![spec("b")],
        },
        rows_max: 64,
        finite_inputs: false,
        artifact_bytes: 10,
        memory_bytes: 20,
        one_row_ns: 1_000,
        full_batch_ns: 2_000,
        golden: Vec::new(),
    }
}

fn node(id: u64, name: &str) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        name: name.into(),
        zone: "a".into(),
        addresses: NodeAddresses::default(),
        devices: vec![DeviceRecord {
            kind: DeviceKind::Cpu,
            lanes: 2,
            memory_bytes: 1 << 30,
        }],
    }
}

/// Applies changes at rising indices, each under its own op-id.
struct Log {
    registry: Registry,
    index: u64,
}

impl Log {
    fn new() -> Self {
        Self {
            registry: Registry::default(),
            index: 0,
        }
    }

    fn op(&mut self, op: u128, change: Change) -> Outcome {
        self.index += 1;
        let command = Command {
            schema: SCHEMA,
            op: OpId(op),
            stamped_ms: 7,
            expected_revision: None,
            change,
        };
        self.registry.apply(self.index, &command)
    }

    /// A change by somebody who has seen this revision of the model.
    fn expecting(&mut self, revision: u64, change: Change) -> Result<Reply, Refusal> {
        self.index += 1;
        let command = Command {
            schema: SCHEMA,
            op: OpId(5_000_000 + u128::from(self.index)),
            stamped_ms: 7,
            expected_revision: Some(Epoch(revision)),
            change,
        };
        self.registry.apply(self.index, &command).result
    }

    fn apply(&mut self, change: Change) -> Result<Reply, Refusal> {
        let op = 1_000_000 + u128::from(self.index);
        self.op(op, change).result
    }

    fn publish(&mut self, model: &str, digest: u8) -> Result<Reply, Refusal> {
        let owner = TenantName::default();
        let version = Box::new(record(digest));
        self.apply(Change::PublishVersion {
            model: name(model),
            owner,
            version,
        })
    }

    fn deploy(&mut self, model: &str, version: u32) -> Result<Reply, Refusal> {
        let (version, replicas) = (VersionNumber(version), ReplicaTarget::Count(1));
        self.apply(Change::Deploy {
            model: name(model),
            version,
            replicas,
        })
    }

    fn drain(&mut self, node: NodeId) -> Result<Reply, Refusal> {
        let computed_at = self.registry.epoch();
        self.apply(Change::Drain {
            node,
            deadline_ms: 60_000,
            computed_at,
        })
    }

    fn assign(&mut self, model: &str, version: u32, computed_at: Epoch) -> Result<Reply, Refusal> {
        self.apply(Change::Assign {
            model: name(model),
            version: VersionNumber(version),
            node: NodeId(1),
            device: DeviceId(0),
            computed_at,
        })
    }
}

#[test]
fn versions_are_numbered_by_apply_and_the_same_artifact_is_the_same_version() {
    let mut log = Log::new();
    let version = |number, created| Reply::Published {
        version: VersionNumber(number),
        created,
    };
    assert_eq!(log.publish("m", 1), Ok(version(1, true)));
    assert_eq!(log.publish("m", 2), Ok(version(2, true)));
    assert_eq!(log.publish("m", 1), Ok(version(1, false)));
    assert_eq!(log.publish("other", 1), Ok(version(1, true)));
    let model = &log.registry.models()[&name("m")];
    assert_eq!(model.versions[&VersionNumber(2)].published_ms, 7);
}

#[test]
fn a_model_belongs_to_who_published_it_first() {
    let mut log = Log::new();
    log.publish("m", 1).unwrap();
    let before = log.registry.clone();
    let refused = log.apply(Change::PublishVersion {
        model: name("m"),
        owner: TenantName::new("other").unwrap(),
        version: Box::new(record(2)),
    });
    assert_eq!(refused, Err(Refusal::OwnerDiffers { model: name("m") }));
    assert_eq!(log.registry.models(), before.models());
}

#[test]
fn a_repeated_op_gets_its_first_answer_and_changes_nothing() {
    let mut log = Log::new();
    let publish = |digest| Change::PublishVersion {
        model: name("m"),
        owner: TenantName::default(),
        version: Box::new(record(digest)),
    };
    let first = log.op(5, publish(1));
    let again = log.op(5, publish(2));
    assert_eq!(again, first);
    assert_eq!(log.registry.models()[&name("m")].versions.len(), 1);
    assert_eq!(log.registry.epoch(), Epoch(2));
    let missing = Change::DeleteModel {
        model: name("absent"),
    };
    let refused = log.op(6, missing.clone());
    assert!(refused.result.is_err());
    log.publish("absent", 3).unwrap();
    assert_eq!(log.op(6, missing), refused, "a refusal is remembered too");
    assert!(log.registry.models().contains_key(&name("absent")));
}

#[test]
fn the_oldest_op_is_forgotten_first_and_memory_stays_bounded() {
    let mut log = Log::new();
    log.publish("m", 1).unwrap();
    let first = log.op(1, Change::DeleteModel { model: name("m") });
    assert!(first.result.is_ok());
    for op in 2..OP_IDS_REMEMBERED as u128 + 1 {
        log.op(op, Change::DeleteModel { model: name("m") });
    }
    assert_eq!(
        log.op(1, Change::DeleteModel { model: name("m") }),
        first,
        "still remembered"
    );
    log.op(u128::MAX, Change::DeleteModel { model: name("m") });
    let late = log.op(1, Change::DeleteModel { model: name("m") });
    assert!(
        late.result.is_err(),
        "forgotten, so it is tried again: {late:?}"
    );
}

#[test]
fn a_replica_is_named_by_the_entry_that_assigned_it() {
    let mut log = Log::new();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    log.publish("m", 1).unwrap();
    log.deploy("m", 1).unwrap();
    let at = log.registry.epoch();
    assert_eq!(log.assign("m", 1, at), Ok(Reply::Assigned(ReplicaId(4))));
    let outdated = Refusal::Outdated {
        computed_at: at,
        changed_at: Epoch(4),
    };
    assert_eq!(log.assign("m", 1, at), Err(outdated));
    let model = name("m");
    let replicas: Vec<_> = log.registry.replicas_of(&model, VersionNumber(1)).collect();
    assert_eq!(replicas.len(), 1);
    assert_eq!(replicas[0].1.node, NodeId(1));
}

#[test]
fn commands_about_what_does_not_exist_are_refused_by_name() {
    let mut log = Log::new();
    log.publish("m", 1).unwrap();
    log.publish("m", 2).unwrap();
    let unknown = Refusal::VersionUnknown {
        model: name("m"),
        version: VersionNumber(9),
        known: "1, 2".into(),
    };
    assert_eq!(
        unknown.to_string(),
        "model 'm' has no version 9; its versions: 1, 2"
    );
    assert_eq!(log.deploy("m", 9), Err(unknown));
    assert_eq!(
        log.deploy("x", 1),
        Err(Refusal::ModelUnknown { model: name("x") })
    );
    let now = log.registry.epoch();
    let device = Refusal::DeviceUnknown {
        node: NodeId(1),
        device: DeviceId(0),
    };
    assert_eq!(log.assign("m", 1, now), Err(device));
    let (replica, computed_at) = (ReplicaId(99), now);
    let gone = log.apply(Change::Unassign {
        replica,
        computed_at,
    });
    assert_eq!(gone, Err(Refusal::ReplicaUnknown { replica }));
}

#[test]
fn deleting_a_model_takes_its_replicas_along_and_its_numbers_start_anew() {
    let mut log = Log::new();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    log.publish("m", 1).unwrap();
    log.deploy("m", 1).unwrap();
    let now = log.registry.epoch();
    log.assign("m", 1, now).unwrap();
    log.apply(Change::DeleteModel { model: name("m") }).unwrap();
    assert!(log.registry.models().is_empty() && log.registry.replicas().is_empty());
}

#[test]
fn names_of_nodes_are_unique_and_an_unchanged_registration_changes_nothing() {
    let mut log = Log::new();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    let changed_at = log.registry.assignments_changed_at();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    assert_eq!(log.registry.assignments_changed_at(), changed_at);
    let twin = log.apply(Change::RegisterNode(node(5, "n0")));
    assert_eq!(
        twin,
        Err(Refusal::NodeName {
            name: "n0".into(),
            node: NodeId(1)
        })
    );
}

#[test]
fn versions_in_use_are_kept_when_old_ones_are_forgotten() {
    let mut log = Log::new();
    log.publish("m", 0).unwrap();
    log.deploy("m", 1).unwrap();
    for digest in 1..=VERSIONS_KEPT_MAX as u8 {
        log.publish("m", digest).unwrap();
    }
    let versions = &log.registry.models()[&name("m")].versions;
    assert_eq!(versions.len(), VERSIONS_KEPT_MAX);
    assert!(versions.contains_key(&VersionNumber(1)), "deployed");
    assert!(!versions.contains_key(&VersionNumber(2)), "oldest idle one");
}

#[test]
fn the_state_survives_a_snapshot() {
    let mut log = Log::new();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    log.publish("m", 1).unwrap();
    log.deploy("m", 1).unwrap();
    let bytes = paceline_protocol::wire::encode(&log.registry).unwrap();
    let back: Registry = paceline_protocol::wire::decode(&bytes, 1 << 20).unwrap();
    assert_eq!(back, log.registry);
}

#[test]
fn entries_of_a_later_release_are_refused() {
    let mut registry = Registry::default();
    let change = Change::DeleteModel { model: name("m") };
    let command = Command {
        schema: SCHEMA + 1,
        op: OpId(1),
        stamped_ms: 0,
        expected_revision: None,
        change,
    };
    let outcome = registry.apply(1, &command);
    assert_eq!(outcome.result, Err(Refusal::Schema { schema: SCHEMA + 1 }));
}
