//! Clients: what they send, to whom, and what they do when a node says nothing.
//!
//! As the SDK does: a client that hears nothing of its node for 300 ms asks another one, once,
//! unless its request must not run twice; the first answer wins.

use paceline_core::{BucketId, Instant, Random};
use paceline_protocol::Epoch;

use super::outside::{Outside, Word};
use crate::agenda::{Event, Process};
use crate::draws;
use crate::fact::{End, Fact, RequestNumber};

/// All clients of a run.
pub(super) struct Clients {
    sent: Vec<Sent>,
    groups: Vec<Group>,
    doors: Random,
}

/// Chance of a group of clients.
struct Group {
    arrivals: Random,
    sizes: Random,
    hangups: Random,
}

/// A request as its client knows it.
struct Sent {
    request: Request,
    door: Option<Process>,
    second: Option<Process>,
    has_ended: bool,
}

/// A request as its client sends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) number: RequestNumber,
    pub(crate) model: u16,
    pub(crate) deadline: Instant,
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    pub(crate) bucket: BucketId,
    /// Whether it must not run twice.
    pub(crate) is_once: bool,
    /// Whether its client has lost another node that may have run it.
    pub(crate) is_second: bool,
}

/// A node as clients see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    pub(super) process: Process,
    /// Since when it is silent, if it is.
    pub(super) silent_since: Option<Instant>,
    /// Whether it takes new clients.
    pub(super) is_ready: bool,
}

impl Clients {
    pub(super) fn new(outside: &mut Outside, seed: u64) -> Self {
        let scenario = outside.scenario.clone();
        let groups = scenario.clients.iter().enumerate().map(|(position, of)| {
            let stream = |what: &str| Random::stream(seed, &format!("{what} {position}"));
            let at = Instant::from_nanos(of.from_ms * 1_000_000);
            let mut arrivals = stream("arrivals");
            let first = next_arrival(&mut arrivals, of.rate_per_s, at);
            outside.agenda.plan(first, Event::Arrival(position as u16));
            Group {
                arrivals,
                sizes: stream("sizes"),
                hangups: stream("hangups"),
            }
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

    /// A client sends a request, and the next client of its group is planned.
    pub(super) fn arrive(&mut self, outside: &mut Outside, group: u16) -> Option<RequestNumber> {
        let scenario = outside.scenario.clone();
        let of = &scenario.clients[usize::from(group)];
        let until = Instant::from_nanos((of.from_ms + of.duration_ms) * 1_000_000);
        if outside.now >= until {
            return None;
        }
        let chance = &mut self.groups[usize::from(group)];
        let next = next_arrival(&mut chance.arrivals, of.rate_per_s, outside.now);
        outside.agenda.plan(next, Event::Arrival(group));
        let number = RequestNumber(self.sent.len() as u32);
        let budget_us = draws::between(&mut chance.sizes, of.budget_min_us, of.budget_max_us);
        let rows = draws::between(&mut chance.sizes, 1, u64::from(of.rows_most)) as u32;
        let model = scenario.models.iter().position(|m| m.name == of.model);
        let request = Request {
            number,
            model: model.unwrap_or_default() as u16,
            deadline: outside.now.plus_nanos(budget_us * 1_000),
            rows,
            bytes: u64::from(rows) * of.row_bytes,
            bucket: BucketId(chance.sizes.below(of.shapes)),
            is_once: chance.sizes.below(1_000) < of.once_permille,
            is_second: false,
        };
        self.sent.push(Sent {
            request,
            door: None,
            second: None,
            has_ended: false,
        });
        outside.record(&Fact::Submitted {
            request: number,
            deadline: request.deadline,
            is_once: request.is_once,
        });
        if chance.hangups.below(1_000) < of.cancel_permille {
            let after = chance.hangups.below(budget_us * 1_000);
            let at = outside.now.plus_nanos(after);
            outside.agenda.plan(at, Event::Hangup(number));
        }
        Some(number)
    }

    /// Where a request goes to, and as what; `None` if no node is believed to be well.
    pub(super) fn door(
        &mut self,
        outside: &mut Outside,
        number: RequestNumber,
        doors: &[Door],
    ) -> Option<(Process, Request)> {
        let sent = &mut self.sent[number.0 as usize];
        let avoided = sent.door;
        let is_known_silent = |door: &Door| {
            let since = door
                .silent_since
                .map(|since| outside.now.nanos_since(since));
            since.is_some_and(|nanos| nanos >= SUSPECT_NANOS)
        };
        let can = |door: &&Door| !is_known_silent(door) && Some(door.process) != avoided;
        let well: Vec<&Door> = doors.iter().filter(can).collect();
        let ready: Vec<&Door> = well.iter().copied().filter(|door| door.is_ready).collect();
        let among = if ready.is_empty() { well } else { ready };
        if among.is_empty() {
            return None;
        }
        let door = among[self.doors.below(among.len() as u64) as usize];
        let is_second = avoided.is_some();
        match is_second {
            false => sent.door = Some(door.process),
            true => sent.second = Some(door.process),
        }
        if door.silent_since.is_some() {
            self.wait_in_silence(outside, number, door.process);
        }
        let request = self.sent[number.0 as usize].request;
        Some((
            door.process,
            Request {
                is_second,
                ..request
            },
        ))
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
        if self.sent[number.0 as usize].door.is_none() {
            self.end(outside, number, (End::Unreachable, Epoch::default()));
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

    /// A node has told a client how its request ended. Returns a node whose answer is not waited
    /// for any more.
    pub(super) fn told(&mut self, outside: &mut Outside, word: &Word) -> Option<Process> {
        let sent = &self.sent[word.request.0 as usize];
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
        self.end(outside, word.request, (word.end, word.epoch));
        other
    }

    fn end(&mut self, outside: &mut Outside, request: RequestNumber, (end, epoch): (End, Epoch)) {
        self.sent[request.0 as usize].has_ended = true;
        outside.record(&Fact::Ended {
            request,
            end,
            epoch,
        });
    }
}

fn next_arrival(arrivals: &mut Random, rate_per_s: u64, now: Instant) -> Instant {
    let mean_nanos = 1_000_000_000 / rate_per_s.max(1);
    now.plus_nanos(draws::exponential(arrivals, mean_nanos))
}

/// Silence after which a client asks somebody else.
const SUSPECT_NANOS: u64 = 300_000_000;
