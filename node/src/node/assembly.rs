//! How a node's parts hang together: the one place that knows all of them.
//!
//! Long because every part has a line here, and none has more.

mod watchers;

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::{DeviceId, Digest};
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use super::network::client_doors;
use super::{Ports, StartError};
use crate::artifacts::{Artifacts, Fetcher, Replicate};
use crate::canary::CanaryActor;
use crate::clock::Clock;
use crate::config::Config;
use crate::detector::{Detector, Suspects};
use crate::drain::Drain;
use crate::gateway::{
    self, Bodies, CallParts, Calls, Copies, Doors, Gateway, Guests, Listeners, Models, Operator,
    OperatorParts, PeerDoor, Readiness, Serving, quic,
};
use crate::identity::Identity;
use crate::identity::authority::key_in_certificate;
use crate::join::{self, Admits};
use crate::keeper::Keeper;
use crate::membership::Membership;
use crate::monitor::{self, Monitor};
use crate::node::Links;
use crate::observed::Observed;
use crate::observer::Observer;
use crate::peers::Peers;
use crate::publish::Publisher;
use crate::raft::RaftHandle;
use crate::reconciler::{self, Reconciler};
use crate::record::Records;
use crate::registrar::Registrar;
use crate::renewal::{Renewal, keep_fresh};
use crate::router::RouterActor;
use crate::supervisor::{self, Child, Health, Supervisor};
use crate::telemetry::metrics::Metrics;
use crate::tenants::{self, Tenants};
use crate::tending::tend;
use crate::tls::Tls;
use crate::worker::{self, Worker};
use crate::{admission, budget, contact, device, dispatch, registry, router};

pub(super) struct Assembly<'a> {
    pub(super) identity: Identity,
    pub(super) config: &'a Config,
    pub(super) ports: &'a Ports,
    pub(super) registry: registry::Handle,
    pub(super) clock: Clock,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) listeners: Listeners,
    pub(super) tls: Option<Tls>,
    pub(super) metrics: Metrics,
    pub(super) raft: RaftHandle,
    pub(super) links: Links,
}

/// What the node's handle keeps.
pub(super) struct Parts {
    pub(super) publisher: Publisher,
    pub(super) artifacts: Artifacts,
    pub(super) router: router::Handle,
    pub(super) device: device::Handle,
    pub(super) admission: admission::Handle,
    pub(super) readiness: Readiness,
    pub(super) guests: Guests,
    pub(super) observed: Observed,
    pub(super) supervisor: ActorRef<supervisor::Message>,
    /// The request path, for tests that need no door.
    #[cfg(test)]
    pub(super) serving: Serving,
}

/// Parts without actors of their own, shared by those that have one.
struct Shared {
    metrics: Metrics,
    observed: Observed,
    health: Health,
    readiness: Readiness,
    guests: Guests,
    router: router::Handle,
    device: device::Handle,
    tenants: tenants::Handle,
    admission: admission::Handle,
    budget: budget::Handle,
    artifacts: Artifacts,
    fetcher: Fetcher,
    publisher: Publisher,
    peers: dispatch::Peers,
    copies: Copies,
    suspects: Suspects,
    contact: contact::Handle,
    records: Records,
}

