//! Copies of requests for shadows: taken beside a request, sent when it was answered, compared.
//!
//! A copy costs its request a list of the tensors, whose bytes are shared, and a task. It holds no
//! permit, is no tenant's, goes in the lowest class, is sent once, and ends by the request's
//! deadline, and within ten seconds. Neither a node that drains nor one that stops waits for it.
//! Whether the shadow takes the inputs, and whether the answers agree, is looked at in its own task.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use paceline_core::failover::Terms;
use paceline_core::router::Again;
use paceline_core::shadow::{Choice, Dropped, choose};
use paceline_protocol::agreement::{Agreement, compare};
use paceline_protocol::limits::{
    REQUEST_BUDGET_DEFAULT_MS, SHADOW_COPIES_KIB_MAX, SHADOW_COPIES_MAX,
};
use paceline_protocol::{Asks, Criticality, Signature, TenantId, Tensor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::flight::{Cargo, Flight, Landed};
use super::{Pinned, Serving, Target, Times};
use crate::gateway::oip::{ParseOptions, arrange};
use crate::router::{ShadowRoute, VersionRoute, Wanted};

/// Places of copies that are under way. Cheap to clone.
#[derive(Clone)]
pub struct Copies {
    places: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// A copy's place among those under way.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// A copy of a request that is not answered yet.
pub(super) struct Copied {
    serving: Serving,
    shadow: Arc<ShadowRoute>,
    /// The version that answers the request, and the shadow, as its attempts are pinned.
    serves: Arc<VersionRoute>,
    pinned: Pinned,
    inputs: Vec<Tensor>,
    terms: Terms,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(SHADOW_COPIES_MAX)),
            kib: Arc::new(Semaphore::new(SHADOW_COPIES_KIB_MAX as usize)),
        }
    }
}

impl Copies {
    /// A place for a copy that holds so many bytes, if there is one at once.
    fn place(&self, bytes: usize) -> Option<Place> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        let place = self.places.clone().try_acquire_owned().ok()?;
        let kib = self.kib.clone().try_acquire_many_owned(kib).ok()?;
        Some((place, kib))
    }
}

impl Serving {
    /// A copy of a request, if its model has a shadow and it is drawn.
    pub(super) fn copied(
        &self,
        pinned: &Pinned,
        inputs: &[Tensor],
        (terms, target): (Terms, Target<'_>),
    ) -> Option<Box<Copied>> {
        // A copy would be a second execution of what must not have one.
        let is_compared = terms.is_idempotent && pinned.reading.asks == Asks::Outputs;
        let shadow = pinned.shadow.as_ref().filter(|_| is_compared)?;
        let version = match choose(shadow.offer(), || self.bucket(&shadow.salt, target)) {
            Choice::Alone => return None,
            Choice::Copied => shadow.version.clone().ok_or(Dropped::NotReady),
            Choice::Dropped(why) => Err(why),
        };
        let version = version.map_err(|why| shadow.metrics.dropped(why)).ok()?;
        Some(Box::new(Copied {
            serving: self.clone(),
            shadow: shadow.clone(),
            serves: pinned.version.clone(),
            pinned: Pinned {
                version,
                epoch: pinned.epoch,
                stale_seconds: None,
                is_named: true,
                arm: None,
                shadow: None,
                reading: pinned.reading,
                times: Times::default(),
            },
            inputs: inputs.to_vec(),
            terms,
        }))
    }
}

impl Copied {
    /// The request has ended with these outputs, or without: sends the copy, in a task of its own,
    /// or drops it.
    pub(super) fn send(mut self: Box<Self>, answered: Option<(&[Tensor], &Pinned)>) {
        let metrics = &self.shadow.metrics;
        let Some((outputs, by)) = answered else {
            metrics.dropped(Dropped::Unanswered);
            return;
        };
        // It has come to serve meanwhile: there is nothing to compare it with.
        if by.version.version == self.pinned.version.version {
            metrics.dropped(Dropped::NotReady);
            return;
        }
        let held = self.inputs.iter().chain(outputs);
        let bytes = held.map(|tensor| tensor.data().len()).sum();
        let Some(place) = self.serving.copies.place(bytes) else {
            metrics.dropped(Dropped::Full);
            return;
        };
        let longest = self.serving.clock.now() + COPY_TIME_MAX;
        self.terms.deadline = self.terms.deadline.min(longest);
        metrics.sent();
        tokio::spawn(self.run(outputs.to_vec(), place));
    }

