//! Canaries: which requests try a version, what is counted of them, and, while the node leads, what
//! follows from it.
//!
//! The twin of `node/src/canary.rs` and `node/src/router/traffic.rs`.

use std::collections::BTreeMap;

use paceline_core::Machine;
use paceline_core::canary::{Canaries, Effect, Input, under_way};
use paceline_protocol::registry::Change;
use paceline_protocol::report::{ArmCounts, CanaryReport, LATENCY_BUCKETS, latency_bucket};
use paceline_protocol::{Epoch, NodeId, VersionNumber, traffic};

use super::Node;
use super::knowledge::Try;
use crate::fact::{End, Fact};
use crate::message::Message;
use crate::world::Request;
use crate::world::outside::Outside;

/// What a node knows of canaries.
#[derive(Default)]
pub(super) struct Trials {
    /// What it has answered, by the model's position.
    counts: BTreeMap<u16, CanaryReport>,
    /// While it leads.
    machine: Canaries,
    /// Whether the machine knows of any.
    watches: bool,
}

/// Where a request is counted: by the canary that was under way, and whether it has tried it.
#[derive(Clone, Copy)]
pub(super) struct Arm {
    since: Epoch,
    is_canary: bool,
    /// The canary's share, if it can be had here.
    weight: Option<u16>,
}

impl Node {
    /// The version that a request gets beside the one that serves, if it gets one, and where it is
    /// counted while a canary is under way.
    pub(super) fn tries(&self, request: &Request) -> (Option<VersionNumber>, Option<Arm>) {
        let Some(Try {
            since,
            version,
            weight,
            salt,
        }) = self.knowledge.canary(request.model)
        else {
            return (None, None);
        };
        let bucket = || request.bucket_under(salt);
        let is_routed = self.knowledge.is_routed((request.model, *version));
        let is_canary = is_routed && traffic::is_in(bucket(), *weight);
        let arm = Arm {
            since: *since,
            is_canary,
            weight: is_routed.then_some(*weight),
        };
        (is_canary.then_some(*version), Some(arm))
    }

    /// A request that comes to a node is split from others by this.
    pub(super) fn split(&self, outside: &mut Outside, model: u16, arm: Option<Arm>) {
        if let Some(Arm {
            since,
            is_canary,
            weight: Some(weight),
        }) = arm
        {
            outside.record(&Fact::Split {
                model,
                since,
                weight,
                is_canary,
            });
        }
    }

    /// A request has ended so, after so long.
    pub(super) fn count(&mut self, model: u16, arm: Arm, (end, nanos): (End, u64)) {
        let is_failure = match end {
            End::Answered | End::Expired => false,
            End::Failed | End::Poison => true,
            End::Overloaded
            | End::Limited
            | End::QueueFull
            | End::Late
            | End::Cancelled
            | End::NotReady
            | End::Stale
            | End::Gone
            | End::Unreachable => return,
        };
        let Some(name) = self.knowledge.name_of_canary(model, arm.since) else {
            return;
        };
        let life = u64::from(self.process.life);
        let counts = self.trials.counts.entry(model);
        let counts = counts.or_insert_with(|| CanaryReport {
            model: name.clone(),
            since: arm.since,
            life,
            stable: ArmCounts::default(),
            canary: ArmCounts::default(),
        });
        if counts.since != arm.since {
            (counts.since, counts.stable, counts.canary) =
                (arm.since, ArmCounts::default(), ArmCounts::default());
        }
        let counted = match arm.is_canary {
            true => &mut counts.canary,
            false => &mut counts.stable,
        };
        counted.requests += 1;
        counted.failures += u64::from(is_failure);
        counted.latencies.resize(LATENCY_BUCKETS, 0);
        counted.latencies[latency_bucket(nanos)] += 1;
    }

    /// Tells the leader what was counted; while it leads, acts on what all have counted.
    pub(super) fn look_at_canaries(&mut self, outside: &mut Outside) {
        let Some(leader) = outside.leader else {
            return;
        };
        if leader != self.process {
            self.trials.machine = Canaries::default();
            for report in self.trials.counts.values() {
                let message = Message::Counted(self.id, Box::new(report.clone()));
                outside.send(self.index(), leader, REPORT_BYTES, message);
            }
            return;
        }
        let own: Vec<CanaryReport> = self.trials.counts.values().cloned().collect();
        for report in own {
            self.hear_counted(outside, (self.id, report));
        }
        // Once more after the last one: it is not watched any more then.
        let has_some = self.knowledge.has_canaries();
        if has_some || self.trials.watches {
            self.trials.watches = has_some;
            let input = under_way(self.knowledge.registry());
            self.step_canaries(outside, input);
        }
    }

    /// A node has counted this.
    pub(super) fn hear_counted(
        &mut self,
        outside: &mut Outside,
        (node, report): (NodeId, CanaryReport),
    ) {
        if outside.leader == Some(self.process) {
            self.step_canaries(outside, Input::Heard { node, report });
        }
    }

    fn step_canaries(&mut self, outside: &mut Outside, input: Input) {
        let mut effects = Vec::new();
        self.trials.machine.step(outside.now, input, &mut effects);
        for effect in effects {
            let change = match effect {
                Effect::Advance {
                    model,
                    since,
                    stage,
                } => Change::AdvanceCanary {
                    model,
                    since,
                    stage,
                },
                Effect::Promote { model, since } => Change::PromoteCanary {
                    model,
                    since: Some(since),
                },
                Effect::Abort {
                    model,
                    since,
                    reason,
                } => Change::AbortCanary {
                    model,
                    since: Some(since),
                    reason: reason.into(),
                },
            };
            self.propose_canary(outside, change);
        }
    }
}

/// What a report takes on the wire.
const REPORT_BYTES: u64 = 512;
