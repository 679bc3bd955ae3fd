//! I11: the registry's epoch only rises, on every node; a repeated op-id gets its first answer and
//! changes nothing; no command is refused, except one that was computed from assignments which have
//! changed since, or came too late; no answer is of an epoch to come, nor of one before what its
//! client had seen when it asked.

use std::collections::BTreeMap;

use paceline_core::Instant;
use paceline_protocol::registry::{Command, Outcome, Refusal};
use paceline_protocol::{Epoch, OpId};

use super::Invariant;
use crate::agenda::NodeIndex;
use crate::fact::{End, Fact, RequestNumber};

#[derive(Default)]
pub(super) struct RegistryEpoch {
    epoch: Epoch,
    followed: BTreeMap<NodeIndex, u64>,
    answers: BTreeMap<OpId, Outcome>,
    /// The highest epoch that a client's answers have named.
    seen: BTreeMap<u16, Epoch>,
    /// Whose each request is, and what its client had seen then.
    requests: Vec<(u16, Epoch)>,
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

impl RegistryEpoch {
    fn ended(&mut self, (request, end): (RequestNumber, End), epoch: Epoch) -> Result<(), String> {
        let (number, now) = (request.0, self.epoch);
        if epoch > now {
            return Err(format!(
                "request {number} ended at epoch {epoch}, before {now}"
            ));
        }
        let known = self.requests.get(number as usize);
        let Some((client, before)) = known.copied().filter(|_| end == End::Answered) else {
            return Ok(());
        };
        let seen = self.seen.entry(client).or_default();
        *seen = epoch.max(*seen);
        if epoch < before {
            return Err(format!(
                "request {number} was answered at epoch {epoch}; its client had seen {before}"
            ));
        }
        Ok(())
    }

    fn answered(&mut self, command: &Command, outcome: &Outcome) -> Result<(), String> {
        let (change, epoch) = (command.change.name(), self.epoch);
        if let Some(first) = self.answers.get(&command.op) {
            if first == outcome {
                return Ok(());
            }
            return Err(format!(
                "{change} was repeated at epoch {epoch} and answered {outcome:?}, after {first:?}"
            ));
        }
        self.answers.insert(command.op, outcome.clone());
        match &outcome.result {
            Ok(_) | Err(Refusal::Outdated { .. }) => Ok(()),
            // The node was taken back before it could say that it had drained.
            Err(Refusal::NotDraining { .. }) => Ok(()),
            // What is decided of a canary is said again until the leader knows that it is done.
            Err(Refusal::NoCanary { .. } | Refusal::CanaryStage { .. }) => Ok(()),
            Err(refusal) => Err(format!("{change} at epoch {epoch} was refused: {refusal}")),
        }
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
        if let Fact::Submitted { client, .. } = *fact {
            let seen = self.seen.get(&client).copied().unwrap_or_default();
            self.requests.push((client, seen));
        }
        if let Fact::Ended {
            request,
            end,
            epoch,
        } = *fact
        {
            return self.ended((request, end), epoch);
        }
        let Fact::Applied {
            epoch,
            command,
            outcome,
        } = *fact
        else {
            return Ok(());
        };
        let before = std::mem::replace(&mut self.epoch, epoch);
        if epoch <= before {
            return Err(format!("epoch {epoch} comes after {before}"));
        }
        self.answered(command, outcome)
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::registry::{Change, Reply, SCHEMA};

    use super::*;

    /// The outcome of a command under an op-id, at an epoch.
    fn judge(
        invariant: &mut RegistryEpoch,
        (op, epoch): (u128, u64),
        (first, result): (u64, Result<Reply, Refusal>),
    ) -> Result<(), String> {
        let token = paceline_protocol::TokenId([0; 8]);
        let command = Command {
            schema: SCHEMA,
            op: OpId(op),
            stamped_ms: 0,
            expected_revision: None,
            change: Change::RevokeToken { token },
        };
        let outcome = Outcome {
            epoch: Epoch(first),
            result,
        };
        let applied = Fact::Applied {
            epoch: Epoch(epoch),
            command: &command,
            outcome: &outcome,
        };
        invariant.observe(Instant::ZERO, &applied)
    }

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
        let mut at = |op, epoch, result| judge(&mut invariant, (op, epoch), (epoch, result));
        assert_eq!(at(1, 1, Ok(Reply::Done)), Ok(()));
        assert_eq!(at(2, 2, Err(outdated)), Ok(()));
        assert!(at(3, 2, Ok(Reply::Done)).is_err());
        assert!(at(4, 3, Err(wrong)).is_err());
    }

    #[test]
    fn an_answer_that_takes_a_client_back_is_found() {
        let mut invariant = RegistryEpoch::default();
        for epoch in 1..=3 {
            let is_done = Ok(Reply::Done);
            judge(&mut invariant, (epoch.into(), epoch), (epoch, is_done)).unwrap();
        }
        let mut see = |fact| invariant.observe(Instant::ZERO, &fact);
        let submitted = |client| Fact::Submitted {
            request: RequestNumber(0),
            deadline: Instant::ZERO,
            is_once: false,
            client,
        };
        let answered = |request, epoch| Fact::Ended {
            request: RequestNumber(request),
            end: End::Answered,
            epoch: Epoch(epoch),
        };
        assert_eq!(see(submitted(0)), Ok(()));
        assert_eq!(see(submitted(0)), Ok(()));
        assert_eq!(see(answered(0, 3)), Ok(()));
        assert_eq!(see(answered(1, 2)), Ok(()), "it was sent before");
        assert_eq!(see(submitted(0)), Ok(()));
        assert_eq!(see(submitted(1)), Ok(()));
        assert_eq!(see(answered(3, 1)), Ok(()), "of another client");
        assert!(see(answered(2, 2)).is_err());
        assert!(see(answered(3, 4)).is_err(), "it is to come");
    }

    #[test]
    fn a_repeat_that_is_answered_otherwise_is_found() {
        let mut invariant = RegistryEpoch::default();
        let mut at = |epoch, first, result| judge(&mut invariant, (1, epoch), (first, result));
        assert_eq!(at(1, 1, Ok(Reply::Done)), Ok(()));
        assert_eq!(at(2, 1, Ok(Reply::Done)), Ok(()));
        assert!(at(3, 1, Err(Refusal::TokenUnknown)).is_err());
        assert!(at(4, 4, Ok(Reply::Done)).is_err());
    }
}
