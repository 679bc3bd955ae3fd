//! The strip: a place beside the lanes, for batches of microseconds while all lanes take long.

use paceline_protocol::limits::IN_PLACE_COST_MAX_US;

use super::lane::LaneState;
use super::{BatcherId, Device, Effect, IN_PLACE_RUNS_MAX, LaneId};
use crate::time::Instant;

impl Device {
    pub(super) fn idle_lane(&self) -> Option<LaneId> {
        let lanes = (0..self.strip().0).map(LaneId);
        lanes.into_iter().find(|lane| self.is_free(*lane))
    }

    /// The one behind the lanes.
    pub(super) fn strip(&self) -> LaneId {
        LaneId(self.lanes.len() as u16 - 1)
    }

    pub(super) fn is_free(&self, lane: LaneId) -> bool {
        self.lanes[usize::from(lane.0)].state == LaneState::Idle
    }

    /// Runs what is cheap on the strip, while every lane takes long.
    pub(super) fn slip_in(&mut self, now: Instant, batcher: BatcherId, out: &mut Vec<Effect>) {
        let strip = self.strip();
        let runs = self.lane(strip).in_place_runs;
        let lanes = &self.lanes[..usize::from(strip.0)];
        let are_slow = lanes.iter().all(|lane| lane.is_slow());
        let queue = self.batcher(batcher);
        let may_run = queue.is_some_and(|queue| {
            queue.head(&self.fair).is_some()
                && queue.held_until(now).is_none()
                && queue.next_batch_nanos(&self.fair) < IN_PLACE_COST_MAX_US * 1_000
        });
        if are_slow && may_run && runs < IN_PLACE_RUNS_MAX && self.form(now, strip, batcher, out) {
            self.lane(strip).in_place_runs = runs + 1;
            self.launch(now, strip, out);
        } else {
            self.lane(strip).in_place_runs = 0;
        }
    }
}
