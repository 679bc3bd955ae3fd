//! Machine that decides from silence how a peer is: alive, suspect, lost, down.
//!
//! The death of a process or a machine says nothing over QUIC, so liveness is ours. A peer that
//! was heard is alive; from [`Options::suspect`] of silence on it gets no new work and what runs
//! there is tried elsewhere; from [`Options::lost`] on its connections are given up; after
//! [`Options::down`] the leader has its replicas replaced. A peer that comes back must be heard
//! for [`Options::recovery`] without a pause before it gets work again, so that a flapping link
//! is a slow one and not many failures.

use paceline_protocol::NodeId;
use paceline_protocol::registry::Change;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::planted::Bug;
use crate::record::{Recordable, Recording, Tape};
use crate::registry::{NodeState, Registry};
use crate::time::Instant;

/// How patient the detector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Silence after which a peer is suspect, in nanoseconds.
    pub suspect: u64,
    /// Silence after which its connections are given up.
    pub lost: u64,
    /// Silence after which its replicas are replaced.
    pub down: u64,
    /// How long a peer must be heard before it gets work again.
    pub recovery: u64,
}

/// How a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It is heard.
    Alive,
    /// It is silent, or was a moment ago.
    Suspect,
    /// It has been silent for long.
    Lost,
    /// It has been silent for so long that it is not waited for.
    Down,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Something has arrived from the peer.
    Heard,
    /// This node itself stood still for so many nanoseconds until now: it could not have heard
    /// the peer, whose silence meanwhile says nothing.
    StoodStill {
        /// As [`standstill`] says.
        nanos: u64,
    },
}

/// What shall be done: the peer's liveness has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It is heard again: give it work.
    Alive,
    /// Give it no new work; try elsewhere what runs there.
    Suspect,
    /// Give its connections up.
    Lost,
    /// If this node leads: let its replicas be replaced.
    Down,
}

/// The machine: one for each peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detector {
    options: Options,
    liveness: Liveness,
    heard_at: Instant,
    /// Since when it is heard without a pause, while it is not alive.
    back_since: Option<Instant>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            suspect: 300 * MILLISECOND,
            lost: 1_500 * MILLISECOND,
            down: 5_000 * MILLISECOND,
            recovery: 200 * MILLISECOND,
        }
    }
}

impl Detector {
    /// A peer that counts as heard `now`: it gets the same patience as one that fell silent.
    pub fn new(options: Options, now: Instant) -> Self {
        Self {
            options,
            liveness: Liveness::Alive,
            heard_at: now,
            back_since: None,
        }
    }

    /// How the peer is.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    fn heard(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let silence = now.nanos_since(self.heard_at);
        self.heard_at = now;
        if self.liveness == Liveness::Alive {
            return;
        }
        if silence >= self.options.suspect || Bug::NeverBack.is_planted() {
            self.back_since = None;
        }
        let since = *self.back_since.get_or_insert(now);
        if now.nanos_since(since) >= self.options.recovery {
            self.liveness = Liveness::Alive;
            self.back_since = None;
            out.push(Effect::Alive);
        }
    }

    fn worse(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let silence = now.nanos_since(self.heard_at);
        let steps = [
            (self.options.suspect, Liveness::Suspect, Effect::Suspect),
            (self.options.lost, Liveness::Lost, Effect::Lost),
            (self.options.down, Liveness::Down, Effect::Down),
        ];
        for (after, liveness, effect) in steps {
            if silence >= after && self.liveness < liveness {
                self.liveness = liveness;
                self.back_since = None;
                out.push(effect);
            }
        }
    }
}

