//! I8: queues and what is in flight have limits, and keep to them.

use paceline_core::Instant;
use paceline_protocol::limits::{FAILOVERS_MAX, QUEUE_ROWS_MAX};

use super::Invariant;
use crate::fact::{Fact, Queue};

pub(super) struct BoundedQueues;

impl Invariant for BoundedQueues {
    fn name(&self) -> &'static str {
        "I8 bounded-queues"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Queued(queue) = fact {
            return judge(queue);
        }
        let Fact::Settled { process, holds } = *fact else {
            return Ok(());
        };
        let node = process.node.0;
        if holds.in_flight > holds.permits {
            return Err(format!(
                "node {node} holds {} requests with {} permits",
                holds.in_flight, holds.permits
            ));
        }
        if holds.failovers > FAILOVERS_MAX {
            return Err(format!("node {node} has {} failovers", holds.failovers));
        }
        Ok(())
    }
}

/// A single request may be larger than the queue. What the queue may hold changes with the
/// learnt cost, so it is judged when a request has come to it.
fn judge(queue: &Queue) -> Result<(), String> {
    let most = queue.rows_max.min(u64::from(QUEUE_ROWS_MAX));
    if queue.rows > most && queue.requests > 1 {
        return Err(format!("{} rows wait where {most} may", queue.rows));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::{NodeIndex, Process};
    use crate::fact::Holdings;

    #[test]
    fn a_queue_over_its_limit_is_found() {
        let queue = |rows, requests, rows_max| {
            judge(&Queue {
                rows,
                requests,
                rows_max,
            })
        };
        assert_eq!(queue(100, 50, 100), Ok(()));
        assert!(queue(101, 50, 100).is_err());
        assert_eq!(queue(101, 1, 100), Ok(()));
        assert!(queue(u64::from(QUEUE_ROWS_MAX) + 1, 50, u64::MAX).is_err());
    }

    #[test]
    fn more_in_flight_than_permits_is_found() {
        let settled = |in_flight, failovers| Fact::Settled {
            process: Process {
                node: NodeIndex(0),
                life: 0,
            },
            holds: Holdings {
                in_flight,
                permits: 8,
                served: 0,
                queued: 0,
                in_lanes: 0,
                failovers,
                is_idle: false,
                forgotten_rows: 0,
            },
        };
        let judge = |in_flight, failovers| {
            BoundedQueues.observe(Instant::ZERO, &settled(in_flight, failovers))
        };
        assert_eq!(judge(8, 256), Ok(()));
        assert!(judge(9, 0).is_err());
        assert!(judge(0, 257).is_err());
    }
}
