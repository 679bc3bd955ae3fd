//! Policy of monotonic reads: who answers a client that has seen more than this node.

use paceline_protocol::{Epoch, NodeId};

/// A peer, as it was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which one.
    pub node: NodeId,
    /// How much it has applied.
    pub epoch: Epoch,
    /// Whether it takes requests: it says that it is ready, and is not suspect.
    pub takes_requests: bool,
}

/// The peer to send a request to whose client has seen `seen`: the one that is the furthest
/// ahead of those that are not behind; the lowest id of several.
pub fn ahead(seen: Epoch, peers: impl IntoIterator<Item = Peer>) -> Option<NodeId> {
    let able = peers
        .into_iter()
        .filter(|peer| peer.takes_requests && peer.epoch >= seen);
    let best = able.max_by_key(|peer| (peer.epoch, u64::MAX - peer.node.0));
    best.map(|peer| peer.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_or_takes_nothing_is_not_asked() {
        let peer = |node, epoch, takes_requests| Peer {
            node: NodeId(node),
            epoch: Epoch(epoch),
            takes_requests,
        };
        let peers = [
            peer(1, 811, true),
            peer(2, 900, false),
            peer(3, 813, true),
            peer(4, 813, true),
        ];
        let ask = |seen| ahead(Epoch(seen), peers);
        assert_eq!(ask(812), Some(NodeId(3)));
        assert_eq!(ask(813), Some(NodeId(3)));
        assert_eq!(ask(814), None);
        assert_eq!(ask(0), Some(NodeId(3)));
        assert_eq!(ahead(Epoch(0), []), None);
    }
}
