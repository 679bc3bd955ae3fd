//! What is seen of replicas and nodes, where routers and the reconciler can read it.
//!
//! This node's workers note what they see; what peers report is put beside it. Whatever nobody
//! has said is not on the board: it is unknown, and no value stands for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::device::BatcherId;
use paceline_core::placement::{self, ReplicaState};
use paceline_protocol::report::{CanaryReport, ReplicaCondition, ReplicaReport};
use paceline_protocol::{Epoch, NodeId, ReplicaId};
use ractor::{ActorRef, Message};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::directory::{Report, Reports};
use crate::supervisor::notify;
use crate::tenants::Demands;

/// What is known of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Its condition.
    pub state: ReplicaState,
    /// Its queue, once it is ready; of this node's replicas only.
    pub batcher: Option<BatcherId>,
    /// Measured time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// Memory that its engine accounts, in bytes.
    pub memory_bytes: u64,
}

/// What a node has said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// How much of the registry's log it has applied: its requests are routed by this.
    pub epoch: Epoch,
    /// Whether it answers requests.
    pub ready: bool,
    /// The entry that told it to drain, once it has applied it.
    pub draining: Option<Epoch>,
    /// Its process.
    pub pid: u32,
    /// What tenants that have limits asked of it in its last second.
    pub demands: Arc<Demands>,
    /// When it said, last, that this is so, as of the board's last change. Repetition changes
    /// nothing here: how old a report is at any moment, the directory knows.
    pub heard_at: Instant,
}

/// What is known of all replicas.
pub type Observations = BTreeMap<ReplicaId, Observation>;

/// The board that observations are written on. Cheap to clone.
#[derive(Clone)]
pub struct Observed {
    board: watch::Sender<Arc<Observations>>,
    /// Those that this node's workers have noted.
    own: Arc<Mutex<BTreeSet<ReplicaId>>>,
    nodes: watch::Sender<Arc<BTreeMap<NodeId, NodeFacts>>>,
    /// What this node has answered of models whose canary is under way.
    canaries: watch::Sender<Arc<Vec<CanaryReport>>>,
    /// The same of peers.
    peers_canaries: Arc<Mutex<BTreeMap<NodeId, Vec<CanaryReport>>>>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            board: watch::Sender::new(Arc::default()),
            own: Arc::default(),
            nodes: watch::Sender::new(Arc::default()),
            canaries: watch::Sender::new(Arc::default()),
            peers_canaries: Arc::default(),
        }
    }
}

impl Observed {
    /// What is known now.
    pub fn current(&self) -> Arc<Observations> {
        self.board.borrow().clone()
    }

    /// The conditions alone, as placement wants them.
    pub fn states(&self) -> placement::Observed {
        let current = self.current();
        current
            .iter()
            .map(|(id, observation)| (*id, observation.state.clone()))
            .collect()
    }

