//! Every metric of a node, by name: the one place where names are written.
//!
//! Names follow `paceline_<component>_<thing>_<unit>[_total]`, in seconds and bytes; labels
//! come from closed sets (models, versions, codes, stages), never from requests. The registry
//! belongs to a node, so several nodes in one process do not mix.
//!
//! Long because a name that is written twice is a name that differs one day.

mod labels;

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::batcher::DropReason;
use paceline_core::failover::Why;
use paceline_core::shadow::Dropped;
use paceline_protocol::agreement::Agreement;
use paceline_protocol::{ErrorCode, TenantName, VersionNumber};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::labels::{
    AgreementLabels, CopyLabels, DropLabels, ExtraLabels, RequestLabels, StageLabels, TenantLabels,
    VersionLabels,
};
use super::statistics::{Book, Statistics};

/// Where requests are counted. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    duration: Family<VersionLabels, Histogram>,
    stages: Family<StageLabels, Histogram>,
    rows: Family<VersionLabels, Counter>,
    extra_attempts: Family<ExtraLabels, Counter>,
    ejections: Counter,
    tenants: Family<TenantLabels, Counter>,
    shadows: Shadows,
    /// What the monitor samples.
    pub gauges: Gauges,
    device: DeviceMetrics,
    log_syncs: Histogram,
    statistics: Book,
}

/// Requests of one version, with its labels looked up already.
#[derive(Clone)]
pub struct VersionMetrics {
    requests: Family<RequestLabels, Counter>,
    labels: VersionLabels,
    succeeded: [Counter; 3],
    rows: Counter,
    duration: Histogram,
    stages: [Histogram; 4],
    statistics: Arc<Statistics>,
}

/// Copies of requests for shadows.
#[derive(Clone)]
struct Shadows {
    copies: Family<CopyLabels, Counter>,
    duration: Family<VersionLabels, Histogram>,
    rows: Family<AgreementLabels, Counter>,
}

/// Copies for one shadow, with its labels looked up already.
#[derive(Clone)]
pub struct ShadowMetrics {
    copies: [Counter; 7],
    duration: Histogram,
    equal: Counter,
    different: Counter,
}

/// Batches of one device.
#[derive(Clone)]
pub struct DeviceMetrics {
    batches: Counter,
    batch_rows: Histogram,
    run: Histogram,
    dropped: Family<DropLabels, Counter>,
    engine_deaths: Counter,
    canary_failures: Counter,
    statistics: Book,
}

/// What the monitor samples every second.
#[derive(Clone, Default)]
pub struct Gauges {
    /// Requests in flight.
    pub in_flight: Gauge,
    /// Requests that may be.
    pub permits: Gauge,
    /// Connections of clients over HTTP.
    pub http_connections: Gauge,
    /// When the certificate of the HTTP door ends, in seconds since 1970.
    pub certificate_expires: Gauge,
    /// Clients connected over QUIC.
    pub quic_connections: Gauge,
    /// Rows that wait at devices.
    pub queued_rows: Gauge,
    /// Batches that run.
    pub running_batches: Gauge,
    /// Replicas that this node's router leaves out, since they fail.
    pub ejected: Gauge,
    /// Models with a ready replica.
    pub models_ready: Gauge,
    /// Memory that engines account, in bytes.
    pub memory_used: Gauge,
    /// Current term.
    pub raft_term: Gauge,
    /// Whether this node leads.
    pub raft_leader: Gauge,
    /// Last entry in the log.
    pub raft_last_log: Gauge,
    /// Last entry known committed.
    pub raft_committed: Gauge,
    /// Last entry applied.
    pub raft_applied: Gauge,
    /// Parts that have been given up.
    pub degraded: Gauge,
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// The SDK's frames over QUIC.
    Quic,
}

/// A part of a request's time on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading and checking the body.
    Parse,
    /// Waiting at the device.
    Queue,
    /// The engine, for the whole batch.
    Run,
    /// Writing the answer.
    Render,
}

