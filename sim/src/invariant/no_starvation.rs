//! I7: nothing waits without need, and nobody waits for what is of no use. No lane is idle while a
//! request waits; and no batch begins with a request that nobody wants any more, since its time is
//! over or its caller has gone.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::Fact;

pub(super) struct NoStarvation;

impl Invariant for NoStarvation {
    fn name(&self) -> &'static str {
        "I7 no-starvation"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Settled { process, holds } = *fact
            && holds.is_idle
            && holds.queued > 0
        {
            let (node, queued) = (process.node.0, holds.queued);
            return Err(format!(
                "node {node} has an idle lane while {queued} requests wait"
            ));
        }
        let Fact::Ran(batch) = fact else {
            return Ok(());
        };
        for member in batch.members {
            let number = member.request.0;
            if !member.is_wanted {
                return Err(format!(
                    "request {number} runs, and was cancelled before its batch began"
                ));
            }
            if member.deadline <= now {
                return Err(format!("request {number} runs when its time is over"));
            }
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
    use crate::fact::{Batch, Holdings, Member, RequestNumber};

    const PROCESS: Process = Process {
        node: NodeIndex(0),
        life: 0,
    };

    #[test]
    fn a_lane_that_is_idle_while_something_waits_is_found() {
        let settled = |is_idle, queued| Fact::Settled {
            process: PROCESS,
            holds: Holdings {
                in_flight: 1,
                permits: 8,
                served: 1,
                queued,
                in_lanes: 0,
                failovers: 0,
                is_idle,
                forgotten_rows: 0,
            },
        };
        let judge =
            |is_idle, queued| NoStarvation.observe(Instant::ZERO, &settled(is_idle, queued));
        assert_eq!(judge(true, 0), Ok(()));
        assert_eq!(judge(false, 1), Ok(()));
        assert!(judge(true, 1).is_err());
    }

    #[test]
    fn what_nobody_wants_and_runs_is_found() {
        let judge = |is_wanted, now| {
            let member = Member {
                request: RequestNumber(0),
                door: PROCESS,
                deadline: Instant::from_nanos(10),
                is_wanted,
                version: (0, VersionNumber(1)),
                bucket: BucketId(0),
                rows: 1,
                tokens: 0,
                is_alone: false,
            };
            let batch = Batch {
                version: (0, VersionNumber(1)),
                members: &[member],
                rows: 1,
                rows_max: 8,
                tokens_max: 0,
                nanos: 1,
            };
            NoStarvation.observe(Instant::from_nanos(now), &Fact::Ran(batch))
        };
        assert_eq!(judge(true, 9), Ok(()));
        assert!(judge(true, 10).is_err());
        assert!(judge(false, 9).is_err());
    }
}
