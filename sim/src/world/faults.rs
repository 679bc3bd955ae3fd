//! What breaks and is mended, and how the cluster follows: processes die and start again, stand
//! still and go on; lines are cut and joined.

use super::node::Trouble;
use super::{Place, State, World, new_node};
use crate::agenda::{Event, NodeIndex, Process, Timer};
use crate::fact::Fact;
use crate::message::Message;
use crate::planted::Planted;
use crate::scenario::{What, node_position};

impl World {
    /// The first events of a run.
    pub(super) fn begin(&mut self) {
        let scenario = self.outside.scenario.clone();
        for position in 0..self.nodes.len() {
            let process = self.nodes[position].node.process();
            self.set_state(process.node, State::Runs);
            self.at(process, super::node::Node::boot);
        }
        let voters = self.voters();
        self.consensus.look(&mut self.outside, &voters);
        for (number, at_ms) in std::mem::take(&mut self.times).into_iter().enumerate() {
            self.plan_ms(at_ms, Event::Operation(number as u32, 0));
        }
        for (number, fault) in scenario.faults.iter().enumerate() {
            self.plan_ms(fault.at_ms, Event::Break(number as u16));
        }
    }

    fn plan_ms(&mut self, at_ms: u64, event: Event) {
        let at = paceline_core::Instant::from_nanos(at_ms * 1_000_000);
        self.outside.agenda.plan(at, event);
    }

    /// A fault of the scenario begins.
    pub(super) fn break_down(&mut self, number: u16) {
        let fault = self.outside.scenario.faults[usize::from(number)].clone();
        let mended_ms = self.outside.now.as_nanos() / 1_000_000 + fault.for_ms;
        self.plan_ms(mended_ms, Event::Mend(number));
        let victims = self.victims(&fault.what);
        self.broken.insert(number, victims.clone());
        for node in &victims {
            match &fault.what {
                What::Kill { .. } => self.kill(*node),
                What::Stall { .. } => self.stall(*node),
                What::Slow { speed_permille, .. } => {
                    self.place_of(*node).node.slow_down(*speed_permille);
                }
                What::Lag { extra_us, .. } => {
                    self.outside.network.lag(*node, extra_us * 1_000);
                }
                What::Crash { model, .. } => {
                    let models = &self.outside.scenario.models;
                    let position = |name: &String| models.iter().position(|of| of.name == *name);
                    let model = model.as_ref().and_then(position);
                    let trouble = Trouble::Crash(model.map(|position| position as u16));
                    self.trouble(*node, number, trouble);
                }
                What::OutOfMemory { rows_max, .. } => {
                    self.trouble(*node, number, Trouble::Memory(*rows_max));
                }
                What::Erring { fails_permille, .. } => {
                    self.trouble(*node, number, Trouble::Erring(*fails_permille));
                }
                What::Partition { .. } => {}
            }
        }
        if let What::Partition { one_way, .. } = fault.what {
            self.outside.network.cut(number, &victims, one_way);
            self.outside.hearing.lines_changed();
        }
        self.look();
    }

    /// A fault is mended.
    pub(super) fn mend(&mut self, number: u16) {
        let fault = self.outside.scenario.faults[usize::from(number)].clone();
        for node in self.broken.remove(&number).unwrap_or_default() {
            match &fault.what {
                What::Kill { .. } => self.start(node),
                What::Stall { .. } => self.go_on(node),
                What::Slow { .. } => self.place_of(node).node.slow_down(1_000),
                What::Lag { .. } => self.outside.network.lag(node, 0),
                What::Crash { .. } | What::OutOfMemory { .. } | What::Erring { .. } => {
                    self.place_of(node).node.end_trouble(number);
                }
                What::Partition { .. } => {}
            }
        }
        if matches!(fault.what, What::Partition { .. }) {
            self.outside.network.mend(number);
            self.outside.hearing.lines_changed();
            self.outside.resend();
        }
        self.look();
    }

    /// Who is meant, at this moment.
    fn victims(&self, what: &What) -> Vec<NodeIndex> {
        let named = what.nodes().iter().filter_map(|name| {
            if name == "leader" {
                return self.outside.leader.map(|leader| leader.node);
            }
            node_position(name, self.nodes.len()).map(NodeIndex)
        });
        named.collect()
    }

    fn place_of(&mut self, node: NodeIndex) -> &mut Place {
        &mut self.nodes[usize::from(node.0)]
    }

