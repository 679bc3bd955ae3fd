//! One node: steps admission, router and device, and performs what they want done.
//!
//! It is the simulator's twin of the actors of those names. Payloads do not exist here; what
//! remains of them is the table of slots. A request has two ends: its client is told how it
//! ended, and the node lets go of it. They differ where a client stops waiting for a batch that
//! is being staged or run.

mod endings;
mod lanes;

use std::collections::BTreeMap;

use paceline_core::admission::{self, Admission};
use paceline_core::batcher::{self, Batcher};
use paceline_core::device::{self, BatcherId, Device, LaneId};
use paceline_core::router::{self, RouteId, Router, Target};
use paceline_core::{BucketId, Instant, Machine, RequestMeta, Slot};
use paceline_protocol::{NodeId, ReplicaId, VersionNumber};

use super::outside::Outside;
use super::slots::{InFlight, Place, Slots};
use crate::agenda::{Event, NodeIndex};
use crate::fact::{End, Fact, Holdings, Member, Queue, RequestNumber};
use crate::fault::Fault;
use crate::scenario::Scenario;

/// A request as its client sends it.
pub(super) struct Arrival {
    pub(super) request: RequestNumber,
    pub(super) deadline: Instant,
    pub(super) rows: u32,
    pub(super) bucket: BucketId,
}

/// One node.
pub(super) struct Node {
    index: NodeIndex,
    id: NodeId,
    permits: u32,
    admission: Admission,
    router: Router,
    device: Device,
    /// What traffic is pinned to when it comes.
    serving: Option<VersionNumber>,
    replicas: BTreeMap<ReplicaId, Loaded>,
    slots: Slots,
    lanes: Vec<Lane>,
    /// Requests of the batch that the next `Stage` or `Run` names.
    joined: Vec<Slot>,
    /// When the device will be woken.
    armed: Option<Instant>,
    fault: Option<Fault>,
    /// Batches begun and permits returned: where faults are planted.
    batches: u64,
    finishes: u64,
    admission_effects: Vec<admission::Effect>,
    router_effects: Vec<router::Effect>,
    device_effects: Vec<device::Effect>,
    members: Vec<Member>,
}

/// A replica that was loaded.
#[derive(Clone, Copy)]
struct Loaded {
    /// Whether it has not gone away since: a batch that is staged then still runs.
    attached: bool,
    version: VersionNumber,
    batcher: BatcherId,
    row_nanos: u64,
    rows_max: u32,
}

/// A batch that is staged or runs.
#[derive(Default)]
struct Lane {
    requests: Vec<Slot>,
    /// How long the run will have taken.
    nanos: u64,
    /// Whether the task that brought a request runs it.
    in_place: bool,
}

