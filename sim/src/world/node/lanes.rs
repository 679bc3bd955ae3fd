//! What the device wants done: batches are seated in lanes, staged and run.

use paceline_core::device::{self, BatcherId, LaneId};
use paceline_core::{Instant, Machine, Slot, failover};

use super::Node;
use super::entries::PLANTED_AT;
use crate::agenda::Timer;
use crate::fact::{Batch, Fact, Member};
use crate::message::Landing;
use crate::planted::Planted;
use crate::world::outside::Outside;

/// A batch that is staged or runs.
pub(super) struct Lane {
    pub(super) served: Vec<Slot>,
    /// The queue that the batch which runs has come from.
    runs: Option<BatcherId>,
    /// Its number, among those of this lane.
    run: u32,
    /// How long the run will have taken, or how it will have failed.
    result: Result<u64, failover::End>,
    /// When it began.
    began: Instant,
    /// Whether the task that brought a request runs it.
    in_place: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            served: Vec::new(),
            runs: None,
            run: 0,
            result: Ok(0),
            began: Instant::ZERO,
            in_place: false,
        }
    }
}

impl Lane {
    /// If it runs a batch of this queue, that fails; says the number of its run.
    pub(super) fn fail(&mut self, batcher: BatcherId) -> Option<u32> {
        let is_met = self.runs == Some(batcher);
        is_met.then(|| {
            self.result = Err(failover::End::Died);
            self.run
        })
    }
}

impl Node {
    /// Steps the device. `awake` is the lane whose thread does so, if it is one.
    pub(super) fn step_device(
        &mut self,
        outside: &mut Outside,
        input: device::Input,
        awake: Option<LaneId>,
    ) {
        self.is_settled = false;
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
        let delays = outside.scenario.cluster.delays;
        for effect in effects.drain(..) {
            match effect {
                device::Effect::Join { slot } => self.joined.push(slot),
                device::Effect::Wake { lane } => {
                    let is_awake = awake == Some(lane) && !self.lanes[usize::from(lane.0)].in_place;
                    let wake_us = if is_awake { 0 } else { delays.wake_us };
                    outside.plan(self.process, wake_us * 1_000, Timer::Begin(lane));
                }
                device::Effect::Stage { lane } => {
                    self.seat(lane, false);
                    let gather_nanos = delays.gather_us * 1_000;
                    self.watch_deadlines(outside, lane, outside.now.plus_nanos(gather_nanos));
                    outside.plan(self.process, gather_nanos, Timer::Launch(lane));
                }
                device::Effect::Run {
                    lane,
                    // A batch whose replica has gone meanwhile runs, under no number.
                    batcher: _,
                    rows,
                } => {
                    // What joined in this very step was not staged: the caller's task runs it.
                    if !self.joined.is_empty() {
                        self.seat(lane, true);
                    }
                    self.run(outside, lane, rows);
                }
                device::Effect::Drop { slot, why } => self.dropped(outside, slot, why),
            }
        }
    }

    /// What joined is the batch of this lane.
    fn seat(&mut self, lane: LaneId, in_place: bool) {
        for slot in &self.joined {
            if let Some(served) = self.served.get(*slot) {
                served.lane = Some(lane);
            }
        }
        let seat = &mut self.lanes[usize::from(lane.0)];
        seat.served.append(&mut self.joined);
        seat.in_place = in_place;
    }

