//! Clients: what they send, to whom, and what they do when a node says nothing.
//!
//! As the SDK does: a client that hears nothing of its node for 300 ms asks another one, once,
//! unless its request must not run twice; the first answer wins.

use paceline_core::{BucketId, Instant, Random};
use paceline_protocol::Epoch;
use paceline_protocol::traffic::{Sequence, Unit};

use super::doors::{Door, ReadyDoors};
use super::outside::{Outside, Word};
use super::request::Request;
use crate::agenda::{Event, Process};
use crate::draws;
use crate::fact::{End, Fact, RequestNumber};
use crate::traces::Traces;
use crate::workload::{Sender, Sending};

/// All clients of a run.
pub(super) struct Clients {
    sent: Vec<Sent>,
    groups: Vec<Group>,
    doors: Random,
}

/// A group of clients: what it sends next, and its chance.
struct Group {
    model: u16,
    /// The highest epoch that an answer has named.
    seen: Epoch,
    sender: Sender,
    /// Which of the scenario's tenants each of the sender's is, if any.
    tenants: Vec<Option<u16>>,
    next: Option<Sending>,
    budgets: Random,
    hangups: Random,
    again: Random,
}

/// A request as its client knows it.
struct Sent {
    request: Request,
    door: Option<Process>,
    second: Option<Process>,
    /// A node that did nothing, since it was behind what the client has seen.
    behind: Option<Process>,
    has_ended: bool,
}

/// What follows from what a client was told.
pub(super) enum Next {
    /// The answer of this node is not waited for any more.
    Withdraw(Process),
    /// Another node is asked.
    Elsewhere,
}

impl Clients {
    /// The clients of a scenario that was checked, with the traces that it names.
    pub(super) fn new(outside: &mut Outside, traces: &Traces, seed: u64) -> Self {
        let scenario = outside.scenario.clone();
        let mut seeds = Random::stream(seed, "clients");
        let groups = scenario
            .clients
            .iter()
            .enumerate()
            .filter_map(|(position, of)| {
                let mut sender =
                    Sender::new(&of.workload, seeds.next_u64(), traces.of(position)).ok()?;
                let next = sender.next();
                let from = Instant::from_nanos(of.from_ms * 1_000_000);
                if let Some(next) = next {
                    let first = from.plus_nanos(next.at_nanos);
                    outside.agenda.plan(first, Event::Arrival(position as u16));
                }
                let stream = |what: &str| Random::stream(seed, &format!("{what} {position}"));
                let model = scenario.models.iter().position(|m| m.name == of.model);
                let place = |name: &str| {
                    let mut tenants = scenario.tenants.iter();
                    tenants.position(|tenant| tenant.name == name)
                };
                let named = sender.tenants().iter();
                let named = named.map(|name| place(of.tenant.as_deref().unwrap_or(name)));
                let tenants = named.map(|place| place.map(|place| place as u16)).collect();
                Some(Group {
                    model: model.unwrap_or_default() as u16,
                    seen: Epoch::default(),
                    sender,
                    tenants,
                    next,
                    budgets: stream("budgets"),
                    hangups: stream("hangups"),
                    again: stream("again"),
                })
            });
        Self {
            groups: groups.collect(),
            sent: Vec::new(),
            doors: Random::stream(seed, "doors"),
        }
    }

    /// Requests so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// A client sends a request, and the next one of its group is planned.
    pub(super) fn arrive(&mut self, outside: &mut Outside, group: u16) -> Option<RequestNumber> {
        let scenario = outside.scenario.clone();
        let of = &scenario.clients[usize::from(group)];
        let clients = &mut self.groups[usize::from(group)];
        let sending = clients.next.take()?;
        clients.next = clients.sender.next();
        if let Some(next) = clients.next {
            let from = Instant::from_nanos(of.from_ms * 1_000_000);
            let at = from.plus_nanos(next.at_nanos);
            outside.agenda.plan(at, Event::Arrival(group));
        }
        let drawn = u64::from(sending.rows) * of.row_bytes;
        let request = Request {
            number: RequestNumber(0),
            group,
            model: clients.model,
            deadline: outside.now,
            rows: sending.rows,
            tokens: u64::from(sending.tokens) + u64::from(sending.tokens_out),
            bytes: match sending.bytes {
                0 => drawn,
                bytes => u64::from(bytes),
            },
            bucket: BucketId(clients.budgets.below(of.shapes)),
            criticality: of.criticality,
            tenant: clients.tenants[sending.tenant as usize],
            is_once: sending.sequence.is_some() || clients.budgets.below(1_000) < of.once_permille,
            sequence: sending.sequence.map(|number| {
                let name = Unit::new(format!("{group}-{number}"));
                Sequence::named(&name.expect("two numbers are a unit"))
            }),
            lost: None,
            seen: Epoch::default(),
            via: None,
        };
        Some(self.submit(outside, request))
    }

