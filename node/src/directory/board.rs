//! Where reports of peers are written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use paceline_protocol::NodeId;
use paceline_protocol::report::Told;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Report, Reports};

/// The newest report of each peer. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Board {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    reports: watch::Sender<Arc<Reports>>,
    /// Life and sequence of what stands there.
    marks: Mutex<BTreeMap<NodeId, (u64, u64)>>,
}

impl Board {
    /// What is known, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Reports>> {
        self.shared.reports.subscribe()
    }

    /// Notes what a peer has said. An older report of the same life changes nothing, and
    /// neither does a word about a report that is not there: then it is `false`, and the peer must
    /// say everything again.
    pub(crate) fn hear(&self, told: &Told) -> bool {
        let mut marks = self
            .shared
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let heard_at = Instant::now();
        match told {
            Told::Report {
                life,
                sequence,
                report,
            } => {
                let node = report.node;
                let known = marks.get(&node);
                if known.is_some_and(|(of, newest)| of == life && newest > sequence) {
                    return true;
                }
                marks.insert(node, (*life, *sequence));
                let report = report.clone();
                self.shared.reports.send_modify(|reports| {
                    Arc::make_mut(reports).insert(node, Report { report, heard_at });
                });
            }
            Told::Still {
                node,
                life,
                sequence,
            } => {
                if marks.get(node) != Some(&(*life, *sequence)) {
                    return false;
                }
                self.shared.reports.send_if_modified(|reports| {
                    if let Some(report) = Arc::make_mut(reports).get_mut(node) {
                        report.heard_at = heard_at;
                    }
                    // Nothing that anybody waits for.
                    false
                });
            }
        }
        true
    }

    /// Makes a peer unknown.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut marks = self
            .shared
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        marks.remove(&node);
        self.shared.reports.send_if_modified(|reports| {
            reports.contains_key(&node) && Arc::make_mut(reports).remove(&node).is_some()
        });
    }

    /// Makes everybody unknown who is not among `peers`.
    pub(crate) fn keep(&self, peers: &BTreeSet<NodeId>) {
        let known: Vec<NodeId> = self.shared.reports.borrow().keys().copied().collect();
        for node in known.iter().filter(|node| !peers.contains(node)) {
            self.forget(*node);
        }
    }
}
