//! Commands, outcomes and manifests on the wire: round trips, damage, and pinned numbers.

use std::collections::BTreeSet;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::dtype::Dtype;
use crate::label::Label;
use crate::limits::{MANIFEST_BYTES_MAX, REGISTRY_ENTRY_BYTES_MAX};
use crate::manifest::{Manifest, ManifestFile};
use crate::shape::{Dim, ShapePattern};
use crate::signature::TensorSpec;
use crate::wire;

const LIMIT: usize = REGISTRY_ENTRY_BYTES_MAX;

fn models() -> impl Strategy<Value = ModelName> {
    "[a-z0-9][a-z0-9._-]{0,127}".prop_map(|name| ModelName::new(name).unwrap())
}

fn versions() -> impl Strategy<Value = VersionNumber> {
    any::<u32>().prop_map(VersionNumber)
}

fn epochs() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn nodes() -> impl Strategy<Value = NodeRecord> {
    let device = (any::<u16>(), any::<u64>()).prop_map(|(lanes, memory_bytes)| DeviceRecord {
        kind: DeviceKind::Cpu,
        lanes,
        memory_bytes,
    });
    let text = || ".{0,20}";
    let texts = (text(), text(), text(), text(), text(), text(), text());
    (any::<u64>(), texts, vec(device, 0..5)).prop_map(|(id, texts, devices)| {
        let (name, zone, http, grpc, metrics, sdk, peer) = texts;
        NodeRecord {
            id: NodeId(id),
            name,
            zone,
            addresses: NodeAddresses {
                http,
                grpc,
                metrics,
                sdk,
                peer,
            },
            devices,
        }
    })
}

fn signatures() -> impl Strategy<Value = Signature> {
    // A fixed size travels as an `i64`.
    let size = (0..=i64::MAX as u64).prop_map(Dim::Exactly);
    let shape = vec(prop_oneof![Just(Dim::Any), size], 0..9).prop_map(ShapePattern);
    let spec = (".{0,20}", select(Dtype::ALL.to_vec()), shape)
        .prop_map(|(name, dtype, shape)| TensorSpec { name, dtype, shape });
    let side = vec(spec, 0..6);
    (side.clone(), side).prop_map(|(inputs, outputs)| Signature { inputs, outputs })
}

fn version_records() -> impl Strategy<Value = VersionRecord> {
    let numbers = any::<[u64; 4]>();
    let golden = vec(any::<u16>(), 0..65);
    let rest = (any::<u32>(), any::<bool>(), numbers, golden);
    (digests(), ".{0,20}", signatures(), rest).prop_map(|(digest, family, signature, rest)| {
        let (rows_max, finite_inputs, numbers, golden) = rest;
        let [artifact_bytes, memory_bytes, one_row_ns, full_batch_ns] = numbers;
        VersionRecord {
            digest,
            family,
            signature,
            rows_max,
            finite_inputs,
            artifact_bytes,
            memory_bytes,
            one_row_ns,
            full_batch_ns,
            golden,
        }
    })
}

fn changes() -> impl Strategy<Value = Change> {
    let owner = "[a-z0-9][a-z0-9._-]{0,127}".prop_map(|name| TenantName::new(name).unwrap());
    let version = version_records().prop_map(Box::new);
    let replicas = prop_oneof![
        any::<u32>().prop_map(ReplicaTarget::Count),
        Just(ReplicaTarget::Each)
    ];
    let place = (any::<u64>(), any::<u16>()).prop_map(|(n, d)| (NodeId(n), DeviceId(d)));
    prop_oneof![
        nodes().prop_map(Change::RegisterNode),
        (models(), owner, version).prop_map(|(model, owner, version)| Change::PublishVersion {
            model,
            owner,
            version
        }),
        (models(), versions(), replicas).prop_map(|(model, version, replicas)| Change::Deploy {
            model,
            version,
            replicas
        }),
        (models(), versions(), epochs()).prop_map(|(model, version, computed_at)| {
            Change::Activate {
                model,
                version,
                computed_at,
            }
        }),
        (models(), versions(), place, epochs()).prop_map(
            |(model, version, (node, device), computed_at)| Change::Assign {
                model,
                version,
                node,
                device,
                computed_at
            }
        ),
        (any::<u64>(), epochs()).prop_map(|(replica, computed_at)| Change::Unassign {
            replica: ReplicaId(replica),
            computed_at
        }),
        models().prop_map(|model| Change::DeleteModel { model }),
        members(),
        tenants(),
        canaries(),
    ]
}

