//! A node as a value: its parts put together, started in order, and stopped in the reverse.

mod assembly;
mod network;
mod ports;
mod registration;
mod removal;
mod seat;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::registry::Change;
use paceline_protocol::{Digest, Failure, ModelName, NodeId, OpId, TenantName, VersionNumber};
use ractor::ActorRef;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::assembly::Assembly;
pub use self::network::Network;
pub(crate) use self::network::{Links, Secured, keep_first_peers};
pub use self::ports::Ports;
use self::removal::Removal;
use crate::artifacts::Artifacts;
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::{Door, Guests, Listeners, Readiness};
use crate::identity::files::FilesError;
use crate::identity::{Identity, IdentityError};
use crate::mesh::MeshError;
use crate::publish::Publisher;
use crate::raft::{RaftHandle, RaftNode, RaftStart, StopReason};
use crate::storage::disk::DirectoryLock;
use crate::storage::{LockError, Owner};
use crate::telemetry::metrics::Metrics;
use crate::tls::{Tls, TlsFault};
use crate::transport::Transport;
use crate::transport::quic::QuicError;
use crate::{registry, router, supervisor};

/// Starts nodes.
pub struct Node;

/// A running node.
pub struct NodeHandle {
    cluster: u128,
    addresses: Addresses,
    registry: registry::Handle,
    publisher: Publisher,
    artifacts: Artifacts,
    router: router::Handle,
    device: crate::device::Handle,
    raft: RaftHandle,
    transport: Arc<dyn Transport>,
    readiness: Readiness,
    stopping: watch::Sender<bool>,
    guests: Guests,
    supervisor: ActorRef<supervisor::Message>,
    in_flight: crate::admission::Handle,
    #[cfg(test)]
    serving: crate::gateway::Serving,
    directory: Arc<dyn crate::directory::Directory>,
    removal: Removal,
    _lock: DirectoryLock,
}

