//! Bugs of what is decided that are planted again (`node/core/src/planted.rs`) and have to be found
//! by the scenarios that come along, within 200 seeds: invariants that find none of them would prove
//! nothing by holding.
//!
//! ```sh
//! cargo test -p paceline-sim --features planted --test planted -- --nocapture
//! ```
//!
//! Each bug is looked for where [`expected`] says. With `PACELINE_PLANTED_SEARCH` set it is also
//! looked for in all scenarios, as if nothing were known of it; `scripts/verify-long` does that.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use paceline_core::planted::Bug;
use paceline_sim::{Planted, Scenario, Traces, run_planted, with_faults};

/// What breaks in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// What the scenario says.
    Own,
    /// What is drawn from each seed.
    Drawn,
}

/// The scenario that shows a bug, and the invariant that sees it.
fn expected(bug: Bug) -> (&'static str, Faults, &'static str) {
    use Faults::{Drawn, Own};
    match bug {
        Bug::ExpiredKeepsPermit => ("mixed-clients", Drawn, "I9 conservation"),
        Bug::EndsForgotten => ("mixed-clients", Drawn, "I9 conservation"),
        Bug::HopelessFirst => ("overload", Own, "enough-work"),
        Bug::RemovalOnlySinks => ("drain-under-overload", Own, "I2 deadline"),
        Bug::CancelledRuns => ("steady", Own, "I7 no-starvation"),
        Bug::IdleLane => ("steady", Own, "I7 no-starvation"),
        Bug::RepeatExecutes => ("mixed-clients", Drawn, "I11 registry-epoch"),
        Bug::ReplacedEarly => ("rolling-restart", Own, "I4 replaced"),
        Bug::NeverBack => ("node-kill", Own, "I14 converged"),
        Bug::OnceAgain => ("mixed-clients", Drawn, "I3 executions"),
        Bug::ToldUnexecuted => ("mixed-clients", Drawn, "I3 executions"),
        Bug::ClosedEarly => ("rolling-restart", Own, "I4 drained"),
        Bug::FailoverKept => ("node-kill", Own, "I9 conservation"),
        Bug::FailuresForgotten => ("bad-version", Own, "restarts"),
        Bug::GivenUpStays => ("given-up", Own, "I14 converged"),
        Bug::NeverEjected => ("failing-replica", Own, "enough-work"),
    }
}

#[test]
fn planted_bugs_are_found_by_scenarios_as_they_are() {
    find_all(Faults::Own);
}

#[test]
fn planted_bugs_are_found_by_drawn_faults() {
    find_all(Faults::Drawn);
}

#[test]
fn planted_bugs_are_found_by_a_search_of_all_scenarios() {
    if !is_search_wanted() {
        say("not searched: PACELINE_PLANTED_SEARCH is not set");
        return;
    }
    let missed: Vec<&str> = Bug::ALL
        .into_iter()
        .filter(|bug| !search(*bug))
        .map(Bug::name)
        .collect();
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}

/// Looks for each bug that such faults show, and then runs the same seeds without any.
fn find_all(faults: Faults) {
    let mut furthest = BTreeMap::new();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let (name, (scenario, with, by)) = (bug.name(), expected(bug));
        if with != faults {
            continue;
        }
        let found = (0..SEEDS_MAX)
            .find_map(|seed| Some((seed, broken_by(Some(bug), (scenario, faults), seed)?)));
        let Some((seed, seen_by)) = found else {
            missed.push(format!("{name} was not found in {SEEDS_MAX} seeds"));
            continue;
        };
        say(&format!(
            "{name} was found in {scenario} by seed {seed}: {seen_by}"
        ));
        if seen_by != by {
            missed.push(format!("{name} was found by {seen_by}, not by {by}"));
        }
        let last = furthest.entry(scenario).or_insert(seed);
        *last = seed.max(*last);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    for (scenario, last) in furthest {
        for seed in 0..=last {
            let broken = broken_by(None, (scenario, faults), seed);
            assert_eq!(broken, None, "{scenario}, seed {seed}, nothing planted");
        }
    }
}

/// Seed after seed, all scenarios as they are and with drawn faults, until one shows the bug.
fn search(bug: Bug) -> bool {
    let name = bug.name();
    for seed in 0..SEEDS_MAX {
        for scenario in Scenario::all() {
            for (faults, what) in [(Faults::Own, ""), (Faults::Drawn, " with drawn faults")] {
                if let Some(by) = broken_by(Some(bug), (&scenario.name, faults), seed) {
                    say(&format!(
                        "{name} was found in {}{what} by seed {seed}: {by}",
                        scenario.name
                    ));
                    return true;
                }
            }
        }
    }
    false
}

/// What does not hold of a run.
fn broken_by(bug: Option<Bug>, (scenario, faults): (&str, Faults), seed: u64) -> Option<String> {
    let scenario = Scenario::named(scenario).expect("it comes along");
    let scenario = match faults {
        Faults::Own => scenario,
        Faults::Drawn => with_faults(&scenario, seed),
    };
    let planted = bug.map(Planted::Core);
    match catch_unwind(|| run_planted((&scenario, &Traces::default()), seed, planted)) {
        Ok(Ok(_)) => None,
        Ok(Err(violation)) => Some(violation.invariant.to_owned()),
        Err(_) => Some("a machine panicked".to_owned()),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "whoever has the time for a search says so"
)]
fn is_search_wanted() -> bool {
    std::env::var_os("PACELINE_PLANTED_SEARCH").is_some()
}

#[allow(
    clippy::disallowed_macros,
    reason = "where a bug was found is what people want to know"
)]
fn say(what: &str) {
    println!("{what}");
}

/// A bug that shows more rarely than this is not found in practice.
const SEEDS_MAX: u64 = 200;
