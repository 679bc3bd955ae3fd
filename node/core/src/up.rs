//! Machine that brings up a local cluster of processes, keeps it up, and ends it.
//!
//! The founder is started first; a node that has never joined is started when all before it are
//! ready, so that ids rise in the order of names; members are started together. A node that
//! dies is started again after a wait. What fails by itself while the cluster comes up for the
//! first time (a port in use, a damaged disk) would fail again, and ends it all.

mod language;

use std::time::Duration;

pub use self::language::{Effect, Ending, Input, Options, Past};
use crate::machine::Machine;
use crate::time::Instant;

/// The machine, one for a local cluster.
#[derive(Clone, Debug)]
pub struct Up {
    options: Options,
    nodes: Vec<Node>,
    phase: Phase,
}

#[derive(Clone, Debug)]
struct Node {
    state: State,
    /// Whether it belongs to the cluster already.
    joined: bool,
    /// Starts in a row that ended before it was ready.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not started yet.
    Absent,
    Starting {
        late_at: Option<Instant>,
    },
    Ready {
        late_at: Option<Instant>,
    },
    Serving,
    Waiting {
        until: Instant,
    },
    /// Dead for good.
    Gone,
    /// No longer of the cluster, which goes on without it.
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Raising,
    Kept,
    /// Nodes were asked to stop; those left at `until` are killed.
    Stopping {
        until: Instant,
        well: bool,
    },
    /// They were killed; those left at `until` are not waited for.
    Killing {
        until: Instant,
    },
    Over,
}

impl Up {
    /// A cluster of which nothing runs. `pasts` says of each node what it was before.
    ///
    /// # Panics
    /// If there is no node.
    pub fn new(options: Options, pasts: &[Past]) -> Self {
        assert!(!pasts.is_empty(), "a cluster has a node");
        let node = |past: &Past| Node {
            state: match past {
                Past::New | Past::Member => State::Absent,
                Past::Removed => State::Removed,
            },
            joined: *past == Past::Member,
            failures: 0,
        };
        Self {
            options,
            nodes: pasts.iter().map(node).collect(),
            phase: Phase::Raising,
        }
    }

    /// Whether the end has been asked for or has come.
    pub fn is_ending(&self) -> bool {
        !matches!(self.phase, Phase::Raising | Phase::Kept)
    }

    fn begin(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let nodes = self.nodes.iter().enumerate();
        let removed = nodes.filter(|(_, node)| node.state == State::Removed);
        out.extend(removed.map(|(node, _)| Effect::Removed { node }));
        self.start_what_may(now, out);
        if !self.is_left() {
            self.stop(now, false, out);
        }
    }

    /// Starts what may be started: members, the founder, and the first that has yet to join
    /// once all before it are ready.
    fn start_what_may(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut all_before_ready = true;
        for at in 0..self.nodes.len() {
            let Node { state, joined, .. } = self.nodes[at];
            if state == State::Absent && (joined || all_before_ready) {
                self.start(at, now, out);
            }
            all_before_ready &=
                matches!(state, State::Ready { .. } | State::Serving | State::Removed);
        }
    }

    fn start(&mut self, node: usize, now: Instant, out: &mut Vec<Effect>) {
        let late_at = Some(now + self.options.late_after);
        self.nodes[node].state = State::Starting { late_at };
        out.push(Effect::Start { node });
    }

    fn ready(&mut self, node: usize, now: Instant, out: &mut Vec<Effect>) {
        if !matches!(self.nodes[node].state, State::Starting { .. }) {
            return;
        }
        let late_at = Some(now + self.options.late_after);
        self.nodes[node] = Node {
            state: State::Ready { late_at },
            joined: true,
            failures: 0,
        };
        if self.phase == Phase::Kept {
            out.push(Effect::Back { node });
        }
        self.start_what_may(now, out);
    }

    fn serving(&mut self, node: usize, out: &mut Vec<Effect>) {
        if !matches!(self.nodes[node].state, State::Ready { .. }) {
            return;
        }
        self.nodes[node].state = State::Serving;
        self.raise_if_all_serve(out);
    }

    fn raise_if_all_serve(&mut self, out: &mut Vec<Effect>) {
        let serves = |node: &Node| matches!(node.state, State::Serving | State::Removed);
        if self.phase == Phase::Raising && self.nodes.iter().all(serves) {
            self.phase = Phase::Kept;
            out.push(Effect::Raised);
        }
    }

    /// The cluster goes on without it, if anybody else is left.
    fn removed(&mut self, node: usize, now: Instant, out: &mut Vec<Effect>) {
        self.nodes[node].state = State::Removed;
        out.push(Effect::Removed { node });
        if self.is_left() {
            self.start_what_may(now, out);
            self.raise_if_all_serve(out);
        } else {
            self.stop(now, false, out);
        }
    }

