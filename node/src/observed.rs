//! What workers see of their replicas, where routers and the reconciler can read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::device::BatcherId;
use paceline_core::placement::{self, ReplicaState};
use paceline_protocol::ReplicaId;
use ractor::{ActorRef, Message};
use tokio::sync::watch;

use crate::supervisor::notify;

/// What is known of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Its condition.
    pub state: ReplicaState,
    /// Its queue, once it is ready.
    pub batcher: Option<BatcherId>,
    /// Measured time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// Memory that its engine accounts, in bytes.
    pub memory_bytes: u64,
}

/// What is known of all replicas.
pub(crate) type Observations = BTreeMap<ReplicaId, Observation>;

/// The board that observations are written on. Cheap to clone.
#[derive(Clone)]
pub struct Observed {
    board: watch::Sender<Arc<Observations>>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            board: watch::Sender::new(Arc::default()),
        }
    }
}

impl Observed {
    /// What is known now.
    pub fn current(&self) -> Arc<Observations> {
        self.board.borrow().clone()
    }

    /// The conditions alone, as placement wants them.
    pub fn states(&self) -> placement::Observed {
        let current = self.current();
        current
            .iter()
            .map(|(id, observation)| (*id, observation.state.clone()))
            .collect()
    }

    /// Notes what is known of a replica now.
    pub fn note(&self, replica: ReplicaId, observation: Observation) {
        self.board.send_if_modified(|board| {
            let changed = board.get(&replica) != Some(&observation);
            if changed {
                Arc::make_mut(board).insert(replica, observation);
            }
            changed
        });
    }

    /// Forgets a replica that is no longer assigned.
    pub fn forget(&self, replica: ReplicaId) {
        self.board
            .send_if_modified(|board| Arc::make_mut(board).remove(&replica).is_some());
    }

    /// Sends `message` to `actor` after each change, until the actor is gone.
    pub fn tell<M: Message>(&self, actor: &ActorRef<M>, message: impl Fn() -> M + Send + 'static) {
        notify(self.board.subscribe(), actor.clone(), message);
    }
}
