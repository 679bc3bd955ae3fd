//! Streams: what is asked of their owner, step by step, and what holds however they go.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn terms(rows: u64) -> Terms {
    Terms {
        rows,
        part_rows: 8,
        parts_max: 3,
        part_budget: Duration::from_secs(30),
        stall_limit: Duration::from_secs(10),
        until: at(600),
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * SECOND)
}

/// All that can be done without hearing anything.
fn all(stream: &mut Stream, now: Instant) -> Vec<Next> {
    let mut said = Vec::new();
    loop {
        let next = stream.next(now);
        let is_last = matches!(next, Next::Wait { .. } | Next::End(_));
        said.push(next);
        if is_last {
            return said;
        }
    }
}

fn start(part: u64, rows: Range<u64>, due: u64) -> Next {
    Next::Start {
        part: Part(part),
        rows,
        due: at(due),
    }
}

fn offer(part: u64) -> Next {
    Next::Offer { part: Part(part) }
}

fn wait(until: u64) -> Next {
    Next::Wait { until: at(until) }
}

#[test]
fn a_window_of_parts_runs_and_no_more_before_the_oldest_was_taken() {
    let mut stream = Stream::begin(terms(36));
    let begun = [
        start(0, 0..8, 31),
        start(1, 8..16, 31),
        start(2, 16..24, 31),
        wait(600),
    ];
    assert_eq!(all(&mut stream, at(1)), begun);
    // Whatever is answered, nothing starts: the client has taken nothing.
    stream.answered(Part(1));
    assert_eq!(all(&mut stream, at(2)), [wait(600)], "the first is missing");
    stream.answered(Part(0));
    stream.answered(Part(2));
    assert_eq!(all(&mut stream, at(3)), [offer(0), wait(13)]);
    assert_eq!(all(&mut stream, at(4)), [wait(13)], "it is offered once");
    stream.taken();
    let goes_on = [start(3, 24..32, 35), offer(1), wait(15)];
    assert_eq!(all(&mut stream, at(5)), goes_on);
    stream.taken();
    assert_eq!(
        all(&mut stream, at(6)),
        [start(4, 32..36, 36), offer(2), wait(16)],
        "the last part is short"
    );
    stream.taken();
    stream.answered(Part(4));
    stream.answered(Part(3));
    assert_eq!(all(&mut stream, at(7)), [offer(3), wait(17)]);
    stream.taken();
    assert_eq!(all(&mut stream, at(8)), [offer(4), wait(18)]);
    stream.taken();
    assert_eq!(all(&mut stream, at(9)), [Next::End(Ending::Complete)]);
}

#[test]
fn what_fits_a_batch_is_one_part() {
    let mut stream = Stream::begin(terms(8));
    assert_eq!(
        all(&mut stream, at(0)),
        [start(0, 0..8, 30), wait(600)],
        "there is one"
    );
    stream.answered(Part(0));
    assert_eq!(all(&mut stream, at(1)), [offer(0), wait(11)]);
    stream.taken();
    assert_eq!(all(&mut stream, at(700)), [Next::End(Ending::Complete)]);
}

#[test]
fn who_takes_nothing_is_stalled_and_who_takes_a_little_is_not() {
    let mut stream = Stream::begin(terms(80));
    all(&mut stream, at(0));
    stream.moved(at(1));
    stream.taken();
    assert_eq!(all(&mut stream, at(29)), [wait(600)], "nothing is offered");
    stream.answered(Part(0));
    assert_eq!(all(&mut stream, at(30)), [offer(0), wait(40)]);
    stream.moved(at(39));
    assert_eq!(all(&mut stream, at(48)), [wait(49)]);
    assert_eq!(all(&mut stream, at(49)), [Next::End(Ending::Stalled)]);
}

#[test]
fn the_whole_has_an_end_and_no_part_is_due_after_it() {
    let mut stream = Stream::begin(terms(80));
    assert_eq!(stream.next(at(590)), start(0, 0..8, 600));
    all(&mut stream, at(599));
    assert_eq!(all(&mut stream, at(600)), [Next::End(Ending::Late)]);
}

#[test]
fn a_version_that_is_gone_is_pinned_anew_only_if_nothing_was_answered() {
    let mut stream = Stream::begin(terms(80));
    all(&mut stream, at(0));
    stream.gone(Part(1));
    assert_eq!(
        all(&mut stream, at(1)),
        [wait(600)],
        "others may be answered"
    );
    let mut midway = stream.clone();
    stream.gone(Part(0));
    stream.gone(Part(2));
    assert_eq!(all(&mut stream, at(2)), [Next::End(Ending::Gone)]);
    assert!(!stream.has_answered());
    midway.answered(Part(0));
    assert_eq!(all(&mut midway, at(2)), [Next::End(Ending::GoneMidway)]);
    assert!(midway.has_answered());
}

#[test]
#[should_panic(expected = "a part ends once")]
fn a_part_does_not_end_twice() {
    let mut stream = Stream::begin(terms(80));
    all(&mut stream, at(0));
    stream.answered(Part(1));
    stream.answered(Part(1));
}

proptest! {
    /// Whichever part is answered next and however slowly they are taken: every row is started once
    /// and offered once, in order, and what is open stays within the window.
    #[test]
    fn every_row_is_started_and_offered_once_in_order_within_the_window(
        rows in 1u64..200,
        part_rows in 1u64..20,
        parts_max in 1usize..6,
        choices in proptest::collection::vec(any::<proptest::sample::Index>(), 600),
    ) {
        let terms = Terms { rows, part_rows, parts_max, ..terms(rows) };
        let mut stream = Stream::begin(terms);
        let (mut running, mut offered, mut taken) = (Vec::new(), None, 0u64);
        let (mut next_row, mut next_offer) = (0, 0u64);
        let mut choices = choices.into_iter();
        loop {
            match stream.next(at(1)) {
                Next::Start { part, rows, .. } => {
                    prop_assert_eq!(rows.start, next_row);
                    prop_assert_eq!(stream.first_row(part), rows.start);
                    next_row = rows.end;
                    running.push(part);
                    prop_assert!(part.0 + 1 - taken <= parts_max as u64);
                }
                Next::Offer { part } => {
                    prop_assert_eq!(part.0, next_offer);
                    prop_assert_eq!(offered, None);
                    next_offer += 1;
                    offered = Some(part);
                }
                Next::Wait { .. } => {
                    let choice = choices.next().expect("two for each part are enough");
                    let options = running.len() + usize::from(offered.is_some());
                    prop_assert!(options > 0, "nothing would ever be heard");
                    match choice.index(options) {
                        which if which < running.len() => stream.answered(running.remove(which)),
                        _ => {
                            stream.taken();
                            offered = None;
                            taken += 1;
                        }
                    }
                }
                Next::End(ending) => {
                    prop_assert_eq!(ending, Ending::Complete);
                    break;
                }
            }
        }
        prop_assert_eq!(next_row, rows);
        prop_assert_eq!(next_offer, rows.div_ceil(part_rows));
    }
}
