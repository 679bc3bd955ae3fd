//! The join door's messages: round trips, damage, and pinned bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::error::ErrorCode;

fn secrets() -> impl Strategy<Value = Secret> {
    any::<[u8; 32]>().prop_map(Secret::new)
}

fn requests() -> impl Strategy<Value = Request> {
    let bytes = || vec(any::<u8>(), 0..600);
    let token = any::<[u8; 8]>().prop_map(TokenId);
    let join = (token, secrets(), bytes(), ".{0,30}", ".{0,30}");
    prop_oneof![
        join.prop_map(|(token, masked, request, name, zone)| {
            Request::Join(JoinRequest {
                token,
                masked,
                request,
                name,
                zone,
            })
        }),
        (bytes(), bytes()).prop_map(|(certificate, request)| Request::Renew {
            certificate,
            request
        }),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    let bytes = || vec(any::<u8>(), 0..600);
    let peer = (any::<u64>(), ".{0,30}").prop_map(|(node, address)| Peer {
        node: NodeId(node),
        address,
    });
    let joined = (
        (any::<u64>(), any::<u128>()),
        (bytes(), bytes()),
        secrets(),
        (vec(peer, 0..5), ".{0,20}"),
    );
    let failure = (select(ErrorCode::ALL.to_vec()), ".{0,40}");
    prop_oneof![
        joined.prop_map(|(ids, (certificate, authority), cookie, (peers, name))| {
            Answer::Joined(Box::new(Joined {
                node: NodeId(ids.0),
                cluster: ids.1,
                certificate,
                authority,
                cookie,
                peers,
                name,
            }))
        }),
        bytes().prop_map(|certificate| Answer::Renewed { certificate }),
        prop::option::of(".{0,30}").prop_map(|voter| Answer::NotAVoter { voter }),
        failure.prop_map(|(code, message)| Answer::Refused(Failure::new(code, message))),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip(request in requests(), cut in any::<Index>()) {
        let bytes = request.encode().unwrap();
        prop_assert_eq!(Request::decode(&bytes).unwrap(), request);
        prop_assert!(Request::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert!(Request::decode(&longer).is_err());
    }

    #[test]
    fn answers_round_trip(answer in answers(), cut in any::<Index>()) {
        let bytes = answer.encode().unwrap();
        prop_assert_eq!(Answer::decode(&bytes).unwrap(), answer);
        prop_assert!(Answer::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn noise_is_an_error_or_a_message(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(&bytes);
        let known = [&SCHEMA.to_le_bytes(), bytes.as_slice()].concat();
        let _ = Request::decode(&known);
        let _ = Answer::decode(&known);
    }
}

#[test]
fn what_is_too_long_is_neither_sent_nor_read() {
    let renew = |bytes| Request::Renew {
        certificate: vec![0; bytes],
        request: Vec::new(),
    };
    let room = JOIN_REQUEST_BYTES_MAX - renew(0).encode().unwrap().len();
    // A length over 250 takes two bytes more.
    assert!(renew(room - 2).encode().is_ok());
    assert!(renew(room - 1).encode().is_err());
    assert!(Request::decode(&vec![1; JOIN_REQUEST_BYTES_MAX + 1]).is_err());
    let hostile = [
        &SCHEMA.to_le_bytes()[..],
        &[1, 253, 0, 0, 0, 0, 0, 0, 0, 64],
    ]
    .concat();
    assert!(Request::decode(&hostile).is_err());
}

#[test]
fn a_later_schema_is_named() {
    let mut bytes = Answer::NotAVoter { voter: None }.encode().unwrap();
    assert_eq!(bytes, [1, 0, 2, 0], "the schema, the variant, no address");
    bytes[0] = 2;
    let error = Answer::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("schema 2"), "{error}");
}

#[test]
fn secrets_are_not_printed() {
    let request = Request::Join(JoinRequest {
        token: TokenId([1; 8]),
        masked: Secret::new([0xa5; 32]),
        request: vec![1],
        name: "n1".to_owned(),
        zone: String::new(),
    });
    let answer = Answer::Joined(Box::new(Joined {
        node: NodeId(2),
        cluster: 1,
        certificate: Vec::new(),
        authority: Vec::new(),
        cookie: Secret::new([0xa5; 32]),
        peers: Vec::new(),
        name: "n1".to_owned(),
    }));
    let shown = format!("{request:?} {answer:?}");
    assert_eq!(shown.matches("***").count(), 2, "{shown}");
    assert!(!shown.contains("165"), "{shown}");
}
