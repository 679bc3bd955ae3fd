//! Machine of a node's own drain: leaving without losing a request.
//!
//! The registry says at which epoch the node drains, and how long that may take. From then on
//! the node wants no new clients, and its replicas go one after another as others become ready
//! in their place; what still arrives is served. When nothing is left, or at the deadline, it
//! closes: later dispatches are told that the replica is gone, unexecuted, what waits goes back
//! to its router, and what runs gets a typed, retryable end. Then the registry is told. So each
//! dispatch was accepted and is ended by this node, or was refused without having run and its
//! router sends it elsewhere: none is lost.

use std::time::Duration;

use paceline_protocol::Epoch;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::planted::Bug;
use crate::record::{Recordable, Recording, Tape};
use crate::registry::NodeState;
use crate::time::Instant;

/// How a node drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Pause before the end of the drain is written again. Default 500 ms: an election.
    pub rewrite_pause: Duration,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The registry says this of the node.
    Applied(NodeState),
    /// So much of the cluster's work is left here. Told again and again while the node drains.
    Left {
        /// Replicas that are assigned to the node.
        replicas: usize,
        /// Rows that wait and batches that run.
        work: u64,
    },
    /// The end of the drain could not be written.
    WriteFailed,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The node is no longer ready, and clients on open connections are asked to go to another
    /// node when it suits them; everything is served as before.
    Leave {
        /// The epoch of the drain.
        since: Epoch,
    },
    /// Workers refuse new dispatches as gone, and end the rest: what waits goes back
    /// unexecuted, what runs gets a typed, retryable status.
    Close,
    /// The node takes dispatches, and is ready.
    Return,
    /// Write into the registry that the drain is over; its end is heard as [`Input::Applied`],
    /// or [`Input::WriteFailed`].
    WriteDrained {
        /// The epoch of the drain.
        since: Epoch,
    },
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drain {
    options: Options,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Serving,
    /// What was accepted runs, and replicas go as they are replaced.
    Leaving {
        since: Epoch,
        deadline: Instant,
    },
    /// All has ended; the registry does not know it yet.
    Writing {
        since: Epoch,
        /// When it is written again, if writing has failed.
        again_at: Option<Instant>,
    },
    Drained {
        since: Epoch,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rewrite_pause: Duration::from_millis(500),
        }
    }
}

impl Drain {
    /// A node that serves.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            stage: Stage::Serving,
        }
    }

    /// The epoch since which the node drains or is drained.
    pub fn since(&self) -> Option<Epoch> {
        match self.stage {
            Stage::Serving => None,
            Stage::Leaving { since, .. }
            | Stage::Writing { since, .. }
            | Stage::Drained { since } => Some(since),
        }
    }

    fn applied(&mut self, now: Instant, state: NodeState, out: &mut Vec<Effect>) {
        match state {
            // That others take this node for dead is no drain, and ends none.
            NodeState::Down => {}
            NodeState::Up => self.return_to_service(out),
            NodeState::Draining { since, deadline_ms } => {
                if self.since() == Some(since) {
                    return;
                }
                // A drain that was ended and begun anew between two looks.
                self.return_to_service(out);
                out.push(Effect::Leave { since });
                // A node that starts while it drains counts anew: it has accepted nothing yet.
                let deadline = now + Duration::from_millis(deadline_ms);
                self.stage = Stage::Leaving { since, deadline };
            }
            NodeState::Drained { since } => {
                match self.stage {
                    Stage::Serving => out.extend([Effect::Leave { since }, Effect::Close]),
                    // Whoever wrote it was another life of this node's actor.
                    Stage::Leaving { .. } => out.push(Effect::Close),
                    Stage::Writing { .. } | Stage::Drained { .. } => {}
                }
                self.stage = Stage::Drained { since };
            }
        }
    }

    fn return_to_service(&mut self, out: &mut Vec<Effect>) {
        if self.stage != Stage::Serving {
            self.stage = Stage::Serving;
            out.push(Effect::Return);
        }
    }

    fn close(&mut self, since: Epoch, out: &mut Vec<Effect>) {
        let again_at = None;
        self.stage = Stage::Writing { since, again_at };
        out.extend([Effect::Close, Effect::WriteDrained { since }]);
    }
}

impl Machine for Drain {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match (input, &mut self.stage) {
            (Input::Applied(state), _) => self.applied(now, state, out),
            (Input::Left { replicas, work: 0 }, Stage::Leaving { since, .. })
                if replicas == 0 || Bug::ClosedEarly.is_planted() =>
            {
                let since = *since;
                self.close(since, out);
            }
            (Input::WriteFailed, Stage::Writing { again_at, .. }) => {
                *again_at = Some(now + self.options.rewrite_pause);
            }
            (Input::Left { .. } | Input::WriteFailed, _) => {}
        }
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match &mut self.stage {
            Stage::Leaving { since, deadline } if *deadline <= now => {
                let since = *since;
                self.close(since, out);
            }
            Stage::Writing { since, again_at } if again_at.is_some_and(|at| at <= now) => {
                *again_at = None;
                out.push(Effect::WriteDrained { since: *since });
            }
            Stage::Serving
            | Stage::Leaving { .. }
            | Stage::Writing { .. }
            | Stage::Drained { .. } => {}
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        match self.stage {
            Stage::Leaving { deadline, .. } => Some(deadline),
            Stage::Writing { again_at, .. } => again_at,
            Stage::Serving | Stage::Drained { .. } => None,
        }
    }
}

impl Recordable for Drain {
    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Drain(tape)
    }
}

const _: () = assert!(size_of::<Effect>() <= 64);

#[cfg(test)]
mod tests;
