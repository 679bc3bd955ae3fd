//! Options by section, with their defaults, units, and when to change them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use paceline_core::contact;
use paceline_protocol::limits::BODY_BYTES_DEFAULT;
use serde::{Deserialize, Serialize};

use crate::engine::{DeviceChoice, Isolation};
use crate::tls::TlsFiles;

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeOptions {
    /// Its name, for people. Default `n0`.
    pub name: String,
    /// Where it stands; replicas are spread over zones. Default `default`.
    pub zone: String,
    /// Where it keeps log, snapshots and artifacts. Default `paceline-data`.
    pub data_dir: PathBuf,
    /// The address by which other machines reach this one: what other nodes and SDKs are told,
    /// with the port of each door. The doors for them, `sdk.listen` and `peer.listen`, are there
    /// too where they would be on loopback. Default none: the node is for this machine only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<IpAddr>,
    /// Allows HTTP, gRPC and metrics on addresses other than loopback without TLS and keys, and
    /// answers whatever Host and Origin a request names. Default `false`. HTTP and gRPC do not need it
    /// where `tls.cert` is set and `admission.keys_required` is true.
    pub insecure: bool,
    /// For how long it serves without contact to a quorum, in milliseconds. Default 0: for
    /// ever, its answers marked `paceline-stale`. Set it where it does harm to act on a version
    /// that others have taken away meanwhile.
    pub stale_max_ms: u64,
}

/// HTTP inference and operator API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpOptions {
    /// Address and port; port 0 takes a free one, its last one if it can. Default `127.0.0.1:8000`.
    pub listen: SocketAddr,
    /// Largest body of a request, in bytes, once it is decompressed. Default 64 MiB, at most 1 GiB.
    pub body_bytes_max: usize,
    /// Memory for the bodies of all requests together, in bytes; who finds no room in it is told
    /// `OVERLOADED`. Default 1 GiB. Raise it where many large bodies come at once and the machine has
    /// the memory: each request's inputs are copied once more on their way to a device.
    pub bodies_bytes_max: u64,
    /// Open connections. Default 4,096: each costs a file and about 10 KiB.
    pub connections_max: usize,
    /// How long a client may take to send a request's header, in milliseconds. Default 10 s.
    pub header_timeout_ms: u64,
    /// How long a connection may have nothing to do, in milliseconds. Default 90 s: longer than the
    /// 60 s of most load balancers, which must be the ones to close, or a request of theirs meets a
    /// connection that has just gone.
    pub idle_timeout_ms: u64,
}

/// gRPC inference. Its bodies and connections have the limits of `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcOptions {
    /// Address and port; port 0 takes a free one, its last one if it can. Default `127.0.0.1:8001`.
    pub listen: SocketAddr,
}

/// TLS on HTTP and gRPC. Nodes among themselves and SDKs need nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// File with the certificate and those that lead to its authority, in PEM. Default none: there
    /// is no TLS. What changes in the file is taken within seconds, unless it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// File with its private key, in PEM and without a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsOptions {
    /// Address and port; port 0 takes a free one, its last one if it can. Default `127.0.0.1:8002`.
    pub listen: SocketAddr,
}

/// QUIC for SDKs, and for nodes that join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SdkOptions {
    /// Address and UDP port; port 0 takes a free one, its last one if it can. Default port 8003, at `node.advertise` or
    /// else on loopback. SDKs come here, and machines that join.
    pub listen: SocketAddr,
}

/// QUIC between nodes. Both sides show certificates of the cluster's authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerOptions {
    /// Address and UDP port; port 0 takes a free one, its last one if it can. Default port 8004, at `node.advertise` or
    /// else on loopback. The node dials others from here, too.
    pub listen: SocketAddr,
}

/// How much is taken on at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionOptions {
    /// Requests in flight. Default 4,096, at most 1,000,000.
    pub permits: u32,
    /// How long requests should wait for their batch, in milliseconds, when there is more to do than
    /// is done: while all wait for longer, fewer are let in. Default 2,000; 0 sets no limit. Lower it
    /// where a late answer is worth little, raise it for work that may wait.
    pub queue_delay_max_ms: u64,
    /// Whether whoever shows no API key is refused, but for health and metrics. Default `false`:
    /// they are the tenant `default`. Make a key for that tenant before you set this, with
    /// `paceline tenant key add default`.
    pub keys_required: bool,
}