/// Changes of who may send what.
fn tenants() -> impl Strategy<Value = Change> {
    let tenant = || "[a-z0-9][a-z0-9._-]{0,127}".prop_map(|name| TenantName::new(name).unwrap());
    let limits = (any::<u32>(), any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
        |(weight, requests_per_s, concurrency)| TenantLimits {
            weight,
            requests_per_s,
            concurrency,
        },
    );
    let key = || any::<[u8; 8]>().prop_map(KeyId);
    let record = (key(), digests()).prop_map(|(id, secret_sha256)| KeyRecord { id, secret_sha256 });
    prop_oneof![
        (tenant(), limits).prop_map(|(tenant, limits)| Change::SetTenant { tenant, limits }),
        tenant().prop_map(|tenant| Change::DeleteTenant { tenant }),
        (tenant(), record).prop_map(|(tenant, key)| Change::AddKey { tenant, key }),
        key().prop_map(|key| Change::RevokeKey { key }),
    ]
}

/// Changes of which version gets how many requests.
fn canaries() -> impl Strategy<Value = Change> {
    let replicas = prop_oneof![
        any::<u32>().prop_map(ReplicaTarget::Count),
        Just(ReplicaTarget::Each)
    ];
    let stage = (any::<u16>(), any::<u64>());
    let stage = stage.prop_map(|(weight, hold_ms)| CanaryStage { weight, hold_ms });
    let guards = (any::<u16>(), any::<u16>(), any::<u32>());
    let guards = guards.prop_map(|(failures, latency, requests_min)| CanaryGuards {
        failures_permille_max: failures,
        latency_percent_max: latency,
        requests_min,
    });
    let plan = (versions(), replicas, vec(stage, 0..5), guards);
    let plan = plan.prop_map(|(version, replicas, stages, guards)| {
        Box::new(CanaryPlan {
            version,
            replicas,
            stages,
            guards,
        })
    });
    let since = || proptest::option::of(epochs());
    prop_oneof![
        (models(), plan).prop_map(|(model, plan)| Change::BeginCanary { model, plan }),
        (models(), epochs(), any::<u32>()).prop_map(|(model, since, stage)| {
            Change::AdvanceCanary {
                model,
                since,
                stage,
            }
        }),
        (models(), since()).prop_map(|(model, since)| Change::PromoteCanary { model, since }),
        (models(), since(), ".{0,40}").prop_map(|(model, since, reason)| Change::AbortCanary {
            model,
            since,
            reason
        }),
        models().prop_map(|model| Change::Rollback { model }),
        (
            models(),
            "[a-z][a-z0-9_-]{0,31}",
            proptest::option::of(1..9_u32)
        )
            .prop_map(|(model, label, version)| Change::SetLabel {
                model,
                label: Label::new(label).unwrap(),
                version: version.map(VersionNumber),
            }),
        (models(), versions(), any::<u16>()).prop_map(|(model, version, weight)| {
            let replicas = ReplicaTarget::Each;
            let plan = ShadowPlan {
                version,
                replicas,
                weight,
            };
            Change::SetShadow { model, plan }
        }),
        models().prop_map(|model| Change::EndShadow { model }),
        models().prop_map(|model| Change::Undeploy { model }),
    ]
}

