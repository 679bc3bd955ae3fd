//! Tokens, admission, and the conditions of nodes: state, command, exact outcome.

use paceline_protocol::TokenId;
use paceline_protocol::limits::NODES_MAX;
use paceline_protocol::registry::TokenRecord;

use super::*;

const TOKEN: TokenId = TokenId([1; 8]);

fn token(id: TokenId, uses_left: u32) -> Change {
    Change::CreateToken(TokenRecord {
        id,
        secret_sha256: Digest([9; 32]),
        // Commands of these tests are stamped 7.
        expires_ms: 8,
        uses_left,
    })
}

fn admit(key: u8, name: &str) -> Change {
    Change::AdmitNode {
        token: TOKEN,
        secret_sha256: Digest([9; 32]),
        key_sha256: Digest([key; 32]),
        name: name.into(),
        zone: "z".into(),
    }
}

fn founded() -> Log {
    let mut log = Log::new();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    log
}

#[test]
fn an_admitted_nodes_id_is_the_index_of_its_entry_and_its_key_is_its_own() {
    let mut log = founded();
    log.apply(token(TOKEN, 2)).unwrap();
    assert_eq!(
        log.apply(admit(1, "n1")),
        Ok(Reply::Admitted(NodeId(3))),
        "entry 3"
    );
    assert_eq!(
        log.apply(admit(1, "n1")),
        Ok(Reply::Admitted(NodeId(3))),
        "the answer was lost"
    );
    assert_eq!(log.registry.key_of(NodeId(3)), Some(Digest([1; 32])));
    assert_eq!(log.registry.node_state(NodeId(3)), Some(NodeState::Up));
    assert_eq!(log.registry.zone(NodeId(3)), Some("z"));
    assert_eq!(log.registry.tokens()[&TOKEN].uses_left, 1);
    assert_eq!(log.apply(admit(2, "n2")), Ok(Reply::Admitted(NodeId(5))));
    assert_eq!(log.apply(admit(3, "n3")), Err(Refusal::TokenUsed));
    assert_eq!(
        log.apply(admit(2, "n2")),
        Ok(Reply::Admitted(NodeId(5))),
        "a used token still knows whom it admitted"
    );
}

#[test]
fn tokens_are_refused_without_telling_what_is_wrong_with_their_secret() {
    let mut log = founded();
    assert_eq!(log.apply(admit(1, "n1")), Err(Refusal::TokenUnknown));
    log.apply(token(TOKEN, 1)).unwrap();
    let Change::AdmitNode {
        token: id,
        key_sha256,
        name,
        zone,
        ..
    } = admit(1, "n1")
    else {
        unreachable!()
    };
    let wrong = Change::AdmitNode {
        token: id,
        secret_sha256: Digest([8; 32]),
        key_sha256,
        name,
        zone,
    };
    assert_eq!(log.apply(wrong), Err(Refusal::TokenUnknown));
    assert_eq!(log.apply(token(TOKEN, 1)), Err(Refusal::TokenExists));
    log.apply(Change::RevokeToken { token: TOKEN }).unwrap();
    assert_eq!(log.apply(admit(1, "n1")), Err(Refusal::TokenUnknown));
    let late = Change::CreateToken(TokenRecord {
        id: TOKEN,
        secret_sha256: Digest([9; 32]),
        expires_ms: 7,
        uses_left: 1,
    });
    log.apply(late).unwrap();
    assert_eq!(log.apply(admit(1, "n1")), Err(Refusal::TokenExpired));
    let twin = log.registry.clone();
    log.apply(token(TokenId([2; 8]), 1)).unwrap();
    assert_eq!(twin.tokens().len(), 1);
    assert_eq!(log.registry.tokens().len(), 1, "the expired one went");
}

#[test]
fn tokens_are_bounded_and_used_ones_leave_first() {
    let mut log = founded();
    log.apply(token(TOKEN, 1)).unwrap();
    log.apply(admit(1, "n1")).unwrap();
    for number in 1..paceline_protocol::limits::TOKENS_MAX as u64 {
        log.apply(token(TokenId(number.to_le_bytes()), 1)).unwrap();
        assert!(log.registry.tokens().contains_key(&TOKEN), "it says so");
    }
    log.apply(token(TokenId([0xfe; 8]), 1)).unwrap();
    assert!(!log.registry.tokens().contains_key(&TOKEN));
    let refused = log.apply(token(TokenId([0xff; 8]), 1));
    assert!(matches!(refused, Err(Refusal::Limit { .. })), "{refused:?}");
}

