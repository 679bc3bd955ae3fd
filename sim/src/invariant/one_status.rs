//! I1: every request that was sent gets exactly one terminal status, and every request that a
//! node admitted leaves it exactly once.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::{End, Fact, RequestNumber};

#[derive(Default)]
pub(super) struct OneStatus {
    requests: Vec<Fate>,
}

#[derive(Clone, Copy, Default)]
struct Fate {
    end: Option<End>,
    hung_up: bool,
    admitted: bool,
    left: bool,
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
        if let Some(first) = fate.end.replace(end) {
            let number = request.0;
            return Err(format!(
                "request {number} ended as {first:?} and as {end:?}"
            ));
        }
        if end == End::Cancelled && !fate.hung_up {
            let number = request.0;
            return Err(format!("request {number} was cancelled by nobody"));
        }
        Ok(())
    }

    fn left(&mut self, request: RequestNumber) -> Result<(), String> {
        let fate = self.fate(request)?;
        if !fate.admitted || std::mem::replace(&mut fate.left, true) {
            return Err(format!("request {} left where it was not", request.0));
        }
        Ok(())
    }
}

impl Invariant for OneStatus {
    fn name(&self) -> &'static str {
        "I1 one-status"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Submitted { request, .. } => self.submitted(request),
            Fact::HungUp { request } => {
                self.fate(request)?.hung_up = true;
                Ok(())
            }
            Fact::Admitted { request, .. } => {
                self.fate(request)?.admitted = true;
                Ok(())
            }
            Fact::Ended { request, end } => self.ended(request, end),
            Fact::Left { request, .. } => self.left(request),
            Fact::SentAgain
            | Fact::Stray { .. }
            | Fact::Queued(_)
            | Fact::Ran(_)
            | Fact::Settled { .. }
            | Fact::Applied { .. } => Ok(()),
        }
    }

    fn end(&self) -> Result<(), String> {
        let open = |fate: &&Fate| fate.end.is_none() || fate.admitted != fate.left;
        let first = self.requests.iter().position(|fate| open(&fate));
        let count = self.requests.iter().filter(open).count();
        first.map_or(Ok(()), |first| {
            Err(format!("{count} requests are open, request {first} first"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::NodeIndex;

    const REQUEST: RequestNumber = RequestNumber(0);

    fn judge(facts: &[Fact<'_>]) -> Result<(), String> {
        let mut invariant = OneStatus::default();
        for fact in facts {
            invariant.observe(Instant::ZERO, fact)?;
        }
        invariant.end()
    }

    fn submitted() -> Fact<'static> {
        let deadline = Instant::FAR;
        Fact::Submitted {
            request: REQUEST,
            deadline,
        }
    }

    fn ended(end: End) -> Fact<'static> {
        let request = REQUEST;
        Fact::Ended { request, end }
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
        let (request, node) = (REQUEST, NodeIndex(0));
        let stays = [
            submitted(),
            Fact::Admitted { request, node },
            ended(End::Answered),
        ];
        assert!(judge(&stays).is_err());
        let left = Fact::Left { request, node };
        let again = Fact::Left { request, node };
        let twice = [submitted(), Fact::Admitted { request, node }, left, again];
        assert!(judge(&twice).is_err());
    }
}
