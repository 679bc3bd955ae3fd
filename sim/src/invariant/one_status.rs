//! I1: every request that was sent gets exactly one terminal status, and every request that a
//! node admitted leaves it exactly once, unless the node dies.

use std::collections::BTreeSet;

use paceline_core::Instant;

use super::Invariant;
use crate::agenda::Process;
use crate::fact::{End, Fact, RequestNumber};

#[derive(Default)]
pub(super) struct OneStatus {
    requests: Vec<Fate>,
    /// With the node that has sent it on: a client that has lost that may ask the same node.
    present: BTreeSet<(Process, RequestNumber, Option<Process>)>,
}

#[derive(Clone, Copy, Default)]
struct Fate {
    end: Option<End>,
    hung_up: bool,
}

impl OneStatus {
    fn fate(&mut self, request: RequestNumber) -> Result<&mut Fate, String> {
        self.requests
            .get_mut(request.0 as usize)
            .ok_or_else(|| format!("request {} was never sent", request.0))
    }

    fn submitted(&mut self, request: RequestNumber) -> Result<(), String> {
        if self.requests.len() != request.0 as usize {
            return Err(format!("request {} was sent out of order", request.0));
        }
        self.requests.push(Fate::default());
        Ok(())
    }

    fn ended(&mut self, request: RequestNumber, end: End) -> Result<(), String> {
        let fate = self.fate(request)?;
        let number = request.0;
        if let Some(first) = fate.end.replace(end) {
            return Err(format!(
                "request {number} ended as {first:?} and as {end:?}"
            ));
        }
        if end == End::Cancelled && !fate.hung_up {
            return Err(format!("request {number} was cancelled by nobody"));
        }
        Ok(())
    }
}

impl Invariant for OneStatus {
    fn name(&self) -> &'static str {
        "I1 one-status"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Submitted { request, .. } = *fact {
            return self.submitted(request);
        }
        if let Fact::HungUp { request } = *fact {
            self.fate(request)?.hung_up = true;
        }
        if let Fact::Ended { request, end, .. } = *fact {
            return self.ended(request, end);
        }
        if let Fact::Admitted {
            request,
            process,
            via,
            ..
        } = *fact
            && !self.present.insert((process, request, via))
        {
            return Err(format!("request {} was let in twice", request.0));
        }
        if let Fact::Left {
            request,
            process,
            via,
        } = *fact
            && !self.present.remove(&(process, request, via))
        {
            return Err(format!("request {} left where it was not", request.0));
        }
        if let Fact::Died { process } = *fact {
            self.present.retain(|(at, ..)| *at != process);
        }
        Ok(())
    }

    fn end(&self, _now: Instant) -> Result<(), String> {
        let open = |fate: &&Fate| fate.end.is_none();
        let first = self.requests.iter().position(|fate| open(&fate));
        if let Some(first) = first {
            let count = self.requests.iter().filter(open).count();
            return Err(format!("{count} requests are open, request {first} first"));
        }
        match self.present.first() {
            None => Ok(()),
            Some((process, request, _)) => Err(format!(
                "{} requests have not left, request {} of node {} first",
                self.present.len(),
                request.0,
                process.node.0
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::Epoch;

    use super::*;
    use crate::agenda::NodeIndex;

    const REQUEST: RequestNumber = RequestNumber(0);

    fn judge(facts: &[Fact<'_>]) -> Result<(), String> {
        let mut invariant = OneStatus::default();
        for fact in facts {
            invariant.observe(Instant::ZERO, fact)?;
        }
        invariant.end(Instant::ZERO)
    }

    fn submitted() -> Fact<'static> {
        Fact::Submitted {
            request: REQUEST,
            deadline: Instant::FAR,
            is_once: false,
            client: 0,
        }
    }

    fn ended(end: End) -> Fact<'static> {
        let (request, epoch) = (REQUEST, Epoch(1));
        Fact::Ended {
            request,
            end,
            epoch,
        }
    }

    #[test]
    fn none_two_and_unfounded_statuses_are_found() {
        let request = REQUEST;
        assert_eq!(judge(&[submitted(), ended(End::Answered)]), Ok(()));
        assert!(judge(&[submitted()]).is_err());
        assert!(judge(&[ended(End::Answered)]).is_err());
        let twice = [submitted(), ended(End::Answered), ended(End::Expired)];
        assert!(judge(&twice).is_err());
        assert!(judge(&[submitted(), ended(End::Cancelled)]).is_err());
        let hung_up = [submitted(), Fact::HungUp { request }, ended(End::Cancelled)];
        assert_eq!(judge(&hung_up), Ok(()));
    }

    #[test]
    fn who_stays_or_leaves_twice_is_found() {
        let request = REQUEST;
        let process = Process {
            node: NodeIndex(0),
            life: 0,
        };
        let admitted = || Fact::Admitted {
            request,
            process,
            is_second: false,
            via: None,
        };
        let left = || Fact::Left {
            request,
            process,
            via: None,
        };
        let answered = || ended(End::Answered);
        assert!(judge(&[submitted(), admitted(), answered()]).is_err());
        assert!(judge(&[submitted(), admitted(), left(), left()]).is_err());
        assert!(judge(&[submitted(), admitted(), admitted()]).is_err());
        let died = Fact::Died { process };
        assert_eq!(judge(&[submitted(), admitted(), died, answered()]), Ok(()));
    }
}
