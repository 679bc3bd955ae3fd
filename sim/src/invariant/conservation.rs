//! I9: nothing is lost or made on the way. Between two events, what a node admitted and has not
//! let go is what its admission counts, and waits in a queue or sits in a lane.

use paceline_core::Instant;

use super::Invariant;
use crate::agenda::NodeIndex;
use crate::fact::Fact;

pub(super) struct Conservation {
    /// Admitted and not let go, by node.
    present: Vec<u64>,
}

impl Conservation {
    pub(super) fn new(nodes: u16) -> Self {
        Self {
            present: vec![0; usize::from(nodes)],
        }
    }

    fn present(&mut self, node: NodeIndex) -> &mut u64 {
        &mut self.present[node.0]
    }
}

impl Invariant for Conservation {
    fn name(&self) -> &'static str {
        "I9 conservation"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Admitted { node, .. } => {
                *self.present(node) += 1;
                Ok(())
            }
            Fact::Left { node, request } => {
                let present = self.present(node);
                *present = present
                    .checked_sub(1)
                    .ok_or_else(|| format!("request {} left an empty node", request.0))?;
                Ok(())
            }
            Fact::Settled { node, holds } => {
                let present = *self.present(node);
                let held = (holds.queued + holds.in_lanes) as u64;
                if present == u64::from(holds.in_flight) && present == held {
                    return Ok(());
                }
                Err(format!(
                    "node {} should hold {present} requests; admission counts {}, {} wait and {} \
                     are in lanes",
                    node.0, holds.in_flight, holds.queued, holds.in_lanes
                ))
            }
            Fact::Stray { node } => Err(format!(
                "a machine of node {} named a request that is not there",
                node.0
            )),
            Fact::Submitted { .. }
            | Fact::HungUp { .. }
            | Fact::Ended { .. }
            | Fact::SentAgain
            | Fact::Queued(_)
            | Fact::Ran(_)
            | Fact::Applied { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Holdings, RequestNumber};

    #[test]
    fn a_request_too_many_or_too_few_is_found() {
        let node = NodeIndex(0);
        let judge = |in_flight, queued, in_lanes| {
            let mut invariant = Conservation::new(1);
            for number in 0..3 {
                let request = RequestNumber(number);
                invariant.observe(Instant::ZERO, &Fact::Admitted { request, node })?;
            }
            let request = RequestNumber(1);
            invariant.observe(Instant::ZERO, &Fact::Left { request, node })?;
            let holds = Holdings {
                in_flight,
                permits: 9,
                queued,
                in_lanes,
            };
            invariant.observe(Instant::ZERO, &Fact::Settled { node, holds })
        };
        assert_eq!(judge(2, 1, 1), Ok(()));
        assert!(judge(3, 1, 1).is_err());
        assert!(judge(2, 0, 1).is_err());
        assert!(judge(2, 1, 2).is_err());
        let stray = Fact::Stray { node };
        assert!(Conservation::new(1).observe(Instant::ZERO, &stray).is_err());
    }
}
