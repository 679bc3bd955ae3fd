//! The log: commands are proposed, written by a quorum, applied by everybody; leaders are lost
//! and elected.
//!
//! Consensus itself is not simulated here (whole nodes with the real one are, in
//! `tests/whole_node`): a leader is whoever reaches a majority, a command takes a round trip to
//! the nearest majority and a write to disk, and what a lost leader had under way is written by
//! its successor or by nobody, as chance has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::registry::{Assignment, Registry};
use paceline_core::{Instant, Random};
use paceline_protocol::limits::VOTERS_MAX;
use paceline_protocol::registry::{Change, Command, NodeRecord, Outcome, Reply};
use paceline_protocol::{ModelName, OpId};

use super::history::Touched;
use super::outside::Outside;
use crate::agenda::{Event, NodeIndex, Process};
use crate::draws;
use crate::fact::Fact;
use crate::message::Message;
use crate::scenario::NODES_MAX;

/// The log and who writes it.
pub(super) struct Consensus {
    registry: Registry,
    index: u64,
    committed_at: Instant,
    term: u64,
    voters: u16,
    tickets: u64,
    proposals: BTreeMap<u64, Proposal>,
    random: Random,
}

struct Proposal {
    by: Process,
    command: Box<Command>,
}

/// A voter as an election sees it.
#[derive(Clone, Copy)]
pub(super) struct Voter {
    pub(super) process: Process,
    /// Whether it runs.
    pub(super) runs: bool,
    /// What it has applied.
    pub(super) index: u64,
}

impl Consensus {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let voters = nodes.min(VOTERS_MAX);
        let voters = if voters.is_multiple_of(2) {
            voters - 1
        } else {
            voters
        };
        Self {
            registry: Registry::of_nodes(NODES_MAX),
            index: 0,
            committed_at: Instant::ZERO,
            term: 0,
            voters: voters as u16,
            tickets: 0,
            proposals: BTreeMap::new(),
            random: Random::stream(seed, "consensus"),
        }
    }

    /// How many of the first nodes have a vote.
    pub(super) fn voters(&self) -> u16 {
        self.voters
    }

    /// What became of a command.
    pub(super) fn outcome(&self, op: OpId) -> Option<&Outcome> {
        self.registry.outcome(op)
    }

    /// Whether an entry was committed so long ago that whoever does not know it has missed it.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        now.nanos_since(self.committed_at) > 2 * HEARTBEAT_NANOS
    }

    /// Leadership moves to another voter.
    pub(super) fn transfer(&mut self, outside: &mut Outside, to: Process) {
        self.term += 1;
        outside.leader = Some(to);
        for (_, proposal) in std::mem::take(&mut self.proposals) {
            self.commit(outside, to, &proposal);
        }
    }

    /// The newest entry.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// A command has reached the leader: a quorum writes it.
    pub(super) fn propose(
        &mut self,
        outside: &mut Outside,
        (leader, by): (Process, Process),
        command: Box<Command>,
    ) {
        self.tickets += 1;
        self.proposals
            .insert(self.tickets, Proposal { by, command });
        let mut ways: Vec<u64> = (0..self.voters)
            .map(NodeIndex)
            .filter(|voter| *voter != leader.node)
            .map(|voter| {
                let there = outside.network.nanos(leader.node, voter, ENTRY_BYTES);
                there + outside.network.nanos(voter, leader.node, 0)
            })
            .collect();
        ways.sort_unstable();
        // The leader's own copy and those of the nearest others are a majority.
        let others = usize::from(self.voters / 2);
        let way = others.checked_sub(1).map_or(0, |last| ways[last]);
        let written = outside.scenario.cluster.delays.fsync_us * 1_000;
        let at = outside.now.plus_nanos(way + written);
        outside
            .agenda
            .plan(at, Event::Quorum(self.term, self.tickets));
    }

    /// A quorum has written a command, if whoever led then still leads.
    pub(super) fn written(&mut self, outside: &mut Outside, (term, ticket): (u64, u64)) {
        let Some(leader) = outside.leader.filter(|_| term == self.term) else {
            // The successor decides about it.
            return;
        };
        if let Some(proposal) = self.proposals.remove(&ticket) {
            self.commit(outside, leader, &proposal);
        }
    }

    fn commit(&mut self, outside: &mut Outside, leader: Process, proposal: &Proposal) {
        self.index += 1;
        self.committed_at = outside.now;
        // A repeat gets its first answer, and changes nothing.
        let is_new = self.registry.outcome(proposal.command.op).is_none();
        let before = self.unassigned(&proposal.command.change);
        let outcome = self.registry.apply(self.index, &proposal.command);
        outside.record(&Fact::Applied {
            epoch: self.registry.epoch(),
            command: &proposal.command,
            outcome: &outcome,
        });
        let reply = outcome.result.as_ref().ok().filter(|_| is_new);
        let touched = reply.map_or(Touched::Nothing, |reply| {
            touched(outside, (&proposal.command.change, reply), before)
        });
        outside
            .history
            .push(self.index, self.registry.clone(), touched);
        self.tell(outside, leader);
        let message = Message::Outcome(proposal.command.op, outcome.result.is_ok());
        outside.send(leader.node, proposal.by, 0, message);
    }

    /// What the replica is a copy of that a change takes away.
    fn unassigned(&self, change: &Change) -> Option<Arc<Assignment>> {
        let Change::Unassign { replica, .. } = change else {
            return None;
        };
        self.registry.replicas().get(replica).cloned()
    }

    /// The leader says how far the log is committed: to others with its next heartbeat.
    fn tell(&mut self, outside: &mut Outside, leader: Process) {
        let at = outside.now;
        let message = Box::new(Message::Committed(self.index));
        outside.agenda.plan(at, Event::Message(leader, message));
    }

    /// Nanoseconds until a follower hears of an entry that was committed now.
    pub(super) fn heartbeat(&mut self) -> u64 {
        draws::between(&mut self.random, 0, HEARTBEAT_NANOS)
    }

    /// Something has broken or was mended: a leader that reaches no majority is none, and an
    /// election begins when its followers notice.
    pub(super) fn look(&mut self, outside: &mut Outside, voters: &[Voter]) {
        if let Some(leader) = outside.leader {
            let leads = voters
                .iter()
                .any(|voter| voter.process == leader && voter.runs);
            if leads && self.reaches_majority(outside, voters, leader.node) {
                return;
            }
            outside.leader = None;
        }
        self.call(outside);
    }

    fn call(&mut self, outside: &mut Outside) {
        let patience = draws::between(&mut self.random, ELECTION_NANOS / 2, ELECTION_NANOS);
        let at = outside.now.plus_nanos(patience);
        outside.agenda.plan(at, Event::Election(self.term));
    }

    /// The election of a term may end. Returns who has won.
    pub(super) fn elect(
        &mut self,
        outside: &mut Outside,
        term: u64,
        voters: &[Voter],
    ) -> Option<Process> {
        if outside.leader.is_some() || term != self.term {
            return None;
        }
        let able = voters.iter().filter(|voter| {
            voter.runs && self.reaches_majority(outside, voters, voter.process.node)
        });
        let newest = able.clone().map(|voter| voter.index).max();
        let able: Vec<&Voter> = able.filter(|voter| Some(voter.index) == newest).collect();
        if able.is_empty() {
            self.call(outside);
            return None;
        }
        let winner = able[self.random.below(able.len() as u64) as usize].process;
        self.term += 1;
        outside.leader = Some(winner);
        for (_, proposal) in std::mem::take(&mut self.proposals) {
            // On how many disks it was, nobody knew.
            if self.random.below(2) == 0 {
                self.commit(outside, winner, &proposal);
            }
        }
        self.tell(outside, winner);
        Some(winner)
    }

    fn reaches_majority(&self, outside: &Outside, voters: &[Voter], node: NodeIndex) -> bool {
        let both_ways = |other: NodeIndex| {
            outside.network.reaches(node, other) && outside.network.reaches(other, node)
        };
        let reached = voters
            .iter()
            .filter(|voter| voter.runs && both_ways(voter.process.node));
        reached.count() > usize::from(self.voters / 2)
    }
}

