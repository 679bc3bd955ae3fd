//! Which connections there are, and when the next one may be dialled.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use quinn::Connection;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hello::Life;
use crate::transport::Plane;

#[derive(Default)]
pub(super) struct Pool {
    peers: BTreeMap<NodeId, SocketAddr>,
    ways: BTreeMap<(NodeId, Plane), Way>,
    /// Datagrams of connections that are gone.
    heard_before: BTreeMap<NodeId, u64>,
}

/// A pair of nodes on one plane.
#[derive(Default)]
struct Way {
    links: Vec<Link>,
    is_dialling: bool,
    failures: u32,
    retry_at: Option<Instant>,
    reason: String,
    changed: Arc<Notify>,
}

pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) dialled_by: NodeId,
    /// Of the peer.
    pub(super) life: Life,
}

/// What somebody who wants a connection shall do.
pub(super) enum Next {
    /// Use this one.
    Use(Connection),
    /// Dial; report with [`Pool::connected`] or [`Pool::failed`].
    Dial(SocketAddr, Arc<Notify>),
    /// Somebody dials already: look again when told.
    Wait(Arc<Notify>),
    /// A dial has failed a moment ago.
    Failed(String),
    /// Nobody said where the peer is.
    Unknown,
}

impl Pool {
    /// Returns the peers whose connections must be closed.
    pub(super) fn set_peers(&mut self, peers: BTreeMap<NodeId, SocketAddr>) -> Vec<NodeId> {
        let before = std::mem::replace(&mut self.peers, peers);
        let moved = before
            .into_iter()
            .filter(|(peer, address)| self.peers.get(peer) != Some(address));
        moved.map(|(peer, _)| peer).collect()
    }

    /// What to do about `peer`. `me` decides between two connections: the lower id's is kept.
    pub(super) fn next(&mut self, me: NodeId, peer: NodeId, plane: Plane) -> Next {
        let address = self.peers.get(&peer).copied();
        let Some(address) = address else {
            // Whoever came by itself can be answered; nothing is kept of who never was here.
            let way = self.ways.get_mut(&(peer, plane));
            let connection = way.and_then(|way| way.best(me.min(peer)));
            return connection.map_or(Next::Unknown, Next::Use);
        };
        let way = self.ways.entry((peer, plane)).or_default();
        if let Some(connection) = way.best(me.min(peer)) {
            return Next::Use(connection);
        }
        if way.is_dialling {
            return Next::Wait(way.changed.clone());
        }
        if way.retry_at.is_some_and(|at| Instant::now() < at) {
            return Next::Failed(way.reason.clone());
        }
        way.is_dialling = true;
        Next::Dial(address, way.changed.clone())
    }

    /// Notes a connection that both sides have said hello on. Returns those that must be closed.
    pub(super) fn connected(
        &mut self,
        (peer, plane): (NodeId, Plane),
        link: Link,
    ) -> Vec<Connection> {
        let mut over = self.take_if(peer, |known| known.life != link.life);
        let way = self.ways.entry((peer, plane)).or_default();
        let dialled_by = link.dialled_by;
        way.links.push(link);
        if dialled_by != peer {
            way.is_dialling = false;
        }
        let of_peer = |link: &Link| link.dialled_by == peer;
        if way.links.iter().filter(|link| of_peer(link)).count() > LINKS_MAX
            && let Some(oldest) = way.links.iter().position(of_peer)
        {
            over.push(way.links.remove(oldest).connection);
        }
        (way.failures, way.retry_at) = (0, None);
        way.changed.notify_waiters();
        over
    }

    /// Notes that a dial has failed; the next one waits for a while.
    pub(super) fn failed(&mut self, (peer, plane): (NodeId, Plane), reason: String) {
        let way = self.ways.entry((peer, plane)).or_default();
        way.is_dialling = false;
        let pause = RETRY_MIN * 2_u32.pow(way.failures.min(DOUBLINGS_MAX));
        way.failures += 1;
        way.retry_at = Some(Instant::now() + pause);
        way.reason = reason;
        way.changed.notify_waiters();
    }

    /// Forgets a connection that is gone, or shall not be used any more.
    pub(super) fn forget(&mut self, (peer, plane): (NodeId, Plane), connection: &Connection) {
        let Some(way) = self.ways.get_mut(&(peer, plane)) else {
            return;
        };
        let id = connection.stable_id();
        let is_it = |link: &Link| link.connection.stable_id() == id;
        if let Some(position) = way.links.iter().position(is_it) {
            let link = way.links.remove(position);
            *self.heard_before.entry(peer).or_default() += datagrams(&link.connection);
        }
    }

    /// Takes all connections with a peer out; the next stream dials at once.
    pub(super) fn take(&mut self, peer: NodeId) -> Vec<Connection> {
        for plane in Plane::ALL {
            if let Some(way) = self.ways.get_mut(&(peer, plane)) {
                (way.failures, way.retry_at) = (0, None);
            }
        }
        self.take_if(peer, |_| true)
    }

    fn take_if(&mut self, peer: NodeId, is_over: impl Fn(&Link) -> bool) -> Vec<Connection> {
        let mut taken = Vec::new();
        for plane in Plane::ALL {
            if let Some(way) = self.ways.get_mut(&(peer, plane)) {
                let over = way.links.extract_if(.., |link| is_over(link));
                taken.extend(over.map(|link| link.connection));
            }
        }
        let heard: u64 = taken.iter().map(datagrams).sum();
        *self.heard_before.entry(peer).or_default() += heard;
        taken
    }

    pub(super) fn heard(&self, peer: NodeId) -> u64 {
        let ways = Plane::ALL.map(|plane| self.ways.get(&(peer, plane)));
        let links = ways.into_iter().flatten().flat_map(|way| &way.links);
        let now: u64 = links.map(|link| datagrams(&link.connection)).sum();
        self.heard_before.get(&peer).copied().unwrap_or(0) + now
    }
}

impl Way {
    /// The newest that lives, of those that `preferred` dialled if there are any.
    fn best(&self, preferred: NodeId) -> Option<Connection> {
        let lives = |link: &&Link| link.connection.close_reason().is_none();
        let live = || self.links.iter().rev().filter(lives);
        let best = live().find(|link| link.dialled_by == preferred);
        best.or_else(|| live().next())
            .map(|link| link.connection.clone())
    }
}

fn datagrams(connection: &Connection) -> u64 {
    connection.stats().udp_rx.datagrams
}

/// Connections that a peer may have dialled for one plane: one, while an old one still ends.
const LINKS_MAX: usize = 4;
/// Pause after the first failed dial; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(25);
/// Up to 400 ms: a peer that comes back is found before an election would be over.
const DOUBLINGS_MAX: u32 = 4;