#[test]
fn names_are_unique_among_those_who_have_only_been_admitted_too() {
    let mut log = founded();
    log.apply(token(TOKEN, 9)).unwrap();
    log.apply(admit(1, "n1")).unwrap();
    let twin = Refusal::NodeName {
        name: "n1".into(),
        node: NodeId(3),
    };
    assert_eq!(log.apply(admit(2, "n1")), Err(twin.clone()));
    assert_eq!(log.apply(Change::RegisterNode(node(9, "n1"))), Err(twin));
    log.apply(Change::RegisterNode(node(3, "n1"))).unwrap();
}

#[test]
fn a_node_without_a_name_gets_the_first_that_is_free() {
    let mut log = founded();
    log.apply(token(TOKEN, 9)).unwrap();
    log.apply(admit(1, "n2")).unwrap();
    let mut named = |key| {
        let Ok(Reply::Admitted(node)) = log.apply(admit(key, "")) else {
            panic!("not admitted");
        };
        log.registry.name_of(node).unwrap().to_owned()
    };
    // The founder is n0, and the same key is the same node.
    assert_eq!([named(2), named(3), named(2)], ["n1", "n3", "n1"]);
}

#[test]
fn a_drain_has_an_epoch_and_ends_once() {
    let mut log = founded();
    let state = |log: &Log| log.registry.node_state(NodeId(1)).unwrap();
    log.drain(NodeId(1)).unwrap();
    let draining = |since| NodeState::Draining {
        since,
        deadline_ms: 60_000,
    };
    assert_eq!(state(&log), draining(Epoch(2)));
    let again = Change::Drain {
        node: NodeId(1),
        deadline_ms: 5,
        computed_at: Epoch(0),
    };
    log.apply(again).unwrap();
    let draining = draining(Epoch(2));
    assert_eq!(state(&log), draining, "not begun anew");
    let drained = |since| Change::Drained {
        node: NodeId(1),
        since: Epoch(since),
    };
    let not_this_one = Refusal::NotDraining {
        node: NodeId(1),
        since: Epoch(3),
    };
    assert_eq!(log.apply(drained(3)), Err(not_this_one));
    log.apply(drained(2)).unwrap();
    assert_eq!(state(&log), NodeState::Drained { since: Epoch(2) });
    log.apply(Change::Undrain { node: NodeId(1) }).unwrap();
    assert_eq!(state(&log), NodeState::Up);
    assert!(log.apply(drained(2)).is_err(), "an old end ends nothing");
    log.drain(NodeId(1)).unwrap();
    let since = log.registry.assignments_changed_at();
    assert!(matches!(state(&log), NodeState::Draining { since: now, .. } if now == since));
}

#[test]
fn of_two_drains_that_were_found_harmless_at_one_epoch_the_second_is_decided_anew() {
    let mut log = founded();
    log.apply(token(TOKEN, 9)).unwrap();
    log.apply(admit(1, "n1")).unwrap();
    let computed_at = log.registry.epoch();
    let drain = |node| Change::Drain {
        node,
        deadline_ms: 60_000,
        computed_at,
    };
    log.apply(drain(NodeId(1))).unwrap();
    let second = log.apply(drain(NodeId(3)));
    assert!(
        matches!(second, Err(Refusal::Outdated { .. })),
        "{second:?}"
    );
    assert_eq!(log.registry.node_state(NodeId(3)), Some(NodeState::Up));
}

