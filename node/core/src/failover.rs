//! Policy of one request's attempts: how an attempt ended decides whether there is another.
//!
//! | an attempt ended as                         | then                                        |
//! |---------------------------------------------|---------------------------------------------|
//! | not executed: gone, not sent                | elsewhere at once, free, three times        |
//! | not sent: no replica to be had for now      | waits for one, 2 s at most                  |
//! | not executed: overloaded                    | elsewhere, if the budget of retries allows  |
//! | executed, passing error                     | once more, if idempotent and budget allows  |
//! | unknown: what served it has died            | one failover, outside the ratio, if idempotent |
//! | unknown: its node is silent                 | likewise                                    |
//! | the failover of a death finds no replica    | waits for one, 2 s at most                  |
//! | unknown again: the second is gone too       | `POISON`                                    |
//!
//! A version is without a replica for a moment when a node hears that one has left before it
//! hears that another is ready, and while an engine that has died is started again: that is not
//! told as a failure while it may pass. Two executions
//! at most; nothing begins after the deadline. The second execution shares its batch with nobody
//! and never goes to a node that is silent already: it may be what silenced the first one. An
//! attempt whose node is only suspect may still answer: its caller goes on listening while the
//! failover runs, and the first answer wins. A client that has lost the node which it asked first
//! has spent one of the two executions there. What an attempt ended as is read off its failure by
//! [`End::of`]. Holds no memory of its own, so a request's task keeps it on its stack.

mod end;

use std::time::Duration;

use paceline_protocol::frame::Execution;
use paceline_protocol::limits::{EXECUTIONS_MAX, REROUTES_MAX};

use crate::router::InSequence;
use paceline_protocol::{Criticality, NodeId, TenantId};

pub use self::end::End;
use crate::budget::{Budget, Extra};
use crate::planted::Bug;
use crate::time::Instant;

/// What is known of a request before its first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When its answer is worthless.
    pub deadline: Instant,
    /// Whether it may run twice.
    pub is_idempotent: bool,
    /// Whether its client has lost another node that may have run it.
    pub is_second: bool,
    /// That node, if it is known: others may not have noticed yet that it is silent, so it is not
    /// asked before those are.
    pub lost: Option<NodeId>,
    /// How much it matters.
    pub criticality: Criticality,
    /// Who sends it.
    pub tenant: TenantId,
    /// The sequence that it belongs to, if it does: then it is not idempotent either.
    pub sequence: Option<InSequence>,
}

/// Names an attempt of one request while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(u8);

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send it to a replica on a node that it has not been to.
    Send {
        /// The name of the attempt.
        attempt: Attempt,
        /// Whether it shares its batch with nobody, and avoids nodes that are suspect.
        is_alone: bool,
        /// What it is there for.
        why: Why,
    },
    /// Nothing has run, and a replica may become ready any moment: ask again with
    /// [`Failover::resume`] when one may have, or at the latest then.
    Wait {
        /// The attempt that waits.
        attempt: Attempt,
        /// When no replica is expected any more.
        until: Instant,
    },
    /// As many failovers are under way as may be: ask again with [`Failover::again`] when one
    /// has ended, and listen meanwhile.
    Queue,
    /// Nothing more can be begun, but an attempt may still answer: listen until the deadline.
    Listen,
    /// The request has ended without an answer.
    End(Ending),
}

/// What an attempt is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the first.
    First,
    /// The one before did not run, since its replica was gone.
    Reroute,
    /// The one before met overload or a passing error.
    Retry,
    /// The node of the one before fell silent, or what served it there has died.
    Failover,
}

/// How a request ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its last attempt did.
    AsItIs,
    /// No replica of its version is left, and nothing of it ran: it may be pinned anew.
    Gone,
    /// It may have been executed, and may not or cannot be tried again.
    Unknown,
    /// Two nodes vanished while they ran it, or engines died.
    Poison,
    /// Its deadline has passed.
    Late,
}

/// The attempts of one request.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    terms: Terms,
    /// Since it was sent first, or has last waited.
    moves: u8,
    /// Whether the last attempt that did not run met overload.
    is_overloaded: bool,
    /// No replica is waited for any longer.
    waits_until: Option<Instant>,
    places: [Place; EXECUTIONS_MAX],
    charges: [Option<Extra>; EXECUTIONS_MAX],
}

