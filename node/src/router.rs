//! Owns which replicas requests can go to. Supervised by the router supervisor.
//!
//! Hears from the registry (what serves) and from workers (what is ready); speaks to nobody:
//! it publishes a snapshot that request tasks read without a lock, and steps
//! [`paceline_core::router`] for them through its [`Handle`] under a short lock. When it dies,
//! requests go on with the last snapshot, and its successor builds a new one.

mod outputs;
mod routes;
mod shadow;
mod traffic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use paceline_core::detector::Liveness;
use paceline_core::device::BatcherId;
use paceline_core::placement::ReplicaState;
use paceline_core::record::Recorded;
use paceline_core::registry::Registry;
use paceline_core::router::{
    Again, Condition, Effect, Heard, InSequence, Input, Report, RouteId, Router, Target,
};
use paceline_core::{Machine, Slot};
use paceline_protocol::{Epoch, NodeId, ReplicaId};
use prometheus_client::metrics::counter::Counter;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::routes::View;
pub(crate) use self::routes::{Chosen, ModelRoute, Routes, VersionRoute};
pub(crate) use self::shadow::ShadowRoute;
pub(crate) use self::traffic::Arm;
use crate::clock::Clock;
use crate::detector::Suspects;
use crate::observed::Observed;
use crate::record::{Records, Share};
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
    /// Places of requests that wait for a replica.
    waiting: Arc<Semaphore>,
    /// How often a replica was left out.
    ejections: Counter,
}

struct State {
    machine: Recorded<Router>,
    effects: Vec<Effect>,
}

/// What a request asks of the replica that it is sent to.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Its rows.
    pub rows: u32,
    /// Bytes of its inputs.
    pub bytes: u64,
    /// Whether it could run once more if its replica fails.
    pub may_repeat: bool,
    /// The sequence that it belongs to, if it does.
    pub sequence: Option<InSequence>,
    /// What is to be minded if it was sent before.
    pub again: Again,
}

/// A replica that was picked for a request. Dropping it tells the router that the request is
/// not there any more, however it ended.
pub struct Picked<'a> {
    handle: &'a Handle,
    /// The replica.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Its queue, if it is on this node.
    pub batcher: Option<BatcherId>,
    route: RouteId,
    rows: u32,
    heard: Heard,
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
    pub fn new(
        (node, seed): (NodeId, u64),
        clock: Clock,
        records: &Records,
        metrics: &Metrics,
    ) -> Self {
        let bytes = records.bytes(Share::Router);
        let machine = Arc::new(Mutex::new(State {
            machine: Recorded::new(Router::new(node, seed), bytes),
            effects: Vec::with_capacity(1),
        }));
        records.keep((Share::Router, ""), &machine, |state| {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.machine.recording()
        });
        Self {
            node,
            clock,
            routes: Arc::new(ArcSwap::from_pointee(Routes::default())),
            epoch: watch::Sender::default(),
            machine,
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            ejections: metrics.ejections(),
        }
    }

    /// The node that it is of.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What requests can be sent to now. A request takes one snapshot and keeps to it.
    pub fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// The epoch that requests are routed by, told anew with each change of the routes and of the
    /// replicas behind them. From then on no request is pinned to what went before.
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

    /// A place among the requests that wait for a replica, if there is one.
    pub fn waiting_place(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().ok()
    }

    /// Picks a replica; `None` if there is none that could be.
    pub fn pick(&self, version: &VersionRoute, wanted: Wanted) -> Option<Picked<'_>> {
        let route = version.route;
        let Wanted {
            rows,
            bytes,
            may_repeat,
            sequence,
            again,
        } = wanted;
        let is_first = again == Again::default();
        // The machine answers at once, so the slot needs no meaning here.
        let slot = Slot {
            index: 0,
            generation: 0,
        };
        let effect = self.step(Input::Pick {
            route,
            slot,
            rows,
            bytes,
            may_probe: may_repeat,
            again: (!is_first).then(|| Box::new(again)),
            sequence,
        })?;
        match effect {
            Effect::Dispatch {
                slot: _,
                replica,
                node,
                local,
            } => Some(Picked {
                handle: self,
                replica,
                node,
                batcher: local,
                route,
                rows,
                heard: Heard::Nothing,
            }),
            Effect::NoReplica { slot: _ } | Effect::Ejected { .. } | Effect::Back { .. } => None,
        }
    }

    /// Replicas that are left out, since they fail.
    pub(crate) fn ejected(&self) -> usize {
        let state = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        state.machine.ejected()
    }

    /// Tells of a replica that is left out, or is not any more.
    fn note(&self, effect: Effect) {
        match effect {
            Effect::Ejected {
                replica,
                node,
                until,
            } => {
                let seconds = until.since(self.clock.now()).as_secs_f64();
                tracing::warn!(replica = replica.0, %node, seconds, "a replica fails; it is left out");
                self.ejections.inc();
            }
            Effect::Back { replica, node } => {
                tracing::info!(replica = replica.0, %node, "a replica answers again");
            }
            Effect::Dispatch { .. } | Effect::NoReplica { .. } => {}
        }
    }

    fn step(&self, input: Input) -> Option<Effect> {
        let now = self.clock.now();
        let mut state = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let State { machine, effects } = &mut *state;
        machine.step(now, input, effects);
        effects.pop()
    }
}

