//! Requests that wait for one replica: by class; in a class the tenant goes first that has had
//! least of the device; of a tenant's own, the earliest deadline. Or in order of arrival.

use std::collections::VecDeque;

use paceline_protocol::{Criticality, TenantId};
use serde::{Deserialize, Serialize};

use crate::deadline_queue::{DeadlineQueue, Entry, Positions};
use crate::fair::Fair;
use crate::measure::Measure;
use crate::request::{RequestMeta, Slot};
use crate::time::Instant;

/// A line for each tenant and class of which something waits: one, on most days. What looks at all
/// of them costs O(lines).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    measure: Measure,
    /// By class, the highest first, and within a class by tenant. None is empty between steps.
    lines: Vec<Line>,
    positions: Positions,
    arrivals: u64,
    /// In order of arrival, if that is the order; those that have left meanwhile are among them
    /// until their turn comes.
    in_order: Option<VecDeque<(Slot, Instant)>>,
    /// Lines that are empty, kept for their memory.
    #[serde(skip)]
    spare: Vec<DeadlineQueue>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    class: Criticality,
    tenant: TenantId,
    rows: u64,
    size: u64,
    queue: DeadlineQueue,
}

/// What to do with a request that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is served, and its tenant charged for so many nanoseconds of the device.
    Serve { nanos: u64 },
    /// It leaves without being served.
    Drop,
    /// It keeps its place.
    Pass,
    /// It keeps its place, and nobody else is looked at.
    Stop,
}

/// Room for what [`Waiting::take`] passes over; kept by the caller so that taking allocates
/// nothing.
pub(super) type Passed = Vec<Entry>;

impl Waiting {
    /// Nothing waits.
    pub(super) fn new(is_in_order_of_arrival: bool, measure: Measure) -> Self {
        Self {
            measure,
            in_order: is_in_order_of_arrival.then(VecDeque::new),
            ..Self::default()
        }
    }

    /// Who has waited longest, and since when; `None` where nobody asks for that.
    pub(super) fn oldest(&self) -> Option<(Slot, Instant)> {
        let mut waiting = self.in_order.as_ref()?.iter();
        let oldest = waiting.find(|(slot, _)| self.request(*slot).is_some());
        oldest.copied()
    }

    /// When the answer of a request that waits is worthless.
    pub(super) fn deadline_of(&self, slot: Slot) -> Option<Instant> {
        self.request(slot).map(|request| request.deadline)
    }

    fn request(&self, slot: Slot) -> Option<&RequestMeta> {
        let mut lines = self.lines.iter();
        lines.find_map(|line| line.queue.waiting(slot, &self.positions))
    }

    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(|line| line.queue.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Rows of all.
    pub(super) fn rows(&self) -> u64 {
        self.lines.iter().map(|line| line.rows).sum()
    }

    /// Size of all.
    pub(super) fn size(&self) -> u64 {
        self.lines.iter().map(|line| line.size).sum()
    }

    /// Rows of lower classes.
    pub(super) fn rows_below(&self, class: Criticality) -> u64 {
        let lower = self.lines.iter().filter(|line| line.class > class);
        lower.map(|line| line.rows).sum()
    }

    /// Size of what is served before a request: all of higher classes, nearly that of its tenant
    /// that is due earlier, and of other tenants as much as their weights give them meanwhile.
    pub(super) fn size_before(&self, request: &RequestMeta, fair: &Fair) -> u64 {
        let own = self.place(request.criticality, request.tenant);
        let own = own.map_or(0, |own| {
            let queue = &self.lines[own].queue;
            queue.size_before(request.deadline, self.measure)
        });
        let turn = own + u64::from(self.measure.of(request));
        let weight = fair.weight(request.tenant);
        let before = self.lines.iter().map(|line| {
            if line.class != request.criticality {
                let is_higher = line.class < request.criticality;
                return if is_higher { line.size } else { 0 };
            }
            match line.tenant == request.tenant {
                true => own,
                false => line.size.min(turn * fair.weight(line.tenant) / weight),
            }
        });
        before.sum()
    }

    /// Memory that a copy takes.
    pub(super) fn bytes(&self) -> usize {
        let lines = self.lines.iter();
        let lines: usize = lines
            .map(|line| size_of::<Line>() + line.queue.bytes())
            .sum();
        let in_order = self.in_order.as_ref().map_or(0, VecDeque::len);
        lines + self.positions.bytes() + in_order * size_of::<(Slot, Instant)>()
    }

    /// The request that is served first.
    pub(super) fn head(&self, fair: &Fair) -> Option<&RequestMeta> {
        if self.in_order.is_some() {
            return self.request(self.oldest()?.0);
        }
        self.lines[self.first(fair)?].queue.earliest()
    }

    /// The earliest deadline of all, whoever is served first.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let lines = self.lines.iter();
        lines
            .filter_map(|line| line.queue.earliest_deadline())
            .min()
    }