/// What became of one of the executions that a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    /// Spent at a node that its client has lost.
    Spent,
    Running,
    Failed,
    /// It may have run, and nothing more is heard of it.
    Left,
    /// What ran it has died.
    Died,
    Suspect,
    Lost,
}

impl Failover {
    /// A request whose first attempt begins now.
    pub fn begin(terms: Terms) -> (Self, Next) {
        let mut failover = Self {
            terms,
            moves: 0,
            is_overloaded: false,
            waits_until: None,
            places: [Place::Free; EXECUTIONS_MAX],
            charges: [None; EXECUTIONS_MAX],
        };
        if terms.is_second {
            failover.places[0] = Place::Spent;
        }
        let first = failover.start(usize::from(terms.is_second), Why::First);
        (failover, first)
    }

    /// An attempt has ended without an answer, or has become suspect, or a suspect one is lost.
    pub fn ended(&mut self, now: Instant, attempt: Attempt, end: End, budget: &mut Budget) -> Next {
        let place = usize::from(attempt.0);
        self.places[place] = match end {
            End::Gone | End::Overloaded | End::Nowhere | End::NotYet { .. } | End::Refused => {
                Place::Free
            }
            End::Passing | End::Failed => Place::Failed,
            End::Left => Place::Left,
            End::Died => Place::Died,
            End::Suspect => Place::Suspect,
            End::Lost => Place::Lost,
            // Whatever came of it, its client has gone.
            End::Late => Place::Spent,
        };
        // A failover that moves on is still one; a suspect attempt still costs its node.
        if !matches!(end, End::Suspect | End::Gone)
            && let Some(extra) = self.charges[place].take()
        {
            budget.give_back(extra);
        }
        match end {
            _ if now >= self.terms.deadline => Next::End(Ending::Late),
            End::Late => Next::End(Ending::Late),
            End::Gone => {
                self.is_overloaded = false;
                self.move_on(place, Why::Reroute)
            }
            End::Overloaded => {
                self.is_overloaded = true;
                let next = self.move_on(place, Why::Retry);
                let Next::Send { .. } = next else { return next };
                if !budget.take(Extra::Retry) {
                    self.places[place] = Place::Free;
                    return self.rest(Ending::AsItIs);
                }
                self.charge(place, Extra::Retry, budget);
                next
            }
            End::Nowhere if self.may_move() => Next::End(Ending::Gone),
            End::NotYet { since } if self.may_move() || self.may_return() => {
                self.wait(now, attempt, since)
            }
            End::Passing if self.terms.is_idempotent => self.repeat(Extra::Retry, budget),
            End::Failed | End::Left => Next::End(Ending::AsItIs),
            End::Nowhere | End::NotYet { .. } | End::Refused | End::Passing => {
                self.rest(Ending::AsItIs)
            }
            End::Died | End::Suspect | End::Lost => self.fail_over(budget),
        }
    }

    /// Asks again after [`Next::Queue`].
    pub fn again(&mut self, now: Instant, budget: &mut Budget) -> Next {
        if now >= self.terms.deadline {
            return Next::End(Ending::Late);
        }
        self.fail_over(budget)
    }

    /// Goes on after [`Next::Wait`]: a replica may be ready now, or is not expected any more.
    pub fn resume(&mut self, now: Instant, attempt: Attempt) -> Next {
        if now >= self.terms.deadline {
            return Next::End(Ending::Late);
        }
        // What is routed to now is not what it was.
        self.moves = 0;
        let why = match self.places.contains(&Place::Died) {
            true => Why::Failover,
            false => Why::First,
        };
        self.start(usize::from(attempt.0), why)
    }

    /// Whether any of it ran, as far as is known now.
    pub fn execution(&self) -> Execution {
        let may_have_run = |place: &Place| match place {
            Place::Free => false,
            Place::Lost => !Bug::ToldUnexecuted.is_planted(),
            Place::Spent
            | Place::Running
            | Place::Failed
            | Place::Left
            | Place::Died
            | Place::Suspect => true,
        };
        if self.places.contains(&Place::Failed) {
            Execution::Executed
        } else if self.places.iter().any(may_have_run) {
            Execution::Unknown
        } else {
            Execution::NotExecuted
        }
    }

    /// Whether anything is charged to the node's budget.
    pub fn is_charged(&self) -> bool {
        self.charges.iter().any(Option::is_some)
    }

