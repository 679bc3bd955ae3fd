//! How attempts end, and exactly what follows.

use paceline_protocol::ErrorCode;

use super::*;

const NOW: Instant = Instant::from_nanos(1_000);
const TERMS: Terms = Terms {
    deadline: Instant::from_nanos(2_000),
    is_idempotent: true,
    is_second: false,
    lost: None,
    criticality: Criticality::Critical,
    tenant: TenantId::DEFAULT,
    sequence: None,
};
const ONCE: Terms = Terms {
    is_idempotent: false,
    ..TERMS
};
const FIRST: Attempt = Attempt(0);
const SECOND: Attempt = Attempt(1);
const AS_IT_IS: Next = Next::End(Ending::AsItIs);
const UNKNOWN: Next = Next::End(Ending::Unknown);
const POISON: Next = Next::End(Ending::Poison);

const FAILED_OVER: Next = Next::Send {
    attempt: SECOND,
    is_alone: true,
    why: Why::Failover,
};
const RETRIED: Next = Next::Send {
    attempt: SECOND,
    is_alone: true,
    why: Why::Retry,
};

fn moved(attempt: Attempt, why: Why) -> Next {
    Next::Send {
        attempt,
        is_alone: attempt == SECOND,
        why,
    }
}

/// Plays the ends of attempts; returns what followed each of them, and whether any of it ran.
fn play(terms: Terms, budget: &mut Budget, ends: &[(Attempt, End)]) -> (Vec<Next>, Execution) {
    let before = *budget;
    let (mut failover, first) = Failover::begin(terms);
    let attempt = if terms.is_second { SECOND } else { FIRST };
    assert_eq!(first, moved(attempt, Why::First));
    let ends = ends.iter();
    let next = ends.map(|(attempt, end)| failover.ended(NOW, *attempt, *end, budget));
    let next = next.collect();
    failover.close(budget);
    assert!(!failover.is_charged());
    assert_eq!(*budget, before, "what was taken is given back");
    (next, failover.execution())
}

fn all(terms: Terms, ends: &[(Attempt, End)]) -> (Vec<Next>, Execution) {
    play(terms, &mut Budget::default(), ends)
}

/// A budget of which nothing is left.
fn spent() -> Budget {
    let mut budget = Budget::default();
    for extra in [Extra::Failover, Extra::Retry] {
        while budget.take(extra) {}
    }
    budget
}

#[test]
fn what_did_not_run_moves_on_three_times_for_free_whatever_it_is() {
    for terms in [TERMS, ONCE] {
        let ends = [(FIRST, End::Gone); 4];
        let (next, execution) = play(terms, &mut spent(), &ends);
        let again = moved(FIRST, Why::Reroute);
        assert_eq!(next, [again, again, again, AS_IT_IS]);
        assert_eq!(execution, Execution::NotExecuted);
    }
}

#[test]
fn a_version_without_replicas_is_gone_only_if_nothing_of_it_ran() {
    let gone = Next::End(Ending::Gone);
    let again = moved(FIRST, Why::Reroute);
    let (next, _) = all(ONCE, &[(FIRST, End::Gone), (FIRST, End::Nowhere)]);
    assert_eq!(next, [again, gone]);
    let (next, _) = all(TERMS, &[(FIRST, End::Nowhere)]);
    assert_eq!(next, [gone], "it went before it was picked");
    let ends = [
        (FIRST, End::Gone),
        (FIRST, End::Lost),
        (SECOND, End::Nowhere),
    ];
    let (next, execution) = all(TERMS, &ends);
    assert_eq!(next, [again, FAILED_OVER, UNKNOWN]);
    assert_eq!(execution, Execution::Unknown);
}

#[test]
fn overload_moves_on_as_far_as_the_budget_goes_and_is_told_as_it_is() {
    let busy = (FIRST, End::Overloaded);
    let again = moved(FIRST, Why::Retry);
    let (next, execution) = all(ONCE, &[busy, busy, busy, busy]);
    assert_eq!(next, [again, again, again, AS_IT_IS]);
    assert_eq!(execution, Execution::NotExecuted);
    assert_eq!(play(TERMS, &mut spent(), &[busy]).0, [AS_IT_IS]);
    let (next, _) = all(TERMS, &[(FIRST, End::Gone), busy, (FIRST, End::Nowhere)]);
    assert_eq!(next[2], AS_IT_IS, "overload was met last");
}

