//! How a node learns that it was removed: from its own registry; or, if it was away or cut off
//! when that was decided, from a peer that refuses its certificate.

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;

use super::Links;
use crate::identity::credentials::Credentials;
use crate::identity::note_removal;
use crate::registry;
use crate::storage::Disk;
use crate::transport::{Plane, Transport};

/// What tells a node that it was removed.
pub(super) struct Removal {
    node: NodeId,
    registry: registry::Handle,
    transport: Arc<dyn Transport>,
    /// Peers in memory have no certificates to refuse.
    credentials: Option<Credentials>,
    root: Arc<dyn Disk>,
}

impl Removal {
    pub(super) fn of(
        (node, links): (NodeId, &Links),
        registry: &registry::Handle,
        root: Arc<dyn Disk>,
    ) -> Self {
        let secured = links.secured.as_ref();
        Self {
            node,
            registry: registry.clone(),
            transport: links.transport.clone(),
            credentials: secured.map(|secured| secured.credentials.clone()),
            root,
        }
    }

    /// Waits until it was.
    pub(super) async fn known(&self) {
        tokio::select! {
            () = self.applied() => {}
            () = self.told() => {}
        }
    }

    /// Waits until it was, and notes it on the disk.
    pub(super) async fn noted(&self) {
        self.known().await;
        let root = self.root.clone();
        match tokio::task::spawn_blocking(move || note_removal(&root)).await {
            Ok(Ok(())) => {}
            // It will be told again when it is started again.
            Ok(Err(error)) => tracing::error!(%error, "that this node was removed is not noted"),
            Err(error) => tracing::error!(%error, "that this node was removed is not noted"),
        }
    }

    async fn applied(&self) {
        let mut states = self.registry.watch();
        let is_removed = states.wait_for(|registry| registry.is_burnt(self.node));
        if is_removed.await.is_err() {
            // Consensus has ended, and says nothing more.
            std::future::pending::<()>().await;
        }
    }

    async fn told(&self) {
        let Some(credentials) = &self.credentials else {
            return std::future::pending().await;
        };
        tokio::select! {
            () = credentials.disowned() => {}
            () = self.knock() => {}
        }
    }

    /// Dials peers while no leader is heard: who has no vote may have no other reason to, and
    /// would never be told.
    async fn knock(&self) {
        loop {
            tokio::time::sleep(KNOCK_EVERY).await;
            if self.registry.has_quorum() {
                continue;
            }
            let registry = self.registry.current();
            for peer in registry.nodes().keys().filter(|peer| **peer != self.node) {
                // What counts is whether it refuses this node.
                drop(self.transport.open(*peer, Plane::Raft, KNOCK_EVERY).await);
            }
        }
    }
}

/// Twice as long as a leader may be silent and be one.
const KNOCK_EVERY: Duration = Duration::from_secs(2);
