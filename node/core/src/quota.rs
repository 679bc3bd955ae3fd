//! What each tenant may take of a node: requests a second, and requests at a time.
//!
//! A tenant's limits are for the whole cluster. Each node has a part of them by what it was asked
//! for in the last second ([`divide`]), so a tenant may come to any node, and no request asks
//! another node whether it may run. All nodes divide by the same reports, each by its own as it
//! told it, so the parts add up to the limit. They add up to more
//! - for the time that a report is under way: what has moved from one node to another counts at both;
//! - by at most a sixteenth of a rate, which nodes that are not asked have kept for who turns to them;
//! - by at most one request at a time for each node, since parts of a few are rounded up;
//! - in a cluster that has fallen apart: each side, once it counts the others as gone, has all of it.
//!
//! A rate is kept by a virtual time that each request moves on, and that may be ahead of the clock
//! by a second at the most (the generic cell rate algorithm, ITU-T I.371): after a pause a tenant
//! may send a second's worth at once.

use std::time::Duration;

use paceline_protocol::TenantId;
pub use paceline_protocol::tenant::Demand;
use paceline_protocol::tenant::TenantLimits;
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::time::Instant;

/// A node's part of a tenant's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Thousandths of a request a second; `None` is unlimited.
    pub rate_milli: Option<u64>,
    /// Requests at a time; `None` is unlimited.
    pub concurrency: Option<u32>,
}

/// Why a tenant's request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// It has sent as many as it may in a second; the next one may come after this.
    Rate(Duration),
    /// It has as many as it may at a time.
    Concurrency,
}

/// A node's parts of all tenants' limits, by what it has told of what they asked of it, and what the
/// others that are ready have. Demands are in the order of tenants. Costs O(tenants × nodes).
pub fn parts<'a>(
    registry: &Registry,
    own: &[(TenantId, Demand)],
    others: impl Iterator<Item = &'a [(TenantId, Demand)]> + Clone,
) -> Vec<(TenantId, Part)> {
    let of = |demands: &[(TenantId, Demand)], tenant: TenantId| {
        let place = demands.binary_search_by_key(&tenant, |(of, _)| *of);
        place.map_or(Demand::default(), |place| demands[place].1)
    };
    let tenants = registry.tenants().values();
    let parts = tenants.map(|tenant| {
        let asked = of(own, tenant.id);
        let others = others.clone().map(|demands| of(demands, tenant.id));
        let part = divide(tenant.limits, asked, others.chain([asked]));
        (tenant.id, part)
    });
    parts.collect()
}

/// A node's part of a tenant's limits, by what the tenant asked of it and of the nodes that are
/// ready, itself among them: what it was asked for and an even part of what is left, or, if less is
/// allowed than was asked for, in proportion.
pub fn divide(limits: TenantLimits, own: Demand, all: impl Iterator<Item = Demand>) -> Part {
    let (mut nodes, mut arrivals, mut peaks) = (0u64, 0u64, 0u64);
    for demand in all {
        nodes += 1;
        arrivals += u64::from(demand.arrivals);
        peaks += u64::from(demand.peak);
    }
    let nodes = nodes.max(1);
    let rate_milli = limits.requests_per_s.map(|rate| {
        let milli = |requests: u64| requests.saturating_mul(1_000);
        let (limit, own) = (milli(rate.into()), milli(own.arrivals.into()));
        let part = part(limit, own, milli(arrivals).max(own), nodes);
        part.max(limit / (nodes * KEPT)).max(1)
    });
    let concurrency = limits.concurrency.map(|limit| {
        // In thousandths, and rounded up: a limit of two over three nodes is not none at each.
        let (limit, own) = (1_000 * u64::from(limit), 1_000 * u64::from(own.peak));
        let part = part(limit, own, (1_000 * peaks).max(own), nodes);
        part.div_ceil(1_000).max(1).min(u64::from(u32::MAX)) as u32
    });
    Part {
        rate_milli,
        concurrency,
    }
}

/// The part of `limit` of whom `own` of `all` was asked.
fn part(limit: u64, own: u64, all: u64, nodes: u64) -> u64 {
    if all <= limit {
        return own + (limit - all) / nodes;
    }
    (u128::from(limit) * u128::from(own) / u128::from(all)) as u64
}

/// What tenants have taken of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Quotas {
    /// By tenant: of those that were declared, or have sent something lately.
    tenants: Vec<Tenant>,
    /// Whether there are others than the tenant of requests without a key.
    is_shared: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Tenant {
    id: TenantId,
    part: Part,
    in_flight: u32,
    /// What its requests have moved on: ahead of the clock while it sends as many as it may.
    paid_until: Instant,
    seen: Demand,
}