/// Changes of who the nodes are.
fn members() -> impl Strategy<Value = Change> {
    let node = || any::<u64>().prop_map(NodeId);
    let token = || any::<[u8; 8]>().prop_map(TokenId);
    let record = (token(), digests(), any::<u64>(), any::<u32>());
    let admission = (token(), digests(), digests(), ".{0,20}", ".{0,20}");
    prop_oneof![
        record.prop_map(|(id, secret_sha256, expires_ms, uses_left)| {
            Change::CreateToken(TokenRecord {
                id,
                secret_sha256,
                expires_ms,
                uses_left,
            })
        }),
        token().prop_map(|token| Change::RevokeToken { token }),
        admission.prop_map(|(token, secret_sha256, key_sha256, name, zone)| {
            Change::AdmitNode {
                token,
                secret_sha256,
                key_sha256,
                name,
                zone,
            }
        }),
        (node(), epochs()).prop_map(|(node, computed_at)| Change::MarkDown { node, computed_at }),
        (node(), epochs()).prop_map(|(node, computed_at)| Change::MarkUp { node, computed_at }),
        (node(), any::<u64>(), epochs()).prop_map(|(node, deadline_ms, computed_at)| {
            Change::Drain {
                node,
                deadline_ms,
                computed_at,
            }
        }),
        (node(), epochs()).prop_map(|(node, since)| Change::Drained { node, since }),
        node().prop_map(|node| Change::Undrain { node }),
        node().prop_map(|node| Change::RemoveNode { node }),
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    let numbers = (any::<u16>(), any::<u128>(), any::<u64>());
    let expected = proptest::option::of(epochs());
    (numbers, expected, changes()).prop_map(
        |((schema, op, stamped_ms), expected_revision, change)| Command {
            schema,
            op: OpId(op),
            stamped_ms,
            expected_revision,
            change,
        },
    )
}

fn replies() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Done),
        (versions(), any::<bool>())
            .prop_map(|(version, created)| Reply::Published { version, created }),
        any::<u64>().prop_map(|replica| Reply::Assigned(ReplicaId(replica))),
        any::<u64>().prop_map(|node| Reply::Admitted(NodeId(node))),
    ]
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        models().prop_map(|model| Refusal::ModelUnknown { model }),
        (models(), versions(), ".{0,40}").prop_map(|(model, version, known)| {
            Refusal::VersionUnknown {
                model,
                version,
                known,
            }
        }),
        models().prop_map(|model| Refusal::OwnerDiffers { model }),
        any::<u64>().prop_map(|replica| Refusal::ReplicaUnknown {
            replica: ReplicaId(replica)
        }),
        (any::<u64>(), any::<u16>()).prop_map(|(node, device)| Refusal::DeviceUnknown {
            node: NodeId(node),
            device: DeviceId(device)
        }),
        (epochs(), epochs()).prop_map(|(computed_at, changed_at)| Refusal::Outdated {
            computed_at,
            changed_at
        }),
        (".{0,20}", any::<u64>()).prop_map(|(what, limit)| Refusal::Limit { what, limit }),
        any::<[u32; 2]>().prop_map(|[replicas, limit]| Refusal::ReplicaCount { replicas, limit }),
        (".{0,20}", any::<u64>()).prop_map(|(name, node)| Refusal::NodeName {
            name,
            node: NodeId(node)
        }),
        any::<u16>().prop_map(|schema| Refusal::Schema { schema }),
        Just(Refusal::TokenUnknown),
        Just(Refusal::TokenExpired),
        Just(Refusal::TokenUsed),
        Just(Refusal::TokenExists),
        any::<u64>().prop_map(|node| Refusal::NodeUnknown { node: NodeId(node) }),
        any::<u64>().prop_map(|node| Refusal::NodeBurnt { node: NodeId(node) }),
        any::<u64>().prop_map(|node| Refusal::LastNode { node: NodeId(node) }),
        (any::<u64>(), epochs()).prop_map(|(node, since)| Refusal::NotDraining {
            node: NodeId(node),
            since
        }),
        Just(Refusal::TenantUnknown {
            tenant: TenantName::default()
        }),
        (models(), any::<u32>()).prop_map(|(model, models)| Refusal::TenantOwns {
            tenant: TenantName::default(),
            models,
            model
        }),
        Just(Refusal::TenantDefault),
        Just(Refusal::TenantLimits),
        any::<[u8; 8]>().prop_map(|key| Refusal::KeyUnknown { key: KeyId(key) }),
        Just(Refusal::KeyExists),
        Just(Refusal::KeysMany {
            tenant: TenantName::default()
        }),
        canary_refusals(),
        any::<u16>().prop_map(|weight| Refusal::ShadowShare { weight }),
        (models(), versions()).prop_map(|(model, version)| Refusal::IsShadow { model, version }),
        (models(), versions()).prop_map(|(model, version)| Refusal::IsCanary { model, version }),
        models().prop_map(|model| Refusal::NoShadow { model }),
    ]
}

