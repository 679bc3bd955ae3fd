//! Drives [`paceline_core::device`]: payloads, lanes, and engines that run batches.
//!
//! Hot path: the machine and the waiting payloads share one short lock, and whoever brings a
//! request steps the machine in its own task. If the machine says so, that task also runs the
//! batch, for all who queued; otherwise the lane's thread does, as always where the engine is in a
//! process of its own. Texts are cut into tokens before that (`reading.rs`). An engine that fails,
//! panics or dies ends its batch with a typed failure and never takes the lane along.

mod drive;
mod formed;
mod lane;
mod measured;
mod pending;
mod reading;
mod submission;
mod suspects;
mod told;
mod work;

use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::batcher::{DropReason, Options};
use paceline_core::device::{BatcherId, Device, Effect, Input, LaneId, Spare};
use paceline_core::quarantine::Verdict;
use paceline_core::record::Recorded;
use paceline_core::{BucketId, Machine, RequestMeta, Slot};
use paceline_models::LoadedModel;
use paceline_protocol::{ErrorCode, Failure, ReplicaId, TenantId, Tensor, VersionNumber};

use self::formed::{Formed, Ticket};
use self::lane::{Door, Signal};
pub(crate) use self::measured::options;
use self::pending::Pending;
use self::reading::{Read, Reader, Readers};
pub(crate) use self::submission::Submission;
pub(crate) use self::suspects::Suspects;
pub(crate) use self::work::{End, Load, Ran, Work};
use crate::clock::Clock;
use crate::record::{Records, Share};
use crate::telemetry::metrics::DeviceMetrics;
use crate::telemetry::statistics::Statistics;
use crate::threads::Threads;

/// The way to a device. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// A replica that can be sent requests. Dropping it takes the replica off the device: what
/// waits for it is told that it is gone.
pub struct Attachment {
    handle: Handle,
    batcher: BatcherId,
}

/// What a replica brings to its device.
pub struct Loaded {
    /// Which replica.
    pub replica: ReplicaId,
    /// The loaded, warm model.
    pub model: Arc<dyn LoadedModel>,
    /// What its queue must know.
    pub options: Options,
    /// Where its batches are counted.
    pub statistics: Arc<Statistics>,
    /// What engines of the replica died of.
    pub suspects: Arc<Suspects>,
    /// Told when the engine dies while it runs a batch.
    pub on_death: Arc<dyn Fn(String) + Send + Sync>,
}

struct Shared {
    clock: Clock,
    readers: Readers,
    state: Mutex<State>,
    lanes: Vec<Door>,
    /// Who waits for the batch that runs, by lane. Locked after the state, if both are.
    running: Vec<Mutex<Vec<Reply>>>,
    /// The lanes', for batches that can be divided.
    spare: Mutex<Spare>,
    metrics: DeviceMetrics,
}

/// The way back to whoever brought a request.
type Reply = tokio::sync::oneshot::Sender<End>;

struct State {
    /// Whether the node has left: nothing more is taken.
    is_closed: bool,
    machine: Recorded<Device>,
    effects: Vec<Effect>,
    pending: Pending,
    replicas: Vec<Option<Arc<Loaded>>>,
    /// The batch being formed.
    forming: Formed,
    /// Staged batches, by lane.
    staged: Vec<Formed>,
}

/// A batch that the calling thread shall run.
struct Batch {
    lane: LaneId,
    rows: u32,
    replica: Arc<Loaded>,
    tickets: Vec<Ticket>,
}

