//! I16: a tenant gets no more than its rate, by the bound that `paceline_core::quota` states.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::{Fact, RequestNumber};
use crate::scenario::{Scenario, What};

pub(super) struct Limits {
    /// By tenant.
    tenants: Vec<Tenant>,
    /// The tenant of each group of clients.
    of_clients: Vec<Option<usize>>,
    /// The group of each request.
    clients: Vec<u16>,
    /// Nodes that were started: each begins with a second's worth.
    starts: u64,
    begins: Instant,
    /// Whether the cluster stays in one piece, as the bound presupposes.
    is_whole: bool,
}

struct Tenant {
    name: String,
    requests_per_s: Option<u32>,
    let_in: u64,
}

impl Limits {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let tenants = scenario.tenants.iter().map(|tenant| Tenant {
            name: tenant.name.clone(),
            requests_per_s: tenant.requests_per_s,
            let_in: 0,
        });
        let place = |name: &str| scenario.tenants.iter().position(|t| t.name == name);
        let of_clients = scenario.clients.iter();
        let of_clients = of_clients.map(|of| of.tenant.as_deref().and_then(place));
        let mut faults = scenario.faults.iter();
        Self {
            tenants: tenants.collect(),
            of_clients: of_clients.collect(),
            clients: Vec::new(),
            starts: scenario.nodes() as u64,
            begins: Instant::from_nanos(scenario.begins_ms() * 1_000_000),
            is_whole: !faults.any(|fault| matches!(fault.what, What::Partition { .. })),
        }
    }

    fn tenant(&mut self, request: RequestNumber) -> Option<&mut Tenant> {
        let client = *self.clients.get(request.0 as usize)?;
        let tenant = (*self.of_clients.get(usize::from(client))?)?;
        self.tenants.get_mut(tenant)
    }
}

impl Invariant for Limits {
    fn name(&self) -> &'static str {
        "I16 limits"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Submitted { client, .. } = *fact {
            self.clients.push(client);
        }
        if let Fact::Admitted { request, .. } = *fact
            && let Some(tenant) = self.tenant(request)
        {
            tenant.let_in += 1;
        }
        self.starts += u64::from(matches!(fact, Fact::Died { .. }));
        Ok(())
    }

    fn end(&self, now: Instant) -> Result<(), String> {
        let seconds = now.nanos_since(self.begins).div_ceil(1_000_000_000);
        for tenant in &self.tenants {
            let Some(rate) = tenant.requests_per_s.filter(|_| self.is_whole) else {
                continue;
            };
            // Its rate, the sixteenth that is kept, a second's worth at once, and another for each
            // node that has begun anew.
            let rate = u64::from(rate);
            let most = (rate + rate.div_ceil(16)) * (seconds + 1 + self.starts);
            if tenant.let_in > most {
                return Err(format!(
                    "{} requests of tenant {} were let in within {seconds} s; its rate of {rate} \
                     allows {most}",
                    tenant.let_in, tenant.name
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::{NodeIndex, Process};

    fn judge(requests: u32) -> bool {
        let mut scenario = Scenario::named("noisy-tenant").unwrap();
        scenario.tenants[0].requests_per_s = Some(32);
        scenario.clients[0].tenant = Some(scenario.tenants[0].name.clone());
        let mut limits = Limits::new(&scenario);
        let node = NodeIndex(0);
        for number in 0..requests {
            let request = RequestNumber(number);
            let submitted = Fact::Submitted {
                request,
                deadline: Instant::FAR,
                is_once: false,
                client: 0,
            };
            let admitted = Fact::Admitted {
                request,
                process: Process { node, life: 0 },
                is_second: false,
                via: None,
            };
            for fact in [submitted, admitted] {
                limits.observe(Instant::ZERO, &fact).unwrap();
            }
        }
        let end = limits.begins.plus_nanos(1_000_000_000);
        limits.end(end).is_ok()
    }

    #[test]
    fn more_than_a_rate_allows_is_found() {
        let nodes = Scenario::named("noisy-tenant").unwrap().nodes() as u32;
        let most = 34 * (2 + nodes);
        assert!(judge(most) && !judge(most + 1));
    }
}
