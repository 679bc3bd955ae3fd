//! Performs the device machine's effects, in their order and without a wildcard.

use std::sync::{MutexGuard, PoisonError};

use paceline_core::device::{Effect, Input, LaneId};
use paceline_core::{Instant, Machine};

use super::lane::Signal;
use super::{Batch, End, Reply, Shared, State};

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a bug of ours that the machine's asserts have caught;
        // going on with its state is still better than failing every later request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who waits for the batch that a lane runs.
    pub(super) fn waiting(&self, lane: LaneId) -> MutexGuard<'_, Vec<Reply>> {
        let waiting = self.running[usize::from(lane.0)].lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn step(&self, state: MutexGuard<'_, State>, input: Input) -> Option<Batch> {
        self.step_at(self.clock.now(), state, input)
    }

    pub(super) fn step_at(
        &self,
        now: Instant,
        mut state: MutexGuard<'_, State>,
        input: Input,
    ) -> Option<Batch> {
        let State {
            machine, effects, ..
        } = &mut *state;
        machine.step(now, input, effects);
        self.perform(state)
    }

    /// Performs the effects in their order; a batch to run is the calling thread's to run.
    pub(super) fn perform(&self, mut guard: MutexGuard<'_, State>) -> Option<Batch> {
        let state = &mut *guard;
        let mut batch = None;
        for effect in state.effects.drain(..) {
            match effect {
                Effect::Join { slot } => {
                    let payload = state.pending.take(slot).expect("what joins has waited");
                    let replica = &state.replicas[payload.batcher.0 as usize];
                    state.forming.replica.clone_from(replica);
                    state.forming.join(slot, payload);
                }
                Effect::Stage { lane } => {
                    let staged = &mut state.staged[usize::from(lane.0)];
                    std::mem::swap(staged, &mut state.forming);
                }
                Effect::Wake { lane } => {
                    self.lanes[usize::from(lane.0)].tell(Signal::Begin);
                }
                Effect::Run {
                    lane,
                    batcher: _,
                    rows,
                } => {
                    let staged = &mut state.staged[usize::from(lane.0)];
                    let in_place = staged.tickets.is_empty();
                    let formed = std::mem::take(if in_place { &mut state.forming } else { staged });
                    let replica = formed.replica.expect("a request joined, and brought it");
                    *self.waiting(lane) = formed.replies;
                    batch = Some(Batch {
                        lane,
                        rows,
                        replica,
                        tickets: formed.tickets,
                    });
                }
                Effect::Drop { slot, why } => {
                    let left = match state.pending.take(slot) {
                        Some(payload) => Some((payload.inputs, payload.reply)),
                        None => {
                            let formed = state.staged.iter_mut().chain([&mut state.forming]);
                            formed.into_iter().find_map(|formed| formed.leave(slot))
                        }
                    };
                    self.metrics.dropped(why);
                    if let Some((inputs, reply)) = left {
                        // The caller may have gone already: that is what cancelling means.
                        let _ = reply.send(End::Dropped(why, inputs));
                    }
                }
            }
        }
        batch
    }

    pub(super) fn run_in_place(&self, mut next: Option<Batch>) {
        while let Some(batch) = next {
            next = self.run(batch, true);
        }
    }

    /// Runs a batch on this thread, answers its requests, and steps the machine on.
    pub(super) fn run(&self, batch: Batch, in_place: bool) -> Option<Batch> {
        let lane = batch.lane;
        // What takes microseconds is not divided.
        let nanos = match in_place {
            true => batch.run(self, 1),
            false => {
                let threads = self.spare().take();
                let nanos = batch.run(self, threads);
                self.spare().give_back(threads);
                nanos
            }
        };
        self.step(
            self.lock(),
            Input::Finished {
                lane,
                nanos,
                in_place,
            },
        )
    }
}
