//! Machine that holds the requests waiting for one replica and forms batches of them.
//!
//! Order: by class, strictly; within a class the tenant first that has had least of the device for
//! its weight ([`Fair`]); of a tenant's requests the earliest deadline, equal deadlines in order of
//! arrival. The head fixes the class and the bucket, and the batch fills in the same order with
//! requests of those until the next one does not fit. A request that must be alone is a batch of
//! its own. Of models that read texts, tokens are what is counted beside rows: they are what a batch
//! costs, and what its limit, its price and every estimate are of. Nothing waits for company: a batch
//! is formed as soon as a lane is free, unless the [`Policy`] of another server is asked for, to
//! compare with.
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

mod estimate;
mod language;
mod policy;
mod waiting;

use std::time::Duration;

use paceline_protocol::{Criticality, TenantId};
use serde::{Deserialize, Serialize};

pub use self::language::{DropReason, Effect, Input, Options};
pub use self::policy::Policy;
use self::waiting::{Passed, Verdict, Waiting};
use crate::cost::CostFit;
use crate::fair::Fair;
use crate::measure::Measure;
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batcher {
    rows_max: u32,
    tokens_max: u32,
    measure: Measure,
    policy: Policy,
    cost: CostFit,
    queue: Waiting,
    /// Learnt tokens of a row, in thousandths, where they are counted.
    row_millitokens: u64,
    /// Learnt time between two rows, or tokens, that leave while others wait, in nanoseconds; 0 is
    /// unknown.
    pace_nanos: u64,
    /// Since when more has been waiting than one batch takes.
    pressed_since: Option<Instant>,
    /// When the last batch was formed and of what size, if others were left waiting.
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
        let measure = match options.tokens_max {
            0 => Measure::Rows,
            _ => Measure::Tokens,
        };
        Self {
            measure,
            // Until something is known, a full batch is full of both.
            row_millitokens: u64::from(options.tokens_max) * 1_000 / u64::from(options.rows_max),
            rows_max: options.rows_max,
            tokens_max: options.tokens_max,
            policy: options.policy,
            cost: options.cost,
            queue: Waiting::new(options.policy.is_in_order_of_arrival(), measure),
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
        let size = self.next_size();
        let (is_full, takes) = (size == self.full_size(), self.cost.batch_nanos(size));
        let until = self.policy.held_until(since, is_full, takes)?;
        // Never past what whoever waits longest has left.
        let deadline = self.queue.deadline_of(slot)?;
        Some(until.min(deadline.minus_nanos(takes)))
    }

    /// Takes one input at `now` and appends what shall be done. `fair` is the device's, which all
    /// of its batchers share.
    pub fn step(&mut self, now: Instant, input: Input, fair: &mut Fair, out: &mut Vec<Effect>) {
        match input {
            Input::Arrive(request) => self.arrive(now, request, fair, out),
            Input::Cancel(slot) => self.cancel(slot, fair, out),
            Input::Form => self.form(now, fair, out),
            Input::Ran {
                rows,
                tokens,
                nanos,
            } => self.cost.learn(self.measure.size(rows, tokens), nanos),
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
        let (measure, unit_nanos) = (self.measure, self.unit_nanos());
        // Earliest-deadline-first runs hopeless requests first when there is too much to do,
        // and then finishes nothing in time. While more waits than one batch takes, what
        // cannot be finished in time makes room for what can. Without that pressure everything
        // is tried: a wrong estimate is put right only by batches that run.
        let finish = if self.judges_lateness() {
            now.plus_nanos(self.cost.batch_nanos(self.full_size()))
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
                let nanos = unit_nanos.saturating_mul(u64::from(measure.of(request)));
                Verdict::Serve { nanos }
            });
        self.learn_length(rows, tokens);
        let size = measure.size(rows, tokens);
        self.formed = (!self.queue.is_empty() && rows > 0).then_some((now, size));
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
