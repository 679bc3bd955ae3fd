//! What a node speaks to others over: the peer port, the SDK port, and who it is on them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use paceline_core::registry::Registry;
use paceline_protocol::client::ClientDoor;
use paceline_protocol::{NodeId, Secret};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Addresses, Ports, StartError};
use crate::config::Config;
use crate::directory::{Directory, StreamDirectory};
use crate::gateway::quic;
use crate::identity::authority::Authority;
use crate::identity::credentials::Credentials;
use crate::identity::files::Files;
use crate::identity::{Identity, replace};
use crate::mesh::{Mesh, MeshOptions};
use crate::registry;
use crate::storage::disk::read_file;
use crate::supervisor::Health;
use crate::transport::Transport;
use crate::transport::memory::MemoryNetwork;
use crate::transport::quic::QuicTransport;

/// What nodes speak to each other over.
#[derive(Clone)]
pub enum Network {
    /// QUIC with mutual TLS, and the SDK's door.
    Quic,
    /// The twin in memory, without certificates and without an SDK's door.
    Memory(MemoryNetwork),
}

/// A node's ways to others, open.
pub(crate) struct Links {
    pub(crate) transport: Arc<dyn Transport>,
    /// What nodes say of themselves.
    pub(crate) directory: Arc<dyn Directory>,
    /// Where peers reach this node.
    pub(crate) peer: Option<SocketAddr>,
    /// What only QUIC needs.
    pub(crate) secured: Option<Secured>,
    /// Peers that are known before the registry is.
    pub(crate) first_peers: BTreeMap<NodeId, SocketAddr>,
    /// Where parts of the node that are lost are written.
    pub(crate) health: Health,
}

/// Who this node is on QUIC.
#[derive(Clone)]
pub(crate) struct Secured {
    pub(crate) credentials: Credentials,
    pub(crate) files: Files,
    /// What signs nodes, while this node is a voter.
    pub(crate) authority: Arc<ArcSwapOption<Authority>>,
    pub(crate) cookie: Secret,
    pub(crate) sdk: quinn::Endpoint,
}

#[derive(Serialize, Deserialize)]
struct KnownPeer {
    node: NodeId,
    address: SocketAddr,
}

impl Links {
    /// Opens the ports that `config` names, as the node of `identity`.
    ///
    /// # Errors
    /// A port cannot be bound, or the identity's files cannot be used.
    pub(super) async fn open(
        config: &Config,
        ports: &Ports,
        identity: Identity,
    ) -> Result<Self, StartError> {
        let first_peers = first_peers(ports);
        if let Network::Memory(network) = &ports.network {
            let transport = network.join(identity.node);
            return Ok(Self {
                directory: Arc::new(StreamDirectory::start(transport.clone(), ports.seed)),
                transport,
                peer: None,
                secured: None,
                first_peers,
                health: Health::default(),
            });
        }
        let files = Files::new(ports.root.clone());
        let loaded = files.load(identity.subject(), SystemTime::now())?;
        let tls = loaded.credentials.client_server(quic::protocols())?;
        let sdk = bind("sdk.listen", config.sdk.listen)?;
        let sdk = quic::bind(sdk, tls)
            .map_err(|cause| bind_error("sdk.listen", config.sdk.listen, cause))?;
        let peer = bind("peer.listen", config.peer.listen)?;
        let transport = QuicTransport::start(peer, loaded.credentials.clone())?;
        let options = MeshOptions {
            cookie: *loaded.cookie.reveal(),
            cluster: identity.cluster,
            life: ports.seed,
            health: transport.health(),
        };
        let (peer, health) = (transport.address().ok(), transport.health());
        let transport: Arc<dyn Transport> = transport;
        Ok(Self {
            peer,
            directory: Arc::new(Mesh::start(transport.clone(), options).await?),
            transport,
            secured: Some(Secured {
                credentials: loaded.credentials,
                files,
                authority: Arc::new(ArcSwapOption::new(loaded.authority)),
                cookie: loaded.cookie,
                sdk,
            }),
            first_peers,
            health,
        })
    }

    /// Where SDKs and joining nodes reach this node.
    pub(super) fn sdk(&self) -> Option<SocketAddr> {
        self.secured.as_ref()?.sdk.local_addr().ok()
    }
}

