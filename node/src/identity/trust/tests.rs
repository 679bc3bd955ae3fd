//! Certificates that must be believed, and all those that must not.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;

use super::*;
use crate::identity::authority::{Authority, LIFETIME, request};

const CLUSTER: u128 = 0xc1;
const NODE: NodeId = NodeId(7);

fn trust(authority: &Authority) -> Trust {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Trust::new(authority.certificate(), CLUSTER, provider).unwrap()
}

fn signed(authority: &Authority, cluster: u128, now: SystemTime) -> CertificateDer<'static> {
    let request = request(&KeyPair::generate().unwrap()).unwrap();
    let subject = Subject {
        node: NODE,
        cluster,
    };
    authority.sign(&request, subject, now).unwrap()
}

fn unix(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap())
}

fn believed(
    trust: &Trust,
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<NodeId, Error> {
    let [as_client, as_server] = [KeyUsage::client_auth(), KeyUsage::server_auth()]
        .map(|usage| trust.subject(certificate, usage, unix(now)));
    assert_eq!(as_client, as_server);
    as_client.map(|subject| subject.node)
}

fn refused(error: CertificateError) -> Result<NodeId, Error> {
    Err(Error::InvalidCertificate(error))
}

#[test]
fn only_certificates_of_ones_own_cluster_are_believed() {
    let (ours, theirs) = (Authority::found(CLUSTER), Authority::found(CLUSTER));
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let now = SystemTime::now();
    let trust = trust(&ours);
    assert_eq!(
        believed(&trust, &signed(&ours, CLUSTER, now), now),
        Ok(NODE)
    );
    let other = signed(&theirs, CLUSTER, now);
    let refusal = believed(&trust, &other, now);
    assert!(
        matches!(
            refusal,
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            ))
        ),
        "{refusal:?}"
    );
    let elsewhere = signed(&ours, CLUSTER + 1, now);
    let wrong_name = refused(CertificateError::NotValidForName);
    assert_eq!(believed(&trust, &elsewhere, now), wrong_name);
    // The authority itself is nobody's peer.
    assert!(believed(&trust, ours.certificate(), now).is_err());
    assert!(
        believed(
            &trust,
            &CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]),
            now
        )
        .is_err()
    );
}

#[test]
fn time_is_checked_in_both_directions() {
    let authority = Authority::found(CLUSTER).unwrap();
    let trust = trust(&authority);
    let now = SystemTime::now();
    let certificate = signed(&authority, CLUSTER, now);
    for (at, is_good) in [
        (now - Duration::from_secs(299), true),
        (now - Duration::from_secs(302), false),
        (now + LIFETIME - Duration::from_secs(2), true),
        (now + LIFETIME + Duration::from_secs(2), false),
    ] {
        assert_eq!(
            believed(&trust, &certificate, at).is_ok(),
            is_good,
            "{at:?}"
        );
    }
}

#[test]
fn without_a_quorum_an_expired_certificate_is_good_for_a_week() {
    let authority = Authority::found(CLUSTER).unwrap();
    let trust = trust(&authority);
    let now = SystemTime::now();
    let certificate = signed(&authority, CLUSTER, now);
    let days = |days: u64| now + Duration::from_secs(days * 24 * 3600);
    assert!(believed(&trust, &certificate, days(3)).is_err());
    trust.set_quorum(false);
    assert_eq!(believed(&trust, &certificate, days(3)), Ok(NODE));
    assert!(believed(&trust, &certificate, days(9)).is_err());
    trust.set_burnt(BTreeSet::from([NODE]));
    let revoked = refused(CertificateError::Revoked);
    assert_eq!(believed(&trust, &certificate, days(3)), revoked);
}

#[test]
fn a_burnt_id_is_refused_from_then_on() {
    let authority = Authority::found(CLUSTER).unwrap();
    let trust = trust(&authority);
    let now = SystemTime::now();
    let certificate = signed(&authority, CLUSTER, now);
    assert_eq!(believed(&trust, &certificate, now), Ok(NODE));
    trust.clone().set_burnt(BTreeSet::from([NODE]));
    let revoked = refused(CertificateError::Revoked);
    assert_eq!(believed(&trust, &certificate, now), revoked);
}

#[test]
fn who_was_dialled_must_be_the_one_that_was_meant() {
    let authority = Authority::found(CLUSTER).unwrap();
    let trust = trust(&authority);
    let now = SystemTime::now();
    let certificate = signed(&authority, CLUSTER, now);
    let dial = |node: u64| {
        let subject = Subject {
            node: NodeId(node),
            cluster: CLUSTER,
        };
        let name = ServerName::try_from(subject.to_string()).unwrap();
        trust.verify_server_cert(&certificate, &[], &name, &[], unix(now))
    };
    assert!(dial(NODE.0).is_ok());
    assert!(dial(NODE.0 + 1).is_err());
}
