//! Owns which replicas requests can go to. Supervised by the router supervisor.
//!
//! Hears from the registry (what serves) and from workers (what is ready); speaks to nobody:
//! it publishes a snapshot that request tasks read without a lock, and steps
//! [`paceline_core::router`] for them through its [`Handle`] under a short lock. When it dies,
//! requests go on with the last snapshot, and its successor builds a new one.

mod routes;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use paceline_core::device::BatcherId;
use paceline_core::placement::ReplicaState;
use paceline_core::registry::{NodeState, Registry};
use paceline_core::router::{Effect, Input, Report, RouteId, Router, Target};
use paceline_core::{Machine, Slot};
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, ReplicaId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

pub(crate) use self::routes::{ModelRoute, Routes, VersionRoute};
use crate::clock::Clock;
use crate::detector::Suspects;
use crate::observed::{Observations, Observed};
use crate::registry;
use crate::telemetry::metrics::Metrics;

/// The way in, for request tasks. Cheap to clone; outlives the actor.
#[derive(Clone)]
pub struct Handle {
    node: NodeId,
    clock: Clock,
    routes: Arc<ArcSwap<Routes>>,
    /// The epoch of the routes, for whoever waits for it.
    epoch: watch::Sender<Epoch>,
    machine: Arc<Mutex<State>>,
}

struct State {
    machine: Router,
    effects: Vec<Effect>,
}

/// A replica that was picked for a request.
#[derive(Clone, Copy, Debug)]
pub struct Picked {
    /// The replica.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Its queue, if it is on this node.
    pub batcher: Option<BatcherId>,
    route: RouteId,
    rows: u32,
}

/// What the router hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry or what is observed has changed: look at both again.
    Changed,
}

impl ractor::Message for Message {}

/// What the router needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// What it publishes through.
    pub handle: Handle,
    /// What shall be.
    pub registry: registry::Handle,
    /// What is.
    pub observed: Observed,
    /// Nodes that get no new work.
    pub suspects: Suspects,
    /// Where request metrics live.
    pub metrics: Metrics,
}

/// The actor.
pub(crate) struct RouterActor;

impl Handle {
    /// A router that knows of no replica yet.
    pub fn new(node: NodeId, seed: u64, clock: Clock) -> Self {
        let state = State {
            machine: Router::new(node, seed),
            effects: Vec::with_capacity(1),
        };
        Self {
            node,
            clock,
            routes: Arc::new(ArcSwap::from_pointee(Routes::default())),
            epoch: watch::Sender::default(),
            machine: Arc::new(Mutex::new(state)),
        }
    }

    /// What requests can be sent to now. A request takes one snapshot and keeps to it.
    pub fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// The epoch that requests are routed by, whenever it rises. From then on no request is
    /// pinned to what went before.
    pub fn epochs(&self) -> watch::Receiver<Epoch> {
        self.epoch.subscribe()
    }

    /// Waits until requests are routed by `epoch`, or `limit` has passed; says which.
    pub async fn wait_for(&self, epoch: Epoch, limit: Duration) -> bool {
        let mut epochs = self.epochs();
        let reached = epochs.wait_for(|now| *now >= epoch);
        // Its sender lives as long as this handle.
        tokio::time::timeout(limit, reached).await.is_ok()
    }

    /// Picks a replica. Its end must be reported with [`Handle::done`].
    ///
    /// # Errors
    /// `MODEL_NOT_READY` if there is no ready replica.
    pub fn pick(&self, version: &VersionRoute, rows: u32, bytes: u64) -> Result<Picked, Failure> {
        let route = version.route;
        // The machine answers at once, so the slot needs no meaning here.
        let slot = Slot {
            index: 0,
            generation: 0,
        };
        match self.step(Input::Pick {
            route,
            slot,
            rows,
            bytes,
        }) {
            Some(Effect::Dispatch {
                replica,
                node,
                local,
                ..
            }) => Ok(Picked {
                replica,
                node,
                batcher: local,
                route,
                rows,
            }),
            Some(Effect::NoReplica { .. }) | None => Err(Failure::new(
                ErrorCode::ModelNotReady,
                format!(
                    "model '{}' version {} has no ready replica",
                    version.model, version.version
                ),
            )),
        }
    }

