//! The way into a cluster: from the command's arguments to a directory that holds a member.

use std::sync::Arc;

use paceline_protocol::JoinToken;

use crate::config::Config;
use crate::join::join;
use crate::storage::{Disk, RealDisk};

/// What joining needs besides the node's configuration.
pub(crate) struct JoinOptions {
    /// A member's SDK address, `host:port`.
    pub(crate) seed: String,
    /// The token, secret and pin.
    pub(crate) token: String,
}

/// Joins the cluster that `options` names: when this returns, `config.node.data_dir` holds the
/// identity with which [`crate::Node::start`] starts a member. Returns the node's name.
///
/// # Errors
/// What is in the way, in a sentence.
pub(crate) async fn join_cluster(config: &Config, options: JoinOptions) -> Result<String, String> {
    let JoinOptions { seed, token } = options;
    let token: JoinToken = token.parse().map_err(|error| format!("--token: {error}"))?;
    let directory = config.node.data_dir.clone();
    let disk = RealDisk::open(directory).map_err(|error| error.to_string())?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    // Two that join from one directory would overwrite each other's key.
    let _lock = disk.lock().map_err(|error| error.to_string())?;
    let joined = join(&disk, &seed, &token, config)
        .await
        .map_err(|error| error.to_string())?;
    eprintln!(
        "joined cluster {:032x} as {}, node {}",
        joined.cluster, joined.name, joined.node
    );
    Ok(joined.name)
}
