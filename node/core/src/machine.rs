//! What all machines have in common.

use crate::time::Instant;

/// State that answers inputs with effects, and never looks at a clock.
///
/// A driver calls [`step`](Machine::step) for every input and performs the effects in their
/// order; it calls [`wake`](Machine::wake) when [`next_wakeup`](Machine::next_wakeup) has come.
/// An effect that can fail names the input that reports its end. A step allocates nothing in
/// the steady state: `out` keeps its capacity, and so do the machine's own containers.
///
/// A machine has exactly two drivers: the actor of the same name in `paceline-node`, and the
/// simulator. Both match its effects without a wildcard, so a new effect cannot be forgotten.
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it wants done. Small and closed: at most 64 bytes.
    type Effect;

    /// Takes one input at `now` and appends what shall be done.
    fn step(&mut self, now: Instant, input: Self::Input, out: &mut Vec<Self::Effect>);

    /// Does what has become due by `now`.
    fn wake(&mut self, now: Instant, out: &mut Vec<Self::Effect>);

    /// When [`wake`](Machine::wake) wants to be called next, if at all.
    fn next_wakeup(&self) -> Option<Instant>;
}