    /// Notes what is known of a replica now.
    pub fn note(&self, replica: ReplicaId, observation: Observation) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.insert(replica);
        self.board.send_if_modified(|board| {
            let changed = board.get(&replica) != Some(&observation);
            if changed {
                Arc::make_mut(board).insert(replica, observation);
            }
            changed
        });
    }

    /// Forgets a replica that is no longer assigned.
    pub fn forget(&self, replica: ReplicaId) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.remove(&replica);
        self.board
            .send_if_modified(|board| Arc::make_mut(board).remove(&replica).is_some());
    }

    /// What is known of the peers that have reported. A node that is not here is unknown.
    pub fn nodes(&self) -> Arc<BTreeMap<NodeId, NodeFacts>> {
        self.nodes.borrow().clone()
    }

    /// The same, now and later.
    pub fn watch_nodes(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, NodeFacts>>> {
        self.nodes.subscribe()
    }

    /// On how many of the peers that are ready `epoch` is applied, and how many those are. Waits
    /// until it is all of them, until `deadline` at most.
    pub async fn wait_applied(&self, epoch: Epoch, deadline: Instant) -> (u32, u32) {
        let count = |nodes: &BTreeMap<NodeId, NodeFacts>| {
            let ready = nodes.values().filter(|facts| facts.ready);
            ready.fold((0, 0), |(applied, all), facts| {
                (applied + u32::from(facts.epoch >= epoch), all + 1)
            })
        };
        let mut nodes = self.watch_nodes();
        let everywhere = nodes.wait_for(|nodes| {
            let (applied, all) = count(nodes);
            applied == all
        });
        // Too late or not, what is the case at the end is what is told.
        let _ = timeout_at(deadline, everywhere).await;
        count(&self.nodes())
    }

    /// What this node's workers have noted, as peers are told. What they do not know is left out.
    pub fn own(&self) -> Vec<(ReplicaId, ReplicaReport)> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let board = self.board.borrow();
        let known = own.iter().filter_map(|replica| {
            let report = reported(board.get(replica)?)?;
            Some((*replica, report))
        });
        known.collect()
    }

    /// Notes what this node has answered of models whose canary is under way.
    pub fn note_canaries(&self, canaries: Vec<CanaryReport>) {
        self.canaries.send_if_modified(|known| {
            let changed = **known != canaries;
            if changed {
                *known = Arc::new(canaries);
            }
            changed
        });
    }

    /// What this node has noted so, now and later.
    pub fn own_canaries(&self) -> watch::Receiver<Arc<Vec<CanaryReport>>> {
        self.canaries.subscribe()
    }

    /// What `node`, which is this one, and its peers have answered of models whose canary is under
    /// way.
    pub fn canaries(&self, node: NodeId) -> Vec<(NodeId, CanaryReport)> {
        let peers = &self.peers_canaries;
        let peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peers = peers.iter().flat_map(|(peer, reports)| {
            let reports = reports.iter();
            reports.map(|report| (*peer, report.clone()))
        });
        let own = self.canaries.borrow();
        let of_own = own.iter().map(|report| (node, report.clone()));
        of_own.chain(of_peers).collect()
    }

    /// Memory that this node's replicas account, in bytes.
    pub fn own_memory_bytes(&self) -> u64 {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let board = self.board.borrow();
        let known = own.iter().filter_map(|replica| board.get(replica));
        known.map(|replica| replica.memory_bytes).sum()
    }

    /// Puts what peers report in the place of what they reported before. Only the node that a
    /// replica is assigned to, as `assigned` knows, may speak of it, and none speaks of those
    /// that this node's workers have.
    pub fn hear(&self, reports: &Reports, assigned: impl Fn(ReplicaId) -> Option<NodeId>) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Observations::new();
        for (node, known) in reports {
            for (replica, report) in &known.report.replicas {
                if assigned(*replica) == Some(*node) && !own.contains(replica) {
                    next.insert(*replica, observed(report));
                }
            }
        }
        self.board.send_if_modified(|board| {
            let noted = own
                .iter()
                .filter_map(|id| Some((*id, board.get(id)?.clone())));
            next.extend(noted);
            let changed = **board != next;
            if changed {
                *board = Arc::new(next);
            }
            changed
        });
        let canaries = reports.iter().filter_map(|(node, known)| {
            let canaries = &known.report.canaries;
            (!canaries.is_empty()).then(|| (*node, canaries.clone()))
        });
        let canaries = canaries.collect();
        let peers = &self.peers_canaries;
        *peers.lock().unwrap_or_else(PoisonError::into_inner) = canaries;
        let facts = reports
            .iter()
            .map(|(node, known)| (*node, NodeFacts::of(known)));
        let facts: BTreeMap<NodeId, NodeFacts> = facts.collect();
        self.nodes.send_if_modified(|nodes| {
            let changed = **nodes != facts;
            if changed {
                *nodes = Arc::new(facts);
            }
            changed
        });
    }

    /// Sends `message` to `actor` after each change, until the actor is gone.
    pub fn tell<M: Message>(&self, actor: &ActorRef<M>, message: impl Fn() -> M + Send + 'static) {
        notify(self.board.subscribe(), actor.clone(), message);
    }
}

impl NodeFacts {
    fn of(known: &Report) -> Self {
        Self {
            epoch: known.report.epoch,
            ready: known.report.ready,
            draining: known.report.draining,
            pid: known.report.pid,
            demands: Arc::new(known.report.demands.clone()),
            heard_at: known.heard_at,
        }
    }
}

fn reported(observation: &Observation) -> Option<ReplicaReport> {
    let condition = match &observation.state {
        ReplicaState::Unknown => return None,
        ReplicaState::Loading => ReplicaCondition::Loading,
        ReplicaState::Ready => ReplicaCondition::Ready,
        ReplicaState::Failed { reason } => ReplicaCondition::Failed {
            reason: reason.clone(),
        },
        ReplicaState::GivenUp { reason } => ReplicaCondition::GivenUp {
            reason: reason.clone(),
        },
    };
    Some(ReplicaReport {
        condition,
        row_nanos: observation.row_nanos,
        memory_bytes: observation.memory_bytes,
    })
}

