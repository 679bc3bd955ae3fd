//! Knows who callers are by the keys that they show, and holds tenants to their limits.
//!
//! Owns the table of keys, which doors read without a lock, and this node's [parts](quota::parts)
//! of the limits. Supervised by the node. Hears from the registry (who the tenants are), from
//! peers (what was asked of them) and from its timer; speaks to admission, to the device (weights)
//! and, by way of the observer, to peers. When it dies, doors go on with the last table and
//! admission with the last parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use paceline_core::quota::{self, Demand};
use paceline_core::registry::Tenant;
use paceline_protocol::tenant::{ApiKey, KeyId, KeyRecord};
use paceline_protocol::{ErrorCode, Failure, TenantId, TenantName};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::observed::Observed;
use crate::supervisor::notify;
use crate::telemetry::metrics::Metrics;
use crate::{admission, device, registry};

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant.
    pub tenant: TenantId,
    /// The key that says so, if one was shown.
    key: Option<KeyId>,
}

/// Who is who, for doors. Cheap to clone; outlives the actor.
#[derive(Clone)]
pub struct Handle {
    table: Arc<ArcSwap<Table>>,
    demands: watch::Sender<Demands>,
    are_keys_required: bool,
}

/// What tenants with limits have asked of a node in the last second, by tenant.
pub(crate) type Demands = Vec<(TenantId, Demand)>;

/// Who is recognised by what.
#[derive(Default)]
struct Table {
    keys: BTreeMap<KeyId, (KeyRecord, TenantId)>,
    names: BTreeMap<TenantId, TenantName>,
}

/// What the actor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry has changed.
    Changed,
    /// A peer has said something.
    Heard,
    /// A second has passed.
    Tick,
}

impl ractor::Message for Message {}

/// What the actor needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// What it publishes through.
    pub handle: Handle,
    /// Who the tenants are.
    pub registry: registry::Handle,
    /// What was asked of peers.
    pub observed: Observed,
    /// Who holds them to their limits.
    pub admission: admission::Handle,
    /// Who serves them by their weights.
    pub device: device::Handle,
    /// Where their requests are counted.
    pub metrics: Metrics,
}

/// The actor.
pub(crate) struct Tenants;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    /// As they were looked at last.
    tenants: BTreeMap<TenantName, Arc<Tenant>>,
}

impl Caller {
    /// Who shows no key.
    pub const ANONYMOUS: Self = Self {
        tenant: TenantId::DEFAULT,
        key: None,
    };

    /// Whether they administer the cluster: nodes, tenants, and everybody's models.
    pub fn administers(&self) -> bool {
        self.tenant == TenantId::DEFAULT
    }
}

impl Handle {
    /// Nobody is known yet. `are_keys_required` tells whether who shows none is refused.
    pub fn new(are_keys_required: bool) -> Self {
        Self {
            table: Arc::default(),
            demands: watch::Sender::default(),
            are_keys_required,
        }
    }

    /// Who shows this key, or none. Cost: a SHA-256 of 32 bytes and a look into a map.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: nobody is recognised by it, or one must be shown.
    pub fn caller(&self, key: Option<&ApiKey>) -> Result<Caller, Failure> {
        let Some(key) = key else {
            if self.are_keys_required {
                return Err(unauthenticated(
                    "this cluster wants an API key: 'Authorization: Bearer pk_…'",
                ));
            }
            return Ok(Caller::ANONYMOUS);
        };
        let table = self.table.load();
        let known = table.keys.get(&key.id);
        let known = known.filter(|(record, _)| record.fits(key));
        let (_, tenant) = known.ok_or_else(not_accepted)?;
        Ok(Caller {
            tenant: *tenant,
            key: Some(key.id),
        })
    }

    /// Whether a caller is still who they were.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: their key was revoked.
    pub fn check(&self, caller: Caller) -> Result<(), Failure> {
        let Some(key) = caller.key else { return Ok(()) };
        let table = self.table.load();
        let known = table.keys.get(&key);
        let is_theirs = known.is_some_and(|(_, tenant)| *tenant == caller.tenant);
        is_theirs.then_some(()).ok_or_else(not_accepted)
    }

    /// What a tenant is called.
    pub fn name_of(&self, tenant: TenantId) -> TenantName {
        let table = self.table.load();
        table.names.get(&tenant).cloned().unwrap_or_default()
    }

    /// The name of a tenant, if there is one.
    pub fn known(&self, tenant: TenantId) -> Option<TenantName> {
        self.table.load().names.get(&tenant).cloned()
    }

    /// What was asked of this node.
    pub fn demands(&self) -> watch::Receiver<Demands> {
        self.demands.subscribe()
    }
}

impl Actor for Tenants {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        arguments.registry.tell(&myself, || Message::Changed);
        let nodes = arguments.observed.watch_nodes();
        notify(nodes, myself.clone(), || Message::Heard);
        myself.cast(Message::Changed)?;
        myself.send_interval(EVERY, || Message::Tick);
        Ok(State {
            arguments,
            tenants: BTreeMap::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Changed => state.look(),
            // At once: until all divide by the same reports, their parts are more than the whole.
            Message::Heard if state.tenants.is_empty() => {}
            Message::Heard => state.divide(),
            Message::Tick => state.measure(),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self) {
        let registry = self.arguments.registry.current();
        if *registry.tenants() == self.tenants {
            return;
        }
        let before = std::mem::take(&mut self.tenants);
        self.tenants.clone_from(registry.tenants());
        let tenants = self.tenants.values();
        let keys = tenants.flat_map(|tenant| {
            let keys = tenant.keys.iter();
            keys.map(|key| (key.id, (key.clone(), tenant.id)))
        });
        let names = self.tenants.iter();
        let table = Table {
            keys: keys.collect(),
            names: names
                .map(|(name, tenant)| (tenant.id, name.clone()))
                .collect(),
        };
        self.arguments.handle.table.store(Arc::new(table));
        // Afterwards, or a request could be counted with one that is forgotten.
        for gone in before.keys() {
            if !self.tenants.contains_key(gone) {
                self.arguments.metrics.forget(gone);
            }
        }
        let weights = self.tenants.values();
        let weights = weights.map(|tenant| (tenant.id, tenant.limits.weight));
        self.arguments.device.set_weights(weights.collect());
        self.divide();
    }

    fn measure(&mut self) {
        if self.tenants.is_empty() {
            return;
        }
        let demands = self.arguments.admission.measure();
        self.arguments.handle.demands.send_replace(demands);
        self.divide();
    }

    fn divide(&self) {
        let registry = self.arguments.registry.current();
        let own = self.arguments.handle.demands.borrow().clone();
        let nodes = self.arguments.observed.nodes();
        let others = nodes.values().filter(|facts| facts.ready);
        let others = others.map(|facts| facts.demands.as_slice());
        let parts = quota::parts(&registry, &own, others);
        self.arguments.admission.set_parts(parts);
    }
}

fn not_accepted() -> Failure {
    unauthenticated("the API key is not accepted here; it was revoked, or is of another cluster")
}

fn unauthenticated(why: &'static str) -> Failure {
    Failure::new(ErrorCode::Unauthenticated, why)
}

/// How often it is asked what was asked for: what has moved to another node is noticed after this.
const EVERY: Duration = Duration::from_secs(1);
