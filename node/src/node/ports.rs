//! The seams between a node and the world.

use std::sync::Arc;

use paceline_models::Engine;

use super::{Network, StartError};
use crate::clock::Wall;
use crate::config::Config;
use crate::engine::engine_of;
use crate::gateway::Front;
use crate::storage::RealDisk;
use crate::storage::disk::Disk;
use crate::threads::Threads;

/// The seams between a node and the world; each has a twin for tests.
#[derive(Clone)]
pub struct Ports {
    /// Identity and addresses.
    pub root: Arc<dyn Disk>,
    /// Raft's log and snapshots.
    pub raft: Arc<dyn Disk>,
    /// Files of artifacts.
    pub blobs: Arc<dyn Disk>,
    /// What loads and runs models.
    pub engine: Arc<dyn Engine>,
    /// What it speaks to other nodes over.
    pub network: Network,
    /// How clients reach it over HTTP.
    pub front: Front,
    /// Who runs its own loops.
    pub threads: Threads,
    /// Seed of everything that is drawn at random and is not a secret.
    pub seed: u64,
    /// The time of stamps.
    pub wall: Wall,
    /// What it says its process is.
    pub pid: u32,
}

impl Ports {
    /// Production: directories below `data_dir`, the device that is asked for, the
    /// system's entropy.
    ///
    /// # Errors
    /// A directory cannot be made, the device cannot be used, or the system has no entropy.
    pub fn production(config: &Config) -> Result<Self, StartError> {
        let open = |directory: std::path::PathBuf| -> Result<Arc<dyn Disk>, StartError> {
            let place = directory.display().to_string();
            let disk = RealDisk::open(directory);
            Ok(Arc::new(
                disk.map_err(|cause| StartError::Disk { place, cause })?,
            ))
        };
        let data = &config.node.data_dir;
        let root = open(data.clone())?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| StartError::Parts(error.to_string()))?;
        Ok(Self {
            root,
            raft: open(data.join("raft"))?,
            blobs: open(data.join("blobs"))?,
            engine: engine_of(&config.device)?,
            network: Network::Quic,
            front: Front::Sockets,
            threads: Threads::Own,
            seed: u64::from_le_bytes(seed),
            wall: Wall::System,
            pid: std::process::id(),
        })
    }
}
