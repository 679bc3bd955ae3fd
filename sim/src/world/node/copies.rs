//! Copies of requests for shadows: drawn when a request is let in, sent when it was answered.
//!
//! The twin of `node/src/gateway/infer/shadow.rs`.

use paceline_core::failover::Attempt;
use paceline_core::router::{self, Heard};
use paceline_core::shadow::{Choice, Offer, choose};
use paceline_core::{Machine, Slot};
use paceline_protocol::limits::SHADOW_COPIES_MAX;
use paceline_protocol::{Criticality, TenantId, VersionNumber};

use super::Node;
use super::entries::Pinned;
use super::flights::Sent;
use crate::agenda::{Process, Timer};
use crate::fact::{CopyEnd, Fact};
use crate::message::{Dispatch, Flight, Landing, Message};
use crate::world::Request;
use crate::world::outside::Outside;

/// A copy that is under way.
pub(super) struct Copied {
    sent: Sent,
    rows: u32,
}

/// A copy that is to be sent.
pub(super) struct ToCopy {
    pub(super) request: Request,
    pub(super) version: (u16, VersionNumber),
    /// That of the request: a copy has no other.
    pub(super) attempt: Attempt,
}

impl Node {
    /// The shadow that gets a copy of a request, if one does. Only what the version answers that
    /// serves is copied.
    pub(super) fn draw(
        &self,
        outside: &mut Outside,
        request: &Request,
        pinned: Pinned,
    ) -> Option<VersionNumber> {
        let shade = self.knowledge.shadow(request.model)?;
        let is_of_serving = self.knowledge.serving(request.model) == Some(pinned.version.1);
        if !is_of_serving || request.is_once {
            return None;
        }
        let offer = Offer {
            weight: shade.weight,
            is_ready: self.knowledge.is_routed((request.model, shade.version)),
        };
        match choose(offer, || request.bucket_under(&shade.salt)) {
            Choice::Alone => None,
            Choice::Copied => Some(shade.version),
            Choice::Dropped(_) => {
                outside.record(&Fact::Copied(CopyEnd::Dropped));
                None
            }
        }
    }

    /// Sends a copy of a request that was answered, if there is a place for one.
    pub(super) fn copy(&mut self, outside: &mut Outside, to: ToCopy) {
        let ToCopy {
            request,
            version,
            attempt,
        } = to;
        let fits = request.rows <= outside.version(version).rows_max;
        if !fits || self.copies.len() >= SHADOW_COPIES_MAX {
            outside.record(&Fact::Copied(CopyEnd::Dropped));
            return;
        }
        outside.record(&Fact::Copied(CopyEnd::Sent));
        self.refresh(outside, version);
        let route = outside.route(version);
        let pick = router::Input::Pick {
            route,
            slot: Slot {
                index: 0,
                generation: 0,
            },
            rows: request.rows,
            bytes: request.bytes,
            may_probe: true,
            again: None,
            sequence: None,
        };
        self.router
            .step(outside.now, pick, &mut self.router_effects);
        let Some(router::Effect::Dispatch {
            replica,
            node,
            local,
            ..
        }) = self.router_effects.pop()
        else {
            outside.record(&Fact::Copied(CopyEnd::Failed));
            return;
        };
        self.is_settled = false;
        let to = self.process_of(node);
        let sent = Sent {
            attempt,
            to,
            route,
            replica,
            at: outside.now,
        };
        let rows = request.rows;
        let slot = self.copies.insert(|_| Copied { sent, rows });
        let at = self.timer_at(outside, request.deadline);
        let after = at.nanos_since(outside.now);
        outside.plan(self.process, after, Timer::Copy(slot));
        let dispatch = Dispatch {
            flight: self.copy_flight(slot, attempt),
            request: request.number,
            replica,
            version,
            deadline: request.deadline,
            rows,
            tokens: request.tokens,
            bytes: request.bytes,
            bucket: request.bucket,
            criticality: Criticality::Sheddable,
            tenant: TenantId::SHADOWS,
            is_alone: false,
        };
        self.dispatch(outside, (to, local), dispatch);
    }

    /// A copy has ended where it was sent.
    pub(super) fn copy_landed(&mut self, outside: &mut Outside, slot: Slot, landing: Landing) {
        let Some(Copied { sent, rows }) = self.copies.remove(slot) else {
            return;
        };
        self.is_settled = false;
        let (heard, end) = match landing {
            Landing::Answered(report, _waited) => {
                let report = sent.report(report, (outside.now, self.process));
                (Heard::Answer(report), CopyEnd::Answered)
            }
            Landing::Missed(end) if end.is_replicas_fault() => (Heard::Fault, CopyEnd::Failed),
            Landing::Missed(_) | Landing::Gone(_) => (Heard::Nothing, CopyEnd::Failed),
        };
        outside.record(&Fact::Copied(end));
        self.done(outside, (sent, rows), heard);
    }

    /// The time of a copy is over.
    pub(super) fn copy_late(&mut self, outside: &mut Outside, slot: Slot) {
        let Some(Copied { sent, rows }) = self.copies.remove(slot) else {
            return;
        };
        self.is_settled = false;
        outside.record(&Fact::Copied(CopyEnd::Failed));
        let flight = self.copy_flight(slot, sent.attempt);
        if sent.to == self.process {
            self.cancel_served(outside, flight);
        } else {
            outside.send(self.index(), sent.to, 0, Message::Cancel(flight));
        }
        self.done(outside, (sent, rows), Heard::Nothing);
    }

    /// A process is silent: nobody waits for copies that are there.
    pub(super) fn unheard_copies(&mut self, outside: &mut Outside, process: Process) {
        for slot in self.copies.find(|copied| copied.sent.to == process) {
            self.copy_late(outside, slot);
        }
    }

    fn copy_flight(&self, slot: Slot, attempt: Attempt) -> Flight {
        Flight {
            from: self.process,
            slot,
            attempt,
            is_copy: true,
        }
    }
}