impl Machine for Detector {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        if let Input::StoodStill { nanos } = input {
            let later = |at: Instant| at.plus_nanos(nanos).min(now);
            let back_since = self.back_since.map(later);
            (self.heard_at, self.back_since) = (later(self.heard_at), back_since);
        }
        self.worse(now, out);
        if input == Input::Heard {
            self.heard(now, out);
        }
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.worse(now, out);
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let after = match self.liveness {
            Liveness::Alive => self.options.suspect,
            Liveness::Suspect => self.options.lost,
            Liveness::Lost => self.options.down,
            Liveness::Down => return None,
        };
        Some(self.heard_at.plus_nanos(after))
    }
}

impl Recordable for Detector {
    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Detector(tape)
    }
}

/// For how long a node stood still that listens every `pace` nanoseconds and does so again after
/// `gap`: a stopped process, a suspended machine, or one that had no processor.
pub fn standstill(gap: u64, pace: u64) -> Option<u64> {
    (gap >= 4 * pace).then(|| gap - pace)
}

/// What a leader has to write next, so that what was agreed of its peers follows what it hears
/// of them: one at a time. Who leads is heard by a majority, and so is alive itself, whatever was
/// agreed of it before: nobody else could write that.
pub fn mark(
    registry: &Registry,
    leader: NodeId,
    heard: impl IntoIterator<Item = (NodeId, Liveness)>,
) -> Option<Change> {
    let computed_at = registry.epoch();
    let mut heard = std::iter::once((leader, Liveness::Alive)).chain(heard);
    heard.find_map(|(node, liveness)| {
        let is_down = registry.node_state(node)? == NodeState::Down;
        match (liveness, is_down) {
            (Liveness::Down, false) => Some(Change::MarkDown { node, computed_at }),
            (Liveness::Alive, true) => Some(Change::MarkUp { node, computed_at }),
            _ => None,
        }
    })
}

const MILLISECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use paceline_protocol::OpId;
    use paceline_protocol::registry::{Command, NodeAddresses, NodeRecord, SCHEMA};

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO.plus_nanos(ms * MILLISECOND)
    }

    /// Steps the machine at each moment and returns what came of it, by moment.
    fn run(detector: &mut Detector, events: &[(u64, bool)]) -> Vec<(u64, Effect)> {
        let mut all = Vec::new();
        for (ms, heard) in events {
            let mut out = Vec::new();
            if *heard {
                detector.step(at(*ms), Input::Heard, &mut out);
            } else {
                detector.wake(at(*ms), &mut out);
            }
            all.extend(out.into_iter().map(|effect| (*ms, effect)));
        }
        all
    }

    fn agreed(nodes: &[u64]) -> Registry {
        let mut registry = Registry::default();
        for node in nodes {
            let record = NodeRecord {
                id: NodeId(*node),
                name: format!("n{node}"),
                zone: String::new(),
                addresses: NodeAddresses::default(),
                devices: Vec::new(),
            };
            apply(&mut registry, Change::RegisterNode(record));
        }
        registry
    }

    fn apply(registry: &mut Registry, change: Change) {
        let index = registry.epoch().0 + 1;
        let command = Command {
            schema: SCHEMA,
            op: OpId(index.into()),
            stamped_ms: 0,
            expected_revision: None,
            change,
        };
        let outcome = registry.apply(index, &command);
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }

    #[test]
    fn who_is_down_is_marked_so_and_up_again_only_when_it_is_alive() {
        let mut registry = agreed(&[1, 2]);
        let (node, computed_at) = (NodeId(2), registry.epoch());
        let leader = NodeId(1);
        let next = |registry: &Registry, liveness| mark(registry, leader, [(node, liveness)]);
        let all = [Liveness::Alive, Liveness::Suspect, Liveness::Lost];
        assert!(all.iter().all(|l| next(&registry, *l).is_none()));
        let down = next(&registry, Liveness::Down).unwrap();
        assert_eq!(down, Change::MarkDown { node, computed_at });
        apply(&mut registry, down);
        let computed_at = registry.epoch();
        let still = [Liveness::Suspect, Liveness::Lost, Liveness::Down];
        assert!(still.iter().all(|l| next(&registry, *l).is_none()));
        let up = Change::MarkUp { node, computed_at };
        assert_eq!(next(&registry, Liveness::Alive), Some(up));
        let stranger = mark(&registry, leader, [(NodeId(9), Liveness::Down)]);
        assert_eq!(stranger, None, "nobody agreed on it");
    }

    /// A node that was cut off was marked down, came back and was elected: it was down for as long
    /// as it led.
    #[test]
    fn a_leader_that_was_down_marks_itself_up() {
        let mut registry = agreed(&[1, 2]);
        let (node, computed_at) = (NodeId(2), registry.epoch());
        apply(&mut registry, Change::MarkDown { node, computed_at });
        let computed_at = registry.epoch();
        let up = Change::MarkUp { node, computed_at };
        let heard = [(NodeId(1), Liveness::Alive)];
        assert_eq!(mark(&registry, node, heard), Some(up));
        assert_eq!(mark(&registry, NodeId(1), []), None, "it is not heard");
    }

    #[test]
    fn silence_makes_a_peer_suspect_then_lost_then_down_each_once() {
        let mut detector = Detector::new(Options::default(), at(0));
        let mut effects = Vec::new();
        let mut moments = Vec::new();
        while let Some(due) = detector.next_wakeup() {
            let before = effects.len();
            detector.wake(due, &mut effects);
            assert_eq!(effects.len(), before + 1, "each wake-up has a reason");
            moments.push(due.as_nanos() / MILLISECOND);
        }
        assert_eq!(effects, [Effect::Suspect, Effect::Lost, Effect::Down]);
        assert_eq!(moments, [300, 1_500, 5_000]);
        assert_eq!(detector.liveness(), Liveness::Down);
    }

    #[test]
    fn who_is_heard_stays_alive() {
        let mut detector = Detector::new(Options::default(), at(0));
        let beats: Vec<(u64, bool)> = (1..100).map(|beat| (beat * 299, true)).collect();
        assert_eq!(run(&mut detector, &beats), []);
    }

    #[test]
    fn a_peer_that_comes_back_is_believed_after_a_while() {
        let mut detector = Detector::new(Options::default(), at(0));
        let beats = [
            (300, false),
            (400, true),
            (500, true),
            (599, true),
            (600, true),
        ];
        let wanted = [(300, Effect::Suspect), (600, Effect::Alive)];
        assert_eq!(run(&mut detector, &beats), wanted);
    }

    #[test]
    fn a_flapping_link_gets_no_work_in_its_gaps() {
        let mut detector = Detector::new(Options::default(), at(0));
        // One packet every 350 ms: never long enough without a pause.
        let beats: Vec<(u64, bool)> = (1..20).map(|beat| (beat * 350, true)).collect();
        assert_eq!(run(&mut detector, &beats), [(350, Effect::Suspect)]);
    }

    #[test]
    fn who_stood_still_itself_does_not_take_its_peers_for_silent() {
        let mut detector = Detector::new(Options::default(), at(0));
        let mut effects = Vec::new();
        detector.wake(at(100), &mut effects);
        let nanos = standstill(9_000 * MILLISECOND, 50 * MILLISECOND).unwrap();
        detector.step(at(9_100), Input::StoodStill { nanos }, &mut effects);
        assert_eq!(effects, [], "it was silent for 150 ms that count");
        detector.wake(at(9_249), &mut effects);
        assert_eq!(effects, []);
        detector.wake(at(9_250), &mut effects);
        assert_eq!(effects, [Effect::Suspect]);
        assert_eq!(standstill(199, 50), None, "a busy machine is late at times");
    }

    #[test]
    fn a_late_look_catches_up_with_all_that_was_missed() {
        let mut detector = Detector::new(Options::default(), at(0));
        let wanted = [Effect::Suspect, Effect::Lost, Effect::Down].map(|effect| (9_000, effect));
        assert_eq!(run(&mut detector, &[(9_000, true)]), wanted);
    }
}