impl Node {
    pub(super) fn new(
        (index, id): (NodeIndex, NodeId),
        scenario: &Scenario,
        seed: u64,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            index,
            id,
            permits: scenario.admission.permits,
            admission: Admission::new(scenario.admission),
            router: Router::new(id, seed),
            device: Device::new(scenario.lanes),
            serving: None,
            replicas: BTreeMap::new(),
            slots: Slots::default(),
            lanes: (0..scenario.lanes).map(|_| Lane::default()).collect(),
            joined: Vec::new(),
            armed: None,
            fault,
            batches: 0,
            finishes: 0,
            admission_effects: Vec::new(),
            router_effects: Vec::new(),
            device_effects: Vec::new(),
            members: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn index(&self) -> NodeIndex {
        self.index
    }

    pub(super) fn replicas(&self) -> Vec<ReplicaId> {
        let attached = self.replicas.iter().filter(|(_, loaded)| loaded.attached);
        attached.map(|(replica, _)| *replica).collect()
    }

    pub(super) fn serve(&mut self, version: Option<VersionNumber>) {
        self.serving = version;
    }

    /// A replica is loaded and warm.
    pub(super) fn attach(
        &mut self,
        outside: &mut Outside,
        (replica, version): (ReplicaId, VersionNumber),
        options: batcher::Options,
    ) {
        // Replica ids are log indexes, which are small here and never used twice.
        let batcher = BatcherId(replica.0 as u32);
        let rows_max = options.rows_max;
        let loaded = Loaded {
            attached: true,
            version,
            batcher,
            row_nanos: options.cost.row_nanos(rows_max),
            rows_max,
        };
        self.replicas.insert(replica, loaded);
        self.step_device(outside, device::Input::Attach { batcher, options }, None);
        self.set_targets(outside, version);
    }

    /// A replica goes away: it is sent nothing more, and what waits for it goes elsewhere.
    pub(super) fn detach(&mut self, outside: &mut Outside, replica: ReplicaId) {
        let Some(loaded) = self.replicas.get_mut(&replica) else {
            return;
        };
        loaded.attached = false;
        let (version, batcher) = (loaded.version, loaded.batcher);
        self.set_targets(outside, version);
        self.step_device(outside, device::Input::Detach { batcher }, None);
    }

    /// A request comes; its slot, if it was admitted and is still here.
    pub(super) fn arrive(&mut self, outside: &mut Outside, arrival: Arrival) -> Option<Slot> {
        let Arrival {
            request, deadline, ..
        } = arrival;
        let Some(version) = self.serving else {
            let end = End::NotReady;
            outside.record(&Fact::Ended { request, end });
            return None;
        };
        let input = admission::Input::Arrive { deadline };
        self.admission
            .step(outside.now, input, &mut self.admission_effects);
        let refusal = self
            .admission_effects
            .drain(..)
            .find_map(|effect| match effect {
                admission::Effect::Admit => None,
                admission::Effect::Refuse(admission::Refusal::Expired) => Some(End::Expired),
                admission::Effect::Refuse(admission::Refusal::Overloaded { retry_after: _ }) => {
                    Some(End::Overloaded)
                }
            });
        if let Some(end) = refusal {
            outside.record(&Fact::Ended { request, end });
            return None;
        }
        let node = self.index;
        outside.record(&Fact::Admitted { request, node });
        let slot = self.slots.insert(|slot| InFlight {
            request,
            meta: RequestMeta {
                slot,
                deadline,
                bucket: arrival.bucket,
                bytes: u64::from(arrival.rows) * ROW_BYTES,
                rows: arrival.rows,
                is_alone: false,
            },
            version,
            place: None,
            lane: None,
            ended: false,
            attempts: 0,
        });
        self.route(outside, slot);
        self.slots.request(slot).map(|_| slot)
    }

    /// The client of a request has gone.
    pub(super) fn hang_up(&mut self, outside: &mut Outside, slot: Slot) {
        let Some(in_flight) = self.slots.request(slot).filter(|request| !request.ended) else {
            return;
        };
        let (request, place) = (in_flight.request, in_flight.place);
        outside.record(&Fact::HungUp { request });
        self.end(outside, slot, End::Cancelled);
        if let Some(Place { batcher, .. }) = place {
            self.step_device(outside, device::Input::Cancel { batcher, slot }, None);
        }
    }

    /// The client of a request that is being staged or run stops waiting.
    pub(super) fn deadline(&mut self, outside: &mut Outside, slot: Slot) {
        self.end(outside, slot, End::Expired);
    }

    /// The device is woken, if this is the moment that it was last armed for.
    pub(super) fn wake(&mut self, outside: &mut Outside) {
        if self.armed != Some(outside.now) {
            return;
        }
        self.armed = None;
        let mut effects = std::mem::take(&mut self.device_effects);
        self.device.wake(outside.now, &mut effects);
        self.perform(outside, &mut effects, None);
        self.device_effects = effects;
    }

    /// A lane's thread is awake.
    pub(super) fn begin(&mut self, outside: &mut Outside, lane: LaneId) {
        self.step_device(outside, device::Input::Begin { lane }, Some(lane));
    }

    /// A lane's inputs are gathered.
    pub(super) fn launch(&mut self, outside: &mut Outside, lane: LaneId) {
        self.step_device(outside, device::Input::Launch { lane }, Some(lane));
    }

    /// A lane's batch has run: its requests are answered, and the lane goes on.
    pub(super) fn finished(&mut self, outside: &mut Outside, lane: LaneId) {
        let seat = &mut self.lanes[usize::from(lane.0)];
        let (nanos, in_place) = (seat.nanos, seat.in_place);
        let mut requests = std::mem::take(&mut seat.requests);
        for slot in requests.drain(..) {
            let report = self.load_report(slot);
            self.leave(outside, slot, (End::Answered, report));
        }
        self.lanes[usize::from(lane.0)].requests = requests;
        let input = device::Input::Finished {
            lane,
            nanos: Some(nanos),
            in_place,
        };
        self.step_device(outside, input, Some(lane));
    }

    /// After an event: arms the device's next wake-up, and notes what the node holds.
    pub(super) fn settle(&mut self, outside: &mut Outside) {
        if let Some(at) = self.device.next_wakeup()
            && self.armed.is_none_or(|armed| at < armed)
        {
            let at = self.timer(at);
            self.armed = Some(at);
            outside.agenda.plan(at, Event::Wakeup(self.index));
        }
        let queues = self
            .replicas
            .values()
            .filter_map(|l| self.device.batcher(l.batcher));
        let holds = Holdings {
            in_flight: self.admission.in_flight(),
            permits: self.permits,
            queued: queues.map(Batcher::queued_requests).sum(),
            in_lanes: self.lanes.iter().map(|lane| lane.requests.len()).sum(),
        };
        let node = self.index;
        outside.record(&Fact::Settled { node, holds });
    }

    /// When a timer that was set for `at` fires.
    fn timer(&self, at: Instant) -> Instant {
        let is_late = self.fault == Some(Fault::LateTimer);
        at.plus_nanos(u64::from(is_late) * 1_000_000)
    }

    /// Asks the router for a replica, and sends the request there.
    fn route(&mut self, outside: &mut Outside, slot: Slot) {
        let Some(in_flight) = self.slots.request(slot) else {
            return;
        };
        in_flight.attempts += 1;
        let pick = router::Input::Pick {
            route: route_of(in_flight.version),
            slot,
            rows: in_flight.meta.rows,
            bytes: in_flight.meta.bytes,
            again: None,
        };
        let mut effects = std::mem::take(&mut self.router_effects);
        self.router.step(outside.now, pick, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                router::Effect::Dispatch {
                    slot,
                    replica,
                    node: _,
                    local,
                } => {
                    let batcher = local.expect("a node's router knows its own replicas only");
                    self.dispatch(outside, slot, (replica, batcher));
                }
                router::Effect::NoReplica { slot } => {
                    self.leave(outside, slot, (End::NotReady, None));
                }
            }
        }
        self.router_effects = effects;
    }