    fn kill(&mut self, node: NodeIndex) {
        let now = self.outside.now;
        let place = self.place_of(node);
        let process = place.node.process();
        if matches!(place.state, State::Dead(_)) {
            return;
        }
        place.postponed.clear();
        self.set_state(node, State::Dead(now));
        self.outside.record(&Fact::Died { process });
        self.clients.silenced(&mut self.outside, process);
    }

    fn start(&mut self, node: NodeIndex) {
        let seed = self.lives.next_u64();
        let scenario = self.outside.scenario.clone();
        let place = self.place_of(node);
        if !matches!(place.state, State::Dead(_)) {
            return;
        }
        let before = place.node.process();
        let process = Process {
            life: before.life + 1,
            ..before
        };
        let (disk, troubles) = (place.node.disk(), place.node.take_troubles());
        place.node = new_node(process, &place.group.clone(), (&scenario, seed), disk);
        place.node.set_troubles(troubles);
        self.set_state(node, State::Booting);
        let boot_nanos = scenario.cluster.delays.boot_ms * 1_000_000;
        self.outside.plan(process, boot_nanos, Timer::Booted);
    }

    /// A process has started.
    pub(super) fn booted(&mut self, process: Process) {
        self.set_state(process.node, State::Runs);
        self.at(process, super::node::Node::boot);
        self.look();
    }

    /// Something is wrong with the engines of a node; those of a process that stands still do not
    /// run.
    fn trouble(&mut self, node: NodeIndex, fault: u16, what: Trouble) {
        let place = self.place_of(node);
        place.node.add_trouble(fault, what);
        let process = place.node.process();
        if let (State::Runs, Trouble::Crash(model)) = (place.state, what) {
            self.at(process, |node, outside| node.crash(outside, model));
        }
    }

    fn stall(&mut self, node: NodeIndex) {
        let now = self.outside.now;
        let place = self.place_of(node);
        if place.state == State::Runs {
            let process = place.node.process();
            self.set_state(node, State::Still(now));
            self.clients.silenced(&mut self.outside, process);
        }
    }

    /// A node goes on: what came meanwhile happens now.
    fn go_on(&mut self, node: NodeIndex) {
        let now = self.outside.now;
        let place = self.place_of(node);
        if !matches!(place.state, State::Still(_)) {
            return;
        }
        let postponed = std::mem::take(&mut place.postponed);
        self.set_state(node, State::Runs);
        for event in postponed {
            self.outside.agenda.plan(now, event);
        }
    }

    fn look(&mut self) {
        let voters = self.voters();
        self.consensus.look(&mut self.outside, &voters);
    }

    /// Entries that were committed a moment ago are told to followers with a heartbeat.
    pub(super) fn spread(&mut self) {
        let (index, leader) = (self.consensus.index(), self.outside.leader);
        if index == self.told_index {
            return;
        }
        self.told_index = index;
        let Some(leader) = leader else { return };
        let mut processes: Vec<Process> = self.nodes.iter().map(|p| p.node.process()).collect();
        if self.outside.planted == Some(Planted::HashOrder) {
            processes = hashed(processes);
        }
        for process in processes {
            if process != leader && self.outside.network.reaches(leader.node, process.node) {
                let way = self.outside.network.nanos(leader.node, process.node, 0);
                let at = self
                    .outside
                    .now
                    .plus_nanos(way + self.consensus.heartbeat());
                let message = Box::new(Message::Committed(index));
                let event = Event::Message(process, message);
                self.outside.agenda.plan(at, event);
            }
        }
    }

    /// A node that has missed what was told is told again.
    pub(super) fn catch_up(&mut self, process: Process) {
        let index = self.consensus.index();
        let Some(leader) = self.outside.leader else {
            return;
        };
        let knows = self.place_of(process.node).node.applied();
        if knows < index && leader != process && self.consensus.is_old(self.outside.now) {
            let message = Message::Committed(index);
            self.outside.send(leader.node, process, 0, message);
        }
    }
}

/// In another order in each process.
#[allow(
    clippy::disallowed_types,
    reason = "the bug that the comparison of two processes has to find"
)]
fn hashed(processes: Vec<Process>) -> Vec<Process> {
    let hashed: std::collections::HashSet<Process> = processes.into_iter().collect();
    hashed.into_iter().collect()
}
