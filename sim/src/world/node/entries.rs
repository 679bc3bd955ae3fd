//! Requests that came to this node: let in, pinned, tried, told how they ended.
//!
//! The twin of `node/src/gateway/infer`: `execute` and `part` there.

use std::sync::Arc;

use paceline_core::failover::{Attempt, Ending, Failover, Next, Terms};
use paceline_core::router::Been;
use paceline_core::{Instant, Machine, Slot, admission};
use paceline_protocol::frame::Execution;
use paceline_protocol::limits::{EXECUTIONS_MAX, REROUTES_MAX};
use paceline_protocol::{Epoch, TenantId, VersionNumber};

use super::Node;
use super::canaries::Arm;
use super::copies::ToCopy;
use super::flights::Sent;
use super::knowledge::node_id;
use crate::agenda::Timer;
use crate::fact::{End, Fact};
use crate::planted::Planted;
use crate::world::outside::Outside;
use crate::world::request::Request;

/// A request that was let in here.
pub(super) struct Entry {
    pub(super) request: Request,
    /// Who it was let in for.
    pub(super) tenant: TenantId,
    pub(super) pinned: Pinned,
    pub(super) failover: Failover,
    pub(super) been: Been,
    /// By place.
    pub(super) flights: [Option<Sent>; EXECUTIONS_MAX],
    /// What was heard last, or what came of what ran.
    pub(super) end: Option<End>,
    pub(super) has_run: bool,
    /// Whether its end is watched by a timer of its own.
    pub(super) is_watched: bool,
    /// How long it had waited for its batch, once it has run.
    pub(super) waited_nanos: Option<u64>,
    /// The shadow that gets a copy of it once it is answered.
    shadow: Option<VersionNumber>,
    /// How often it was pinned.
    pins: u8,
    arrived: Instant,
}

/// What a request is pinned to.
#[derive(Clone, Copy)]
pub(super) struct Pinned {
    pub(super) version: (u16, VersionNumber),
    pub(super) epoch: Epoch,
    /// Where it is counted while a canary is under way.
    arm: Option<Arm>,
}

impl Entry {
    /// The copy of it, if it is copied.
    pub(super) fn copy(&self, attempt: Attempt) -> Option<ToCopy> {
        let (request, version) = (self.request, self.shadow?);
        Some(ToCopy {
            request,
            version: (request.model, version),
            attempt,
        })
    }
}

impl Node {
    /// A request comes to a node that has seen what its client has.
    pub(super) fn let_in(&mut self, outside: &mut Outside, request: Request) {
        let Some(pinned) = self.pin(&request) else {
            self.refuse(outside, request, End::NotReady);
            return;
        };
        // Who has lost another node, or was sent on, was counted there.
        if request.lost.is_none() && request.via.is_none() {
            self.split(outside, request.model, pinned.arm);
        }
        let deadline = request.deadline;
        let tenant = self.tenant(outside, request.tenant);
        let input = admission::Input::Arrive {
            deadline,
            criticality: request.criticality,
            tenant,
            in_parts: false,
        };
        self.admission
            .step(outside.now, input, &mut self.admission_effects);
        let refusal = self.admission_effects.drain(..).find_map(|effect| {
            let why = match effect {
                admission::Effect::Admit => return None,
                admission::Effect::Refuse(why) => why,
                admission::Effect::Seen { .. } => return None,
            };
            Some(match why {
                admission::Refusal::Expired => End::Expired,
                admission::Refusal::Overloaded { retry_after: _ } => End::Overloaded,
                admission::Refusal::Limited { .. } => End::Limited,
            })
        });
        if let Some(end) = refusal {
            self.refuse(outside, request, end);
            return;
        }
        let (number, process) = (request.number, self.process);
        outside.record(&Fact::Admitted {
            request: number,
            process,
            is_second: request.lost.is_some(),
            via: request.via,
        });
        let shadow = self.draw(outside, &request, pinned);
        let (failover, first) = Failover::begin(terms(request, tenant));
        let mut been = Been::default();
        if let Some(lost) = request.lost {
            been.to(node_id(lost));
        }
        let slot = self.entries.insert(|_| Entry {
            request,
            tenant,
            pinned,
            failover,
            been,
            flights: [None; EXECUTIONS_MAX],
            end: None,
            has_run: false,
            is_watched: false,
            waited_nanos: None,
            shadow,
            pins: 1,
            arrived: outside.now,
        });
        self.go(outside, slot, first);
    }

