//! Records of different machines, side by side.

use paceline_protocol::record::RecordedMachine;
use serde::{Deserialize, Serialize};

use super::{Recordable, Replay, Said, Segment, Tape, replay};
use crate::admission::Admission;
use crate::canary::Canaries;
use crate::detector::Detector;
use crate::device::Device;
use crate::drain::Drain;
use crate::restart::Restart;
use crate::router::Router;
use crate::time::Instant;

/// What was kept of one machine, which is one of several of its kind.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Which of them; empty where a node has one.
    pub instance: String,
    /// Its steps.
    pub recording: Recording,
}

/// Steps of a machine of any kind. New kinds are appended, since files hold their numbers.
#[derive(Clone, Serialize, Deserialize)]
pub enum Recording {
    /// Who is let in.
    Admission(Tape<Admission>),
    /// Where a request goes.
    Router(Tape<Router>),
    /// What runs next, batchers included.
    Device(Tape<Device>),
    /// How a peer is.
    Detector(Tape<Detector>),
    /// How the node leaves.
    Drain(Tape<Drain>),
    /// When a failed part is started again.
    Restart(Tape<Restart>),
    /// How canaries go on, as their leader sees it.
    Canaries(Tape<Canaries>),
}

impl Recording {
    /// Plays it again, and compares.
    pub fn replay(&self) -> Replay {
        match self {
            Self::Admission(tape) => replay(tape),
            Self::Router(tape) => replay(tape),
            Self::Device(tape) => replay(tape),
            Self::Detector(tape) => replay(tape),
            Self::Drain(tape) => replay(tape),
            Self::Restart(tape) => replay(tape),
            Self::Canaries(tape) => replay(tape),
        }
    }
}

/// A step in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was taken.
    pub now: Instant,
    /// What the machine was told.
    pub told: String,
    /// What it said.
    pub said: Said,
}

impl Recording {
    /// Every step in words, in the order in which they were taken.
    pub fn lines(&self) -> Vec<Line> {
        match self {
            Self::Admission(tape) => lines_of(tape),
            Self::Router(tape) => lines_of(tape),
            Self::Device(tape) => lines_of(tape),
            Self::Detector(tape) => lines_of(tape),
            Self::Drain(tape) => lines_of(tape),
            Self::Restart(tape) => lines_of(tape),
            Self::Canaries(tape) => lines_of(tape),
        }
    }
}

fn lines_of<M: Recordable>(tape: &Tape<M>) -> Vec<Line> {
    let steps = tape.segments().flat_map(Segment::steps);
    let lines = steps.map(|step| Line {
        now: step.now,
        told: step.told.to_string(),
        said: Said::of(step.effects),
    });
    lines.collect()
}

impl Kept {
    /// What stands in the file's header about it.
    pub(super) fn summary(&self) -> RecordedMachine {
        match &self.recording {
            Recording::Admission(tape) => self.summary_of("admission", tape),
            Recording::Router(tape) => self.summary_of("router", tape),
            Recording::Device(tape) => self.summary_of("device", tape),
            Recording::Detector(tape) => self.summary_of("detector", tape),
            Recording::Drain(tape) => self.summary_of("drain", tape),
            Recording::Restart(tape) => self.summary_of("restart", tape),
            Recording::Canaries(tape) => self.summary_of("canaries", tape),
        }
    }

    /// Whether the numbers in it fit together.
    pub(super) fn is_whole(&self) -> bool {
        match &self.recording {
            Recording::Admission(tape) => tape.is_whole(),
            Recording::Router(tape) => tape.is_whole(),
            Recording::Device(tape) => tape.is_whole(),
            Recording::Detector(tape) => tape.is_whole(),
            Recording::Drain(tape) => tape.is_whole(),
            Recording::Restart(tape) => tape.is_whole(),
            Recording::Canaries(tape) => tape.is_whole(),
        }
    }

    fn summary_of<M: Recordable>(&self, machine: &str, tape: &Tape<M>) -> RecordedMachine {
        let span = tape.span();
        RecordedMachine {
            machine: machine.to_owned(),
            instance: self.instance.clone(),
            steps: tape.steps() as u64,
            unkept: tape.unkept(),
            span_nanos: span.map(|(first, last)| (first.as_nanos(), last.as_nanos())),
        }
    }
}
