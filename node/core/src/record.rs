//! Machines whose last steps are kept, so that what was decided can be replayed elsewhere.
//!
//! ```text
//!   driver ── now, input ─▶ Recorded ── now, input ─▶ machine ── effects ─▶ driver
//!                              │                         │
//!                              └─▶ Tape: start, (now, input, effects)*, start, …
//! ```
//!
//! A [`Recorded`] machine is stepped like the one inside it and decides nothing itself. Its
//! [`Tape`] is a ring of segments; each begins with a copy of the machine, so that what is left
//! of the ring can be played whatever was dropped before. Recording a step copies input and
//! effects into places that are there already; nothing is encoded until somebody asks.
//!
//! A step that panics is on the tape as well: its input is written before it is taken.
//!
//! Read [`Recorded`] first, then [`Tape`]. What is in a record is what machines see: times, sizes,
//! deadlines, ids. Core holds no tensors, no keys and no names of people, so a record has none.

mod file;
mod recording;
mod replay;
mod tape;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::file::{read, write};
pub use self::recording::{Kept, Line, Recording};
pub use self::replay::{Divergence, Replay, Said, replay};
pub use self::tape::{Played, Segment, Tape, Told};
use crate::machine::Machine;
use crate::time::Instant;

/// A machine that can be recorded: all that it is and hears can be copied and written down.
pub trait Recordable:
    Machine<
        Input: Clone + Debug + Serialize + DeserializeOwned,
        Effect: Clone + Debug + Serialize + DeserializeOwned,
    > + Clone
    + Serialize
    + DeserializeOwned
{
    /// Bytes that a copy takes beyond the size of the type, to within a small factor.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Bytes that a copy of an input takes beyond the size of the type, likewise.
    fn input_bytes(_input: &Self::Input) -> usize {
        0
    }

    /// What was recorded of it, among other machines'.
    fn recording(tape: Tape<Self>) -> Recording;
}

/// A machine whose last steps are kept. To look at, it is the machine itself.
#[derive(Clone)]
pub struct Recorded<M: Recordable> {
    machine: M,
    tape: Option<Box<Tape<M>>>,
}

impl<M: Recordable> Recorded<M> {
    /// Keeps the last steps of `machine`, in about `bytes` of memory that are taken as they are
    /// needed; none at all if that is 0.
    pub fn new(machine: M, bytes: usize) -> Self {
        let tape = (bytes > 0).then(|| Box::new(Tape::new(&machine, bytes)));
        Self { machine, tape }
    }

    /// A copy of what is kept; `None` if nothing is. Costs a copy of that memory.
    pub fn recording(&self) -> Option<Recording> {
        let tape = self.tape.as_deref()?;
        Some(M::recording(tape.clone()))
    }
}

impl<M: Recordable> Deref for Recorded<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<M: Recordable> Machine for Recorded<M> {
    type Input = M::Input;
    type Effect = M::Effect;

    fn step(&mut self, now: Instant, input: M::Input, out: &mut Vec<M::Effect>) {
        let Some(tape) = &mut self.tape else {
            self.machine.step(now, input, out);
            return;
        };
        tape.begin(&self.machine, now, Told::Input(input.clone()));
        let before = out.len();
        self.machine.step(now, input, out);
        tape.end(&out[before..]);
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<M::Effect>) {
        let Some(tape) = &mut self.tape else {
            self.machine.wake(now, out);
            return;
        };
        tape.begin(&self.machine, now, Told::Wake);
        let before = out.len();
        self.machine.wake(now, out);
        tape.end(&out[before..]);
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.machine.next_wakeup()
    }
}
