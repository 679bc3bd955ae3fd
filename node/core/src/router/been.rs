//! The nodes that a request was sent to already, in a few words.

use paceline_protocol::NodeId;
use paceline_protocol::limits::{EXECUTIONS_MAX, REROUTES_MAX};
use serde::{Deserialize, Serialize};

/// Nodes that a request has been to. Empty for nearly all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Been {
    nodes: [NodeId; NODES_MAX],
    count: u8,
}

impl Default for Been {
    fn default() -> Self {
        Self {
            nodes: [NodeId(0); NODES_MAX],
            count: 0,
        }
    }
}

impl Been {
    /// Notes one more; the same one twice is one.
    ///
    /// # Panics
    /// If it is sent to more nodes than [`crate::failover`] ever allows.
    pub fn to(&mut self, node: NodeId) {
        if !self.contains(node) {
            let place = self.nodes.get_mut(usize::from(self.count));
            *place.expect("a request is sent so often and no more") = node;
            self.count += 1;
        }
    }

    /// Whether it was there.
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes[..usize::from(self.count)].contains(&node)
    }

    /// Whether it was nowhere yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Each execution once, and every move.
const NODES_MAX: usize = EXECUTIONS_MAX + REROUTES_MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_remembered_once() {
        let mut been = Been::default();
        assert!(been.is_empty() && !been.contains(NodeId(0)));
        for node in [1, 2, 1, 3, 4, 5, 5] {
            been.to(NodeId(node));
        }
        assert!((1..=5).all(|node| been.contains(NodeId(node))));
        assert!(!been.contains(NodeId(6)) && !been.is_empty());
    }
}