/// What a change has changed, that was applied.
fn touched(
    outside: &Outside,
    (change, reply): (&Change, &Reply),
    before: Option<Arc<Assignment>>,
) -> Touched {
    let of_model = |name: &ModelName| outside.model(name).map(Touched::Model);
    let of_replica = |replica, name: &ModelName, version| {
        let model = outside.model(name)?;
        Some(Touched::Replica(replica, (model, version)))
    };
    let touched = match (change, reply) {
        (Change::Assign { model, version, .. }, Reply::Assigned(replica)) => {
            of_replica(*replica, model, *version)
        }
        (Change::Unassign { replica, .. }, _) => {
            before.and_then(|of| of_replica(*replica, &of.model, of.version))
        }
        (Change::RegisterNode(NodeRecord { id: node, .. }), _)
        | (
            Change::MarkDown { node, .. }
            | Change::MarkUp { node, .. }
            | Change::Drain { node, .. }
            | Change::Drained { node, .. }
            | Change::Undrain { node },
            _,
        ) => Some(Touched::Node(*node)),
        (
            Change::PublishVersion { model, .. }
            | Change::Deploy { model, .. }
            | Change::Activate { model, .. }
            | Change::BeginCanary { model, .. }
            | Change::AdvanceCanary { model, .. }
            | Change::PromoteCanary { model, .. }
            | Change::AbortCanary { model, .. }
            | Change::Rollback { model }
            | Change::SetLabel { model, .. }
            | Change::SetShadow { model, .. }
            | Change::EndShadow { model },
            _,
        ) => of_model(model),
        // Nodes look at all tenants there are, with each entry.
        (Change::SetTenant { .. }, _) => Some(Touched::Nothing),
        (
            Change::Assign { .. }
            | Change::DeleteModel { .. }
            | Change::Undeploy { .. }
            | Change::CreateToken(_)
            | Change::RevokeToken { .. }
            | Change::AdmitNode { .. }
            | Change::RemoveNode { .. }
            | Change::DeleteTenant { .. }
            | Change::AddKey { .. }
            | Change::RevokeKey { .. },
            _,
        ) => unreachable!("nobody in a simulation asks for it"),
    };
    touched.expect("the registry knows what the scenario names")
}

/// An entry on the wire.
const ENTRY_BYTES: u64 = 512;
/// Followers hear at most so much later.
const HEARTBEAT_NANOS: u64 = 50_000_000;
/// The longest wait before an election, and the votes.
const ELECTION_NANOS: u64 = 400_000_000;
