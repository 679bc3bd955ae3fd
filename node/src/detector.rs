//! Watches peers' silence, and says who is suspect, lost and down.
//!
//! Owns a [`paceline_core::detector`] for each peer. Supervised by the node. Hears its own
//! timer; speaks to the transport (whose connections it gives up), to the board of suspects,
//! and, on the leader, to the registry. When it dies, suspects stay what they are until its
//! successor has heard their peers again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use paceline_core::Machine;
use paceline_core::detector::{self, Effect, Input, Liveness, Options};
use paceline_protocol::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::contact;
use crate::record::{Records, Share, Stepped};
use crate::registry::{self, fresh_op};
use crate::supervisor::notify;
use crate::transport::Transport;

/// Peers that are not heard as they should be; all others are alive. Cheap to clone.
#[derive(Clone)]
pub struct Suspects {
    board: watch::Sender<Arc<BTreeMap<NodeId, Liveness>>>,
}

/// What the detector hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// Time to listen.
    Tick,
    /// The mark that was being written is written, or not.
    Marked,
}

impl ractor::Message for Message {}

/// What the detector needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// This node.
    pub node: NodeId,
    /// For silences.
    pub clock: Clock,
    /// Who the peers are, and what was agreed of them.
    pub registry: registry::Handle,
    /// Where they are heard.
    pub transport: Arc<dyn Transport>,
    /// Who is not trusted with work.
    pub suspects: Suspects,
    /// Is told that this node runs.
    pub contact: contact::Handle,
    /// Where what was heard is kept.
    pub records: Records,
}

/// The actor.
pub(crate) struct Detector;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    peers: BTreeMap<NodeId, Peer>,
    is_marking: bool,
    /// When it listened last: it does so all the time, unless this node stands still.
    listened_at: paceline_core::Instant,
}

struct Peer {
    machine: Stepped<detector::Detector>,
    heard: u64,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            board: watch::Sender::new(Arc::default()),
        }
    }
}

impl Suspects {
    /// How those are that are not alive.
    pub fn current(&self) -> Arc<BTreeMap<NodeId, Liveness>> {
        self.board.borrow().clone()
    }

    /// Resolves once `node` is suspect, or worse.
    pub async fn wait_for(&self, node: NodeId) {
        let mut board = self.board.subscribe();
        let is_silent = |suspects: &Arc<BTreeMap<NodeId, Liveness>>| suspects.contains_key(&node);
        // The board lives as long as whoever waits.
        let _ = board.wait_for(is_silent).await;
    }

    /// Sends `message` to `actor` after each change, until the actor is gone.
    pub fn tell<M: ractor::Message>(
        &self,
        actor: &ActorRef<M>,
        message: impl Fn() -> M + Send + 'static,
    ) {
        notify(self.board.subscribe(), actor.clone(), message);
    }

    fn set(&self, suspects: BTreeMap<NodeId, Liveness>) {
        self.board.send_if_modified(|board| {
            let changed = **board != suspects;
            if changed {
                *board = Arc::new(suspects);
            }
            changed
        });
    }
}

impl Actor for Detector {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        myself.send_interval(LISTEN_EVERY, || Message::Tick);
        Ok(State {
            listened_at: arguments.clock.now(),
            arguments,
            peers: BTreeMap::new(),
            is_marking: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick => {
                state.listen();
                state.mark(&myself);
            }
            Message::Marked => state.is_marking = false,
        }
        Ok(())
    }
}

impl State {
    fn listen(&mut self) {
        let now = self.arguments.clock.now();
        let gap = now.nanos_since(self.listened_at);
        self.listened_at = now;
        self.arguments.contact.tick(now);
        let standstill = detector::standstill(gap, LISTEN_EVERY.as_nanos() as u64);
        let registry = self.arguments.registry.current();
        let me = self.arguments.node;
        self.peers
            .retain(|node, _| registry.nodes().contains_key(node));
        let mut effects = Vec::new();
        for node in registry.nodes().keys().filter(|node| **node != me) {
            let heard = self.arguments.transport.heard(*node);
            let records = &self.arguments.records;
            let peer = self.peers.entry(*node).or_insert_with(|| {
                let machine = detector::Detector::new(Options::default(), now);
                let of = format!("of node {}", node.0);
                Peer {
                    machine: records.stepped((Share::Watcher, &of), machine),
                    heard,
                }
            });
            if let Some(nanos) = standstill {
                let input = Input::StoodStill { nanos };
                peer.machine.step(now, input, &mut effects);
            }
            if heard == peer.heard {
                peer.machine.wake(now, &mut effects);
            } else {
                peer.heard = heard;
                peer.machine.step(now, Input::Heard, &mut effects);
            }
            for effect in effects.drain(..) {
                tracing::info!(peer = node.0, ?effect, "a peer's liveness changes");
                match effect {
                    Effect::Lost => self.arguments.transport.disconnect(*node),
                    // Both are read from the machines below.
                    Effect::Alive | Effect::Suspect | Effect::Down => {}
                }
            }
        }
        let suspects = self.heard().filter(|(_, is)| *is != Liveness::Alive);
        let suspects = suspects.collect();
        self.arguments.suspects.set(suspects);
    }

    fn heard(&self) -> impl Iterator<Item = (NodeId, Liveness)> {
        let peers = self.peers.iter();
        peers.map(|(node, peer)| (*node, peer.machine.look(detector::Detector::liveness)))
    }

    /// On the leader: what was agreed of a peer follows what is heard of it, one at a time.
    fn mark(&mut self, myself: &ActorRef<Message>) {
        if self.is_marking || !self.arguments.registry.is_leader() {
            return;
        }
        let registry = self.arguments.registry.current();
        let change = detector::mark(&registry, self.arguments.node, self.heard());
        let Some(change) = change else {
            return;
        };
        self.is_marking = true;
        let (registry, myself) = (self.arguments.registry.clone(), myself.clone());
        tokio::spawn(async move {
            if let Ok(op) = fresh_op() {
                // What was outdated meanwhile is decided anew at the next tick.
                let _ = registry.write(op, change).await;
            }
            let _ = myself.cast(Message::Marked);
        });
    }
}

/// Half of what a peer may be late: silence is noticed at most this much after it is one.
pub(crate) const LISTEN_EVERY: Duration = Duration::from_millis(50);
