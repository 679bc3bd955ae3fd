//! I2: the status comes by the deadline, not one nanosecond later; and nobody is told before
//! it that the deadline has passed.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::{End, Fact};

#[derive(Default)]
pub(super) struct Deadlines {
    deadlines: Vec<Instant>,
}

impl Invariant for Deadlines {
    fn name(&self) -> &'static str {
        "I2 deadline"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Submitted { deadline, .. } = fact {
            self.deadlines.push(*deadline);
        }
        let Fact::Ended { request, end, .. } = *fact else {
            return Ok(());
        };
        let number = request.0;
        let deadline = self.deadlines.get(number as usize).copied();
        let deadline = deadline.ok_or_else(|| format!("request {number} was never sent"))?;
        if now > deadline {
            let late = now.nanos_since(deadline);
            return Err(format!(
                "request {number} ended as {end:?} {late} ns after its deadline"
            ));
        }
        if end == End::Expired && now < deadline {
            let early = deadline.nanos_since(now);
            return Err(format!(
                "request {number} was called expired {early} ns before its deadline"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::RequestNumber;

    fn judge(at: u64, end: End) -> Result<(), String> {
        let request = RequestNumber(0);
        let deadline = Instant::from_nanos(10);
        let mut invariant = Deadlines::default();
        let submitted = Fact::Submitted {
            request,
            deadline,
            is_once: false,
            client: 0,
        };
        invariant.observe(Instant::ZERO, &submitted)?;
        let ended = Fact::Ended {
            request,
            end,
            epoch: paceline_protocol::Epoch(1),
        };
        invariant.observe(Instant::from_nanos(at), &ended)
    }

    #[test]
    fn a_nanosecond_too_late_or_too_early_is_found() {
        assert_eq!(judge(10, End::Answered), Ok(()));
        assert!(judge(11, End::Answered).is_err());
        assert_eq!(judge(10, End::Expired), Ok(()));
        assert!(judge(9, End::Expired).is_err());
    }
}
