//! Machine that decides what a device runs next.
//!
//! A device has lanes: batches that it can run at a time (a CPU pool has one for each thread).
//! Each replica on it has a batcher. Whenever a lane is free, the batcher goes first whose head would
//! be the first of all: by class, by what its tenant has had of the device, by deadline.
//!
//! ```text
//!            Arrive                  Begin               Launch              Finished
//!   Idle ───────────────▶ Waking ───────────▶ Staged ───────────▶ Running ───────────▶ Idle
//!     └────── cheap, and the caller's task can run it: Staged and Running at once ─────▲
//! ```
//!
//! A batcher whose policy waits for company is held until then, and the others go on.
//!
//! A batch is formed as late as possible: when the lane's thread says that it is awake, so
//! that whatever arrived meanwhile can join. Requests that have expired or were cancelled are
//! dropped three times over: while they wait, when the batch is formed, and when it is
//! launched, after its inputs have been gathered.
//!
//! If a batch is expected to take less than [`IN_PLACE_COST_MAX_US`], the task that brought
//! the request runs it in place, which saves a change of thread (Hendler et al., "Flat
//! combining", SPAA 2010); it does so for others a bounded number of times. It does so, too, where
//! all lanes run batches that take long: beside the lanes there is one more, the *strip*, which only
//! such tasks use, so that a model of microseconds does not wait for one of milliseconds.

mod lane;
mod language;
mod order;
mod spare;
mod strip;

use paceline_protocol::limits::IN_PLACE_COST_MAX_US;
use serde::{Deserialize, Serialize};

use self::lane::{Lane, LaneState, Member, NO_BATCHER};
pub use self::language::{BatcherId, Effect, Input, LaneId};
pub use self::spare::Spare;
use crate::batcher::{self, Batcher, DropReason};
use crate::fair::Fair;
use crate::machine::Machine;
use crate::planted::Bug;
use crate::record::{Recordable, Recording, Tape};
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// The last one is the strip.
    lanes: Vec<Lane>,
    batchers: Vec<Option<Batcher>>,
    /// Who has had how much of it.
    fair: Fair,
    /// What a batcher's step brought; kept so that steps allocate nothing. Empty between steps.
    #[serde(skip)]
    scratch: Vec<batcher::Effect>,
}

impl Device {
    /// A device with `lanes` free lanes and no replicas. The strip's number is behind theirs: a
    /// driver keeps `lanes + 1` places for batches.
    ///
    /// # Panics
    /// If there are no lanes.
    pub fn new(lanes: u16) -> Self {
        assert!(lanes > 0, "a device runs at least one batch at a time");
        Self {
            lanes: vec![Lane::idle(); usize::from(lanes) + 1],
            batchers: Vec::new(),
            fair: Fair::default(),
            scratch: Vec::new(),
        }
    }

    /// The queue of a replica.
    pub fn batcher(&self, batcher: BatcherId) -> Option<&Batcher> {
        self.batchers.get(batcher.0 as usize)?.as_ref()
    }

    /// Batches being staged or run.
    pub fn running(&self) -> u32 {
        let busy = |lane: &&Lane| matches!(lane.state, LaneState::Staged | LaneState::Running);
        self.lanes.iter().filter(busy).count() as u32
    }

    /// Whether a lane has nothing to do, none is about to look for something, and nothing is held.
    pub fn is_idle(&self, now: Instant) -> bool {
        let has_nothing = self.idle_lane().is_some() && !self.is_waking();
        let mut batchers = self.batchers.iter().flatten();
        has_nothing && !batchers.any(|batcher| batcher.held_until(now).is_some())
    }

    /// Rows that wait, over all replicas.
    pub fn queued_rows(&self) -> u64 {
        let batchers = self.batchers.iter().flatten();
        batchers.map(Batcher::queued_rows).sum()
    }

    fn attach(&mut self, batcher: BatcherId, options: batcher::Options) {
        let index = batcher.0 as usize;
        if index >= self.batchers.len() {
            self.batchers.resize_with(index + 1, || None);
        }
        assert!(self.batchers[index].is_none(), "queue {index} is in use");
        self.batchers[index] = Some(Batcher::new(options));
    }

    fn detach(&mut self, now: Instant, batcher: BatcherId, out: &mut Vec<Effect>) {
        self.step_batcher(now, batcher, batcher::Input::Close, out);
        if let Some(queue) = self.batchers.get_mut(batcher.0 as usize) {
            *queue = None;
        }
        // What a lane still runs must not teach the next queue of the same number.
        for lane in self.lanes.iter_mut().filter(|lane| lane.batcher == batcher) {
            lane.batcher = NO_BATCHER;
        }
    }