    pub(super) fn push(&mut self, now: Instant, request: RequestMeta, fair: &mut Fair) {
        if let Some(in_order) = &mut self.in_order {
            in_order.push_back((request.slot, now));
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        fair.enter((request.criticality, request.tenant));
        let line = self.line(request.criticality, request.tenant);
        let line = &mut self.lines[line];
        line.rows += u64::from(request.rows);
        line.size += u64::from(self.measure.of(&request));
        line.queue
            .push(Entry { request, arrival }, &mut self.positions);
    }

    pub(super) fn remove(&mut self, slot: Slot, fair: &mut Fair) -> Option<RequestMeta> {
        (0..self.lines.len()).find_map(|line| {
            self.take_out(line, fair, |queue, positions| queue.remove(slot, positions))
        })
    }

    /// One whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Instant, fair: &mut Fair) -> Option<RequestMeta> {
        let has_expired = |line: &Line| {
            let earliest = line.queue.earliest_deadline();
            earliest.is_some_and(|deadline| deadline <= now)
        };
        let line = self.lines.iter().position(has_expired)?;
        self.take_out(line, fair, DeadlineQueue::pop)
    }

    /// Any.
    pub(super) fn pop(&mut self, fair: &mut Fair) -> Option<RequestMeta> {
        self.take_out(0, fair, DeadlineQueue::pop)
    }

    /// One of the lowest class that is lower than `than`, of the tenant that has most waiting for
    /// its weight: among the last of those, if not the last.
    pub(super) fn shed(&mut self, than: Criticality, fair: &mut Fair) -> Option<RequestMeta> {
        let lowest = self.lines.last()?.class;
        let line = (lowest > than).then(|| self.longest(lowest, fair))??;
        self.take_out(line, fair, DeadlineQueue::pop_late)
    }

    /// Whether another tenant of its class has so much more waiting for its weight than a request's
    /// own that it would have as much without `rows` of it: whoever fills a queue makes room for
    /// others (the longest line is cut, as in McKenney's "Stochastic fairness queueing", 1990).
    /// Tells whose it is.
    pub(super) fn greedy(&self, request: &RequestMeta, rows: u64, fair: &Fair) -> Option<TenantId> {
        let line = &self.lines[self.longest(request.criticality, fair)?];
        let own = self.place(request.criticality, request.tenant);
        let own = own.map_or(0, |own| self.lines[own].rows) + u64::from(request.rows);
        let left = line.rows.checked_sub(rows)?;
        let has_more = left * fair.weight(request.tenant) >= own * fair.weight(line.tenant);
        (line.tenant != request.tenant && has_more).then_some(line.tenant)
    }

    /// One of a tenant in a class: among the last of them, if not the last.
    pub(super) fn cut(
        &mut self,
        class: Criticality,
        tenant: TenantId,
        fair: &mut Fair,
    ) -> Option<RequestMeta> {
        let line = self.place(class, tenant).ok()?;
        self.take_out(line, fair, DeadlineQueue::pop_late)
    }

    /// Takes out, in the order in which they are served, those of the first requests that
    /// `wanted` says are served or dropped; at most `looks` are passed over, which keep their
    /// places. The first that is served begins a batch.
    pub(super) fn take(
        &mut self,
        looks: usize,
        passed: &mut Passed,
        fair: &mut Fair,
        mut wanted: impl FnMut(&RequestMeta) -> Verdict,
    ) {
        if let Some(in_order) = self.in_order.take() {
            self.in_order = Some(self.take_in_order(in_order, looks, fair, wanted));
            return;
        }
        passed.clear();
        let mut has_begun = false;
        while passed.len() < looks
            && let Some(at) = self.first(fair)
        {
            let line = &mut self.lines[at];
            let head = line.queue.earliest().expect("it is not empty");
            let verdict = wanted(head);
            if verdict == Verdict::Stop {
                break;
            }
            let of = (line.class, line.tenant);
            let entry = line.queue.pop(&mut self.positions);
            let entry = entry.expect("it is not empty");
            if verdict == Verdict::Pass {
                passed.push(entry);
                continue;
            }
            line.rows -= u64::from(entry.request.rows);
            line.size -= u64::from(self.measure.of(&entry.request));
            if let Verdict::Serve { nanos } = verdict {
                if !has_begun {
                    fair.begin(of);
                    has_begun = true;
                }
                fair.charge(of, nanos);
            }
            fair.leave(of);
        }
        for entry in passed.drain(..) {
            let line = self.line(entry.request.criticality, entry.request.tenant);
            self.lines[line].queue.push(entry, &mut self.positions);
        }
        let mut line = 0;
        while line < self.lines.len() {
            line += usize::from(!self.drop_if_empty(line));
        }
    }