impl Picked<'_> {
    /// The request was answered, and this is what is learnt from it.
    pub fn ended(mut self, report: Report) {
        self.heard = Heard::Answer(report);
    }

    /// The replica has failed, and not by the request's fault.
    pub fn failed(mut self) {
        self.heard = Heard::Fault;
    }
}

impl Drop for Picked<'_> {
    fn drop(&mut self) {
        let turn = self.handle.step(Input::Done {
            route: self.route,
            replica: self.replica,
            rows: self.rows,
            heard: self.heard,
        });
        if let Some(turn) = turn {
            self.handle.note(turn);
        }
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
    /// Tells the machine what nodes are good for and the ready replicas of each version, then
    /// publishes the snapshot: a request that sees a route finds its replicas.
    fn publish(&self) {
        let registry = self.registry.current();
        let observed = self.observed.current();
        let conditions = self.conditions(&registry);
        let before = self.handle.routes.load_full();
        let view = View {
            registry: &registry,
            observed: &observed,
            conditions: &conditions,
            now: self.handle.clock.now(),
        };
        let routes = Routes::next(&before, view, &self.metrics);
        self.handle.step(Input::SetConditions {
            conditions: conditions.clone(),
        });
        for version in routes.versions() {
            self.handle.step(Input::SetTargets {
                route: version.route,
                targets: targets(view, version, self.handle.node),
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

    /// Of nodes that are not good.
    fn conditions(&self, registry: &Registry) -> BTreeMap<NodeId, Condition> {
        let heard = self.suspects.current();
        let seats = registry.seats().map(|(node, state)| {
            let liveness = heard.get(&node).copied().unwrap_or(Liveness::Alive);
            (node, Condition::of(state, liveness))
        });
        let not_good = seats.filter(|(_, condition)| *condition != Condition::Good);
        not_good.collect()
    }
}

/// Requests that wait for a replica hold their permits: a quarter of those there are by default, so
/// that one model without replicas does not keep the others' requests out.
const WAITING_MAX: usize = 1_024;

fn targets(view: View<'_>, version: &VersionRoute, here: NodeId) -> Vec<Target> {
    let registry = view.registry;
    let zone = registry.zone(here);
    let replicas = registry.replicas_of(&version.model, version.version);
    let ready = replicas.filter_map(|(replica, assignment)| {
        let observation = view.observed.get(&replica)?;
        let local = observation.batcher.filter(|_| assignment.node == here);
        (observation.state == ReplicaState::Ready).then_some(Target {
            replica,
            node: assignment.node,
            local,
            is_near: registry.zone(assignment.node) == zone,
            row_nanos: observation.row_nanos,
        })
    });
    ready.collect()
}
