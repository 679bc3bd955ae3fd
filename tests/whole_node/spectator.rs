//! Watches consensus on all nodes: who leads, and that no node forgets a term or a leader.
//!
//! openraft orders ballots by term and then by node, so that one term may see a second leader
//! with a larger id after the first; what may never happen is that a node goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use paceline_node::raft::{RaftMetrics, Role};
use paceline_protocol::NodeId;
use tokio::time::sleep;

use crate::history::History;
use crate::trace::Trace;
use crate::world::Sights;

#[derive(Default)]
struct Seen {
    leaders: BTreeSet<(u64, NodeId)>,
    /// Each node's newest term, and newest leader with its term, over all of its lives.
    newest: BTreeMap<NodeId, (u64, (u64, NodeId))>,
    said: BTreeMap<NodeId, (u64, Role, Option<NodeId>, Vec<NodeId>)>,
}

/// Watches until the run ends. Elections stand in the trace.
pub(crate) async fn watch(sights: Sights, trace: Trace, history: History) {
    let mut seen = Seen::default();
    loop {
        for life in sights.all() {
            let metrics = life.raft.metrics();
            if metrics.role != Role::Stopped {
                seen.look(&metrics, &trace, &history);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Seen {
    fn look(&mut self, metrics: &RaftMetrics, trace: &Trace, history: &History) {
        let (node, term) = (metrics.node, metrics.term);
        let says = (term, metrics.role, metrics.leader, metrics.voters.clone());
        if self.said.get(&node) == Some(&says) {
            return;
        }
        let voters: Vec<u64> = metrics.voters.iter().map(|voter| voter.0).collect();
        let leader = metrics.leader.map_or(0, |leader| leader.0);
        let role = metrics.role;
        trace.note(format_args!(
            "{node} term {term} {role:?} leader {leader} voters {voters:?}"
        ));
        self.said.insert(node, says);
        let none = (0, (0, NodeId(0)));
        let newest = self.newest.entry(node).or_insert(none);
        if term < newest.0 {
            let before = newest.0;
            history.violation(format!("{node} was in term {before} and is in term {term}"));
        }
        newest.0 = term;
        let Some(leader) = metrics.leader else {
            return;
        };
        if (term, leader) < newest.1 {
            let (before, other) = newest.1;
            history.violation(format!(
                "{node} followed {other} in term {before} and follows {leader} in term {term}"
            ));
        }
        newest.1 = (term, leader);
        if self.leaders.insert((term, leader)) {
            history.count("leaders");
        }
    }
}

/// Shorter than any message takes in invented time.
const LOOK_EVERY: Duration = Duration::from_millis(1);
