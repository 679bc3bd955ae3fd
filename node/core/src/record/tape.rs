//! The last steps of one machine, in a ring of segments that can each be played alone.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Recordable;
use crate::time::Instant;

/// What a machine was told last, and what it said to that.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Tape<M: Recordable> {
    #[serde(skip)]
    room: Room,
    /// The newest is the last one.
    pub(super) segments: VecDeque<Segment<M>>,
    /// Steps that were not kept because copies of the machine have no room.
    unkept: u64,
}

/// A machine as it was at some moment, and its steps from then on.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Segment<M: Recordable> {
    pub(super) start: M,
    pub(super) steps: Vec<Step<M::Input>>,
    /// Of all steps, one after another.
    pub(super) effects: Vec<M::Effect>,
    /// Bytes of copies that lie elsewhere: of the machine and of large inputs.
    #[serde(skip)]
    copied_bytes: usize,
}

/// What a machine is told: an input, or that a moment has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told<I> {
    /// It was stepped.
    Input(I),
    /// It was woken.
    Wake,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Step<I> {
    now: Instant,
    pub(super) told: Told<I>,
    /// How many effects it had; `None` if it panicked.
    pub(super) effects: Option<u32>,
}

/// A step as it is read back.
#[derive(Debug)]
pub struct Played<'a, I, E> {
    /// When it was.
    pub now: Instant,
    /// What the machine was told.
    pub told: &'a Told<I>,
    /// What it said; `None` if it panicked.
    pub effects: Option<&'a [E]>,
}

/// What a segment has room for.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    steps: usize,
    copied_bytes: usize,
}

impl<M: Recordable> Tape<M> {
    pub(super) fn new(machine: &M, bytes: usize) -> Self {
        let mut tape = Self {
            room: Room::of::<M>(bytes),
            segments: VecDeque::with_capacity(SEGMENTS),
            unkept: 0,
        };
        tape.turn(machine);
        tape
    }

    /// Segments, the oldest first. Each begins where the one before ends.
    pub fn segments(&self) -> impl Iterator<Item = &Segment<M>> {
        self.segments.iter()
    }

    /// Steps that are kept.
    pub fn steps(&self) -> usize {
        self.segments.iter().map(|s| s.steps.len()).sum()
    }

    /// Steps that were not kept because copies of the machine would have taken most of the room.
    pub fn unkept(&self) -> u64 {
        self.unkept
    }

    /// When the first and the last of the kept steps were taken; drivers may be a moment out of
    /// order, so this is where they stand, not the least and the largest.
    pub fn span(&self) -> Option<(Instant, Instant)> {
        let mut steps = self.segments.iter().flat_map(|s| &s.steps);
        let first = steps.next()?.now;
        Some((first, steps.last().map_or(first, |step| step.now)))
    }

    /// Whether the numbers in it fit together: what was read from a file may say anything.
    pub(super) fn is_whole(&self) -> bool {
        self.segments.iter().all(|segment| {
            let counts = segment.steps.iter().filter_map(|step| step.effects);
            counts.map(u64::from).sum::<u64>() == segment.effects.len() as u64
        })
    }

    /// Notes what `machine` is about to be told.
    pub(super) fn begin(&mut self, machine: &M, now: Instant, told: Told<M::Input>) {
        let is_full = match self.segments.back() {
            Some(newest) => !newest.has_room(self.room),
            // Perhaps the machine has become smaller: that is looked at as often as it is copied.
            None => self.unkept.is_multiple_of(self.room.steps as u64),
        };
        if is_full {
            self.turn(machine);
        }
        match self.segments.back_mut() {
            Some(newest) => newest.begin(self.room, now, told),
            None => self.unkept += 1,
        }
    }

    /// Notes what came of it.
    pub(super) fn end(&mut self, effects: &[M::Effect]) {
        if let Some(newest) = self.segments.back_mut() {
            newest.end(effects);
        }
    }

    /// Begins a segment, in the place of the oldest if there are enough.
    #[cold]
    fn turn(&mut self, machine: &M) {
        let copied_bytes = machine.state_bytes();
        if copied_bytes > self.room.copied_bytes {
            self.segments.clear();
            return;
        }
        let is_full = self.segments.len() == SEGMENTS;
        let oldest = self.segments.pop_front_if(|_| is_full);
        let (mut steps, mut effects) = oldest.map_or_else(Default::default, Segment::into_room);
        steps.clear();
        effects.clear();
        // One step that dropped a whole queue leaves more room behind than it should have.
        effects.shrink_to(2 * self.room.steps);
        self.segments.push_back(Segment {
            start: machine.clone(),
            steps,
            effects,
            copied_bytes,
        });
    }
}

impl<M: Recordable> Segment<M> {
    /// The machine before the first step.
    pub fn start(&self) -> &M {
        &self.start
    }

    /// Its steps, in their order.
    pub fn steps(&self) -> impl Iterator<Item = Played<'_, M::Input, M::Effect>> {
        let mut rest = self.effects.as_slice();
        self.steps.iter().map(move |step| {
            let effects = step.effects.map(|count| {
                let (these, later) = rest.split_at(count as usize);
                rest = later;
                these
            });
            Played {
                now: step.now,
                told: &step.told,
                effects,
            }
        })
    }

    fn has_room(&self, room: Room) -> bool {
        self.steps.len() < room.steps
            && self.effects.len() < room.steps
            && self.copied_bytes <= room.copied_bytes
    }

    fn begin(&mut self, room: Room, now: Instant, told: Told<M::Input>) {
        if self.steps.is_empty() {
            // Memory is taken by machines that are stepped, and once.
            self.steps.reserve_exact(room.steps);
            self.effects.reserve_exact(room.steps);
        }
        if let Told::Input(input) = &told {
            self.copied_bytes += M::input_bytes(input);
        }
        self.steps.push(Step {
            now,
            told,
            effects: None,
        });
    }

    fn end(&mut self, effects: &[M::Effect]) {
        self.effects.extend_from_slice(effects);
        if let Some(step) = self.steps.last_mut() {
            step.effects = Some(effects.len() as u32);
        }
    }

    fn into_room(self) -> (Vec<Step<M::Input>>, Vec<M::Effect>) {
        (self.steps, self.effects)
    }
}

impl<I: fmt::Debug> fmt::Display for Told<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(input) => write!(f, "{input:?}"),
            Self::Wake => f.write_str("wake"),
        }
    }
}

impl Room {
    /// A share of `bytes` for each segment: three quarters for steps with an effect each, the
    /// rest for copies. One step and its effects may go over it.
    fn of<M: Recordable>(bytes: usize) -> Self {
        let each = bytes / SEGMENTS;
        let copied_bytes = each / 4;
        let step_bytes = size_of::<Step<M::Input>>() + size_of::<M::Effect>();
        Self {
            steps: ((each - copied_bytes) / step_bytes).max(1),
            copied_bytes,
        }
    }
}

/// Of four segments at least three are whole, so three quarters of the room are always used, and
/// a copy of the machine is made as seldom as that allows.
const SEGMENTS: usize = 4;
