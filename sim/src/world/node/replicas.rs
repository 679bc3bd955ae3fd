//! Replicas that were assigned to this node: loaded, and loaded again when their engine fails.
//!
//! The twin of `node/src/{worker,replica}.rs`.

use std::collections::BTreeMap;

use paceline_core::Machine;
use paceline_core::batcher;
use paceline_core::device::{self, BatcherId, LaneId};
use paceline_core::placement::ReplicaState;
use paceline_core::restart::{self, Restart, RestartBudget};
use paceline_protocol::{ReplicaId, VersionNumber};

use super::Node;
use crate::agenda::Timer;
use crate::fact::Fact;
use crate::world::outside::Outside;

/// A replica that was assigned here.
pub(super) struct Replica {
    pub(super) version: (u16, VersionNumber),
    pub(super) condition: Condition,
    /// When it is loaded again, since its engine has failed once.
    restart: Option<Box<Restart>>,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Loading,
    /// It serves, from this queue.
    Ready(BatcherId),
    /// Its engine has failed: it waits.
    Failed,
    /// Its engine has failed too often.
    GivenUp,
}

/// What has had a queue's number last: its batches may still be staged or run.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub(super) version: (u16, VersionNumber),
    is_attached: bool,
    /// Whether its engine is gone: what still runs under this number fails.
    pub(super) is_dead: bool,
}

/// What is wrong with the engines of a node, by the number of the fault.
#[derive(Clone, Copy, Debug)]
pub(in crate::world) enum Trouble {
    /// Those of this model die, or all of them.
    Crash(Option<u16>),
    /// No batch of more rows fits into the device's memory; with none, no replica does.
    Memory(u32),
    /// So many of a thousand batches fail at once.
    Erring(u64),
}

impl Replica {
    /// Its queue, while it can serve.
    pub(super) fn batcher(&self) -> Option<BatcherId> {
        match self.condition {
            Condition::Ready(batcher) => Some(batcher),
            Condition::Loading | Condition::Failed | Condition::GivenUp => None,
        }
    }
}

impl Node {
    /// A replica was assigned: it begins to load.
    pub(super) fn load(
        &mut self,
        outside: &mut Outside,
        id: ReplicaId,
        version: (u16, VersionNumber),
    ) {
        let replica = Replica {
            version,
            condition: Condition::Loading,
            restart: None,
        };
        self.replicas.insert(id, replica);
        self.begin_loading(outside, (id, version));
    }

    fn begin_loading(
        &mut self,
        outside: &mut Outside,
        (id, version): (ReplicaId, (u16, VersionNumber)),
    ) {
        let process = self.process;
        outside.record(&Fact::Loading {
            process,
            replica: id,
        });
        self.knowledge.stop_observing();
        self.say(outside);
        let nanos = outside.version(version).load_ms * 1_000_000;
        outside.plan(self.process, nanos, Timer::Loaded(id));
    }