fn canary_refusals() -> impl Strategy<Value = Refusal> {
    let named = || (models(), versions());
    prop_oneof![
        ".{0,40}".prop_map(|what| Refusal::CanaryInvalid { what }),
        named().prop_map(|(model, version)| Refusal::CanaryUnderWay { model, version }),
        models().prop_map(|model| Refusal::NoStableVersion { model }),
        named().prop_map(|(model, version)| Refusal::ServesAlready { model, version }),
        models().prop_map(|model| Refusal::NoCanary { model }),
        (models(), any::<[u32; 2]>()).prop_map(|(model, [stage, stages])| {
            Refusal::CanaryStage {
                model,
                stage,
                stages,
            }
        }),
        models().prop_map(|model| Refusal::NoPrevious { model }),
        (models(), epochs(), epochs()).prop_map(|(model, expected, found)| {
            Refusal::RevisionDiffers {
                model,
                expected,
                found,
            }
        }),
        Just(Refusal::NoRevision),
        (models(), "[a-z][a-z0-9_-]{0,31}", ".{0,20}").prop_map(|(model, label, known)| {
            let label = Label::new(label).unwrap();
            Refusal::LabelUnknown {
                model,
                label,
                known,
            }
        }),
    ]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let result = prop_oneof![replies().prop_map(Ok), refusals().prop_map(Err)];
    (epochs(), result).prop_map(|(epoch, result)| Outcome { epoch, result })
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let chunks = vec(digests(), 0..6);
    let file = (".{0,40}", any::<u64>(), digests(), chunks);
    let file = file.prop_map(|(path, bytes, sha256, chunks)| ManifestFile {
        path,
        bytes,
        sha256,
        chunks,
    });
    vec(file, 0..8).prop_map(|files| Manifest { files })
}

/// The number that each change has in every log: a new variant gets the next one.
fn change_number(change: &Change) -> u8 {
    match change {
        Change::RegisterNode(_) => 0,
        Change::PublishVersion { .. } => 1,
        Change::Deploy { .. } => 2,
        Change::Activate { .. } => 3,
        Change::Assign { .. } => 4,
        Change::Unassign { .. } => 5,
        Change::DeleteModel { .. } => 6,
        Change::CreateToken(_) => 7,
        Change::RevokeToken { .. } => 8,
        Change::AdmitNode { .. } => 9,
        Change::MarkDown { .. } => 10,
        Change::MarkUp { .. } => 11,
        Change::Drain { .. } => 12,
        Change::Drained { .. } => 13,
        Change::Undrain { .. } => 14,
        Change::RemoveNode { .. } => 15,
        Change::SetTenant { .. } => 16,
        Change::DeleteTenant { .. } => 17,
        Change::AddKey { .. } => 18,
        Change::RevokeKey { .. } => 19,
        Change::BeginCanary { .. } => 20,
        Change::AdvanceCanary { .. } => 21,
        Change::PromoteCanary { .. } => 22,
        Change::AbortCanary { .. } => 23,
        Change::Rollback { .. } => 24,
        Change::SetLabel { .. } => 25,
        Change::SetShadow { .. } => 26,
        Change::EndShadow { .. } => 27,
        Change::Undeploy { .. } => 28,
    }
}

