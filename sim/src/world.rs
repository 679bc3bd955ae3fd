//! The driver: takes events in their order, steps the machines, performs their effects.

mod clients;
mod consensus;
mod doors;
mod faults;
mod hearing;
mod history;
mod mesh;
mod network;
mod node;
mod operator;
mod outside;
mod request;
mod slots;

use std::collections::BTreeMap;

use paceline_core::{Instant, Random};
use paceline_protocol::NodeId;

use self::clients::{Clients, Next};
use self::consensus::{Consensus, Voter};
use self::doors::{Door, ReadyDoors};
use self::node::{Disk, Node};
use self::operator::Operator;
use self::outside::Outside;
pub(crate) use self::outside::Word;
pub(crate) use self::request::Request;
use crate::agenda::{Event, NodeIndex, Process};
use crate::fact::RequestNumber;
use crate::ledger::Broken;
use crate::message::Message;
use crate::planted::Planted;
use crate::report::Report;
use crate::scenario::{Group, Scenario};
use crate::traces::Traces;
use crate::violation::Violation;

/// One run.
pub(crate) struct World {
    seed: u64,
    outside: Outside,
    consensus: Consensus,
    /// The newest entry that followers were told of.
    told_index: u64,
    operator: Operator,
    /// When the operator's wishes are due, until the run begins.
    times: Vec<u64>,
    /// Faults that are not mended yet, and whom they have met.
    broken: BTreeMap<u16, Vec<NodeIndex>>,
    nodes: Vec<Place>,
    ready: ReadyDoors,
    clients: Clients,
    lives: Random,
    until: Instant,
    events: u64,
}

/// A node's place: what runs there, and what has become of it.
struct Place {
    node: Node,
    group: Group,
    state: State,
    /// Whether clients see it as a door that takes them.
    is_ready: bool,
    /// What came while it stood still.
    postponed: Vec<Event>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Booting,
    Runs,
    /// It stands still, since then.
    Still(Instant),
    Dead(Instant),
}

impl World {
    /// The cluster before its first event.
    pub(crate) fn new(
        (scenario, traces): (&Scenario, &Traces),
        seed: u64,
        planted: Option<Planted>,
    ) -> Self {
        let mut outside = Outside::new(scenario, seed, planted);
        let mut lives = Random::stream(seed, "nodes");
        let groups = scenario.cluster.groups.iter();
        let groups = groups.flat_map(|group| std::iter::repeat_n(group, usize::from(group.count)));
        let nodes = groups.enumerate().map(|(position, group)| {
            let process = Process {
                node: NodeIndex(position as u16),
                life: 0,
            };
            let disk = Disk {
                index: 0,
                registry: outside.history.newest(),
            };
            Place {
                node: new_node(process, group, (scenario, lives.next_u64()), disk),
                group: group.clone(),
                state: State::Booting,
                is_ready: false,
                postponed: Vec::new(),
            }
        });
        let nodes: Vec<Place> = nodes.collect();
        let consensus = Consensus::new(nodes.len(), seed);
        let clients = Clients::new(&mut outside, traces, seed);
        let (operator, times) = Operator::new(scenario);
        let mut world = Self {
            seed,
            outside,
            consensus,
            told_index: 0,
            operator,
            times,
            broken: BTreeMap::new(),
            nodes,
            ready: ReadyDoors::default(),
            clients,
            lives,
            until: Instant::from_nanos((scenario.ends_ms() + SETTLE_MS) * 1_000_000),
            events: 0,
        };
        world.begin();
        world
    }