    /// As [`Handle::pick`], but not on `avoid` if there is a replica elsewhere.
    ///
    /// # Errors
    /// As [`Handle::pick`].
    pub fn pick_elsewhere(
        &self,
        version: &VersionRoute,
        (rows, bytes): (u32, u64),
        avoid: Option<NodeId>,
    ) -> Result<Picked, Failure> {
        let mut picked = self.pick(version, rows, bytes)?;
        // Each try draws two others at random: a few of them find another node if there is one.
        for _ in 0..PICKS_MAX {
            if avoid != Some(picked.node) {
                break;
            }
            // Picked first, so that what is avoided counts as busy meanwhile.
            let next = self.pick(version, rows, bytes)?;
            self.done(picked, None);
            picked = next;
        }
        Ok(picked)
    }

    /// Reports that a picked replica has ended its request.
    pub fn done(&self, picked: Picked, report: Option<Report>) {
        let Picked {
            replica,
            route,
            rows,
            ..
        } = picked;
        self.step(Input::Done {
            route,
            replica,
            rows,
            report,
        });
    }

    fn step(&self, input: Input) -> Option<Effect> {
        let now = self.clock.now();
        let mut state = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let State { machine, effects } = &mut *state;
        machine.step(now, input, effects);
        effects.pop()
    }
}

impl Actor for RouterActor {
    type Msg = Message;
    type State = Arguments;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<Arguments, ActorProcessingErr> {
        arguments.registry.tell(&myself, || Message::Changed);
        arguments.observed.tell(&myself, || Message::Changed);
        arguments.suspects.tell(&myself, || Message::Changed);
        arguments.publish();
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut Arguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Changed => state.publish(),
        }
        Ok(())
    }
}

impl Arguments {
    /// Tells the machine the ready replicas of each version, then publishes the snapshot: a
    /// request that sees a route finds its replicas.
    fn publish(&self) {
        let registry = self.registry.current();
        let observed = self.usable(&registry);
        let before = self.handle.routes.load_full();
        let routes = Routes::next(&before, &registry, &observed, &self.metrics);
        for version in routes.versions() {
            let targets = targets(&registry, &observed, version, self.handle.node);
            self.handle.step(Input::SetTargets {
                route: version.route,
                targets,
            });
        }
        for gone in before
            .versions()
            .filter(|version| !routes.has_route(version.route))
        {
            self.handle.step(Input::SetTargets {
                route: gone.route,
                targets: Vec::new(),
            });
        }
        let epoch = routes.epoch;
        self.handle.routes.store(Arc::new(routes));
        self.handle.epoch.send_replace(epoch);
    }
}

impl Arguments {
    /// What is observed of replicas that can be given work: not on suspect nodes, nor on those
    /// that are down or have left. Of versions that are ready elsewhere, not on nodes that are
    /// about to leave either.
    fn usable(&self, registry: &Registry) -> Observations {
        let suspects = self.suspects.current();
        let observed = self.observed.current();
        let state_of = |replica: &ReplicaId| {
            let assignment = registry.replicas().get(replica)?;
            let heard = !suspects.contains(&assignment.node);
            let state = registry.node_state(assignment.node).filter(|_| heard)?;
            Some(((&assignment.model, assignment.version), state))
        };
        let served_elsewhere: BTreeSet<_> = observed
            .iter()
            .filter(|(_, seen)| seen.state == ReplicaState::Ready)
            .filter_map(|(replica, _)| state_of(replica))
            .filter(|(_, state)| *state == NodeState::Up)
            .map(|(version, _)| version)
            .collect();
        let is_usable = |replica: &ReplicaId| match state_of(replica) {
            None | Some((_, NodeState::Down | NodeState::Drained { .. })) => false,
            Some((_, NodeState::Up)) => true,
            Some((version, NodeState::Draining { .. })) => !served_elsewhere.contains(&version),
        };
        let usable = observed.iter().filter(|(replica, _)| is_usable(replica));
        usable
            .map(|(replica, seen)| (*replica, seen.clone()))
            .collect()
    }
}

fn targets(
    registry: &Registry,
    observed: &Observations,
    version: &VersionRoute,
    here: NodeId,
) -> Vec<Target> {
    let replicas = registry.replicas_of(&version.model, version.version);
    let ready = replicas.filter_map(|(replica, assignment)| {
        let observation = observed.get(&replica)?;
        let local = observation.batcher.filter(|_| assignment.node == here);
        (observation.state == ReplicaState::Ready).then_some(Target {
            replica,
            node: assignment.node,
            local,
            row_nanos: observation.row_nanos,
        })
    });
    ready.collect()
}

/// How often another replica is looked for.
const PICKS_MAX: usize = 8;
