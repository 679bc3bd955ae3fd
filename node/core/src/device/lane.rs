//! A lane of a device: what it does, and the batch that is staged on it.

use paceline_protocol::limits::IN_PLACE_COST_MAX_US;
use serde::{Deserialize, Serialize};

use super::{BatcherId, Effect};
use crate::batcher::{self, DropReason};
use crate::planted::Bug;
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lane {
    pub(super) state: LaneState,
    pub(super) batcher: BatcherId,
    pub(super) rows: u32,
    /// Where they are counted.
    pub(super) tokens: u32,
    /// What its batch was expected to take when it was formed.
    pub(super) nanos: u64,
    /// Requests of a staged batch, in the order in which they joined.
    pub(super) members: Vec<Member>,
    /// Batches that the present task has run one after another.
    pub(super) in_place_runs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LaneState {
    Idle,
    Waking,
    Staged,
    Running,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) slot: Slot,
    pub(super) deadline: Instant,
    pub(super) rows: u32,
    pub(super) tokens: u32,
    pub(super) cancelled: bool,
}

impl Member {
    pub(super) fn of(request: &RequestMeta) -> Self {
        Self {
            slot: request.slot,
            deadline: request.deadline,
            rows: request.rows,
            tokens: request.tokens,
            cancelled: false,
        }
    }
}

impl Lane {
    pub(super) fn idle() -> Self {
        Self {
            state: LaneState::Idle,
            batcher: NO_BATCHER,
            rows: 0,
            tokens: 0,
            nanos: 0,
            members: Vec::new(),
            in_place_runs: 0,
        }
    }

    /// Whether what it runs takes so long that cheap batches should not wait for it.
    pub(super) fn is_slow(&self) -> bool {
        let is_busy = matches!(self.state, LaneState::Staged | LaneState::Running);
        is_busy && self.nanos >= SLOW_NANOS
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.members.len() * size_of::<Member>()
    }

    /// That its batch has run, as its batcher is told.
    pub(super) fn ran(&self, nanos: u64) -> batcher::Input {
        batcher::Input::Ran {
            rows: self.rows,
            tokens: self.tokens,
            nanos,
        }
    }

    /// Drops what has expired or was cancelled since the batch was formed, and counts what is left.
    pub(super) fn settle(&mut self, now: Instant, out: &mut Vec<Effect>) {
        (self.rows, self.tokens) = (0, 0);
        for member in self.members.drain(..) {
            let why = if member.cancelled && !Bug::CancelledRuns.is_planted() {
                DropReason::Cancelled
            } else if member.deadline <= now {
                DropReason::Expired
            } else {
                self.rows += member.rows;
                self.tokens = self.tokens.saturating_add(member.tokens);
                continue;
            };
            out.push(Effect::Drop {
                slot: member.slot,
                why,
            });
        }
    }
}

/// Ten times what may run in place: beside shorter batches a place of its own would gain little,
/// and cost the company that forms while one waits.
const SLOW_NANOS: u64 = 10 * IN_PLACE_COST_MAX_US * 1_000;

/// The queue of a batch whose replica has gone.
pub(super) const NO_BATCHER: BatcherId = BatcherId(u32::MAX);