/// Nanoseconds of a request at each stage, in their order, over all of its parts.
pub type StageNanos = [u64; Stage::ALL.len()];

/// What a request took that was answered, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// From its last byte to its answer.
    pub nanos: u64,
    /// At each stage.
    pub stages: StageNanos,
}

/// What became of a request at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTheDoor {
    /// It was let in.
    Admitted,
    /// Its tenant sends more than it may.
    Limited,
    /// The node has as many as it takes.
    Overloaded,
    /// It came too late.
    Expired,
}

impl AtTheDoor {
    const ALL: [Self; 4] = [
        Self::Admitted,
        Self::Limited,
        Self::Overloaded,
        Self::Expired,
    ];
}

impl Metrics {
    /// All metrics of a node, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("paceline_build", "Release of the binary", build);
        let requests = counted(
            &mut registry,
            "paceline_gateway_requests",
            "Requests that have ended, by model, version, protocol and stable code",
        );
        let duration = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register_with_unit(
            "paceline_gateway_request_duration",
            "Time from the request's last byte to its answer",
            Unit::Seconds,
            duration.clone(),
        );
        let stages = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register_with_unit(
            "paceline_gateway_stage_duration",
            "Time of one stage of a request",
            Unit::Seconds,
            stages.clone(),
        );
        let rows = counted(
            &mut registry,
            "paceline_gateway_rows",
            "Rows of requests that succeeded",
        );
        let extra_attempts = counted(
            &mut registry,
            "paceline_gateway_extra_attempts",
            "Attempts of requests after their first: rerouted, since nothing had run, retried, or \
             failed over from a node that fell silent",
        );
        let ejections = Counter::default();
        registry.register(
            "paceline_router_ejections",
            "How often a replica was left out for a while, since it failed",
            ejections.clone(),
        );
        let tenants = counted(
            &mut registry,
            "paceline_tenant_requests",
            "Requests of tenants with a key, by what became of them at the door",
        );
        let shadows = Shadows::register(&mut registry);
        let device = DeviceMetrics::register(&mut registry);
        let gauges = Gauges::register(&mut registry);
        let log_syncs = latency();
        registry.register_with_unit(
            "paceline_raft_log_sync_duration",
            "Time that the log's disk took to make a write durable",
            Unit::Seconds,
            log_syncs.clone(),
        );
        let registry = Arc::new(Mutex::new(registry));
        Self {
            registry,
            requests,
            duration,
            stages,
            rows,
            extra_attempts,
            ejections,
            tenants,
            shadows,
            gauges,
            statistics: device.statistics.clone(),
            device,
            log_syncs,
        }
    }

    /// The labels of one version, at zero from its first day.
    pub fn version(&self, model: &str, version: VersionNumber) -> VersionMetrics {
        let labels = VersionLabels {
            model: model.to_owned(),
            version: version.0,
        };
        let succeeded = Protocol::ALL.map(|protocol| {
            let ok = RequestLabels::of(&labels, protocol, OK);
            self.requests.get_or_create_owned(&ok)
        });
        VersionMetrics {
            requests: self.requests.clone(),
            succeeded,
            rows: self.rows.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            statistics: self.statistics.of(model, version),
            stages: Stage::ALL.map(|stage| {
                let VersionLabels { model, version } = labels.clone();
                let labels = StageLabels {
                    model,
                    version,
                    stage: stage.name(),
                };
                self.stages.get_or_create_owned(&labels)
            }),
            labels,
        }
    }

    /// The labels of one shadow, at zero from its first day.
    pub fn shadow(&self, model: &str, version: VersionNumber) -> ShadowMetrics {
        let (model, version) = (model.to_owned(), version.0);
        let copies = ShadowMetrics::ENDS.map(|end| {
            let model = model.clone();
            let labels = CopyLabels {
                model,
                version,
                end,
            };
            self.shadows.copies.get_or_create_owned(&labels)
        });
        let [equal, different] = ["equal", "different"].map(|agreement| {
            let model = model.clone();
            let labels = AgreementLabels {
                model,
                version,
                agreement,
            };
            self.shadows.rows.get_or_create_owned(&labels)
        });
        let duration = &self.shadows.duration;
        ShadowMetrics {
            copies,
            duration: duration.get_or_create_owned(&VersionLabels { model, version }),
            equal,
            different,
        }
    }

    /// Batches of the node's devices.
    pub fn device(&self) -> DeviceMetrics {
        self.device.clone()
    }

    /// Replicas that the router has left out, each time it did.
    pub fn ejections(&self) -> Counter {
        self.ejections.clone()
    }

    /// Syncs of the log, in seconds.
    pub fn log_syncs(&self) -> Histogram {
        self.log_syncs.clone()
    }

    /// Counts a request that ended before its model was known.
    pub fn refused(&self, protocol: Protocol, code: ErrorCode) {
        let labels = VersionLabels {
            model: String::new(),
            version: 0,
        };
        self.requests
            .get_or_create(&RequestLabels::of(&labels, protocol, code.name()))
            .inc();
    }

    /// Counts a request of a tenant at the door.
    pub fn came(&self, tenant: &TenantName, outcome: AtTheDoor) {
        self.tenants
            .get_or_create(&TenantLabels::of(tenant, outcome))
            .inc();
    }

    /// Tells of a tenant no more.
    pub fn forget(&self, tenant: &TenantName) {
        for outcome in AtTheDoor::ALL {
            self.tenants.remove(&TenantLabels::of(tenant, outcome));
        }
    }

    /// Counts an attempt; only those after the first are of interest.
    pub fn attempted(&self, why: Why) {
        let why = match why {
            Why::First => return,
            Why::Reroute => "reroute",
            Why::Retry => "retry",
            Why::Failover => "failover",
        };
        self.extra_attempts
            .get_or_create(&ExtraLabels { why })
            .inc();
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut out, &registry).expect("writing to a String does not fail");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl VersionMetrics {
    /// Counts a request that was answered, with what it took.
    pub fn succeeded(&self, protocol: Protocol, rows: u32, took: Took) {
        self.succeeded[protocol as usize].inc();
        self.rows.inc_by(u64::from(rows));
        self.duration.observe(seconds(took.nanos));
        self.statistics.succeed(took);
    }

    /// Counts a request that ended otherwise, with the nanoseconds that it took.
    pub fn failed(&self, protocol: Protocol, code: ErrorCode, nanos: u64) {
        self.statistics.fail(nanos);
        self.requests
            .get_or_create(&RequestLabels::of(&self.labels, protocol, code.name()))
            .inc();
    }

    /// Takes the nanoseconds of one stage on this node, whatever becomes of the request.
    pub fn stage(&self, stage: Stage, nanos: u64) {
        self.stages[stage as usize].observe(seconds(nanos));
    }

    /// The same as whole numbers, stages of answered requests only.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}

impl Shadows {
    fn register(registry: &mut Registry) -> Self {
        let copies = Family::default();
        registry.register(
            "paceline_shadow_copies",
            "Copies of requests for shadows, by what became of them; every one that is sent is also \
             answered or failed in the end",
            copies.clone(),
        );
        let duration = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register_with_unit(
            "paceline_shadow_duration",
            "Time that a shadow took to answer a copy",
            Unit::Seconds,
            duration.clone(),
        );
        let rows = Family::default();
        registry.register(
            "paceline_shadow_rows",
            "Rows of answers of shadows, by whether the version that serves has said the same",
            rows.clone(),
        );
        Self {
            copies,
            duration,
            rows,
        }
    }
}

impl ShadowMetrics {
    /// What can become of a copy: it is sent, then answered or failed, or it is dropped.
    const ENDS: [&'static str; 7] = [
        "sent",
        "answered",
        "failed",
        "dropped_not_ready",
        "dropped_inputs",
        "dropped_unanswered",
        "dropped_full",
    ];

    /// Counts a copy that is sent.
    pub fn sent(&self) {
        self.copies[0].inc();
    }

    /// Counts a copy that was answered, with the nanoseconds that it took, and what it has said.
    pub fn answered(&self, nanos: u64, agreement: Agreement) {
        self.copies[1].inc();
        self.duration.observe(seconds(nanos));
        self.equal.inc_by(agreement.equal);
        self.different.inc_by(agreement.different);
    }

    /// Counts a copy that was not answered.
    pub fn failed(&self) {
        self.copies[2].inc();
    }

    /// Counts a request that was drawn and not copied.
    pub fn dropped(&self, why: Dropped) {
        let place = match why {
            Dropped::NotReady => 3,
            Dropped::Inputs => 4,
            Dropped::Unanswered => 5,
            Dropped::Full => 6,
        };
        self.copies[place].inc();
    }
}

impl DeviceMetrics {
    fn register(registry: &mut Registry) -> Self {
        let batches = Counter::default();
        registry.register(
            "paceline_device_batches",
            "Batches that ran",
            batches.clone(),
        );
        let batch_rows = Histogram::new((0..=12).map(|power| f64::from(1 << power)));
        registry.register(
            "paceline_device_batch_rows",
            "Rows of a batch",
            batch_rows.clone(),
        );
        let run = latency();
        registry.register_with_unit(
            "paceline_device_batch_duration",
            "Time of threads that an engine took for a batch: its own, times those that shared it",
            Unit::Seconds,
            run.clone(),
        );
        let dropped = Family::default();
        registry.register(
            "paceline_device_dropped",
            "Requests that left a queue without running, by reason",
            dropped.clone(),
        );
        let [engine_deaths, canary_failures] = [
            (
                "paceline_device_engine_deaths",
                "Engines that have died, panicked or hung",
            ),
            (
                "paceline_device_canary_failures",
                "Replicas that no longer gave the answer that they are known to give",
            ),
        ]
        .map(|(name, help)| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        });
        Self {
            batches,
            batch_rows,
            run,
            dropped,
            engine_deaths,
            canary_failures,
            statistics: Book::default(),
        }
    }

    /// Where batches of a version are counted.
    pub fn statistics(&self, model: &str, version: VersionNumber) -> Arc<Statistics> {
        self.statistics.of(model, version)
    }

    /// Counts a batch.
    pub fn ran(&self, rows: u32, nanos: u64) {
        self.batches.inc();
        self.batch_rows.observe(f64::from(rows));
        self.run.observe(seconds(nanos));
    }

    /// Counts a request that left without running.
    pub fn dropped(&self, why: DropReason) {
        let reason = match why {
            DropReason::Expired => "expired",
            DropReason::Late => "late",
            DropReason::Cancelled => "cancelled",
            DropReason::QueueFull { .. } => "queue_full",
            DropReason::Gone => "gone",
        };
        self.dropped.get_or_create(&DropLabels { reason }).inc();
    }

    /// Counts a request that was not taken, since engines have died of it.
    pub fn poisonous(&self) {
        let reason = "poison";
        self.dropped.get_or_create(&DropLabels { reason }).inc();
    }

    /// Counts an engine that has died.
    pub fn died(&self) {
        self.engine_deaths.inc();
    }

    /// Counts a canary that was not answered as before.
    pub fn canary_failed(&self) {
        self.canary_failures.inc();
    }
}