fn observed(report: &ReplicaReport) -> Observation {
    let state = match &report.condition {
        ReplicaCondition::Loading => ReplicaState::Loading,
        ReplicaCondition::Ready => ReplicaState::Ready,
        ReplicaCondition::Failed { reason } => ReplicaState::Failed {
            reason: reason.clone(),
        },
        ReplicaCondition::GivenUp { reason } => ReplicaState::GivenUp {
            reason: reason.clone(),
        },
    };
    Observation {
        state,
        batcher: None,
        row_nanos: report.row_nanos,
        memory_bytes: report.memory_bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use paceline_protocol::report::NodeReport;

    use super::*;

    fn ready(row_nanos: u64) -> Observation {
        Observation {
            state: ReplicaState::Ready,
            row_nanos,
            ..Observation::default()
        }
    }

    fn reports(node: NodeId, replicas: &[(ReplicaId, Observation)]) -> Reports {
        let replicas = replicas
            .iter()
            .map(|(replica, seen)| (*replica, reported(seen).unwrap()));
        let report = NodeReport {
            node,
            epoch: Epoch(8),
            ready: true,
            draining: None,
            pid: 5,
            replicas: replicas.collect(),
            demands: Vec::new(),
            canaries: Vec::new(),
        };
        let report = Report {
            report: Arc::new(report),
            heard_at: Instant::now(),
        };
        [(node, report)].into()
    }

    const PEER: NodeId = NodeId(2);
    const OWN: ReplicaId = ReplicaId(10);
    const THEIRS: ReplicaId = ReplicaId(20);
    const FOREIGN: ReplicaId = ReplicaId(30);

    fn assigned(replica: ReplicaId) -> Option<NodeId> {
        match replica {
            OWN => Some(NodeId(1)),
            THEIRS => Some(PEER),
            _ => Some(NodeId(3)),
        }
    }

    #[test]
    fn peers_speak_of_their_own_replicas_only_and_are_unknown_when_they_are_gone() {
        let observed = Observed::default();
        observed.note(OWN, ready(1));
        assert_eq!(observed.own(), vec![(OWN, reported(&ready(1)).unwrap())]);
        let claims = [(OWN, ready(9)), (THEIRS, ready(9)), (FOREIGN, ready(9))];
        observed.hear(&reports(PEER, &claims), assigned);
        let board = observed.current();
        assert_eq!(board[&OWN], ready(1));
        assert_eq!(board[&THEIRS], ready(9));
        assert!(!board.contains_key(&FOREIGN), "it is another node's");
        assert_eq!(observed.nodes()[&PEER].epoch, Epoch(8));
        assert_eq!(
            observed.own().len(),
            1,
            "others' are not repeated to others"
        );

        observed.hear(&Reports::new(), assigned);
        assert_eq!(observed.current().keys().collect::<Vec<_>>(), [&OWN]);
        assert!(observed.nodes().is_empty());
        observed.forget(OWN);
        assert!(observed.current().is_empty() && observed.own().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_applied_an_epoch_is_counted_among_the_ready_and_waited_for() {
        let observed = Observed::default();
        let now = Instant::now;
        assert_eq!(observed.wait_applied(Epoch(9), now()).await, (0, 0));
        observed.hear(&reports(PEER, &[]), assigned);
        let limit = Duration::from_secs(2);
        assert_eq!(observed.wait_applied(Epoch(8), now() + limit).await, (1, 1));
        let asked_at = now();
        assert_eq!(observed.wait_applied(Epoch(9), now() + limit).await, (0, 1));
        assert_eq!(asked_at.elapsed(), limit, "it had its time");

        let later = observed.clone();
        let waiting = tokio::spawn(async move {
            let deadline = Instant::now() + limit;
            later.wait_applied(Epoch(9), deadline).await
        });
        tokio::task::yield_now().await;
        let mut newer = reports(PEER, &[]);
        let report = &mut newer.get_mut(&PEER).unwrap().report;
        Arc::make_mut(report).epoch = Epoch(9);
        observed.hear(&newer, assigned);
        assert_eq!(waiting.await.unwrap(), (1, 1));

        let report = &mut newer.get_mut(&PEER).unwrap().report;
        Arc::make_mut(report).ready = false;
        observed.hear(&newer, assigned);
        assert_eq!(observed.wait_applied(Epoch(99), now()).await, (0, 0));
    }

    #[test]
    fn what_is_not_known_yet_is_not_reported() {
        let observed = Observed::default();
        observed.note(OWN, Observation::default());
        assert!(observed.own().is_empty());
    }
}
