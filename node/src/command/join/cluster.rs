//! The way into a cluster: the seam between the command and the node's identity.

use crate::config::Config;

/// What joining needs besides the node's configuration.
pub(crate) struct JoinOptions {
    /// A member's SDK address, `host:port`.
    pub(crate) seed: String,
    /// The token, secret and pin.
    pub(crate) token: String,
}

/// Joins the cluster that `options` names: when this returns, `config.node.data_dir` holds the
/// identity with which [`crate::Node::start`] starts a member.
///
/// # Errors
/// What is in the way, in a sentence: this release has no door to join through.
pub(crate) async fn join_cluster(config: &Config, options: JoinOptions) -> Result<(), String> {
    let JoinOptions { seed, token } = options;
    // A secret without a use is not kept.
    drop(token);
    let name = &config.node.name;
    Err(format!(
        "node '{name}' cannot join through {seed}: this release does not offer joining yet"
    ))
}
