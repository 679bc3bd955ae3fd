//! I4: a node that has drained takes no dispatch, until it is taken back or starts anew; and it has
//! drained when its replicas have left, or at the deadline.

use std::collections::BTreeSet;

use paceline_core::Instant;
use paceline_protocol::{Epoch, NodeId};

use super::Invariant;
use super::agreed::{Agreed, news};
use crate::agenda::NodeIndex;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct Drained {
    closed: BTreeSet<NodeIndex>,
    agreed: Agreed,
}

impl Drained {
    /// A drain that was ended meanwhile, or begun anew, is another one: the node has not heard of
    /// that yet.
    fn closed(&self, now: Instant, node: NodeId, since: Epoch) -> Result<(), String> {
        let known = self.agreed.nodes.get(&node).and_then(|known| known.drain);
        let Some(drain) = known.filter(|drain| drain.since == since && now < drain.deadline) else {
            return Ok(());
        };
        let here = self.agreed.replicas.values();
        let here = here.filter(|place| place.node == node).count();
        if here == 0 {
            return Ok(());
        }
        let early = drain.deadline.nanos_since(now);
        Err(format!(
            "node {node} closes with {here} replicas, {early} ns before its drain's deadline"
        ))
    }
}

impl Invariant for Drained {
    fn name(&self) -> &'static str {
        "I4 drained"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Closed { node, since } = *fact {
            self.closed.insert(node);
            return self.closed(now, NodeId(u64::from(node.0) + 1), since);
        }
        if let Some((change, outcome)) = news(fact) {
            self.agreed.take(now, change, outcome);
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
    use super::super::agreed::tests::Told;
    use super::*;

    #[test]
    fn what_is_taken_after_the_drain_is_found() {
        let (node, since) = (NodeIndex(0), Epoch(1));
        let judge = |facts: &[Fact<'_>]| {
            let mut drained = Drained::default();
            let mut judged = facts
                .iter()
                .map(|fact| drained.observe(Instant::ZERO, fact));
            judged.all(|judged| judged.is_ok())
        };
        assert!(judge(&[Fact::Taken { node }, Fact::Closed { node, since }]));
        assert!(!judge(&[
            Fact::Closed { node, since },
            Fact::Taken { node }
        ]));
        let back = [
            Fact::Closed { node, since },
            Fact::Opened { node },
            Fact::Taken { node },
        ];
        assert!(judge(&back));
    }

    #[test]
    fn who_closes_with_replicas_before_its_deadline_is_found() {
        let mut told = Told::new(Drained::default());
        let replica = told.assign(1);
        let earlier = Epoch(0);
        let since = told.drain(1, 1);
        let close = |told: &mut Told<Drained>, at, since| {
            let node = NodeIndex(0);
            told.see(at, &Fact::Closed { node, since })
        };
        assert!(close(&mut told, 999_999, since).is_err());
        assert_eq!(close(&mut told, 1_000_000, since), Ok(()));
        assert_eq!(close(&mut told, 0, earlier), Ok(()), "it knows no better");
        told.unassign(replica).unwrap();
        assert_eq!(close(&mut told, 0, since), Ok(()));
    }
}