    /// The client of a request has gone, or has its answer from elsewhere.
    pub(in crate::world) fn hang_up(&mut self, outside: &mut Outside, request: Request) {
        self.forget_ahead(outside, request);
        let is_it = |entry: &Entry| {
            (entry.request.number, entry.request.via) == (request.number, request.via)
        };
        for slot in self.entries.find(is_it) {
            self.leave(outside, slot, None);
        }
    }

    /// The time of a request is over.
    pub(super) fn late(&mut self, outside: &mut Outside, slot: Slot) {
        if self.entries.get(slot).is_some() {
            self.leave(outside, slot, Some(End::Expired));
        }
    }

    /// Does what follows the end of an attempt, until something must be waited for.
    pub(super) fn go(&mut self, outside: &mut Outside, slot: Slot, mut next: Next) {
        self.is_settled = false;
        loop {
            match next {
                Next::Send {
                    attempt,
                    is_alone,
                    why,
                } => match self.send_anywhere(outside, slot, (attempt, is_alone, why)) {
                    Ok(()) => return,
                    Err(end) => next = self.ended(outside, (slot, attempt), end),
                },
                Next::Wait { attempt, until } => {
                    self.watch(outside, slot);
                    self.waiting.push((slot, attempt));
                    let after = until.nanos_since(outside.now);
                    outside.plan(self.process, after, Timer::Patience(slot, attempt));
                    return;
                }
                Next::Queue => {
                    self.watch(outside, slot);
                    self.queueing.push(slot);
                    return;
                }
                Next::Listen => {
                    self.watch(outside, slot);
                    return;
                }
                Next::End(ending) => {
                    let Some(again) = self.finish(outside, slot, ending) else {
                        return;
                    };
                    next = again;
                }
            }
        }
    }

    /// Goes on with a request that has waited for a replica.
    pub(super) fn resume(&mut self, outside: &mut Outside, waiting: (Slot, Attempt)) {
        let Some(position) = self.waiting.iter().position(|other| *other == waiting) else {
            return;
        };
        self.waiting.remove(position);
        let (slot, attempt) = waiting;
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        entry.been = Been::default();
        let next = entry.failover.resume(outside.now, attempt);
        self.go(outside, slot, next);
    }

    /// Goes on with requests that wait for a replica, since one may be ready now.
    pub(super) fn resume_all(&mut self, outside: &mut Outside) {
        for waiting in self.waiting.clone() {
            self.resume(outside, waiting);
        }
    }

    /// Goes on with requests that wait for their turn to fail over.
    pub(super) fn take_turns(&mut self, outside: &mut Outside) {
        for slot in std::mem::take(&mut self.queueing) {
            let Some(entry) = self.entries.get(slot) else {
                continue;
            };
            self.budget.set_active(self.admission.in_flight());
            let next = entry.failover.again(outside.now, &mut self.budget);
            self.go(outside, slot, next);
        }
    }

    /// Ends a request, or pins it anew if its version is gone and nothing of it ran.
    fn finish(&mut self, outside: &mut Outside, slot: Slot, ending: Ending) -> Option<Next> {
        let entry = self.entries.get(slot)?;
        let end = match ending {
            Ending::AsItIs => entry.end.unwrap_or(End::NotReady),
            Ending::Unknown => End::Unreachable,
            Ending::Poison => End::Poison,
            Ending::Late => End::Expired,
            Ending::Gone if entry.pins > REROUTES_MAX => End::Gone,
            Ending::Gone => {
                let (request, pins) = (entry.request, entry.pins + 1);
                let Some(pinned) = self.pin(&request) else {
                    self.leave(outside, slot, Some(End::Gone));
                    return None;
                };
                let entry = self.entries.get(slot)?;
                let (failover, first) = Failover::begin(terms(request, entry.tenant));
                entry.failover.close(&mut self.budget);
                (entry.pinned, entry.failover, entry.pins) = (pinned, failover, pins);
                entry.been = Been::default();
                outside.record(&Fact::SentAgain);
                return Some(first);
            }
        };
        self.leave(outside, slot, Some(end));
        None
    }

