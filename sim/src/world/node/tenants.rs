//! Who the tenants are here, and this node's parts of their limits.
//!
//! The twin of `node/src/tenants.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::quota::{self, Demand};
use paceline_core::registry::Tenant;
use paceline_core::{Machine, admission, device};
use paceline_protocol::{TenantId, TenantName};

use super::Node;
use crate::world::outside::Outside;

/// What a node knows of tenants.
#[derive(Default)]
pub(super) struct Tenants {
    /// As they were looked at last.
    known: BTreeMap<TenantName, Arc<Tenant>>,
    /// What those with limits asked of this node in its last second, as peers are told.
    demands: Vec<(TenantId, Demand)>,
}

impl Node {
    /// Who a request is of, as this node knows the scenario's tenants; those that it has not heard of
    /// are strangers to it.
    pub(super) fn tenant(&self, outside: &Outside, place: Option<u16>) -> TenantId {
        let named = place.and_then(|place| outside.scenario.tenants.get(usize::from(place)));
        let named = named.and_then(|tenant| TenantName::new(tenant.name.as_str()).ok());
        let known = named.and_then(|name| self.tenants.known.get(&name));
        known.map_or(TenantId::DEFAULT, |tenant| tenant.id)
    }

    pub(super) fn demands(&self) -> &[(TenantId, Demand)] {
        &self.tenants.demands
    }

    /// The registry may know of other tenants than before.
    pub(super) fn look_at_tenants(&mut self, outside: &mut Outside) {
        let registry = self.knowledge.registry().clone();
        if *registry.tenants() == self.tenants.known {
            return;
        }
        self.tenants.known.clone_from(registry.tenants());
        let tenants = self.tenants.known.values();
        let weights = tenants.map(|tenant| (tenant.id, tenant.limits.weight));
        let weights = device::Input::SetWeights {
            weights: weights.collect(),
        };
        self.step_device(outside, weights, None);
        self.divide(outside);
    }

    /// A second has passed.
    pub(super) fn measure_tenants(&mut self, outside: &mut Outside) {
        if self.tenants.known.is_empty() {
            return;
        }
        let effects = &mut self.admission_effects;
        self.admission
            .step(outside.now, admission::Input::Measure, effects);
        let seen = effects.drain(..).filter_map(|effect| match effect {
            admission::Effect::Seen { tenant, demand } => Some((tenant, demand)),
            admission::Effect::Admit | admission::Effect::Refuse(_) => None,
        });
        self.tenants.demands = seen.collect();
        self.say(outside);
        self.divide(outside);
    }

    /// Takes this node's parts of what tenants may send.
    pub(super) fn divide(&mut self, outside: &Outside) {
        let parts = quota::parts(
            self.knowledge.registry(),
            &self.tenants.demands,
            self.peers.demands(),
        );
        let parts = admission::Input::SetParts { parts };
        self.admission
            .step(outside.now, parts, &mut self.admission_effects);
    }
}
