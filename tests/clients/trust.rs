//! Who is believed, and who is let in.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use paceline_client::{ApiKey, Client, ClientOptions, ConnectError, Trust};
use paceline_node::gateway::quic;
use paceline_node::identity::authority::request;
use paceline_protocol::tenant::KeyId;
use paceline_protocol::{Digest, NodeId, Secret, Subject};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::door::{CLUSTER, Cluster, Running, WRONG_KEY, limits, open};

async fn refused(seed: String, options: ClientOptions) -> String {
    match Client::connect([seed], options).await {
        Err(ConnectError::Unreachable { reason }) => reason,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the client was let in"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_the_cluster_are_believed() {
    let (ours, theirs) = (Cluster::found(), Cluster::found());
    let door = theirs.door(1);
    let reason = refused(door.seed(), ours.options()).await;
    assert!(reason.contains("certificate"), "{reason}");
    let junk = ClientOptions::new(Trust::Authority("junk".to_owned()));
    let error = Client::connect([door.seed()], junk).await.err().unwrap();
    assert!(matches!(error, ConnectError::Trust(_)), "{error}");
    Client::connect([door.seed()], theirs.options())
        .await
        .unwrap();
}

/// A door whose certificate `signer` has signed, with `behind` in its chain.
fn door_with_chain(signer: &Cluster, behind: &[CertificateDer<'static>]) -> Running {
    let subject = Subject {
        node: NodeId(1),
        cluster: CLUSTER,
    };
    let key = KeyPair::generate().unwrap();
    let signed = signer
        .authority
        .sign(&request(&key).unwrap(), subject, SystemTime::now());
    door_that_shows([&[signed.unwrap()], behind].concat(), &key)
}

/// A door with this chain, whatever is in it.
fn door_that_shows(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Running {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = quic::protocols();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    open(1, socket, tls, limits())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_authority_has_to_be_shown_and_to_have_signed() {
    let (ours, theirs) = (Cluster::found(), Cluster::found());
    let pinned = |pin| ClientOptions::new(Trust::Pin(pin));
    let door = ours.door(1);
    Client::connect([door.seed()], pinned(ours.authority.pin()))
        .await
        .unwrap();
    let shown = ours.authority.certificate().clone();
    let silent = door_with_chain(&ours, &[]);
    let forged = door_with_chain(&theirs, &[shown]);
    for (door, pin) in [
        (&door, Digest([7; 32])),
        (&silent, ours.authority.pin()),
        (&forged, ours.authority.pin()),
    ] {
        let reason = refused(door.seed(), pinned(pin)).await;
        assert!(reason.contains("certificate"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_exactly_one_name_of_a_node_is_not_believed() {
    let cluster = Cluster::found();
    let authority = KeyPair::from_pem(&cluster.authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(cluster.authority.certificate(), authority).unwrap();
    let door = |names: &[String]| {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = parameters.signed_by(&key, &issuer).unwrap();
        door_that_shows(vec![signed.der().clone()], &key)
    };
    let name = |node| {
        let (node, cluster) = (NodeId(node), CLUSTER);
        Subject { node, cluster }.to_string()
    };
    let honest = door(&[name(1)]);
    Client::connect([honest.seed()], cluster.options())
        .await
        .unwrap();
    for names in [
        vec!["nobody.paceline".to_owned()],
        vec![name(1).replace("n1", "n01")],
        vec![name(1), name(2)],
    ] {
        let reason = refused(door(&names).seed(), cluster.options()).await;
        assert!(reason.contains("certificate"), "{names:?}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_reads_why() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let key = |id| ApiKey {
        id,
        secret: Secret::new([0xa5; 32]),
    };
    let with_key = |key| ClientOptions {
        api_key: Some(key),
        ..cluster.options()
    };
    let wrong = key(WRONG_KEY);
    let reason = refused(door.seed(), with_key(wrong.clone())).await;
    assert!(reason.contains("HOST_REFUSED: no such key"), "{reason}");
    assert!(!reason.contains(&wrong.reveal()[20..40]), "{reason}");
    Client::connect([door.seed()], with_key(key(KeyId([7; 8]))))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_is_the_client_says_so_in_time() {
    let cluster = Cluster::found();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = ClientOptions {
        connect_timeout: Duration::from_millis(300),
        ..cluster.options()
    };
    let seed = nobody.local_addr().unwrap().to_string();
    let reason = refused(seed, options).await;
    assert!(reason.contains("no address has answered yet"), "{reason}");
    let error = Client::connect(Vec::<String>::new(), cluster.options()).await;
    assert!(matches!(error, Err(ConnectError::NoSeeds)));
    let reason = refused("not an address".to_owned(), cluster.options()).await;
    assert!(reason.contains("not an address"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_file_is_enough() {
    let cluster = Cluster::found();
    let door = cluster.door(1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), cluster.pem()).unwrap();
    let context = format!(
        "ca = 'ca.pem'\n[[nodes]]\nname = 'n0'\nhttp = '127.0.0.1:1'\nsdk = '{}'\n",
        door.seed()
    );
    let path = folder.path().join("context.toml");
    std::fs::write(&path, context).unwrap();
    let client = Client::from_context(Some(&path)).await.unwrap();
    client.infer("echo").send().await.unwrap();
}
