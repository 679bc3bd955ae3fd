//! What lies between nodes: who reaches whom, and how long a message takes.

use paceline_core::Random;

use crate::agenda::NodeIndex;
use crate::draws;
use crate::scenario::{self, Scenario};

/// The lines between the nodes of a run.
pub(super) struct Network {
    lines: scenario::Network,
    /// Zone and region of each node, as numbers.
    places: Vec<(u16, u16)>,
    cuts: Vec<Cut>,
    /// What every message to and from a node takes longer, in nanoseconds.
    lags: Vec<u64>,
    random: Random,
}

/// A partition that is in force.
struct Cut {
    fault: u16,
    is_inside: Vec<bool>,
    one_way: bool,
}

impl Network {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let (mut zones, mut regions, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for group in &scenario.cluster.groups {
            let place = (
                number(&mut zones, (&group.region, &group.zone)),
                number(&mut regions, &group.region),
            );
            places.extend(std::iter::repeat_n(place, usize::from(group.count)));
        }
        Self {
            lines: scenario.cluster.network,
            cuts: Vec::new(),
            lags: vec![0; places.len()],
            places,
            random: Random::stream(seed, "network"),
        }
    }

    /// Whether what `from` says arrives at `to`.
    pub(super) fn reaches(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.cuts.iter().all(|cut| {
            let (from, to) = (cut.inside(from), cut.inside(to));
            from == to || (cut.one_way && from)
        })
    }

    /// How long a message of so many bytes takes, in nanoseconds.
    pub(super) fn nanos(&mut self, from: NodeIndex, to: NodeIndex, bytes: u64) -> u64 {
        let ((zone, region), (other_zone, other_region)) = (self.place(from), self.place(to));
        let lines = self.lines;
        let way_us = if region != other_region {
            lines.world_us
        } else if zone != other_zone {
            lines.region_us
        } else {
            lines.zone_us
        };
        let mut nanos = way_us * 1_000;
        nanos += nanos * self.random.below(lines.jitter_permille + 1) / 1_000;
        nanos += bytes.saturating_mul(8_000) / lines.mbit_per_s.max(1);
        if self.random.below(1_000_000) < lines.loss_per_million {
            // A probe after a round trip and what the peer may wait with its acknowledgement.
            nanos += 2 * way_us * 1_000 + draws::between(&mut self.random, 25, 50) * 1_000_000;
        }
        nanos + self.lags[usize::from(from.0)] + self.lags[usize::from(to.0)]
    }

    /// Cuts `inside` off from all others, until the fault is mended.
    pub(super) fn cut(&mut self, fault: u16, inside: &[NodeIndex], one_way: bool) {
        let mut is_inside = vec![false; self.places.len()];
        for node in inside {
            is_inside[usize::from(node.0)] = true;
        }
        self.cuts.push(Cut {
            fault,
            is_inside,
            one_way,
        });
    }

    pub(super) fn mend(&mut self, fault: u16) {
        self.cuts.retain(|cut| cut.fault != fault);
    }

    /// Makes every message to and from a node take so much longer.
    pub(super) fn lag(&mut self, node: NodeIndex, nanos: u64) {
        self.lags[usize::from(node.0)] = nanos;
    }

    fn place(&self, node: NodeIndex) -> (u16, u16) {
        self.places[usize::from(node.0)]
    }
}

impl Cut {
    fn inside(&self, node: NodeIndex) -> bool {
        self.is_inside[usize::from(node.0)]
    }
}

fn number<T: PartialEq>(known: &mut Vec<T>, name: T) -> u16 {
    let position = known.iter().position(|other| *other == name);
    let position = position.unwrap_or_else(|| {
        known.push(name);
        known.len() - 1
    });
    position as u16
}