/// A family of counters, registered.
fn counted<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Counter>
where
    L: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

impl Gauges {
    fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        let all = gauges.of_requests().into_iter();
        for (name, help, gauge) in all.chain(gauges.of_the_node()) {
            registry.register(name, help, gauge.clone());
        }
        gauges
    }

    fn of_requests(&self) -> [(&'static str, &'static str, &Gauge); 8] {
        [
            (
                "paceline_gateway_in_flight",
                "Requests in flight",
                &self.in_flight,
            ),
            (
                "paceline_gateway_permits",
                "Requests that may be in flight; fewer than are set while queues stand",
                &self.permits,
            ),
            (
                "paceline_gateway_http_connections",
                "Connections of clients over HTTP",
                &self.http_connections,
            ),
            (
                "paceline_gateway_quic_connections",
                "Clients connected over QUIC",
                &self.quic_connections,
            ),
            (
                "paceline_device_queued_rows",
                "Rows that wait",
                &self.queued_rows,
            ),
            (
                "paceline_device_running_batches",
                "Batches that run",
                &self.running_batches,
            ),
            (
                "paceline_device_memory_bytes",
                "Memory of loaded replicas",
                &self.memory_used,
            ),
            (
                "paceline_router_ejected_replicas",
                "Replicas that this node sends nothing but probes, since they fail",
                &self.ejected,
            ),
        ]
    }

    fn of_the_node(&self) -> [(&'static str, &'static str, &Gauge); 8] {
        [
            (
                "paceline_gateway_certificate_expires_seconds",
                "When the certificate of the HTTP door ends, since 1970; 0 without TLS",
                &self.certificate_expires,
            ),
            (
                "paceline_registry_models_ready",
                "Models that answer",
                &self.models_ready,
            ),
            ("paceline_raft_term", "Current term", &self.raft_term),
            (
                "paceline_raft_is_leader",
                "1 on the leader",
                &self.raft_leader,
            ),
            (
                "paceline_raft_last_log_index",
                "Last entry in the log",
                &self.raft_last_log,
            ),
            (
                "paceline_raft_committed_index",
                "Last entry committed",
                &self.raft_committed,
            ),
            (
                "paceline_raft_applied_index",
                "Last entry applied",
                &self.raft_applied,
            ),
            (
                "paceline_node_degraded_parts",
                "Parts that were given up",
                &self.degraded,
            ),
        ]
    }
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Quic];

    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Quic => "quic",
        }
    }
}