impl Assembly<'_> {
    /// Starts the supervision tree: a supervisor for each device and one for routers, and
    /// beside them the reconciler, the monitor and, last, the gateway.
    pub(super) async fn start(self) -> Result<Parts, StartError> {
        let shared = self.shared()?;
        let children = vec![
            self.supervised("routers", self.router_child(&shared), &shared),
            self.supervised("device 0", self.worker_child(&shared), &shared),
            Child::new(
                "reconciler",
                || Reconciler,
                reconciler::Arguments {
                    registry: self.registry.clone(),
                    observed: shared.observed.clone(),
                },
            ),
            Child::new("peers", || Peers, self.peers(&shared)),
            Child::new("observer", || Observer, self.observer(&shared)),
            Child::new("tenants", || Tenants, self.tenants(&shared)),
            Child::new("detector", || Detector, self.detector(&shared)),
            Child::new("drain", || Drain, self.drain(&shared)),
            Child::new("keeper", || Keeper, self.keeper(&shared)),
            Child::new("canary", || CanaryActor, self.canary(&shared)),
            Child::new("membership", || Membership, self.membership()),
            Child::new("monitor", || Monitor, self.monitor(&shared)),
            Child::new("gateway", || Gateway, self.gateway(&shared)?),
        ];
        let arguments = self.supervisor(children, &shared);
        let spawned = Actor::spawn(None, Supervisor, arguments).await;
        let (supervisor, _) = spawned.map_err(|error| StartError::Parts(error.to_string()))?;
        self.open_sdk_door(&shared);
        self.watch_certificate();
        let handler = Arc::new(PeerDoor {
            serving: self.serving(&shared),
            stopping: self.stopping.clone(),
            guests: shared.guests.clone(),
        });
        let (transport, bytes_max) = (
            self.links.transport.clone(),
            self.config.http.body_bytes_max,
        );
        self.tend("requests of peers", move || {
            dispatch::serve(transport.clone(), handler.clone(), bytes_max)
        });
        Ok(Parts {
            #[cfg(test)]
            serving: self.serving(&shared),
            publisher: shared.publisher,
            artifacts: shared.artifacts,
            router: shared.router,
            device: shared.device,
            admission: shared.admission,
            readiness: shared.readiness,
            guests: shared.guests,
            observed: shared.observed,
            supervisor,
        })
    }

    fn shared(&self) -> Result<Shared, StartError> {
        let metrics = self.metrics.clone();
        let place = self.ports.blobs.place();
        let threads = self.ports.threads;
        let artifacts = Artifacts::open(self.ports.blobs.clone())
            .map_err(|cause| StartError::Disk { place, cause })?
            .on(threads);
        let engine = self.ports.engine.clone();
        let lanes = u16::try_from(engine.device().threads).unwrap_or(u16::MAX);
        let records = Records::new(self.config.debug.record_bytes);
        let lanes = (lanes, threads);
        let device = device::Handle::start(lanes, self.clock, metrics.device(), &records)
            .map_err(|error| StartError::Parts(format!("a device thread: {error}")))?;
        let transport = self.links.transport.clone();
        let fetcher = Fetcher::new(artifacts.clone(), transport.clone());
        let serving = fetcher.clone();
        self.tend("artifacts for peers", move || {
            crate::artifacts::serve(serving.clone())
        });
        let replicate = Replicate::new(transport.clone());
        let publisher = Publisher::new(artifacts.clone(), engine, self.registry.clone(), replicate);
        let peers = dispatch::Peers::new(transport, self.config.http.body_bytes_max);
        let options = paceline_core::admission::Options {
            permits: self.config.admission.permits,
            queue_delay_max: Duration::from_millis(self.config.admission.queue_delay_max_ms),
        };
        let admission = admission::Handle::new(options, self.clock, &records);
        let (node, seed) = (self.identity.node, self.ports.seed);
        let router = router::Handle::new((node, seed), self.clock, &records, &metrics);
        let known = (self.registry.clone(), router.epochs());
        Ok(Shared {
            budget: budget::Handle::new(admission.clone()),
            observed: Observed::default(),
            health: self.links.health.clone(),
            readiness: Readiness::default(),
            guests: Guests::default(),
            router,
            tenants: tenants::Handle::new(self.config.admission.keys_required),
            admission,
            metrics,
            device,
            artifacts,
            fetcher,
            publisher,
            peers,
            copies: Copies::default(),
            suspects: Suspects::default(),
            contact: contact::Handle::new(known, self.clock, self.config.node.contact()),
            records,
        })
    }

    /// Starts a loop that accepts something.
    fn tend<F>(&self, name: &'static str, start: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tended = (self.links.health.clone(), self.ports.seed);
        tokio::spawn(tend(name, tended, start));
    }

    fn supervised(&self, name: &str, child: Child, shared: &Shared) -> Child {
        Child::new(name, || Supervisor, self.supervisor(vec![child], shared))
    }

    fn supervisor(&self, children: Vec<Child>, shared: &Shared) -> supervisor::Arguments {
        let health = shared.health.clone();
        supervisor::Arguments {
            children,
            health,
            clock: self.clock,
            seed: self.ports.seed,
            records: shared.records.clone(),
        }
    }

    fn router_child(&self, shared: &Shared) -> Child {
        let arguments = router::Arguments {
            handle: shared.router.clone(),
            registry: self.registry.clone(),
            observed: shared.observed.clone(),
            suspects: shared.suspects.clone(),
            metrics: shared.metrics.clone(),
        };
        Child::new("router", || RouterActor, arguments)
    }

    fn worker_child(&self, shared: &Shared) -> Child {
        let arguments = worker::Arguments {
            node: self.identity.node,
            id: DeviceId(0),
            device: shared.device.clone(),
            engine: self.ports.engine.clone(),
            artifacts: shared.artifacts.clone(),
            fetcher: shared.fetcher.clone(),
            registry: self.registry.clone(),
            observed: shared.observed.clone(),
            clock: self.clock,
            records: shared.records.clone(),
            canary_every: Duration::from_millis(self.config.device.canary_interval_ms),
        };
        Child::new("worker", || Worker, arguments)
    }

    /// Lets SDKs and joining nodes in, and keeps the node's certificate fresh.
    fn open_sdk_door(&self, shared: &Shared) {
        let Some(secured) = self.links.secured.clone() else {
            return;
        };
        let admits: Arc<dyn Admits> = Arc::new(Registrar {
            node: self.identity.node,
            registry: self.registry.clone(),
            authority: secured.authority.clone(),
            cookie: secured.cookie.clone(),
        });
        let join = join::Door::new(secured.credentials.clone(), admits.clone());
        let join: quic::JoinDoor = Arc::new(move |connection| {
            let join = join.clone();
            Box::pin(async move { join.serve(&connection).await })
        });
        let parts = quic::QuicParts {
            door: Arc::new(self.serving(shared)),
            join: Some(join),
            identity: (self.identity.cluster, self.identity.node),
            nodes: client_doors(&self.registry),
            metrics: shared.metrics.clone(),
            leaving: shared.readiness.leaving(),
            stopping: self.stopping.clone(),
            guests: shared.guests.clone(),
        };
        let options = quic::QuicOptions {
            body_bytes_max: self.config.http.body_bytes_max,
            ..quic::QuicOptions::default()
        };
        let doors = Arc::new(quic::QuicDoors::new(parts, options));
        let endpoint = secured.sdk.clone();
        self.tend("SDK door", move || {
            quic::accept(endpoint.clone(), doors.clone())
        });
        tokio::spawn(keep_fresh(Renewal {
            credentials: secured.credentials,
            files: secured.files,
            admits,
            seed: self.ports.seed,
            stopping: self.stopping.clone(),
        }));
    }

    /// What join tokens pin: the key of the cluster's authority.
    fn pin(&self) -> Option<Digest> {
        let secured = self.links.secured.as_ref()?;
        key_in_certificate(secured.credentials.trust().authority())
    }

    fn serving(&self, shared: &Shared) -> Serving {
        Serving {
            clock: self.clock,
            tenants: shared.tenants.clone(),
            admission: shared.admission.clone(),
            budget: shared.budget.clone(),
            router: shared.router.clone(),
            device: shared.device.clone(),
            peers: shared.peers.clone(),
            suspects: shared.suspects.clone(),
            observed: shared.observed.clone(),
            contact: shared.contact.clone(),
            copies: shared.copies.clone(),
            metrics: shared.metrics.clone(),
        }
    }

    fn models(&self, shared: &Shared) -> Models {
        Models {
            registry: self.registry.clone(),
            router: shared.router.clone(),
            observed: shared.observed.clone(),
            clock: self.clock,
        }
    }

    fn monitor(&self, shared: &Shared) -> monitor::Arguments {
        monitor::Arguments {
            gauges: shared.metrics.gauges.clone(),
            admission: shared.admission.clone(),
            devices: vec![shared.device.clone()],
            router: shared.router.clone(),
            registry: self.registry.clone(),
            observed: shared.observed.clone(),
            health: shared.health.clone(),
        }
    }

    fn gateway(&self, shared: &Shared) -> Result<gateway::Arguments, StartError> {
        let serving = self.serving(shared);
        let operator = Operator::router(OperatorParts {
            cluster: self.identity.cluster,
            registry: self.registry.clone(),
            observed: shared.observed.clone(),
            router: shared.router.clone(),
            device: shared.device.clone(),
            tenants: shared.tenants.clone(),
            admission: shared.admission.clone(),
            artifacts: shared.artifacts.clone(),
            publisher: shared.publisher.clone(),
            health: shared.health.clone(),
            readiness: shared.readiness.clone(),
            contact: shared.contact.clone(),
            records: shared.records.clone(),
            clock: self.clock,
            node: self.identity.node,
            pid: self.ports.pid,
            pin: self.pin(),
            tls: self.tls.clone(),
        });
        let http = &self.config.http;
        let options = gateway::HttpOptions {
            body_bytes_max: http.body_bytes_max,
            connections_max: http.connections_max,
            header_timeout: Duration::from_millis(http.header_timeout_ms),
            idle_timeout: Duration::from_millis(http.idle_timeout_ms),
            // Who has to show a key is no page that knows none, whatever the node is called.
            loopback_only: !self.config.node.insecure && !self.config.is_guarded(),
        };
        let protocols = &gateway::PROTOCOLS;
        let tls = self.tls.as_ref().map(|tls| tls.door(protocols));
        let calls = Calls::new(CallParts {
            models: self.models(shared),
            readiness: shared.readiness.clone(),
            stopping: self.stopping.clone(),
            bytes_max: http.body_bytes_max,
        });
        let doors = Doors {
            serving,
            models: self.models(shared),
            operator,
            calls,
            metrics: shared.metrics.clone(),
            options,
            bodies: Bodies::new(http.bodies_bytes_max, self.ports.threads),
            tls: tls.transpose()?,
            readiness: shared.readiness.clone(),
            stopping: self.stopping.clone(),
            guests: shared.guests.clone(),
        };
        Ok(gateway::Arguments {
            listeners: self.listeners.clone(),
            doors: Arc::new(doors),
            health: shared.health.clone(),
        })
    }

    /// Keeps the certificate of the HTTP door as its files are.
    fn watch_certificate(&self) {
        let Some(tls) = self.tls.clone() else { return };
        let gauge = self.metrics.gauges.certificate_expires.clone();
        let told = move |tls: &Tls| {
            gauge.set(tls.expires_s() as i64);
        };
        let (threads, stopping) = (self.ports.threads, self.stopping.clone());
        tokio::spawn(tls.keep_fresh(threads, stopping, told));
    }
}