#[test]
fn a_passing_error_is_tried_once_more_alone_and_a_final_one_never() {
    let ends = [(FIRST, End::Passing), (SECOND, End::Passing)];
    let (next, execution) = all(TERMS, &ends);
    assert_eq!(next, [RETRIED, AS_IT_IS]);
    assert_eq!(execution, Execution::Executed);
    assert_eq!(all(ONCE, &ends[..1]).0, [AS_IT_IS]);
    assert_eq!(all(TERMS, &[(FIRST, End::Failed)]).0, [AS_IT_IS]);
    assert_eq!(all(TERMS, &[(FIRST, End::Refused)]).0, [AS_IT_IS]);
    assert_eq!(play(TERMS, &mut spent(), &ends[..1]).0, [AS_IT_IS]);
}

#[test]
fn what_may_have_run_is_told_so() {
    let (next, execution) = all(TERMS, &[(FIRST, End::Left)]);
    assert_eq!(
        (&next[..], execution),
        (&[AS_IT_IS][..], Execution::Unknown)
    );
    let died = [
        (FIRST, End::Died),
        (SECOND, End::Gone),
        (SECOND, End::Nowhere),
    ];
    let (next, execution) = all(TERMS, &died);
    let again = moved(SECOND, Why::Reroute);
    assert_eq!(
        next,
        [FAILED_OVER, again, AS_IT_IS],
        "it is not pinned anew"
    );
    assert_eq!(execution, Execution::Unknown);
    assert_eq!(all(ONCE, &died[..1]).0, [AS_IT_IS]);
}

#[test]
fn who_shared_the_batch_of_an_engine_that_died_runs_again_outside_the_ratio() {
    let mut without_retries = Budget::default();
    while without_retries.take(Extra::Retry) {}
    let (next, _) = play(TERMS, &mut without_retries, &[(FIRST, End::Died)]);
    assert_eq!(next, [FAILED_OVER]);
    for second in [End::Died, End::Lost] {
        let ends = [(FIRST, End::Died), (SECOND, second)];
        assert_eq!(all(TERMS, &ends).0, [FAILED_OVER, POISON], "{second:?}");
    }
    let ends = [(FIRST, End::Died), (SECOND, End::Passing)];
    let (next, execution) = all(TERMS, &ends);
    assert_eq!(next, [FAILED_OVER, AS_IT_IS]);
    assert_eq!(execution, Execution::Executed);
}

#[test]
fn the_only_engine_of_a_version_is_waited_for_while_it_is_started_again() {
    let mut budget = Budget::default();
    let patient = Terms {
        deadline: NOW + 2 * REPLICA_PATIENCE,
        ..TERMS
    };
    let (mut failover, _) = Failover::begin(patient);
    let next = failover.ended(NOW, FIRST, End::Died, &mut budget);
    assert_eq!(next, FAILED_OVER);
    let not_yet = End::NotYet { since: NOW };
    let until = NOW + REPLICA_PATIENCE;
    let waits = Next::Wait {
        attempt: SECOND,
        until,
    };
    assert_eq!(failover.ended(NOW, SECOND, not_yet, &mut budget), waits);
    assert_eq!(failover.resume(NOW, SECOND), FAILED_OVER);
    // It was still there, and dead: nothing of it ran.
    let next = failover.ended(NOW, SECOND, End::Gone, &mut budget);
    assert_eq!(next, moved(SECOND, Why::Reroute));
    assert_eq!(failover.ended(NOW, SECOND, not_yet, &mut budget), waits);
    assert_eq!(
        failover.ended(until, SECOND, not_yet, &mut budget),
        AS_IT_IS
    );
    assert_eq!(failover.execution(), Execution::Unknown);
    assert_eq!(budget, Budget::default());
    // Who may run once only is told at once, and so is whose node is silent.
    assert_eq!(all(ONCE, &[(FIRST, End::Died)]).0, [AS_IT_IS]);
    let ends = [(FIRST, End::Lost), (SECOND, not_yet)];
    assert_eq!(all(TERMS, &ends).0, [FAILED_OVER, UNKNOWN]);
}

