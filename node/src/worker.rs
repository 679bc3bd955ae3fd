//! Owns a device: which replicas live on it, and its housekeeping.
//!
//! Supervised by the device's supervisor; supervises a [`crate::replica`] for each assignment.
//! Hears from the registry what is assigned to it; speaks to its replicas. Requests do not pass
//! here: they go through [`crate::device::Handle`]. When the worker dies its replicas stop with
//! it, routers are told, and its successor loads them again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use paceline_core::registry::{Assignment, Registry};
use paceline_protocol::{DeviceId, NodeId, ReplicaId};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::artifacts::{Artifacts, Fetcher};
use crate::clock::Clock;
use crate::device;
use crate::observed::{Observation, Observed};
use crate::record::Records;
use crate::registry;
use crate::replica::{self, Replica};

/// What the worker hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry has changed.
    Changed,
    /// Time to drop what has expired.
    Tick,
}

impl ractor::Message for Message {}

/// What the worker needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// The node that it is on.
    pub node: NodeId,
    /// Which of the node's devices it owns.
    pub id: DeviceId,
    /// The device.
    pub device: device::Handle,
    /// What loads models.
    pub engine: Arc<dyn paceline_models::Engine>,
    /// Where artifacts are.
    pub artifacts: Artifacts,
    /// Where they are fetched from.
    pub fetcher: Fetcher,
    /// What shall be.
    pub registry: registry::Handle,
    /// Where it reports.
    pub observed: Observed,
    /// For deadlines of restarts.
    pub clock: Clock,
    /// Where what was decided of replicas is kept.
    pub records: Records,
    /// How often replicas' canaries are asked.
    pub canary_every: Duration,
}

/// The actor.
pub(crate) struct Worker;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    replicas: BTreeMap<ReplicaId, ActorCell>,
}

impl Actor for Worker {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        arguments.registry.tell(&myself, || Message::Changed);
        myself.send_interval(TICK, || Message::Tick);
        myself.cast(Message::Changed)?;
        Ok(State {
            arguments,
            replicas: BTreeMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Changed => state.follow(&myself).await,
            Message::Tick => {
                state.arguments.device.expire();
                Ok(())
            }
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Message>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        for (id, replica) in std::mem::take(&mut state.replicas) {
            replica.stop(None);
            state.arguments.observed.forget(id);
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, _)
        | SupervisionEvent::ActorTerminated(cell, _, _) = event
        {
            let id = cell.get_id();
            let lost = state
                .replicas
                .iter()
                .find(|(_, known)| known.get_id() == id);
            if let Some(replica) = lost.map(|(replica, _)| *replica) {
                tracing::error!(
                    replica = replica.0,
                    "a replica's actor ended; it is started anew"
                );
                state.replicas.remove(&replica);
                state
                    .arguments
                    .observed
                    .note(replica, Observation::default());
                myself.send_after(REPLICA_RETRY, || Message::Changed);
            }
        }
        Ok(())
    }
}

impl State {
    /// Starts replicas that are assigned here and stops those that no longer are.
    async fn follow(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let registry = self.arguments.registry.current();
        let (node, id) = (self.arguments.node, self.arguments.id);
        let is_ours = |a: &Assignment| a.node == node && a.device == id;
        let gone: Vec<ReplicaId> = self
            .replicas
            .keys()
            .filter(|replica| !registry.replicas().get(replica).is_some_and(|a| is_ours(a)))
            .copied()
            .collect();
        for replica in gone {
            if let Some(cell) = self.replicas.remove(&replica) {
                cell.stop(None);
            }
            self.arguments.observed.forget(replica);
        }
        for (replica, assignment) in registry.replicas().iter().filter(|(_, a)| is_ours(a)) {
            if !self.replicas.contains_key(replica) {
                self.start(myself, &registry, *replica, assignment).await?;
            }
        }
        Ok(())
    }

    async fn start(
        &mut self,
        myself: &ActorRef<Message>,
        registry: &Registry,
        replica: ReplicaId,
        assignment: &Assignment,
    ) -> Result<(), ActorProcessingErr> {
        let model = registry.models().get(&assignment.model);
        let published = model.and_then(|model| model.versions.get(&assignment.version));
        let published = published.ok_or("a replica of an unknown version was assigned")?;
        let arguments = replica::Arguments {
            id: replica,
            model: assignment.model.clone(),
            version: assignment.version,
            digest: published.record.digest,
            golden: published.record.golden.clone(),
            device: self.arguments.device.clone(),
            engine: self.arguments.engine.clone(),
            artifacts: self.arguments.artifacts.clone(),
            fetcher: self.arguments.fetcher.clone(),
            registry: self.arguments.registry.clone(),
            observed: self.arguments.observed.clone(),
            clock: self.arguments.clock,
            records: self.arguments.records.clone(),
            canary_every: self.arguments.canary_every,
        };
        let (actor, _) = Actor::spawn_linked(None, Replica, arguments, myself.get_cell()).await?;
        self.replicas.insert(replica, actor.get_cell());
        Ok(())
    }
}

/// How often expired requests are looked for; their callers usually notice first.
const TICK: Duration = Duration::from_millis(50);
/// Pause before a replica whose actor ended is started anew.
const REPLICA_RETRY: Duration = Duration::from_secs(1);
