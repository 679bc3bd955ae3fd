//! Joining over the network in memory, where there is no door to join through.

use std::sync::Arc;

use paceline_protocol::join::Peer;
use paceline_protocol::registry::{Change, Reply, TokenRecord};
use paceline_protocol::{Digest, ErrorCode, Failure, NodeId, OpId, TokenId};

use super::{NodeHandle, keep_first_peers};
use crate::identity::Identity;
use crate::registry::fresh_op;
use crate::storage::disk::Disk;

impl NodeHandle {
    /// Admits a node called `name` and makes `root` its directory, with the same commits as the
    /// join door and without certificates: the node may then be started there, on the network
    /// in memory of this one.
    ///
    /// # Errors
    /// The registry's refusal, or what the disk says.
    pub async fn seat(&self, root: &Arc<dyn Disk>, name: &str) -> Result<NodeId, Failure> {
        let (token, secret, key) = (fresh_op()?, fresh_op()?, fresh_op()?);
        let id = TokenId((token.0 as u64).to_le_bytes());
        let record = TokenRecord {
            id,
            secret_sha256: digest_of(secret),
            expires_ms: self.registry.wall_ms() + TOKEN_TTL_MS,
            uses_left: 1,
        };
        let create = Change::CreateToken(record);
        self.registry.write(fresh_op()?, create).await?;
        let admit = Change::AdmitNode {
            token: id,
            secret_sha256: digest_of(secret),
            key_sha256: digest_of(key),
            name: name.to_owned(),
            zone: "default".to_owned(),
        };
        let Reply::Admitted(node) = self.registry.write(fresh_op()?, admit).await?.1 else {
            let message = "an admission was answered with something else";
            return Err(Failure::new(ErrorCode::Internal, message));
        };
        let nodes = self.registry.current();
        let peers = nodes.nodes().keys().map(|node| Peer {
            node: *node,
            address: ANY_ADDRESS.to_owned(),
        });
        let cluster = self.cluster;
        keep_first_peers(root, &peers.collect::<Vec<_>>())
            .and_then(|()| Identity { cluster, node }.store(root))
            .map_err(|error| Failure::new(ErrorCode::StorageFailed, error.to_string()))?;
        Ok(node)
    }
}

/// Any 32 bytes do where nobody shows a secret.
fn digest_of(secret: OpId) -> Digest {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&secret.0.to_le_bytes());
    Digest(bytes)
}

const TOKEN_TTL_MS: u64 = 60_000;
/// In memory a node is reached by its id.
const ANY_ADDRESS: &str = "127.0.0.1:1";