    fn evict(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for index in 0..self.batchers.len() as u32 {
            self.step_batcher(now, BatcherId(index), batcher::Input::Close, out);
        }
    }

    fn arrive(
        &mut self,
        now: Instant,
        (batcher, request): (BatcherId, RequestMeta),
        in_place: bool,
        out: &mut Vec<Effect>,
    ) {
        let slot = request.slot;
        if self.batcher(batcher).is_none() {
            out.push(Effect::Drop {
                slot,
                why: DropReason::Gone,
            });
            return;
        }
        self.step_batcher(now, batcher, batcher::Input::Arrive(request), out);
        match self.idle_lane() {
            Some(lane) => self.offer(now, lane, in_place, out),
            None if in_place && self.is_free(self.strip()) => self.slip_in(now, batcher, out),
            None => {}
        }
    }

    /// Gives an idle lane something to do, if anything waits.
    fn offer(&mut self, now: Instant, lane: LaneId, in_place: bool, out: &mut Vec<Effect>) {
        let Some(next) = self.next_batcher(now) else {
            self.lane(lane).in_place_runs = 0;
            return;
        };
        let nanos = self
            .batcher(next)
            .map_or(u64::MAX, |batcher| batcher.next_batch_nanos(&self.fair));
        let cheap = nanos < IN_PLACE_COST_MAX_US * 1_000;
        let runs = self.lane(lane).in_place_runs;
        if in_place && cheap && runs < IN_PLACE_RUNS_MAX {
            self.lane(lane).in_place_runs = runs + 1;
            self.stage(now, lane, out);
            self.launch(now, lane, out);
        } else {
            let lane_state = self.lane(lane);
            lane_state.in_place_runs = 0;
            lane_state.state = LaneState::Waking;
            out.push(Effect::Wake { lane });
        }
    }

    fn begin(&mut self, now: Instant, lane: LaneId, out: &mut Vec<Effect>) {
        assert_eq!(
            self.lane(lane).state,
            LaneState::Waking,
            "a thread began unasked"
        );
        self.stage(now, lane, out);
        if self.lane(lane).state == LaneState::Staged {
            out.push(Effect::Stage { lane });
        }
    }

    /// Forms batches until one holds a request, or nothing waits any more.
    fn stage(&mut self, now: Instant, lane: LaneId, out: &mut Vec<Effect>) {
        self.lane(lane).members.clear();
        self.lane(lane).state = LaneState::Idle;
        while let Some(next) = self.next_batcher(now) {
            if self.form(now, lane, next, out) {
                return;
            }
        }
    }

    /// Forms a batch of a batcher; says whether it holds a request.
    fn form(
        &mut self,
        now: Instant,
        lane: LaneId,
        batcher: BatcherId,
        out: &mut Vec<Effect>,
    ) -> bool {
        let queue = self.batcher(batcher);
        let nanos = queue.map_or(0, |queue| queue.next_batch_nanos(&self.fair));
        self.step_batcher_into(now, batcher, batcher::Input::Form);
        let lane_state = &mut self.lanes[usize::from(lane.0)];
        for effect in self.scratch.drain(..) {
            match effect {
                batcher::Effect::Join(request) => {
                    lane_state.members.push(Member::of(&request));
                    out.push(Effect::Join { slot: request.slot });
                }
                batcher::Effect::Drop { slot, why } => out.push(Effect::Drop { slot, why }),
            }
        }
        if lane_state.members.is_empty() {
            return false;
        }
        lane_state.batcher = batcher;
        lane_state.nanos = nanos;
        lane_state.state = LaneState::Staged;
        true
    }

    fn launch(&mut self, now: Instant, lane: LaneId, out: &mut Vec<Effect>) {
        let lane_state = self.lane(lane);
        if lane_state.state != LaneState::Staged {
            return;
        }
        lane_state.settle(now, out);
        let rows = lane_state.rows;
        if rows > 0 {
            lane_state.state = LaneState::Running;
            out.push(Effect::Run {
                lane,
                batcher: lane_state.batcher,
                rows,
            });
        } else {
            lane_state.state = LaneState::Idle;
            if lane != self.strip() && !Bug::IdleLane.is_planted() {
                self.offer(now, lane, false, out);
            }
        }
    }

