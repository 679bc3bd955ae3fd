//! openraft's state machine over [`Registry`]: in memory, with snapshots on disk.
//!
//! What was applied is published before its writer is answered, so who reads the local state
//! after a write sees it. Snapshots are encoded and written on a blocking thread of the
//! runtime, never on the one that sends heartbeats.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use paceline_core::registry::Registry;
use paceline_protocol::Epoch;
use paceline_protocol::registry::{Outcome, Reply};
use tokio::sync::watch;

use super::encoding::{EncodingError, decode_meta, decode_registry, encode_meta, encode_registry};
use super::type_config::{LogId, Snapshot, SnapshotBytes, SnapshotMeta, StoredMembers, TypeConfig};
use crate::storage::snapshots::{SnapshotStore, StoredSnapshot};
use crate::threads::Threads;

/// The registry as openraft drives it.
pub(crate) struct StateMachine {
    registry: Registry,
    applied: Option<LogId>,
    members: StoredMembers,
    published: watch::Sender<Arc<Registry>>,
    snapshots: Arc<SnapshotStore>,
    threads: Threads,
}

/// Saves one state as a snapshot.
pub(crate) struct SnapshotBuilder {
    registry: Arc<Registry>,
    meta: SnapshotMeta,
    snapshots: Arc<SnapshotStore>,
    threads: Threads,
}

impl StateMachine {
    /// Begins with a snapshot that was found, or with an empty registry.
    pub(crate) fn new(
        snapshots: Arc<SnapshotStore>,
        found: Option<&StoredSnapshot>,
        threads: Threads,
    ) -> Result<Self, EncodingError> {
        let (meta, registry) = match found {
            Some(found) => (decode_meta(&found.meta)?, decode_registry(&found.state)?),
            None => (SnapshotMeta::default(), Registry::default()),
        };
        Ok(Self {
            published: watch::channel(Arc::new(registry.clone())).0,
            registry,
            applied: meta.last_log_id,
            members: meta.last_membership,
            snapshots,
            threads,
        })
    }

    /// Each state of the registry, as it is published.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Registry>> {
        self.published.subscribe()
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.registry.clone()));
    }

    fn builder(&self) -> SnapshotBuilder {
        SnapshotBuilder {
            registry: self.published.borrow().clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.members.clone(),
            },
            snapshots: self.snapshots.clone(),
            threads: self.threads,
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembers), io::Error> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let index = entry.log_id.index;
            let outcome = match entry.payload {
                EntryPayload::Normal(command) => self.registry.apply(index, &command),
                EntryPayload::Blank => self.skip(index),
                EntryPayload::Membership(members) => {
                    self.members = StoredMembers::new(Some(entry.log_id), members);
                    self.skip(index)
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                answers.push((responder, outcome));
            }
        }
        self.publish();
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotBytes,
    ) -> Result<(), io::Error> {
        let registry = decode_registry(&snapshot).map_err(io::Error::other)?;
        let stored = StoredSnapshot {
            index: meta.last_log_id.map_or(0, |id| id.index),
            meta: encode_meta(meta).map_err(io::Error::other)?,
            state: snapshot.to_vec(),
        };
        let snapshots = self.snapshots.clone();
        blocking(self.threads, move || {
            snapshots.save(&stored).map_err(io::Error::other)
        })
        .await?;
        self.registry = registry;
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let found = blocking(self.threads, move || {
            snapshots.find().map_err(io::Error::other)
        })
        .await?;
        let Some(stored) = found.newest else {
            return Ok(None);
        };
        let meta = decode_meta(&stored.meta).map_err(io::Error::other)?;
        Ok(Some(Snapshot {
            meta,
            snapshot: stored.state.into(),
        }))
    }
}

impl StateMachine {
    fn skip(&mut self, index: u64) -> Outcome {
        self.registry.skip(index);
        Outcome {
            epoch: Epoch(index),
            result: Ok(Reply::Done),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (registry, snapshots) = (self.registry.clone(), self.snapshots.clone());
        let index = self.meta.last_log_id.map_or(0, |id| id.index);
        let meta = encode_meta(&self.meta).map_err(io::Error::other)?;
        let state = blocking(self.threads, move || {
            let state = encode_registry(&registry).map_err(io::Error::other)?;
            let stored = StoredSnapshot { index, meta, state };
            snapshots.save(&stored).map_err(io::Error::other)?;
            Ok(stored.state)
        });
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: state.await?.into(),
        })
    }
}

async fn blocking<T: Send + 'static>(
    threads: Threads,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    threads.blocking(work).await.map_err(io::Error::other)?
}
