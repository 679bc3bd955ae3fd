//! The registry as it was after each of the last entries, one view for all nodes, and what each
//! entry has changed: a node that follows looks at that, not at the whole registry.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use paceline_core::registry::Registry;
use paceline_protocol::{NodeId, ReplicaId, VersionNumber};

/// The last entries.
pub(super) struct History {
    views: BTreeMap<u64, Arc<Registry>>,
    /// Of each entry up to the newest view.
    touched: VecDeque<Touched>,
}

/// What an entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// It was refused, or was a repeat.
    Nothing,
    /// What is agreed on of a node.
    Node(NodeId),
    /// Versions of a model, or which of them serves.
    Model(u16),
    /// A replica of this model and version was assigned or taken away.
    Replica(ReplicaId, (u16, VersionNumber)),
}

impl History {
    /// Before the first entry.
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            views: [(0, Arc::new(registry))].into(),
            touched: VecDeque::new(),
        }
    }

    /// The entry at `index` was applied.
    pub(super) fn push(&mut self, index: u64, registry: Registry, touched: Touched) {
        self.views.insert(index, Arc::new(registry));
        while self.views.len() > VIEWS_KEPT {
            self.views.pop_first();
        }
        self.touched.push_back(touched);
        while self.touched.len() > TOUCHED_KEPT {
            self.touched.pop_front();
        }
    }

    /// The view at this index, or the first one later that is kept.
    pub(super) fn view(&self, index: u64) -> Option<(u64, Arc<Registry>)> {
        let (found, view) = self.views.range(index..).next()?;
        Some((*found, view.clone()))
    }

    /// The newest view.
    pub(super) fn newest(&self) -> Arc<Registry> {
        let newest = self.views.last_key_value();
        newest.map(|(_, view)| view.clone()).unwrap_or_default()
    }

    /// What the entries after `before` and up to `index` have changed; `None` if that is not
    /// known of all of them any more.
    pub(super) fn touched(&self, before: u64, index: u64) -> Option<Vec<Touched>> {
        let newest = *self.views.last_key_value()?.0;
        let oldest = newest - self.touched.len() as u64;
        let from = before.checked_sub(oldest)? as usize;
        let to = index.checked_sub(oldest)? as usize;
        Some(self.touched.range(from..to).copied().collect())
    }
}

/// Views that nodes may still follow one by one; who is further behind jumps.
const VIEWS_KEPT: usize = 64;
/// Entries whose changes are known one by one: some seconds of the busiest log.
const TOUCHED_KEPT: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_entries_is_known_until_it_is_long_ago() {
        let mut history = History::new(Registry::default());
        let touched = |index: u64| Touched::Node(NodeId(index));
        for index in 1..=5_000 {
            history.push(index, Registry::default(), touched(index));
        }
        let between = history.touched(4_997, 4_999);
        assert_eq!(between, Some(vec![touched(4_998), touched(4_999)]));
        assert_eq!(history.touched(5_000, 5_000), Some(Vec::new()));
        assert_eq!(history.touched(904, 905), Some(vec![touched(905)]));
        assert_eq!(history.touched(903, 905), None);
        assert_eq!(history.view(1).map(|(found, _)| found), Some(4_937));
        assert_eq!(history.view(5_001), None);
    }
}