/// The same of refusals.
fn refusal_number(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::ModelUnknown { .. } => 0,
        Refusal::VersionUnknown { .. } => 1,
        Refusal::OwnerDiffers { .. } => 2,
        Refusal::ReplicaUnknown { .. } => 3,
        Refusal::DeviceUnknown { .. } => 4,
        Refusal::Outdated { .. } => 5,
        Refusal::Limit { .. } => 6,
        Refusal::ReplicaCount { .. } => 7,
        Refusal::NodeName { .. } => 8,
        Refusal::Schema { .. } => 9,
        Refusal::TokenUnknown => 10,
        Refusal::TokenExpired => 11,
        Refusal::TokenUsed => 12,
        Refusal::TokenExists => 13,
        Refusal::NodeUnknown { .. } => 14,
        Refusal::NodeBurnt { .. } => 15,
        Refusal::LastNode { .. } => 16,
        Refusal::NotDraining { .. } => 17,
        Refusal::TenantUnknown { .. } => 18,
        Refusal::TenantOwns { .. } => 19,
        Refusal::TenantDefault => 20,
        Refusal::TenantLimits => 21,
        Refusal::KeyUnknown { .. } => 22,
        Refusal::KeyExists => 23,
        Refusal::KeysMany { .. } => 24,
        Refusal::CanaryInvalid { .. } => 25,
        Refusal::CanaryUnderWay { .. } => 26,
        Refusal::NoStableVersion { .. } => 27,
        Refusal::ServesAlready { .. } => 28,
        Refusal::NoCanary { .. } => 29,
        Refusal::CanaryStage { .. } => 30,
        Refusal::NoPrevious { .. } => 31,
        Refusal::RevisionDiffers { .. } => 32,
        Refusal::NoRevision => 33,
        Refusal::LabelUnknown { .. } => 34,
        Refusal::ShadowShare { .. } => 35,
        Refusal::IsShadow { .. } => 36,
        Refusal::IsCanary { .. } => 37,
        Refusal::NoShadow { .. } => 38,
    }
}

/// Draws until every one of `count` numbers has been seen, and checks each against the wire.
fn hold_numbers<T: Serialize + fmt::Debug>(
    values: impl Strategy<Value = T>,
    number: fn(&T) -> u8,
    count: usize,
) {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..3_000 {
        let value = values.new_tree(&mut runner).unwrap().current();
        let bytes = wire::encode(&value).unwrap();
        assert_eq!(bytes[0], number(&value), "{value:?}");
        seen.insert(bytes[0]);
    }
    assert_eq!(seen.len(), count, "a variant is drawn by no strategy");
}

#[test]
fn variants_keep_their_numbers() {
    hold_numbers(changes(), change_number, 29);
    hold_numbers(refusals(), refusal_number, 39);
}

#[test]
fn the_layout_of_a_command_is_pinned_by_an_example() {
    let command = Command {
        schema: SCHEMA,
        op: OpId(9),
        stamped_ms: 300,
        expected_revision: None,
        change: Change::Unassign {
            replica: ReplicaId(4),
            computed_at: Epoch(8),
        },
    };
    // Schema, op, 300 as a u16, nothing expected, the variant, replica, epoch.
    let bytes = [4, 9, 251, 44, 1, 0, 5, 4, 8];
    assert_eq!(wire::encode(&command).unwrap(), bytes);
}

proptest! {
    #[test]
    fn commands_round_trip(command in commands()) {
        let bytes = wire::encode(&command).unwrap();
        prop_assert_eq!(wire::decode::<Command>(&bytes, LIMIT).unwrap(), command);
    }

    #[test]
    fn outcomes_round_trip(outcome in outcomes()) {
        let bytes = wire::encode(&outcome).unwrap();
        prop_assert_eq!(wire::decode::<Outcome>(&bytes, LIMIT).unwrap(), outcome);
    }

    #[test]
    fn manifests_round_trip(manifest in manifests()) {
        let bytes = wire::encode(&manifest).unwrap();
        let back = wire::decode::<Manifest>(&bytes, MANIFEST_BYTES_MAX).unwrap();
        prop_assert_eq!(back, manifest);
    }

    #[test]
    fn no_part_of_a_command_is_a_command(command in commands(), cut in any::<Index>()) {
        let mut bytes = wire::encode(&command).unwrap();
        prop_assert!(wire::decode::<Command>(&bytes[..cut.index(bytes.len())], LIMIT).is_err());
        bytes.push(0);
        prop_assert!(wire::decode::<Command>(&bytes, LIMIT).is_err());
    }

    #[test]
    fn changed_bytes_never_panic(
        (command, outcome, manifest) in (commands(), outcomes(), manifests()),
        at in any::<Index>(),
        value in any::<u8>(),
    ) {
        let changed = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes
        };
        let _ = wire::decode::<Command>(&changed(wire::encode(&command).unwrap()), LIMIT);
        let _ = wire::decode::<Outcome>(&changed(wire::encode(&outcome).unwrap()), LIMIT);
        let bytes = changed(wire::encode(&manifest).unwrap());
        let _ = wire::decode::<Manifest>(&bytes, MANIFEST_BYTES_MAX);
    }
}