impl Handle {
    /// A device with so many lanes, each driven by a thread of its own or by a task.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(
        (lanes, threads): (u16, Threads),
        clock: Clock,
        metrics: DeviceMetrics,
        records: &Records,
    ) -> std::io::Result<Self> {
        let (doors, inboxes): (Vec<_>, Vec<_>) = (0..lanes).map(|_| lane::open(threads)).unzip();
        let shared = Arc::new(Shared {
            clock,
            readers: Readers::new(lanes, threads),
            state: Mutex::new(State {
                is_closed: false,
                machine: Recorded::new(Device::new(lanes), records.bytes(Share::Device)),
                effects: Vec::with_capacity(64),
                pending: Pending::default(),
                replicas: Vec::new(),
                forming: Formed::default(),
                staged: (0..=lanes).map(|_| Formed::default()).collect(),
            }),
            lanes: doors,
            running: (0..=lanes).map(|_| Mutex::default()).collect(),
            spare: Mutex::new(Spare::new(lanes)),
            metrics,
        });
        records.keep((Share::Device, ""), &shared, |shared| {
            shared.lock().machine.recording()
        });
        for (lane, inbox) in inboxes.into_iter().enumerate() {
            lane::spawn(LaneId(lane as u16), inbox, Arc::downgrade(&shared))?;
        }
        Ok(Self { shared })
    }

    /// Where batches of a version are counted.
    pub fn statistics(&self, model: &str, version: VersionNumber) -> Arc<Statistics> {
        self.shared.metrics.statistics(model, version)
    }

    /// Where what happens to engines is counted.
    pub fn metrics(&self) -> &DeviceMetrics {
        &self.shared.metrics
    }

    /// Takes a loaded replica on.
    pub fn attach(&self, loaded: Loaded) -> Attachment {
        let mut state = self.shared.lock();
        let free = state.replicas.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            state.replicas.push(None);
            state.replicas.len() - 1
        });
        let batcher = BatcherId(index as u32);
        let options = loaded.options.clone();
        let reader = Reader {
            model: loaded.model.clone(),
            batch_tokens_max: options.tokens_max,
        };
        self.shared.readers.set(batcher, Some(reader));
        state.replicas[index] = Some(Arc::new(loaded));
        let batch = self.shared.step(state, Input::Attach { batcher, options });
        debug_assert!(batch.is_none(), "attaching runs nothing");
        Attachment {
            handle: self.clone(),
            batcher,
        }
    }

    /// Sends a request to a replica. If it is cheap and the device is free, it has run when
    /// this returns. Dropping the [`Submission`] cancels it.
    pub fn submit(&self, work: Work) -> Submission {
        Submission::of(self.clone(), work)
    }

    /// Lets a request wait at the device that was read, if its model reads it. Its end may be there
    /// when this returns.
    fn enqueue(&self, work: Work, read: Read) -> (tokio::sync::oneshot::Receiver<End>, Slot) {
        let now = self.shared.clock.now();
        let (reply, receiver) = tokio::sync::oneshot::channel();
        let mut state = self.shared.lock();
        let mut verdict = Verdict::Free;
        let in_place = state
            .replica(work.batcher)
            .is_none_or(|it| !it.model.is_elsewhere());
        if let Some(suspects) = state.suspects(work.batcher) {
            // A pass over all its bytes, which nobody else should wait for.
            drop(state);
            verdict = suspects.verdict(now, &work.inputs);
            state = self.shared.lock();
        }
        let Work {
            batcher, inputs, ..
        } = work;
        let is_other = (state.replica(batcher)).is_some_and(|replica| !read.is_for(&replica.model));
        if state.is_closed || is_other {
            // Read at once, or dropped unread.
            let _ = reply.send(End::Dropped(DropReason::Gone, inputs));
            return (receiver, NO_SLOT);
        }
        if verdict == Verdict::Refused {
            self.shared.metrics.poisonous();
            let message =
                "engines died while they worked on the request; it is not tried again for a while";
            let _ = reply.send(End::Refused(Failure::new(ErrorCode::Poison, message)));
            return (receiver, NO_SLOT);
        }
        let Read { packed, tokens, .. } = read;
        let bucket = bucket(packed.as_ref().unwrap_or(&inputs));
        let slot = state.pending.insert(pending::Payload {
            batcher,
            inputs,
            packed,
            arrived: now,
            is_second: work.is_second,
            is_suspect: verdict == Verdict::Alone,
            reply,
        });
        let request = RequestMeta {
            slot,
            deadline: work.deadline,
            bucket,
            bytes: work.bytes,
            rows: work.rows,
            tokens,
            criticality: work.criticality,
            tenant: work.tenant,
            is_alone: work.is_second || verdict == Verdict::Alone,
        };
        let input = Input::Arrive {
            batcher,
            request,
            in_place,
        };
        let batch = self.shared.step_at(now, state, input);
        self.shared.run_in_place(batch);
        (receiver, slot)
    }

    /// The weights of tenants from now on; those that are not named weigh 1.
    pub fn set_weights(&self, weights: Vec<(TenantId, u32)>) {
        let state = self.shared.lock();
        let batch = self.shared.step(state, Input::SetWeights { weights });
        debug_assert!(batch.is_none(), "weights run nothing");
    }

    /// How a replica's queue is doing.
    pub fn load(&self, batcher: BatcherId) -> Load {
        let state = self.shared.lock();
        state
            .machine
            .batcher(batcher)
            .map_or_else(Load::default, |queue| Load {
                queued_rows: u32::try_from(queue.queued_rows()).unwrap_or(u32::MAX),
                row_nanos: queue.row_nanos(),
                one_row_nanos: queue.one_row_nanos(),
            })
    }

    /// Batches being staged or run, and rows that wait.
    pub fn occupancy(&self) -> (u32, u64) {
        let state = self.shared.lock();
        (state.machine.running(), state.machine.queued_rows())
    }

    /// Drops what has expired while it waited. Called by the worker from time to time; the
    /// caller's own timer usually comes first.
    pub fn expire(&self) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        if state.machine.next_wakeup().is_some_and(|at| at <= now) {
            let State {
                machine, effects, ..
            } = &mut *state;
            machine.wake(now, effects);
            let batch = self.shared.perform(state);
            debug_assert!(batch.is_none(), "expiring runs nothing");
        }
    }

    /// Ends the lanes once they have nothing left to run.
    pub fn stop(&self) {
        for lane in &self.shared.lanes {
            lane.tell(Signal::Stop);
        }
    }

    /// Takes nothing more: what waits goes back unexecuted, and what runs ends for its callers,
    /// although its batch goes on, with a status that may be sent again.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        let mut running: Vec<Reply> = Vec::new();
        for lane in &self.shared.running {
            running.append(&mut lane.lock().unwrap_or_else(PoisonError::into_inner));
        }
        for staged in &mut state.staged {
            running.append(&mut staged.replies);
        }
        let batch = self.shared.step(state, Input::Evict);
        debug_assert!(batch.is_none(), "leaving runs nothing");
        for reply in running {
            let message = "the node has left before the request had run to its end";
            let failure = Failure::new(ErrorCode::ShuttingDown, message);
            // A caller that has gone needs no answer.
            let _ = reply.send(End::Left(failure));
        }
    }

    /// Takes requests again.
    pub fn open(&self) {
        self.shared.lock().is_closed = false;
    }

    fn cancel(&self, batcher: BatcherId, slot: Slot) {
        let state = self.shared.lock();
        let batch = self.shared.step(state, Input::Cancel { batcher, slot });
        debug_assert!(batch.is_none(), "cancelling runs nothing");
    }
}

