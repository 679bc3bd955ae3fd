//! Plays a tape again and compares what the machine says now with what it said then.

use std::fmt;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use paceline_protocol::wire;
use serde::Serialize;

use super::{Played, Recordable, Segment, Tape, Told};
use crate::time::Instant;

/// What came of playing a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Segments that were begun.
    pub segments: u64,
    /// Steps that were taken, the one that differs included.
    pub steps: u64,
    /// Effects that they had.
    pub effects: u64,
    /// Where it went another way first; nothing is played after that.
    pub divergence: Option<Divergence>,
}

/// Where a replay and its record part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// A step said something else.
    Step {
        /// Which step of the record, counted from 1.
        step: u64,
        /// When it was taken.
        now: Instant,
        /// What the machine was told.
        told: String,
        /// What it said then.
        recorded: Said,
        /// What it says now.
        replayed: Said,
    },
    /// All steps said the same, and led to another state than the record goes on from.
    State {
        /// The last step before, counted from 1.
        step: u64,
    },
}

/// What a machine said to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// These effects, each as it is written in code.
    Effects(Vec<String>),
    /// It panicked.
    Panicked,
}

/// Plays every segment of a tape, each from its own start. Effects are compared byte for byte, as
/// they are encoded, and so is the state that a segment ends in with the next one's start.
///
/// Costs what the steps cost, and an encoding of their effects.
pub fn replay<M: Recordable>(tape: &Tape<M>) -> Replay {
    let mut replay = Replay {
        segments: 0,
        steps: 0,
        effects: 0,
        divergence: None,
    };
    let mut end: Option<M> = None;
    for segment in tape.segments() {
        if end.is_some_and(|end| encoded(&end) != encoded(segment.start())) {
            let step = replay.steps;
            replay.divergence = Some(Divergence::State { step });
            break;
        }
        end = replay.play(segment);
        if end.is_none() {
            break;
        }
    }
    replay
}

impl Replay {
    /// Plays a segment; the machine as it is after that, unless they parted.
    fn play<M: Recordable>(&mut self, segment: &Segment<M>) -> Option<M> {
        self.segments += 1;
        let mut machine = segment.start().clone();
        let mut out = Vec::new();
        for played in segment.steps() {
            self.steps += 1;
            out.clear();
            let is_over = again(&mut machine, &played, &mut out);
            let replayed = is_over.then_some(out.as_slice());
            if replayed.map(encoded) != played.effects.map(encoded) {
                self.divergence = Some(Divergence::Step {
                    step: self.steps,
                    now: played.now,
                    told: played.told.to_string(),
                    recorded: Said::of(played.effects),
                    replayed: Said::of(replayed),
                });
                return None;
            }
            self.effects += out.len() as u64;
        }
        Some(machine)
    }
}

/// Takes a step once more; whether it came to its end without a panic.
fn again<M: Recordable>(
    machine: &mut M,
    played: &Played<'_, M::Input, M::Effect>,
    out: &mut Vec<M::Effect>,
) -> bool {
    // What a panic leaves behind was gone on with then, and is so now.
    let step = AssertUnwindSafe(|| match played.told {
        Told::Input(input) => machine.step(played.now, input.clone(), out),
        Told::Wake => machine.wake(played.now, out),
    });
    catch_unwind(step).is_ok()
}

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    wire::encode(&value).expect("machines and their effects have an encoding: they were written so")
}

impl Said {
    pub(super) fn of<E: Debug>(effects: Option<&[E]>) -> Self {
        effects.map_or(Self::Panicked, |effects| {
            Self::Effects(effects.iter().map(|effect| format!("{effect:?}")).collect())
        })
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Effects(effects) if effects.is_empty() => f.write_str("nothing"),
            Self::Effects(effects) => f.write_str(&effects.join(", ")),
            Self::Panicked => f.write_str("a panic"),
        }
    }
}