impl Quotas {
    /// The declared tenants, and what each may take from now on.
    pub(crate) fn set(&mut self, parts: &[(TenantId, Part)]) {
        for tenant in &mut self.tenants {
            tenant.part = Part::default();
        }
        for (id, part) in parts {
            self.tenant(*id).part = *part;
        }
        self.is_shared = parts.iter().any(|(id, _)| *id != TenantId::DEFAULT);
    }

    /// Whether there is more than one tenant to be just to.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// A tenant's requests that are in.
    pub(crate) fn in_flight(&self, tenant: TenantId) -> u32 {
        let place = self.place(tenant).ok();
        place.map_or(0, |place| self.tenants[place].in_flight)
    }

    /// A request comes, whether it is let in or not: what stands against it, if anything.
    pub(crate) fn arrive(&mut self, now: Instant, tenant: TenantId) -> Option<Limit> {
        let tenant = self.tenant(tenant);
        tenant.seen.arrivals = tenant.seen.arrivals.saturating_add(1);
        tenant.seen.peak = tenant.seen.peak.max(tenant.in_flight + 1);
        let Part {
            rate_milli,
            concurrency,
        } = tenant.part;
        if concurrency.is_some_and(|most| tenant.in_flight >= most) {
            return Some(Limit::Concurrency);
        }
        let interval = NANOS_PER_SECOND * 1_000 / rate_milli?.max(1);
        // A request must be able to pay, however long that takes.
        let ahead = tenant.paid_until.nanos_since(now);
        let wait = ahead.saturating_sub(NANOS_PER_SECOND.saturating_sub(interval));
        (wait > 0).then(|| Limit::Rate(Duration::from_nanos(wait)))
    }

    /// It is let in.
    pub(crate) fn admit(&mut self, now: Instant, tenant: TenantId) {
        let tenant = self.tenant(tenant);
        tenant.in_flight += 1;
        if let Some(rate_milli) = tenant.part.rate_milli {
            let interval = NANOS_PER_SECOND * 1_000 / rate_milli.max(1);
            tenant.paid_until = tenant.paid_until.max(now).plus_nanos(interval);
        }
    }

    /// It has ended.
    pub(crate) fn finish(&mut self, tenant: TenantId) {
        let tenant = self.tenant(tenant);
        assert!(
            tenant.in_flight > 0,
            "more requests of a tenant ended than were admitted"
        );
        tenant.in_flight -= 1;
    }

    /// What tenants have asked for since this was asked last. Those without limits are not told, and
    /// those that are of no interest any more are forgotten.
    pub(crate) fn measure(&mut self, mut tell: impl FnMut(TenantId, Demand)) {
        self.tenants.retain_mut(|tenant| {
            let seen = std::mem::take(&mut tenant.seen);
            let is_limited = tenant.part != Part::default();
            if is_limited && seen != Demand::default() {
                tell(tenant.id, seen);
            }
            tenant.seen.peak = tenant.in_flight;
            is_limited || tenant.in_flight > 0
        });
    }

    /// Memory that a copy takes beyond the size of the type.
    pub(crate) fn bytes(&self) -> usize {
        self.tenants.len() * size_of::<Tenant>()
    }

    fn place(&self, tenant: TenantId) -> Result<usize, usize> {
        self.tenants
            .binary_search_by_key(&tenant, |tenant| tenant.id)
    }