#[test]
fn down_and_up_follow_the_leaders_view_unless_it_is_outdated() {
    let mut log = founded();
    let now = log.registry.epoch();
    let down = |computed_at| Change::MarkDown {
        node: NodeId(1),
        computed_at,
    };
    log.drain(NodeId(1)).unwrap();
    assert!(matches!(
        log.apply(down(now)),
        Err(Refusal::Outdated { .. })
    ));
    let now = log.registry.epoch();
    log.apply(down(now)).unwrap();
    assert_eq!(log.registry.node_state(NodeId(1)), Some(NodeState::Down));
    let up = Change::MarkUp {
        node: NodeId(1),
        computed_at: log.registry.epoch(),
    };
    log.apply(up).unwrap();
    let still = log.registry.node_state(NodeId(1));
    assert!(matches!(still, Some(NodeState::Draining { since, .. }) if since == Epoch(2)));
    let unknown = Change::MarkUp {
        node: NodeId(77),
        computed_at: log.registry.epoch(),
    };
    let node = NodeId(77);
    assert_eq!(log.apply(unknown), Err(Refusal::NodeUnknown { node }));
}

#[test]
fn a_removed_node_is_burnt_with_its_key_and_takes_its_replicas_along() {
    let mut log = founded();
    let alone = Change::RemoveNode { node: NodeId(1) };
    let last = Refusal::LastNode { node: NodeId(1) };
    assert_eq!(log.apply(alone), Err(last));
    log.apply(token(TOKEN, 9)).unwrap();
    log.apply(admit(1, "n1")).unwrap();
    let id = NodeId(4);
    log.apply(Change::RegisterNode(node(id.0, "n1"))).unwrap();
    log.publish("m", 1).unwrap();
    log.deploy("m", 1).unwrap();
    let assigned = log.apply(Change::Assign {
        model: name("m"),
        version: VersionNumber(1),
        node: id,
        device: DeviceId(0),
        computed_at: log.registry.epoch(),
    });
    assert!(assigned.is_ok(), "{assigned:?}");
    log.apply(Change::RemoveNode { node: id }).unwrap();
    assert!(log.registry.replicas().is_empty());
    assert!(log.registry.is_burnt(id) && log.registry.node_state(id).is_none());
    let burnt = Refusal::NodeBurnt { node: id };
    assert_eq!(
        log.apply(Change::RegisterNode(node(id.0, "n1"))),
        Err(burnt.clone())
    );
    assert_eq!(
        log.apply(admit(1, "n1")),
        Err(burnt.clone()),
        "the same key"
    );
    assert_eq!(log.drain(id), Err(burnt));
    let again = log.apply(admit(2, "n1"));
    assert!(
        matches!(again, Ok(Reply::Admitted(new)) if new > id),
        "{again:?}"
    );
}

#[test]
fn all_of_it_survives_a_snapshot() {
    let mut log = founded();
    log.apply(token(TOKEN, 2)).unwrap();
    log.apply(admit(1, "n1")).unwrap();
    log.apply(admit(2, "n2")).unwrap();
    log.drain(NodeId(3)).unwrap();
    log.apply(Change::RemoveNode { node: NodeId(4) }).unwrap();
    let bytes = paceline_protocol::wire::encode(&log.registry).unwrap();
    let back: Registry = paceline_protocol::wire::decode(&bytes, 1 << 20).unwrap();
    assert_eq!(back, log.registry);
}

#[test]
fn a_registry_takes_as_many_nodes_as_it_was_made_for_and_the_product_its_own_number() {
    let fill = |mut registry: Registry| {
        let refusals = (1..=200).map(|id| {
            let command = Command {
                schema: SCHEMA,
                op: OpId(id.into()),
                stamped_ms: 7,
                expected_revision: None,
                change: Change::RegisterNode(node(id, &format!("n{id}"))),
            };
            registry.apply(id, &command).result.err()
        });
        let refusals: Vec<Refusal> = refusals.flatten().collect();
        (registry.nodes().len(), refusals.first().cloned())
    };
    let full = |nodes: usize| {
        let limit = nodes as u64;
        let what = "nodes".into();
        (nodes, Some(Refusal::Limit { what, limit }))
    };
    assert_eq!(fill(Registry::default()), full(NODES_MAX));
    assert_eq!(fill(Registry::of_nodes(150)), full(150));
    let bytes = paceline_protocol::wire::encode(&Registry::of_nodes(150)).unwrap();
    let read: Registry = paceline_protocol::wire::decode(&bytes, 1 << 20).unwrap();
    assert_eq!(fill(read), full(NODES_MAX), "a snapshot raises no limit");
}
