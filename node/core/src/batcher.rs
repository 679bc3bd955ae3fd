//! Machine that holds the requests waiting for one replica and forms batches of them.
//!
//! Order: by class, strictly; within a class the tenant first that has had least of the device for
//! its weight ([`Fair`]); of a tenant's requests the earliest deadline, equal deadlines in order of
//! arrival. The head fixes the class and the bucket, and the batch fills in the same order with
//! requests of those until the next one does not fit. A request that must be alone is a batch of
//! its own. Nothing waits for company: a batch is formed as soon as a lane is free, unless the
//! [`Policy`] of another server is asked for, to compare with.
//!
//! While more waits than one batch takes, a request that would not be finished by its deadline is
//! refused when it arrives, and told when it would have been: what is served before it, at the
//! pace at which rows leave. That pace is measured, since lanes and other models share the device.
//! When that lasts for more than a second it is no burst, and to wait for most of one's time gives
//! nobody anything: then a request must be expected to end within half of what it has left, which
//! keeps the queue short and leaves room for those that are more urgent.
//!
//! A queue that is full makes room for a higher class, and for a tenant that has less waiting than
//! others.
//!
//! A request leaves in one of five ways: it joins a batch, its deadline passes or cannot be met any
//! more, it is cancelled, or it is refused because there is no room for it. [`crate::device`] is
//! the only driver besides the tests: it owns a batcher for each replica on the device.

mod language;
mod policy;
mod waiting;

use std::time::Duration;

use paceline_protocol::limits::{QUEUE_ROWS_MAX, QUEUE_ROWS_MIN, REQUEST_BUDGET_DEFAULT_MS};
use paceline_protocol::{Criticality, TenantId};
use serde::{Deserialize, Serialize};

pub use self::language::{DropReason, Effect, Input, Options};
pub use self::policy::Policy;
use self::waiting::{Passed, Verdict, Waiting};
use crate::cost::CostFit;
use crate::fair::Fair;
use crate::planted::Bug;
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batcher {
    rows_max: u32,
    tokens_max: u32,
    policy: Policy,
    cost: CostFit,
    queue: Waiting,
    /// Learnt time between two rows that leave while others wait, in nanoseconds; 0 is unknown.
    pace_nanos: u64,
    /// Since when more has been waiting than one batch takes.
    pressed_since: Option<Instant>,
    /// When the last batch was formed and of how many rows, if others were left waiting.
    formed: Option<(Instant, u32)>,
    /// Empty between steps.
    #[serde(skip)]
    passed: Passed,
}

impl Batcher {
    /// An empty queue.
    ///
    /// # Panics
    /// If `rows_max` is 0.
    pub fn new(options: Options) -> Self {
        assert!(options.rows_max > 0, "a batch has at least one row");
        Self {
            rows_max: options.rows_max,
            tokens_max: options.tokens_max,
            policy: options.policy,
            cost: options.cost,
            queue: Waiting::new(options.policy.is_in_order_of_arrival()),
            pace_nanos: 0,
            pressed_since: None,
            formed: None,
            passed: Passed::default(),
        }
    }

    /// Rows that wait.
    pub fn queued_rows(&self) -> u64 {
        self.queue.rows()
    }

    /// Requests that wait.
    pub fn queued_requests(&self) -> usize {
        self.queue.len()
    }

    /// Memory that a copy of what waits takes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// What batches cost, as learnt.
    pub fn cost(&self) -> &CostFit {
        &self.cost
    }

    /// Learnt time of a row in a full batch, in nanoseconds.
    pub fn row_nanos(&self) -> u64 {
        self.cost.row_nanos(self.rows_max)
    }

    /// The earliest deadline of all that waits.
    pub fn earliest_deadline(&self) -> Option<Instant> {
        self.queue.earliest_deadline()
    }

    /// The request that is served first.
    pub fn head(&self, fair: &Fair) -> Option<&RequestMeta> {
        self.queue.head(fair)
    }

    /// Until when no batch shall be formed, though something waits: `None` if one may be at once.
    pub fn held_until(&self, now: Instant) -> Option<Instant> {
        self.hold_ends().filter(|until| *until > now)
    }

    /// When a batch may be formed of what waits, if not at once. It may be over.
    pub(crate) fn hold_ends(&self) -> Option<Instant> {
        let (slot, since) = self.queue.oldest()?;
        let rows = self.queued_rows().min(u64::from(self.rows_max)) as u32;
        let (is_full, takes) = (rows == self.rows_max, self.cost.batch_nanos(rows));
        let until = self.policy.held_until(since, is_full, takes)?;
        // Never past what whoever waits longest has left.
        let deadline = self.queue.deadline_of(slot)?;
        Some(until.min(deadline.minus_nanos(takes)))
    }