/// Keeps the peers that a joining node was told of, for its first start.
pub(crate) fn keep_first_peers(
    disk: &Arc<dyn crate::storage::Disk>,
    peers: &[paceline_protocol::join::Peer],
) -> std::io::Result<()> {
    let known = peers.iter().filter_map(|peer| {
        let address = peer.address.parse().ok()?;
        let node = peer.node;
        Some(KnownPeer { node, address })
    });
    let json = serde_json::to_vec_pretty(&known.collect::<Vec<_>>())?;
    replace(disk, PEERS, &json)
}

/// A node that cannot read them finds its peers through its registry, or is found by them.
fn first_peers(ports: &Ports) -> BTreeMap<NodeId, SocketAddr> {
    let json = read_file(&ports.root, PEERS, PEERS_BYTES_MAX).unwrap_or_default();
    let known: Vec<KnownPeer> = serde_json::from_slice(&json).unwrap_or_default();
    known
        .into_iter()
        .map(|peer| (peer.node, peer.address))
        .collect()
}

/// Any port is the last one again where that is free: nodes that all stop and start would not
/// find each other otherwise, since each knows where the others were.
pub(super) fn where_it_was(mut config: Config, ports: &Ports) -> Config {
    let json = read_file(&ports.root, PORTS, PEERS_BYTES_MAX).unwrap_or_default();
    let Ok(last) = serde_json::from_slice::<Addresses>(&json) else {
        return config;
    };
    let tcp = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    let udp = |address: &SocketAddr| UdpSocket::bind(address).is_ok();
    let again = |listen: &mut SocketAddr, last: Option<SocketAddr>| {
        if let Some(last) = last.filter(|last| listen.port() == 0 && last.ip() == listen.ip()) {
            *listen = last;
        }
    };
    again(&mut config.http.listen, Some(last.http).filter(tcp));
    again(&mut config.grpc.listen, last.grpc.filter(tcp));
    again(&mut config.metrics.listen, Some(last.metrics).filter(tcp));
    again(&mut config.sdk.listen, last.sdk.filter(udp));
    again(&mut config.peer.listen, last.peer.filter(udp));
    config
}

/// Writes where the node is: for people and their scripts, and for its next start.
pub(super) fn keep_addresses(ports: &Ports, addresses: &Addresses) -> std::io::Result<()> {
    let json = serde_json::to_vec_pretty(addresses)?;
    replace(&ports.root, PORTS, &json)?;
    replace(&ports.root, "addresses.json", &json)
}

fn bind(key: &'static str, address: SocketAddr) -> Result<UdpSocket, StartError> {
    UdpSocket::bind(address).map_err(|cause| bind_error(key, address, cause))
}

fn bind_error(key: &'static str, address: SocketAddr, cause: std::io::Error) -> StartError {
    StartError::Bind {
        key,
        address,
        cause,
    }
}

/// Where clients reach the cluster's nodes, kept up to date.
pub(super) fn client_doors(registry: &registry::Handle) -> watch::Receiver<Vec<ClientDoor>> {
    let doors = |registry: &Registry| -> Vec<ClientDoor> {
        let records = registry.nodes().values();
        let open = records.filter(|record| !record.addresses.sdk.is_empty());
        open.map(|record| ClientDoor {
            node: record.id,
            address: record.addresses.sdk.clone(),
        })
        .collect()
    };
    let mut states = registry.watch();
    let (known, knows) = watch::channel(doors(&states.borrow_and_update()));
    tokio::spawn(async move {
        while states.changed().await.is_ok() && !known.is_closed() {
            let now = doors(&states.borrow_and_update());
            known.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
    });
    knows
}

/// What may help where an address cannot be bound.
pub(super) fn remedy(cause: &std::io::Error, address: SocketAddr, key: &str) -> String {
    if cause.kind() != std::io::ErrorKind::AddrNotAvailable {
        return "choose another port, or end what uses it".to_owned();
    }
    let mut everywhere = address;
    everywhere.set_ip(match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    });
    format!(
        "this machine does not have the address. Advertise one that it has (--advertise IP); or, \
         where others reach it by one that is translated, listen everywhere \
         (--set {key}={everywhere}) and advertise that one"
    )
}

pub(crate) const PEERS: &str = "peers.json";
/// As `addresses.json`, which a supervisor removes to see when there is a new one.
const PORTS: &str = "ports.json";
const PEERS_BYTES_MAX: u64 = 64 << 10;
