//! A replica whose engine fails is loaded again: not at once, not for ever, and not later than it
//! should. What is given up has failed often enough.

use std::collections::{BTreeMap, VecDeque};

use paceline_core::Instant;
use paceline_core::restart::RestartBudget;
use paceline_protocol::ReplicaId;

use super::Invariant;
use crate::agenda::Process;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct Restarts {
    budget: RestartBudget,
    /// Of replicas that have failed in the process that has them.
    failing: BTreeMap<(Process, ReplicaId), Failing>,
}

#[derive(Default)]
struct Failing {
    /// Within the budget's window before the last of them.
    failures: VecDeque<Instant>,
    /// Whether it waits to be loaded again.
    waits: bool,
    is_given_up: bool,
}

impl Restarts {
    fn failed(&mut self, now: Instant, of: (Process, ReplicaId)) {
        let window = self.budget.window;
        let failing = self.failing.entry(of).or_default();
        failing.failures.retain(|at| now.since(*at) <= window);
        failing.failures.push_back(now);
        failing.waits = true;
    }

    fn begins(&mut self, now: Instant, of: (Process, ReplicaId)) -> Result<(), String> {
        let (process, replica) = of;
        let place = format!("replica {replica} on node {}", process.node.0);
        let Some(failing) = self.failing.get_mut(&of) else {
            return Ok(());
        };
        failing.waits = false;
        let (budget, failures) = (self.budget, failing.failures.len() as u32);
        if failures >= budget.failures_max {
            let window = budget.window;
            return Err(format!(
                "{place} is loaded again after {failures} failures in {window:?}"
            ));
        }
        let waited = failing.failures.back().map(|at| now.since(*at));
        if waited.is_some_and(|waited| waited < budget.backoff_min / 2) {
            return Err(format!("{place} is loaded again after {waited:?} only"));
        }
        Ok(())
    }

    fn given_up(&mut self, of: (Process, ReplicaId)) -> Result<(), String> {
        let failing = self.failing.entry(of).or_default();
        (failing.waits, failing.is_given_up) = (false, true);
        let (failures, most) = (failing.failures.len() as u32, self.budget.failures_max);
        if failures >= most {
            return Ok(());
        }
        let (process, replica) = of;
        let node = process.node.0;
        Err(format!(
            "replica {replica} on node {node} is given up after {failures} failures; {most} are allowed"
        ))
    }
}

impl Invariant for Restarts {
    fn name(&self) -> &'static str {
        "restarts"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Loading { process, replica } = *fact {
            return self.begins(now, (process, replica));
        }
        if let Fact::Failed { process, replica } = *fact {
            self.failed(now, (process, replica));
        }
        if let Fact::GivenUp { process, replica } = *fact {
            return self.given_up((process, replica));
        }
        if let Fact::Died { process } = *fact {
            self.failing.retain(|(at, _), _| *at != process);
        }
        if let Fact::Unloaded { process, replica } = *fact {
            self.failing.remove(&(process, replica));
        }
        Ok(())
    }

    fn end(&self, now: Instant) -> Result<(), String> {
        let late = self.failing.iter().find(|(_, failing)| {
            let doubled = self.budget.backoff_min * (1 << (failing.failures.len().clamp(1, 7) - 1));
            let most = doubled.min(self.budget.backoff_max) + STANDSTILL;
            let last = failing.failures.back();
            failing.waits && last.is_some_and(|at| now.since(*at) > most)
        });
        late.map_or(Ok(()), |((process, replica), _)| {
            let node = process.node.0;
            Err(format!(
                "replica {replica} on node {node} has failed and was not loaded again"
            ))
        })
    }
}

/// A node that stands still wakes nobody.
const STANDSTILL: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::NodeIndex;

    const PROCESS: Process = Process {
        node: NodeIndex(0),
        life: 0,
    };

    /// Sees what happens to one replica, in order of the seconds.
    fn see(facts: &[(u64, &str)]) -> (Restarts, Result<(), String>) {
        let (mut restarts, process, replica) = (Restarts::default(), PROCESS, ReplicaId(1));
        for (seconds, what) in facts {
            let fact = match *what {
                "loads" => Fact::Loading { process, replica },
                "fails" => Fact::Failed { process, replica },
                "dies" => Fact::Died { process },
                "leaves" => Fact::Unloaded { process, replica },
                _ => Fact::GivenUp { process, replica },
            };
            let now = Instant::from_nanos(seconds * 1_000_000_000);
            let judged = restarts.observe(now, &fact);
            if judged.is_err() {
                return (restarts, judged);
            }
        }
        (restarts, Ok(()))
    }

    #[test]
    fn what_is_loaded_again_too_early_or_too_often_is_found() {
        assert_eq!(see(&[(0, "loads"), (1, "fails"), (2, "loads")]).1, Ok(()));
        assert!(see(&[(0, "loads"), (1, "fails"), (1, "loads")]).1.is_err());
        let four = [(0, "fails"), (1, "fails"), (2, "fails"), (3, "fails")];
        let often = |more: &[(u64, &str)]| see(&[&four[..], more].concat()).1;
        assert_eq!(often(&[(9, "loads")]), Ok(()));
        assert!(often(&[(4, "fails"), (9, "loads")]).is_err());
        let later = often(&[(604, "fails"), (609, "loads")]);
        assert_eq!(later, Ok(()), "what is long ago does not count");
        assert_eq!(often(&[(4, "fails"), (4, "gives up")]), Ok(()));
        assert!(often(&[(4, "gives up")]).is_err(), "it may fail once more");
    }

    #[test]
    fn what_is_not_loaded_again_is_found() {
        let end = |facts: &[(u64, &str)], seconds: u64| {
            let now = Instant::from_nanos(seconds * 1_000_000_000);
            see(facts).0.end(now)
        };
        assert_eq!(end(&[(0, "fails")], 11), Ok(()), "it may still wait");
        assert!(end(&[(0, "fails")], 12).is_err());
        assert_eq!(end(&[(0, "fails"), (1, "loads")], 12), Ok(()));
        assert_eq!(end(&[(0, "fails"), (1, "dies")], 12), Ok(()));
        assert_eq!(end(&[(0, "fails"), (1, "leaves")], 12), Ok(()));
    }
}
