//! How tenants share a device: a virtual clock for each, which the one goes by whose is behind.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): what a request of a tenant is
//! expected to take on the device, divided by the tenant's weight, moves its clock on, and of
//! those who wait the tenant whose clock shows the least goes next. Whoever has used little is
//! therefore served first, however much others have waiting, and over any time in which two
//! tenants wait, what they have had differs from their shares by no more than their largest
//! requests. A tenant that had nothing waiting cannot save up: its clock begins where the device's
//! own is, which shows what the tenant was at that was served last.
//!
//! Each class of criticality has clocks of its own: classes go before one another whatever tenants
//! have used. All batchers of a device share them: nobody is served twice as much for using two
//! models.

use paceline_protocol::{Criticality, TenantId};
use serde::{Deserialize, Serialize};

/// The clocks of a device's tenants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fair {
    classes: [Clocks; Criticality::ALL.len()],
    /// By tenant: of those whose weight is not 1.
    weights: Vec<(TenantId, u32)>,
}

/// The clocks of a class.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Clocks {
    /// By tenant: of those that have something waiting, or are ahead of the device.
    clocks: Vec<Clock>,
    /// What the clock of the tenant showed that was served last, at the most.
    now: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Clock {
    tenant: TenantId,
    /// Sixteenths of a nanosecond of the device, divided by the weight.
    at: u64,
    /// Requests of it that wait.
    waiting: u32,
}

impl Fair {
    /// The weights of tenants from now on; those that are not named weigh 1. What they have had so
    /// far stays as it was counted.
    pub fn set_weights(&mut self, weights: impl IntoIterator<Item = (TenantId, u32)>) {
        self.weights.clear();
        let uneven = weights.into_iter().filter(|(_, weight)| *weight > 1);
        self.weights.extend(uneven);
        self.weights.sort_unstable();
    }

    /// Memory that a copy takes beyond the size of the type.
    pub(crate) fn bytes(&self) -> usize {
        let clocks = self.classes.iter().map(|class| class.clocks.len());
        let weights = self.weights.len() * size_of::<(TenantId, u32)>();
        clocks.sum::<usize>() * size_of::<Clock>() + weights
    }

    /// A tenant's weight, at least 1.
    pub(crate) fn weight(&self, tenant: TenantId) -> u64 {
        let place = self.weights.binary_search_by_key(&tenant, |(of, _)| *of);
        place.map_or(1, |place| u64::from(self.weights[place].1))
    }

    /// What a tenant's clock shows: of those who wait in a class, who shows the least goes next.
    pub(crate) fn clock(&self, (class, tenant): Line) -> u64 {
        let class = &self.classes[class as usize];
        let known = class.place(tenant).ok();
        known.map_or(class.now, |place| class.clocks[place].at)
    }

    /// A request begins to wait.
    pub(crate) fn enter(&mut self, (class, tenant): Line) {
        let class = &mut self.classes[class as usize];
        let now = class.now;
        let clock = class.clock(tenant);
        if clock.waiting == 0 {
            clock.at = clock.at.max(now);
        }
        clock.waiting += 1;
    }

    /// A request waits no longer, whatever becomes of it.
    pub(crate) fn leave(&mut self, (class, tenant): Line) {
        let clock = self.classes[class as usize].clock(tenant);
        debug_assert!(clock.waiting > 0, "who leaves has entered");
        clock.waiting = clock.waiting.saturating_sub(1);
    }

    /// A batch begins with a request of this tenant.
    pub(crate) fn begin(&mut self, (class, tenant): Line) {
        let at = self.clock((class, tenant));
        let now = &mut self.classes[class as usize].now;
        *now = at.max(*now);
    }

    /// A request that waits is served, and will take so many nanoseconds of the device.
    pub(crate) fn charge(&mut self, (class, tenant): Line, nanos: u64) {
        let takes = nanos.saturating_mul(FRACTIONS) / self.weight(tenant);
        let clock = self.classes[class as usize].clock(tenant);
        // What costs nothing would be served for ever.
        clock.at = clock.at.saturating_add(takes.max(1));
    }
}