#[test]
fn a_silent_node_is_failed_over_once_alone_and_the_second_one_is_poison() {
    let ends = [(FIRST, End::Lost), (SECOND, End::Lost)];
    let (next, execution) = all(TERMS, &ends);
    assert_eq!(next, [FAILED_OVER, POISON]);
    assert_eq!(execution, Execution::Unknown);
    let ends = [
        (FIRST, End::Suspect),
        (SECOND, End::Suspect),
        (SECOND, End::Lost),
        (FIRST, End::Lost),
    ];
    let (next, _) = all(TERMS, &ends);
    assert_eq!(next, [FAILED_OVER, Next::Listen, Next::Listen, POISON]);
}

#[test]
fn whatever_follows_silence_leaves_the_request_unknown() {
    for end in [End::Overloaded, End::Nowhere, End::Refused] {
        let (next, execution) = play(TERMS, &mut Budget::default(), &[(FIRST, End::Lost)]);
        assert_eq!((next, execution), (vec![FAILED_OVER], Execution::Unknown));
        let mut budget = spent();
        budget.give_back(Extra::Failover);
        let (next, execution) = play(TERMS, &mut budget, &[(FIRST, End::Lost), (SECOND, end)]);
        assert_eq!(next, [FAILED_OVER, UNKNOWN], "{end:?}");
        assert_eq!(execution, Execution::Unknown, "{end:?}");
    }
    let mut ends = vec![(FIRST, End::Lost)];
    ends.extend([(SECOND, End::Gone); 4]);
    let (next, execution) = all(TERMS, &ends);
    assert_eq!(next[1..4], [moved(SECOND, Why::Reroute); 3]);
    assert_eq!((next[4], execution), (UNKNOWN, Execution::Unknown));
}

#[test]
fn a_suspect_that_is_lost_or_answers_while_the_second_runs_starts_nothing() {
    for end in [End::Lost, End::Gone, End::Overloaded, End::Passing] {
        let ends = [(FIRST, End::Suspect), (FIRST, end)];
        assert_eq!(all(TERMS, &ends).0, [FAILED_OVER, Next::Listen], "{end:?}");
    }
    let ends = [
        (FIRST, End::Suspect),
        (FIRST, End::Gone),
        (SECOND, End::Lost),
    ];
    let again = Next::Send {
        attempt: FIRST,
        is_alone: true,
        why: Why::Failover,
    };
    let (next, _) = all(TERMS, &ends);
    assert_eq!(next[2], again, "the first did not run after all");
}

#[test]
fn what_may_not_run_twice_is_listened_to_and_then_unknown() {
    let (next, execution) = all(ONCE, &[(FIRST, End::Suspect), (FIRST, End::Lost)]);
    assert_eq!(next, [Next::Listen, UNKNOWN]);
    assert_eq!(execution, Execution::Unknown);
}

#[test]
fn the_second_attempt_of_a_client_is_the_last_execution_and_never_poison() {
    let second = Terms {
        is_second: true,
        ..TERMS
    };
    for (end, next) in [(End::Lost, UNKNOWN), (End::Passing, AS_IT_IS)] {
        let (nexts, execution) = all(second, &[(SECOND, end)]);
        assert_eq!(nexts, [next], "the client's network may be what was lost");
        assert_ne!(execution, Execution::NotExecuted);
    }
    let (next, execution) = all(second, &[(SECOND, End::Gone), (SECOND, End::Nowhere)]);
    let gone = Next::End(Ending::Gone);
    assert_eq!(next, [moved(SECOND, Why::Reroute), gone]);
    assert_eq!(execution, Execution::Unknown, "the first may have run");
}

