//! The simulator itself: runs repeat, faults are found, disturbances keep the invariants.

use super::*;

/// A second of `steady`, after its start.
fn short() -> Scenario {
    let mut scenario = Scenario::steady();
    scenario.clients.duration_ms = 1_000;
    scenario.answers_min = 5_000;
    scenario
}

fn hold(scenario: &Scenario, seed: u64) -> Report {
    run(scenario, seed).unwrap_or_else(|violation| panic!("{violation}"))
}

#[test]
fn a_seed_repeats_a_run_byte_for_byte_and_another_seed_does_not() {
    let bytes = |seed| serde_json::to_vec(&hold(&short(), seed)).unwrap();
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn a_carried_load_is_answered() {
    let report = hold(&Scenario::steady(), 1);
    assert!(report.outcomes.expired > 0 && report.outcomes.cancelled > 0);
    let refused = report.outcomes.overloaded + report.outcomes.queue_full;
    assert_eq!((refused, report.outcomes.not_ready), (0, 0));
    assert!(
        report.outcomes.answered * 100 > report.requests * 97,
        "{report}"
    );
    let offered = Scenario::steady().clients.rate_per_s * 20;
    assert!(
        report.requests.abs_diff(offered) < offered / 100,
        "{report}"
    );
    // Commits: the node, the version, its deployment, the replica's assignment, the traffic.
    assert_eq!(report.epoch, 5);
}

#[test]
fn every_planted_fault_is_found_by_its_invariant() {
    let expected = [
        "I1 one-status",
        "I2 deadline",
        "I5 one-version",
        "I9 conservation",
    ];
    for (fault, invariant) in Fault::ALL.into_iter().zip(expected) {
        let violation = run_planted(&short(), 5, Some(fault)).unwrap_err();
        assert_eq!(violation.invariant, invariant, "{violation}");
        let again = run_planted(&short(), 5, Some(fault)).unwrap_err();
        assert_eq!(violation, again, "the reproduction shows the same");
    }
}

#[test]
fn a_run_that_proves_nothing_fails() {
    let mut scenario = short();
    scenario.clients.duration_ms = 0;
    let violation = run(&scenario, 1).unwrap_err();
    assert_eq!(violation.invariant, "enough-work");
}

#[test]
fn three_times_the_capacity_is_shed_and_nothing_else_breaks() {
    for seed in 1..=5 {
        let mut scenario = short();
        scenario.clients.rate_per_s = 3 * scenario.capacity_per_s();
        scenario.answers_min = 500;
        let report = hold(&scenario, seed);
        let shed = report.requests - report.outcomes.answered - report.outcomes.cancelled;
        assert!(shed > report.requests / 2, "{report}");
        assert!(report.utilisation_permille > 900, "{report}");
    }
}

#[test]
fn twice_the_capacity_leaves_what_full_batches_carry() {
    let overload = Scenario::overload();
    let report = hold(&overload, 7);
    let possible = overload.capacity_per_s() * overload.clients.duration_ms / 1_000;
    assert!(report.outcomes.answered * 100 >= possible * 95, "{report}");
}

#[test]
fn too_few_permits_are_the_limit_that_holds() {
    let mut scenario = short();
    scenario.clients.budget_min_us = 50_000;
    scenario.clients.rate_per_s = 3 * scenario.capacity_per_s();
    scenario.admission.permits = 64;
    let report = hold(&scenario, 1);
    assert!(report.outcomes.overloaded > report.requests / 2, "{report}");
    assert_eq!(report.outcomes.queue_full, 0);
}

#[test]
fn a_slow_model_fills_its_queue() {
    let mut scenario = short();
    scenario.model.row_nanos = 40_000_000;
    scenario.clients.budget_min_us = 9_000_000;
    scenario.clients.budget_max_us = 10_000_000;
    scenario.clients.cancel_permille = 0;
    scenario.answers_min = 50;
    let report = hold(&scenario, 1);
    assert!(report.outcomes.queue_full > 1_000, "{report}");
}

#[test]
fn cheap_batches_run_in_the_callers_task() {
    let mut scenario = short();
    scenario.model.fixed_nanos = 5_000;
    scenario.model.row_nanos = 100;
    scenario.clients.rate_per_s = 50_000;
    let report = hold(&scenario, 1);
    // Waking a thread and gathering alone would take 9 µs.
    assert!(report.latency_us.p50 < 9, "{report}");
}

#[test]
fn several_nodes_each_serve_their_clients() {
    let mut scenario = short();
    scenario.nodes = 3;
    scenario.clients.rate_per_s = 30_000;
    let report = hold(&scenario, 1);
    assert!(
        report.outcomes.answered * 100 > report.requests * 97,
        "{report}"
    );
    // Three nodes, a version, its deployment, three replicas, the traffic.
    assert_eq!(report.epoch, 9);
}

#[test]
fn a_new_version_takes_over_without_losing_a_request() {
    let mut scenario = short();
    scenario.clients.rate_per_s = 25_000;
    scenario.clients.cancel_permille = 0;
    scenario.clients.budget_min_us = 500_000;
    scenario.clients.budget_max_us = 500_000;
    // Without a delay the old replica goes while requests wait for it.
    scenario.delays.commit_us = 0;
    scenario.deploys_ms = vec![0, 900, 1_400];
    for seed in 1..=5 {
        let report = hold(&scenario, seed);
        assert!(report.sent_again > 0, "{report}");
        assert_eq!(report.outcomes.answered, report.requests, "{report}");
        // After the first five: publish, deploy, assign, activate and unassign, twice.
        assert_eq!(report.epoch, 15, "{report}");
    }
}

#[test]
fn clients_that_come_before_a_model_are_told_so() {
    let mut scenario = short();
    scenario.clients.from_ms = 0;
    let report = hold(&scenario, 1);
    assert!(report.outcomes.not_ready > 1_000, "{report}");
}