    /// The request has ended, however: gives back what its attempts were charged to.
    pub fn close(&mut self, budget: &mut Budget) {
        if Bug::FailoverKept.is_planted() {
            return;
        }
        for charge in &mut self.charges {
            if let Some(extra) = charge.take() {
                budget.give_back(extra);
            }
        }
    }

    /// Nothing ran, so another replica may have it whatever the request is.
    fn move_on(&mut self, place: usize, why: Why) -> Next {
        // While another one runs, its end decides.
        if self.moves >= REROUTES_MAX || self.places.contains(&Place::Running) {
            return self.rest(Ending::AsItIs);
        }
        self.moves += 1;
        self.start(place, why)
    }

    /// Whether nothing has run here, so that any replica of any version may have it; what met
    /// overload is told so.
    fn may_move(&self) -> bool {
        let idle = |place: &Place| matches!(place, Place::Free | Place::Spent);
        !self.is_overloaded && self.places.iter().all(idle)
    }

    /// Whether what had it has died and nothing else has it: the engine is started again where it
    /// was, and may be the only one.
    fn may_return(&self) -> bool {
        let over = |place: &Place| matches!(place, Place::Free | Place::Spent | Place::Died);
        !self.is_overloaded && self.places.contains(&Place::Died) && self.places.iter().all(over)
    }

    fn wait(&mut self, now: Instant, attempt: Attempt, since: Instant) -> Next {
        let patience = since + REPLICA_PATIENCE;
        let until = *self.waits_until.get_or_insert(patience);
        let until = until.min(self.terms.deadline);
        if now >= until {
            return Next::End(Ending::AsItIs);
        }
        Next::Wait { attempt, until }
    }

    fn fail_over(&mut self, budget: &mut Budget) -> Next {
        let is_gone = |place: &Place| matches!(place, Place::Lost | Place::Died);
        if self.places.iter().all(is_gone) {
            return Next::End(Ending::Poison);
        }
        // What runs already is the second execution, and its end decides.
        if self.places.contains(&Place::Running) {
            return Next::Listen;
        }
        let may_repeat = self.terms.is_idempotent || Bug::OnceAgain.is_planted();
        if !may_repeat || self.free().is_none() {
            return self.rest(Ending::AsItIs);
        }
        match self.repeat(Extra::Failover, budget) {
            next @ Next::Send { .. } => next,
            Next::Wait { .. } | Next::Queue | Next::Listen | Next::End(_) => Next::Queue,
        }
    }

    fn repeat(&mut self, charge: Extra, budget: &mut Budget) -> Next {
        match self.free() {
            Some(place) if budget.take(charge) => {
                self.charge(place, charge, budget);
                let why = match charge {
                    Extra::Failover => Why::Failover,
                    Extra::Retry => Why::Retry,
                };
                self.start(place, why)
            }
            _ => self.rest(Ending::AsItIs),
        }
    }

    /// What moved on and ended elsewhere may still be charged there.
    fn charge(&mut self, place: usize, extra: Extra, budget: &mut Budget) {
        let before = self.charges[place].replace(extra);
        before
            .into_iter()
            .for_each(|before| budget.give_back(before));
    }

    fn free(&self) -> Option<usize> {
        self.places.iter().position(|place| *place == Place::Free)
    }

    fn start(&mut self, place: usize, why: Why) -> Next {
        let is_alone = (self.places.iter().enumerate())
            .any(|(other, what)| other != place && *what != Place::Free);
        self.places[place] = Place::Running;
        Next::Send {
            attempt: Attempt(place as u8),
            is_alone,
            why,
        }
    }

    /// No attempt begins any more: what is still under way is listened to. A failure that was
    /// heard is the truth; that a later attempt did not run says nothing of one that was lost.
    fn rest(&self, ending: Ending) -> Next {
        let may_answer = |place: &Place| matches!(place, Place::Running | Place::Suspect);
        if self.places.iter().any(may_answer) {
            return Next::Listen;
        }
        let is_unknown =
            self.places.contains(&Place::Lost) && !self.places.contains(&Place::Failed);
        Next::End(if is_unknown { Ending::Unknown } else { ending })
    }
}

impl Attempt {
    /// Its place among the executions that a request may have: below [`EXECUTIONS_MAX`].
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// How long a version may be without a ready replica before that is told. What nodes observe is
/// said within milliseconds and said again each second, on a stream that is reopened within one.
const REPLICA_PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