    /// Whether there is a node that runs, or may yet.
    fn is_left(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| !matches!(node.state, State::Gone | State::Removed))
    }

    fn ended(&mut self, node: usize, ending: Ending, now: Instant, out: &mut Vec<Effect>) {
        if self.is_ending() {
            self.nodes[node].state = State::Gone;
            self.finish_if_empty(out);
            return;
        }
        if ending == Ending::Removed {
            self.removed(node, now, out);
            return;
        }
        let Node {
            state, failures, ..
        } = self.nodes[node];
        let starting = matches!(state, State::Starting { .. });
        let failures = failures + u32::from(starting);
        self.nodes[node].failures = failures;
        let raising = self.phase == Phase::Raising;
        let hopeless = raising && starting && ending == Ending::Failed;
        if self.options.restarts && failures < self.options.failures_max && !hopeless {
            let until = now + self.backoff(failures);
            self.nodes[node].state = State::Waiting { until };
            out.push(Effect::Wait { node, until });
            return;
        }
        self.nodes[node].state = State::Gone;
        out.push(Effect::Leave { node, failures });
        // Without it the cluster cannot become ready; without any there is none.
        if raising || !self.is_left() {
            self.stop(now, false, out);
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let doubled = self.options.backoff_min.saturating_mul(1 << doublings);
        doubled.min(self.options.backoff_max)
    }

    /// Stops the youngest first, all at the same time: the founder, which most of them know
    /// best, is there until the others have been told.
    fn stop(&mut self, now: Instant, well: bool, out: &mut Vec<Effect>) {
        let until = now + self.options.stop_limit;
        self.phase = Phase::Stopping { until, well };
        for node in self.nodes.iter_mut().filter(|node| !node.is_alive()) {
            node.state = State::Gone;
        }
        out.extend(self.alive().map(|node| Effect::Stop { node }));
        self.finish_if_empty(out);
    }

    fn kill(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let until = now + self.options.kill_limit;
        self.phase = Phase::Killing { until };
        out.extend(self.alive().map(|node| Effect::Kill { node }));
    }

    /// Nodes with a process, the youngest first.
    fn alive(&self) -> impl Iterator<Item = usize> {
        let nodes = self.nodes.iter().enumerate().rev();
        nodes.filter(|(_, node)| node.is_alive()).map(|(at, _)| at)
    }

    fn finish_if_empty(&mut self, out: &mut Vec<Effect>) {
        let well = match self.phase {
            Phase::Raising | Phase::Kept | Phase::Over => return,
            Phase::Stopping { well, .. } => well,
            Phase::Killing { .. } => false,
        };
        if !self.is_left() {
            self.phase = Phase::Over;
            out.push(Effect::Finish { well });
        }
    }
}

impl Node {
    fn is_alive(&self) -> bool {
        match self.state {
            State::Starting { .. } | State::Ready { .. } | State::Serving => true,
            State::Absent | State::Waiting { .. } | State::Gone | State::Removed => false,
        }
    }

    /// Reports lateness once.
    fn is_late(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Starting { late_at } | State::Ready { late_at } => {
                late_at.take_if(|at| *at <= now).is_some()
            }
            State::Absent
            | State::Serving
            | State::Waiting { .. }
            | State::Gone
            | State::Removed => false,
        }
    }
}

impl Machine for Up {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Ended { node, ending } => self.ended(node, ending, now, out),
            Input::StopAsked => match self.phase {
                Phase::Raising | Phase::Kept => self.stop(now, true, out),
                Phase::Stopping { .. } => self.kill(now, out),
                Phase::Killing { .. } | Phase::Over => {}
            },
            Input::Begin | Input::Ready { .. } | Input::Serving { .. } if self.is_ending() => {}
            Input::Begin => self.begin(now, out),
            Input::Ready { node } => self.ready(node, now, out),
            Input::Serving { node } => self.serving(node, out),
        }
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Raising | Phase::Kept => {
                for at in 0..self.nodes.len() {
                    if self.nodes[at].is_late(now) {
                        out.push(Effect::Late { node: at });
                    }
                    if matches!(self.nodes[at].state, State::Waiting { until } if until <= now) {
                        self.start(at, now, out);
                    }
                }
            }
            Phase::Stopping { until, .. } if until <= now => self.kill(now, out),
            Phase::Killing { until } if until <= now => {
                self.phase = Phase::Over;
                out.push(Effect::Finish { well: false });
            }
            Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Over => {}
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let of_node = |node: &Node| match node.state {
            State::Starting { late_at } | State::Ready { late_at } => late_at,
            State::Waiting { until } => Some(until),
            State::Absent | State::Serving | State::Gone | State::Removed => None,
        };
        match self.phase {
            Phase::Raising | Phase::Kept => self.nodes.iter().filter_map(of_node).min(),
            Phase::Stopping { until, .. } | Phase::Killing { until } => Some(until),
            Phase::Over => None,
        }
    }
}

#[cfg(test)]
mod tests;
