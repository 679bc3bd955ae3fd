//! Steps [`paceline_core::admission`] in the task of the request.
//!
//! Hot path: the machine sits behind a short lock and is stepped through its [`Handle`]; a
//! permit that is dropped reports the end of its request, however it ended.

use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::admission::{Admission, Effect, Input, Options, Refusal};
use paceline_core::record::Recorded;
use paceline_core::{Instant, Machine};
use paceline_protocol::Criticality;

use crate::clock::Clock;
use crate::record::{Records, Share};

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    machine: Recorded<Admission>,
    effects: Vec<Effect>,
}

/// An admitted request. Dropping it gives the permit back.
pub struct Permit {
    handle: Handle,
}

impl Handle {
    /// A node that has admitted nothing yet.
    pub fn new(options: Options, clock: Clock, records: &Records) -> Self {
        let bytes = records.bytes(Share::Admission);
        let state = Arc::new(Mutex::new(State {
            machine: Recorded::new(Admission::new(options), bytes),
            effects: Vec::with_capacity(1),
        }));
        records.keep((Share::Admission, ""), &state, |state| {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.machine.recording()
        });
        Self { clock, state }
    }

    /// Asks for a permit. Cost: one uncontended lock.
    ///
    /// # Errors
    /// Why the request is not let in.
    pub fn admit(
        &self,
        now: Instant,
        deadline: Instant,
        criticality: Criticality,
    ) -> Result<Permit, Refusal> {
        let input = Input::Arrive {
            deadline,
            criticality,
        };
        match self.step(now, input) {
            Some(Effect::Admit) => Ok(Permit {
                handle: self.clone(),
            }),
            Some(Effect::Refuse(refusal)) => Err(refusal),
            None => unreachable!("an arrival is always answered"),
        }
    }

    /// Requests that are in.
    pub fn in_flight(&self) -> u32 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .machine
            .in_flight()
    }

    fn step(&self, now: Instant, input: Input) -> Option<Effect> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { machine, effects } = &mut *state;
        machine.step(now, input, effects);
        effects.pop()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.handle.clock.now();
        self.handle.step(now, Input::Finish);
    }
}
