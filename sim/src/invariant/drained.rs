//! I4: a node that has drained takes no dispatch, until it is taken back or starts anew.

use std::collections::BTreeSet;

use paceline_core::Instant;

use super::Invariant;
use crate::agenda::NodeIndex;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct Drained {
    closed: BTreeSet<NodeIndex>,
}

impl Invariant for Drained {
    fn name(&self) -> &'static str {
        "I4 drained"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Closed { node } = *fact {
            self.closed.insert(node);
        }
        if let Fact::Opened { node } = *fact {
            self.closed.remove(&node);
        }
        if let Fact::Died { process } = *fact {
            self.closed.remove(&process.node);
        }
        if let Fact::Taken { node } = *fact
            && self.closed.contains(&node)
        {
            return Err(format!("node {} has drained and takes a dispatch", node.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_after_the_drain_is_found() {
        let node = NodeIndex(0);
        let judge = |facts: &[Fact<'_>]| {
            let mut drained = Drained::default();
            let mut judged = facts
                .iter()
                .map(|fact| drained.observe(Instant::ZERO, fact));
            judged.all(|judged| judged.is_ok())
        };
        assert!(judge(&[Fact::Taken { node }, Fact::Closed { node }]));
        assert!(!judge(&[Fact::Closed { node }, Fact::Taken { node }]));
        let back = [
            Fact::Closed { node },
            Fact::Opened { node },
            Fact::Taken { node },
        ];
        assert!(judge(&back));
    }
}