    /// A client sends a request again that was refused: as a new one.
    pub(super) fn send_again(
        &mut self,
        outside: &mut Outside,
        number: RequestNumber,
    ) -> RequestNumber {
        let request = self.sent[number.0 as usize].request;
        self.submit(outside, request)
    }

    fn submit(&mut self, outside: &mut Outside, request: Request) -> RequestNumber {
        let scenario = outside.scenario.clone();
        let of = &scenario.clients[usize::from(request.group)];
        let clients = &mut self.groups[usize::from(request.group)];
        let budget_us = draws::between(&mut clients.budgets, of.budget_min_us, of.budget_max_us);
        let number = RequestNumber(self.sent.len() as u32);
        let request = Request {
            number,
            deadline: outside.now.plus_nanos(budget_us * 1_000),
            ..request
        };
        self.sent.push(Sent {
            request,
            door: None,
            second: None,
            behind: None,
            has_ended: false,
        });
        outside.record(&Fact::Submitted {
            request: number,
            deadline: request.deadline,
            is_once: request.is_once,
            client: request.group,
        });
        if clients.hangups.below(1_000) < of.cancel_permille {
            let after = clients.hangups.below(budget_us * 1_000);
            let at = outside.now.plus_nanos(after);
            outside.agenda.plan(at, Event::Hangup(number));
        }
        number
    }

    /// Where a request goes to, and as what; `None` if no node is believed to be well. If none is
    /// ready, those will do that are not known to be silent.
    pub(super) fn door(
        &mut self,
        outside: &mut Outside,
        number: RequestNumber,
        (ready, all): (&ReadyDoors, impl FnOnce() -> Vec<Door>),
    ) -> Option<(Process, Request)> {
        let sent = &self.sent[number.0 as usize];
        let (first, avoided) = (sent.door, sent.door.or(sent.behind));
        let door = match ready.pick(&mut self.doors, avoided) {
            Some(process) => Door {
                process,
                silent_since: None,
            },
            None => {
                let mut well = all();
                well.retain(|door| {
                    let since = door.silent_since;
                    let silence = since.map(|since| outside.now.nanos_since(since));
                    silence.is_none_or(|nanos| nanos < SUSPECT_NANOS)
                        && Some(door.process) != avoided
                });
                if well.is_empty() {
                    return None;
                }
                well[self.doors.below(well.len() as u64) as usize]
            }
        };
        let sent = &mut self.sent[number.0 as usize];
        match first {
            None => sent.door = Some(door.process),
            Some(_) => sent.second = Some(door.process),
        }
        if door.silent_since.is_some() {
            self.wait_in_silence(outside, number, door.process);
        }
        let lost = first.map(|process| process.node);
        let request = self.sent[number.0 as usize].request;
        let seen = self.groups[usize::from(request.group)].seen;
        let request = Request {
            lost,
            seen,
            ..request
        };
        Some((door.process, request))
    }

    /// A node has fallen silent: those who wait for it notice.
    pub(super) fn silenced(&mut self, outside: &mut Outside, process: Process) {
        let waits = |sent: &Sent| {
            !sent.has_ended && (sent.door == Some(process) || sent.second == Some(process))
        };
        let waiting: Vec<RequestNumber> = self
            .sent
            .iter()
            .filter(|sent| waits(sent))
            .map(|sent| sent.request.number)
            .collect();
        for number in waiting {
            self.wait_in_silence(outside, number, process);
        }
    }

    fn wait_in_silence(&self, outside: &mut Outside, number: RequestNumber, process: Process) {
        let at = outside.now.plus_nanos(SUSPECT_NANOS);
        outside.agenda.plan(at, Event::Silence(number, process));
        let deadline = self.sent[number.0 as usize].request.deadline;
        outside.agenda.plan(deadline, Event::Impatience(number));
    }

