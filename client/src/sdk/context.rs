//! The context file, from which a client learns where a cluster is and what to check it against.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use paceline_protocol::context::{CONTEXT_BYTES_MAX, Context};
use paceline_protocol::tenant::{ApiKey, ApiKeyError};

use super::options::ClientOptions;
use super::trust::Trust;

/// Why a context file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// No path was given, and none stands in the environment.
    #[error("no context is given: name the file that `paceline up` wrote, or set {VARIABLE}")]
    Missing,
    /// A file cannot be read.
    #[error("'{}' cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
    /// The file is not a context.
    #[error("'{}' is not a context: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Where to connect, and how.
pub(crate) fn load(path: Option<&Path>) -> Result<(Vec<String>, ClientOptions), ContextError> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => PathBuf::from(std::env::var_os(VARIABLE).ok_or(ContextError::Missing)?),
    };
    let malformed = |reason: String| ContextError::Malformed {
        path: path.clone(),
        reason,
    };
    let text = read(&path)?;
    let context: Context = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    let seeds: Vec<String> = context
        .nodes
        .into_iter()
        .filter_map(|node| node.sdk)
        .collect();
    if seeds.is_empty() {
        return Err(malformed("no node has an 'sdk' address".to_owned()));
    }
    let authority = context
        .ca
        .ok_or_else(|| malformed("it has no 'ca' to check nodes against".to_owned()))?;
    // Relative to the file, so that a folder can be moved; an absolute path stays itself.
    let authority = path.parent().unwrap_or(Path::new("")).join(authority);
    let mut options = ClientOptions::new(Trust::Authority(read(&authority)?));
    let key = context.api_key.map(|key| key.parse::<ApiKey>()).transpose();
    options.api_key = key.map_err(|error: ApiKeyError| malformed(error.to_string()))?;
    Ok((seeds, options))
}

fn read(path: &Path) -> Result<String, ContextError> {
    let read = || {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(CONTEXT_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|cause| ContextError::Unreadable {
        path: path.to_owned(),
        cause,
    })
}

const VARIABLE: &str = "PACELINE_CONTEXT";

#[cfg(test)]
mod tests {
    use paceline_protocol::Secret;
    use paceline_protocol::tenant::KeyId;

    use super::*;

    #[test]
    fn a_context_names_doors_authority_and_key() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "PEM").unwrap();
        let file = folder.path().join("context.toml");
        let nodes = "[[nodes]]\nname = 'n0'\nhttp = 'a:8000'\nsdk = 'a:8003'\n";
        let write =
            |head: &str, nodes: &str| std::fs::write(&file, format!("{head}\n{nodes}")).unwrap();
        let key = ApiKey {
            id: KeyId([1; 8]),
            secret: Secret::new([2; 32]),
        };
        write(
            &format!("ca = 'ca.pem'\napi_key = '{}'", key.reveal()),
            nodes,
        );
        let (seeds, options) = load(Some(&file)).unwrap();
        assert_eq!(seeds, ["a:8003"]);
        assert_eq!(options.trust, Trust::Authority("PEM".to_owned()));
        assert_eq!(options.api_key, Some(key));

        for (head, nodes, said) in [
            ("", nodes, "no 'ca'"),
            ("ca = 'ca.pem'\nnodes = []", "", "no node"),
            ("ca = 'ca.pem'\napi_key = 'sk_1'", nodes, "an API key reads"),
            ("ca = 'gone.pem'", nodes, "gone.pem' cannot be read"),
            ("ca = [", nodes, "is not a context"),
        ] {
            write(head, nodes);
            let error = load(Some(&file)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("sk_1"), "{error}");
        }
    }
}