#[test]
fn a_version_that_has_just_lost_its_replicas_is_given_time_to_have_others() {
    let patient = Terms {
        deadline: Instant::ZERO + Duration::from_secs(10),
        ..ONCE
    };
    let mut budget = Budget::default();
    let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
    let since = at(500);
    let not_yet = End::NotYet { since };
    let until = since + REPLICA_PATIENCE;
    let wait = Next::Wait {
        attempt: FIRST,
        until,
    };
    let (mut failover, _) = Failover::begin(patient);
    assert_eq!(failover.ended(at(700), FIRST, not_yet, &mut budget), wait);
    let again = moved(FIRST, Why::First);
    for round in 0..10 {
        assert_eq!(failover.resume(at(800), FIRST), again);
        let gone = failover.ended(at(800), FIRST, End::Gone, &mut budget);
        assert_eq!(gone, moved(FIRST, Why::Reroute), "round {round}");
        // That it has been to all that there are makes its patience no longer.
        let since = at(800);
        let waits = failover.ended(at(800), FIRST, End::NotYet { since }, &mut budget);
        assert_eq!(waits, wait, "round {round}");
    }
    failover.resume(until, FIRST);
    assert_eq!(failover.ended(until, FIRST, not_yet, &mut budget), AS_IT_IS);
    assert_eq!(failover.execution(), Execution::NotExecuted);

    let (mut failover, _) = Failover::begin(patient);
    let long_ago = End::NotYet { since: at(0) };
    let next = failover.ended(at(2_000), FIRST, long_ago, &mut budget);
    assert_eq!(next, AS_IT_IS, "what has had none for long is told at once");

    let (mut failover, _) = Failover::begin(Terms {
        deadline: at(900),
        ..patient
    });
    let next = failover.ended(at(700), FIRST, not_yet, &mut budget);
    let (attempt, until) = (FIRST, at(900));
    assert_eq!(
        next,
        Next::Wait { attempt, until },
        "never past its deadline"
    );
    assert_eq!(failover.resume(until, FIRST), Next::End(Ending::Late));
}

#[test]
fn what_met_overload_or_has_run_does_not_wait_for_a_replica() {
    let not_yet = End::NotYet { since: NOW };
    let (next, _) = all(TERMS, &[(FIRST, End::Overloaded), (FIRST, not_yet)]);
    assert_eq!(next[1], AS_IT_IS);
    let (next, _) = all(TERMS, &[(FIRST, End::Lost), (SECOND, not_yet)]);
    assert_eq!(next[1], UNKNOWN);
    let (next, _) = all(TERMS, &[(FIRST, End::Suspect), (SECOND, not_yet)]);
    assert_eq!(next[1], Next::Listen);
}

#[test]
fn a_failover_stays_charged_while_it_moves_on() {
    let mut budget = Budget::default();
    let (mut failover, _) = Failover::begin(TERMS);
    failover.ended(NOW, FIRST, End::Lost, &mut budget);
    failover.ended(NOW, SECOND, End::Gone, &mut budget);
    assert_eq!(budget.under_way(Extra::Failover), 1);
    assert!(failover.is_charged());
    failover.ended(NOW, SECOND, End::Passing, &mut budget);
    assert_eq!(budget.under_way(Extra::Failover), 0);
}

#[test]
fn a_storm_of_failovers_queues_for_its_turn() {
    let mut budget = spent();
    let (mut failover, _) = Failover::begin(TERMS);
    let next = failover.ended(NOW, FIRST, End::Lost, &mut budget);
    assert_eq!(next, Next::Queue);
    assert_eq!(failover.again(NOW, &mut budget), Next::Queue);
    budget.give_back(Extra::Failover);
    assert_eq!(failover.again(NOW, &mut budget), FAILED_OVER);
}

#[test]
fn nothing_begins_at_the_deadline() {
    let late = Next::End(Ending::Late);
    for end in [End::Gone, End::Overloaded, End::Passing, End::Lost] {
        let mut budget = Budget::default();
        let (mut failover, _) = Failover::begin(TERMS);
        assert_eq!(
            failover.ended(TERMS.deadline, FIRST, end, &mut budget),
            late
        );
        assert_eq!(failover.again(TERMS.deadline, &mut budget), late);
    }
    assert_eq!(
        all(TERMS, &[(FIRST, End::Late)]),
        (vec![late], Execution::Unknown)
    );
}