impl Attachment {
    /// The replica's queue.
    pub fn batcher(&self) -> BatcherId {
        self.batcher
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        // Batches that run keep the model alive through their own reference.
        shared.readers.set(self.batcher, None);
        state.replicas[self.batcher.0 as usize] = None;
        let batch = shared.step(
            state,
            Input::Detach {
                batcher: self.batcher,
            },
        );
        debug_assert!(batch.is_none(), "detaching runs nothing");
    }
}

impl State {
    fn replica(&self, batcher: BatcherId) -> Option<&Arc<Loaded>> {
        self.replicas.get(batcher.0 as usize)?.as_ref()
    }

    /// What engines of a replica died of, if they died of anything.
    fn suspects(&self, batcher: BatcherId) -> Option<Arc<Suspects>> {
        let suspects = &self.replica(batcher)?.suspects;
        (!suspects.is_empty()).then(|| suspects.clone())
    }
}

/// Requests whose rows can stand in one batch: all sizes but the number of rows are equal.
/// FNV-1a over ranks and inner dimensions; equal shapes give equal buckets, and engines check
/// shapes themselves, so a collision costs a failed batch and never a wrong answer.
fn bucket(inputs: &[Tensor]) -> BucketId {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for tensor in inputs {
        for dim in tensor.shape().dims().iter().skip(1) {
            hash = (hash ^ dim).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ 0xff).wrapping_mul(0x0100_0000_01b3);
    }
    BucketId(hash)
}

/// No request has it: generations count from 1.
const NO_SLOT: Slot = Slot {
    index: 0,
    generation: 0,
};

#[cfg(test)]
mod tests;
