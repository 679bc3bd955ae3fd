//! What all nodes of a network in memory share: who is there, which links work, what is under
//! way. One lock over all of it: runs are small, and one order of events is the point.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use paceline_core::Random;
use paceline_protocol::NodeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pipe::{Ended, Life, Pipe, Read};
use super::stream::{Receiving, Sending};
use super::{IDLE_MAX, LinkTiming};
use crate::transport::{Incoming, KEEP_ALIVE, OpenError, Plane, Stream};

pub(super) struct Network {
    state: Mutex<State>,
}

struct State {
    random: Random,
    timing: LinkTiming,
    lives: u64,
    nodes: BTreeMap<NodeId, Place>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    traffic: Traffic,
}

/// All writes so far, and FNV-1a over what was written, on which stream and after how long.
struct Traffic {
    began: Instant,
    writes: u64,
    digest: u64,
}

struct Place {
    life: u64,
    doors: BTreeMap<Plane, mpsc::Sender<Incoming>>,
    peers: BTreeSet<NodeId>,
}

/// One direction between two nodes.
#[derive(Default)]
struct Link {
    cut_at: Option<Instant>,
    /// Since when something is connected over it, and for how long it was before.
    live_since: Option<Instant>,
    live_before: Duration,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        let timing = LinkTiming {
            delay_min_us: 100,
            delay_max_us: 500,
            loss_permille: 0,
        };
        Self {
            state: Mutex::new(State {
                random: Random::stream(seed, "network"),
                timing,
                lives: 0,
                nodes: BTreeMap::new(),
                links: BTreeMap::new(),
                pipes: BTreeMap::new(),
                next_pipe: 0,
                traffic: Traffic::new(),
            }),
        }
    }

    pub(super) fn join(&self, node: NodeId, doors: BTreeMap<Plane, mpsc::Sender<Incoming>>) -> u64 {
        let mut state = self.locked();
        state.lives += 1;
        let life = state.lives;
        // Peers of an earlier life learn now that it is over, as by a stateless reset.
        state.break_where(|pipe| pipe.from.0 == node || pipe.to.0 == node);
        state.unlink(node, None);
        let peers = BTreeSet::new();
        state.nodes.insert(node, Place { life, doors, peers });
        life
    }

    pub(super) fn leave(&self, me: Life) {
        let mut state = self.locked();
        if state.lives(me) {
            state.nodes.remove(&me.0);
            state.break_where(|pipe| pipe.from == me || pipe.to == me);
            state.unlink(me.0, None);
        }
    }

    /// The node's own ends fail; its peers hear nothing.
    pub(super) fn crash(&self, node: NodeId) {
        let mut state = self.locked();
        state.nodes.remove(&node);
        state.unlink(node, None);
    }

    pub(super) fn set_timing(&self, timing: LinkTiming) {
        self.locked().timing = timing;
    }

    pub(super) fn set_peers(&self, me: Life, known: BTreeSet<NodeId>) {
        let mut state = self.locked();
        if !state.lives(me) {
            return;
        }
        let Some(place) = state.nodes.get_mut(&me.0) else {
            return;
        };
        let before = std::mem::replace(&mut place.peers, known.clone());
        for peer in before.difference(&known) {
            state.part(me.0, *peer);
        }
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        let mut state = self.locked();
        let now = Instant::now();
        let link = state.links.entry((from, to)).or_default();
        link.rest(now);
        link.cut_at.get_or_insert(now);
        state.wake_all();
    }

    pub(super) fn heal(&self) {
        let mut state = self.locked();
        let now = Instant::now();
        let connected = state.connected();
        for (between, link) in &mut state.links {
            link.cut_at = None;
            if connected.contains(between) {
                link.live_since.get_or_insert(now);
            }
        }
        state.wake_all();
    }

    pub(super) fn traffic(&self) -> (u64, u64) {
        let state = self.locked();
        (state.traffic.writes, state.traffic.digest)
    }

    pub(super) fn disconnect(&self, node: NodeId, peer: NodeId) {
        self.locked().part(node, peer);
    }

    /// Rises with time while something is connected and the link works.
    pub(super) fn heard(&self, from: NodeId, to: NodeId) -> u64 {
        let state = self.locked();
        let live = state.links.get(&(from, to)).map_or(Duration::ZERO, |link| {
            let now = link.live_since.map_or(Duration::ZERO, |at| at.elapsed());
            link.live_before + now
        });
        (live.as_nanos() / KEEP_ALIVE.as_nanos()) as u64
    }

    /// Opens a stream: waits for a way there and back, without end if there is none.
    pub(super) async fn connect(
        self: &Arc<Self>,
        me: Life,
        peer: NodeId,
        plane: Plane,
    ) -> Result<Stream, OpenError> {
        loop {
            let way = {
                let mut state = self.locked();
                let place = state.nodes.get(&me.0).filter(|place| place.life == me.1);
                if !place.ok_or(OpenError::Closed)?.peers.contains(&peer) {
                    return Err(OpenError::Unknown { peer });
                }
                let is_there = state.nodes.contains_key(&peer);
                let works = state.works(me.0, peer) && state.works(peer, me.0);
                (works && is_there).then(|| state.delay())
            };
            match way {
                Some(way) => {
                    tokio::time::sleep(way).await;
                    if let Some(stream) = self.stream(me, peer, plane) {
                        return Ok(stream);
                    }
                }
                None => tokio::time::sleep(KEEP_ALIVE).await,
            }
        }
    }

    /// Both directions of a new stream, if both nodes are still there.
    fn stream(self: &Arc<Self>, me: Life, peer: NodeId, plane: Plane) -> Option<Stream> {
        let mut state = self.locked();
        let place = state.nodes.get(&peer)?;
        let (there, door) = ((peer, place.life), place.doors.get(&plane)?.clone());
        if !state.lives(me) {
            return None;
        }
        let now = Instant::now();
        for between in [(me.0, peer), (peer, me.0)] {
            let link = state.links.entry(between).or_default();
            if link.cut_at.is_none() {
                link.live_since.get_or_insert(now);
            }
        }
        let (out, back) = (state.pipe(me, there), state.pipe(there, me));
        drop(state);
        let theirs = Stream {
            send: Box::new(Sending::new(self.clone(), back, None)),
            receive: Box::new(Receiving::new(self.clone(), out)),
        };
        let incoming = Incoming {
            peer: me.0,
            stream: theirs,
        };
        Some(Stream {
            // The peer hears of the stream with its first bytes.
            send: Box::new(Sending::new(self.clone(), out, Some((door, incoming)))),
            receive: Box::new(Receiving::new(self.clone(), back)),
        })
    }

    /// Takes bytes, or keeps the waker until there is room.
    pub(super) fn write(&self, id: u64, bytes: &[u8], waker: &Waker) -> io::Result<Option<usize>> {
        let mut state = self.locked();
        let delay = state.delay();
        state.traffic.note(id, bytes);
        let is_there = state
            .pipes
            .get(&id)
            .is_some_and(|pipe| state.lives(pipe.from));
        match state.pipes.get_mut(&id).filter(|_| is_there) {
            Some(pipe) => pipe.write(Instant::now() + delay, bytes, waker),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Ends the sending direction.
    pub(super) fn end(&self, id: u64, how: Ended) {
        let mut state = self.locked();
        let delay = state.delay();
        if let Some(pipe) = state.pipes.get_mut(&id) {
            pipe.finish(Instant::now() + delay, how);
        }
    }

    /// The next bytes, at most `limit`, or when to look again; the waker is kept for then.
    pub(super) fn read(&self, id: u64, limit: usize, waker: &Waker) -> io::Result<Read> {
        let mut state = self.locked();
        let now = Instant::now();
        let reset = || Err(io::ErrorKind::ConnectionReset.into());
        let Some((from, to)) = state.pipes.get(&id).map(|pipe| (pipe.from, pipe.to)) else {
            return reset();
        };
        let (is_here, is_there) = (state.lives(to), state.lives(from));
        let cut_at = state
            .links
            .get(&(from.0, to.0))
            .and_then(|link| link.cut_at);
        let Some(pipe) = state.pipes.get_mut(&id).filter(|_| is_here) else {
            return reset();
        };
        if cut_at.is_none() && is_there {
            return pipe.read(now, limit, waker);
        }
        let silent_since = cut_at.unwrap_or_else(|| pipe.last_arrival(now));
        if silent_since + IDLE_MAX <= now {
            return reset();
        }
        pipe.wait(waker);
        Ok(Read::Wait(Some(silent_since + IDLE_MAX)))
    }

    /// The reading side has gone: the writer is told.
    pub(super) fn stop(&self, id: u64) {
        let mut state = self.locked();
        if state.pipes.get_mut(&id).is_some_and(Pipe::stop) {
            state.pipes.remove(&id);
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lives(&self, (node, life): Life) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|place| place.life == life)
    }

    fn delay(&mut self) -> Duration {
        let LinkTiming {
            delay_min_us,
            delay_max_us,
            loss_permille,
        } = self.timing;
        let spread = delay_max_us.saturating_sub(delay_min_us) + 1;
        let way = Duration::from_micros(delay_min_us + self.random.below(spread));
        // What is lost comes about two round trips later.
        let lost = self.random.below(1_000) < loss_permille;
        way + if lost { 4 * way } else { Duration::ZERO }
    }

    fn works(&self, from: NodeId, to: NodeId) -> bool {
        let link = self.links.get(&(from, to));
        link.is_none_or(|link| link.cut_at.is_none())
    }

    fn pipe(&mut self, from: Life, to: Life) -> u64 {
        let id = self.next_pipe;
        self.next_pipe += 1;
        self.pipes.insert(id, Pipe::new(from, to));
        id
    }

    /// Pairs of nodes with a stream between them, each direction for itself.
    fn connected(&self) -> BTreeSet<(NodeId, NodeId)> {
        let pipes = self.pipes.values();
        let live = pipes.filter(|pipe| self.lives(pipe.from) && self.lives(pipe.to));
        live.map(|pipe| (pipe.from.0, pipe.to.0)).collect()
    }

    fn part(&mut self, node: NodeId, peer: NodeId) {
        self.break_where(|pipe| {
            let ends = (pipe.from.0, pipe.to.0);
            ends == (node, peer) || ends == (peer, node)
        });
        self.unlink(node, Some(peer));
    }

    fn break_where(&mut self, is_meant: impl Fn(&Pipe) -> bool) {
        self.pipes.retain(|_, pipe| {
            let broken = is_meant(pipe);
            if broken {
                pipe.wake_all();
            }
            !broken
        });
    }

    /// Nothing is heard any more over the links of `node`, or over those to one peer.
    fn unlink(&mut self, node: NodeId, peer: Option<NodeId>) {
        let now = Instant::now();
        for ((from, to), link) in &mut self.links {
            let other = if *from == node { *to } else { *from };
            if (*from == node || *to == node) && peer.is_none_or(|peer| peer == other) {
                link.rest(now);
            }
        }
        self.wake_all();
    }

    fn wake_all(&mut self) {
        self.pipes.values_mut().for_each(Pipe::wake_all);
    }
}

impl Traffic {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            writes: 0,
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    fn note(&mut self, stream: u64, bytes: &[u8]) {
        self.writes += 1;
        let at = self.began.elapsed().as_micros() as u64;
        let place = stream.to_le_bytes().into_iter().chain(at.to_le_bytes());
        for byte in place.chain(bytes.iter().copied()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Link {
    fn rest(&mut self, now: Instant) {
        if let Some(since) = self.live_since.take() {
            self.live_before += now - since;
        }
    }
}