impl Stage {
    pub(crate) const ALL: [Self; 4] = [Self::Parse, Self::Queue, Self::Run, Self::Render];

    const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Render => "render",
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// From 5 µs to 10 s, each bucket about double the one before.
fn latency() -> Histogram {
    Histogram::new([
        5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1,
        0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

const OK: &str = "OK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_visible_at_zero_and_counts() {
        let metrics = Metrics::new();
        let version = metrics.version("digits", VersionNumber(3));
        let zero = metrics.render();
        assert!(zero.contains(
            "paceline_gateway_requests_total{model=\"digits\",version=\"3\",protocol=\"http\",code=\"OK\"} 0"
        ), "{zero}");
        let took = Took {
            nanos: 1_500_000,
            stages: [0, 0, 30_000, 0],
        };
        version.succeeded(Protocol::Http, 2, took);
        version.failed(Protocol::Quic, ErrorCode::QueueFull, 9_000);
        (0..2).for_each(|_| version.stage(Stage::Run, 30_000));
        let statistics = version.statistics();
        let counted = [statistics.succeeded(), statistics.failed()];
        assert_eq!(counted.map(|total| total.nanos), [1_500_000, 9_000]);
        assert_eq!(statistics.stage_nanos(Stage::Run), 30_000);
        let text = metrics.render();
        assert!(
            text.contains("protocol=\"quic\",code=\"QUEUE_FULL\"} 1"),
            "{text}"
        );
        assert!(text.contains("paceline_gateway_rows_total{model=\"digits\",version=\"3\"} 2"));
        let run = "le=\"0.00005\",model=\"digits\",version=\"3\",stage=\"run\"} 2";
        assert!(text.contains(run), "{text}");
    }
}
