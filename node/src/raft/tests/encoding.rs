//! The encodings on disk are pinned byte by byte: a change of layout needs a new schema number.

use std::collections::BTreeSet;

use openraft::{EmptyNode, EntryPayload};

use super::super::encoding::*;
use super::super::type_config::{Entry, LogId, Members, SnapshotMeta, StoredMembers, Vote};
use super::*;

fn log_id(term: u64, leader: u64, index: u64) -> LogId {
    let leader_id = openraft::impls::leader_id_adv::LeaderId {
        term,
        node_id: leader,
    };
    LogId { leader_id, index }
}

fn members() -> Members {
    let voters = vec![BTreeSet::from([1]), BTreeSet::from([1, 2, 3])];
    let nodes: std::collections::BTreeMap<u64, EmptyNode> =
        (1..=4).map(|id| (id, EmptyNode::new())).collect();
    Members::new(voters, nodes).unwrap()
}

#[test]
fn entries_are_read_as_written() {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(command(7)),
        EntryPayload::Membership(members()),
        EntryPayload::Membership(Members::default()),
    ];
    for payload in payloads {
        let entry = Entry {
            log_id: log_id(3, 1, 300),
            payload,
        };
        let bytes = encode_entry(&entry).unwrap();
        assert_eq!(decode_entry(&bytes).unwrap(), entry);
        assert!(decode_entry(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode_entry(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn the_layouts_are_pinned() {
    let blank = Entry {
        log_id: log_id(3, 1, 300),
        payload: EntryPayload::Blank,
    };
    // Schema 3, term 3, leader 1, index 300 (251 announces two bytes), variant 0.
    assert_eq!(encode_entry(&blank).unwrap(), [3, 0, 3, 1, 251, 44, 1, 0]);
    let joint = Entry {
        log_id: log_id(1, 1, 2),
        payload: EntryPayload::Membership(members()),
    };
    let expected = [3, 0, 1, 1, 2, 2, 2, 1, 1, 3, 1, 2, 3, 4, 1, 2, 3, 4];
    assert_eq!(encode_entry(&joint).unwrap(), expected);
    assert_eq!(encode_vote(&Vote::new(5, 2)).unwrap(), [1, 0, 5, 2, 0]);
    assert_eq!(
        encode_vote(&Vote::new_committed(5, 2)).unwrap(),
        [1, 0, 5, 2, 1]
    );
    assert_eq!(encode_position(None).unwrap(), [1, 0, 0]);
    assert_eq!(
        encode_position(Some(&log_id(3, 1, 9))).unwrap(),
        [1, 0, 1, 3, 1, 9]
    );
}

#[test]
fn vote_position_and_meta_are_read_as_written() {
    for vote in [Vote::new(5, 2), Vote::new_committed(u64::MAX, 9)] {
        assert_eq!(decode_vote(&encode_vote(&vote).unwrap()).unwrap(), vote);
    }
    for position in [None, Some(log_id(1, 2, 3))] {
        let bytes = encode_position(position.as_ref()).unwrap();
        assert_eq!(decode_position(&bytes).unwrap(), position);
    }
    let last_membership = StoredMembers::new(Some(log_id(1, 1, 4)), members());
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(2, 1, 90)),
        last_membership,
    };
    for meta in [meta, SnapshotMeta::default()] {
        assert_eq!(decode_meta(&encode_meta(&meta).unwrap()).unwrap(), meta);
    }
}

#[test]
fn a_later_schema_is_refused_by_number() {
    let mut bytes = encode_vote(&Vote::new(5, 2)).unwrap();
    bytes[0] = 2;
    assert!(matches!(
        decode_vote(&bytes),
        Err(EncodingError::Schema {
            what: "vote",
            found: 2,
            supported: 1
        })
    ));
    assert!(matches!(
        decode_vote(&[1]),
        Err(EncodingError::Empty { .. })
    ));
}
