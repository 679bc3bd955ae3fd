//! What a node does besides requests: it leaves when it is drained, and, while it leads, places
//! replicas and says who is down.
//!
//! The twin of `node/src/{reconciler,drain}.rs` and of the detector's second half.

use paceline_core::device;
use paceline_core::drain;
use paceline_core::placement;
use paceline_core::registry::NodeState;
use paceline_core::{Machine, detector};
use paceline_protocol::OpId;
use paceline_protocol::registry::{Change, Command, SCHEMA};

use super::Node;
use super::peers::LISTEN_NANOS;
use crate::agenda::Timer;
use crate::fact::Fact;
use crate::message::Message;
use crate::world::outside::Outside;

/// Commands that it has proposed and not heard of, each with when it is given up.
#[derive(Default)]
pub(super) struct Duties {
    proposed: Vec<(OpId, What, u64)>,
    leads_since: Option<u64>,
    ticks: u64,
}

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Placement,
    Marking,
    Drained,
    Canary,
}

impl Node {
    pub(super) fn tick(&mut self, outside: &mut Outside) {
        self.duties.ticks += 1;
        outside.plan(self.process, LISTEN_NANOS, Timer::Tick);
        let now = outside.now.as_nanos();
        let lost: Vec<What> = self
            .duties
            .proposed
            .extract_if(.., |(_, _, until)| *until <= now)
            .map(|(_, what, _)| what)
            .collect();
        for what in lost {
            self.given_up(outside, what);
        }
        if self.duties.ticks.is_multiple_of(LOOKS_EVERY) {
            self.look_at_drain(outside);
            self.look_at_canaries(outside);
        }
        if self.duties.ticks.is_multiple_of(TELLS_EVERY) {
            self.say(outside);
            self.measure_tenants(outside);
        }
        let leads = outside.leader == Some(self.process);
        match (leads, self.duties.leads_since) {
            (true, None) => self.duties.leads_since = Some(now),
            (false, Some(_)) => self.duties.leads_since = None,
            _ => {}
        }
        if leads && !self.is_proposing(What::Marking) {
            let registry = self.knowledge.registry().clone();
            if let Some(change) = detector::mark(&registry, self.id, self.peers.heard()) {
                self.propose(outside, What::Marking, change);
            }
        }
        self.reconcile(outside);
    }

    /// The leader decides the next change of placement, unless one is under way. A new leader
    /// knows nothing of replicas until peers had time to tell.
    pub(super) fn reconcile(&mut self, outside: &mut Outside) {
        let since = self.duties.leads_since;
        let is_over = since.is_some_and(|at| outside.now.as_nanos() - at >= UNKNOWN_NANOS);
        if outside.leader != Some(self.process) {
            self.knowledge.stop_observing();
            return;
        }
        if self.is_proposing(What::Placement) || !(is_over || self.has_heard_all()) {
            return;
        }
        let registry = self.knowledge.registry().clone();
        if let Some(change) = placement::plan(&registry, self.observing()).next {
            self.propose(outside, What::Placement, change);
        }
    }

    /// Whether every peer that is up has said what it has.
    fn has_heard_all(&self) -> bool {
        let mut seats = self.knowledge.registry().seats();
        seats.all(|(node, state)| {
            state != NodeState::Up || node == self.id || self.peers.has_told(node)
        })
    }

    fn is_proposing(&self, what: What) -> bool {
        self.duties.proposed.iter().any(|(_, is, _)| *is == what)
    }

    fn propose(&mut self, outside: &mut Outside, what: What, change: Change) {
        let op = outside.op();
        let until = outside.now.as_nanos() + WRITE_LIMIT_NANOS;
        self.duties.proposed.push((op, what, until));
        let command = Command {
            schema: SCHEMA,
            op,
            stamped_ms: outside.now.as_nanos() / 1_000_000,
            expected_revision: None,
            change,
        };
        // Without a leader it is given up in time, and decided anew.
        if let Some(leader) = outside.leader {
            let message = Message::Propose(self.process, Box::new(command));
            outside.send(self.index(), leader, 512, message);
        }
    }

    /// What the machine of canaries wants; it says it again if nothing comes of it.
    pub(super) fn propose_canary(&mut self, outside: &mut Outside, change: Change) {
        self.propose(outside, What::Canary, change);
    }

    /// What became of a command.
    pub(super) fn outcome(&mut self, outside: &mut Outside, (op, is_done): (OpId, bool)) {
        let proposed = &mut self.duties.proposed;
        let Some(position) = proposed.iter().position(|(known, ..)| *known == op) else {
            return;
        };
        let (_, what, _) = proposed.remove(position);
        match is_done {
            true => self.reconcile(outside),
            false => self.given_up(outside, what),
        }
    }

    fn given_up(&mut self, outside: &mut Outside, what: What) {
        match what {
            What::Placement => self.reconcile(outside),
            // The next tick decides anew.
            What::Marking | What::Canary => {}
            What::Drained => self.step_drain(outside, drain::Input::WriteFailed),
        }
    }

    pub(super) fn look_at_drain(&mut self, outside: &mut Outside) {
        let registry = self.knowledge.registry().clone();
        if let Some(state) = registry.node_state(self.id) {
            self.step_drain(outside, drain::Input::Applied(state));
        }
        if self.drain.since().is_some() {
            let assigned = registry.replicas().values();
            let here = assigned.filter(|assignment| assignment.node == self.id);
            let left = drain::Input::Left {
                replicas: here.count(),
                work: u64::from(self.device.running()) + self.device.queued_rows(),
            };
            self.step_drain(outside, left);
        }
        let mut effects = Vec::new();
        if self.drain.next_wakeup().is_some_and(|at| at <= outside.now) {
            self.drain.wake(outside.now, &mut effects);
        }
        self.perform_drain(outside, effects);
    }

    fn step_drain(&mut self, outside: &mut Outside, input: drain::Input) {
        let mut effects = Vec::new();
        self.drain.step(outside.now, input, &mut effects);
        self.perform_drain(outside, effects);
    }

    fn perform_drain(&mut self, outside: &mut Outside, effects: Vec<drain::Effect>) {
        let node = self.index();
        for effect in effects {
            match effect {
                // Peers hear of it from the registry.
                drain::Effect::Leave { since: _ } => {}
                drain::Effect::Close => {
                    self.is_closed = true;
                    let since = self.drain.since().unwrap_or_default();
                    outside.record(&Fact::Closed { node, since });
                    self.step_device(outside, device::Input::Evict, None);
                }
                drain::Effect::Return => {
                    self.is_closed = false;
                    outside.record(&Fact::Opened { node });
                }
                drain::Effect::WriteDrained { since } => {
                    let node = self.id;
                    let change = Change::Drained { node, since };
                    self.propose(outside, What::Drained, change);
                }
            }
        }
    }
}

/// How often the drain is looked at: every 200 ms.
const LOOKS_EVERY: u64 = 4;
/// What has not changed is said again: every second.
const TELLS_EVERY: u64 = 20;
/// A write that was not heard of for so long is decided anew.
const WRITE_LIMIT_NANOS: u64 = 1_000_000_000;
/// How long a new leader waits until peers have told what they have.
const UNKNOWN_NANOS: u64 = 2_000_000_000;