    /// The same in order of arrival. Returns who waits still.
    fn take_in_order(
        &mut self,
        mut in_order: VecDeque<(Slot, Instant)>,
        looks: usize,
        fair: &mut Fair,
        mut wanted: impl FnMut(&RequestMeta) -> Verdict,
    ) -> VecDeque<(Slot, Instant)> {
        let mut passed = 0;
        while passed < looks
            && let Some((slot, _)) = in_order.get(passed).copied()
        {
            match self.request(slot).map(&mut wanted) {
                Some(Verdict::Stop) => break,
                Some(Verdict::Pass) => {
                    passed += 1;
                    continue;
                }
                Some(Verdict::Serve { .. } | Verdict::Drop) => drop(self.remove(slot, fair)),
                // It has left meanwhile.
                None => {}
            }
            in_order.remove(passed);
        }
        in_order
    }

    /// The line that is served next: of the highest class, whose tenant is behind the others, the
    /// earliest of several. Lines that are empty meanwhile do not count.
    fn first(&self, fair: &Fair) -> Option<usize> {
        // Nearly always there is one, and nothing to compare.
        if self.lines.len() == 1 {
            return (!self.lines[0].queue.is_empty()).then_some(0);
        }
        let lines = self.lines.iter().enumerate();
        let mut lines = lines.filter(|(_, line)| !line.queue.is_empty());
        let (first, highest) = lines.next()?;
        let urgency = |line: &Line| {
            (
                fair.clock((line.class, line.tenant)),
                line.queue.earliest_deadline(),
            )
        };
        let others = lines.take_while(|(_, line)| line.class == highest.class);
        let best = (urgency(highest), first);
        let all = others.map(|(at, line)| (urgency(line), at));
        Some(all.fold(best, Ord::min).1)
    }

    /// Of a class, the line with most rows for its tenant's weight.
    fn longest(&self, class: Criticality, fair: &Fair) -> Option<usize> {
        let lines = self.lines.iter().enumerate();
        let of_class = lines.filter(|(_, line)| line.class == class);
        let longest = of_class.max_by_key(|(_, line)| line.rows / fair.weight(line.tenant));
        longest.map(|(at, _)| at)
    }

    fn place(&self, class: Criticality, tenant: TenantId) -> Result<usize, usize> {
        self.lines
            .binary_search_by_key(&(class, tenant), |line| (line.class, line.tenant))
    }

    /// The line of a tenant in a class, which may be a new one.
    fn line(&mut self, class: Criticality, tenant: TenantId) -> usize {
        self.place(class, tenant).unwrap_or_else(|place| {
            let line = Line {
                class,
                tenant,
                rows: 0,
                size: 0,
                queue: self.spare.pop().unwrap_or_default(),
            };
            self.lines.insert(place, line);
            place
        })
    }

    fn take_out(
        &mut self,
        at: usize,
        fair: &mut Fair,
        take: impl FnOnce(&mut DeadlineQueue, &mut Positions) -> Option<Entry>,
    ) -> Option<RequestMeta> {
        let line = self.lines.get_mut(at)?;
        let Entry { request, .. } = take(&mut line.queue, &mut self.positions)?;
        line.rows -= u64::from(request.rows);
        line.size -= u64::from(self.measure.of(&request));
        fair.leave((request.criticality, request.tenant));
        self.drop_if_empty(at);
        Some(request)
    }

    fn drop_if_empty(&mut self, line: usize) -> bool {
        let is_empty = self.lines[line].queue.is_empty();
        if is_empty {
            let line = self.lines.remove(line);
            if self.spare.len() < SPARE_MAX {
                self.spare.push(line.queue);
            }
        }
        is_empty
    }
}

/// Empty lines that are kept: as many as come and go at a time where a few tenants are busy.
const SPARE_MAX: usize = 16;
