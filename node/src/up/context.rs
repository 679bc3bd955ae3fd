//! Where the cluster is, for clients: `context.toml`.

use std::io;

use paceline_core::up::Past;
use paceline_protocol::context::{Context, ContextNode};

use super::home::{Home, name};
use super::probe::addresses;

/// Writes the file anew, from what the nodes say of themselves.
///
/// # Errors
/// What the disk says.
pub(crate) fn write(home: &Home) -> io::Result<()> {
    let of_it = |node: &usize| home.past(*node) != Past::Removed;
    let nodes = (0..home.nodes()).filter(of_it).filter_map(|node| {
        let addresses = addresses(&home.node(node))?;
        Some(ContextNode {
            name: name(node),
            http: addresses.http.to_string(),
            sdk: addresses.sdk.map(|sdk| sdk.to_string()),
        })
    });
    // Each has it, a node that was removed too.
    let mut authorities = (0..home.nodes()).map(|node| home.node(node).join(AUTHORITY));
    let authority = authorities.find(|authority| authority.exists());
    let context = Context {
        ca: authority.map(|authority| authority.display().to_string()),
        http_ca: None,
        api_key: None,
        nodes: nodes.collect(),
    };
    let text = toml::to_string_pretty(&context).map_err(io::Error::other)?;
    home.write(FILE, format!("{HEADING}\n{text}").as_bytes())
}

/// The file's name in the cluster's directory.
pub(crate) const FILE: &str = "context.toml";
const HEADING: &str = "# Written by `paceline up`, for --context and PACELINE_CONTEXT.";
/// The certificate of the cluster's authority in a node's directory.
const AUTHORITY: &str = "ca.crt";
