//! I14: some seconds after the last thing has broken, been mended or been asked for, the cluster is
//! as it shall be: nobody who runs is held for down, and each version that shall serve does, on as
//! many replicas as are wanted, all of them ready. What a node has given up, because its engine has
//! failed too often, is replaced by nodes that have not, as far as there are any.

use std::collections::BTreeSet;

use paceline_core::Instant;
use paceline_protocol::ReplicaId;
use paceline_protocol::registry::Change;

use super::Invariant;
use super::agreed::{Agreed, news};
use crate::agenda::Process;
use crate::fact::Fact;
use crate::scenario::Scenario;

pub(super) struct Converged {
    agreed: Agreed,
    ready: BTreeSet<(Process, ReplicaId)>,
    given_up: BTreeSet<(Process, ReplicaId)>,
    /// When something was broken, mended or asked for last.
    disturbed: Instant,
    /// Whether every node has room for all versions.
    is_roomy: bool,
}

impl Converged {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let models = scenario.models.iter();
        let needed_mib: u64 = models.flat_map(|m| &m.versions).map(|v| v.memory_mib).sum();
        let groups = scenario.cluster.groups.iter();
        Self {
            agreed: Agreed::default(),
            ready: BTreeSet::new(),
            given_up: BTreeSet::new(),
            disturbed: Instant::from_nanos(scenario.mended_ms() * 1_000_000),
            is_roomy: groups.map(|group| group.memory_mib).min() >= Some(needed_mib),
        }
    }

    fn judge(&self) -> Result<(), String> {
        if let Some((node, _)) = self.agreed.nodes.iter().find(|(_, known)| known.is_down) {
            return Err(format!("node {node} runs, and is held for down"));
        }
        let ids = |set: &BTreeSet<(Process, ReplicaId)>| -> BTreeSet<ReplicaId> {
            set.iter().map(|(_, id)| *id).collect()
        };
        let (ready, given_up) = (ids(&self.ready), ids(&self.given_up));
        for (model, wanted) in &self.agreed.models {
            let version = wanted.deployed;
            let most = self.agreed.wanted(*wanted);
            let standing = self.agreed.standing(model, version);
            let (mut able, mut lost) = (0, 0);
            for id in standing {
                able += usize::from(ready.contains(&id));
                lost += usize::from(given_up.contains(&id));
            }
            let possible = self.agreed.working().saturating_sub(lost);
            if able < most.min(possible) && self.is_roomy {
                return Err(format!(
                    "{able} replicas of version {version} of {model} are ready; {most} are wanted"
                ));
            }
            let shall_serve = lost == 0 || able >= most;
            if most > 0 && shall_serve && wanted.serving != Some(version) {
                return Err(format!(
                    "version {version} of {model} shall serve, and does not"
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for Converged {
    fn name(&self) -> &'static str {
        "I14 converged"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Loaded { process, replica } = *fact {
            self.ready.insert((process, replica));
        }
        if let Fact::Failed { process, replica } = *fact {
            self.ready.remove(&(process, replica));
            self.disturbed = self.disturbed.max(now);
        }
        if let Fact::GivenUp { process, replica } = *fact {
            self.given_up.insert((process, replica));
        }
        if let Fact::Died { process } = *fact {
            self.ready.retain(|(at, _)| *at != process);
            self.given_up.retain(|(at, _)| *at != process);
            self.disturbed = self.disturbed.max(now);
        }
        if let Some((change, outcome)) = news(fact) {
            self.agreed.take(now, change, outcome);
            let is_asked = matches!(
                change,
                Change::RegisterNode(_)
                    | Change::Deploy { .. }
                    | Change::PromoteCanary { .. }
                    | Change::AbortCanary { .. }
                    | Change::Drain { .. }
                    | Change::Undrain { .. }
            );
            if is_asked {
                self.disturbed = self.disturbed.max(now);
            }
        }
        Ok(())
    }

    fn end(&self, now: Instant) -> Result<(), String> {
        if now.nanos_since(self.disturbed) < REST_NANOS {
            return Ok(());
        }
        self.judge()
    }
}

/// A node starts, is believed, is given a replica and loads it, one thing after the other; a
/// leader that is new waits 2 s until peers have told what they have.
const REST_NANOS: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use paceline_protocol::{Epoch, NodeId};

    use super::super::agreed::tests::Told;
    use super::*;
    use crate::agenda::NodeIndex;

    const PROCESS: Process = Process {
        node: NodeIndex(0),
        life: 0,
    };

    /// Two nodes, of which one has the replica that is wanted.
    fn told() -> (Told<Converged>, ReplicaId) {
        let scenario = Scenario::named("steady").unwrap();
        let mut told = Told::new(Converged::new(&scenario));
        told.register(2);
        told.deploy(1);
        let replica = told.assign(1);
        (told, replica)
    }

    fn rest(told: &mut Told<Converged>, nanos: u64) -> Result<(), String> {
        told.invariant.end(Instant::from_nanos(nanos))
    }

    #[test]
    fn what_is_not_ready_or_does_not_serve_in_the_end_is_found() {
        let (mut told, replica) = told();
        assert_eq!(rest(&mut told, REST_NANOS - 1), Ok(()), "it has its time");
        assert!(rest(&mut told, REST_NANOS).is_err(), "none is ready");
        let process = PROCESS;
        told.see(0, &Fact::Loaded { process, replica }).unwrap();
        assert!(rest(&mut told, REST_NANOS).is_err(), "it does not serve");
        told.activate();
        assert_eq!(rest(&mut told, REST_NANOS), Ok(()));
        told.see(0, &Fact::Failed { process, replica }).unwrap();
        assert!(rest(&mut told, REST_NANOS).is_err(), "it has failed");
        told.see(0, &Fact::GivenUp { process, replica }).unwrap();
        assert!(rest(&mut told, REST_NANOS).is_err(), "another node is left");
        let replica = told.assign(2);
        told.see(0, &Fact::GivenUp { process, replica }).unwrap();
        assert_eq!(rest(&mut told, REST_NANOS), Ok(()), "all gave it up");
        told.see(0, &Fact::Died { process }).unwrap();
        assert!(rest(&mut told, REST_NANOS).is_err(), "it is gone");
    }

    #[test]
    fn who_is_held_for_down_in_the_end_is_found() {
        let (mut told, replica) = told();
        let process = PROCESS;
        told.see(0, &Fact::Loaded { process, replica }).unwrap();
        told.activate();
        let (node, computed_at) = (NodeId(2), Epoch(4));
        let down = Change::MarkDown { node, computed_at };
        told.take(down).1.unwrap();
        assert!(rest(&mut told, REST_NANOS).is_err());
        let up = Change::MarkUp { node, computed_at };
        told.take(up).1.unwrap();
        assert_eq!(rest(&mut told, REST_NANOS), Ok(()));
    }
}