/// Where a node is reached; `addresses.json` in its data directory says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP inference and operator API.
    pub http: SocketAddr,
    /// gRPC inference, if it is open.
    #[serde(default)]
    pub grpc: Option<SocketAddr>,
    /// Prometheus metrics.
    pub metrics: SocketAddr,
    /// QUIC for SDKs and for nodes that join, if it is open.
    #[serde(default)]
    pub sdk: Option<SocketAddr>,
    /// QUIC between nodes, if it is open.
    #[serde(default)]
    pub peer: Option<SocketAddr>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is in use, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data directory belongs to something else, or is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A port is in use, or may not be bound.
    #[error("{key} = {address} cannot be bound: {cause}; {}", network::remedy(cause, *address, key))]
    Bind {
        /// Which option.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// What models run on cannot be used.
    #[error(transparent)]
    Device(#[from] crate::engine::ChoiceError),
    /// The log or a snapshot cannot be used.
    #[error(transparent)]
    Raft(#[from] crate::raft::StartError),
    /// The registry did not take the node's registration.
    #[error("the node could not register itself: {0}")]
    Register(Failure),
    /// A part did not start.
    #[error("the node's parts did not start: {0}")]
    Parts(String),
    /// What the node shows to others is missing or damaged.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The certificate or key of the HTTP door cannot be used.
    #[error(transparent)]
    Certificate(#[from] TlsFault),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer port.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// The actor mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The disk.
    #[error("'{place}' cannot be used: {cause}")]
    Disk {
        /// Where.
        place: String,
        /// What the operating system says.
        cause: std::io::Error,
    },
}

impl Node {
    /// Starts a node: checks and binds first, then brings the registry up, then the parts.
    /// When this returns, the node has been caught up and takes requests.
    ///
    /// # Errors
    /// [`StartError`] names what is in the way. Nothing runs then.
    pub async fn start(config: Config, ports: Ports) -> Result<NodeHandle, StartError> {
        let lock = ports.root.lock()?;
        let identity = Identity::load_or_found(&ports.root)?;
        let config = network::where_it_was(config, &ports);
        let tls = config.tls.files();
        let tls = tls.map(|files| Tls::load(files, ports.wall)).transpose()?;
        let listeners = listeners(&config, &ports)?;
        let disk_error = |cause| StartError::Disk {
            place: ports.root.place(),
            cause,
        };
        let links = Box::pin(Links::open(&config, &ports, identity)).await?;
        let addresses = Addresses {
            http: listeners.http.address().map_err(disk_error)?,
            grpc: Some(listeners.grpc.address().map_err(disk_error)?),
            metrics: listeners.metrics.address().map_err(disk_error)?,
            sdk: links.sdk(),
            peer: links.peer,
        };
        let telemetry = Metrics::new();
        let raft = start_raft(&config, &ports, (identity, &links, &telemetry)).await?;
        let registry = registry::Handle::new(raft.clone(), ports.wall);
        network::keep_addresses(&ports, &addresses).map_err(disk_error)?;
        let (stopping, is_stopping) = watch::channel(false);
        let clock = Clock::start();
        let (transport, directory) = (links.transport.clone(), links.directory.clone());
        let removal = Removal::of((identity.node, &links), &registry, ports.root.clone());
        let record = registration::record(identity.node, &config, &ports, addresses);
        let assembly = Assembly {
            identity,
            config: &config,
            ports: &ports,
            registry: registry.clone(),
            clock,
            stopping: is_stopping,
            listeners,
            tls,
            metrics: telemetry,
            raft: raft.clone(),
            links,
        };
        let parts = Box::pin(assembly.start()).await?;
        registration::register(&registry, record, stopping.subscribe()).await?;
        let known = (registry.clone(), parts.observed, identity.node);
        tokio::select! {
            () = registration::catch_up(known, &parts.readiness, stopping.subscribe()) => {}
            // There is nothing to catch up with.
            () = removal.known() => {}
        }
        Ok(NodeHandle {
            cluster: identity.cluster,
            addresses,
            registry,
            publisher: parts.publisher,
            artifacts: parts.artifacts,
            router: parts.router,
            device: parts.device,
            raft,
            transport,
            readiness: parts.readiness,
            stopping,
            guests: parts.guests,
            supervisor: parts.supervisor,
            in_flight: parts.admission,
            #[cfg(test)]
            serving: parts.serving,
            directory,
            removal,
            _lock: lock,
        })
    }
}

/// The doors for clients over HTTP and gRPC and for Prometheus, bound.
fn listeners(config: &Config, ports: &Ports) -> Result<Listeners, StartError> {
    let bind = |key, door, address| {
        let bound = ports.front.bind(door, address);
        bound.map_err(|cause| StartError::Bind {
            key,
            address,
            cause,
        })
    };
    Ok(Listeners {
        http: bind("http.listen", Door::Http, config.http.listen)?,
        grpc: bind("grpc.listen", Door::Grpc, config.grpc.listen)?,
        metrics: bind("metrics.listen", Door::Metrics, config.metrics.listen)?,
    })
}

/// Consensus on the node's disk, over its links.
async fn start_raft(
    config: &Config,
    ports: &Ports,
    (identity, links, telemetry): (Identity, &Links, &Metrics),
) -> Result<RaftHandle, StartError> {
    let authority = links
        .secured
        .as_ref()
        .map(|secured| secured.authority.clone());
    // The first peers are there before the registry is, also for consensus itself.
    links.transport.set_peers(links.first_peers.clone());
    let start = RaftStart {
        owner: Owner {
            cluster: identity.cluster,
            node: identity.node.0,
        },
        founds: identity.node == NodeId::FOUNDER,
        disk: ports.raft.clone(),
        options: config.raft.options(),
        syncs: telemetry.log_syncs(),
        transport: links.transport.clone(),
        threads: ports.threads,
        guides: links.first_peers.keys().copied().collect(),
        authority_key: Arc::new(move || Some(authority.as_ref()?.load_full()?.key_pem())),
    };
    Ok(RaftNode::start(start).await?)
}

impl NodeHandle {
    /// Where the node is reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Consensus as it is on this node: for who runs several nodes and watches them.
    pub fn raft(&self) -> RaftHandle {
        self.raft.clone()
    }

    /// Publishes and deploys an artifact that lies in memory, unless it is deployed already.
    ///
    /// # Errors
    /// As publishing and deploying over the operator API.
    pub async fn install(
        &self,
        model: &ModelName,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Result<VersionNumber, Failure> {
        let artifacts = self.artifacts.clone();
        let stored = crate::publish::blocking(artifacts.threads(), move || {
            Ok(artifacts.store_files(files)?)
        });
        let digest: Digest = stored.await?;
        let current = self.registry.current();
        let known = current.models().get(model).and_then(|model| {
            let same = |version: &VersionNumber| {
                model
                    .versions
                    .get(version)
                    .is_some_and(|known| known.record.digest == digest)
            };
            model
                .deployment
                .map(|deployment| deployment.version)
                .filter(same)
        });
        if let Some(version) = known {
            return Ok(version);
        }
        let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let op: OpId = registry::fresh_op()?;
        let published = self
            .publisher
            .publish_stored(
                (model.clone(), TenantName::default()),
                (digest, bytes),
                (op, None),
            )
            .await?;
        let replicas = paceline_protocol::registry::ReplicaTarget::Each;
        let (model, version) = (model.clone(), published.version);
        let deploy = Change::Deploy {
            model,
            version,
            replicas,
        };
        self.registry.write(registry::fresh_op()?, deploy).await?;
        Ok(version)
    }

    /// Waits until a request for the model would find a ready replica; says whether it came
    /// to that within `limit`.
    pub async fn wait_ready(&self, model: &ModelName, limit: Duration) -> bool {
        let ready = async {
            let is_ready = || {
                let routes = self.router.routes();
                routes
                    .model(model.as_str())
                    .is_ok_and(router::ModelRoute::is_ready)
            };
            while !is_ready() {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::time::timeout(limit, ready).await.is_ok()
    }

    /// Waits until consensus has ended by itself; a fatal reason means that the process must
    /// end.
    pub async fn stopped(&self) -> StopReason {
        self.raft.stopped().await
    }

    /// Waits until the cluster has removed this node, and notes it in its directory, which
    /// starts no node any more. What is left is to stop.
    pub async fn removed(&self) {
        self.removal.noted().await;
    }

    /// Stops: no longer ready, connections end after their present request, what is in flight
    /// finishes within `limit`, then the parts stop and the log is closed.
    pub async fn shutdown(self, limit: Duration) {
        self.readiness.set(false);
        self.stopping.send_replace(true);
        let empty = async {
            self.guests.all_gone().await;
            while self.in_flight.in_flight() > 0 {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            let left = self.in_flight.in_flight();
            tracing::warn!(left, "requests were still in flight when the node stopped");
        }
        let stopped = self
            .supervisor
            .call(supervisor::Message::StopChildren, Some(limit))
            .await;
        if stopped.is_err() {
            tracing::warn!("the node's parts did not stop in order");
        }
        self.supervisor.stop(None);
        self.device.stop();
        let reason = self.raft.shutdown().await;
        self.directory.close();
        self.transport.close();
        self.transport.closed().await;
        tracing::info!(%reason, "stopped");
    }
}

/// How often readiness and emptiness are looked at.
const READY_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