    /// Expected nanoseconds of the batch that would be formed now.
    pub fn next_batch_nanos(&self, fair: &Fair) -> u64 {
        let rows = self.queued_rows().min(u64::from(self.rows_max)) as u32;
        let head = self.queue.head(fair).map_or(0, |request| request.rows);
        self.cost.batch_nanos(rows.max(head))
    }

    /// Expected nanoseconds until all that waits has run, one batch after another.
    pub fn backlog_nanos(&self) -> u64 {
        self.queued_rows()
            .saturating_mul(self.cost.row_nanos(self.rows_max))
    }

    /// Rows that may wait: what can be finished within the default budget.
    pub fn queue_rows_max(&self) -> u64 {
        let budget_nanos = REQUEST_BUDGET_DEFAULT_MS * 1_000_000;
        let row_nanos = self.row_nanos().max(1);
        (budget_nanos / row_nanos).clamp(u64::from(QUEUE_ROWS_MIN), u64::from(QUEUE_ROWS_MAX))
    }

    /// Takes one input at `now` and appends what shall be done. `fair` is the device's, which all
    /// of its batchers share.
    pub fn step(&mut self, now: Instant, input: Input, fair: &mut Fair, out: &mut Vec<Effect>) {
        match input {
            Input::Arrive(request) => self.arrive(now, request, fair, out),
            Input::Cancel(slot) => self.cancel(slot, fair, out),
            Input::Form => self.form(now, fair, out),
            Input::Ran { rows, nanos } => self.cost.learn(rows, nanos),
            Input::Close => self.close(fair, out),
        }
    }

    /// Drops what has expired by `now`.
    pub fn wake(&mut self, now: Instant, fair: &mut Fair, out: &mut Vec<Effect>) {
        while let Some(request) = self.queue.pop_expired(now, fair) {
            out.push(Effect::Drop {
                slot: request.slot,
                why: DropReason::Expired,
            });
        }
    }

    fn arrive(
        &mut self,
        now: Instant,
        request: RequestMeta,
        fair: &mut Fair,
        out: &mut Vec<Effect>,
    ) {
        let slot = request.slot;
        if request.deadline <= now {
            out.push(Effect::Drop {
                slot,
                why: DropReason::Expired,
            });
            return;
        }
        let request = self.policy.as_known(request);
        // Whatever has emptied the queue meanwhile: what was learnt of its pressure is over.
        if !self.is_pressed() {
            self.pressed_since = None;
        }
        if self.queue.is_empty() {
            self.formed = None;
        }
        if let Some(late_nanos) = self.late_nanos(now, &request, fair) {
            out.push(full(slot, late_nanos));
            return;
        }
        // One request may always wait, however many rows it has: the limit bounds a queue, and
        // a request over it would otherwise never run. Lower classes make room, if that suffices,
        // or who has more waiting than his share.
        let room = self
            .queue_rows_max()
            .saturating_sub(u64::from(request.rows));
        let staying = self.queued_rows() - self.queue.rows_below(request.criticality);
        let lacking = match staying {
            0 => 0,
            staying => staying.saturating_sub(room),
        };
        let greedy = match lacking {
            0 => None,
            rows => match self.queue.greedy(&request, rows, fair) {
                None => {
                    out.push(full(slot, self.backlog_nanos()));
                    return;
                }
                greedy => greedy,
            },
        };
        let class = request.criticality;
        while self.queued_rows() > room
            && let Some(shed) = self.make_room((class, greedy), fair)
        {
            out.push(full(shed.slot, self.backlog_nanos()));
        }
        self.queue.push(now, request, fair);
        if self.is_pressed() {
            self.pressed_since.get_or_insert(now);
        }
    }

    /// One that leaves for one of this class: of a lower one, or of a tenant that has more than its
    /// share.
    fn make_room(
        &mut self,
        (class, greedy): (Criticality, Option<TenantId>),
        fair: &mut Fair,
    ) -> Option<RequestMeta> {
        let lower = self.queue.shed(class, fair);
        lower.or_else(|| self.queue.cut(class, greedy?, fair))
    }

