//! Which addresses a client knows, and which it dials next. A machine without sockets or clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use paceline_protocol::NodeId;
use paceline_protocol::client::ClientDoor;
use paceline_protocol::limits::NODES_MAX;

/// Everything known about where nodes are.
#[derive(Default)]
pub(crate) struct Known {
    addresses: BTreeMap<String, Address>,
    /// Rises with every dial, so that addresses take turns.
    dials: u64,
}

#[derive(Default)]
struct Address {
    /// Given by the user: never forgotten.
    is_seed: bool,
    /// Who was reached there last.
    node: Option<NodeId>,
    state: State,
    failures: u32,
    reason: Option<String>,
    dialled: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Dialling,
    Connected,
    /// Not before this moment.
    Failed(Instant),
}

impl Known {
    /// Knows the addresses that the user gave.
    pub(crate) fn new(seeds: impl IntoIterator<Item = String>) -> Self {
        let seed = |address| {
            let is_seed = true;
            (
                address,
                Address {
                    is_seed,
                    ..Address::default()
                },
            )
        };
        Self {
            addresses: seeds.into_iter().map(seed).collect(),
            dials: 0,
        }
    }

    /// Learns where nodes are from one of them. What is no longer named is forgotten once nobody
    /// is connected there, seeds excepted.
    pub(crate) fn learn(&mut self, doors: &[ClientDoor]) {
        let doors = &doors[..doors.len().min(NODES_MAX)];
        self.addresses.retain(|address, known| {
            known.is_seed
                || matches!(known.state, State::Dialling | State::Connected)
                || doors.iter().any(|door| door.address == *address)
        });
        for door in doors {
            let known = self.addresses.entry(door.address.clone()).or_default();
            known.node = Some(door.node);
        }
    }

    /// The next address to dial, which counts as being dialled from now on: among those that are
    /// free, and whose node is not one of `connected`, the one that was dialled longest ago.
    pub(crate) fn next(&mut self, now: Instant, connected: &[NodeId]) -> Option<String> {
        let is_due = |known: &Address| match known.state {
            State::Free => true,
            State::Failed(until) => until <= now,
            State::Dialling | State::Connected => false,
        };
        let is_new = |known: &Address| known.node.is_none_or(|node| !connected.contains(&node));
        let (address, known) = self
            .addresses
            .iter_mut()
            .filter(|(_, known)| is_due(known) && is_new(known))
            .min_by_key(|(_, known)| known.dialled)?;
        self.dials += 1;
        known.dialled = self.dials;
        known.state = State::Dialling;
        Some(address.clone())
    }

    /// When an address that has failed may be dialled again, if any waits for that.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let until = |known: &Address| match known.state {
            State::Failed(until) => Some(until),
            State::Free | State::Dialling | State::Connected => None,
        };
        self.addresses.values().filter_map(until).min()
    }

    /// Addresses that are being dialled.
    pub(crate) fn dialling(&self) -> usize {
        let dialling = |known: &&Address| known.state == State::Dialling;
        self.addresses.values().filter(dialling).count()
    }

    /// A dial has reached `node`; `is_used` says whether the connection is kept.
    pub(crate) fn reached(&mut self, address: &str, node: NodeId, is_used: bool) {
        if let Some(known) = self.addresses.get_mut(address) {
            known.node = Some(node);
            known.failures = 0;
            known.reason = None;
            known.state = if is_used {
                State::Connected
            } else {
                State::Free
            };
        }
    }

    /// A connection is gone.
    pub(crate) fn lost(&mut self, address: &str) {
        if let Some(known) = self.addresses.get_mut(address) {
            known.state = State::Free;
        }
    }

    /// A dial has failed; the next one waits twice as long as the one before, with `jitter`
    /// from 0 to 255 spreading clients over half of that time.
    pub(crate) fn failed(&mut self, address: &str, reason: String, (now, jitter): (Instant, u8)) {
        if let Some(known) = self.addresses.get_mut(address) {
            let wait = BACKOFF_MIN * (1 << known.failures.min(BACKOFF_DOUBLINGS));
            let wait = wait / 2 + wait / 2 * u32::from(jitter) / 255;
            known.failures = known.failures.saturating_add(1);
            known.reason = Some(reason);
            known.state = State::Failed(now + wait);
        }
    }

    /// Whether every address has been tried and has failed.
    pub(crate) fn all_failed(&self) -> bool {
        self.addresses.values().all(|known| known.failures > 0)
    }

    /// What was said at each address that has failed, for people.
    pub(crate) fn reasons(&self) -> String {
        let said = self.addresses.iter().filter_map(|(address, known)| {
            let reason = known.reason.as_ref()?;
            Some(format!("{address}: {reason}"))
        });
        let said: Vec<String> = said.take(REASONS_SHOWN_MAX).collect();
        if said.is_empty() {
            return "no address has answered yet".to_owned();
        }
        said.join("; ")
    }
}

/// The first wait after a failed dial.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Up to 100 ms × 2⁶ = 6.4 s: a node that comes back is found within seconds.
const BACKOFF_DOUBLINGS: u32 = 6;
const REASONS_SHOWN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn door(node: u64, address: &str) -> ClientDoor {
        let (node, address) = (NodeId(node), address.to_owned());
        ClientDoor { node, address }
    }

    #[test]
    fn addresses_take_turns_and_one_connection_a_node_is_enough() {
        let now = Instant::now();
        let mut known = Known::new(["b".to_owned(), "a".to_owned()]);
        assert_eq!(known.next(now, &[]).as_deref(), Some("a"));
        known.reached("a", NodeId(1), true);
        known.learn(&[door(1, "a"), door(1, "a2"), door(2, "c")]);
        assert_eq!(known.next(now, &[NodeId(1)]).as_deref(), Some("b"));
        // The seed is node 1 by another name.
        known.reached("b", NodeId(1), false);
        assert_eq!(known.next(now, &[NodeId(1)]).as_deref(), Some("c"));
        assert_eq!(known.next(now, &[NodeId(1)]), None);
        assert_eq!(known.dialling(), 1);
    }

    #[test]
    fn failures_back_off_and_the_forgotten_are_not_dialled() {
        let start = Instant::now();
        let mut known = Known::new(["a".to_owned()]);
        known.learn(&[door(2, "c")]);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = start;
            known.failed("a", "no".to_owned(), (now, 255));
            waits.push((known.next_retry().unwrap() - now).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 6400, 6400]);
        assert!(!known.all_failed() && known.reasons().contains("a: no"));
        known.learn(&[]);
        assert!(known.all_failed(), "c is forgotten, the seed is not");
        assert_eq!(known.next(start, &[]), None);
        let later = start + Duration::from_secs(7);
        assert_eq!(known.next(later, &[]).as_deref(), Some("a"));
    }
}