    /// A replica is loaded and warm, or its engine has failed at that, unless it was taken away
    /// meanwhile.
    pub(super) fn loaded(&mut self, outside: &mut Outside, id: ReplicaId) {
        let Some(version) = self.replicas.get(&id).map(|replica| replica.version) else {
            return;
        };
        if outside.fails_to_load(version) || self.is_troubled(version) {
            self.failed(outside, id);
            return;
        }
        let free = (0..self.queues.len()).find(|number| self.is_free(*number));
        let number = free.unwrap_or(self.queues.len());
        let batcher = BatcherId(number as u32);
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.condition = Condition::Ready(batcher);
        }
        let process = self.process;
        outside.record(&Fact::Loaded {
            process,
            replica: id,
        });
        let of = outside.version(version);
        let options = batcher::Options {
            rows_max: of.rows_max,
            tokens_max: of.tokens_max,
            policy: of.policy,
            cost: of.measured(),
        };
        let queue = Queue {
            version,
            is_attached: true,
            is_dead: false,
        };
        match self.queues.get_mut(number) {
            Some(place) => *place = queue,
            None => self.queues.push(queue),
        }
        self.step_device(outside, device::Input::Attach { batcher, options }, None);
        self.knowledge.touch_replica(version, id);
        self.knowledge.stop_observing();
        self.publish(outside);
        self.say(outside);
        self.reconcile(outside);
    }

    /// A replica goes away: it is sent nothing more, and what waits for it goes elsewhere.
    pub(super) fn unload(&mut self, outside: &mut Outside, id: ReplicaId) {
        self.knowledge.stop_observing();
        self.say(outside);
        let Some(replica) = self.replicas.remove(&id) else {
            return;
        };
        let process = self.process;
        outside.record(&Fact::Unloaded {
            process,
            replica: id,
        });
        if let Some(batcher) = replica.batcher() {
            self.detach(outside, (id, replica.version), batcher);
        }
    }

    fn detach(
        &mut self,
        outside: &mut Outside,
        (id, version): (ReplicaId, (u16, VersionNumber)),
        batcher: BatcherId,
    ) {
        self.knowledge.touch_replica(version, id);
        self.publish(outside);
        self.step_device(outside, device::Input::Detach { batcher }, None);
        if let Some(queue) = self.queues.get_mut(batcher.0 as usize) {
            queue.is_attached = false;
        }
    }

    /// The engine of a replica has failed: it is loaded again later, unless that was too often.
    fn failed(&mut self, outside: &mut Outside, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let (version, before) = (replica.version, replica.batcher());
        replica.condition = Condition::Failed;
        let new = || Box::new(Restart::new(RestartBudget::default(), id.0));
        let restart = replica.restart.get_or_insert_with(new);
        let mut effects = Vec::new();
        restart.step(outside.now, restart::Input::Failed, &mut effects);
        let is_given_up =
            |effect: &restart::Effect| matches!(effect, restart::Effect::GiveUp { .. });
        if effects.iter().any(is_given_up) {
            replica.condition = Condition::GivenUp;
        }
        let (process, replica) = (self.process, id);
        outside.record(&Fact::Failed { process, replica });
        for effect in effects {
            match effect {
                restart::Effect::Wait { until } => {
                    let after = until.nanos_since(outside.now);
                    outside.plan(self.process, after, Timer::Restart(id));
                }
                restart::Effect::GiveUp { failures: _ } => {
                    outside.record(&Fact::GivenUp { process, replica });
                }
                restart::Effect::Restart => unreachable!("a failure never restarts at once"),
            }
        }
        if let Some(batcher) = before {
            self.detach(outside, (id, version), batcher);
        }
        self.knowledge.stop_observing();
        self.say(outside);
        self.reconcile(outside);
    }

    /// A replica's wait may be over.
    pub(super) fn restart(&mut self, outside: &mut Outside, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let (version, mut effects) = (replica.version, Vec::new());
        if let Some(restart) = &mut replica.restart {
            restart.wake(outside.now, &mut effects);
        }
        if effects.contains(&restart::Effect::Restart) {
            replica.condition = Condition::Loading;
            self.begin_loading(outside, (id, version));
        }
    }

    /// Something is wrong with the engines from now on.
    pub(in crate::world) fn add_trouble(&mut self, fault: u16, what: Trouble) {
        self.troubles.insert(fault, what);
    }

    /// It is mended.
    pub(in crate::world) fn end_trouble(&mut self, fault: u16) {
        self.troubles.remove(&fault);
    }

    /// What the next process of this node finds as well.
    pub(in crate::world) fn take_troubles(&mut self) -> BTreeMap<u16, Trouble> {
        std::mem::take(&mut self.troubles)
    }

    pub(in crate::world) fn set_troubles(&mut self, troubles: BTreeMap<u16, Trouble>) {
        self.troubles = troubles;
    }

    /// The engines of a model die, or all of them, and fail what they run.
    pub(in crate::world) fn crash(&mut self, outside: &mut Outside, model: Option<u16>) {
        let ready = self.replicas.iter().filter_map(|(id, replica)| {
            let is_met = model.is_none_or(|model| replica.version.0 == model);
            Some((*id, replica.batcher().filter(|_| is_met)?))
        });
        for (id, batcher) in ready.collect::<Vec<_>>() {
            if let Some(queue) = self.queues.get_mut(batcher.0 as usize) {
                queue.is_dead = true;
            }
            self.failed(outside, id);
            self.fail_batches(outside, batcher);
        }
    }

    /// What runs under this number ends now, and has failed.
    fn fail_batches(&mut self, outside: &mut Outside, batcher: BatcherId) {
        for number in 0..self.lanes.len() {
            let lane = LaneId(number as u16);
            if let Some(run) = self.lanes[number].fail(batcher) {
                self.finished(outside, lane, run);
            }
        }
    }

    /// Whether no replica of this version can be loaded now.
    fn is_troubled(&self, (model, _): (u16, VersionNumber)) -> bool {
        self.troubles.values().any(|trouble| match trouble {
            Trouble::Crash(of) => of.is_none_or(|of| of == model),
            Trouble::Memory(rows_max) => *rows_max == 0,
            Trouble::Erring(_) => false,
        })
    }

    /// The largest batch that the device's memory has room for, in rows.
    pub(super) fn rows_that_fit(&self) -> u32 {
        let limits = self.troubles.values().filter_map(|trouble| match trouble {
            Trouble::Crash(_) | Trouble::Erring(_) => None,
            Trouble::Memory(rows_max) => Some(*rows_max),
        });
        limits.min().unwrap_or(u32::MAX)
    }

    /// How many of a thousand batches fail at once.
    pub(super) fn errs_permille(&self) -> u64 {
        let shares = self.troubles.values().filter_map(|trouble| match trouble {
            Trouble::Crash(_) | Trouble::Memory(_) => None,
            Trouble::Erring(permille) => Some(*permille),
        });
        shares.max().unwrap_or(0)
    }

    /// Whether nothing has this number, nor still runs under it.
    fn is_free(&self, number: usize) -> bool {
        let runs = |served: &super::served::Served| served.batcher.0 as usize == number;
        !self.queues[number].is_attached && self.served.find(runs).is_empty()
    }

    pub(super) fn own_states(&self) -> BTreeMap<ReplicaId, ReplicaState> {
        let states = self.replicas.iter().map(|(id, replica)| {
            let state = match replica.condition {
                Condition::Ready(_) => ReplicaState::Ready,
                Condition::Loading => ReplicaState::Loading,
                Condition::Failed => ReplicaState::Failed {
                    reason: "its engine has failed".to_owned(),
                },
                Condition::GivenUp => ReplicaState::GivenUp {
                    reason: "its engine has failed".to_owned(),
                },
            };
            (*id, state)
        });
        states.collect()
    }
}
