//! `--context FILE`: where the cluster is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use paceline_protocol::context::{CONTEXT_BYTES_MAX, Context};

use crate::api::{AddressError, Authority, ClusterAddress, NoCertificate};

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// The file cannot be read.
    #[error("cannot read {file}: {cause}")]
    Unreadable { file: String, cause: io::Error },
    /// It is not what a context is.
    #[error("{file} is no context: {cause}")]
    Malformed { file: String, cause: String },
    /// It names no node.
    #[error("the context {file} names no node")]
    Empty { file: String },
    /// A file of authorities holds none.
    #[error("cannot use {file}: {cause}")]
    Authority { file: String, cause: NoCertificate },
    /// One of its addresses is none.
    #[error("the context {file}, node '{node}': {cause}")]
    Address {
        file: String,
        node: String,
        cause: AddressError,
    },
}

/// The nodes that a context names, in its order, and its key.
pub(crate) fn read(path: &Path) -> Result<ClusterAddress, ContextError> {
    let file = path.display().to_string();
    let text = text(path).map_err(|cause| ContextError::Unreadable {
        file: file.clone(),
        cause,
    })?;
    let context: Context = toml::from_str(&text).map_err(|error| ContextError::Malformed {
        file: file.clone(),
        cause: error.message().to_owned(),
    })?;
    if context.nodes.is_empty() {
        return Err(ContextError::Empty { file });
    }
    let address = |node: &paceline_protocol::context::ContextNode| {
        node.http.parse().map_err(|cause| ContextError::Address {
            file: file.clone(),
            node: node.name.clone(),
            cause,
        })
    };
    let nodes: Result<Vec<_>, _> = context.nodes.iter().map(address).collect();
    let authority = match &context.http_ca {
        None => None,
        Some(ca) => {
            let ca = path.parent().unwrap_or(Path::new("")).join(ca);
            Some(authority(&ca)?)
        }
    };
    Ok(ClusterAddress {
        nodes: nodes?,
        api_key: context.api_key,
        authority,
    })
}

/// The authorities that a PEM file holds.
pub(crate) fn authority(path: &Path) -> Result<Authority, ContextError> {
    let file = path.display().to_string();
    let pem = text(path).map_err(|cause| ContextError::Unreadable {
        file: file.clone(),
        cause,
    })?;
    Authority::from_pem(pem.as_bytes()).map_err(|cause| ContextError::Authority { file, cause })
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(CONTEXT_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > CONTEXT_BYTES_MAX {
        let reason = format!("more than {CONTEXT_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_names_nodes_and_perhaps_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context.toml");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(refused("nodes = []").contains("names no node"));
        assert!(refused("nodes = 1").contains("is no context"));
        let bad = refused("[[nodes]]\nname = 'n0'\nhttp = 'ftp://x'\n");
        assert!(bad.contains("node 'n0': 'ftp://' is not offered"), "{bad}");
        let long = format!("# {}", "x".repeat(CONTEXT_BYTES_MAX as usize));
        assert!(refused(&long).contains("more than"));
        let refused_ca =
            refused("http_ca = 'context.toml'\n[[nodes]]\nname = 'n0'\nhttp = 'https://x'\n");
        assert!(refused_ca.contains("no certificate"), "{refused_ca}");
        let text = "api_key = 'pk_1'\nlater = true\n[[nodes]]\nname = 'n0'\nhttp = 'a:1'\n\
                    [[nodes]]\nname = 'n1'\nhttp = 'b:2'\nsdk = 'b:5'\n";
        std::fs::write(&path, text).unwrap();
        let cluster = read(&path).unwrap();
        let shown: Vec<String> = cluster.nodes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:1", "b:2"]);
        assert_eq!(cluster.api_key.as_deref(), Some("pk_1"));
        let absent = read(&folder.path().join("absent")).unwrap_err();
        assert!(absent.to_string().contains("absent"), "{absent}");
    }
}
