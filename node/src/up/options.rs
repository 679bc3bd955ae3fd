//! What a local cluster is like, and why one does not come to be.

use std::path::PathBuf;

use paceline_core::up;

use super::home::HomeError;
use crate::config::Block;

/// What a local cluster is like.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many nodes; as many as the directory has, or 3.
    pub(crate) nodes: Option<usize>,
    /// Where they keep their data.
    pub(crate) data: PathBuf,
    /// The first node's ports.
    pub(crate) block: Block,
    /// Whether the demo's models are brought along and shown.
    pub(crate) demo: bool,
    /// The nodes' program.
    pub(crate) program: PathBuf,
    /// How patient the supervisor is.
    pub(crate) policy: up::Options,
}

/// Why a local cluster does not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// Its directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The last node's ports.
    #[error("{0}; choose a lower --http-port or fewer --nodes")]
    Ports(String),
}
