//! The attempts of a request: sent to a replica here or elsewhere, and how they land.
//!
//! The twin of `node/src/gateway/infer/flight.rs`.

use paceline_core::device::BatcherId;
use paceline_core::failover::{self, Attempt, Next, Why};
use paceline_core::router::{self, Again, Heard, Report, RouteId};
use paceline_core::{Instant, Machine, Slot};
use paceline_protocol::{NodeId, ReplicaId};

use super::Node;
use super::entries::Pinned;
use super::knowledge::node_index;
use crate::agenda::Process;
use crate::fact::{End, Fact};
use crate::message::{Dispatch, Flight, Landing, Message};
use crate::world::outside::Outside;

/// An attempt that is under way.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) attempt: Attempt,
    /// Whom it was sent to.
    pub(super) to: Process,
    pub(super) route: RouteId,
    pub(super) replica: ReplicaId,
    pub(super) at: Instant,
}

impl Sent {
    /// What an answer says that came now to this process.
    pub(super) fn report(&self, report: Report, (now, process): (Instant, Process)) -> Report {
        let took = now.nanos_since(self.at);
        Report {
            rest_nanos: match self.to == process {
                true => report.rest_nanos,
                false => took.saturating_sub(report.row_nanos),
            },
            ..report
        }
    }
}

impl Node {
    /// Sends a request to a replica, or says what it means that there is none to be had.
    pub(super) fn send_anywhere(
        &mut self,
        outside: &mut Outside,
        slot: Slot,
        (attempt, is_alone, why): (Attempt, bool, Why),
    ) -> Result<(), failover::End> {
        let Some(entry) = self.entries.get(slot) else {
            return Ok(());
        };
        let (pinned, been, request) = (entry.pinned, entry.been, entry.request);
        let tenant = entry.tenant;
        self.refresh(outside, pinned.version);
        let route = outside.route(pinned.version);
        let again = Again { been, is_alone };
        let pick = router::Input::Pick {
            route,
            slot,
            rows: request.rows,
            bytes: request.bytes,
            may_probe: !request.is_once,
            again: (again != Again::default()).then(|| Box::new(again)),
            sequence: request.in_sequence(),
        };
        self.router
            .step(outside.now, pick, &mut self.router_effects);
        let picked = self.router_effects.pop();
        let Some(router::Effect::Dispatch {
            replica,
            node,
            local,
            ..
        }) = picked
        else {
            return Err(self.without_replica(outside, pinned));
        };
        match why {
            Why::First => {}
            Why::Reroute | Why::Retry => outside.record(&Fact::SentAgain),
            Why::Failover => outside.record(&Fact::FailedOver),
        }
        if let Some(sequence) = request.sequence {
            outside.record(&Fact::Sequenced { sequence, replica });
        }
        let to = self.process_of(node);
        let sent = Sent {
            attempt,
            to,
            route,
            replica,
            at: outside.now,
        };
        if let Some(entry) = self.entries.get(slot) {
            entry.been.to(node);
            entry.flights[attempt.place()] = Some(sent);
        }
        let dispatch = Dispatch {
            flight: Flight {
                from: self.process,
                slot,
                attempt,
                is_copy: false,
            },
            request: request.number,
            replica,
            version: pinned.version,
            deadline: request.deadline,
            rows: request.rows,
            tokens: request.tokens,
            bytes: request.bytes,
            bucket: request.bucket,
            criticality: request.criticality,
            tenant,
            is_alone,
        };
        self.dispatch(outside, (to, local), dispatch);
        Ok(())
    }

    /// What it means that no replica can be had: whether one is expected.
    fn without_replica(&self, outside: &Outside, pinned: Pinned) -> failover::End {
        let (model, version) = pinned.version;
        match self.knowledge.serving(model) {
            Some(serving) if serving == version => {
                let since = self.knowledge.bare_since(pinned.version);
                let since = since.unwrap_or(outside.now);
                failover::End::NotYet { since }
            }
            _ => failover::End::Nowhere,
        }
    }

    /// The process that a node was last heard as.
    pub(super) fn process_of(&self, node: NodeId) -> Process {
        let known = self.peers.process_of(node);
        known.unwrap_or(Process {
            node: node_index(node),
            ..self.process
        })
    }

    pub(super) fn dispatch(
        &mut self,
        outside: &mut Outside,
        (to, local): (Process, Option<BatcherId>),
        dispatch: Dispatch,
    ) {
        if local.is_some() {
            self.take(outside, dispatch);
            return;
        }
        if !dispatch.flight.is_copy {
            self.watch(outside, dispatch.flight.slot);
        }
        let message = Message::Dispatch(dispatch);
        outside.send(self.index(), to, dispatch.bytes, message);
    }

