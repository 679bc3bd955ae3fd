//! I3: a node has a request run twice at most; once if it must not run twice, or if its client has
//! lost another node that may have run it. What runs for the second time shares its batch with
//! nobody. And of what has run no node says that nothing of it ran.

use paceline_core::Instant;

use super::Invariant;
use crate::agenda::Process;
use crate::fact::{Batch, Fact, RequestNumber};

#[derive(Default)]
pub(super) struct Executions {
    requests: Vec<Request>,
}

#[derive(Clone, Copy, Default)]
struct Request {
    is_once: bool,
    runs: u8,
    /// Nodes that have let it in: a client that has lost one asks another, once.
    doors: [Option<Door>; DOORS_MAX],
}

#[derive(Clone, Copy)]
struct Door {
    process: Process,
    /// How often it may have the request run.
    most: u8,
    runs: u8,
    /// Whether it has said that nothing of the request ran.
    disclaims: bool,
}

impl Executions {
    fn request(&mut self, number: RequestNumber) -> Result<&mut Request, String> {
        let request = self.requests.get_mut(number.0 as usize);
        request.ok_or_else(|| format!("request {} was never sent", number.0))
    }

    fn admitted(
        &mut self,
        number: RequestNumber,
        (process, is_second): (Process, bool),
    ) -> Result<(), String> {
        let request = self.request(number)?;
        let most = if is_second { 1 } else { 2 };
        // Its client may ask the node next that had it from another one.
        if let Some(door) = request.door(process) {
            door.most += most;
            door.disclaims = false;
            return Ok(());
        }
        let free = request.doors.iter_mut().find(|door| door.is_none());
        let free = free.ok_or_else(|| format!("request {} was let in too often", number.0))?;
        *free = Some(Door {
            process,
            most,
            runs: 0,
            disclaims: false,
        });
        Ok(())
    }

    fn ran(&mut self, batch: &Batch<'_>) -> Result<(), String> {
        for member in batch.members {
            let number = member.request.0;
            let request = self.request(member.request)?;
            request.runs += 1;
            let (is_once, all) = (request.is_once, request.runs);
            if is_once && all > 1 {
                return Err(format!(
                    "request {number} must not run twice, and runs {all} times"
                ));
            }
            let door = request.door(member.door);
            let door = door.ok_or_else(|| format!("request {number} runs for nobody"))?;
            door.runs += 1;
            let (runs, most) = (door.runs, door.most);
            if runs > most {
                let node = member.door.node.0;
                return Err(format!(
                    "node {node} has request {number} run {runs} times, of {most}"
                ));
            }
            if door.disclaims {
                return Err(format!(
                    "request {number} runs, and was told as not executed"
                ));
            }
            // Of two attempts the first may be the later one to run: its node stood still.
            if member.is_alone && batch.members.len() > 1 {
                return Err(format!("request {number} runs again, and not alone"));
            }
        }
        Ok(())
    }

    fn disclaimed(&mut self, number: RequestNumber, process: Process) -> Result<(), String> {
        if let Some(door) = self.request(number)?.door(process) {
            door.disclaims = true;
            if door.runs > 0 {
                return Err(format!(
                    "request {} has run, and is told as not executed",
                    number.0
                ));
            }
        }
        Ok(())
    }
}

impl Request {
    fn door(&mut self, process: Process) -> Option<&mut Door> {
        let mut doors = self.doors.iter_mut().flatten();
        doors.find(|door| door.process == process)
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
            self.requests.push(Request {
                is_once,
                ..Request::default()
            });
        }
        if let Fact::Admitted {
            request,
            process,
            is_second,
            via: _,
        } = *fact
        {
            return self.admitted(request, (process, is_second));
        }
        if let Fact::Disclaimed { request, process } = *fact {
            return self.disclaimed(request, process);
        }
        Ok(())
    }
}

/// The node that a client asks first, and the one that it asks when that is silent.
const DOORS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use paceline_core::BucketId;
    use paceline_protocol::VersionNumber;

    use super::*;
    use crate::agenda::NodeIndex;
    use crate::fact::Member;

    const DOOR: Process = Process {
        node: NodeIndex(0),
        life: 0,
    };

    /// Two requests that were let in, the first of which may be one that must not run twice, or
    /// one of a client that has lost another node.
    fn admitted(is_once: bool, is_second: bool) -> Executions {
        let mut invariant = Executions::default();
        for number in 0..2 {
            let request = RequestNumber(number);
            let submitted = Fact::Submitted {
                request,
                deadline: Instant::FAR,
                is_once: is_once && number == 0,
                client: 0,
            };
            invariant.observe(Instant::ZERO, &submitted).unwrap();
            let admitted = Fact::Admitted {
                request,
                process: DOOR,
                is_second: is_second && number == 0,
                via: None,
            };
            invariant.observe(Instant::ZERO, &admitted).unwrap();
        }
        invariant
    }

    /// Runs the first so many requests in one batch.
    fn run(invariant: &mut Executions, count: u32, is_alone: bool) -> Result<(), String> {
        let member = |number| Member {
            request: RequestNumber(number),
            door: DOOR,
            deadline: Instant::FAR,
            is_wanted: true,
            version: (0, VersionNumber(1)),
            bucket: BucketId(0),
            rows: 1,
            tokens: 0,
            is_alone: is_alone && number == 0,
        };
        let members: Vec<Member> = (0..count).map(member).collect();
        let batch = Batch {
            version: (0, VersionNumber(1)),
            members: &members,
            rows: 2,
            rows_max: 8,
            tokens_max: 0,
            nanos: 1,
        };
        invariant.observe(Instant::ZERO, &Fact::Ran(batch))
    }

    fn judge(mut invariant: Executions, batches: &[(u32, bool)]) -> Result<(), String> {
        let runs = batches.iter();
        let mut judged = runs.map(|(count, is_alone)| run(&mut invariant, *count, *is_alone));
        judged.find(Result::is_err).unwrap_or(Ok(()))
    }

    #[test]
    fn a_third_run_and_company_in_the_second_are_found() {
        let usual = || admitted(false, false);
        assert_eq!(judge(usual(), &[(2, false), (1, true)]), Ok(()));
        assert!(judge(usual(), &[(1, false), (1, true), (1, true)]).is_err());
        assert!(judge(usual(), &[(1, false), (2, true)]).is_err());
    }

    #[test]
    fn a_second_run_of_what_may_run_once_is_found() {
        assert!(judge(admitted(true, false), &[(1, false), (1, true)]).is_err());
        assert_eq!(judge(admitted(false, true), &[(1, true)]), Ok(()));
        assert!(judge(admitted(false, true), &[(1, true), (1, true)]).is_err());
    }

    #[test]
    fn what_ran_and_is_told_as_not_executed_is_found() {
        let disclaimed = |invariant: &mut Executions, number| {
            let (request, process) = (RequestNumber(number), DOOR);
            let told = Fact::Disclaimed { request, process };
            invariant.observe(Instant::ZERO, &told)
        };
        let mut invariant = admitted(false, false);
        assert_eq!(run(&mut invariant, 1, false), Ok(()));
        assert!(disclaimed(&mut invariant, 0).is_err());
        assert_eq!(disclaimed(&mut invariant, 1), Ok(()));
        assert!(run(&mut invariant, 2, false).is_err(), "it ran after all");
    }
}
