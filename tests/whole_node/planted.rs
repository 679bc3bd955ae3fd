//! Bugs that are planted again (`node/src/planted.rs`) and have to be found: a suite that finds
//! none of them would prove nothing by being green.

use crate::runs::Ran;

/// Runs seeds with the bug until one of them shows what it should, and that seed without.
fn is_found(bug: &str, by: &str) {
    let shows = |ran: &Ran| {
        ran.violations
            .iter()
            .any(|violation| violation.contains(by))
    };
    let mut seeds = 0..SEEDS_MAX;
    let found = seeds.find(|seed| {
        let ran = Ran::attempt(*seed, &[("PACELINE_PLANTED", bug)]);
        // A run that broke off has shown nothing that this oracle may claim.
        ran.is_ok_and(|ran| shows(&ran))
    });
    let found = found.unwrap_or_else(|| panic!("{bug} was not found in {SEEDS_MAX} seeds"));
    println!("{bug} was found by seed {found}");
    for seed in 0..=found {
        Ran::new(seed, &[]).assert_good();
    }
}

#[test]
fn a_vote_that_is_not_synced_is_found() {
    is_found("vote-not-synced", "was in term");
}

#[test]
fn a_drain_that_refuses_late_requests_is_found() {
    is_found("drain-race", "failed in calm: SHUTTING_DOWN");
}

#[test]
fn a_stale_read_after_a_pause_is_found() {
    is_found("stale-read", "is not linearizable");
}

const SEEDS_MAX: u64 = 20;
