//! The driver: takes events in their order, steps the machines, performs their effects.

mod control;
mod node;
mod outside;
mod slots;

use paceline_core::{BucketId, Instant, Random};
use paceline_protocol::NodeId;

use self::control::Control;
use self::node::{Arrival, Node};
use self::outside::Outside;
use crate::agenda::{Event, NodeIndex};
use crate::draws;
use crate::fact::{Fact, RequestNumber};
use crate::fault::Fault;
use crate::ledger::Broken;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::violation::Violation;

/// One run.
pub(crate) struct World {
    seed: u64,
    fault: Option<Fault>,
    outside: Outside,
    control: Control,
    nodes: Vec<Node>,
    arrivals: Random,
    sizes: Random,
    hangups: Random,
    doors: Random,
    sent: u32,
    events: u64,
}

impl World {
    /// The cluster before its first event.
    pub(crate) fn new(scenario: &Scenario, seed: u64, fault: Option<Fault>) -> Self {
        let mut seeds = Random::stream(seed, "nodes");
        let nodes = (0..usize::from(scenario.nodes)).map(|index| {
            let id = NodeId(index as u64 + 1);
            Node::new((NodeIndex(index), id), scenario, seeds.next_u64(), fault)
        });
        let mut world = Self {
            seed,
            fault,
            nodes: nodes.collect(),
            outside: Outside::new(scenario.clone(), seed),
            control: Control::default(),
            arrivals: Random::stream(seed, "arrivals"),
            sizes: Random::stream(seed, "sizes"),
            hangups: Random::stream(seed, "hangups"),
            doors: Random::stream(seed, "doors"),
            sent: 0,
            events: 0,
        };
        world.control.operate(&mut world.outside);
        world.outside.now = Instant::from_nanos(scenario.clients.from_ms * 1_000_000);
        world.plan_arrival();
        world
    }

    /// Runs until nothing happens any more.
    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        while let Some((at, event)) = self.outside.agenda.next() {
            self.outside.now = at;
            self.events += 1;
            self.happen(event);
            if let Some(broken) = self.outside.broken() {
                return Err(self.violation(broken));
            }
            if self.events > EVENTS_SPARE + u64::from(self.sent) * EVENTS_PER_REQUEST {
                let what = format!("{} events for {} requests", self.events, self.sent);
                let invariant = "comes-to-rest";
                return Err(self.violation(Broken {
                    invariant,
                    at,
                    what,
                }));
            }
        }
        let end = self.outside.now;
        match self.outside.end() {
            Some(broken) => Err(self.violation(broken)),
            None => Ok(self.outside.report(self.seed, end)),
        }
    }

    fn happen(&mut self, event: Event) {
        let outside = &mut self.outside;
        let node = match event {
            Event::Arrival => self.arrive(),
            Event::Commit(command) => {
                self.control.commit(outside, &mut self.nodes, &command);
                return;
            }
            Event::Loaded(index, replica) => {
                let node = &mut self.nodes[index.0];
                self.control.loaded(outside, node, replica);
                index
            }
            Event::Hangup(index, slot) => {
                self.nodes[index.0].hang_up(outside, slot);
                index
            }
            Event::Deadline(index, slot) => {
                self.nodes[index.0].deadline(outside, slot);
                index
            }
            Event::Wakeup(index) => {
                self.nodes[index.0].wake(outside);
                index
            }
            Event::Begin(index, lane) => {
                self.nodes[index.0].begin(outside, lane);
                index
            }
            Event::Launch(index, lane) => {
                self.nodes[index.0].launch(outside, lane);
                index
            }
            Event::Finished(index, lane) => {
                self.nodes[index.0].finished(outside, lane);
                index
            }
        };
        self.nodes[node.0].settle(&mut self.outside);
    }

    /// A client sends a request, and the next client is planned.
    fn arrive(&mut self) -> NodeIndex {
        let clients = self.outside.scenario.clients;
        let now = self.outside.now;
        let budget_us = draws::between(
            &mut self.sizes,
            clients.budget_min_us,
            clients.budget_max_us,
        );
        let request = RequestNumber(self.sent);
        self.sent += 1;
        let arrival = Arrival {
            request,
            deadline: now.plus_nanos(budget_us * 1_000),
            rows: draws::between(&mut self.sizes, 1, u64::from(clients.rows_most)) as u32,
            bucket: BucketId(self.sizes.below(clients.shapes)),
        };
        let index = NodeIndex(self.doors.below(self.nodes.len() as u64) as usize);
        let deadline = arrival.deadline;
        self.outside.record(&Fact::Submitted { request, deadline });
        let patience = (self.hangups.below(1_000) < clients.cancel_permille)
            .then(|| now.plus_nanos(self.hangups.below(budget_us * 1_000)));
        let slot = self.nodes[index.0].arrive(&mut self.outside, arrival);
        if let (Some(at), Some(slot)) = (patience, slot) {
            self.outside.agenda.plan(at, Event::Hangup(index, slot));
        }
        self.plan_arrival();
        index
    }

    fn plan_arrival(&mut self) {
        let clients = self.outside.scenario.clients;
        let until = (clients.from_ms + clients.duration_ms) * 1_000_000;
        let mean_nanos = 1_000_000_000 / clients.rate_per_s.max(1);
        let span = draws::exponential(&mut self.arrivals, mean_nanos);
        let at = self.outside.now.plus_nanos(span);
        if at.as_nanos() < until && self.sent < u32::MAX {
            self.outside.agenda.plan(at, Event::Arrival);
        }
    }

    fn violation(&self, broken: Broken) -> Violation {
        Violation {
            invariant: broken.invariant,
            at: broken.at,
            what: broken.what,
            scenario: self.outside.scenario.name,
            seed: self.seed,
            fault: self.fault,
        }
    }
}

/// Events that a request may cause: arrival, hang-up, deadline, a few wake-ups, and the three
/// of a batch of its own, several times over.
const EVENTS_PER_REQUEST: u64 = 64;
/// Events that need no request: commits and loads.
const EVENTS_SPARE: u64 = 100_000;
