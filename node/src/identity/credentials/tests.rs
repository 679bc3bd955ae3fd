//! A certificate that is replaced while the node runs, over real connections.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, SystemTime};

use paceline_protocol::NodeId;

use super::*;
use crate::identity::authority::Authority;
use crate::transport::quic::QuicTransport;
use crate::transport::{Plane, Transport};

const CLUSTER: u128 = 0xc1;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn signed(authority: &Authority, node: NodeId, at: SystemTime) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let subject = Subject {
        node,
        cluster: CLUSTER,
    };
    let request = authority::request(&key).unwrap();
    let certificate = authority.sign(&request, subject, at).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Trust::new(authority.certificate(), CLUSTER, provider).unwrap();
    Credentials::new(subject, key, certificate, trust).unwrap()
}

fn start(credentials: &Credentials) -> Arc<QuicTransport> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    QuicTransport::start(socket, credentials.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_connection_shows_the_new_certificate_and_the_old_one_goes_on() {
    let authority = Authority::found(CLUSTER).unwrap();
    let now = SystemTime::now();
    let expired = signed(&authority, A, now - Duration::from_secs(3 * 24 * 3600));
    let (a, b) = (start(&expired), start(&signed(&authority, B, now)));
    a.set_peers(BTreeMap::from([(B, b.address().unwrap())]));
    let limit = Duration::from_secs(10);
    assert!(a.open(B, Plane::Infer, limit).await.is_err(), "expired");
    let request = expired.request().unwrap();
    let fresh = authority.sign(&request, expired.subject(), now).unwrap();
    expired.renew(fresh.clone()).unwrap();
    assert_eq!(expired.certificate(), fresh);
    // A failed dial is not repeated at once.
    let opened = async {
        loop {
            match a.open(B, Plane::Infer, limit).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let opened = tokio::time::timeout(Duration::from_secs(60), opened).await;
    let mut stream = opened.unwrap();
    // Once more, while the connection is open: what runs on it is not disturbed.
    expired
        .renew(authority.sign(&request, expired.subject(), now).unwrap())
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream.send, b"x")
        .await
        .unwrap();
    let incoming = tokio::time::timeout(limit, b.accept(Plane::Infer)).await;
    assert_eq!(incoming.unwrap().unwrap().peer, A);
}

#[test]
fn another_keys_certificate_is_not_taken() {
    let authority = Authority::found(CLUSTER).unwrap();
    let now = SystemTime::now();
    let (ours, theirs) = (signed(&authority, A, now), signed(&authority, A, now));
    let before = ours.certificate();
    assert!(ours.renew(theirs.certificate()).is_err());
    assert_eq!(ours.certificate(), before);
    assert_ne!(ours.key_sha256(), theirs.key_sha256());
}