    /// Runs until clients have their answers and nothing happens any more that concerns them.
    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        while let Some((at, event)) = self.outside.agenda.next() {
            if at > self.until {
                break;
            }
            self.outside.now = at;
            self.events += 1;
            self.happen(event);
            self.deliver();
            if let Some(broken) = self.outside.broken() {
                return Err(self.violation(broken));
            }
            if self.events > EVENTS_SPARE + self.clients.sent() * EVENTS_PER_REQUEST {
                let what = format!(
                    "{} events for {} requests",
                    self.events,
                    self.clients.sent()
                );
                return Err(self.violation(Broken {
                    invariant: "comes-to-rest",
                    at,
                    what,
                }));
            }
        }
        let end = self.outside.now;
        match self.outside.end() {
            Some(broken) => Err(self.violation(broken)),
            None => Ok(self.outside.report(self.seed, (end, self.events))),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(group) => {
                if let Some(number) = self.clients.arrive(&mut self.outside, group) {
                    self.send(number);
                }
            }
            Event::Again(number) => {
                let number = self.clients.send_again(&mut self.outside, number);
                self.send(number);
            }
            Event::Hangup(number) => {
                for process in self.clients.hang_up(&mut self.outside, number) {
                    self.withdraw(number, process);
                }
            }
            Event::Impatience(number) => self.clients.impatient(&mut self.outside, number),
            Event::Silence(number, process) => self.silence(number, process),
            Event::Message(process, message) => self.message(process, *message),
            Event::Timer(process, timer) => {
                let Some(place) = self.place(process) else {
                    return;
                };
                match place.state {
                    State::Still(_) => place.postponed.push(Event::Timer(process, timer)),
                    State::Runs => self.at(process, |node, outside| node.timer(outside, timer)),
                    State::Booting => self.booted(process),
                    State::Dead(_) => {}
                }
                if matches!(timer, crate::agenda::Timer::Tick) {
                    self.listen(process);
                }
            }
            Event::Election(term) => self.election(term),
            Event::Quorum(term, ticket) => {
                self.consensus.written(&mut self.outside, (term, ticket));
                self.spread();
            }
            Event::Operation(operation, asked) => self.operate(operation, asked),
            Event::Break(fault) => self.break_down(fault),
            Event::Mend(fault) => self.mend(fault),
        }
    }

    /// A request goes to a node.
    fn send(&mut self, number: RequestNumber) {
        let (nodes, doors) = (&self.nodes, &self.ready);
        let doors = (doors, || doors_of(nodes));
        let door = self.clients.door(&mut self.outside, number, doors);
        let Some((process, request)) = door else {
            self.clients.nobody(&mut self.outside, number);
            return;
        };
        let Some(place) = self.place(process) else {
            return;
        };
        // What reaches a node that stands still is read when it goes on.
        match place.state {
            State::Runs => self.at(process, |node, outside| node.arrive(outside, request)),
            State::Still(_) => {
                let message = Box::new(Message::Request(request));
                place.postponed.push(Event::Message(process, message));
            }
            State::Booting | State::Dead(_) => {}
        }
    }

    fn message(&mut self, process: Process, message: Message) {
        let Some(place) = self.place(process) else {
            return;
        };
        match (place.state, message) {
            (State::Still(_), message) => {
                let event = Event::Message(process, Box::new(message));
                place.postponed.push(event);
            }
            (State::Dead(_), _) => {}
            (_, Message::Propose(by, command)) => {
                if self.outside.leader == Some(process) {
                    let at = (process, by);
                    self.consensus.propose(&mut self.outside, at, command);
                }
            }
            (State::Booting, _) => {}
            (State::Runs, Message::Request(request)) => {
                self.at(process, |node, outside| node.arrive(outside, request));
            }
            (State::Runs, message) => {
                self.at(process, |node, outside| node.hear(outside, message));
            }
        }
    }

    fn silence(&mut self, number: RequestNumber, process: Process) {
        let place = self.place(process);
        let state = place.map(|place| place.state);
        let is_dead = !matches!(state, Some(State::Runs | State::Still(_)));
        // Who goes on meanwhile is heard again.
        if state == Some(State::Runs) {
            return;
        }
        let asks = self
            .clients
            .suspects(&mut self.outside, (number, process), is_dead);
        if asks {
            self.send(number);
        }
    }

    /// What nodes have told clients meanwhile.
    fn deliver(&mut self) {
        while let Some(word) = self.outside.told.pop() {
            match self.clients.told(&mut self.outside, &word) {
                Some(Next::Withdraw(process)) => self.withdraw(word.request, process),
                Some(Next::Elsewhere) => self.send(word.request),
                None => {}
            }
        }
    }

    fn withdraw(&mut self, number: RequestNumber, process: Process) {
        let request = self.clients.request(number);
        if self
            .place(process)
            .is_some_and(|place| place.state == State::Runs)
        {
            self.at(process, |node, outside| node.hang_up(outside, request));
        }
    }

    fn listen(&mut self, process: Process) {
        if self.outside.hearing.running(process.node) == Some(process) {
            self.at(process, Node::listen);
            self.catch_up(process);
        }
    }

    /// Runs something on a process, and looks what it holds then.
    fn at(&mut self, process: Process, run: impl FnOnce(&mut Node, &mut Outside)) {
        let node = &mut self.nodes[usize::from(process.node.0)].node;
        run(node, &mut self.outside);
        node.settle(&mut self.outside);
        self.open_or_close(process.node);
    }

    fn set_state(&mut self, node: NodeIndex, state: State) {
        let place = &mut self.nodes[usize::from(node.0)];
        place.state = state;
        let running = (state == State::Runs).then(|| place.node.process());
        self.outside.hearing.set(node, running);
        self.open_or_close(node);
    }

    /// Clients see whether a node takes them.
    fn open_or_close(&mut self, node: NodeIndex) {
        let place = &mut self.nodes[usize::from(node.0)];
        let is_ready = place.state == State::Runs && place.node.is_ready();
        if std::mem::replace(&mut place.is_ready, is_ready) != is_ready {
            self.ready.set(place.node.process(), is_ready);
        }
    }

    /// The place of a process, if that is the one that is there now.
    fn place(&mut self, process: Process) -> Option<&mut Place> {
        let place = &mut self.nodes[usize::from(process.node.0)];
        (place.node.process() == process).then_some(place)
    }

    fn voters(&self) -> Vec<Voter> {
        let voters = self.nodes.iter().take(usize::from(self.consensus.voters()));
        let voters = voters.map(|place| Voter {
            process: place.node.process(),
            runs: place.state == State::Runs,
            index: place.node.applied(),
        });
        voters.collect()
    }

    fn election(&mut self, term: u64) {
        let voters = self.voters();
        let won = self.consensus.elect(&mut self.outside, term, &voters);
        if won.is_some() {
            self.spread();
        }
    }

    fn violation(&self, broken: Broken) -> Violation {
        Violation {
            invariant: broken.invariant,
            at: broken.at,
            what: broken.what,
            scenario: self.outside.scenario.name.clone(),
            seed: self.seed,
            planted: self.outside.planted,
        }
    }
}

/// All nodes as clients see them.
fn doors_of(nodes: &[Place]) -> Vec<Door> {
    let doors = nodes.iter().map(|place| Door {
        process: place.node.process(),
        silent_since: match place.state {
            State::Runs => None,
            State::Still(since) | State::Dead(since) => Some(since),
            State::Booting => Some(Instant::ZERO),
        },
    });
    doors.collect()
}

fn new_node(
    process: Process,
    group: &Group,
    (scenario, seed): (&Scenario, u64),
    disk: Disk,
) -> Node {
    let id = NodeId(u64::from(process.node.0) + 1);
    Node::new(
        (process, id),
        group,
        (scenario.cluster.admission(), seed),
        disk,
    )
}

/// After the last client has stopped sending, answers come, and what is broken is mended.
const SETTLE_MS: u64 = 12_000;
/// Events that a request may cause: those of its attempts, of a batch of its own, and of its
/// client, several times over.
const EVENTS_PER_REQUEST: u64 = 64;
/// Events that need no request: every node listens all the time.
const EVENTS_SPARE: u64 = 200_000_000;