    /// How long after its deadline a request would be finished, if it would.
    fn late_nanos(&self, now: Instant, request: &RequestMeta, fair: &Fair) -> Option<u64> {
        if !self.judges_lateness() || self.pace_nanos == 0 {
            return None;
        }
        let before = self.queue.rows_before(request, fair) + u64::from(request.rows);
        let waits = before.saturating_mul(self.pace_nanos);
        let done = now.plus_nanos(waits.saturating_add(self.cost.batch_nanos(self.rows_max)));
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
    fn judges_lateness(&self) -> bool {
        let is_asked_to = self.policy.refuses_what_is_late() && !Bug::HopelessFirst.is_planted();
        is_asked_to && self.is_pressed()
    }

    /// Whether more waits than one batch takes.
    fn is_pressed(&self) -> bool {
        self.queued_rows() > u64::from(self.rows_max)
    }

    /// Learns the pace from the time that has passed since the batch before.
    fn learn_pace(&mut self, now: Instant) {
        if let Some((at, rows)) = self.formed.take() {
            let nanos = now.nanos_since(at) / u64::from(rows.max(1));
            // A moving average over about eight batches; what is unknown is never 0 again.
            self.pace_nanos = match self.pace_nanos {
                0 => nanos.max(1),
                known => (known - known / 8 + nanos / 8).max(1),
            };
        }
    }

    fn cancel(&mut self, slot: Slot, fair: &mut Fair, out: &mut Vec<Effect>) {
        if self.queue.remove(slot, fair).is_some() {
            out.push(Effect::Drop {
                slot,
                why: DropReason::Cancelled,
            });
        }
    }

    fn form(&mut self, now: Instant, fair: &mut Fair, out: &mut Vec<Effect>) {
        self.learn_pace(now);
        let (mut rows, mut tokens) = (0, 0);
        let tokens_max = match self.tokens_max {
            0 => u32::MAX,
            most => most,
        };
        let mut head = None;
        let mut is_closed = false;
        let rows_max = self.rows_max;
        let row_nanos = self.row_nanos();
        // Earliest-deadline-first runs hopeless requests first when there is too much to do,
        // and then finishes nothing in time. While more waits than one batch takes, what
        // cannot be finished in time makes room for what can. Without that pressure everything
        // is tried: a wrong estimate is put right only by batches that run.
        let finish = if self.judges_lateness() {
            now.plus_nanos(self.cost.batch_nanos(rows_max))
        } else {
            now
        };
        self.queue
            .take(LOOKS_PAST_HEAD, &mut self.passed, fair, |request| {
                if request.deadline <= finish {
                    let expired = request.deadline <= now;
                    let why = if expired {
                        DropReason::Expired
                    } else {
                        DropReason::Late
                    };
                    out.push(Effect::Drop {
                        slot: request.slot,
                        why,
                    });
                    return Verdict::Drop;
                }
                let (class, bucket) = *head.get_or_insert((request.criticality, request.bucket));
                // To wait for a lower class is what a class is there to be spared.
                if request.criticality != class {
                    return Verdict::Stop;
                }
                if bucket != request.bucket || (rows > 0 && request.is_alone) {
                    return Verdict::Pass;
                }
                let is_full = rows + request.rows > rows_max
                    || request.tokens.saturating_add(tokens) > tokens_max;
                if is_closed || (rows > 0 && is_full) {
                    return Verdict::Stop;
                }
                is_closed = request.is_alone;
                rows += request.rows;
                tokens = request.tokens.saturating_add(tokens);
                out.push(Effect::Join(*request));
                let nanos = row_nanos.saturating_mul(u64::from(request.rows));
                Verdict::Serve { nanos }
            });
        self.formed = (!self.queue.is_empty() && rows > 0).then_some((now, rows));
    }

    fn close(&mut self, fair: &mut Fair, out: &mut Vec<Effect>) {
        while let Some(request) = self.queue.pop(fair) {
            out.push(Effect::Drop {
                slot: request.slot,
                why: DropReason::Gone,
            });
        }
    }
}

/// What is pressed for longer has more to do than it can.
const BURST_NANOS: u64 = 1_000_000_000;
/// A request for which there is no room.
fn full(slot: Slot, retry_nanos: u64) -> Effect {
    let retry_after = Duration::from_nanos(retry_nanos);
    let why = DropReason::QueueFull { retry_after };
    Effect::Drop { slot, why }
}

/// How many requests of other buckets a batch looks past before it is content with what it
/// has: it bounds the cost of forming one.
const LOOKS_PAST_HEAD: usize = 64;

#[cfg(test)]
mod tests;
