//! The join door over real sockets: who gets in, who does not, and what each of them sees.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use paceline_protocol::ErrorCode;
use paceline_protocol::join::PROTOCOL;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, ServerConfig};
use tokio::task::JoinHandle;

use super::*;
use crate::storage::MemoryDisk;
use crate::storage::disk::read_file;

const CLUSTER: u128 = 0xc1;

/// The registry as far as the door sees it.
struct Registry {
    authority: Mutex<Option<Arc<Authority>>>,
    voter: Mutex<Option<String>>,
    tokens: Mutex<BTreeMap<TokenId, Token>>,
    nodes: Mutex<BTreeMap<Digest, NodeId>>,
    asked: AtomicUsize,
    has_quorum: bool,
}

struct Token {
    secret_sha256: Digest,
    is_expired: bool,
    uses_left: u32,
}

impl Admits for Registry {
    fn token(&self, token: TokenId) -> Boxed<'_, Option<Digest>> {
        let tokens = self.tokens.lock().unwrap();
        let digest = tokens.get(&token).map(|token| token.secret_sha256);
        Box::pin(async move { digest })
    }

    fn admit(&self, admission: Admission) -> Boxed<'_, Result<Admitted, Failure>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if !self.has_quorum {
                let message = "no quorum";
                return Err(Failure::new(ErrorCode::NoQuorum, message));
            }
            let mut tokens = self.tokens.lock().unwrap();
            let token = tokens.get_mut(&admission.token).unwrap();
            assert_eq!(token.secret_sha256, admission.secret_sha256);
            let mut nodes = self.nodes.lock().unwrap();
            let refuse = |message| Err(Failure::new(ErrorCode::Unauthenticated, message));
            let node = match nodes.get(&admission.key_sha256) {
                Some(node) => *node,
                None if token.is_expired => return refuse("the token has expired"),
                None if token.uses_left == 0 => return refuse("the token is used up"),
                None => NodeId(100 + nodes.len() as u64),
            };
            if nodes.insert(admission.key_sha256, node).is_none() {
                token.uses_left -= 1;
            }
            Ok(Admitted {
                node,
                cookie: Secret::new([0xc0; 32]),
                peers: vec![Peer {
                    node: NodeId::FOUNDER,
                    address: "127.0.0.1:8004".to_owned(),
                }],
                name: match &*admission.name {
                    "" => "found".to_owned(),
                    name => name.to_owned(),
                },
            })
        })
    }

    fn authority(&self) -> Option<Arc<Authority>> {
        self.authority.lock().unwrap().clone()
    }

    fn voter(&self) -> Option<String> {
        self.voter.lock().unwrap().clone()
    }
}

/// A member with an open join door.
struct Member {
    address: SocketAddr,
    authority: Arc<Authority>,
    credentials: Credentials,
    registry: Arc<Registry>,
    serving: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn registry(authority: &Arc<Authority>, has_quorum: bool) -> Registry {
    Registry {
        authority: Mutex::new(Some(authority.clone())),
        voter: Mutex::default(),
        tokens: Mutex::default(),
        nodes: Mutex::default(),
        asked: AtomicUsize::new(0),
        has_quorum,
    }
}

fn listen(credentials: &Credentials) -> Endpoint {
    let tls = credentials.client_server(vec![PROTOCOL.to_vec()]).unwrap();
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let config = ServerConfig::with_crypto(Arc::new(tls));
    Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

impl Member {
    fn start() -> Self {
        let authority = Arc::new(Authority::found(CLUSTER).unwrap());
        Self::of(&authority, SystemTime::now(), registry(&authority, true))
    }

    fn of(authority: &Arc<Authority>, signed_at: SystemTime, registry: Registry) -> Self {
        let credentials = credentials(authority, NodeId::FOUNDER, signed_at);
        let registry = Arc::new(registry);
        let door = Door::new(credentials.clone(), registry.clone());
        let endpoint = listen(&credentials);
        let address = endpoint.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let door = door.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        door.serve(&connection).await;
                    }
                });
            }
        });
        Self {
            address,
            authority: authority.clone(),
            credentials,
            registry,
            serving,
        }
    }

    fn token(&self, number: u8) -> JoinToken {
        let token = JoinToken {
            id: TokenId([number; 8]),
            secret: Secret::new([number ^ 0x5a; 32]),
            pin: self.authority.pin(),
        };
        let record = Token {
            secret_sha256: token.secret.digest(),
            is_expired: false,
            uses_left: 1,
        };
        self.registry
            .tokens
            .lock()
            .unwrap()
            .insert(token.id, record);
        token
    }

    fn expire(&self, token: &JoinToken) {
        let mut tokens = self.registry.tokens.lock().unwrap();
        tokens.get_mut(&token.id).unwrap().is_expired = true;
    }

    async fn join(&self, disk: &Arc<dyn Disk>, token: &JoinToken) -> Result<Joined, JoinError> {
        join(disk, &self.address.to_string(), token, &wish()).await
    }
}