    /// A client has heard nothing of its node for long. Returns whether it asks another one.
    pub(super) fn suspects(
        &mut self,
        outside: &mut Outside,
        (number, process): (RequestNumber, Process),
        is_dead: bool,
    ) -> bool {
        let sent = &self.sent[number.0 as usize];
        if sent.has_ended {
            return false;
        }
        let may_ask = sent.second.is_none() && sent.door == Some(process) && !sent.request.is_once;
        if !may_ask && is_dead {
            // It is not heard of any more, and nobody else was asked or may be.
            let other = match (sent.door, sent.second) {
                (Some(first), Some(second)) if second == process => Some(first),
                (_, second) => second,
            };
            if other.is_none_or(|other| other == process) {
                self.end(outside, number, (End::Unreachable, Epoch::default()));
            }
        }
        may_ask
    }

    /// Nobody can be asked.
    pub(super) fn nobody(&mut self, outside: &mut Outside, number: RequestNumber) {
        let sent = &self.sent[number.0 as usize];
        if sent.door.is_none() {
            let end = match sent.behind {
                Some(_) => End::Stale,
                None => End::Unreachable,
            };
            self.end(outside, number, (end, Epoch::default()));
        }
    }

    /// A request, as it was sent first.
    pub(super) fn request(&self, number: RequestNumber) -> Request {
        self.sent[number.0 as usize].request
    }

    /// A client has waited as long as it would.
    pub(super) fn impatient(&mut self, outside: &mut Outside, number: RequestNumber) {
        if !self.sent[number.0 as usize].has_ended {
            self.end(outside, number, (End::Expired, Epoch::default()));
        }
    }

    /// A client goes away. Returns whom it had asked.
    pub(super) fn hang_up(&mut self, outside: &mut Outside, number: RequestNumber) -> Vec<Process> {
        let sent = &self.sent[number.0 as usize];
        if sent.has_ended {
            return Vec::new();
        }
        let asked = sent.door.into_iter().chain(sent.second).collect();
        outside.record(&Fact::HungUp { request: number });
        self.end(outside, number, (End::Cancelled, Epoch::default()));
        asked
    }

    /// A node has told a client how its request ended. That it is behind what the client has seen
    /// is no answer to the request, but to where it was sent.
    pub(super) fn told(&mut self, outside: &mut Outside, word: &Word) -> Option<Next> {
        let sent = &mut self.sent[word.request.0 as usize];
        if sent.has_ended {
            return None;
        }
        let other = match sent.second {
            Some(second) if second == word.from => sent.door,
            Some(second) => Some(second),
            None => None,
        };
        // That the first of two has failed ends nothing, while the second may answer.
        if word.end != End::Answered && other.is_some() && sent.second != Some(word.from) {
            return None;
        }
        if word.end == End::Stale && sent.behind.is_none() && sent.second.is_none() {
            (sent.door, sent.behind) = (None, Some(word.from));
            return Some(Next::Elsewhere);
        }
        if word.end == End::Answered {
            let seen = &mut self.groups[usize::from(sent.request.group)].seen;
            *seen = word.epoch.max(*seen);
        }
        self.end(outside, word.request, (word.end, word.epoch));
        other.map(Next::Withdraw)
    }

    fn end(&mut self, outside: &mut Outside, request: RequestNumber, (end, epoch): (End, Epoch)) {
        let sent = &mut self.sent[request.0 as usize];
        sent.has_ended = true;
        let group = sent.request.group;
        outside.record(&Fact::Ended {
            request,
            end,
            epoch,
        });
        let is_refused = matches!(
            end,
            End::Overloaded
                | End::Limited
                | End::QueueFull
                | End::NotReady
                | End::Stale
                | End::Gone
                | End::Unreachable
        );
        let scenario = outside.scenario.clone();
        let of = &scenario.clients[usize::from(group)];
        let chance = &mut self.groups[usize::from(group)].again;
        if is_refused && chance.below(1_000) < of.again_permille {
            let pause_ms = draws::between(chance, 1, of.again_ms);
            let at = outside.now.plus_nanos(pause_ms * 1_000_000);
            outside.agenda.plan(at, Event::Again(request));
        }
    }
}

/// Silence after which a client asks somebody else.
const SUSPECT_NANOS: u64 = 300_000_000;
