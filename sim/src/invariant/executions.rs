//! I3: a node has a request run twice at most, and once if it must not run twice; what runs for
//! the second time shares its batch with nobody.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::{Batch, Fact};

#[derive(Default)]
pub(super) struct Executions {
    requests: Vec<Runs>,
}

#[derive(Clone, Copy, Default)]
struct Runs {
    is_once: bool,
    /// Nodes that have let it in: a client that has lost one asks another.
    doors: u8,
    runs: u8,
}

impl Executions {
    fn ran(&mut self, batch: &Batch<'_>) -> Result<(), String> {
        for member in batch.members {
            let number = member.request.0;
            let request = self.requests.get_mut(number as usize);
            let request = request.ok_or_else(|| format!("request {number} was never sent"))?;
            request.runs += 1;
            // A client cannot know that its first door had tried again already.
            let most = match request.is_once {
                true => 1,
                false => 1 + request.doors,
            };
            let runs = request.runs;
            if runs > most {
                return Err(format!("request {number} runs {runs} times, of {most}"));
            }
            if member.is_alone && batch.members.len() > 1 {
                return Err(format!("request {number} runs again, and not alone"));
            }
        }
        Ok(())
    }
}

impl Invariant for Executions {
    fn name(&self) -> &'static str {
        "I3 executions"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Ran(batch) = fact {
            return self.ran(batch);
        }
        if let Fact::Submitted { is_once, .. } = *fact {
            self.requests.push(Runs {
                is_once,
                ..Runs::default()
            });
        }
        if let Fact::Admitted { request, .. } = *fact
            && let Some(request) = self.requests.get_mut(request.0 as usize)
        {
            request.doors += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use paceline_core::BucketId;
    use paceline_protocol::VersionNumber;

    use super::*;
    use crate::agenda::{NodeIndex, Process};
    use crate::fact::{Member, RequestNumber};

    /// Runs a request in batches of so many members, and judges.
    fn judge(is_once: bool, batches: &[(usize, bool)]) -> Result<(), String> {
        let mut invariant = Executions::default();
        for number in 0..2 {
            let request = RequestNumber(number);
            let submitted = Fact::Submitted {
                request,
                deadline: Instant::FAR,
                is_once: is_once && number == 0,
            };
            invariant.observe(Instant::ZERO, &submitted)?;
            let node = NodeIndex(0);
            let process = Process { node, life: 0 };
            invariant.observe(Instant::ZERO, &Fact::Admitted { request, process })?;
        }
        for (count, is_alone) in batches {
            let member = |number| Member {
                request: RequestNumber(number),
                version: (0, VersionNumber(1)),
                bucket: BucketId(0),
                rows: 1,
                is_alone: *is_alone && number == 0,
            };
            let members: Vec<Member> = (0..*count as u32).map(member).collect();
            let batch = Batch {
                version: (0, VersionNumber(1)),
                members: &members,
                rows: 2,
                rows_max: 8,
                nanos: 1,
            };
            invariant.observe(Instant::ZERO, &Fact::Ran(batch))?;
        }
        Ok(())
    }

    #[test]
    fn a_third_run_and_company_in_the_second_are_found() {
        assert_eq!(judge(false, &[(2, false), (1, true)]), Ok(()));
        assert!(judge(false, &[(1, false), (1, true), (1, true)]).is_err());
        assert!(judge(false, &[(1, false), (2, true)]).is_err());
        assert!(judge(true, &[(1, false), (1, true)]).is_err());
    }
}
