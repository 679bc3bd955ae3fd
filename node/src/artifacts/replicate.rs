//! Copies of an artifact on other nodes, before anybody is told that it is safe.

use std::sync::Arc;

use paceline_protocol::{Digest, NodeId};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::Peers;
use crate::transport::Transport;

/// Lets peers keep what this node has. Cheap to clone.
#[derive(Clone)]
pub struct Replicate {
    peers: Peers,
}

impl Replicate {
    /// Over `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self {
            peers: Peers { transport },
        }
    }

    /// Lets as many of `keepers` (in their order; this node is passed over) take a copy as are
    /// needed for `wanted` durable ones together with this node's, which is here already.
    /// Returns how many there are: fewer than `wanted` if keepers fail or `deadline` comes.
    pub async fn copies(
        &self,
        artifact: Digest,
        keepers: &[NodeId],
        wanted: usize,
        deadline: Instant,
    ) -> usize {
        let own = self.peers.transport.node();
        let mut next = keepers.iter().copied().filter(|keeper| *keeper != own);
        let mut copies = 1;
        let mut keeping = JoinSet::new();
        loop {
            while copies + keeping.len() < wanted {
                let Some(keeper) = next.next() else { break };
                let peers = self.peers.clone();
                keeping
                    .spawn(async move { (keeper, peers.keep(keeper, artifact, deadline).await) });
            }
            match keeping.join_next().await {
                Some(Ok((_, Ok(())))) => copies += 1,
                Some(Ok((keeper, Err(error)))) => {
                    tracing::warn!(%keeper, %artifact, %error, "a node does not take a copy");
                }
                Some(Err(error)) => tracing::error!(%error, "asking for a copy failed"),
                None => return copies,
            }
        }
    }
}