    fn dispatch(
        &mut self,
        outside: &mut Outside,
        slot: Slot,
        (replica, batcher): (ReplicaId, BatcherId),
    ) {
        let Some(in_flight) = self.slots.request(slot) else {
            return;
        };
        in_flight.place = Some(Place {
            route: route_of(in_flight.version),
            replica,
            batcher,
        });
        if self.fault == Some(Fault::MixedBatch) && in_flight.request.0 == PLANTED_AT as u32 {
            in_flight.version = VersionNumber(in_flight.version.0 + 1);
        }
        let input = device::Input::Arrive {
            batcher,
            request: in_flight.meta,
            in_place: true,
        };
        self.step_device(outside, input, None);
        if let Some(queue) = self.device.batcher(batcher) {
            outside.record(&Fact::Queued(Queue {
                rows: queue.queued_rows(),
                requests: queue.queued_requests(),
                rows_max: queue.queue_rows_max(),
            }));
        }
    }

    /// Tells the router which replicas of a version are ready here.
    fn set_targets(&mut self, outside: &Outside, version: VersionNumber) {
        let ready = self.replicas.iter();
        let ready = ready.filter(|(_, loaded)| loaded.attached && loaded.version == version);
        let targets = ready.map(|(replica, loaded)| Target {
            replica: *replica,
            node: self.id,
            local: Some(loaded.batcher),
            is_near: true,
            row_nanos: loaded.row_nanos,
        });
        let input = router::Input::SetTargets {
            route: route_of(version),
            targets: targets.collect(),
        };
        self.router
            .step(outside.now, input, &mut self.router_effects);
    }
}

/// Each version is a route of its own.
fn route_of(version: VersionNumber) -> RouteId {
    RouteId(version.0)
}

/// Inputs of a row: 64 numbers of 4 bytes.
const ROW_BYTES: u64 = 256;
/// Which batch, permit or request a planted fault meets: late enough that the run is going.
const PLANTED_AT: u64 = 1_000;
