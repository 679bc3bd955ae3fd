//! The join door's way to the registry: which tokens there are, and who is admitted.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use paceline_protocol::join::Peer;
use paceline_protocol::registry::{Change, Reply};
use paceline_protocol::{Digest, ErrorCode, Failure, NodeId, Secret, TokenId};

use crate::identity::authority::Authority;
use crate::join::{Admission, Admits, Admitted};
use crate::registry::{self, fresh_op};
use crate::transport::Boxed;

/// Admits nodes by committing them. Any node can, as long as it reaches a leader.
pub(crate) struct Registrar {
    pub(crate) node: NodeId,
    pub(crate) registry: registry::Handle,
    pub(crate) authority: Arc<ArcSwapOption<Authority>>,
    pub(crate) cookie: Secret,
}

impl Admits for Registrar {
    fn token(&self, token: TokenId) -> Boxed<'_, Option<Digest>> {
        Box::pin(async move {
            // A token that was made a moment ago at another node must be known here.
            self.registry.catch_up().await;
            let registry = self.registry.current();
            registry
                .tokens()
                .get(&token)
                .map(|token| token.secret_sha256)
        })
    }

    fn admit(&self, admission: Admission) -> Boxed<'_, Result<Admitted, Failure>> {
        Box::pin(async move {
            let Admission {
                token,
                secret_sha256,
                key_sha256,
                name,
                zone,
            } = admission;
            let change = Change::AdmitNode {
                token,
                secret_sha256,
                key_sha256,
                name,
                zone,
            };
            match self.registry.write(fresh_op()?, change).await? {
                (_, Reply::Admitted(node)) => Ok(Admitted {
                    node,
                    cookie: self.cookie.clone(),
                    peers: self.peers(),
                    name: self.name_of(node).await?,
                }),
                (_, reply) => Err(Failure::new(
                    ErrorCode::Internal,
                    format!("an admission was answered with {reply:?}"),
                )),
            }
        })
    }

    fn authority(&self) -> Option<Arc<Authority>> {
        self.authority.load_full()
    }

    fn voter(&self) -> Option<String> {
        let raft = self.registry.raft();
        let registry = self.registry.current();
        let leader = raft.leader.into_iter();
        let mut voters = leader.chain(raft.voters).filter(|node| *node != self.node);
        voters.find_map(|node| {
            let record = registry.nodes().get(&node)?;
            Some(record.addresses.sdk.clone()).filter(|sdk| !sdk.is_empty())
        })
    }
}

impl Registrar {
    /// What an admitted node is called. Its entry may have been applied elsewhere first.
    async fn name_of(&self, node: NodeId) -> Result<String, Failure> {
        if self.registry.current().name_of(node).is_none() {
            self.registry.catch_up().await;
        }
        let registry = self.registry.current();
        registry.name_of(node).map(str::to_owned).ok_or_else(|| {
            Failure::new(
                ErrorCode::Unknown,
                "the node was admitted, and this member does not know its name yet; repeat it",
            )
        })
    }

    fn peers(&self) -> Vec<Peer> {
        let registry = self.registry.current();
        let peers = registry.nodes().iter().map(|(node, record)| Peer {
            node: *node,
            address: record.addresses.peer.clone(),
        });
        peers.filter(|peer| !peer.address.is_empty()).collect()
    }
}
