//! Policy of a node's extra attempts: how many are under way, and whether one more may begin.
//!
//! A retry that everybody makes at once turns a small fault into a large one. Two allowances
//! bound it: a *failover*, after a node fell silent or an engine died, is one for each request and
//! does not count against the ratio, or the death of one node of three could not be survived, nor
//! that of an engine by those who shared its batch; every other *retry* shares a fifth of the
//! requests that are active. Both are given back when the attempt ends, however it ends.

use paceline_protocol::limits::{FAILOVERS_MAX, RETRIES_MIN, RETRIES_PERCENT_MAX};

/// What an extra attempt is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The node that had it fell silent, or its engine has died.
    Failover,
    /// Anything else: overload at one replica, an engine's passing error.
    Retry,
}

/// The extra attempts of a node. Kept under a short lock, off the path of requests that need
/// one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    active: u32,
    failovers: u32,
    retries: u32,
}

impl Budget {
    /// Says how many requests the node has in flight, retries not counted. Told before a
    /// decision; what is under way already is not taken back when it falls.
    pub fn set_active(&mut self, requests: u32) {
        self.active = requests;
    }

    /// Extra attempts of a kind that are under way.
    pub fn under_way(&self, extra: Extra) -> u32 {
        match extra {
            Extra::Failover => self.failovers,
            Extra::Retry => self.retries,
        }
    }

    /// Takes one, if there is one; it must be given back.
    pub fn take(&mut self, extra: Extra) -> bool {
        let (taken, most) = match extra {
            Extra::Failover => (&mut self.failovers, FAILOVERS_MAX),
            Extra::Retry => (
                &mut self.retries,
                RETRIES_MIN
                    .max((u64::from(self.active) * u64::from(RETRIES_PERCENT_MAX) / 100) as u32),
            ),
        };
        let may = *taken < most;
        *taken += u32::from(may);
        may
    }

    /// Gives one back.
    ///
    /// # Panics
    /// If none was taken: a bound that drifts bounds nothing.
    pub fn give_back(&mut self, extra: Extra) {
        let taken = match extra {
            Extra::Failover => &mut self.failovers,
            Extra::Retry => &mut self.retries,
        };
        assert!(*taken > 0, "more extra attempts ended than began");
        *taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(budget: &mut Budget, extra: Extra) -> u32 {
        (0..10_000).map(|_| u32::from(budget.take(extra))).sum()
    }

    #[test]
    fn a_fifth_of_what_is_active_may_be_retries_and_three_always() {
        for (active, most) in [(0, 3), (15, 3), (20, 4), (1_000, 200)] {
            let mut budget = Budget::default();
            budget.set_active(active);
            assert_eq!(take_all(&mut budget, Extra::Retry), most, "{active} active");
        }
    }

    #[test]
    fn failovers_have_an_allowance_of_their_own() {
        let mut budget = Budget::default();
        assert_eq!(take_all(&mut budget, Extra::Failover), 256);
        assert_eq!(take_all(&mut budget, Extra::Retry), 3);
        budget.give_back(Extra::Failover);
        assert_eq!(take_all(&mut budget, Extra::Failover), 1);
        assert_eq!(budget.under_way(Extra::Failover), 256);
    }

    #[test]
    fn fewer_active_requests_take_nothing_back() {
        let mut budget = Budget::default();
        budget.set_active(100);
        assert_eq!(take_all(&mut budget, Extra::Retry), 20);
        budget.set_active(10);
        assert!(!budget.take(Extra::Retry));
        for _ in 0..18 {
            budget.give_back(Extra::Retry);
        }
        assert!(budget.take(Extra::Retry), "two of three are under way");
    }

    #[test]
    #[should_panic(expected = "more extra attempts ended than began")]
    fn what_was_not_taken_cannot_be_given_back() {
        Budget::default().give_back(Extra::Retry);
    }
}