#[test]
fn no_sequence_of_ends_executes_more_than_twice_or_keeps_a_charge() {
    let all = [
        End::Gone,
        End::Overloaded,
        End::Refused,
        End::Passing,
        End::Died,
        End::Left,
        End::Suspect,
        End::Lost,
    ];
    let mut sequences = 0;
    for (number, terms) in (0..all.len().pow(6)).zip([TERMS, ONCE].into_iter().cycle()) {
        let mut budget = Budget::default();
        let (mut failover, mut next) = Failover::begin(terms);
        let (mut executions, mut sent, mut rest) = (0, 0, number);
        while let Next::Send { attempt, .. } = next {
            sent += 1;
            let end = all[rest % all.len()];
            rest /= all.len();
            let did_not_run = matches!(end, End::Gone | End::Overloaded | End::Refused);
            executions += u32::from(!did_not_run);
            next = failover.ended(NOW, attempt, end, &mut budget);
        }
        failover.close(&mut budget);
        assert!(
            executions <= 1 + u32::from(terms.is_idempotent),
            "sequence {number}"
        );
        assert!(sent <= 5, "sequence {number} was sent {sent} times");
        assert_eq!(budget, Budget::default(), "sequence {number}");
        sequences += 1;
    }
    assert_eq!(sequences, 262_144);
}

#[test]
fn no_history_of_attempts_that_run_beside_each_other_keeps_a_charge() {
    let ends = [
        End::Gone,
        End::Overloaded,
        End::Refused,
        End::Passing,
        End::Died,
        End::Failed,
        End::Suspect,
        End::Lost,
        End::Nowhere,
    ];
    let mut random = crate::Random::from_seed(11);
    let (mut listened, mut budget) = (0, Budget::default());
    for _ in 0..100_000 {
        let (mut failover, mut next) = Failover::begin(TERMS);
        // What may still end: running, or suspect.
        let mut open: Vec<(Attempt, bool)> = Vec::new();
        for _ in 0..20 {
            match next {
                Next::Send { attempt, .. } => open.push((attempt, false)),
                Next::Listen => listened += 1,
                Next::Queue | Next::Wait { .. } | Next::End(_) => break,
            }
            let at = random.below(open.len() as u64) as usize;
            let (attempt, is_suspect) = open[at];
            let end = ends[random.below(ends.len() as u64) as usize];
            match (end, is_suspect) {
                (End::Suspect, false) => open[at].1 = true,
                (End::Suspect, true) => continue,
                _ => drop(open.remove(at)),
            }
            next = failover.ended(NOW, attempt, end, &mut budget);
            assert!(budget.under_way(Extra::Failover) <= EXECUTIONS_MAX as u32);
        }
        failover.close(&mut budget);
        assert_eq!(budget, Budget::default());
    }
    assert!(listened > 1_000, "{listened}");
}

#[test]
fn what_a_failure_says_is_what_the_attempt_ended_as() {
    use ErrorCode::{
        DeadlineExceeded, EngineFailed, Internal, Overloaded, QueueFull, ShuttingDown, Unsupported,
        VersionGone,
    };
    use Execution::{Executed, NotExecuted, Unknown};
    let table = [
        (VersionGone, NotExecuted, End::Gone),
        (ShuttingDown, NotExecuted, End::Gone),
        (Overloaded, NotExecuted, End::Overloaded),
        (QueueFull, NotExecuted, End::Overloaded),
        (DeadlineExceeded, NotExecuted, End::Refused),
        (Unsupported, NotExecuted, End::Refused),
        (EngineFailed, Executed, End::Passing),
        (Internal, Executed, End::Failed),
        (DeadlineExceeded, Unknown, End::Late),
        (Internal, Unknown, End::Died),
        (EngineFailed, Unknown, End::Died),
    ];
    for (code, execution, end) in table {
        assert_eq!(End::of(code, execution), end, "{code} {execution:?}");
    }
}
