//! I4: what serves on a node that leaves or is down is replaced first, and taken away only when as
//! many replicas as are wanted have become ready elsewhere.

use std::collections::BTreeSet;

use paceline_core::Instant;
use paceline_protocol::ReplicaId;
use paceline_protocol::registry::Change;

use super::Invariant;
use super::agreed::{Agreed, news};
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct Replaced {
    agreed: Agreed,
    /// Replicas that could serve once: what the leader has heard of them may be old.
    were_ready: BTreeSet<ReplicaId>,
}

impl Replaced {
    fn judge(&self, replica: ReplicaId) -> Result<(), String> {
        let Some(place) = self.agreed.replicas.get(&replica) else {
            return Ok(());
        };
        let Some(wanted) = self.agreed.models.get(&place.model) else {
            return Ok(());
        };
        let is_kept = wanted.deployed == place.version || wanted.serving == Some(place.version);
        if !is_kept || self.agreed.takes_work(place.node) {
            return Ok(());
        }
        let standing = self.agreed.standing(&place.model, place.version);
        let ready = standing
            .filter(|other| self.were_ready.contains(other))
            .count();
        let most = self.agreed.wanted(*wanted);
        if ready >= most {
            return Ok(());
        }
        let (model, node) = (&place.model, place.node);
        Err(format!(
            "replica {replica} of {model} on node {node} is taken away while {ready} others are ready, \
             of {most}"
        ))
    }
}

impl Invariant for Replaced {
    fn name(&self) -> &'static str {
        "I4 replaced"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Loaded { replica, .. } = *fact {
            self.were_ready.insert(replica);
        }
        let Some((change, outcome)) = news(fact) else {
            return Ok(());
        };
        if let Change::Unassign { replica, .. } = change
            && outcome.result.is_ok()
        {
            self.judge(*replica)?;
        }
        self.agreed.take(now, change, outcome);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::agreed::tests::Told;
    use super::*;
    use crate::agenda::{NodeIndex, Process};

    #[test]
    fn what_is_taken_away_before_others_are_ready_is_found() {
        let mut told = Told::new(Replaced::default());
        told.register(3);
        told.deploy(2);
        let replicas = [1, 2, 3].map(|node| told.assign(node));
        let load = |told: &mut Told<Replaced>, replica| {
            let process = Process {
                node: NodeIndex(0),
                life: 0,
            };
            told.see(0, &Fact::Loaded { process, replica }).unwrap();
        };
        load(&mut told, replicas[0]);
        load(&mut told, replicas[1]);
        told.drain(1, 1_000);
        assert!(told.unassign(replicas[0]).is_err(), "one of two is ready");

        let mut told = Told::new(Replaced::default());
        told.register(3);
        told.deploy(2);
        let replicas = [1, 2, 3].map(|node| told.assign(node));
        told.drain(1, 1_000);
        load(&mut told, replicas[1]);
        load(&mut told, replicas[2]);
        assert_eq!(told.unassign(replicas[0]), Ok(()));
        assert_eq!(told.unassign(replicas[1]), Ok(()), "its node stays");
    }
}
