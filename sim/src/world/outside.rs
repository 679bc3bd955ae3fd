//! What surrounds the machines: the time, what is to come, the network, chance, and who takes
//! notes.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::registry::Registry;
use paceline_core::router::RouteId;
use paceline_core::{Instant, Random};
use paceline_protocol::{Epoch, ModelName, OpId, VersionNumber};

use super::hearing::Hearing;
use super::history::History;
use super::mesh::Mesh;
use super::network::Network;
use crate::agenda::{Agenda, Event, NodeIndex, Process, Timer};
use crate::draws;
use crate::fact::{End, Fact, RequestNumber};
use crate::ledger::{Broken, Ledger};
use crate::measured::Measured;
use crate::message::Message;
use crate::planted::Planted;
use crate::report::Report;
use crate::scenario::{NODES_MAX, Scenario, Version};

/// Everything that a node or the control plane needs besides itself.
pub(super) struct Outside {
    pub(super) now: Instant,
    pub(super) agenda: Agenda,
    pub(super) scenario: Arc<Scenario>,
    pub(super) planted: Option<Planted>,
    pub(super) network: Network,
    pub(super) history: History,
    pub(super) hearing: Hearing,
    pub(super) mesh: Mesh,
    /// Who leads, as everybody who can reach it knows.
    pub(super) leader: Option<Process>,
    /// What nodes have told clients, until the clients have heard it.
    pub(super) told: Vec<Word>,
    /// What each node has applied, by position.
    applied: Vec<Epoch>,
    models: BTreeMap<ModelName, u16>,
    names: Vec<ModelName>,
    routes: BTreeMap<(u16, VersionNumber), RouteId>,
    /// What is on its way over a line that is cut, with the moment it was sent.
    held: Vec<(Instant, NodeIndex, Process, Box<Message>)>,
    service: Random,
    ops: u128,
    ledger: Ledger,
    measured: Measured,
}

/// A node tells a client, or the node that has sent its request on, how it ended.
#[derive(Debug)]
pub(crate) struct Word {
    pub(super) request: RequestNumber,
    pub(super) from: Process,
    pub(super) end: End,
    pub(super) epoch: Epoch,
}

impl Outside {
    pub(super) fn new(scenario: &Scenario, seed: u64, planted: Option<Planted>) -> Self {
        let names = scenario.models.iter();
        let names = names.filter_map(|model| ModelName::new(model.name.as_str()).ok());
        let names: Vec<ModelName> = names.collect();
        let models = (0..)
            .zip(&names)
            .map(|(number, name)| (name.clone(), number));
        Self {
            now: Instant::ZERO,
            agenda: Agenda::default(),
            planted,
            network: Network::new(scenario, seed),
            history: History::new(Registry::of_nodes(NODES_MAX)),
            hearing: Hearing::new(scenario.nodes()),
            mesh: Mesh::new(scenario.nodes()),
            leader: None,
            told: Vec::new(),
            applied: vec![Epoch::default(); scenario.nodes()],
            models: models.collect(),
            names,
            routes: BTreeMap::new(),
            held: Vec::new(),
            service: Random::stream(seed, "service"),
            ops: 0,
            ledger: Ledger::new(scenario),
            measured: Measured::default(),
            scenario: Arc::new(scenario.clone()),
        }
    }

    pub(super) fn record(&mut self, fact: &Fact<'_>) {
        self.ledger.record(self.now, fact);
        self.measured.observe(self.now, fact);
    }

    /// Sends a message. What meets a line that is cut waits until that is mended, unless the
    /// connection is given up before.
    pub(super) fn send(&mut self, from: NodeIndex, to: Process, bytes: u64, message: Message) {
        if !self.network.reaches(from, to.node) {
            self.held.push((self.now, from, to, Box::new(message)));
            return;
        }
        let nanos = self.network.nanos(from, to.node, bytes);
        let event = Event::Message(to, Box::new(message));
        self.agenda.plan(self.now.plus_nanos(nanos), event);
    }

    /// A partition has ended: what was sent a moment ago arrives after all.
    pub(super) fn resend(&mut self) {
        for (sent, from, to, message) in std::mem::take(&mut self.held) {
            if self.now.nanos_since(sent) >= GIVEN_UP_NANOS {
                continue;
            }
            if self.network.reaches(from, to.node) {
                let nanos = self.network.nanos(from, to.node, 0);
                let event = Event::Message(to, message);
                self.agenda.plan(self.now.plus_nanos(nanos), event);
            } else {
                self.held.push((sent, from, to, message));
            }
        }
    }

    pub(super) fn plan(&mut self, process: Process, after_nanos: u64, timer: Timer) {
        let at = self.now.plus_nanos(after_nanos);
        self.agenda.plan(at, Event::Timer(process, timer));
    }

    /// What a node has applied.
    pub(super) fn applied(&self, node: NodeIndex) -> Epoch {
        self.applied
            .get(usize::from(node.0))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn set_applied(&mut self, node: NodeIndex, epoch: Epoch) {
        if let Some(known) = self.applied.get_mut(usize::from(node.0)) {
            *known = epoch;
        }
    }

    /// A new op-id.
    pub(super) fn op(&mut self) -> OpId {
        self.ops += 1;
        OpId(self.ops)
    }

    /// The position of a model in the scenario.
    pub(super) fn model(&self, name: &ModelName) -> Option<u16> {
        self.models.get(name).copied()
    }

    /// The name of the model at a position of the scenario.
    pub(super) fn name(&self, model: u16) -> Option<&ModelName> {
        self.names.get(usize::from(model))
    }

    /// What the scenario says of a version.
    pub(super) fn version(&self, (model, version): (u16, VersionNumber)) -> &Version {
        &self.scenario.models[usize::from(model)].versions[version.0 as usize - 1]
    }

    /// The number of a version's route, the same on every node.
    pub(super) fn route(&mut self, version: (u16, VersionNumber)) -> RouteId {
        let next = RouteId(self.routes.len() as u32);
        *self.routes.entry(version).or_insert(next)
    }

    /// How long an engine takes for a batch of `rows`, in nanoseconds, and whether it fails.
    pub(super) fn service(
        &mut self,
        version: (u16, VersionNumber),
        (rows, tokens): (u32, u64),
    ) -> (u64, bool) {
        let version = self.version(version);
        let (cost, fails_permille) = (version.cost, version.fails_permille);
        let nanos = draws::noisy(
            &mut self.service,
            cost.batch_ns(rows, tokens),
            cost.noise_permille,
        );
        let fails = self.happens(fails_permille);
        (nanos, fails)
    }

    /// Whether something happens that does so many times of a thousand.
    pub(super) fn happens(&mut self, permille: u64) -> bool {
        permille > 0 && self.service.below(1_000) < permille
    }

    /// Whether an attempt to load a version fails.
    pub(super) fn fails_to_load(&mut self, version: (u16, VersionNumber)) -> bool {
        let permille = self.version(version).load_fails_permille;
        self.happens(permille)
    }

    pub(super) fn broken(&mut self) -> Option<Broken> {
        self.ledger.broken()
    }

    pub(super) fn end(&mut self) -> Option<Broken> {
        self.ledger.end(self.now)
    }

    pub(super) fn report(self, seed: u64, end: (Instant, u64)) -> Report {
        self.measured.report(&self.scenario, seed, end)
    }
}

/// A connection whose peer is silent for so long is given up, with all that is on its way.
const GIVEN_UP_NANOS: u64 = 1_500_000_000;
