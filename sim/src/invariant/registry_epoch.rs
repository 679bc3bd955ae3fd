//! I11: the registry's epoch only rises, on every node; no command is refused, except one that was
//! computed from assignments which have changed since, or came too late; no answer is of an epoch to come.

use std::collections::BTreeMap;

use paceline_core::Instant;
use paceline_protocol::Epoch;
use paceline_protocol::registry::Refusal;

use super::Invariant;
use crate::agenda::NodeIndex;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct RegistryEpoch {
    epoch: Epoch,
    followed: BTreeMap<NodeIndex, u64>,
}

impl RegistryEpoch {
    fn followed(&mut self, node: NodeIndex, index: u64) -> Result<(), String> {
        let before = self.followed.insert(node, index).unwrap_or(0);
        if index >= before {
            return Ok(());
        }
        let node = node.0;
        Err(format!(
            "node {node} has applied {before} and goes back to {index}"
        ))
    }
}

impl Invariant for RegistryEpoch {
    fn name(&self) -> &'static str {
        "I11 registry-epoch"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Followed { node, index } = *fact {
            return self.followed(node, index);
        }
        if let Fact::Ended { request, epoch, .. } = *fact
            && epoch > self.epoch
        {
            let (number, now) = (request.0, self.epoch);
            return Err(format!(
                "request {number} ended at epoch {epoch}, before {now}"
            ));
        }
        let Fact::Applied {
            epoch,
            change,
            refusal,
        } = *fact
        else {
            return Ok(());
        };
        let before = std::mem::replace(&mut self.epoch, epoch);
        if epoch <= before {
            return Err(format!("epoch {epoch} comes after {before}"));
        }
        match refusal {
            None | Some(Refusal::Outdated { .. }) => Ok(()),
            // The node was taken back before it could say that it had drained.
            Some(Refusal::NotDraining { .. }) => Ok(()),
            Some(refusal) => Err(format!("{change} at epoch {epoch} was refused: {refusal}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_epoch_and_a_wrong_command_are_found() {
        let outdated = Refusal::Outdated {
            computed_at: Epoch(1),
            changed_at: Epoch(2),
        };
        let wrong = Refusal::ReplicaCount {
            replicas: 0,
            limit: 1,
        };
        let mut invariant = RegistryEpoch::default();
        let mut judge = |epoch, refusal| {
            let fact = Fact::Applied {
                epoch: Epoch(epoch),
                change: "deploy",
                refusal,
            };
            invariant.observe(Instant::ZERO, &fact)
        };
        assert_eq!(judge(1, None), Ok(()));
        assert_eq!(judge(2, Some(&outdated)), Ok(()));
        assert!(judge(2, None).is_err());
        assert!(judge(3, Some(&wrong)).is_err());
    }
}
