//! Where a cluster is: the file that `paceline up` writes and every client can read.
//!
//! ```toml
//! ca = "/home/me/paceline-cluster/n0/ca.crt"
//!
//! [[nodes]]
//! name = "n0"
//! http = "127.0.0.1:8000"
//! sdk = "127.0.0.1:8003"
//! ```
//!
//! The command line takes it as `--context FILE` or `PACELINE_CONTEXT`, the SDK as
//! `Client::from_context`. Here are its fields; who reads or writes it brings the TOML.

use serde::{Deserialize, Serialize};

/// The file's content. Fields are only ever added, and readers skip those that they do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The certificate of the cluster's authority (PEM), which clients over QUIC check nodes
    /// against. A path that is not absolute is relative to the file's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Certificates of the authorities (PEM) that nodes are checked against whose `http` begins with
    /// `https://`. A path as `ca` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_ca: Option<String>,
    /// Who the client is: an API key, as `paceline tenant key add` prints it. Without one the client is
    /// the tenant `default`, where that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The nodes, in the order in which they are tried.
    pub nodes: Vec<ContextNode>,
}

/// One node of a [`Context`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextNode {
    /// Its name.
    pub name: String,
    /// HTTP inference and operator API, as `host:port`, or with `https://` in front of it.
    pub http: String,
    /// SDK over QUIC, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
}

/// Largest file that is read, in bytes: 64 nodes need a tenth of it.
pub const CONTEXT_BYTES_MAX: u64 = 64 << 10;
