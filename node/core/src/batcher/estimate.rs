//! What a batcher expects: of the next batch, of all that waits, and of who comes now.
//!
//! Estimates are of sizes: rows, or tokens where those are counted. Tokens of a row are those of
//! what waits, since that is what will run; while nothing waits, those of the last batches.

use paceline_protocol::limits::{QUEUE_ROWS_MAX, QUEUE_ROWS_MIN, REQUEST_BUDGET_DEFAULT_MS};

use super::Batcher;
use crate::fair::Fair;
use crate::measure::Measure;
use crate::planted::Bug;
use crate::request::RequestMeta;
use crate::time::Instant;

impl Batcher {
    /// Learnt time of a row in a full batch, in nanoseconds.
    pub fn row_nanos(&self) -> u64 {
        self.row_nanos_of(self.row_millitokens())
    }

    /// Learnt time of a batch of one row, in nanoseconds.
    pub fn one_row_nanos(&self) -> u64 {
        let size = match self.measure {
            Measure::Rows => 1,
            Measure::Tokens => u32::try_from(self.row_millitokens() / 1_000).unwrap_or(u32::MAX),
        };
        self.cost.batch_nanos(size.max(1))
    }

    /// Expected nanoseconds of the batch that would be formed now.
    pub fn next_batch_nanos(&self, fair: &Fair) -> u64 {
        let head = self.queue.head(fair);
        let head = head.map_or(0, |request| self.measure.of(request));
        self.cost.batch_nanos(self.next_size().max(head))
    }

    /// Expected nanoseconds until all that waits has run, one batch after another.
    pub fn backlog_nanos(&self) -> u64 {
        self.queue.size().saturating_mul(self.unit_nanos())
    }

    /// Rows that may wait: what can be finished within the default budget, if it is as what ran
    /// lately. Who comes does not change the limit that he is judged by.
    pub fn queue_rows_max(&self) -> u64 {
        let budget_nanos = REQUEST_BUDGET_DEFAULT_MS * 1_000_000;
        let row_nanos = self.row_nanos_of(self.row_millitokens).max(1);
        (budget_nanos / row_nanos).clamp(u64::from(QUEUE_ROWS_MIN), u64::from(QUEUE_ROWS_MAX))
    }

    /// Learnt time of a row, or a token, in a full batch.
    pub(super) fn unit_nanos(&self) -> u64 {
        self.cost.unit_nanos(self.full_size())
    }

    /// Size of a full batch.
    pub(super) fn full_size(&self) -> u32 {
        self.full_size_of(self.row_millitokens())
    }

    /// Size of the next batch, if its head is no larger.
    pub(super) fn next_size(&self) -> u32 {
        self.queue.size().min(u64::from(self.full_size())) as u32
    }

    fn row_nanos_of(&self, row_millitokens: u64) -> u64 {
        let unit_nanos = self.cost.unit_nanos(self.full_size_of(row_millitokens));
        match self.measure {
            Measure::Rows => unit_nanos,
            Measure::Tokens => unit_nanos.saturating_mul(row_millitokens).div_ceil(1_000),
        }
    }

    fn full_size_of(&self, row_millitokens: u64) -> u32 {
        match self.measure {
            Measure::Rows => self.rows_max,
            Measure::Tokens => {
                let rows_max = u64::from(self.rows_max);
                let tokens = rows_max.saturating_mul(row_millitokens) / 1_000;
                tokens.clamp(1, u64::from(self.tokens_max)) as u32
            }
        }
    }

    /// Tokens of a row, in thousandths.
    fn row_millitokens(&self) -> u64 {
        match self.queue.rows() {
            0 => self.row_millitokens,
            rows => self.queue.size().saturating_mul(1_000) / rows,
        }
    }

    /// How long after its deadline a request would be finished, if it would.
    pub(super) fn late_nanos(
        &self,
        now: Instant,
        request: &RequestMeta,
        fair: &Fair,
    ) -> Option<u64> {
        if !self.judges_lateness() || self.pace_nanos == 0 {
            return None;
        }
        let own = u64::from(self.measure.of(request));
        let before = self.queue.size_before(request, fair) + own;
        let waits = before.saturating_mul(self.pace_nanos);
        let batch = self.cost.batch_nanos(self.full_size());
        let done = now.plus_nanos(waits.saturating_add(batch));
        let left = request.deadline.nanos_since(now);
        let is_burst = |since: Instant| now.nanos_since(since) < BURST_NANOS;
        let may_take = match self.pressed_since.is_none_or(is_burst) {
            true => left,
            false => left / 2,
        };
        let late = done.nanos_since(now.plus_nanos(may_take));
        (late > 0).then_some(late)
    }

    /// Whether it is time to let nobody wait who would be late.
    pub(super) fn judges_lateness(&self) -> bool {
        let is_asked_to = self.policy.refuses_what_is_late() && !Bug::HopelessFirst.is_planted();
        is_asked_to && self.is_pressed()
    }

    /// Whether more waits than one batch takes.
    pub(super) fn is_pressed(&self) -> bool {
        self.queue.size() > u64::from(self.full_size())
    }

    /// Learns the pace from the time that has passed since the batch before.
    pub(super) fn learn_pace(&mut self, now: Instant) {
        if let Some((at, size)) = self.formed.take() {
            let nanos = now.nanos_since(at) / u64::from(size.max(1));
            // What is unknown is never 0 again.
            self.pace_nanos = match self.pace_nanos {
                0 => nanos.max(1),
                known => smooth(known, nanos).max(1),
            };
        }
    }

    /// Learns how long rows are from a batch.
    pub(super) fn learn_length(&mut self, rows: u32, tokens: u32) {
        if self.measure == Measure::Tokens && rows > 0 {
            let size = u64::from(self.measure.size(rows, tokens));
            self.row_millitokens = smooth(self.row_millitokens, size * 1_000 / u64::from(rows));
        }
    }
}

/// A moving average over about eight batches.
fn smooth(known: u64, new: u64) -> u64 {
    known - known / 8 + new / 8
}

/// What is pressed for longer has more to do than it can.
const BURST_NANOS: u64 = 1_000_000_000;