fn credentials(authority: &Authority, node: NodeId, signed_at: SystemTime) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let subject = Subject {
        node,
        cluster: CLUSTER,
    };
    let request = authority::request(&key).unwrap();
    let signed = authority.sign(&request, subject, signed_at).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Trust::new(authority.certificate(), CLUSTER, provider).unwrap();
    Credentials::new(subject, key, signed, trust).unwrap()
}

fn wish() -> Config {
    let mut config = Config::default();
    config.node.name = "n1".to_owned();
    config.node.zone = "a".to_owned();
    config
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new())
}

fn days_ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * 24 * 3600)
}

fn refusal(joined: Result<Joined, JoinError>) -> Failure {
    match joined {
        Err(JoinError::Refused(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_joins_once_and_has_all_that_it_needs() {
    let member = Member::start();
    let (disk, token) = (disk(), member.token(1));
    let joined = member.join(&disk, &token).await.unwrap();
    assert_eq!((joined.node, joined.cluster), (NodeId(100), CLUSTER));
    assert_eq!(joined.peers.len(), 1);
    let kept = read_file(&disk, crate::config::KEPT, 4 << 10).unwrap();
    let kept: Config = toml::from_str(&String::from_utf8(kept).unwrap()).unwrap();
    assert_eq!(kept, wish(), "what it was given lies in its directory");
    let identity = Identity::load_or_found(&disk).unwrap();
    assert_eq!((identity.node, identity.cluster), (joined.node, CLUSTER));
    let loaded = Files::new(disk.clone()).load(identity.subject(), SystemTime::now());
    let loaded = loaded.unwrap();
    assert_eq!(loaded.cookie, Secret::new([0xc0; 32]));
    assert!(loaded.authority.is_none(), "the authority is the voters'");
    check(&loaded.credentials, &loaded.credentials.certificate()).unwrap();
    let again = member.join(&disk, &token).await.unwrap_err();
    assert!(
        matches!(&again, JoinError::Member { node, .. } if *node == joined.node),
        "{again}"
    );
}

#[tokio::test]
async fn a_node_that_leaves_its_name_open_keeps_the_one_that_is_found() {
    let member = Member::start();
    let (disk, token) = (disk(), member.token(1));
    let seed = member.address.to_string();
    let joined = join(&disk, &seed, &token, &Config::default()).await;
    assert_eq!(joined.unwrap().name, "found");
    let kept = read_file(&disk, crate::config::KEPT, 4 << 10).unwrap();
    assert!(
        String::from_utf8(kept)
            .unwrap()
            .contains("name = \"found\"")
    );
}

#[tokio::test]
async fn a_join_that_was_cut_short_ends_with_the_same_id() {
    let member = Member::start();
    let token = member.token(1);
    let (mut ids, mut cut) = (Vec::new(), 0);
    let memory = MemoryDisk::new();
    let mut memory = memory;
    for operations in (5..60).step_by(5) {
        memory.cut_power_after(operations);
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let joined = member.join(&disk, &token).await;
        memory = memory.crash(operations);
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        if Identity::load(&disk).unwrap().is_some() {
            let peers = read_file(&disk, "peers.json", 64 << 10).unwrap();
            assert!(!peers.is_empty(), "a member knows whom to ask");
            let kept = read_file(&disk, crate::config::KEPT, 4 << 10).unwrap();
            assert!(!kept.is_empty(), "and how it was configured");
        }
        match joined {
            Ok(joined) => ids.push(joined.node),
            Err(JoinError::Files(_) | JoinError::Identity(_)) => cut += 1,
            Err(JoinError::Member { node, .. }) => ids.push(node),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(cut > 2, "{cut} were cut");
    assert!(!ids.is_empty());
    assert!(ids.iter().all(|id| *id == NodeId(100)), "{ids:?}");
    assert_eq!(member.registry.nodes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_that_are_wrong_used_up_or_expired_admit_nobody() {
    let member = Member::start();
    let token = member.token(1);
    member.join(&disk(), &token).await.unwrap();
    let used = refusal(member.join(&disk(), &token).await);
    assert!(used.message.contains("used up"), "{used}");
    let old = member.token(2);
    member.expire(&old);
    let expired = refusal(member.join(&disk(), &old).await);
    assert!(expired.message.contains("expired"), "{expired}");
    let asked = member.registry.asked.load(Ordering::Relaxed);
    let mut wrong = member.token(3);
    wrong.secret = Secret::new([1; 32]);
    let wrong = refusal(member.join(&disk(), &wrong).await);
    let mut unknown = member.token(4);
    unknown.id = TokenId([99; 8]);
    let unknown = refusal(member.join(&disk(), &unknown).await);
    assert_eq!(wrong, unknown, "who guesses learns nothing");
    assert_eq!(wrong.code, ErrorCode::Unauthenticated);
    assert_eq!(member.registry.asked.load(Ordering::Relaxed), asked);
    assert_eq!(member.registry.nodes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn guesses_are_limited_and_the_right_token_waits_its_turn() {
    let member = Member::start();
    let token = member.token(1);
    let mut wrong = token.clone();
    wrong.secret = Secret::new([1; 32]);
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(refusal(member.join(&disk(), &wrong).await));
    }
    let is_limited = |failure: &&Failure| failure.code == ErrorCode::Overloaded;
    let limited = codes.iter().filter(is_limited).count();
    assert!((1..=2).contains(&limited), "{codes:?}");
    let limited = refusal(member.join(&disk(), &token).await);
    assert_eq!(limited.code, ErrorCode::Overloaded);
    assert!(limited.retry_after_ms.unwrap() <= 6_000);
}

#[tokio::test]
async fn without_a_quorum_a_join_ends_typed_and_leaves_nothing() {
    let authority = Arc::new(Authority::found(CLUSTER).unwrap());
    let member = Member::of(&authority, SystemTime::now(), registry(&authority, false));
    let (disk, token) = (disk(), member.token(1));
    let failure = refusal(member.join(&disk, &token).await);
    assert_eq!(failure.code, ErrorCode::NoQuorum);
    assert_eq!(disk.list().unwrap(), ["node.key"]);
}

#[tokio::test]
async fn another_cluster_is_recognised_before_anything_is_sent() {
    let member = Member::start();
    let token = member.token(1);
    let other = Member::start();
    // Somebody who shows the real authority in its chain, without being signed by it.
    let forged = {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(member.authority.certificate(), CLUSTER, provider).unwrap();
        let key = KeyPair::generate().unwrap();
        let subject = other.credentials.subject();
        let signed = other
            .authority
            .sign(
                &authority::request(&key).unwrap(),
                subject,
                SystemTime::now(),
            )
            .unwrap();
        Credentials::new(subject, key, signed, trust).unwrap()
    };
    for credentials in [&other.credentials, &forged] {
        let endpoint = listen(credentials);
        let address = endpoint.local_addr().unwrap().to_string();
        let wish = wish();
        let disk = disk();
        let joining = join(&disk, &address, &token, &wish);
        let middle = async {
            // What the man in the middle gets: no connection, so no stream and no byte of one.
            let connection = endpoint.accept().await.unwrap().await;
            assert!(connection.is_err(), "the handshake was finished");
        };
        let (joined, ()) = tokio::join!(joining, middle);
        let error = joined.unwrap_err();
        assert!(matches!(error, JoinError::Pin { .. }), "{error:?}");
    }
    member.join(&disk(), &token).await.unwrap();
}

#[tokio::test]
async fn a_member_whose_certificate_is_not_good_now_is_not_believed() {
    let authority = Arc::new(Authority::found(CLUSTER).unwrap());
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    for signed_at in [days_ago(3), tomorrow] {
        let member = Member::of(&authority, signed_at, registry(&authority, true));
        let token = member.token(1);
        let error = member.join(&disk(), &token).await.unwrap_err();
        assert!(matches!(error, JoinError::Certificate { .. }), "{error:?}");
        assert_eq!(member.registry.asked.load(Ordering::Relaxed), 0);
    }
}

/// A connection as the new node makes it.
async fn connect(address: SocketAddr, pin: Digest) -> Connection {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(pinned::Pinned::new(pin, provider.clone()));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, address, "join.paceline");
    connecting.unwrap().await.unwrap()
}

async fn exchange(connection: &Connection, request: &[u8]) -> Option<Answer> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(request).await.ok()?;
    send.finish().ok()?;
    Answer::decode(&receive.read_to_end(1 << 20).await.ok()?).ok()
}

/// A node with a stolen certificate stands in the middle: the pin is right, and all that it
/// collects is worth nothing on its own connection to a member.
#[tokio::test]
async fn a_request_is_worth_nothing_on_another_connection() {
    let member = Member::start();
    let token = member.token(1);
    let thief = credentials(&member.authority, NodeId(9), SystemTime::now());
    let endpoint = listen(&thief);
    let address = endpoint.local_addr().unwrap().to_string();
    let (wish, disk) = (wish(), disk());
    let joining = join(&disk, &address, &token, &wish);
    let stealing = async {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (_send, mut receive) = connection.accept_bi().await.unwrap();
        let stolen = receive.read_to_end(1 << 20).await.unwrap();
        connection.close(0_u32.into(), b"thanks");
        stolen
    };
    let (joined, stolen) = tokio::join!(joining, stealing);
    assert!(matches!(joined, Err(JoinError::Unknown { .. })));
    let secret = token.secret.reveal();
    assert!(!stolen.windows(32).any(|window| window == secret));
    let connection = connect(member.address, token.pin).await;
    let answer = exchange(&connection, &stolen).await;
    assert!(
        matches!(&answer, Some(Answer::Refused(failure)) if failure.code == ErrorCode::Unauthenticated),
        "{answer:?}"
    );
    assert_eq!(member.registry.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_no_request_is_refused_or_closed() {
    let member = Member::start();
    let good = Request::Renew {
        certificate: vec![1; 500],
        request: vec![2; 300],
    }
    .encode()
    .unwrap();
    let later = [&[9, 0], &good[2..]].concat();
    let cut = good[..good.len() - 1].to_vec();
    for bytes in [Vec::new(), vec![0xff; 64], later, cut] {
        let connection = connect(member.address, member.authority.pin()).await;
        let answer = exchange(&connection, &bytes).await;
        assert!(
            matches!(&answer, Some(Answer::Refused(failure)) if failure.code == ErrorCode::ParameterInvalid),
            "{answer:?}"
        );
    }
    let connection = connect(member.address, member.authority.pin()).await;
    let endless = vec![0; 1 << 20];
    assert_eq!(exchange(&connection, &endless).await, None);
    // Who says nothing is closed, and stops nobody else.
    let silent = connect(member.address, member.authority.pin()).await;
    member.join(&disk(), &member.token(1)).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(60), silent.closed());
    closed.await.unwrap();
}

#[tokio::test]
async fn a_member_that_is_no_voter_names_one() {
    let voter = Member::start();
    let learner = Member::of(
        &voter.authority,
        SystemTime::now(),
        registry(&voter.authority, true),
    );
    *learner.registry.authority.lock().unwrap() = None;
    let token = voter.token(1);
    learner.token(1);
    let lost = learner.join(&disk(), &token).await.unwrap_err();
    assert!(matches!(lost, JoinError::NoVoter { .. }), "{lost}");
    *learner.registry.voter.lock().unwrap() = Some(voter.address.to_string());
    learner.join(&disk(), &token).await.unwrap();
    assert_eq!(voter.registry.asked.load(Ordering::Relaxed), 1);
    assert_eq!(learner.registry.asked.load(Ordering::Relaxed), 0);
    // Two that send each other on are left.
    let circle = learner.address.to_string();
    *learner.registry.voter.lock().unwrap() = Some(circle);
    let lost = learner.join(&disk(), &token).await.unwrap_err();
    assert!(matches!(lost, JoinError::NoVoter { .. }), "{lost}");
}

#[tokio::test]
async fn a_learner_that_slept_for_three_days_gets_a_new_certificate() {
    let member = Member::start();
    let door = member.address.to_string();
    let late = credentials(&member.authority, NodeId(7), days_ago(3));
    let old = late.certificate();
    assert!(check(&late, &old).is_err(), "it has expired");
    let renewed = renew(&door, &late).await.unwrap();
    assert_eq!(late.certificate(), renewed);
    check(&late, &renewed).unwrap();
    // The same by somebody else's key, by another authority, and by one that was burnt.
    let request = |credentials: &Credentials| Request::Renew {
        certificate: old.to_vec(),
        request: credentials.request().unwrap(),
    };
    let other = Member::start();
    let foreign = credentials(&other.authority, NodeId(7), days_ago(3));
    let foreign = Request::Renew {
        certificate: foreign.certificate().to_vec(),
        request: foreign.request().unwrap(),
    };
    let burnt = request(&late);
    let trust = member.credentials.trust();
    for (request, is_burnt) in [
        (request(&member.credentials), false),
        (foreign, false),
        (burnt, true),
    ] {
        trust.set_burnt(is_burnt.then_some(NodeId(7)).into_iter().collect());
        let connection = connect(member.address, member.authority.pin()).await;
        let answer = exchange(&connection, &request.encode().unwrap()).await;
        assert!(
            matches!(&answer, Some(Answer::Refused(failure)) if failure.code == ErrorCode::Unauthenticated),
            "{answer:?}"
        );
    }
    let refused = renew(&door, &late).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refused(_)), "{refused}");
    assert_eq!(late.certificate(), renewed);
}

/// Whether a client that sends early data whenever it may gets to do so at a door like this.
async fn is_early_data_taken(tls: rustls::ServerConfig, pin: Digest) -> bool {
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let door = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = door.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Some(incoming) = door.accept().await {
            let connection = incoming.await.unwrap();
            let (mut send, _receive) = connection.accept_bi().await.unwrap();
            send.write_all(b"after the tickets").await.unwrap();
            send.finish().unwrap();
            connection.closed().await;
        }
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(pinned::Pinned::new(pin, provider.clone()));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    tls.enable_early_data = true;
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let client = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut is_taken = false;
    for _ in 0..2 {
        let connecting = client.connect_with(config.clone(), address, "join.paceline");
        let connection = match connecting.unwrap().into_0rtt() {
            Ok((connection, accepted)) => {
                is_taken |= accepted.await;
                connection
            }
            Err(connecting) => connecting.await.unwrap(),
        };
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        assert!(!receive.read_to_end(64).await.unwrap().is_empty());
        connection.close(0_u32.into(), b"done");
    }
    serving.abort();
    is_taken
}

#[tokio::test]
async fn early_data_is_never_taken() {
    let authority = Authority::found(CLUSTER).unwrap();
    let member = credentials(&authority, NodeId::FOUNDER, SystemTime::now());
    let protocols = vec![PROTOCOL.to_vec()];
    let mut tls = member.client_server(protocols.clone()).unwrap();
    assert!(!is_early_data_taken(tls.clone(), authority.pin()).await);
    assert_eq!(
        member.peer_server(protocols).unwrap().max_early_data_size,
        0
    );
    // A door that would take it shows that this test sees the difference.
    tls.max_early_data_size = u32::MAX;
    assert!(is_early_data_taken(tls, authority.pin()).await);
}

#[tokio::test]
async fn a_certificate_is_kept_fresh_by_whoever_can_sign() {
    let member = Member::start();
    let yesterday = SystemTime::now() - Duration::from_secs(20 * 3600);
    let learner = Member::of(&member.authority, yesterday, {
        let registry = registry(&member.authority, true);
        *registry.authority.lock().unwrap() = None;
        registry
    });
    let voter = Member::of(
        &member.authority,
        yesterday,
        registry(&member.authority, true),
    );
    *learner.registry.voter.lock().unwrap() = Some(member.address.to_string());
    for node in [&learner, &voter] {
        let old = node.credentials.certificate();
        let disk = disk();
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let keeping = tokio::spawn(crate::renewal::keep_fresh(crate::renewal::Renewal {
            credentials: node.credentials.clone(),
            files: Files::new(disk.clone()),
            admits: node.registry.clone(),
            seed: 1,
            stopping,
        }));
        let renewed = async {
            while !disk.list().unwrap().contains(&"node.crt".to_owned()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let renewed = tokio::time::timeout(Duration::from_secs(60), renewed).await;
        renewed.unwrap();
        assert_ne!(node.credentials.certificate(), old);
        check(&node.credentials, &node.credentials.certificate()).unwrap();
        assert!(!keeping.is_finished());
        stop.send_replace(true);
        let stopped = tokio::time::timeout(Duration::from_secs(60), keeping).await;
        stopped.unwrap().unwrap();
    }
}

#[tokio::test]
async fn where_nobody_is_the_address_is_named() {
    let member = Member::start();
    let token = member.token(1);
    let nowhere = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nowhere = nowhere.local_addr().unwrap().to_string();
    let error = join(&disk(), &nowhere, &token, &wish()).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&nowhere), "{error}");
    let error = join(&disk(), "no port", &token, &wish()).await.unwrap_err();
    assert!(matches!(error, JoinError::Seed { .. }), "{error:?}");
    let shown = format!("{error:?} {error} {:?}", member.credentials);
    assert!(!shown.contains(&token.reveal()[20..40]), "{shown}");
}