    fn tenant(&mut self, id: TenantId) -> &mut Tenant {
        let place = self.place(id).unwrap_or_else(|place| {
            let tenant = Tenant {
                id,
                part: Part::default(),
                in_flight: 0,
                paid_until: Instant::ZERO,
                seen: Demand::default(),
            };
            self.tenants.insert(place, tenant);
            place
        });
        &mut self.tenants[place]
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Of a rate that is divided evenly, a node that was not asked has the part of one in so many.
const KEPT: u64 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: TenantId = TenantId(7);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn limited(rate_milli: Option<u64>, concurrency: Option<u32>) -> Quotas {
        let mut quotas = Quotas::default();
        let part = Part {
            rate_milli,
            concurrency,
        };
        quotas.set(&[(T, part)]);
        quotas
    }

    fn send(quotas: &mut Quotas, now_ms: u64) -> Option<Limit> {
        let limit = quotas.arrive(at(now_ms), T);
        if limit.is_none() {
            quotas.admit(at(now_ms), T);
            quotas.finish(T);
        }
        limit
    }

    #[test]
    fn a_second_of_a_rate_may_come_at_once_and_then_one_by_one() {
        let mut quotas = limited(Some(10_000), None);
        let at_once = (0..100).filter(|_| send(&mut quotas, 5_000).is_none());
        assert_eq!(at_once.count(), 10);
        let wait = Duration::from_millis(100);
        assert_eq!(send(&mut quotas, 5_000), Some(Limit::Rate(wait)));
        assert_eq!(send(&mut quotas, 5_100), None);
        let over = (0..10_000).filter(|ms| send(&mut quotas, 5_100 + ms).is_none());
        let let_in = over.count();
        assert!((99..=100).contains(&let_in), "{let_in} in ten seconds");
    }

    #[test]
    fn less_than_one_a_second_is_a_rate_too() {
        let mut quotas = limited(Some(250), None);
        assert_eq!(send(&mut quotas, 0), None);
        let wait = Duration::from_secs(3);
        assert_eq!(send(&mut quotas, 1_000), Some(Limit::Rate(wait)));
        assert_eq!(send(&mut quotas, 4_000), None);
    }

    #[test]
    fn as_many_at_a_time_as_it_may_and_again_when_one_ends() {
        let mut quotas = limited(None, Some(2));
        for _ in 0..2 {
            assert_eq!(quotas.arrive(at(0), T), None);
            quotas.admit(at(0), T);
        }
        assert_eq!(quotas.arrive(at(0), T), Some(Limit::Concurrency));
        quotas.finish(T);
        assert_eq!(quotas.arrive(at(0), T), None);
        let mut seen = Vec::new();
        quotas.measure(|tenant, demand| seen.push((tenant, demand)));
        let demand = Demand {
            arrivals: 4,
            peak: 3,
        };
        assert_eq!(seen, [(T, demand)]);
    }

    #[test]
    fn who_has_no_limits_is_not_told_and_is_forgotten() {
        let mut quotas = Quotas::default();
        assert_eq!(quotas.arrive(at(0), T), None);
        quotas.admit(at(0), T);
        quotas.measure(|_, _| panic!("it has no limits"));
        assert_eq!(quotas.in_flight(T), 1);
        quotas.finish(T);
        quotas.measure(|_, _| panic!("it has no limits"));
        assert!(quotas.tenants.is_empty());
    }

    fn limits(requests_per_s: Option<u32>, concurrency: Option<u32>) -> TenantLimits {
        TenantLimits {
            weight: 1,
            requests_per_s,
            concurrency,
        }
    }

    #[test]
    fn whoever_is_asked_has_it_and_nobody_is_locked_out() {
        let asked = |arrivals| Demand { arrivals, peak: 0 };
        let rate = |own: usize, all: &[u32]| {
            let demands = all.iter().map(|arrivals| asked(*arrivals));
            let part = divide(limits(Some(100), None), asked(all[own]), demands);
            part.rate_milli.unwrap()
        };
        assert_eq!(rate(0, &[0, 0]), 50_000);
        assert_eq!(rate(0, &[60, 0]), 80_000, "what is left is divided evenly");
        assert_eq!(rate(1, &[60, 0]), 20_000);
        assert_eq!(rate(0, &[300, 100]), 75_000);
        assert_eq!(
            rate(1, &[300, 0]),
            3_125,
            "who turns there is let in slowly"
        );
        let few = divide(limits(None, Some(2)), asked(0), [asked(0); 3].into_iter());
        assert_eq!(few.concurrency, Some(1));
    }

    proptest! {
        /// The bound that is promised: nodes that divide by the same reports.
        #[test]
        fn parts_add_up_to_the_limit_and_little_more(
            rate in 1u32..100_000,
            concurrency in 1u32..10_000,
            demands in proptest::collection::vec((0u32..50_000, 0u32..5_000), 1..20),
        ) {
            let demands = demands.iter().map(|(arrivals, peak)| Demand {
                arrivals: *arrivals,
                peak: *peak,
            });
            let limits = limits(Some(rate), Some(concurrency));
            let parts = demands.clone().map(|own| divide(limits, own, demands.clone()));
            let (mut rates, mut places) = (0, 0);
            for part in parts {
                rates += part.rate_milli.unwrap();
                places += u64::from(part.concurrency.unwrap());
            }
            let nodes = demands.len() as u64;
            let limit = 1_000 * u64::from(rate);
            prop_assert!(rates <= limit + limit / KEPT + nodes, "{rates} for {limit}");
            prop_assert!(rates + 2 * nodes >= limit, "{rates} for {limit}");
            prop_assert!(places <= u64::from(concurrency) + nodes, "{places}");
            prop_assert!(places >= u64::from(concurrency), "{places}");
        }

        /// However requests come, never more than a second's worth beyond the rate.
        #[test]
        fn no_more_than_the_rate_and_a_second_is_let_in(
            rate_milli in 500u64..100_000,
            pauses in proptest::collection::vec(0u64..500, 1..300),
        ) {
            let mut quotas = limited(Some(rate_milli), None);
            let (mut now, mut let_in) = (10_000, 0);
            for pause in pauses {
                now += pause;
                let_in += u64::from(send(&mut quotas, now).is_none());
            }
            let most = rate_milli * (now - 10_000 + 1_000) / 1_000_000 + 1;
            prop_assert!(let_in <= most, "{let_in} of {most}");
        }
    }
}
