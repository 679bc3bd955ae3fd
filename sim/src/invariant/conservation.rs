//! I9: nothing is lost or made on the way. Between two events, what a node admitted and has not
//! let go is what its admission counts, and what it serves waits in a queue or sits in a lane.

use std::collections::BTreeMap;

use paceline_core::Instant;

use super::Invariant;
use crate::agenda::Process;
use crate::fact::{Fact, Holdings};

#[derive(Default)]
pub(super) struct Conservation {
    /// Admitted and not let go.
    present: BTreeMap<Process, u64>,
}

impl Invariant for Conservation {
    fn name(&self) -> &'static str {
        "I9 conservation"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Settled { process, holds } = *fact {
            let present = self.present.get(&process).copied().unwrap_or(0);
            return judge(process, present, holds);
        }
        if let Fact::Admitted { process, .. } = *fact {
            *self.present.entry(process).or_default() += 1;
        }
        if let Fact::Left {
            process, request, ..
        } = *fact
        {
            let present = self.present.get_mut(&process).filter(|count| **count > 0);
            *present.ok_or_else(|| format!("request {} left an empty node", request.0))? -= 1;
        }
        if let Fact::Died { process } = *fact {
            self.present.remove(&process);
        }
        if let Fact::Stray { node } = *fact {
            return Err(format!(
                "a machine of node {} named a request that is not there",
                node.0
            ));
        }
        Ok(())
    }
}

fn judge(process: Process, present: u64, holds: Holdings) -> Result<(), String> {
    let node = process.node.0;
    if present != u64::from(holds.in_flight) {
        return Err(format!(
            "node {node} should hold {present} requests; admission counts {}",
            holds.in_flight
        ));
    }
    if holds.in_flight == 0 && holds.failovers > 0 {
        return Err(format!(
            "node {node} has no request in flight and counts {} failovers",
            holds.failovers
        ));
    }
    if holds.forgotten_rows > 0 {
        return Err(format!(
            "node {node} has no request in flight and its router counts {} rows",
            holds.forgotten_rows
        ));
    }
    if holds.served != holds.queued + holds.in_lanes {
        return Err(format!(
            "node {node} serves {} dispatches; {} wait and {} are in lanes",
            holds.served, holds.queued, holds.in_lanes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::NodeIndex;
    use crate::fact::RequestNumber;

    const PROCESS: Process = Process {
        node: NodeIndex(0),
        life: 0,
    };

    fn admitted(request: RequestNumber) -> Fact<'static> {
        Fact::Admitted {
            request,
            process: PROCESS,
            is_second: false,
            via: None,
        }
    }

    fn holds(in_flight: u32, served: usize, in_lanes: usize) -> Holdings {
        Holdings {
            in_flight,
            permits: 9,
            served,
            queued: 1,
            in_lanes,
            failovers: 0,
            is_idle: false,
            forgotten_rows: 0,
        }
    }

    #[test]
    fn a_request_too_many_or_too_few_is_found() {
        let judge = |holds| {
            let (mut invariant, process) = (Conservation::default(), PROCESS);
            for number in 0..3 {
                let request = RequestNumber(number);
                invariant.observe(Instant::ZERO, &admitted(request))?;
            }
            let request = RequestNumber(1);
            invariant.observe(
                Instant::ZERO,
                &Fact::Left {
                    request,
                    process,
                    via: None,
                },
            )?;
            invariant.observe(Instant::ZERO, &Fact::Settled { process, holds })
        };
        assert_eq!(judge(holds(2, 2, 1)), Ok(()));
        assert!(judge(holds(3, 2, 1)).is_err());
        assert!(judge(holds(2, 1, 1)).is_err());
        assert!(judge(holds(2, 2, 2)).is_err());
        let charged = Holdings {
            failovers: 1,
            ..holds(0, 2, 1)
        };
        let counted = Holdings {
            forgotten_rows: 1,
            ..holds(0, 2, 1)
        };
        for holds in [charged, counted] {
            let settled = Fact::Settled {
                process: PROCESS,
                holds,
            };
            let mut invariant = Conservation::default();
            assert!(invariant.observe(Instant::ZERO, &settled).is_err());
        }
        let stray = Fact::Stray { node: NodeIndex(0) };
        let mut invariant = Conservation::default();
        assert!(invariant.observe(Instant::ZERO, &stray).is_err());
    }

    #[test]
    fn what_a_dead_process_held_is_gone() {
        let (mut invariant, process) = (Conservation::default(), PROCESS);
        let request = RequestNumber(0);
        let facts = [
            admitted(request),
            Fact::Died { process },
            Fact::Left {
                request,
                process,
                via: None,
            },
        ];
        let judged = facts.map(|fact| invariant.observe(Instant::ZERO, &fact).is_ok());
        assert_eq!(judged, [true, true, false]);
    }
}
