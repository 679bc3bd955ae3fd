//! Who can be heard at all, and what of that has changed: nodes that listen look at changes
//! alone, since in most ticks of most nodes there are none.

use crate::agenda::{NodeIndex, Process};

/// The processes that run, and a log of what has changed.
pub(super) struct Hearing {
    running: Vec<Option<Process>>,
    changes: Vec<Change>,
}

#[derive(Clone, Copy)]
enum Change {
    Of(NodeIndex),
    /// A line was cut or joined.
    OfAll,
}

impl Hearing {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            running: vec![None; nodes],
            changes: Vec::new(),
        }
    }

    /// What runs at a place and can be heard.
    pub(super) fn running(&self, node: NodeIndex) -> Option<Process> {
        self.running[usize::from(node.0)]
    }

    pub(super) fn set(&mut self, node: NodeIndex, process: Option<Process>) {
        let running = &mut self.running[usize::from(node.0)];
        if *running != process {
            *running = process;
            self.changes.push(Change::Of(node));
        }
    }

    /// Lines have changed: everybody has to look at everybody.
    pub(super) fn lines_changed(&mut self) {
        self.changes.push(Change::OfAll);
    }

    /// Whom to look at after so many changes, which become all there were; some may come twice.
    pub(super) fn changed_since(&self, looked: &mut usize) -> Vec<NodeIndex> {
        let new = &self.changes[*looked..];
        *looked = self.changes.len();
        let all = 0..self.running.len() as u16;
        let one = |change: &Change| match change {
            Change::Of(node) => Some(*node),
            Change::OfAll => None,
        };
        let some: Option<Vec<NodeIndex>> = new.iter().map(one).collect();
        some.unwrap_or_else(|| all.map(NodeIndex).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_looked_at_and_each_once() {
        let mut hearing = Hearing::new(3);
        let (node, life) = (NodeIndex(1), 0);
        let process = Some(Process { node, life });
        let mut looked = 0;
        assert_eq!(hearing.changed_since(&mut looked), []);
        hearing.set(node, process);
        hearing.set(node, process);
        assert_eq!(hearing.running(node), process);
        assert_eq!(hearing.changed_since(&mut looked), [node]);
        assert_eq!(hearing.changed_since(&mut looked), []);
        hearing.set(node, None);
        hearing.lines_changed();
        assert_eq!(hearing.changed_since(&mut looked).len(), 3);
    }
}