    /// Lets go of a request; tells its client, unless that has gone.
    pub(super) fn leave(&mut self, outside: &mut Outside, slot: Slot, end: Option<End>) {
        self.is_settled = false;
        let Some(mut entry) = self.entries.remove(slot) else {
            return;
        };
        self.waiting.retain(|(other, _)| *other != slot);
        self.queueing.retain(|other| *other != slot);
        let is_unexecuted = entry.failover.execution() == Execution::NotExecuted;
        entry.failover.close(&mut self.budget);
        let (request, process) = (entry.request.number, self.process);
        for sent in entry.flights.into_iter().flatten() {
            self.abandon(outside, (slot, sent), entry.request.rows);
        }
        let via = entry.request.via;
        outside.record(&Fact::Left {
            request,
            process,
            via,
        });
        if let Some(end) = end {
            if let Some(arm) = entry.pinned.arm {
                let nanos = outside.now.nanos_since(entry.arrived);
                self.count(entry.request.model, arm, (end, nanos));
            }
            if end != End::Answered && is_unexecuted {
                outside.record(&Fact::Disclaimed { request, process });
            }
            self.report(outside, entry.request, end, entry.pinned.epoch);
        }
        self.finishes += 1;
        let is_lost = outside.planted == Some(Planted::LostPermit) && self.finishes == PLANTED_AT;
        if !is_lost {
            let tenant = entry.tenant;
            let took_nanos = outside.now.nanos_since(entry.arrived);
            let times = entry.waited_nanos.map(|waited_nanos| admission::Times {
                waited_nanos,
                rest_nanos: took_nanos.saturating_sub(waited_nanos),
            });
            let finish = admission::Input::Finish {
                tenant,
                in_parts: false,
                times,
            };
            self.admission
                .step(outside.now, finish, &mut self.admission_effects);
        }
        self.take_turns(outside);
    }

    /// A request that waits for anything but this node's device needs a timer of its own.
    pub(super) fn watch(&mut self, outside: &mut Outside, slot: Slot) {
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        if !std::mem::replace(&mut entry.is_watched, true) {
            let deadline = entry.request.deadline;
            let at = self.timer_at(outside, deadline);
            let after = at.nanos_since(outside.now);
            outside.plan(self.process, after, Timer::Deadline(slot));
        }
    }

    /// When a timer that was set for `at` fires.
    pub(super) fn timer_at(&self, outside: &Outside, at: Instant) -> Instant {
        let is_late = outside.planted == Some(Planted::LateTimer);
        at.plus_nanos(u64::from(is_late) * 1_000_000)
    }

    pub(super) fn pin(&self, request: &Request) -> Option<Pinned> {
        let registry = Arc::clone(self.knowledge.registry());
        let serving = self.knowledge.serving(request.model)?;
        let (tried, arm) = self.tries(request);
        Some(Pinned {
            version: (request.model, tried.unwrap_or(serving)),
            epoch: registry.epoch(),
            arm,
        })
    }

    pub(super) fn refuse(&self, outside: &mut Outside, request: Request, end: End) {
        self.report(outside, request, end, self.epoch());
    }
}

fn terms(request: Request, tenant: TenantId) -> Terms {
    Terms {
        deadline: request.deadline,
        is_idempotent: !request.is_once,
        is_second: request.lost.is_some(),
        lost: request.lost.map(node_id),
        criticality: request.criticality,
        tenant,
        sequence: request.in_sequence(),
    }
}

/// Which permit, batch or request a planted bug meets: late enough that the run is going.
pub(super) const PLANTED_AT: u64 = 1_000;
