//! Steps [`paceline_core::admission`] in the task of the request.
//!
//! Hot path: the machine sits behind a short lock and is stepped through its [`Handle`]; a
//! permit that is dropped reports the end of its request, however it ended.

use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::admission::{Admission, Effect, Input, Options, Refusal, Times};
use paceline_core::quota::{Demand, Part};
use paceline_core::record::Recorded;
use paceline_core::{Instant, Machine};
use paceline_protocol::{Criticality, TenantId};

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

/// What asks for a permit.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// How much it matters.
    pub criticality: Criticality,
    /// Who sends it.
    pub tenant: TenantId,
    /// Whether its answer is streamed.
    pub in_parts: bool,
}

/// An admitted request. Dropping it gives the permit back.
pub struct Permit {
    handle: Handle,
    tenant: TenantId,
    in_parts: bool,
    since: Instant,
    waited_nanos: Option<u64>,
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
    pub fn admit(&self, now: Instant, deadline: Instant, asker: Asker) -> Result<Permit, Refusal> {
        let Asker {
            criticality,
            tenant,
            in_parts,
        } = asker;
        let input = Input::Arrive {
            deadline,
            criticality,
            tenant,
            in_parts,
        };
        match self.step(now, input, Vec::pop) {
            Some(Effect::Admit) => Ok(Permit {
                handle: self.clone(),
                tenant,
                in_parts,
                since: now,
                waited_nanos: None,
            }),
            Some(Effect::Refuse(refusal)) => Err(refusal),
            Some(Effect::Seen { .. }) | None => unreachable!("an arrival is always answered"),
        }
    }

    /// What each declared tenant may take of this node from now on.
    pub fn set_parts(&self, parts: Vec<(TenantId, Part)>) {
        self.step(self.clock.now(), Input::SetParts { parts }, |_| ());
    }

    /// What tenants with limits have asked for since this was asked last, by tenant.
    pub fn measure(&self) -> Vec<(TenantId, Demand)> {
        self.step(self.clock.now(), Input::Measure, |effects| {
            let seen = effects.drain(..).filter_map(|effect| match effect {
                Effect::Seen { tenant, demand } => Some((tenant, demand)),
                Effect::Admit | Effect::Refuse(_) => None,
            });
            seen.collect()
        })
    }

    /// Requests that may be in, of those that may not be shed.
    pub fn limit(&self) -> u32 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.machine.limit()
    }

    /// Requests that are in.
    pub fn in_flight(&self) -> u32 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .machine
            .in_flight()
    }

    /// Requests of a tenant that are in.
    pub fn in_flight_of(&self, tenant: TenantId) -> u32 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.machine.in_flight_of(tenant)
    }

    fn step<T>(&self, now: Instant, input: Input, read: impl FnOnce(&mut Vec<Effect>) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { machine, effects } = &mut *state;
        machine.step(now, input, effects);
        let result = read(effects);
        effects.clear();
        result
    }
}

impl Permit {
    /// The request was answered, and had waited so long for its batch, if that is known.
    pub fn answered(mut self, waited_nanos: Option<u64>) {
        self.waited_nanos = waited_nanos;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.handle.clock.now();
        let times = self.waited_nanos.map(|waited_nanos| Times {
            waited_nanos,
            rest_nanos: now.nanos_since(self.since).saturating_sub(waited_nanos),
        });
        let finish = Input::Finish {
            tenant: self.tenant,
            in_parts: self.in_parts,
            times,
        };
        self.handle.step(now, finish, |_| ());
    }
}
