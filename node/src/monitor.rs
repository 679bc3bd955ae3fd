//! Samples what changes too often to be reported on change.
//!
//! Owns the gauges' freshness. Supervised by the node; hears its own timer; speaks to nobody.
//! When it dies the gauges stand still until its successor samples again.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::observed::Observed;
use crate::supervisor::Health;
use crate::telemetry::metrics::Gauges;
use crate::{admission, device, registry, router};

/// What the monitor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// Time to sample.
    Tick,
}

impl ractor::Message for Message {}

/// What the monitor looks at.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// Where the samples go.
    pub gauges: Gauges,
    /// Requests in flight.
    pub admission: admission::Handle,
    /// Queues and batches.
    pub devices: Vec<device::Handle>,
    /// Models that answer.
    pub router: router::Handle,
    /// Raft.
    pub registry: registry::Handle,
    /// Memory of replicas.
    pub observed: Observed,
    /// Parts that were given up.
    pub health: Health,
}

/// The actor.
pub(crate) struct Monitor;

impl Actor for Monitor {
    type Msg = Message;
    type State = Arguments;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<Arguments, ActorProcessingErr> {
        arguments.sample();
        myself.send_interval(PERIOD, || Message::Tick);
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut Arguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick => state.sample(),
        }
        Ok(())
    }
}

impl Arguments {
    /// Takes one sample of everything.
    pub(crate) fn sample(&self) {
        let occupancy = self.devices.iter().map(device::Handle::occupancy);
        let (running, queued) = occupancy.fold((0, 0), |sum, (running, queued)| {
            (sum.0 + i64::from(running), sum.1 + queued as i64)
        });
        let gauges = &self.gauges;
        gauges.in_flight.set(i64::from(self.admission.in_flight()));
        gauges.permits.set(i64::from(self.admission.limit()));
        gauges.running_batches.set(running);
        gauges.queued_rows.set(queued);
        gauges
            .models_ready
            .set(self.router.routes().ready_models() as i64);
        gauges.ejected.set(self.router.ejected() as i64);
        let memory = self.observed.own_memory_bytes();
        gauges.memory_used.set(memory as i64);
        let raft = self.registry.raft();
        gauges.raft_term.set(raft.term as i64);
        gauges.raft_leader.set(i64::from(self.registry.is_leader()));
        gauges.raft_last_log.set(raft.last_log.unwrap_or(0) as i64);
        gauges
            .raft_committed
            .set(raft.committed.unwrap_or(0) as i64);
        gauges.raft_applied.set(raft.applied.unwrap_or(0) as i64);
        gauges.degraded.set(self.health.degraded().len() as i64);
    }
}

/// Prometheus scrapes every 15 s or so; a second is fresh enough for everyone.
const PERIOD: Duration = Duration::from_secs(1);