    /// Says whose batch it was.
    fn finish(&mut self, now: Instant, lane: LaneId, nanos: Option<u64>) -> BatcherId {
        let lane_state = self.lane(lane);
        assert_eq!(
            lane_state.state,
            LaneState::Running,
            "a batch ended that did not run"
        );
        lane_state.state = LaneState::Idle;
        let (batcher, ran) = (lane_state.batcher, nanos.map(|nanos| lane_state.ran(nanos)));
        if let Some(ran) = ran {
            self.step_batcher_into(now, batcher, ran);
        }
        batcher
    }

    fn cancel(&mut self, now: Instant, batcher: BatcherId, slot: Slot, out: &mut Vec<Effect>) {
        if self.batcher(batcher).is_some() {
            self.step_batcher(now, batcher, batcher::Input::Cancel(slot), out);
        }
        let staged = self
            .lanes
            .iter_mut()
            .filter(|lane| lane.state == LaneState::Staged);
        for member in staged.flat_map(|lane| &mut lane.members) {
            member.cancelled |= member.slot == slot;
        }
    }

    fn is_waking(&self) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| lane.state == LaneState::Waking)
    }

    fn lane(&mut self, lane: LaneId) -> &mut Lane {
        &mut self.lanes[usize::from(lane.0)]
    }

    fn step_batcher(
        &mut self,
        now: Instant,
        batcher: BatcherId,
        input: batcher::Input,
        out: &mut Vec<Effect>,
    ) {
        self.step_batcher_into(now, batcher, input);
        out.extend(self.scratch.drain(..).map(dropped));
    }

    fn step_batcher_into(&mut self, now: Instant, batcher: BatcherId, input: batcher::Input) {
        self.scratch.clear();
        if let Some(Some(queue)) = self.batchers.get_mut(batcher.0 as usize) {
            queue.step(now, input, &mut self.fair, &mut self.scratch);
        }
    }
}

impl Machine for Device {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Attach { batcher, options } => self.attach(batcher, options),
            Input::Detach { batcher } => self.detach(now, batcher, out),
            Input::Evict => self.evict(now, out),
            Input::SetWeights { weights } => self.fair.set_weights(weights),
            Input::Arrive {
                batcher,
                request,
                in_place,
            } => {
                self.arrive(now, (batcher, request), in_place, out);
            }
            Input::Cancel { batcher, slot } => self.cancel(now, batcher, slot, out),
            Input::Begin { lane } => self.begin(now, lane, out),
            Input::Launch { lane } => self.launch(now, lane, out),
            Input::Finished {
                lane,
                nanos,
                in_place,
            } => {
                let batcher = self.finish(now, lane, nanos);
                if lane != self.strip() {
                    self.offer(now, lane, in_place, out);
                } else if in_place {
                    self.slip_in(now, batcher, out);
                }
            }
        }
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for batcher in self.batchers.iter_mut().flatten() {
            let earliest = batcher.earliest_deadline();
            if earliest.is_some_and(|deadline| deadline <= now) {
                self.scratch.clear();
                batcher.wake(now, &mut self.fair, &mut self.scratch);
                out.extend(self.scratch.drain(..).map(dropped));
            }
        }
        // What was held may run now. A lane that wakes looks at all there is.
        if !self.is_waking()
            && let Some(lane) = self.idle_lane()
        {
            self.offer(now, lane, false, out);
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let batchers = || self.batchers.iter().flatten();
        let deadlines = batchers().filter_map(Batcher::earliest_deadline);
        // Who has no lane to run on looks again when one is free.
        let has_lane = self.idle_lane().is_some() && !self.is_waking();
        let holds = batchers().filter_map(Batcher::hold_ends);
        deadlines.chain(holds.filter(|_| has_lane)).min()
    }
}

impl Recordable for Device {
    fn state_bytes(&self) -> usize {
        let lanes = self.lanes.iter().map(Lane::bytes);
        let waiting = self.batchers.iter().flatten().map(Batcher::waiting_bytes);
        let places = self.batchers.len() * size_of::<Option<Batcher>>();
        lanes.chain(waiting).sum::<usize>() + places + self.fair.bytes()
    }

    fn input_bytes(input: &Input) -> usize {
        let Input::SetWeights { weights } = input else {
            return 0;
        };
        size_of_val(&weights[..])
    }

    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Device(tape)
    }
}

/// What a batcher's step brought that forms no batch.
fn dropped(effect: batcher::Effect) -> Effect {
    match effect {
        batcher::Effect::Drop { slot, why } => Effect::Drop { slot, why },
        batcher::Effect::Join(_) => unreachable!("only `form` forms batches"),
    }
}

/// Batches that one task may run one after another before a thread takes over: it bounds how
/// long an answer waits for others (4 × 50 µs).
const IN_PLACE_RUNS_MAX: u32 = 4;

#[cfg(test)]
mod tests;
