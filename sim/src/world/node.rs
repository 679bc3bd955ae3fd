//! One process of a node: steps its machines, and performs what they want done.
//!
//! It is the simulator's twin of the actors and handles of those names. Requests that came here
//! and dispatches that replicas here have taken are two things, as in production: a request may
//! run elsewhere, and what runs here may have come to another node.

mod ahead;
mod canaries;
mod copies;
mod duties;
mod entries;
mod flights;
mod knowledge;
mod lanes;
mod peers;
mod replicas;
mod served;
mod tenants;

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::admission::{self, Admission};
use paceline_core::batcher::Batcher;
use paceline_core::budget::{Budget, Extra};
use paceline_core::device::{self, Device};
use paceline_core::drain::{self, Drain};
use paceline_core::failover::Attempt;
use paceline_core::registry::Registry;
use paceline_core::router::{self, Router};
use paceline_core::{Instant, Machine, Slot};
use paceline_protocol::{Epoch, NodeId, ReplicaId};

use self::ahead::Behind;
use self::canaries::Trials;
use self::copies::Copied;
use self::duties::Duties;
use self::entries::Entry;
use self::knowledge::Knowledge;
use self::lanes::Lane;
use self::peers::Peers;
pub(super) use self::replicas::Trouble;
use self::replicas::{Queue, Replica};
use self::served::Served;
use self::tenants::Tenants;
use super::outside::Outside;
use super::slots::Slots;
use crate::agenda::{NodeIndex, Process, Timer};
use crate::fact::{Fact, Holdings, Member};
use crate::message::Message;
use crate::scenario::Group;

/// A process.
pub(super) struct Node {
    process: Process,
    id: NodeId,
    group: Group,
    /// Whether it has started: it takes requests then.
    is_up: bool,
    permits: u32,
    admission: Admission,
    budget: Budget,
    router: Router,
    device: Device,
    drain: Drain,
    /// Whether dispatches are refused: it has drained.
    is_closed: bool,
    knowledge: Knowledge,
    tenants: Tenants,
    peers: Peers,
    duties: Duties,
    trials: Trials,
    entries: Slots<Entry>,
    /// Copies for shadows that are under way.
    copies: Slots<Copied>,
    served: Slots<Served>,
    replicas: BTreeMap<ReplicaId, Replica>,
    /// By number.
    queues: Vec<Queue>,
    lanes: Vec<Lane>,
    /// Dispatches of the batch that the next `Stage` or `Run` names.
    joined: Vec<Slot>,
    /// Requests whose clients have seen more than this node.
    behind: Vec<Behind>,
    /// Requests that wait for an end of a failover.
    queueing: Vec<Slot>,
    /// Requests that wait for a replica.
    waiting: Vec<(Slot, Attempt)>,
    /// The device's speed, in thousandths of what its group has.
    speed_permille: u64,
    /// What is wrong with its engines, by the number of the fault.
    troubles: BTreeMap<u16, Trouble>,
    /// When the device will be woken.
    armed: Option<Instant>,
    /// Whether what it holds is as it was when that was noted last: so it is after most of what
    /// it hears of its peers and of the log.
    is_settled: bool,
    /// Batches begun and permits returned: where bugs are planted.
    batches: u64,
    finishes: u64,
    admission_effects: Vec<admission::Effect>,
    router_effects: Vec<router::Effect>,
    device_effects: Vec<device::Effect>,
    members: Vec<Member>,
}

/// What of a process outlives it.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) index: u64,
    pub(super) registry: Arc<Registry>,
}

impl Node {
    /// A process that has begun to start, with what its disk has.
    pub(super) fn new(
        (process, id): (Process, NodeId),
        group: &Group,
        (admission, seed): (admission::Options, u64),
        disk: Disk,
    ) -> Self {
        Self {
            process,
            id,
            is_up: false,
            permits: admission.permits,
            admission: Admission::new(admission),
            budget: Budget::default(),
            router: Router::new(id, seed),
            device: Device::new(group.lanes),
            drain: Drain::new(drain::Options::default()),
            is_closed: false,
            knowledge: Knowledge::new(disk),
            tenants: Tenants::default(),
            peers: Peers::default(),
            duties: Duties::default(),
            trials: Trials::default(),
            entries: Slots::default(),
            copies: Slots::default(),
            served: Slots::default(),
            replicas: BTreeMap::new(),
            queues: Vec::new(),
            // One behind them is the device's strip.
            lanes: (0..=group.lanes).map(|_| Lane::default()).collect(),
            joined: Vec::new(),
            behind: Vec::new(),
            queueing: Vec::new(),
            waiting: Vec::new(),
            speed_permille: 1_000,
            troubles: BTreeMap::new(),
            armed: None,
            is_settled: false,
            batches: 0,
            finishes: 0,
            admission_effects: Vec::new(),
            router_effects: Vec::new(),
            device_effects: Vec::new(),
            members: Vec::new(),
            group: group.clone(),
        }
    }