    async fn run(mut self: Box<Self>, outputs: Vec<Tensor>, _place: Place) {
        let inputs = taken(&self.inputs, &self.serves, &self.pinned.version);
        let Some(inputs) = inputs else {
            self.shadow.metrics.dropped(Dropped::Inputs);
            return;
        };
        self.inputs = inputs;
        let until = self.serving.clock.deadline(self.terms.deadline);
        match tokio::time::timeout_at(until, self.answered(&outputs)).await {
            Ok(Some((nanos, agreement))) => self.shadow.metrics.answered(nanos, agreement),
            Ok(None) | Err(_) => self.shadow.metrics.failed(),
        }
    }

    /// Runs one batch after another, and compares each; none if one is not answered. Says how many
    /// nanoseconds the answers took.
    async fn answered(&self, outputs: &[Tensor]) -> Option<(u64, Agreement)> {
        let rows = self.inputs.first().map_or(0, Tensor::rows);
        let step = u64::from(self.pinned.version.rows_max.max(1));
        let is_by_row = outputs.iter().all(|output| output.rows() == rows);
        let (mut nanos, mut agreement) = (0, Agreement::default());
        let clock = self.serving.clock;
        for start in (0..rows).step_by(step as usize) {
            let range = start..(start + step).min(rows);
            let slices = |tensors: &[Tensor]| -> Vec<Tensor> {
                let slices = tensors.iter();
                slices.map(|of| of.slice_rows(range.clone())).collect()
            };
            let begun = clock.now();
            let ran = self.run_part(slices(&self.inputs)).await?;
            nanos += clock.now().nanos_since(begun);
            let compared = match is_by_row {
                true => self.compared(&slices(outputs), &ran),
                false => Agreement {
                    equal: 0,
                    different: range.end - range.start,
                },
            };
            agreement.equal += compared.equal;
            agreement.different += compared.different;
        }
        Some((nanos, agreement))
    }

    fn compared(&self, outputs: &[Tensor], ran: &[Tensor]) -> Agreement {
        let names: &Signature = &self.pinned.version.signature;
        let rows = outputs.first().map_or(0, Tensor::rows);
        let outputs = outputs.iter().zip(&self.serves.signature.outputs);
        let pairs = outputs.map(|(one, spec)| {
            let place = names.output(&spec.name);
            (one, place.and_then(|place| ran.get(place)))
        });
        compare(rows, pairs)
    }

    /// One attempt, at one replica.
    async fn run_part(&self, mut inputs: Vec<Tensor>) -> Option<Vec<Tensor>> {
        let serving = &self.serving;
        let rows = inputs.first().map_or(0, Tensor::rows) as u32;
        let bytes = inputs.iter().map(|tensor| tensor.data().len() as u64).sum();
        let wanted = Wanted {
            rows,
            bytes,
            // Nobody waits for it: it is what a replica that failed is best tried with.
            may_repeat: true,
            sequence: None,
            again: Again::default(),
        };
        let picked = serving.router.pick(&self.pinned.version, wanted)?;
        let cargo = Cargo {
            inputs: &mut inputs,
            rows,
            bytes,
            deadline: self.terms.deadline,
            criticality: Criticality::Sheddable,
            tenant: TenantId::SHADOWS,
            attempt: 0,
        };
        let mut flight = Flight::begin(serving, &self.pinned, picked, cargo);
        match poll_fn(|context| flight.poll(context)).await {
            Landed::Ran(outputs) => Some(outputs),
            Landed::Missed(_) => None,
        }
    }
}

/// The inputs of a request as a shadow takes them, if it does. Their bytes are shared.
fn taken(inputs: &[Tensor], serves: &VersionRoute, shadow: &VersionRoute) -> Option<Vec<Tensor>> {
    let is_alike = serves.signature.inputs == shadow.signature.inputs;
    if is_alike && (serves.finite_inputs || !shadow.finite_inputs) {
        return Some(inputs.to_vec());
    }
    let specs = serves.signature.inputs.iter();
    let named = specs
        .map(|spec| spec.name.clone())
        .zip(inputs.iter().cloned());
    let options = ParseOptions {
        finite_inputs: shadow.finite_inputs,
    };
    arrange(named.collect(), &shadow.signature, options).ok()
}

/// What nobody waits for is held no longer than what most wait for at most.
const COPY_TIME_MAX: Duration = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