    /// An attempt has ended.
    pub(super) fn landed(&mut self, outside: &mut Outside, flight: Flight, landing: Landing) {
        let Flight { slot, attempt, .. } = flight;
        if flight.is_copy {
            self.copy_landed(outside, slot, landing);
            return;
        }
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        let flight = entry.flights[attempt.place()];
        let Some(sent) = flight.filter(|sent| sent.attempt == attempt) else {
            return;
        };
        let rows = entry.request.rows;
        let end = match landing {
            Landing::Answered(report, waited) => {
                entry.waited_nanos = Some(waited);
                let report = sent.report(report, (outside.now, self.process));
                entry.flights[attempt.place()] = None;
                let copied = entry.copy(attempt);
                self.done(outside, (sent, rows), Heard::Answer(report));
                self.leave(outside, slot, Some(End::Answered));
                if let Some(copied) = copied {
                    self.copy(outside, copied);
                }
                return;
            }
            Landing::Missed(end) => end,
            Landing::Gone(_epoch) => failover::End::Gone,
        };
        self.missed(outside, (slot, attempt), end);
    }

    /// An attempt has ended without an answer, or its node has fallen silent.
    pub(super) fn missed(
        &mut self,
        outside: &mut Outside,
        (slot, attempt): (Slot, Attempt),
        end: failover::End,
    ) {
        use failover::End as F;
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        let rows = entry.request.rows;
        if end != F::Suspect {
            let sent = entry.flights[attempt.place()].take();
            if let Some(sent) = sent {
                let heard = match end.is_replicas_fault() {
                    true => Heard::Fault,
                    false => Heard::Nothing,
                };
                self.done(outside, (sent, rows), heard);
            }
        }
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        let has_run = matches!(end, F::Passing | F::Died | F::Failed | F::Left);
        if has_run || !entry.has_run {
            entry.end = Some(told_as(end));
        }
        entry.has_run |= has_run;
        let next = self.ended(outside, (slot, attempt), end);
        self.go(outside, slot, next);
    }

    /// What follows the end of an attempt.
    pub(super) fn ended(
        &mut self,
        outside: &Outside,
        (slot, attempt): (Slot, Attempt),
        end: failover::End,
    ) -> Next {
        self.budget.set_active(self.admission.in_flight());
        match self.entries.get(slot) {
            Some(entry) => entry
                .failover
                .ended(outside.now, attempt, end, &mut self.budget),
            None => Next::Listen,
        }
    }

    /// A peer is suspect, or lost: what is under way there is told so.
    pub(super) fn unheard(&mut self, outside: &mut Outside, node: NodeId, end: failover::End) {
        let process = self.process_of(node);
        self.unheard_process(outside, process, end);
    }

    pub(super) fn unheard_process(
        &mut self,
        outside: &mut Outside,
        process: Process,
        end: failover::End,
    ) {
        self.unheard_ahead(outside, process, end);
        self.unheard_copies(outside, process);
        let is_there = |sent: &Sent| sent.to == process;
        let found = self
            .entries
            .find(|entry| entry.flights.iter().flatten().any(is_there));
        for slot in found {
            let Some(entry) = self.entries.get(slot) else {
                continue;
            };
            let mut flights = entry.flights.iter().flatten();
            let attempt = flights.find(|sent| is_there(sent)).map(|sent| sent.attempt);
            if let Some(attempt) = attempt {
                self.missed(outside, (slot, attempt), end);
            }
        }
    }

    /// An attempt is not waited for any more.
    pub(super) fn abandon(&mut self, outside: &mut Outside, (slot, sent): (Slot, Sent), rows: u32) {
        let flight = Flight {
            from: self.process,
            slot,
            attempt: sent.attempt,
            is_copy: false,
        };
        if sent.to == self.process {
            self.cancel_served(outside, flight);
        } else {
            outside.send(self.index(), sent.to, 0, Message::Cancel(flight));
        }
        self.done(outside, (sent, rows), Heard::Nothing);
    }

    pub(super) fn done(&mut self, outside: &mut Outside, (sent, rows): (Sent, u32), heard: Heard) {
        let done = router::Input::Done {
            route: sent.route,
            replica: sent.replica,
            rows,
            heard,
        };
        self.router
            .step(outside.now, done, &mut self.router_effects);
        for effect in self.router_effects.drain(..) {
            match effect {
                router::Effect::Ejected { .. } => outside.record(&Fact::Ejected),
                router::Effect::Back { .. } => {}
                router::Effect::Dispatch { .. } | router::Effect::NoReplica { .. } => {
                    unreachable!("an end asks for no replica")
                }
            }
        }
    }
}

/// What a client is told of an attempt that was the last.
fn told_as(end: failover::End) -> End {
    use failover::End as F;
    match end {
        F::Gone | F::Nowhere => End::Gone,
        F::NotYet { .. } => End::NotReady,
        F::Overloaded => End::QueueFull,
        F::Refused => End::Late,
        F::Passing | F::Died | F::Failed | F::Left => End::Failed,
        F::Suspect | F::Lost => End::Unreachable,
        F::Late => End::Expired,
    }
}