    pub(super) fn process(&self) -> Process {
        self.process
    }

    pub(super) fn index(&self) -> NodeIndex {
        self.process.node
    }

    /// What it has applied, as its disk has it.
    pub(super) fn disk(&self) -> Disk {
        self.knowledge.disk()
    }

    /// The last entry that it has applied.
    pub(super) fn applied(&self) -> u64 {
        self.knowledge.index()
    }

    /// Whether clients are let in and told that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.is_up && self.drain.since().is_none()
    }

    pub(super) fn slow_down(&mut self, speed_permille: u64) {
        self.speed_permille = speed_permille;
    }

    /// Its process runs: what is planned first.
    pub(super) fn boot(&mut self, outside: &mut Outside) {
        self.is_up = true;
        outside.plan(self.process, 0, Timer::Tick);
        self.follow_disk(outside);
    }

    /// A timer that it had set.
    pub(super) fn timer(&mut self, outside: &mut Outside, timer: Timer) {
        match timer {
            Timer::Device => self.wake_device(outside),
            Timer::Begin(lane) => {
                self.step_device(outside, device::Input::Begin { lane }, Some(lane));
            }
            Timer::Launch(lane) => {
                self.step_device(outside, device::Input::Launch { lane }, Some(lane));
            }
            Timer::Finished(lane, run) => self.finished(outside, lane, run),
            Timer::Loaded(replica) => self.loaded(outside, replica),
            Timer::Restart(replica) => self.restart(outside, replica),
            Timer::Deadline(slot) => self.late(outside, slot),
            Timer::Copy(slot) => self.copy_late(outside, slot),
            Timer::Ahead(request) => self.catch_up_over(outside, request),
            Timer::Patience(slot, attempt) => self.resume(outside, (slot, attempt)),
            Timer::Tick => self.tick(outside),
            Timer::Tell => self.tell(outside),
            Timer::Booted => self.boot(outside),
        }
    }

    /// Something that was said to it.
    pub(super) fn hear(&mut self, outside: &mut Outside, message: Message) {
        match message {
            Message::Dispatch(dispatch) => self.take(outside, dispatch),
            Message::Cancel(flight) => self.cancel_served(outside, flight),
            Message::Landed(flight, landing) => self.landed(outside, flight, landing),
            Message::Told(from, told) => self.told(outside, (from, told)),
            Message::Counted(node, report) => self.hear_counted(outside, (node, *report)),
            Message::Outcome(op, is_done) => self.outcome(outside, (op, is_done)),
            Message::Committed(index) => self.follow(outside, index),
            // The leader's word is consensus's: the world sees to it.
            Message::Propose(..) => {}
            Message::Request(request) => self.arrive(outside, request),
            Message::Relayed(word) => self.relayed(outside, &word),
            Message::HangUp(request) => self.hang_up(outside, request),
        }
    }

    /// After an event: arms the device's next wake-up, and notes what the node holds.
    pub(super) fn settle(&mut self, outside: &mut Outside) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        if let Some(at) = self.device.next_wakeup()
            && self.armed.is_none_or(|armed| at < armed)
        {
            let at = self.timer_at(outside, at);
            self.armed = Some(at);
            let after = at.nanos_since(outside.now);
            outside.plan(self.process, after, Timer::Device);
        }
        let queues = self.replicas.values().filter_map(Replica::batcher);
        let queues = queues.filter_map(|batcher| self.device.batcher(batcher));
        let holds = Holdings {
            in_flight: self.admission.in_flight(),
            permits: self.permits,
            served: self.served.len(),
            queued: queues.map(Batcher::queued_requests).sum(),
            in_lanes: self.lanes.iter().map(|lane| lane.served.len()).sum(),
            failovers: self.budget.under_way(Extra::Failover),
            is_idle: self.device.is_idle(outside.now),
            // Adding them up costs something, and is exact only then: what a replica's router had
            // counted is forgotten when the replica goes.
            forgotten_rows: match self.entries.len() + self.copies.len() {
                0 => self.router.in_flight_rows(),
                _ => 0,
            },
        };
        let process = self.process;
        outside.record(&Fact::Settled { process, holds });
    }

    fn wake_device(&mut self, outside: &mut Outside) {
        // After a standstill it comes late; one that was armed for later is still to come.
        if self.armed.is_none_or(|armed| armed > outside.now) {
            return;
        }
        self.armed = None;
        self.is_settled = false;
        let mut effects = std::mem::take(&mut self.device_effects);
        self.device.wake(outside.now, &mut effects);
        self.perform(outside, &mut effects, None);
        self.device_effects = effects;
    }

    fn epoch(&self) -> Epoch {
        self.knowledge.registry().epoch()
    }
}
