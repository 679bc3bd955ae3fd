//! Policy of a request that did not get its answer: whether it is sent once more, and at whose
//! expense.
//!
//! What was certainly not executed may go elsewhere for free, a few times. What may have been
//! executed by a node that fell silent goes elsewhere once. If the second node falls silent
//! too, the request is taken for what silenced them, and tried no more.

/// How an attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Certainly not executed: the replica is gone or draining, or nothing was sent.
    NotExecuted,
    /// The node fell silent: it may have been executed.
    Silent,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it once more, elsewhere.
    Again,
    /// Tell the caller how the attempt ended; the caller may try again.
    GiveUp,
    /// Two nodes fell silent over it: tell the caller not to try again.
    Poison,
}

/// The attempts of one request. Costs nothing to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    is_idempotent: bool,
    rerouted: u8,
    silenced: u8,
}

impl Attempts {
    /// A request that is about to be sent for the first time. One that is not idempotent is
    /// never executed twice.
    pub fn new(is_idempotent: bool) -> Self {
        Self {
            is_idempotent,
            rerouted: 0,
            silenced: 0,
        }
    }

    /// Which attempt the next one is, from 1.
    pub fn next_number(&self) -> u8 {
        1 + self.rerouted + self.silenced
    }

    /// Decides about an attempt that has ended.
    pub fn ended(&mut self, end: End) -> Verdict {
        match end {
            End::NotExecuted if self.rerouted < REROUTES_MAX => {
                self.rerouted += 1;
                Verdict::Again
            }
            End::NotExecuted => Verdict::GiveUp,
            End::Silent => {
                self.silenced += 1;
                match self.silenced {
                    1 if self.is_idempotent => Verdict::Again,
                    1 => Verdict::GiveUp,
                    _ => Verdict::Poison,
                }
            }
        }
    }
}

/// A request that finds its replica gone so often meets changes that will not be over soon.
const REROUTES_MAX: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_executed_goes_elsewhere_three_times() {
        let mut attempts = Attempts::new(false);
        for number in 1..=3 {
            assert_eq!(attempts.next_number(), number);
            assert_eq!(attempts.ended(End::NotExecuted), Verdict::Again);
        }
        assert_eq!(attempts.ended(End::NotExecuted), Verdict::GiveUp);
    }

    #[test]
    fn silence_is_answered_once_and_then_suspected() {
        let mut attempts = Attempts::new(true);
        assert_eq!(attempts.ended(End::Silent), Verdict::Again);
        assert_eq!(attempts.ended(End::NotExecuted), Verdict::Again, "not run");
        assert_eq!(attempts.ended(End::Silent), Verdict::Poison);
    }

    #[test]
    fn what_must_not_run_twice_is_not_tried_after_silence() {
        let mut attempts = Attempts::new(false);
        assert_eq!(attempts.ended(End::Silent), Verdict::GiveUp);
    }
}