/// What models run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceOptions {
    /// What models run on. Default `auto`: an NVIDIA GPU, in a build with CUDA that finds one which
    /// works, otherwise the CPU, and the log says why. `cpu`; `cuda`: a node that cannot use the GPU
    /// does not start.
    pub kind: DeviceChoice,
    /// Which GPU, as the driver counts from 0. Default 0. A node has one.
    pub gpu: u16,
    /// Threads that run models on a CPU: as many batches at a time, each on one, and where fewer are
    /// under way, an encoder's on those that are idle, too. Default 0: one for each core. A GPU has
    /// two batches at a time, one that computes and one that is copied there.
    pub threads: u16,
    /// Memory for weights and activations, in bytes. Default 0: half of the machine's; of a GPU,
    /// what is free when the node starts.
    pub memory_bytes: u64,
    /// What computes encoders on a CPU. Default `kernels`: our own. `candle`: candle's operations,
    /// which are slower and what the kernels are held to, for whoever doubts an answer. candle takes
    /// threads of its own for large products, unless `RAYON_NUM_THREADS` is 1.
    pub engine: EngineKind,
    /// Where engines compute on a CPU; on a GPU always as `process`. Default `none`: in the node's own
    /// process, where a request costs the least. `process`: each replica in a process of its own, so that a model which crashes, hangs
    /// or fills its memory takes no other along; each batch costs some 30 µs more.
    pub isolation: Isolation,
    /// Memory that the process of one engine may take for itself, in bytes; it ends when it wants
    /// more. Default 0: no limit but the machine's.
    pub process_bytes_max: u64,
    /// How long a batch may run in a process before that is taken for hung and ended, in
    /// milliseconds. Default 10 s; where batches take long, twenty times the longest so far. Those of
    /// a warm-up have two minutes.
    pub hung_after_ms: u64,
    /// How often each replica is asked a row whose answer is known, in milliseconds; one that answers
    /// something else is loaded again. Default 5 min.
    pub canary_interval_ms: u64,
}

/// What computes encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Our own kernels.
    Kernels,
    /// candle's operations.
    Candle,
}

impl EngineKind {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernels => "kernels",
            Self::Candle => "candle",
        }
    }
}

/// The replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftOptions {
    /// Time between heartbeats of the leader, in milliseconds. Default 50.
    pub heartbeat_ms: u64,
    /// Shortest wait for a heartbeat before an election, in milliseconds. Default 200.
    pub election_min_ms: u64,
    /// Longest wait, in milliseconds. Default 300.
    pub election_max_ms: u64,
    /// Entries after which a snapshot is taken. Default 2,000: a restart replays them in well
    /// under a second.
    pub snapshot_entries: u64,
    /// Bytes of a file of the log; there are two at least. Default 16 MiB, at least 1 MiB.
    pub segment_bytes: u64,
}

/// What is kept for finding bugs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DebugOptions {
    /// Memory for the last inputs and decisions of the node's machines, in bytes, which `paceline
    /// debug record` writes and `paceline sim replay` replays. Default 8 MiB: some eight
    /// thousand requests; at most 32 MiB. 0 keeps nothing. Memory is taken as it is needed.
    pub record_bytes: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            name: "n0".to_owned(),
            zone: "default".to_owned(),
            data_dir: PathBuf::from("paceline-data"),
            advertise: None,
            insecure: false,
            stale_max_ms: 0,
        }
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            listen: loopback(8000),
            body_bytes_max: BODY_BYTES_DEFAULT,
            bodies_bytes_max: 1 << 30,
            connections_max: 4_096,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 90_000,
        }
    }
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            listen: loopback(8001),
        }
    }
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self {
            listen: loopback(8002),
        }
    }
}

impl Default for SdkOptions {
    fn default() -> Self {
        Self {
            listen: loopback(8003),
        }
    }
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            listen: loopback(8004),
        }
    }
}

impl Default for AdmissionOptions {
    fn default() -> Self {
        let known = paceline_core::admission::Options::default();
        Self {
            permits: known.permits,
            queue_delay_max_ms: known.queue_delay_max.as_millis() as u64,
            keys_required: false,
        }
    }
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            kind: DeviceChoice::Auto,
            gpu: 0,
            threads: 0,
            memory_bytes: 0,
            isolation: Isolation::None,
            process_bytes_max: 0,
            hung_after_ms: 10_000,
            canary_interval_ms: 300_000,
            engine: EngineKind::Kernels,
        }
    }
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 200,
            election_max_ms: 300,
            snapshot_entries: 2_000,
            segment_bytes: 16 << 20,
        }
    }
}

impl Default for DebugOptions {
    fn default() -> Self {
        Self {
            record_bytes: 8 << 20,
        }
    }
}

impl TlsOptions {
    /// Where certificate and key are, if there shall be TLS.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let (cert, key) = (self.cert.clone()?, self.key.clone()?);
        Some(TlsFiles { cert, key })
    }
}

impl NodeOptions {
    /// As the policy of contact wants them.
    pub(crate) fn contact(&self) -> contact::Options {
        let stale_max = (self.stale_max_ms > 0).then_some(self.stale_max_ms);
        contact::Options {
            stale_max: stale_max.map(Duration::from_millis),
            ..contact::Options::default()
        }
    }
}

impl RaftOptions {
    /// As Raft wants them.
    pub(crate) fn options(&self) -> crate::raft::RaftOptions {
        crate::raft::RaftOptions {
            heartbeat_ms: self.heartbeat_ms,
            election_min_ms: self.election_min_ms,
            election_max_ms: self.election_max_ms,
            snapshot_every_entries: self.snapshot_entries,
            log: crate::storage::log::LogOptions {
                segment_bytes: self.segment_bytes,
                ..crate::storage::log::LogOptions::default()
            },
            ..crate::raft::RaftOptions::default()
        }
    }
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)
}
