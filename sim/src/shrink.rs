//! Policy that makes a failing scenario small: what is not needed for the failure is left out.
//!
//! Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input",
//! 2002) over faults and operations, half of them at first, one at a time in the end; then the
//! run is made shorter and its clients fewer.

use crate::scenario::Scenario;

/// The smallest scenario that was found and that still fails, as `fails` says; at most
/// `tries_max` are tried. The one given fails.
pub fn shrink(
    scenario: &Scenario,
    tries_max: u32,
    mut fails: impl FnMut(&Scenario) -> bool,
) -> Scenario {
    let mut smallest = scenario.clone();
    let mut tries = 0;
    let mut try_it = |candidate: &Scenario| {
        tries += 1;
        tries <= tries_max && fails(candidate)
    };
    loop {
        let before = smallest.clone();
        without(&mut smallest, FAULTS, &mut try_it);
        without(&mut smallest, OPERATIONS, &mut try_it);
        without(&mut smallest, CLIENTS, &mut try_it);
        less(&mut smallest, &mut try_it);
        if smallest == before {
            return smallest;
        }
    }
}

/// A list of a scenario, and the scenario without some of it.
type Part = (
    fn(&Scenario) -> usize,
    fn(&mut Scenario, std::ops::Range<usize>),
);

fn without(smallest: &mut Scenario, (count, cut): Part, fails: &mut impl FnMut(&Scenario) -> bool) {
    let mut step = count(smallest).div_ceil(2);
    while step > 0 {
        let mut from = 0;
        while from < count(smallest) {
            let to = (from + step).min(count(smallest));
            let mut candidate = smallest.clone();
            cut(&mut candidate, from..to);
            if candidate.problems().is_empty() && fails(&candidate) {
                *smallest = candidate;
            } else {
                from = to;
            }
        }
        step /= 2;
    }
}

/// A shorter run with fewer requests.
fn less(smallest: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    for position in 0..smallest.clients.len() {
        for sends in HALVINGS {
            let mut candidate = smallest.clone();
            let workload = &mut candidate.clients[position].workload;
            workload.duration_ms = workload.duration_ms * sends / 100;
            if candidate.problems().is_empty() && fails(&candidate) {
                *smallest = candidate;
                break;
            }
        }
    }
}

const FAULTS: Part = (
    |scenario| scenario.faults.len(),
    |scenario, range| drop(scenario.faults.drain(range)),
);
const OPERATIONS: Part = (
    |scenario| scenario.operations.len(),
    |scenario, range| drop(scenario.operations.drain(range)),
);
const CLIENTS: Part = (
    |scenario| scenario.clients.len(),
    |scenario, range| drop(scenario.clients.drain(range)),
);
/// Hundredths of its length that a run is tried with.
const HALVINGS: [u64; 3] = [25, 50, 75];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::What;
    use crate::swarm::with_faults;

    #[test]
    fn what_the_failure_does_not_need_is_left_out() {
        let scenario = Scenario::named("node-kill").unwrap();
        let seeds = 0..1_000;
        let mut plans = seeds.map(|seed| with_faults(&scenario, seed));
        let is_two = |plan: &Scenario| {
            let slow = plan
                .faults
                .iter()
                .any(|f| matches!(f.what, What::Slow { .. }));
            let stall = plan
                .faults
                .iter()
                .any(|f| matches!(f.what, What::Stall { .. }));
            slow && stall
        };
        let failing = plans.find(|plan| is_two(plan) && plan.faults.len() > 20);
        let failing = failing.expect("some seed has both");
        let smallest = shrink(&failing, 1_000, is_two);
        assert_eq!((smallest.faults.len(), smallest.operations.len()), (2, 0));
        assert!(is_two(&smallest) && smallest.ends_ms() < failing.ends_ms());
        let limited = shrink(&failing, 0, is_two);
        assert_eq!(limited, failing, "no tries, no change");
    }
}