/// What has a clock: a tenant in a class.
pub(crate) type Line = (Criticality, TenantId);

impl Clocks {
    fn place(&self, tenant: TenantId) -> Result<usize, usize> {
        self.clocks
            .binary_search_by_key(&tenant, |clock| clock.tenant)
    }

    /// A tenant's clock, which begins with the device's if there was none.
    fn clock(&mut self, tenant: TenantId) -> &mut Clock {
        if self.place(tenant).is_err() && self.clocks.len() == self.clocks.capacity() {
            // Before there are more: who neither waits nor is ahead would begin anew in any case.
            let now = self.now;
            self.clocks
                .retain(|clock| clock.waiting > 0 || clock.at > now);
        }
        let at = self.now;
        let place = self.place(tenant).unwrap_or_else(|place| {
            let clock = Clock {
                tenant,
                at,
                waiting: 0,
            };
            self.clocks.insert(place, clock);
            place
        });
        &mut self.clocks[place]
    }
}

/// Parts of a nanosecond that clocks count, so that weights divide small costs, too: in 64 bits
/// they last for 36 years of work.
const FRACTIONS: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const A: Line = (Criticality::Critical, TenantId(3));
    const B: Line = (Criticality::Critical, TenantId(8));

    /// Serves whoever is behind, and tells how often that was `A`.
    fn serve(fair: &mut Fair, times: u32, nanos: impl Fn(Line) -> u64) -> u32 {
        let mut first = 0;
        for _ in 0..times {
            let next = if fair.clock(A) <= fair.clock(B) { A } else { B };
            fair.begin(next);
            fair.charge(next, nanos(next));
            first += u32::from(next == A);
        }
        first
    }

    #[test]
    fn who_is_behind_goes_next_by_cost_and_weight() {
        let mut fair = Fair::default();
        fair.enter(A);
        fair.enter(B);
        assert_eq!(serve(&mut fair, 100, |_| 1_000), 50);
        let dear = |line| if line == A { 3_000 } else { 1_000 };
        assert_eq!(serve(&mut fair, 100, dear), 25);
        fair.set_weights([(A.1, 4), (B.1, 1)]);
        assert_eq!(serve(&mut fair, 100, |_| 1_000), 80);
    }

    #[test]
    fn who_had_nothing_waiting_has_saved_nothing() {
        let mut fair = Fair::default();
        fair.enter(A);
        fair.charge(A, 50_000);
        fair.begin(A);
        fair.enter(B);
        assert_eq!(fair.clock(B), fair.clock(A));
        assert_eq!(serve(&mut fair, 10, |_| 1_000), 5);
    }

    #[test]
    fn who_left_ahead_comes_back_ahead() {
        let mut fair = Fair::default();
        fair.enter(A);
        fair.charge(A, 50_000);
        fair.leave(A);
        fair.enter(B);
        fair.enter(A);
        assert_eq!(serve(&mut fair, 50, |_| 1_000), 0, "it has had its share");
    }

    #[test]
    fn a_class_knows_nothing_of_what_was_used_in_another() {
        let mut fair = Fair::default();
        fair.enter(A);
        fair.charge(A, 1_000_000);
        fair.begin(A);
        let sheddable = [A, B].map(|(_, tenant)| (Criticality::Sheddable, tenant));
        for line in sheddable {
            fair.enter(line);
        }
        assert_eq!(sheddable.map(|line| fair.clock(line)), [0, 0]);
    }

    #[test]
    fn who_is_gone_is_forgotten_before_there_are_more() {
        let mut fair = Fair::default();
        for tenant in 0..1_000 {
            let line = (A.0, TenantId(tenant));
            fair.enter(line);
            fair.charge(line, 10);
            fair.leave(line);
            fair.enter(A);
            fair.charge(A, 1_000);
            fair.begin(A);
            fair.leave(A);
        }
        let known = fair.classes[A.0 as usize].clocks.len();
        assert!(known < 64, "{known}");
    }
}
