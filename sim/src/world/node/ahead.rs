//! Requests of clients that have seen more than this node: it catches up, or has a peer answer
//! that is not behind, so that an answer's epoch never falls for a client.
//!
//! The twin of `node/src/gateway/infer/ahead.rs`. What a peer has applied is known at once here,
//! where in production it is told within milliseconds.

use paceline_core::ahead::{self, Peer};
use paceline_core::detector::Liveness;
use paceline_core::failover;
use paceline_core::registry::NodeState;
use paceline_protocol::{Epoch, NodeId};

use super::Node;
use super::knowledge::node_index;
use crate::agenda::{NodeIndex, Process, Timer};
use crate::fact::{End, RequestNumber};
use crate::message::Message;
use crate::planted::Planted;
use crate::world::outside::{Outside, Word};
use crate::world::request::Request;

/// A request whose client has seen more than this node.
pub(super) struct Behind {
    request: Request,
    /// Who answers it, once this node has not caught up in time.
    to: Option<Process>,
    asked: Vec<NodeId>,
    /// The peer that has taken it along.
    lost: Option<NodeIndex>,
}

impl Node {
    /// A request comes.
    pub(in crate::world) fn arrive(&mut self, outside: &mut Outside, request: Request) {
        if request.seen <= self.epoch() || outside.planted == Some(Planted::StaleAnswer) {
            self.let_in(outside, request);
            return;
        }
        let left = request.deadline.nanos_since(outside.now);
        let timer = Timer::Ahead(request.number);
        outside.plan(self.process, CATCH_UP_NANOS.min(left), timer);
        self.behind.push(Behind {
            request,
            to: None,
            asked: Vec::new(),
            lost: None,
        });
    }

    /// This node has applied more: requests that have waited for that are let in.
    pub(super) fn caught_up(&mut self, outside: &mut Outside) {
        let epoch = self.epoch();
        let is_due = |behind: &mut Behind| behind.to.is_none() && behind.request.seen <= epoch;
        let due: Vec<Behind> = self.behind.extract_if(.., is_due).collect();
        for behind in due {
            self.let_in(outside, behind.request);
        }
    }

    /// A request has waited for this node as long as it may, or its time is over.
    pub(super) fn catch_up_over(&mut self, outside: &mut Outside, number: RequestNumber) {
        let Some(behind) = self.take_behind(|behind| behind.request.number == number) else {
            return;
        };
        match () {
            () if behind.request.deadline <= outside.now => {
                self.refuse(outside, behind.request, End::Expired);
            }
            () if behind.to.is_some() => self.behind.push(behind),
            // It is not sent on again.
            () if behind.request.via.is_some() => self.refuse(outside, behind.request, End::Stale),
            () => {
                let left = behind.request.deadline.nanos_since(outside.now);
                outside.plan(self.process, left, Timer::Ahead(number));
                self.send_ahead(outside, behind);
            }
        }
    }

    fn send_ahead(&mut self, outside: &mut Outside, mut behind: Behind) {
        let request = behind.request;
        let node = self.ahead(outside, request.seen, &behind.asked);
        let to = node.and_then(|node| self.peers.process_of(node));
        let (Some(node), Some(to), true) = (node, to, behind.asked.len() < ASKED_MAX) else {
            let end = match behind.lost {
                Some(_) => End::Unreachable,
                None => End::Stale,
            };
            self.refuse(outside, request, end);
            return;
        };
        let ahead = Request {
            via: Some(self.process),
            lost: behind.lost.or(request.lost),
            ..request
        };
        behind.asked.push(node);
        behind.to = Some(to);
        self.behind.push(behind);
        outside.send(self.index(), to, request.bytes, Message::Request(ahead));
    }

    /// The peer that has applied the most, of those that are not behind and take requests.
    fn ahead(&self, outside: &Outside, seen: Epoch, asked: &[NodeId]) -> Option<NodeId> {
        let seats = self.knowledge.registry().seats();
        let peers = seats.filter(|(node, _)| *node != self.id);
        let peers = peers.map(|(node, state)| Peer {
            node,
            epoch: outside.applied(node_index(node)),
            takes_requests: state == NodeState::Up
                && self.peers.liveness(node) == Liveness::Alive
                && !asked.contains(&node),
        });
        ahead::ahead(seen, peers)
    }

    /// A peer has answered a request that was sent on to it.
    pub(super) fn relayed(&mut self, outside: &mut Outside, word: &Word) {
        let is_it =
            |behind: &Behind| behind.request.number == word.request && behind.to == Some(word.from);
        if let Some(behind) = self.take_behind(is_it) {
            self.report(outside, behind.request, word.end, word.epoch);
        }
    }

    /// A peer is silent: what was sent on to it may run once more, if it may, elsewhere.
    pub(super) fn unheard_ahead(
        &mut self,
        outside: &mut Outside,
        process: Process,
        end: failover::End,
    ) {
        debug_assert!(matches!(end, failover::End::Suspect | failover::End::Lost));
        let is_there = |behind: &mut Behind| behind.to == Some(process);
        let met: Vec<Behind> = self.behind.extract_if(.., is_there).collect();
        for mut behind in met {
            if behind.request.is_once || behind.lost.is_some() {
                self.refuse(outside, behind.request, End::Unreachable);
                continue;
            }
            behind.lost = Some(process.node);
            self.send_ahead(outside, behind);
        }
    }

    /// The client of a request that was sent on has gone.
    pub(super) fn forget_ahead(&mut self, outside: &mut Outside, request: Request) {
        let is_it = |behind: &Behind| {
            (behind.request.number, behind.request.via) == (request.number, request.via)
        };
        if let Some(behind) = self.take_behind(is_it)
            && let Some(to) = behind.to
        {
            let via = Some(self.process);
            let request = Request { via, ..request };
            outside.send(self.index(), to, 0, Message::HangUp(request));
        }
    }

    /// Tells a client, or the peer that has sent its request on, how it ended.
    pub(super) fn report(&self, outside: &mut Outside, request: Request, end: End, epoch: Epoch) {
        let word = Word {
            request: request.number,
            from: self.process,
            end,
            epoch,
        };
        match request.via {
            Some(via) => outside.send(self.index(), via, 0, Message::Relayed(word)),
            None => outside.told.push(word),
        }
    }

    fn take_behind(&mut self, is_it: impl Fn(&Behind) -> bool) -> Option<Behind> {
        let position = self.behind.iter().position(is_it)?;
        Some(self.behind.remove(position))
    }
}

/// As the gateway waits: a follower is behind by a round trip, or else by an election.
const CATCH_UP_NANOS: u64 = 50_000_000;
/// Peers that are asked at most.
const ASKED_MAX: usize = 2;