    fn run(&mut self, outside: &mut Outside, lane: LaneId, rows: u32) {
        self.members.clear();
        let (mut tokens, mut batcher, mut copied_rows) = (0, None, 0);
        for slot in &self.lanes[usize::from(lane.0)].served {
            if let Some(served) = self.served.get(*slot) {
                tokens += served.tokens;
                batcher = Some(served.batcher);
                if served.flight.is_copy {
                    copied_rows += served.meta.rows;
                    continue;
                }
                self.members.push(Member {
                    request: served.request,
                    door: served.flight.from,
                    deadline: served.meta.deadline,
                    is_wanted: !served.is_abandoned,
                    version: served.version,
                    bucket: served.meta.bucket,
                    rows: served.meta.rows,
                    tokens: served.meta.tokens,
                    is_alone: served.meta.is_alone,
                });
            }
        }
        let queue = batcher.and_then(|batcher| self.queues.get(batcher.0 as usize));
        let Some((version, is_dead)) = queue.map(|queue| (queue.version, queue.is_dead)) else {
            return;
        };
        let of = outside.version(version);
        let (rows_max, tokens_max) = (of.rows_max, of.tokens_max);
        let (nanos, fails) = outside.service(version, (rows, tokens));
        let speed = self.group.speed_permille * self.speed_permille / 1_000;
        let errs = outside.happens(self.errs_permille());
        let nanos = match is_dead || errs {
            true => 0,
            false => nanos.saturating_mul(1_000) / speed.max(1),
        };
        let result = match () {
            () if is_dead => Err(failover::End::Died),
            () if fails || errs || rows > self.rows_that_fit() => Err(failover::End::Passing),
            () => Ok(nanos),
        };
        if copied_rows < rows || copied_rows == 0 {
            outside.record(&Fact::Ran(Batch {
                version,
                members: &self.members,
                rows: rows - copied_rows,
                rows_max,
                tokens_max,
                nanos,
            }));
        }
        let seat = &mut self.lanes[usize::from(lane.0)];
        (seat.result, seat.began) = (result, outside.now);
        (seat.runs, seat.run) = (batcher, seat.run.wrapping_add(1));
        let run = seat.run;
        self.watch_deadlines(outside, lane, outside.now.plus_nanos(nanos));
        self.batches += 1;
        let is_lost = outside.planted == Some(Planted::LostBatch) && self.batches == PLANTED_AT;
        if !is_lost {
            outside.plan(self.process, nanos, Timer::Finished(lane, run));
        }
    }

    /// A lane's batch has run: its requests are answered, and the lane goes on. One that had
    /// failed before has ended already.
    pub(super) fn finished(&mut self, outside: &mut Outside, lane: LaneId, run: u32) {
        let seat = &mut self.lanes[usize::from(lane.0)];
        if seat.run != run || seat.runs.take().is_none() {
            return;
        }
        let (result, in_place) = (seat.result, seat.in_place);
        let began = seat.began;
        let mut served = std::mem::take(&mut seat.served);
        for slot in served.drain(..) {
            let ran = self.served.get(slot).map(|served| {
                served.lane = None;
                (served.batcher, began.nanos_since(served.arrived))
            });
            let landing = match (ran, result) {
                (Some((batcher, waited)), Ok(_)) => {
                    Landing::Answered(self.load_report(batcher), waited)
                }
                (_, Err(end)) => Landing::Missed(end),
                (None, Ok(_)) => Landing::Missed(failover::End::Passing),
            };
            self.end_served(outside, slot, landing);
        }
        self.lanes[usize::from(lane.0)].served = served;
        let input = device::Input::Finished {
            lane,
            nanos: result.ok(),
            in_place,
        };
        self.step_device(outside, input, Some(lane));
    }

    /// The device watches deadlines while requests wait; from then on their callers do. Sets a
    /// timer for those in a lane that came to this node and whose deadline is before `until`.
    fn watch_deadlines(&mut self, outside: &mut Outside, lane: LaneId, until: Instant) {
        for position in 0..self.lanes[usize::from(lane.0)].served.len() {
            let slot = self.lanes[usize::from(lane.0)].served[position];
            let Some(served) = self.served.get(slot).copied() else {
                continue;
            };
            let is_copy = served.flight.is_copy;
            let is_here = served.flight.from == self.process && !is_copy;
            if is_here && served.meta.deadline < until {
                self.watch(outside, served.flight.slot);
            }
        }
    }
}
