//! What the device wants done: batches are seated in lanes, staged and run.

use paceline_core::batcher::DropReason;
use paceline_core::device::{self, BatcherId, LaneId};
use paceline_core::{Instant, Machine, Slot};
use paceline_protocol::ReplicaId;

use super::{Node, PLANTED_AT};
use crate::agenda::Event;
use crate::fact::{Batch, End, Fact, Member};
use crate::fault::Fault;
use crate::world::outside::Outside;

impl Node {
    /// Steps the device. `awake` is the lane whose thread does so, if it is one.
    pub(super) fn step_device(
        &mut self,
        outside: &mut Outside,
        input: device::Input,
        awake: Option<LaneId>,
    ) {
        let mut effects = std::mem::take(&mut self.device_effects);
        self.device.step(outside.now, input, &mut effects);
        self.perform(outside, &mut effects, awake);
        self.device_effects = effects;
    }

    pub(super) fn perform(
        &mut self,
        outside: &mut Outside,
        effects: &mut Vec<device::Effect>,
        awake: Option<LaneId>,
    ) {
        let delays = outside.scenario.delays;
        for effect in effects.drain(..) {
            match effect {
                device::Effect::Join { slot } => self.joined.push(slot),
                device::Effect::Wake { lane } => {
                    let is_awake = awake == Some(lane) && !self.lanes[usize::from(lane.0)].in_place;
                    let wake_us = if is_awake { 0 } else { delays.wake_us };
                    let at = outside.now.plus_nanos(wake_us * 1_000);
                    outside.agenda.plan(at, Event::Begin(self.index, lane));
                }
                device::Effect::Stage { lane } => {
                    self.seat(lane, false);
                    let at = outside.now.plus_nanos(delays.gather_us * 1_000);
                    self.watch_deadlines(outside, lane, at);
                    outside.agenda.plan(at, Event::Launch(self.index, lane));
                }
                device::Effect::Run {
                    lane,
                    batcher,
                    rows,
                } => {
                    // What joined in this very step was not staged: the caller's task runs it.
                    if !self.joined.is_empty() {
                        self.seat(lane, true);
                    }
                    self.run(outside, lane, (batcher, rows));
                }
                device::Effect::Drop { slot, why } => self.dropped(outside, slot, why),
            }
        }
    }

    /// What joined is the batch of this lane.
    fn seat(&mut self, lane: LaneId, in_place: bool) {
        for slot in &self.joined {
            if let Some(in_flight) = self.slots.request(*slot) {
                in_flight.lane = Some(lane);
            }
        }
        let seat = &mut self.lanes[usize::from(lane.0)];
        seat.requests.append(&mut self.joined);
        seat.in_place = in_place;
    }

    fn run(&mut self, outside: &mut Outside, lane: LaneId, (batcher, rows): (BatcherId, u32)) {
        self.members.clear();
        for slot in &self.lanes[usize::from(lane.0)].requests {
            if let Some(in_flight) = self.slots.request(*slot) {
                self.members.push(Member {
                    request: in_flight.request,
                    version: in_flight.version,
                    bucket: in_flight.meta.bucket,
                    rows: in_flight.meta.rows,
                });
            }
        }
        let replica = ReplicaId(u64::from(batcher.0));
        let loaded = self.replicas[&replica];
        let nanos = outside.service_nanos(rows);
        outside.record(&Fact::Ran(Batch {
            version: loaded.version,
            members: &self.members,
            rows,
            rows_max: loaded.rows_max,
            nanos,
        }));
        self.lanes[usize::from(lane.0)].nanos = nanos;
        let at = outside.now.plus_nanos(nanos);
        self.watch_deadlines(outside, lane, at);
        self.batches += 1;
        if self.fault != Some(Fault::LostBatch) || self.batches != PLANTED_AT {
            outside.agenda.plan(at, Event::Finished(self.index, lane));
        }
    }

    /// The device watches deadlines while requests wait; from then on their clients do. Plans
    /// the end of waiting for those in a lane whose deadline comes before `until`.
    fn watch_deadlines(&mut self, outside: &mut Outside, lane: LaneId, until: Instant) {
        for slot in &self.lanes[usize::from(lane.0)].requests {
            let deadline = self
                .slots
                .request(*slot)
                .map(|request| request.meta.deadline);
            if let Some(deadline) = deadline.filter(|deadline| *deadline < until) {
                let event = Event::Deadline(self.index, *slot);
                outside.agenda.plan(self.timer(deadline), event);
            }
        }
    }

    fn dropped(&mut self, outside: &mut Outside, slot: Slot, why: DropReason) {
        match why {
            DropReason::Expired => self.leave(outside, slot, (End::Expired, None)),
            DropReason::Late => self.leave(outside, slot, (End::Late, None)),
            DropReason::Cancelled => self.leave(outside, slot, (End::Cancelled, None)),
            DropReason::QueueFull { retry_after: _ } => {
                self.leave(outside, slot, (End::QueueFull, None));
            }
            DropReason::Gone => self.send_again(outside, slot),
        }
    }
}
